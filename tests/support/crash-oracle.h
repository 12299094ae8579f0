/* SPDX-License-Identifier: BSD-3-Clause */
/* crash-oracle: what each sector may read as after the world has stopped.
 *
 * Purpose:  told of every request and how it ended, it knows the contents that
 *           the contract, section 5, allows.
 * Sectors:  counted from the first one that it watches.
 */
#ifndef REMAP_CRASH_ORACLE_H
#define REMAP_CRASH_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Hashes of contents, or CRASH_LOST for EIO. */
#define CRASH_LOST UINT64_C (0)
#define CRASH_SET_MAX 128

struct crash_set {
  unsigned nr;
  uint64_t hash[CRASH_SET_MAX];
};

struct crash_oracle {
  uint32_t sector_bytes;
  unsigned nr;                  /* sectors */
  struct crash_set *killed;     /* after a kill: the last acknowledged one, or
                                   more where a request failed */
  struct crash_set *cut;        /* after a power cut: the last flushed one or
                                   any later one */
  struct crash_set *flushing;   /* what a flush under way makes of cut */
  bool is_flushing;
  bool *trimmed;                /* since the last flush, not written since */
  bool *lost_unrecorded;        /* called lost where no spare was left: only
                                   this life knows, the next one reads it */
  uint64_t rest_hash;           /* of all sectors before the first one */
};

extern uint64_t crash_hash (const void *buf, size_t count);
extern uint64_t crash_hash_of_zeroes (uint32_t nr_bytes);

extern bool crash_set_has (const struct crash_set *s, uint64_t hash);
extern void crash_set_add (struct crash_set *s, uint64_t hash);
extern void crash_set_remove (struct crash_set *s, uint64_t hash);
extern void crash_set_only (struct crash_set *s, uint64_t hash);
extern void crash_sets_copy (struct crash_set *to,
                             const struct crash_set *from, unsigned nr);

extern void crash_oracle_init (struct crash_oracle *o, unsigned nr,
                               uint32_t sector_bytes);
extern void crash_oracle_free (struct crash_oracle *o);
extern void crash_oracle_copy (struct crash_oracle *to,
                               const struct crash_oracle *from);

/* A server begins its life. */
extern void crash_oracle_opened (struct crash_oracle *o);

/* This life has read it so, or as CRASH_LOST: so it is after a kill. */
extern void crash_oracle_read (struct crash_oracle *o, unsigned i,
                               uint64_t hash);

/* A write of this content was acknowledged (r 0), or may have happened. */
extern void crash_oracle_wrote (struct crash_oracle *o, unsigned i,
                                uint64_t hash, int r, bool fua);

/* Only what was acknowledged before a flush began is covered by it. */
extern void crash_oracle_flush_begins (struct crash_oracle *o);
extern void crash_oracle_flush_ends (struct crash_oracle *o, int r);

#endif /* REMAP_CRASH_ORACLE_H */
