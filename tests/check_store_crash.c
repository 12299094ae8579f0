/* SPDX-License-Identifier: BSD-3-Clause */
/* The world stops before each write and flush of a server's life; all that may
 * be left of it is opened again and must read as the contract, section 5,
 * allows.  support/crash-sweep.h says how.
 *
 *   REMAP_TEST_STATES=N  try at least N states (2000), in as many processes as
 *                        there are processors; fails if they were fewer
 *   REMAP_TEST_SEED=N    repeats a run
 */
#include <config.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "crash-sweep.h"
#include "store-codec.h"
#include "store-format.h"
#include "store-load.h"

#define STATES_DEFAULT 2000
#define JOBS_MAX 8

static unsigned nr_wanted;      /* states, by all processes */
static unsigned nr_wanted_here; /* by this one */

/* Under valgrind and the like everything takes so much longer. */
static unsigned
slowness (void)
{
  const char *valgrind = getenv ("REMAP_TEST_VALGRIND");
  const char *sanitizer = getenv ("REMAP_SANITIZER");

  if (valgrind && *valgrind)
    return 11;
  if (sanitizer && strstr (sanitizer, "thread"))
    return 12;
  return sanitizer && *sanitizer ? 8 : 1;
}

/* All outcomes of a cut, or few: as many states are wanted, so many of them. */
static struct crash_effort
effort (unsigned most_outcomes)
{
  unsigned thoroughness = nr_wanted / STATES_DEFAULT;

  return (struct crash_effort) {
    .step = slowness (),
    .most_outcomes = MIN (most_outcomes, 4 + 24 * thoroughness),
    .nr_cuts = 1 + MIN (thoroughness, 8u),
    .nr_double_cuts = 1 + MIN (thoroughness / 4, 4u),
  };
}

/* Sweep with one seed after the other up to a share, in percent, of the states
 * that are wanted.
 */
static struct crash_seen
sweep_share (struct crash_trial *t, const struct crash_life *life,
             unsigned most_outcomes, unsigned percent)
{
  struct crash_effort e = effort (most_outcomes);
  struct crash_seen seen;

  do {
    seen = crash_sweep (t, life, &e);
    t->seed = dev_fault_random (&t->seed);
  } while (crash_here.nr_states < nr_wanted_here / 100 * percent);
  return seen;
}

/* The beginnings. */

static void
settle (struct crash_trial *t)
{
  crash_open (t, "first");
  crash_settle (t);
}

/* A server has lived on it. */
static void
settle_used (struct crash_trial *t, unsigned nr_requests)
{
  crash_open (t, "first");
  crash_run (t, nr_requests);
  crash_settle (t);
}

static const uint32_t sector_sizes[] = { 512, 512, 4096 };

/* More bad sectors than spares: slots go round, and some writes fail. */
START_TEST (small_store)
{
  const struct crash_life life = { .nr_requests = 60 };
  struct crash_trial t;

  crash_trial_begin (&t, 56, 0, sector_sizes[_i], 32);
  crash_spoil (&t, 0, 24, DEV_FAULT_BAD_WRITE);
  crash_spoil (&t, 24, 8, DEV_FAULT_BAD);
  crash_spoil (&t, 32, 4, DEV_FAULT_BAD_READ);
  t.flushes_between = _i == 1;
  t.seed = crash_seed + (unsigned) _i;
  settle (&t);
  sweep_share (&t, &life, 64, 8);
  crash_trial_end (&t);
}
END_TEST

/* Fewer sectors than spares, rewritten all the time, hardly ever flushed. */
START_TEST (few_sectors_rewritten)
{
  const struct crash_life life = { .nr_requests = 60 };
  struct crash_trial t;

  crash_trial_begin (&t, 8, 0, 512, 32);
  crash_spoil (&t, 0, 7, DEV_FAULT_BAD_WRITE);
  crash_spoil (&t, 7, 1, DEV_FAULT_BAD);
  t.flushes_between = _i == 1;
  t.writes_between = _i == 2;
  t.seed = crash_seed + (unsigned) _i;
  settle (&t);
  sweep_share (&t, &life, 64, 8);
  crash_trial_end (&t);
}
END_TEST

#define OUTCOMES_MAX 1024u

/* Short requests, soon flushed: as far as the states reach, every outcome of
 * every cut is tried.
 */
START_TEST (all_outcomes)
{
  const struct crash_life life = { .nr_requests = 30 };
  struct crash_trial t;

  crash_trial_begin (&t, 12, 0, 512, 32);
  crash_spoil (&t, 0, 8, DEV_FAULT_BAD_WRITE);
  crash_spoil (&t, 8, 1, DEV_FAULT_BAD);
  crash_spoil (&t, 9, 1, DEV_FAULT_BAD_READ);
  t.run_max = 1;
  t.flush_percent = 30;
  t.flush_above = MIN (OUTCOMES_MAX, effort (OUTCOMES_MAX).most_outcomes) / 32;
  t.writes_between = _i == 1;
  t.seed = crash_seed + (unsigned) _i;
  settle (&t);
  sweep_share (&t, &life, OUTCOMES_MAX, 8);
  if (t.flush_above == OUTCOMES_MAX / 32)
    ck_assert_uint_eq (crash_here.nr_exhausted_stops, crash_here.nr_stops);
  crash_trial_end (&t);
}
END_TEST

#define READY_AT_FIRST 4096

/* The store runs out of slots that are ready. */
START_TEST (readiness_grows)
{
  const unsigned nr_used = READY_AT_FIRST - 8, nr_sectors = nr_used + 40;
  const struct crash_life life = { .nr_requests = 18 };
  uint8_t *buf = calloc (nr_used, 512);
  struct crash_effort e = effort (8);
  struct crash_trial t;

  crash_trial_begin (&t, nr_sectors, nr_used, 512, nr_sectors + 100);
  dev_fault_spoil (t.rig.backing, 0, nr_sectors, DEV_FAULT_BAD_WRITE, 0, 0);
  crash_open (&t, "first");
  ck_assert_int_eq (engine_pwrite (t.rig.engine, buf, (size_t) nr_used * 512,
                                   0, 0), 0);
  crash_settle (&t);
  e.step = slowness () > 1 ? 17 : 2;
  e.nr_double_cuts = 1;
  ck_assert_uint_gt (crash_sweep (&t, &life, &e).nr_ready, READY_AT_FIRST);
  crash_trial_end (&t);
  free (buf);
}
END_TEST

/* Opened with a larger spare-size, as file and as device. */
START_TEST (store_grows)
{
  const struct crash_life life = { .nr_requests = 6 };
  struct crash_trial t;

  crash_trial_begin (&t, 56, 0, 512, 32);
  if (_i == 1) {
    dev_fault_free (t.rig.store);
    t.rig.store = dev_fault_new (&(struct dev_fault_options) {
                                   .size_bytes = 256 << 10,
                                   .kind = DEV_BLOCK, .is_volatile = true });
  }
  crash_spoil (&t, 0, 40, DEV_FAULT_BAD_WRITE);
  crash_spoil (&t, 40, 4, DEV_FAULT_BAD);
  settle_used (&t, 60);
  t.rig.spare_bytes = 64 * 512;
  sweep_share (&t, &life, 256, 4);
  crash_trial_end (&t);
}
END_TEST

/* Let only some slots of an empty store be ready, as in a much larger one: the
 * entries of the others have never been written.
 */
static void
make_unready (struct dev_fault *d, uint32_t nr_ready)
{
  const uint8_t nothing[ENTRY_BYTES] = { 0 };
  struct store_super super;
  uint8_t block[STORE_BLOCK];

  for (unsigned copy = 0; copy < 2; copy++) {
    uint64_t offset = copy == 0 ? 0 : dev_fault_size (d) - STORE_BLOCK;

    dev_fault_peek (d, block, sizeof block, offset);
    ck_assert_ptr_null (store_super_decode (block, copy, &super));
    super.nr_ready = nr_ready;
    store_super_encode (&super, copy, block);
    dev_fault_poke (d, block, sizeof block, offset);
    for (spare_t slot = { nr_ready }; slot.n < store_super_slots (&super);
         slot.n++)
      dev_fault_poke (d, nothing, sizeof nothing,
                      store_entry_at (&super, slot, copy));
  }
}

/* Of a store that is made anew, the first slot is at this sector. */
#define FIRST_SLOT_SECTOR ((STORE_HEAD_BYTES + STORE_BLOCK) / 512)

/* One life: slots become ready, the store fills up, slots go round, and it is
 * made larger; in good order, after a kill, or with bad slots.
 */
START_TEST (whole_life)
{
  const struct crash_life life = {
    .nr_fills = 2, .nr_requests = 15, .grow_to_bytes = 56 * 512,
    .is_killed = _i == 1, .nr_more_requests = 15,
  };
  struct crash_seen seen;
  struct crash_trial t;

  crash_trial_begin (&t, 60, 0, 512, 32);
  crash_spoil (&t, 0, 50, DEV_FAULT_BAD_WRITE);
  crash_spoil (&t, 50, 4, DEV_FAULT_BAD);
  t.seed = crash_seed + (unsigned) _i;
  settle (&t);
  make_unready (t.rig.store, 16);
  for (unsigned slot = 2; _i == 2 && slot < 40; slot += 9)
    dev_fault_spoil (t.rig.store, FIRST_SLOT_SECTOR + slot, 1,
                     DEV_FAULT_BAD_WRITE, 0, 0);
  seen = sweep_share (&t, &life, 64, 8);
  ck_assert_uint_gt (seen.nr_enospc, 0);
  ck_assert_uint_eq (seen.nr_slots, 56 + 8);
  ck_assert_uint_eq (seen.nr_ready, seen.nr_slots);
  ck_assert_uint_gt (seen.nr_filled, seen.nr_slots);
  crash_trial_end (&t);
}
END_TEST

static void
flip (struct dev_fault *d, uint64_t offset)
{
  uint8_t byte;

  dev_fault_peek (d, &byte, 1, offset);
  byte ^= 1;
  dev_fault_poke (d, &byte, 1, offset);
}

/* A copy of superblock or commit sector is damaged, and the world stops while
 * it is repaired, or even while the store is made larger as well: the good copy
 * must not be put at risk.
 */
START_TEST (repair_is_stopped)
{
  const struct crash_life life = { .nr_requests = 0 };
  struct crash_effort e = effort (OUTCOMES_MAX);
  struct crash_trial t;
  uint64_t end;

  crash_trial_begin (&t, 56, 0, 512, 32);
  crash_spoil (&t, 0, 40, DEV_FAULT_BAD_WRITE);
  settle_used (&t, 20);
  end = dev_fault_size (t.rig.store);
  flip (t.rig.store, (const uint64_t[]) { 100, end - 4000, 4100,
                                          end - 8100 }[_i % 4]);
  if (_i >= 4)
    t.rig.spare_bytes = 64 * 512;
  e.step = 1;
  e.nr_cuts = slowness () > 1 ? 8 : 40;
  crash_sweep (&t, &life, &e);
  crash_trial_end (&t);
}
END_TEST

/* The power has failed while a server lived on it. */
static void
begin_after_cut (struct crash_trial *t, uint64_t seed)
{
  crash_trial_begin (t, 24, 0, 512, 32);
  crash_spoil (t, 0, 16, DEV_FAULT_BAD_WRITE);
  crash_spoil (t, 16, 4, DEV_FAULT_BAD);
  t->seed = seed;
  settle (t);
  crash_open (t, "second");
  crash_run (t, 8);
  crash_cut (t);
}

/* The world stops while what a power cut has left is repaired. */
START_TEST (recovery_is_stopped)
{
  const struct crash_life life = { .nr_requests = 2 };
  struct crash_effort e = effort (256);
  uint64_t seed = crash_seed;
  struct crash_trial t;

  e.step = 1;
  do {
    begin_after_cut (&t, dev_fault_random (&seed));
    crash_sweep (&t, &life, &e);
    crash_trial_end (&t);
  } while (crash_here.nr_states < nr_wanted_here / 100 * 8);
}
END_TEST

/* What was trimmed and not flushed is as it was, or zero: both are met. */
START_TEST (trims)
{
  const struct crash_life life = { .nr_requests = 40 };
  struct crash_effort e = effort (32);
  struct crash_trial t;

  e.step = 1;
  for (unsigned round = 0; round < 100 &&
         (crash_here.nr_trims_lost < 3 || crash_here.nr_trims_kept < 3);
       round++) {
    crash_trial_begin (&t, 12, 0, 512, 32);
    crash_spoil (&t, 0, 6, DEV_FAULT_BAD_WRITE);
    t.seed = crash_seed + round;
    t.run_max = 2;
    settle_used (&t, 20);
    crash_sweep (&t, &life, &e);
    crash_trial_end (&t);
  }
  printf ("trimmed, not flushed: %u sectors as before, %u zero\n",
          crash_here.nr_trims_lost, crash_here.nr_trims_kept);
  ck_assert_uint_ge (crash_here.nr_trims_lost, 3);
  ck_assert_uint_ge (crash_here.nr_trims_kept, 3);
}
END_TEST

/* A flush that is missing is noticed. */

static const struct {
  enum crash_lie lie;
  const char *name;
} lies[] = {
  { CRASH_LIE_BACKING, "of the backing" },
  { CRASH_LIE_RECORDS, "behind data and records" },
  { CRASH_LIE_FREE_ENTRIES, "before new slots are ready" },
  { CRASH_LIE_FIRST_SUPER, "between superblocks" },
  { CRASH_LIE_REPAIR, "behind repairs" },
};

/* A beginning, and a life, in which that flush is done. */
static struct crash_life
begin_before_lie (struct crash_trial *t, enum crash_lie lie, uint64_t seed)
{
  if (lie == CRASH_LIE_REPAIR) {
    begin_after_cut (t, seed);
    return (struct crash_life) { .nr_requests = 2 };
  }
  crash_trial_begin (t, 40, 0, 512, 32);
  crash_spoil (t, 0, 30, DEV_FAULT_BAD_WRITE);
  t->seed = seed;
  settle (t);
  make_unready (t->rig.store, 16);
  return (struct crash_life) { .nr_fills = 1, .nr_requests = 5 };
}

START_TEST (missing_flush_is_noticed)
{
  uint64_t seed = crash_seed;
  struct crash_effort e = {
    .step = 1, .most_outcomes = 64, .nr_cuts = 16, .nr_double_cuts = 0,
  };

  for (unsigned round = 0; round < 200 && crash_here.nr_wrong == 0; round++) {
    struct crash_trial t;
    struct crash_life life = begin_before_lie (&t, lies[_i].lie,
                                               dev_fault_random (&seed));

    t.lie = lies[_i].lie;
    crash_sweep (&t, &life, &e);
    crash_trial_end (&t);
  }
  ck_assert_msg (crash_here.nr_wrong > 0,
                 "no flush %s: not noticed in %u states", lies[_i].name,
                 crash_here.nr_states);
  printf ("no flush %s: noticed in state %u\n", lies[_i].name,
          crash_here.nr_states);
}
END_TEST

/* Running. */

static void
run_suite (void)
{
  Suite *suite = suite_create ("store crash");
  TCase *tc = tcase_create ("sweep");
  SRunner *runner;

  tcase_set_timeout (tc, 280);
  tcase_add_loop_test (tc, small_store, 0, 3);
  tcase_add_loop_test (tc, few_sectors_rewritten, 0, 3);
  tcase_add_loop_test (tc, all_outcomes, 0, 2);
  tcase_add_test (tc, readiness_grows);
  tcase_add_loop_test (tc, store_grows, 0, 2);
  tcase_add_loop_test (tc, whole_life, 0, 3);
  tcase_add_loop_test (tc, repair_is_stopped, 0, 8);
  tcase_add_test (tc, recovery_is_stopped);
  tcase_add_test (tc, trims);
  tcase_add_loop_test (tc, missing_flush_is_noticed, 0,
                       sizeof lies / sizeof lies[0]);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  atomic_fetch_add (&crash_all->nr_failed_tests,
                    (unsigned) srunner_ntests_failed (runner));
  srunner_free (runner);
}

/* Each process tries its part of the states, with a seed of its own. */
static void
run_jobs (unsigned nr_jobs)
{
  int status;

  fflush (stdout);
  nr_wanted_here = (unsigned) div_round_up (nr_wanted, nr_jobs);
  for (unsigned i = 0; i < nr_jobs; i++) {
    pid_t pid = fork ();

    if (pid == 0) {
      crash_seed += i * UINT64_C (1000000007);
      run_suite ();
      fflush (stdout);
      _exit (0);
    }
    if (pid == -1)
      perror ("fork");
  }
  for (unsigned i = 0; i < nr_jobs; i++)
    if (wait (&status) == -1 || status != 0)
      atomic_fetch_add (&crash_all->nr_failed_tests, 1);
}

static uint64_t
choose_seed (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  uint64_t seed = given ? strtoull (given, NULL, 0)
    : (uint64_t) time (NULL) * 1000 + (uint64_t) getpid () % 1000;

  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) seed);
  return seed;
}

int
main (void)
{
  const char *states = getenv ("REMAP_TEST_STATES");
  bool is_given = states && *states;
  long nr_processors = sysconf (_SC_NPROCESSORS_ONLN);

  crash_begin (choose_seed ());
  nr_wanted = nr_wanted_here = is_given ? (unsigned) strtoul (states, NULL, 0)
    : STATES_DEFAULT / slowness ();
  if (is_given)
    run_jobs ((unsigned) MAX (MIN (nr_processors, (long) JOBS_MAX), 1L));
  else
    run_suite ();
  printf ("%u cut points, all outcomes tried at %u of them\n",
          crash_all->nr_stops, crash_all->nr_exhausted_stops);
  printf ("%u states tried, %u failures\n", crash_all->nr_states,
          crash_all->nr_failed_tests);
  if (crash_all->nr_states < nr_wanted) {
    printf ("at least %u were wanted\n", nr_wanted);
    return 1;
  }
  return crash_all->nr_failed_tests == 0 ? 0 : 1;
}
