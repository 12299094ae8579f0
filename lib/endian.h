/* SPDX-License-Identifier: BSD-3-Clause */
/* endian: little-endian loads and stores on byte buffers of any alignment. */
#ifndef REMAP_ENDIAN_H
#define REMAP_ENDIAN_H

#include <stdint.h>

static inline uint64_t
get_le (const uint8_t *p, unsigned nr_bytes)
{
  uint64_t v = 0;

  for (unsigned i = 0; i < nr_bytes; i++)
    v |= (uint64_t) p[i] << (8 * i);
  return v;
}

static inline void
put_le (uint8_t *p, unsigned nr_bytes, uint64_t v)
{
  for (unsigned i = 0; i < nr_bytes; i++)
    p[i] = (uint8_t) (v >> (8 * i));
}

static inline uint16_t get_le16 (const uint8_t *p) { return (uint16_t) get_le (p, 2); }
static inline uint32_t get_le32 (const uint8_t *p) { return (uint32_t) get_le (p, 4); }
static inline uint64_t get_le48 (const uint8_t *p) { return get_le (p, 6); }
static inline uint64_t get_le64 (const uint8_t *p) { return get_le (p, 8); }
static inline void put_le16 (uint8_t *p, uint16_t v) { put_le (p, 2, v); }
static inline void put_le32 (uint8_t *p, uint32_t v) { put_le (p, 4, v); }
static inline void put_le48 (uint8_t *p, uint64_t v) { put_le (p, 6, v); }
static inline void put_le64 (uint8_t *p, uint64_t v) { put_le (p, 8, v); }

#endif /* REMAP_ENDIAN_H */
