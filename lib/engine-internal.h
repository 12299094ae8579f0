/* SPDX-License-Identifier: BSD-3-Clause */
/* engine-internal: what engine.c (the good path) and repair.c (the error path)
 * share.
 */
#ifndef REMAP_ENGINE_INTERNAL_H
#define REMAP_ENGINE_INTERNAL_H

#include <stdatomic.h>

#include "engine.h"
#include "evidence.h"
#include "late-reads.h"
#include "ranges.h"

struct engine {
  /* All constant but for what they point to. */
  struct dev *backing;
  struct store *store;
  struct map *map;
  struct ranges *ranges;
  struct evidence *evidence;
  struct late_reads *late_reads;        /* NULL: there is no deadline */
  struct engine_options options;
  uint64_t size_bytes, nr_sectors;
  uint32_t sector_bytes;
  unsigned sector_shift;
  uint32_t unit_sectors;        /* of a physical sector: what fails as one */
  uint32_t step_sectors;        /* a failed request is taken apart into these */
  _Atomic bool flush_failed;    /* of the backing */
  _Atomic bool failed;          /* map and store differ: no more writes */
};

/* Whole sectors of a request; the last sector of a disk may be short. */
struct span {
  lba_t lba;
  uint64_t nr_sectors;
};

static inline uint64_t
lba_to_bytes (const struct engine *e, lba_t lba)
{
  return lba.n << e->sector_shift;
}

/* Bytes of nr sectors from lba on: fewer where the last one is short. */
static inline uint64_t
sectors_to_bytes (const struct engine *e, lba_t lba, uint64_t nr_sectors)
{
  uint64_t bytes = nr_sectors << e->sector_shift;
  uint64_t rest = e->size_bytes - lba_to_bytes (e, lba);

  return bytes < rest ? bytes : rest;
}

/* Is one of these sectors clean?  A read of them needs the disk then. */
extern bool engine_has_clean (struct engine *e, struct span s);

extern void engine_post (struct engine *e, enum event_kind kind, lba_t lba,
                         uint64_t nr_sectors, int err);

/* A read or write of the backing failed: pass on what is not the medium.
 * Returns whether it is the medium, as far as can be told now, with an event
 * either way.
 */
extern bool engine_is_medium_error (struct engine *e, enum event_kind kind,
                                    lba_t lba, uint64_t nr_sectors);

/* Clean sectors will be changed in place now, by a thread that is in ranges:
 * what reads of them bring later is stale (D2 of late-reads.h).
 */
static inline void
engine_overtake_reads (struct engine *e, lba_t lba, uint64_t nr_sectors)
{
  if (e->late_reads)
    late_reads_overtake (e->late_reads, lba, nr_sectors);
}

/* This thread has given out zeroes for a sector that is lost. */
extern void engine_note_made_up (void);

/* -1, and why it cannot be read. */
extern int engine_lost_error (lba_t lba);

/* engine.c, for repair.c: write whole sectors wherever they live now.
 * nr_touches: how often the request has touched them already.
 * *ret_used_store is set where a spare was written.
 */
extern int engine_write_sectors (struct engine *e, lba_t lba,
                                 uint64_t nr_sectors, const uint8_t *buf,
                                 unsigned flags, unsigned nr_touches,
                                 bool *ret_used_store);

/* repair.c: */

/* Read any part of the disk whose first attempt failed with a medium error. */
extern int repair_read (struct engine *e, uint8_t *buf, size_t count,
                        uint64_t offset);

/* Read sectors whose spare did not answer with their data. */
extern int repair_spare_read (struct engine *e, lba_t lba, uint32_t nr_sectors,
                              uint8_t *buf);

/* Write whole sectors that were clean and could not be written at once; errno
 * says why, and they have been touched nr_touches times.
 */
extern int repair_write (struct engine *e, lba_t lba, uint64_t nr_sectors,
                         const uint8_t *buf, unsigned flags,
                         unsigned nr_touches, bool *ret_used_store);

/* Change a part of one sector of a request: nr_bytes at skip bytes into it; buf
 * NULL: to zero.
 */
extern int repair_write_part (struct engine *e, struct span request, lba_t lba,
                              uint32_t skip, uint32_t nr_bytes,
                              const uint8_t *buf, unsigned flags,
                              bool *ret_used_store);

/* Write whole mapped sectors, at most STORE_RECORD_MAX.  1: some are clean now;
 * nothing is done then.
 */
extern int repair_rewrite (struct engine *e, lba_t lba, uint32_t nr_sectors,
                           const uint8_t *buf);

/* Let mapped sectors (at most STORE_RECORD_MAX) read as zeroes.  1: some are
 * clean now; others may be done then.
 */
extern int repair_zero (struct engine *e, lba_t lba, uint32_t nr_sectors);

/* place.c: */

/* Record a run whose data, if any, is in its slots, and let it count (E3). */
extern int place_commit (struct engine *e, const struct sector_run *run,
                         enum sector_cause cause, const uint8_t *buf);

/* The same for slots in hand, which come back if there is no record of them. */
extern int place_commit_taken (struct engine *e, const struct sector_run *run,
                               enum sector_cause cause, const uint8_t *buf);

/* Give sectors new spares with this data, which may end with the disk, within a
 * sector.
 */
extern int place_data (struct engine *e, lba_t lba, uint64_t nr_sectors,
                       const uint8_t *buf, enum sector_cause cause,
                       enum store_purpose purpose);

/* Call clean sectors lost.  Without a spare for them they are lost in memory
 * alone: that is enough to leave the bad spot in peace.
 */
extern void place_lost (struct engine *e, lba_t lba, uint64_t nr_sectors,
                        int err);

/* Give clean sectors that the caller has alone a spare with this data, durably:
 * they may no longer have it themselves.  -1: that cannot be done, they are lost,
 * and the log says so.
 */
extern int place_rescue (struct engine *e, lba_t lba, uint64_t nr_sectors,
                           const uint8_t *buf);

/* Sectors (at most STORE_RECORD_MAX) that were called lost have been read after
 * all: if they are lost still, in these slots, they are clean again.  -1: they
 * stay lost.
 */
extern int place_forget (struct engine *e, lba_t lba, spare_t slot,
                         uint32_t nr_sectors);

/* A read has come back late: keep what is still true of it in spares. */
extern void place_late (struct engine *e, struct late_read *read);

#endif /* REMAP_ENGINE_INTERNAL_H */
