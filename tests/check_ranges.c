/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "lock.h"
#include "ranges.h"

/* For loops that run a million times: ck_assert itself makes a system call. */
#define ASSERT_QUICKLY(cond)                                                  \
  do {                                                                        \
    if (!(cond))                                                              \
      ck_abort_msg ("not true: %s", #cond);                                   \
  } while (0)

static struct ranges *ranges;

static void
make_ranges (void)
{
  ranges = ranges_new ();
}

static void
free_ranges (void)
{
  ranges_free (ranges);
}

/* A thread that has a range, as a writer or alone, until it is let go. */
struct owner {
  pthread_t thread;
  uint64_t first, last;
  bool is_exclusive;
  const atomic_bool *not_before;        /* must be set once it is inside */
  atomic_bool has_begun, is_inside, may_leave;
};

static void
wait_until (const atomic_bool *flag)
{
  while (!atomic_load (flag))
    sched_yield ();
}

static void
stay_inside (struct owner *o)
{
  if (o->not_before)
    ASSERT_QUICKLY (atomic_load (o->not_before));
  atomic_store (&o->is_inside, true);
  wait_until (&o->may_leave);
}

static void *
own (void *opaque)
{
  struct owner *o = opaque;
  lba_t lba = { o->first };
  uint64_t nr = o->last - o->first + 1;

  atomic_store (&o->has_begun, true);
  if (o->is_exclusive) {
    struct range_lock lock;

    ranges_lock (ranges, &lock, lba, nr);
    stay_inside (o);
    ranges_unlock (ranges, &lock);
  }
  else {
    struct range_slot *slot = ranges_enter (ranges, lba, nr);

    stay_inside (o);
    ranges_leave (ranges, slot);
  }
  return NULL;
}

static void
start (struct owner *o, bool is_exclusive, uint64_t first, uint64_t last)
{
  o->first = first;
  o->last = last;
  o->is_exclusive = is_exclusive;
  ck_assert_int_eq (pthread_create (&o->thread, NULL, own, o), 0);
}

static void
start_and_wait (struct owner *o, bool is_exclusive, uint64_t first,
                uint64_t last)
{
  start (o, is_exclusive, first, last);
  wait_until (&o->is_inside);
}

static void
finish (struct owner *o)
{
  atomic_store (&o->may_leave, true);
  pthread_join (o->thread, NULL);
}

/* The range of 10 .. 19 is taken by `holder`; `other` must not get inside
 * before it has left.  Nothing shows that somebody waits, so it is given time
 * to get it wrong.
 */
static void
check_excludes (bool holder_is_exclusive, bool other_is_exclusive,
                uint64_t first, uint64_t last)
{
  for (unsigned i = 0; i < 20; i++) {
    struct owner holder = { .first = 0 }, other = { .first = 0 };

    other.not_before = &holder.may_leave;
    atomic_store (&other.may_leave, true);
    start_and_wait (&holder, holder_is_exclusive, 10, 19);
    start (&other, other_is_exclusive, first, last);
    wait_until (&other.has_begun);
    for (unsigned k = 0; k < 200; k++)
      sched_yield ();
    finish (&holder);
    finish (&other);
  }
}

/* The ranges that overlap with 10 .. 19. */
static const struct { uint64_t first, last; } overlapping[] = {
  { 10, 19 }, { 0, 10 }, { 19, 30 }, { 12, 13 }, { 5, 25 },
  { 0, UINT64_MAX - 1 },
};
#define NR_OVERLAPPING (sizeof overlapping / sizeof overlapping[0])

START_TEST (writer_waits_for_exclusive)
{
  check_excludes (true, false, overlapping[_i].first, overlapping[_i].last);
}
END_TEST

START_TEST (exclusive_waits_for_writer)
{
  check_excludes (false, true, overlapping[_i].first, overlapping[_i].last);
}
END_TEST

START_TEST (exclusive_waits_for_exclusive)
{
  check_excludes (true, true, overlapping[_i].first, overlapping[_i].last);
}
END_TEST

/* If one of these waited, the test would never end. */

START_TEST (writers_share)
{
  struct owner o[3] = { { .first = 0 } };

  start_and_wait (&o[0], false, 10, 19);
  start_and_wait (&o[1], false, 10, 19);
  start_and_wait (&o[2], false, 15, 30);
  for (unsigned i = 0; i < 3; i++)
    finish (&o[i]);
}
END_TEST

START_TEST (what_does_not_overlap_never_waits)
{
  bool beside_exclusive = _i & 1, is_exclusive = _i & 2;
  struct owner holder = { .first = 0 };

  start_and_wait (&holder, beside_exclusive, 10, 19);
  for (unsigned i = 0; i < 100; i++) {
    struct owner below = { .first = 0 }, above = { .first = 0 };

    start_and_wait (&below, is_exclusive, i % 10, 9);
    start_and_wait (&above, is_exclusive, 20, 20 + i);
    finish (&below);
    finish (&above);
  }
  finish (&holder);
}
END_TEST

/* Nor does it wait for those that wait themselves. */
START_TEST (others_pass_those_who_wait)
{
  struct owner writer = { .first = 0 }, exclusive = { .first = 0 };
  struct owner late = { .first = 0 }, other[2] = { { .first = 0 } };

  exclusive.not_before = &writer.may_leave;
  late.not_before = &writer.may_leave;
  atomic_store (&late.may_leave, true);
  start_and_wait (&writer, false, 10, 19);
  start (&exclusive, true, 15, 25);
  wait_until (&exclusive.has_begun);
  for (unsigned k = 0; k < 200; k++)
    sched_yield ();
  start (&late, true, 20, 30);          /* of the one that waits */
  start_and_wait (&other[0], false, 31, 40);
  start_and_wait (&other[1], true, 0, 9);
  finish (&other[0]);
  finish (&other[1]);
  atomic_store (&exclusive.may_leave, true);
  finish (&writer);
  finish (&exclusive);
  finish (&late);
}
END_TEST

/* More writers than a block has slots, all inside at once; whoever wants the
 * range alone sees each of them.
 */
#define NR_MANY 200

START_TEST (many_writers_at_once)
{
  static struct owner writers[NR_MANY], exclusive;

  for (unsigned i = 0; i < NR_MANY; i++)
    start_and_wait (&writers[i], false, i, i + 5);
  exclusive.not_before = &writers[_i].may_leave;
  atomic_store (&exclusive.may_leave, true);
  start (&exclusive, true, 0, NR_MANY + 10);
  wait_until (&exclusive.has_begun);
  for (unsigned i = 0; i < NR_MANY; i++)
    if (i != (unsigned) _i)
      finish (&writers[i]);
  for (unsigned k = 0; k < 200; k++)
    sched_yield ();
  finish (&writers[_i]);
  finish (&exclusive);
}
END_TEST

START_TEST (many_exclusive_at_once)
{
  static struct owner owners[NR_MANY];

  for (unsigned i = 0; i < NR_MANY; i++)
    start_and_wait (&owners[i], true, i * 10, i * 10 + 9);
  for (unsigned i = 0; i < NR_MANY; i++)
    finish (&owners[i * 7 % NR_MANY]);
}
END_TEST

/* Stress: each sector knows who is inside.  Plain variables, written by
 * exclusive owners and read by writers, let ThreadSanitizer see whether the
 * lock makes an order.  A lost wake-up hangs the test.
 */
#define NR_THREADS 8
#define NR_SECTORS 40
#define NR_ROUNDS 20000

static struct {
  atomic_int nr_writers, nr_exclusive;
  unsigned changes;
} sectors[NR_SECTORS];

static void
work_alone (uint64_t first, uint64_t last)
{
  struct range_lock lock;

  ranges_lock (ranges, &lock, (lba_t) { first }, last - first + 1);
  for (uint64_t i = first; i <= last; i++) {
    ASSERT_QUICKLY (atomic_fetch_add (&sectors[i].nr_exclusive, 1) == 0);
    ASSERT_QUICKLY (atomic_load (&sectors[i].nr_writers) == 0);
    sectors[i].changes++;
  }
  for (uint64_t i = first; i <= last; i++) {
    ASSERT_QUICKLY (atomic_load (&sectors[i].nr_writers) == 0);
    atomic_fetch_sub (&sectors[i].nr_exclusive, 1);
  }
  ranges_unlock (ranges, &lock);
}

static unsigned
work_shared (uint64_t first, uint64_t last)
{
  struct range_slot *slot;
  unsigned sum = 0;

  slot = ranges_enter (ranges, (lba_t) { first }, last - first + 1);
  for (uint64_t i = first; i <= last; i++) {
    atomic_fetch_add (&sectors[i].nr_writers, 1);
    ASSERT_QUICKLY (atomic_load (&sectors[i].nr_exclusive) == 0);
    sum += sectors[i].changes;
  }
  for (uint64_t i = first; i <= last; i++) {
    ASSERT_QUICKLY (atomic_load (&sectors[i].nr_exclusive) == 0);
    atomic_fetch_sub (&sectors[i].nr_writers, 1);
  }
  ranges_leave (ranges, slot);
  return sum;
}

static void *
work (void *opaque)
{
  unsigned seed = (unsigned) (uintptr_t) opaque, sum = 0;

  for (unsigned i = 0; i < NR_ROUNDS; i++) {
    unsigned a = (unsigned) rand_r (&seed) % NR_SECTORS;
    unsigned b = (unsigned) rand_r (&seed) % NR_SECTORS;

    if (rand_r (&seed) % 2)
      b = a;                    /* one sector is the usual case */
    if (rand_r (&seed) % 4 == 0)
      work_alone (a < b ? a : b, a < b ? b : a);
    else
      sum += work_shared (a < b ? a : b, a < b ? b : a);
  }
  return (void *) (uintptr_t) sum;
}

START_TEST (stress)
{
  pthread_t threads[NR_THREADS];

  for (unsigned i = 0; i < NR_THREADS; i++)
    ck_assert_int_eq (pthread_create (&threads[i], NULL, work,
                                      (void *) (uintptr_t) (i + 1)), 0);
  for (unsigned i = 0; i < NR_THREADS; i++)
    pthread_join (threads[i], NULL);
}
END_TEST

/* Two alone: there is no third whose wake-up makes good for a lost one. */
#define NR_DUELS 200000

static void *
lock_again_and_again (void *opaque)
{
  for (unsigned i = 0; i < NR_DUELS; i++)
    work_alone (0, 0);
  return opaque;
}

START_TEST (duel)
{
  pthread_t thread;

  ck_assert_int_eq (pthread_create (&thread, NULL, lock_again_and_again, NULL),
                    0);
  for (unsigned i = 0; i < NR_DUELS; i++)
    if (_i == 0)
      work_shared (0, 0);
    else
      work_alone (0, 0);
  pthread_join (thread, NULL);
  ck_assert_uint_eq (sectors[0].changes, (_i == 0 ? 1 : 2) * NR_DUELS);
}
END_TEST

/* R3: the rank keeps a thread from having two. */
#ifndef NDEBUG

START_TEST (holder_is_known)
{
  struct range_lock lock;
  struct range_slot *slot;

  ck_assert (!lock_rank_is_held (RANK_RANGE));
  slot = ranges_enter (ranges, (lba_t) { 1 }, 1);
  ck_assert (lock_rank_is_held (RANK_RANGE));
  ranges_leave (ranges, slot);
  ck_assert (!lock_rank_is_held (RANK_RANGE));
  ranges_lock (ranges, &lock, (lba_t) { 1 }, 1);
  ck_assert (lock_rank_is_held (RANK_RANGE));
  ranges_unlock (ranges, &lock);
  ck_assert (!lock_rank_is_held (RANK_RANGE));
}
END_TEST

#endif /* NDEBUG */

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("ranges");
  TCase *tc = tcase_create ("exclusion");

  tcase_add_checked_fixture (tc, make_ranges, free_ranges);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, writer_waits_for_exclusive, 0, NR_OVERLAPPING);
  tcase_add_loop_test (tc, exclusive_waits_for_writer, 0, NR_OVERLAPPING);
  tcase_add_loop_test (tc, exclusive_waits_for_exclusive, 0, NR_OVERLAPPING);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("no exclusion");
  tcase_add_checked_fixture (tc, make_ranges, free_ranges);
  tcase_set_timeout (tc, 240);
  tcase_add_test (tc, writers_share);
  tcase_add_loop_test (tc, what_does_not_overlap_never_waits, 0, 4);
  tcase_add_test (tc, others_pass_those_who_wait);
#ifndef NDEBUG
  tcase_add_test (tc, holder_is_known);
#endif
  suite_add_tcase (suite, tc);

  tc = tcase_create ("many");
  tcase_add_checked_fixture (tc, make_ranges, free_ranges);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, many_writers_at_once, NR_MANY - 2, NR_MANY);
  tcase_add_test (tc, many_exclusive_at_once);
  tcase_add_test (tc, stress);
  tcase_add_loop_test (tc, duel, 0, 2);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
