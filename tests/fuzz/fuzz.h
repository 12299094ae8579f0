/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz: what a fuzz target has in common with whoever calls it: libFuzzer,
 * AFL++, or replay.c.
 */
#ifndef REMAP_FUZZ_H
#define REMAP_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* One input.  What must not happen aborts. */
extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

#endif /* REMAP_FUZZ_H */
