/* SPDX-License-Identifier: BSD-3-Clause */
/* crash-world: a server on two disks, in a world that stops.
 *
 * Purpose:  a trial is a server with its clients, whose requests a seed
 *           chooses, and an oracle that listens.  Before the nth write or flush
 *           the world stops: whatever the server tries from then on fails.
 * Lies:     a trial may be given a disk that lies (crash_lie).  Then what must
 *           not be is no failure, but is counted: the simulator can see.
 * Threads:  the test's own, and for crash_trial.writes_between one that it
 *           waits for.
 */
#ifndef REMAP_CRASH_WORLD_H
#define REMAP_CRASH_WORLD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "crash-oracle.h"
#include "dev-fault.h"

/* Flushes that report success and make nothing durable. */
enum crash_lie {
  CRASH_NO_LIE,
  CRASH_LIE_BACKING,            /* all of the backing */
  CRASH_LIE_RECORDS,            /* of the store, behind data and records */
  CRASH_LIE_FREE_ENTRIES,       /* behind new slots, before they are ready */
  CRASH_LIE_FIRST_SUPER,        /* between the two superblocks */
  CRASH_LIE_REPAIR,             /* behind what opening a store repairs */
};

/* The store's last write before a flush: what a lie goes by. */
enum crash_write {
  CRASH_WRITE_OTHER, CRASH_WRITE_SUPER, CRASH_WRITE_COMMIT,
  CRASH_WRITE_FREE_ENTRIES,
};

struct crash_trial {
  struct fault_rig rig;
  struct crash_oracle oracle;
  uint64_t seed;                /* of the requests */
  unsigned first;               /* sector of the disk that they begin at */
  uint64_t end_bytes;           /* of the disk, but for some good sectors */
  unsigned run_max;             /* sectors in a request, to CRASH_RUN_MAX */
  unsigned flush_percent;       /* of the requests */
  unsigned flush_above;         /* and whenever a cut has more outcomes; or 0 */
  unsigned version;             /* of the last write's content */
  bool flushes_between;         /* another client's flush may complete between
                                   the writes of a request */
  bool writes_between;          /* another client's write may come while a
                                   flush is under way */
  enum crash_lie lie;
  /* crash-world.c: */
  unsigned nr_slot_writes;
  bool is_opening, is_in_flush;
  enum crash_write last_write;
};
#define CRASH_RUN_MAX 6u

/* What was done: by this process, and by all that crash_begin's has forked. */
struct crash_tally {
  _Atomic unsigned nr_states, nr_wrong; /* wrong: not allowed */
  _Atomic unsigned nr_stops, nr_exhausted_stops;        /* cut points */
  _Atomic unsigned nr_failed_tests;
  /* Sectors trimmed but not flushed before a power cut: now zero, as before. */
  _Atomic unsigned nr_trims_kept, nr_trims_lost;
};
extern struct crash_tally crash_here, *crash_all;

/* What was tried on a disk that lies says nothing of the store. */
#define CRASH_COUNT(t, what)                                                  \
  do {                                                                        \
    crash_here.what++;                                                        \
    if ((t)->lie == CRASH_NO_LIE)                                             \
      crash_all->what++;                                                      \
  } while (0)

extern uint64_t crash_seed;     /* of this process: REMAP_TEST_SEED */
extern void crash_begin (uint64_t seed);

/* Where the world stops. */
struct crash_world {
  unsigned nr_calls, stop_at;   /* 0: never */
  bool is_dead;
  bool has_lied;                /* and no flush since was true */
  uint64_t nr_slot_bytes;       /* written to slots */
  struct dev_fault *disk;       /* what was in flight, if it was a change: */
  uint64_t offset, count;
  uint8_t *data;                /* NULL: zeroes */
};
extern struct crash_world crash_world;
extern void crash_world_begin (unsigned stop_at);

/* What must not be: the test fails, or the lie is noticed. */
extern void crash_wrong (const struct crash_trial *t, const char *when,
                         const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

/* Disks: nr_sectors of so many bytes, each with its pattern, and for a store
 * with room for nr_spares.  The oracle watches the sectors from `first` on.
 */
extern void crash_trial_begin (struct crash_trial *t, unsigned nr_sectors,
                               unsigned first, uint32_t sector_bytes,
                               unsigned nr_spares);
extern void crash_trial_end (struct crash_trial *t);
extern void crash_trial_copy (struct crash_trial *to,
                              const struct crash_trial *from);

/* From now on the world may stop for it. */
extern void crash_let_stop (struct crash_trial *t);
extern void crash_let_live (struct crash_trial *t);

/* Make sectors of the trial bad. */
extern void crash_spoil (struct crash_trial *t, unsigned lba, unsigned nr,
                         unsigned how);

/* 0, or -1 with the error set; or: it must be possible. */
extern int crash_try_open (struct crash_trial *t);
extern bool crash_open (struct crash_trial *t, const char *when);

/* Returns how many requests found no spare. */
extern unsigned crash_run (struct crash_trial *t, unsigned nr_requests);
/* The same for writing each sector once. */
extern unsigned crash_fill (struct crash_trial *t);
/* Returns 0 or errno. */
extern int crash_flush (struct crash_trial *t);

/* Flush, close: all is durable. */
extern void crash_settle (struct crash_trial *t);

/* The power fails, by the trial's seed. */
extern void crash_cut_both (struct crash_trial *t);
/* The same while the server runs; what may be left is what now begins. */
extern void crash_cut (struct crash_trial *t);

/* In how many ways a power cut now could leave both disks. */
extern uint64_t crash_nr_outcomes (const struct crash_trial *t);

/* Returns CRASH_LOST or the hash of what is read, which must be in the set. */
extern uint64_t crash_check_read (struct crash_trial *t, unsigned i,
                                  const struct crash_set *allowed,
                                  const char *when, uint8_t *buf);

/* Of all sectors before those that the oracle watches. */
extern uint64_t crash_hash_of_rest (struct crash_trial *t);

/* A number below another one, by the trial's seed. */
extern unsigned crash_pick (struct crash_trial *t, unsigned below);

#endif /* REMAP_CRASH_WORLD_H */
