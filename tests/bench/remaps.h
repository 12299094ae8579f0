/* SPDX-License-Identifier: BSD-3-Clause */
/* remaps: stores that hold as many remaps as a benchmark wants. */
#ifndef REMAP_BENCH_REMAPS_H
#define REMAP_BENCH_REMAPS_H

#include "sector.h"
#include "store.h"

/* No two numbers below 2^nr_bits give the same one, and neighbours are far from
 * each other.  (nr_bits is even, or half of it is rounded down.)
 */
extern lba_t remaps_scattered (uint64_t i, unsigned nr_bits);

/* Slots of the store: the first of *ret_nr, which are at most nr. */
extern spare_t remaps_take (struct store *s, uint32_t nr, uint32_t *ret_nr);

/* Of a new store: nr remaps of single sectors, the i-th (slot i) at base and
 * remaps_scattered (i) behind it.  Their data is zero, as the holes of a file.
 */
extern void remaps_record_scattered (struct store *s, uint64_t nr, lba_t base,
                                     unsigned nr_bits);

/* A run of sectors, remapped as the engine does it, with its data. */
extern void remaps_record_run (struct store *s, lba_t lba, uint32_t nr,
                               const uint8_t *data);

#endif /* REMAP_BENCH_REMAPS_H */
