/* SPDX-License-Identifier: BSD-3-Clause */
/* map: where each sector lives, in memory.
 *
 * Purpose:    sector -> clean, or state and spare.  Most of a disk is clean, so
 *             that answer is fastest; the rest is found by binary search.
 * Layout:     the disk is cut into chunks of 2^16 sectors.  A chunk without
 *             entries is a null pointer.  Else it is an immutable array of
 *             runs, eight bytes each: start and length within the chunk (16
 *             bits each), state (2 bits) and spare (30 bits).  A change makes a
 *             new array and publishes it.
 * Invariants: M1 The runs of a chunk ascend and do not overlap.
 *             M2 No two neighbouring runs could be one.
 *             M3 The counts are those of the runs.   (map_verify: M1..M3)
 * Locking:    readers: none (RCU around a search, nothing for a clean chunk);
 *             a reader that stops for ever stops nobody.
 *             map_set: one at a time, the caller holds the map mutex.
 */
#ifndef REMAP_MAP_H
#define REMAP_MAP_H

#include <stdbool.h>
#include <stddef.h>

#include "sector.h"

struct map;

extern struct map *map_new (uint64_t nr_sectors);
extern void map_free (struct map *map);

/* Fill an empty map with runs that ascend and do not overlap; neighbours are
 * joined.  For the one thread that opens a store.
 */
extern int map_load (struct map *map, const struct sector_run *runs,
                     size_t nr_runs);

/* Is every sector of the range clean? */
extern bool map_is_clean (struct map *map, lba_t lba, uint64_t nr_sectors);

/* The first part of the range that is all alike: from lba on, at least one
 * sector, at most nr_sectors.  (Not always the longest: a run ends at the end
 * of its chunk.)
 */
extern void map_next (struct map *map, lba_t lba, uint64_t nr_sectors,
                      struct sector_run *ret_run);

/* The first run at or after from that is not clean.  0, or -1: none. */
extern int map_next_mapped (struct map *map, lba_t from,
                            struct sector_run *ret_run);

/* Change a range.  -1 with ENOMEM: a part of it may be changed. */
extern int map_set (struct map *map, const struct sector_run *run);

/* Sectors in that state; not for SECTOR_CLEAN.  Any thread. */
extern uint64_t map_count (struct map *map, enum sector_state state);

/* Bytes of memory in use. */
extern size_t map_memory (struct map *map);

extern void map_verify (struct map *map);

#endif /* REMAP_MAP_H */
