/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-replay: writes that a server has answered, and that may not be durable.
 *
 * Purpose:    NBD does not tell one life of a server from the next.  Where a
 *             connection breaks, what was written since the last good flush may
 *             be gone with the server's memory.  So it is remembered here, and
 *             written again before anything else.
 * Invariants: N1 Writes stand in the order in which they were answered.
 *             N2 One that is not durable is not forgotten; one that is durable
 *                is remembered only where an older one stands before it, which
 *                would otherwise be written over it.
 *             N3 While they are being written again none is dropped: only a link
 *                that is up drops.
 * Locking:    none: the owner's.
 */
#ifndef REMAP_NBD_REPLAY_H
#define REMAP_NBD_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct replay_write {
  struct replay_write *next;
  uint64_t number;              /* counted by replay_add */
  uint64_t offset, count;       /* bytes */
  uint32_t flags;               /* of the command, without FUA and
                                   FAST_ZERO */
  bool is_zero;                 /* a zeroing, which has no data */
  uint8_t data[];
};

struct replay {
  struct replay_write *first, *last;
  uint64_t end;                 /* the next one has this number */
  uint64_t nr_bytes;            /* of memory, about */
};

/* A copy of a write (data NULL: a zeroing), which nothing refers to yet.  NULL:
 * no memory.
 */
extern struct replay_write *replay_write_new (const void *data, uint64_t count,
                                              uint64_t offset, uint32_t flags);

/* It has been answered: remember it.  is_durable: it was written with FUA; it
 * may be freed at once (N2).
 */
extern void replay_add (struct replay *r, struct replay_write *w,
                        bool is_durable);

/* All with a number below end are durable. */
extern void replay_drop (struct replay *r, uint64_t end);

/* Do two writes touch the same bytes? */
extern bool replay_overlap (const struct replay_write *a,
                            const struct replay_write *b);

/* N1, and nr_bytes; for the tests. */
extern void replay_verify (const struct replay *r);

#endif /* REMAP_NBD_REPLAY_H */
