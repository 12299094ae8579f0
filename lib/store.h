/* SPDX-License-Identifier: BSD-3-Clause */
/* store: the durable copy of the map, and the spare sectors.
 *
 * Purpose:    one object per disk; knows slots, records and sequence numbers,
 *             nothing of errors on the backing or of health.
 * Invariants: S1 A slot's record is written only after its data.
 *             S2 A slot that a record has superseded is not given out again
 *                before a flush has made that record durable.
 *             S3 `durable` on disk is never above what a flush has made so.
 *             S4 Both copies of all that was recorded are written before the
 *                record counts as made; where one of them cannot be, its block
 *                is noted as stale before a flush is answered.
 *             S5 After a failed flush all that it covered is written again; if
 *                that cannot be done, every later one fails, until the store
 *                is opened again: it may be gone for ever.
 *             S6 A record that may or may not be on disk makes the store
 *                FAILED: it takes no further records, so that it is the only
 *                one.  (An NBD server that cannot be reached is sent none: only
 *                one that goes away halfway leaves a doubt.)
 * Locking:    commit mutex (rank 20) around writing records; flush mutex (25)
 *             for who flushes; slots are given out under the map mutex (30),
 *             which the store owns.
 * On disk:    store-format.h, with the crash story.
 */
#ifndef REMAP_STORE_H
#define REMAP_STORE_H

#include <stdbool.h>

#include "dev.h"
#include "identity.h"
#include "lock.h"
#include "map.h"
#include "mark.h"
#include "sector.h"
#include "status.h"
#include "store-codec.h"

struct store;

struct store_options {
  const char *path;
  const struct identity *backing;
  uint64_t spare_bytes;         /* 0: the default */
  const struct mark *mark;      /* what the backing bears; NULL: nothing */
  unsigned timeout_s;           /* of a store on an NBD server */
  bool adopt, new_store;
  bool *ret_created;            /* set if the store was made; may be NULL */
};

/* Open a store, or make it where it is missing; lock it.  *ret_map is the map
 * that it holds.  store-open.c.
 * Errors: EBUSY, EUCLEAN, ESTALE (the store of another disk, or the disk has
 * another store), EEXIST (no store), EINVAL, and others.
 */
extern struct store *store_open (const struct store_options *options,
                                 struct map **ret_map);

/* The same for a device that is open already, which is made a store if it is
 * not longer than 0 bytes.  The store owns dev from now on, also on failure.
 */
extern struct store *store_open_dev (struct dev *dev,
                                     const struct store_options *options,
                                     struct map **ret_map);

/* Note who has the store: the calling process.  After the last fork. */
extern int store_set_owner (struct store *s);

/* Make all durable, note the good order, unlock.  The map is not touched. */
extern void store_close (struct store *s);

/* Close the file and free the memory alone, as a kill does: for the tests. */
extern void store_abandon (struct store *s);

extern uint32_t store_sector_bytes (const struct store *s);

/* What the backing shall bear, to know this store again. */
extern void store_get_mark (const struct store *s, struct mark *ret);

/* Serialises changes of the map; rank 30. */
extern struct lock *store_map_lock (struct store *s);

enum store_purpose {
  STORE_FOR_NEW,                /* a sector that has no spare yet */
  STORE_FOR_REWRITE,            /* may take from what is kept back */
};

/* Take a slot and up to nr - 1 neighbours.  Returns how many, or -1: ENOSPC
 * (also where the file system below is full), or another error.  They are in
 * hand until store_settle or store_untake: where no slot is free, others wait
 * for what comes back of them, so nobody takes slots with some in hand.
 */
extern int store_take (struct store *s, uint32_t nr,
                       enum store_purpose purpose, spare_t *ret_first);

/* Give slots back that were taken but not recorded. */
extern void store_untake (struct store *s, spare_t first, uint32_t nr);

/* nr slots that were taken have their record (or are bad), and what it
 * superseded has been named.
 */
extern void store_settle (struct store *s, uint32_t nr);

/* Slots whose record is superseded: free after the next flush (S2). */
extern void store_supersede (struct store *s, spare_t first, uint32_t nr);

/* Write data into slots that were taken, nr sectors.  Medium errors: try
 * others, and store_mark_bad.
 */
extern int store_write (struct store *s, spare_t first, uint32_t nr,
                        const void *buf);

/* Record sectors: run says which, their state and slots.  buf holds the data
 * that is in the slots (SECTOR_REMAPPED), else NULL.  On failure nothing is
 * recorded, or the store is FAILED (S6) and the slots are in doubt.  Errors:
 * ESHUTDOWN an NBD server cannot be reached, in doubt or not; others.  At most
 * STORE_RECORD_MAX sectors.
 */
extern int store_record (struct store *s, const struct sector_run *run,
                         enum sector_cause cause, const void *buf);

/* May the record of this slot, which could not be made, be on disk or not? */
extern bool store_is_in_doubt (const struct store *s, spare_t slot);

/* Let nr slots stand in for no sector any more: durably on return.  They are
 * the only ones that ever had a record for theirs, which were called lost while
 * they were clean.  Errors: EBADF a slot was used since then, and has failed.
 */
extern int store_forget (struct store *s, spare_t first, uint32_t nr);

/* A slot that was taken cannot be written: never use it again. */
extern int store_mark_bad (struct store *s, spare_t slot);

/* A slot that has a record did not give its data back: when it is superseded it
 * is marked bad, and not used again.
 */
extern void store_note_unreadable (struct store *s, spare_t slot);

/* Read the data of nr neighbouring sectors of the backing from their slots,
 * with their checksums.  Errors: EILSEQ a slot does not hold the sector (it has
 * rotted, or has been given to another one meanwhile); others from the device.
 */
extern int store_read (struct store *s, spare_t first, lba_t lba, uint32_t nr,
                       void *buf);

/* Make every record durable that was made before the call.  Callers that come
 * together share a flush.
 */
extern int store_flush (struct store *s);

/* Fills in store, identity, spares_*, flush_failed, store_failed.  Any thread,
 * takes no lock.
 */
extern void store_get_status (struct store *s, struct status *ret);

/* S2, S3 and the slots' owners against the map; for the tests. */
extern void store_verify (struct store *s, struct map *map);

#endif /* REMAP_STORE_H */
