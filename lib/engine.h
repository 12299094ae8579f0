/* SPDX-License-Identifier: BSD-3-Clause */
/* engine: reads, writes and flushes of a disk that has bad sectors.
 *
 * Purpose:    only here (and in repair.c, its error path) do backing, map,
 *             spares and store meet.  Contract, section 3, is its table.
 * Invariants: E1 A request that meets clean sectors alone takes no lock; a
 *                writer shows itself in the range lock.
 *             E2 Whoever decides on a sector (lost, to a spare, part of it
 *                changed) has it alone (ranges.h), and looks it up again then.
 *             E3 Order: data of the spare, record, map, answer to the client.
 *             E4 Only medium errors remap.
 *             E5 A sector that is mapped is not touched on the backing again
 *                for a request.  It becomes clean again only where it was
 *                called lost and has been read after all (patrol.h).
 *             E6 Nothing is called lost, and no clean sector gets a spare, on
 *                an error that may be the disk's (breaker.h).
 * Errors:     0, or -1 with errno and the thread's error text set.
 * Locking:    any number of threads.
 */
#ifndef REMAP_ENGINE_H
#define REMAP_ENGINE_H

#include "dev.h"
#include "event.h"
#include "map.h"
#include "status.h"
#include "store.h"

struct engine;

struct engine_options {
  unsigned retries;
  bool lost_reads_zero;
  uint64_t deadline_ms;         /* of reads; 0: none */
  /* Told what happens to sectors; called from I/O threads, must not wait. */
  void (*event) (void *opaque, const struct event *event);
  void *opaque;
};

/* The engine owns backing, store and map from now on, also on failure. */
extern struct engine *engine_new (struct dev *backing, struct store *store,
                                  struct map *map,
                                  const struct engine_options *options);

/* Note in the store which process serves it.  After the last fork. */
extern int engine_start (struct engine *e);

/* Wait for reads that are late.  No call may be under way or follow, but
 * engine_flush, engine_get_status and engine_free, which does it too.
 */
extern void engine_stop (struct engine *e);

/* Closes the store (all durable) and the backing. */
extern void engine_free (struct engine *e);

/* Bytes; any offset and count inside the disk.  flags: DEV_FUA, and for zero
 * DEV_MAY_TRIM and DEV_FAST.
 */
extern int engine_pread (struct engine *e, void *buf, size_t count,
                         uint64_t offset);
extern int engine_pwrite (struct engine *e, const void *buf, size_t count,
                          uint64_t offset, unsigned flags);
extern int engine_zero (struct engine *e, uint64_t count, uint64_t offset,
                        unsigned flags);
extern int engine_trim (struct engine *e, uint64_t count, uint64_t offset,
                        unsigned flags);
extern int engine_flush (struct engine *e);
extern int engine_cache (struct engine *e, uint64_t count, uint64_t offset);
extern int engine_extents (struct engine *e, uint64_t count, uint64_t offset,
                           dev_extents_fn *fn, void *opaque);

/* The fields that need no worker; takes no lock. */
extern void engine_get_status (struct engine *e, struct status *ret);

/* As control_source.next_run. */
extern int engine_next_run (struct engine *e, lba_t from,
                            struct sector_run *ret);

/* Invariants of map, spares and store; for the tests, with no I/O under way. */
extern void engine_verify (struct engine *e);

#endif /* REMAP_ENGINE_H */
