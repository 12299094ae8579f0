/* SPDX-License-Identifier: BSD-3-Clause */
/* model-oracle: what each byte of a disk may be, and which errors are right.
 *
 * Purpose:  told of every request when it begins and when it has ended, and of
 *           every fault that appears or vanishes, it judges what the server
 *           answered by the contract, section 3 and 4.  It does no I/O.
 * Content:  a sector has a list of the writes that it may hold.  A write is
 *           there for certain once it was acknowledged, and undecided if it
 *           failed or was cut off; what a trim leaves is undecided, too.  A
 *           byte that is read may be of any write that had not been followed,
 *           when the read began, by a certain one.
 * Rules:    O1 A sector is of one write as a whole, but for bytes that writes
 *              of a part of it may have changed: never a mix of two.
 *           O2 EIO for a read, or for a write of a part of a sector: only where
 *              a sector may be lost.  It may be if a read of it could fail at
 *              any time since the beginning of its last certain whole write,
 *              or its spare since then.  Any read, where there is a deadline.
 *           O3 ENOSPC for a write that may need a spare, where spares are few
 *              (or were used up by writes with FUA whose flush failed).
 *           O4 Any other error only while a fault with that error was in force
 *              where the request was.
 *           O5 A write of whole sectors has no EIO (but from a flush that
 *              failed, or when the whole disk fails).
 * Time:     ticks: each beginning, end and change of faults is one.
 * Locking:  none: of one thread.
 */

#ifndef REMAP_MODEL_ORACLE_H
#define REMAP_MODEL_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum model_op {
  MODEL_READ, MODEL_WRITE, MODEL_ZERO, MODEL_TRIM, MODEL_FLUSH, MODEL_CACHE,
  MODEL_STATUS, MODEL_NR_OPS
};

/* What a disk (or a store) is told to fail. */
enum { FAULT_READ = 1, FAULT_WRITE = 2, FAULT_TRIM = 4, FAULT_FLUSH = 8 };

struct model_fault {
  unsigned ops;
  uint64_t first, last;         /* sectors of 512 bytes */
  int err;                      /* as it arrives at the server; 0: is slow */
  unsigned times, delay_ms;
  bool until_write, torn;
};

/* What a disk and its server are like. */
struct model_traits {
  uint64_t size;
  uint32_t sector_bytes;        /* what is remapped */
  uint32_t fails_as_one;        /* bytes, at least sector_bytes */
  uint32_t gen;                 /* of t_image.h: what it holds at first */
  bool may_mix;                 /* a page cache mixes old and new: no O1 */
  bool lost_reads_zero;
  bool few_spares;
  bool has_deadline;            /* any read may be too late, and any sector get
                                   a spare for it */
};

struct model_write;

struct model_request {
  enum model_op op;
  uint64_t offset;
  uint32_t count;
  uint32_t gen;                 /* of a write: its number, never used again */
  bool fua, fast, no_hole, whole_reply;
  /* The oracle's: */
  uint64_t started;             /* tick */
  struct model_write *write;
};

struct model_oracle;

struct model_oracle *model_oracle_new (const struct model_traits *traits);
void model_oracle_free (struct model_oracle *o);

/* These change at restarts. */
void model_oracle_set_traits (struct model_oracle *o, bool lost_reads_zero,
                              bool few_spares);

/* The request is about to be sent. */
void model_oracle_begin (struct model_oracle *o, struct model_request *r);

/* It has ended: err is 0, an errno, or MODEL_CUT_OFF (the server was killed).
 * data is what was read.  NULL if that is right, else what is wrong.
 */
#define MODEL_CUT_OFF (-1)
const char *model_oracle_end (struct model_oracle *o,
                              struct model_request *r, int err,
                              const void *data);

/* While block status is under way: may these bytes be called zeroes? */
const char *model_oracle_zero_extent (struct model_oracle *o,
                                      const struct model_request *r,
                                      uint64_t offset, uint64_t count);

/* Is this right for a read that has just ended with EIO? */
bool model_oracle_may_be_lost (struct model_oracle *o,
                               const struct model_request *r);

/* No request is under way, and this sector was read well, as data: so it stays
 * until it is written again.
 */
void model_oracle_settle (struct model_oracle *o,
                          const struct model_request *r, const void *data);

/* These faults are about to be in force; they are now, and no others. */
void model_oracle_faults_appear (struct model_oracle *o,
                                 const struct model_fault *faults, size_t nr);
void model_oracle_faults_are (struct model_oracle *o,
                              const struct model_fault *faults, size_t nr);

/* Spares can be unreadable now, or not any more. */
void model_oracle_store_faults (struct model_oracle *o, bool in_force);

/* The disk fails as a whole now, or not any more. */
void model_oracle_burst (struct model_oracle *o, bool in_force);

/* A new server begins: the old one's flush errors are forgotten. */
void model_oracle_restarted (struct model_oracle *o);

/* How many writes has the fullest of these sectors?  With many it should be
 * written as a whole, with most not at all.
 */
enum { MODEL_CROWD_MANY = 24, MODEL_CROWD_MOST = 54 };
unsigned model_oracle_crowd (const struct model_oracle *o, uint64_t offset,
                             uint64_t count);

/* May this sector of the server have been given a spare; how many may? */
bool model_oracle_was_bad (const struct model_oracle *o, uint64_t lba);
uint64_t model_oracle_nr_bad (const struct model_oracle *o);

#endif /* REMAP_MODEL_ORACLE_H */
