/* SPDX-License-Identifier: BSD-3-Clause */
/* evidence: find out whether an error is the sector's or the disk's.
 *
 * Purpose:    probes of the disk, shared by all that need one; the breaker
 *             (breaker.h) draws the conclusions.  A read is probed by reading
 *             places that were good a moment ago, far from each other; a write
 *             by reading such a place and writing back what was read.  One good
 *             answer is enough.
 * Invariants: V1 One probe at a time; who needs one that begins later waits
 *                for it and then makes its own.
 *             V2 A write-back is done by whoever has the place alone, to sectors
 *                that are clean, and while there are spares.  If it fails, what
 *                was read there is put into a spare where it can no longer be
 *                read as it was.
 *             V3 The clean path (evidence_note_good) takes no lock.
 * Locking:    a leaf mutex, for the breaker and the list of losses.  Places to
 *             be written back are locked with ranges_try_lock, so that who has
 *             a range already may ask for evidence.
 */
#ifndef REMAP_EVIDENCE_H
#define REMAP_EVIDENCE_H

#include <stdatomic.h>

#include "breaker.h"
#include "lock.h"
#include "losses.h"
#include "sector.h"

struct engine;

#define EVIDENCE_REGIONS 16

/* The last place in a part of the disk that was read or written well. */
struct good_place {
  _Atomic uint64_t lba;         /* UINT64_MAX: none is known */
} __attribute__ ((aligned (64)));

struct evidence {
  unsigned region_shift;        /* sectors -> region */
  unsigned nr_regions;
  _Atomic int state;            /* enum breaker_state: a copy */
  struct good_place places[EVIDENCE_REGIONS];

  struct lock lock;
  pthread_cond_t changed;       /* a probe has ended */
  pthread_cond_t has_news;      /* for evidence_wait */
  /* Under lock: */
  struct breaker breaker;
  struct losses losses;
  bool is_probing, is_news, is_stopped;
  bool is_looking;              /* a second look is being taken */
  int err;                      /* of the last probe that failed */
  uint64_t nr_probes;
  /* Of whoever is probing: */
  uint64_t scratch;             /* a unit that a write-back has hurt, and that
                                   lives in spares now; UINT64_MAX: none */
  uint8_t *scratch_data;        /* what it held */
  unsigned nr_scratch_failures;
};

extern struct evidence *evidence_new (uint64_t nr_sectors);
extern void evidence_free (struct evidence *v);

/* One place in sixteen is remembered, and the first of a region. */
static inline void
evidence_note_good (struct evidence *v, lba_t lba)
{
  _Atomic uint64_t *place = &v->places[lba.n >> v->region_shift].lba;

  if (((lba.n >> 3) * UINT64_C (0x9e3779b97f4a7c15)) >> 60 == 0 ||
      atomic_load_explicit (place, memory_order_relaxed) == UINT64_MAX)
    atomic_store_explicit (place, lba.n, memory_order_relaxed);
}

static inline enum breaker_state
evidence_state (const struct evidence *v)
{
  return (enum breaker_state) atomic_load_explicit (&v->state,
                                                    memory_order_relaxed);
}

/* Does the disk not answer to such requests at all, as far as is known? */
static inline bool
evidence_refuses (const struct evidence *v, enum breaker_op op)
{
  enum breaker_state state = evidence_state (v);

  return state == BREAKER_OPEN ||
    (state == BREAKER_READ_ONLY && op == BREAKER_WRITE);
}

/* A client's request was answered while the breaker was not closed. */
extern void evidence_note_answer (struct engine *e, enum breaker_op op);

/* The request that has failed: no probe touches its sectors, which may be bad as
 * well, but for a place that it found good just now.
 */
struct evidence_scope {
  lba_t lba;
  uint64_t nr_sectors;
  uint64_t good;                /* UINT64_MAX: none */
};

/* The last attempt at these sectors failed with err, a medium error, before the
 * call.  0: they are bad; -1: the disk does not answer, errno is err or what the
 * probe got.  Blocks while the disk is probed.
 */
extern int evidence_get (struct engine *e, enum breaker_op op,
                         const struct evidence_scope *scope, lba_t lba,
                         uint64_t nr_sectors, int err);

/* Sectors that were clean are now lost, in these slots. */
extern void evidence_note_lost (struct evidence *v, lba_t lba, spare_t slot,
                                uint64_t nr_sectors);

/* For patrol: */

/* What is to be done now, if anything: a probe, or a second look, at losses
 * since *ret_since_ns.  Else *ret_due_ns is when to ask again.
 */
enum evidence_work { EVIDENCE_NOTHING, EVIDENCE_PROBE, EVIDENCE_LOOK };
extern enum evidence_work evidence_get_work (struct evidence *v,
                                             uint64_t now_ns,
                                             uint64_t *ret_since_ns,
                                             uint64_t *ret_due_ns);

/* Probe the disk, as its state asks for. */
extern void evidence_probe (struct engine *e);

/* Take a loss to be looked at, the newest first. */
extern bool evidence_take_loss (struct evidence *v, uint64_t since_ns,
                                struct loss *ret);

/* It could not be looked at: after a pause, then, with all since since_ns. */
extern void evidence_give_loss (struct evidence *v, struct loss loss,
                                uint64_t since_ns, unsigned pause_s);

/* Wait until then, or until there is other work.  false: it is to end. */
extern bool evidence_wait (struct evidence *v, uint64_t due_ns);
extern void evidence_stop (struct evidence *v);

#endif /* REMAP_EVIDENCE_H */
