/* SPDX-License-Identifier: BSD-3-Clause */
/* ranges: lock on in-flight ranges of sectors.
 *
 * Purpose:    writers share; whoever decides on a sector (calls it lost, moves
 *             it to a spare, changes a part of it) has it alone.  Readers take
 *             no part: what they read from a spare, its checksum proves.
 * Design:     a writer publishes its range in a slot (its own, mostly, so
 *             nothing is contended) and then looks for exclusive owners; an
 *             exclusive owner publishes itself and then looks for writers.
 *             With sequential consistency at least one sees the other.
 * Invariants: R1 While a range is locked, no writer is inside an overlapping
 *                range, and no overlapping range is locked.
 *             R2 A writer waits only for owners of a range that overlaps.
 *             R3 A thread that waits for a range holds none, shared or
 *                exclusive.  (Else two could wait for each other.)
 * Locking:    rank 10.  Inside, a leaf mutex, for memory operations only.
 */
#ifndef REMAP_RANGES_H
#define REMAP_RANGES_H

#include "sector.h"

struct ranges;
struct range_slot;

struct range_lock {
  uint64_t first, last;         /* sectors, both included */
  struct range_lock *next;
};

extern struct ranges *ranges_new (void);
extern void ranges_free (struct ranges *r);

/* Begin and end a write that does not decide. */
extern struct range_slot *ranges_enter (struct ranges *r, lba_t lba,
                                        uint64_t nr_sectors);
extern void ranges_leave (struct ranges *r, struct range_slot *slot);

/* Have a range alone; lock is the caller's, until ranges_unlock. */
extern void ranges_lock (struct ranges *r, struct range_lock *lock, lba_t lba,
                         uint64_t nr_sectors);
extern void ranges_unlock (struct ranges *r, struct range_lock *lock);

/* The same without waiting, also for who has another range: false where anybody
 * else is in it.
 */
extern bool ranges_try_lock (struct ranges *r, struct range_lock *lock,
                             lba_t lba, uint64_t nr_sectors);
extern void ranges_unlock_tried (struct ranges *r, struct range_lock *lock);
/* Is a writer in a range now, or has somebody it alone (or waits for it)?  A no
 * is worth something to a caller that whoever comes later will notice.
 */
extern bool ranges_is_busy (struct ranges *r, lba_t lba, uint64_t nr_sectors);

#endif /* REMAP_RANGES_H */
