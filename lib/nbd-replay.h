/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-replay: writes that a server has answered, and that may not be durable.
 *
 * Purpose:    NBD does not tell one life of a server from the next.  Where a
 *             connection breaks, what was written since the last good flush may
 *             be gone with the server's memory.  So it is remembered here, and
 *             written again before anything else.
 * Invariants: N1 No two of them touch the same byte: of each byte only what was
 *                answered last is here.  So they may be written again in any
 *                order, and nothing is ever put over something newer.
 *             N2 One that is not durable is not forgotten, unless what is newer
 *                was written to the same place; one that is durable only takes
 *                its place away from older ones.
 *             N3 While they are written again none is dropped: only a link
 *                that is up drops.
 *             N4 What could not be written again is owed: it stays, whatever is
 *                flushed, until it is written or something newer takes its
 *                place; the disk may have older data there.
 * Locking:    none: the owner's.
 */
#ifndef REMAP_NBD_REPLAY_H
#define REMAP_NBD_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was written; several pieces may share it. */
struct replay_data {
  unsigned nr_pieces;
  uint64_t nr_bytes;
  uint8_t bytes[];
};

/* A write, or what newer ones have left of it. */
struct replay_write {
  struct replay_write *previous, *next; /* by number; pieces of one write have
                                           the same */
  struct replay_write *left, *right;    /* a treap, by offset */
  uint32_t weight;
  bool is_owed;                 /* it could not be written again (N4) */
  uint64_t number;              /* counted by replay_add */
  uint64_t offset, count;       /* bytes */
  uint32_t flags;               /* of the command, without FUA and
                                   FAST_ZERO */
  const uint8_t *bytes;         /* NULL: a zeroing */
  struct replay_data *data;     /* that has these bytes */
  struct replay_write *spare;   /* of a new one: should it cut another in two */
};

struct replay {
  struct replay_write *first, *last, *root;
  uint64_t end;                 /* the next one has this number */
  uint64_t nr_bytes;            /* of memory, about */
  size_t nr_owed;
  uint32_t random;
};

/* A copy of a write (data NULL: a zeroing), which nothing refers to yet.  NULL:
 * no memory.
 */
extern struct replay_write *replay_write_new (const void *data, uint64_t count,
                                              uint64_t offset, uint32_t flags);
extern void replay_write_free (struct replay_write *w);

/* It has been answered: remember it, instead of all that was written there
 * before.  is_durable: it was written with FUA, and need not be remembered
 * itself; it is freed (N2).
 */
extern void replay_add (struct replay *r, struct replay_write *w,
                        bool is_durable);

/* All with a number below end are durable, but for what is owed. */
extern void replay_drop (struct replay *r, uint64_t end);
extern void replay_clear (struct replay *r);

/* It could not be written again; it was. */
extern void replay_owe (struct replay *r, struct replay_write *w);
extern void replay_pay (struct replay *r, struct replay_write *w);

/* How much from offset on, up to count, is owed as one, or not.  What is owed
 * is put into buf (NULL: nowhere).
 */
extern uint64_t replay_owed (const struct replay *r, void *buf, uint64_t count,
                             uint64_t offset, bool *ret_is_owed);

/* N1, the order of numbers and of places, and nr_bytes; for the tests. */
extern void replay_verify (const struct replay *r);

#endif /* REMAP_NBD_REPLAY_H */
