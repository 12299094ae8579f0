/* SPDX-License-Identifier: BSD-3-Clause */
/* crash-sweep: stop the world everywhere, and look at what may be left.
 *
 * Purpose:  a server lives until the world stops before its nth write or flush,
 *           for n = 1, 2, ...  Copies of what is left then end in many ways: by
 *           kill -9 (all earlier writes are there), in the middle of that
 *           write, or by power cuts (each sector holds what was last flushed or
 *           anything written since).  Each copy is opened again, and all of its
 *           sectors must read as the oracle allows: that is one state.  Where a
 *           cut has few outcomes they are tried one and all, else some by seed.
 *           Some copies live on, up to another power cut: one more state.
 */
#ifndef REMAP_CRASH_SWEEP_H
#define REMAP_CRASH_SWEEP_H

#include "crash-world.h"

/* What the server goes through, from the start to the end of the world. */
struct crash_life {
  unsigned nr_fills;            /* first each sector is written so often */
  unsigned nr_requests;
  uint64_t grow_to_bytes;       /* then opened with this spare-size, and each
                                   sector is written once; 0: not */
  bool is_killed;               /* and before that it is killed, not closed */
  unsigned nr_more_requests;
};

/* How it ended where the world did not stop. */
struct crash_seen {
  unsigned nr_enospc;           /* requests */
  uint64_t nr_slots, nr_ready;
  uint64_t nr_filled;           /* slots that data went to, one after another */
};

/* How many states are tried. */
struct crash_effort {
  unsigned step;                /* every so many writes or flushes */
  uint64_t most_outcomes;       /* of a cut, to try them all */
  unsigned nr_cuts;             /* by seed, where they are more */
  unsigned nr_double_cuts;      /* the second one while the store is opened */
};

/* Live again and again from this beginning, to stop after stop, until one life
 * is not stopped.  With a lie: until it is noticed.
 */
extern struct crash_seen crash_sweep (const struct crash_trial *start,
                                      const struct crash_life *life,
                                      const struct crash_effort *effort);

#endif /* REMAP_CRASH_SWEEP_H */
