/* SPDX-License-Identifier: BSD-3-Clause */
/* late-reads: reads that the disk sits on.
 *
 * Purpose:    with a deadline, a read of the disk runs on a thread of its own
 *             ("remap-read") into a buffer of its own, and whoever wants it
 *             waits for it so long and no longer.  A read that is late stays
 *             with its thread; what becomes of its data, its owner decides.
 *             Knows nothing of map and store.
 * Invariants: D1 A read is registered before it touches the disk, and until
 *                its data has been kept or given up.
 *             D2 Whoever changes clean sectors in place (write, zero, trim)
 *                first shows itself in ranges.h, then marks the registered
 *                reads of these sectors, then touches the disk, and only then
 *                leaves.
 *             D3 A read that is registered looks into ranges.h, before it
 *                touches the disk; if somebody is in there at its sectors,
 *                nothing of it is ever kept.
 *             D4 Late data of a sector is kept only by a thread that has the
 *                sector alone, finds it clean, and then finds no mark.
 *             D5 What a reader waits for, it copies itself: nobody else
 *                touches the buffer of a client.
 *             D6 A read that wants a sector for which a read is late, without
 *                a mark, does not touch the disk before that read has ended.
 * Why no late data is stale: let a change C of a sector end after the read R
 *             of it has touched the disk, or be under way then.  C has left
 *             the range when D4 has the sector alone, or finds it mapped later
 *             and does not touch the disk.  It has left it after R looked (D3),
 *             or R would have read what C wrote.  If C was inside when R
 *             looked, nothing is kept.  Else it came inside later, thus after
 *             R was registered, and marked R (D2).
 * Limits:     while 64 reads are late, or their buffers are 256 MiB, no other
 *             one begins: it waits for room until its own deadline.  So there
 *             are never more threads than that and one for each caller.
 * Locking:    a leaf mutex, for memory operations only.
 */
#ifndef REMAP_LATE_READS_H
#define REMAP_LATE_READS_H

#include <stddef.h>

#include "ranges.h"
#include "sector.h"

#define LATE_READS_MAX 64
#define LATE_READS_BYTES_MAX (UINT64_C (256) << 20)

struct late_reads;
struct late_read;               /* one of them */

struct late_reads_owner {
  /* Read whole sectors, nr_bytes of them (the last one may be short).  0, or -1
   * with the error set.  *ret_is_data: all of it is what the sectors hold.
   */
  int (*read) (void *opaque, lba_t lba, uint64_t nr_bytes, uint8_t *buf,
               bool *ret_is_data);
  /* What a read that is not answered in time fails with. */
  int (*errno_of_late) (void *opaque);
  /* A read has come back late, with data: keep it, or do not. */
  void (*came_late) (void *opaque, struct late_read *read);
  void *opaque;
  const char *name;             /* of the disk, for messages */
};

/* Makes no thread, so that the process may still fork. */
extern struct late_reads *late_reads_new (uint64_t deadline_ms,
                                          struct ranges *ranges,
                                          const struct late_reads_owner *owner);

/* Waits until all reads have ended, late ones too: a read that is stuck in the
 * kernel cannot be called off.  NULL is allowed.
 */
extern void late_reads_free (struct late_reads *l);

/* Sectors, nr_bytes of them, of which count bytes after the first skip are
 * wanted.
 */
struct late_reads_request {
  lba_t lba;
  uint64_t nr_sectors, nr_bytes;
  size_t skip, count;
};

/* Read.  0, -1 with the error set (EIO: not in time), or 1: there is no memory
 * or no thread, the caller shall read by itself.
 */
extern int late_reads_do (struct late_reads *l,
                          const struct late_reads_request *request, void *buf);

/* Sectors will be changed in place now, by somebody who is in ranges (D2). */
extern void late_reads_overtake (struct late_reads *l, lba_t lba,
                                 uint64_t nr_sectors);

/* For came_late: what was read, and how long it took. */
extern lba_t late_read_lba (const struct late_read *read);
extern uint64_t late_read_nr_sectors (const struct late_read *read);
extern const uint8_t *late_read_data (const struct late_read *read);
extern unsigned late_read_took_s (const struct late_read *read);

/* From lba on, which is one of the read's: how many sectors, at most
 * nr_sectors, are marked, or not, as the first one is.
 */
extern uint64_t late_read_next (struct late_reads *l,
                                const struct late_read *read, lba_t lba,
                                uint64_t nr_sectors, bool *ret_is_overtaken);

/* How many reads are late now; for the tests. */
extern unsigned late_reads_count (struct late_reads *l);

#endif /* REMAP_LATE_READS_H */
