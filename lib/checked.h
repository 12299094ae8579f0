/* SPDX-License-Identifier: BSD-3-Clause */
/* checked: overflow-checked arithmetic and rounding. */
#ifndef REMAP_CHECKED_H
#define REMAP_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

#define ADD_OVERFLOWS(a, b, ret) __builtin_add_overflow ((a), (b), (ret))
#define MUL_OVERFLOWS(a, b, ret) __builtin_mul_overflow ((a), (b), (ret))

#define MIN(a, b)                                                             \
  ({                                                                          \
    __typeof__ (a) min_a_ = (a);                                              \
    __typeof__ (b) min_b_ = (b);                                              \
    min_a_ < min_b_ ? min_a_ : min_b_;                                        \
  })
#define MAX(a, b)                                                             \
  ({                                                                          \
    __typeof__ (a) max_a_ = (a);                                              \
    __typeof__ (b) max_b_ = (b);                                              \
    max_a_ > max_b_ ? max_a_ : max_b_;                                        \
  })

static inline bool
is_power_of_2 (uint64_t v)
{
  return v != 0 && (v & (v - 1)) == 0;
}

/* unit is a power of two in the four below. */
static inline bool
is_aligned (uint64_t v, uint64_t unit)
{
  return (v & (unit - 1)) == 0;
}

static inline uint64_t
round_down (uint64_t v, uint64_t unit)
{
  return v & ~(unit - 1);
}

/* The caller knows that v + unit does not overflow. */
static inline uint64_t
round_up (uint64_t v, uint64_t unit)
{
  return round_down (v + unit - 1, unit);
}

static inline unsigned
log2_of (uint64_t power_of_2)
{
  return (unsigned) __builtin_ctzll (power_of_2);
}

static inline uint64_t
div_round_up (uint64_t v, uint64_t unit)
{
  return v / unit + (v % unit != 0);
}

#endif /* REMAP_CHECKED_H */
