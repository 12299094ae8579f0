/* SPDX-License-Identifier: BSD-3-Clause */
/* clock: time that never goes back. */
#ifndef REMAP_CLOCK_H
#define REMAP_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS UINT64_C (1000000)
#define NS_PER_S UINT64_C (1000000000)

/* Nanoseconds of CLOCK_MONOTONIC.  Any thread; cannot fail. */
static inline uint64_t
clock_now_ns (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (uint64_t) now.tv_sec * NS_PER_S + (uint64_t) now.tv_nsec;
}

#endif /* REMAP_CLOCK_H */
