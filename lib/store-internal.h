/* SPDX-License-Identifier: BSD-3-Clause */
/* store-internal: the store's fields, for store.c (which serves), store-write.c
 * (which writes metadata), store-open.c (which makes and repairs),
 * store-backing.c (which looks whose it is) and store-rewrite.c (which copes
 * with failed flushes).
 */
#ifndef REMAP_STORE_INTERNAL_H
#define REMAP_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "spares.h"
#include "store-codec.h"
#include "store-load.h"
#include "store.h"

struct slot_range {
  spare_t first;
  uint32_t nr;
};

struct pending {
  struct slot_range *ranges;
  size_t nr, max;
};

struct unflushed_entry {
  spare_t slot;
  bool is_new;                  /* with its data; else a copy was repaired */
  struct store_entry entry;
};

/* Entries that were written, counted from the opening on.  Those below
 * nr_durable are; entries[0] is number `first`.  A gap between them: more than
 * could be remembered.
 */
struct unflushed {
  struct unflushed_entry *entries;
  size_t nr, max;
  uint64_t first, nr_durable;
};

/* Of this life of the store: earlier ones are tried again at each start. */
struct bad_blocks {
  uint64_t offsets[STORE_STALE_MAX];    /* in bytes */
  unsigned nr;
};

struct store {
  struct dev *dev;              /* constant */
  char path[256];
  _Atomic uint64_t seq_recorded;        /* all up to here are written */
  _Atomic uint64_t seq_durable;         /* all up to here are durable */
  _Atomic bool failed, flush_failed;
  struct slot_range in_doubt;   /* whose record made it fail: constant then */
  _Atomic bool has_new_stale;   /* stale blocks not durably noted as such */
  _Atomic bool has_suspects;    /* a failed flush came while slots were in
                                   hand: their data may be lost */
  _Atomic uint32_t nr_bad;
  _Atomic uint32_t nr_pending;          /* slots in pending */
  uint32_t nr_kept;

  struct lock commit;           /* rank 20: */
  struct store_super super;     /* sections: constant after opening */
  struct store_commit commit_record;
  struct unflushed unflushed;
  struct bad_blocks bad_blocks; /* of metadata, cannot be written */

  struct lock flush;            /* rank 25: */
  pthread_cond_t flushed;
  uint64_t nr_started, nr_done; /* flushes, counted */
  uint64_t last_good;           /* the last of them that succeeded */
  bool is_flushing;

  struct lock map_lock;         /* rank 30: */
  struct spares *spares;
  struct pending pending;       /* superseded: free after the next flush */
  struct slot_list unreadable;  /* not to be used again */
  bool has_unlisted;            /* there was no memory to add one to it */
  uint32_t nr_in_hand;          /* taken, not yet settled */
  pthread_cond_t slots_changed;
  bool said_25, said_10, said_0;        /* warnings of few spares */
};

/* Write both copies of nr neighbouring entries, e[i] for slot first + i. */
extern int store_write_entries (struct store *s, spare_t first, uint32_t nr,
                                const struct store_entry *e);

/* One copy of one entry; for repairs. */
extern int store_write_entry_copy (struct store *s, spare_t slot,
                                   unsigned copy, const struct store_entry *e);

/* Mend the block around `to`, from that around `from`, its other copy; where
 * that cannot be done, it is noted.
 */
extern int store_mend_block (struct store *s, uint64_t from, uint64_t to);

/* Write both copies of the superblock, one durable before the other begins.
 * Where one is damaged it must be the first; else the second, because growing
 * makes a new one there, which counts only once the first is written.
 */
extern int store_write_super (struct store *s, unsigned first_copy);

/* Write both copies of the commit sector; not durable on return. */
extern int store_write_commit (struct store *s);

/* Flush the device; where that fails, write again what it covered. */
extern int store_flush_dev (struct store *s);

/* Initialise the entries of more slots, durably. */
extern int store_make_ready (struct store *s, uint64_t nr_ready);

/* Warn if few spares are left, and that was not said before.  store.c. */
extern void store_tell_few_left (struct store *s);

/* store-rewrite.c; the commit mutex is held.
 *
 * Entries that have just been written; up to where they were noted; all up to
 * there are durable.
 */
extern void store_note_unflushed (struct store *s, spare_t first, uint32_t nr,
                                  const struct store_entry *e, bool is_new);
extern uint64_t store_unflushed_end (const struct store *s);
extern void store_flushed_until (struct store *s, uint64_t end);

/* A block cannot be written (or can be again): it is stale, which the next
 * commit sector says.  `other` is its other copy, which has been written: never
 * are both of them stale.  -1 (EOVERFLOW): there are too many.
 */
extern int store_note_bad_block (struct store *s, uint64_t offset,
                                 uint64_t other);
extern void store_forget_bad_block (struct store *s, uint64_t offset);

/* All copies have been repaired, durably, but for what was noted meanwhile. */
extern void store_renew_stale (struct store *s);

/* Does a block that cannot be written lie here? */
extern bool store_has_bad_block (const struct store *s, uint64_t offset,
                                 uint64_t nr_bytes);

/* A flush has failed (errno): write again, durably, what it covered.  -1: that
 * cannot be done either.
 */
extern int store_write_again (struct store *s);
/* Mend what image, just loaded from dev, says is to be mended, as a start of
 * the server does, for nobody to serve: all else stays as it is.  dev stays
 * open.  store-open.c.
 */
extern int store_repair (struct dev *dev, const char *path,
                         const struct store_image *image);

/* Set the error EBUSY, which names the server that has the store.
 * store-open.c.
 */
extern void store_explain_busy (const char *path);

/* store-backing.c.
 *
 * What the superblock says of the backing; do two of them say the same?
 */
extern void store_describe_backing (struct store_super *super,
                                    const struct identity *backing);
extern bool store_is_described_alike (const struct store_super *a,
                                      const struct store_super *b);

/* Is this the store of the disk, as the options will have it?  May a new one be
 * made for it?  Both tell the log what is overruled.  Errors: ESTALE, EINVAL.
 */
extern int store_check_backing (const struct store_image *image,
                                const struct store_options *o);
extern int store_check_may_make (const struct store_options *o);

/* Free the memory and the dev. */
extern void store_destroy (struct store *s);

#endif /* REMAP_STORE_INTERNAL_H */
