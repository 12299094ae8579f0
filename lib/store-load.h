/* SPDX-License-Identifier: BSD-3-Clause */
/* store-load: read a whole store and decide what it says.  Writes nothing.
 *
 * Purpose:    one reader for the server (which then repairs), for remapctl and
 *             for the check.
 * Invariants: the rules "which record counts" of store-format.h; every
 *             deviation from a perfect store is told to the problem function,
 *             in the order of the slots.
 * Memory:     40 bytes for each record while it is under way, 24 for each run
 *             afterwards.
 * Locking:    none.  A thread that lives no longer than the call reads the
 *             table ahead; all else is done by the caller's.
 */
#ifndef REMAP_STORE_LOAD_H
#define REMAP_STORE_LOAD_H

#include <stddef.h>

#include "dev.h"
#include "sector.h"
#include "store-codec.h"
#include "store-slots.h"

/* remap.h shows the same numbers. */
enum store_damage {
  STORE_NORMAL = 0,             /* a crash leaves it, every start settles it */
  STORE_REPAIRABLE = 1,         /* the other copy serves */
  STORE_LASTING = 2,            /* nothing mends it, but the store is of use */
  STORE_FATAL = 3,              /* of no use; a load fails with this text */
};

/* damage: enum store_damage. */
typedef void store_problem_fn (void *opaque, int damage, const char *problem);

/* An entry that is to be written anew. */
struct store_fix {
  spare_t slot;
  bool copy[2];                 /* which copies */
  struct store_entry entry;
};

struct slot_list {
  uint32_t *slots;
  size_t nr, max;
};

/* -1 with the error set: no memory. */
extern int slot_list_add (struct slot_list *list, spare_t slot);

struct store_image {
  struct store_super super;
  struct store_commit commit;
  unsigned super_copy;          /* which copy of the superblock serves */
  bool super_is_alone;          /* the other copy is damaged */
  bool super_needs_write, commit_needs_write;
  uint64_t max_seq;
  struct sector_run *runs;      /* ascending: the map */
  size_t nr_runs;
  uint64_t nr_remapped, nr_lost, nr_zeroed;     /* sectors */
  struct slot_list bad_slots;
  struct slot_list unreadable;  /* have a record, but lost their data */
  struct store_fix *fixes;
  size_t nr_fixes;
};

/* Read the store on dev.  fn may be NULL.
 * Errors: EEXIST it is no store; EUCLEAN it is damaged; ENOMEM; others of dev.
 */
extern int store_load (struct dev *dev, const char *path,
                       store_problem_fn *fn, void *opaque,
                       struct store_image *ret);
extern void store_image_free (struct store_image *image);

/* Which process noted that it serves the store at path?  0: unknown.  For
 * messages; takes no lock.
 */
extern unsigned store_owner (const char *path);

/* The UUID of the store at path, served or not.  Takes no lock. */
extern int store_uuid (const char *path, uint8_t ret[STORE_UUID_BYTES]);

#endif /* REMAP_STORE_LOAD_H */
