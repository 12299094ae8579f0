/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c: the Castagnoli CRC (RFC 3720, appendix B.4; "123456789" gives
 * E3069283), computed by ISA-L with the best instructions of the CPU.
 */
#ifndef REMAP_CRC32C_H
#define REMAP_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of buf, carried on from crc (0 to begin). */
extern uint32_t crc32c (uint32_t crc, const void *buf, size_t nr_bytes);

#endif /* REMAP_CRC32C_H */
