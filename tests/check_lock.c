/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "lock.h"

static const enum lock_rank ranks[] = {
  RANK_RANGE, RANK_COMMIT, RANK_FLUSH, RANK_MAP, RANK_HEALTH,
  RANK_DEV_FLUSH, RANK_LEAF,
};
#define NR_RANKS (sizeof ranks / sizeof ranks[0])

static struct lock locks[NR_RANKS];

static void
init_locks (void)
{
  for (size_t i = 0; i < NR_RANKS; i++)
    lock_init (&locks[i], ranks[i]);
}

static void
destroy_locks (void)
{
  for (size_t i = 0; i < NR_RANKS; i++)
    lock_destroy (&locks[i]);
}

START_TEST (ascending_order_is_right)
{
  for (size_t first = 0; first < NR_RANKS; first++) {
    for (size_t i = first; i < NR_RANKS; i += 1 + first)
      lock_acquire (&locks[i]);
    for (size_t i = first; i < NR_RANKS; i += 1 + first)
      lock_release (&locks[i]);         /* in any order */
  }
}
END_TEST

START_TEST (scope_guard_releases)
{
  for (unsigned i = 0; i < 3; i++) {
    LOCK_FOR_SCOPE (&locks[0]);
    LOCK_FOR_SCOPE (&locks[1]);

    if (i == 1)
      continue;
    ck_assert (lock_rank_is_held (ranks[0]));
  }
  lock_acquire (&locks[0]);             /* would hang or abort */
  lock_release (&locks[0]);
}
END_TEST

START_TEST (release_keeps_errno)
{
  errno = EILSEQ;
  {
    LOCK_FOR_SCOPE (&locks[2]);
  }
  ck_assert_int_eq (errno, EILSEQ);
}
END_TEST

/* One thread counts while it has the lock, the other waits for it. */

static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned count;

static void *
count_up (void *opaque)
{
  for (unsigned i = 0; i < 10000; i++) {
    LOCK_FOR_SCOPE (&locks[3]);

    count++;
    pthread_cond_signal (&changed);
  }
  return opaque;
}

START_TEST (wait_lets_go_and_comes_back)
{
  pthread_t thread;

  lock_acquire (&locks[3]);
  ck_assert_int_eq (pthread_create (&thread, NULL, count_up, NULL), 0);
  while (count < 10000) {
    lock_wait (&locks[3], &changed);
    ck_assert (lock_rank_is_held (ranks[3]));
  }
  lock_release (&locks[3]);
  pthread_join (thread, NULL);
}
END_TEST

/* L1: what is wrong aborts.  It needs no second thread to hang. */
#ifndef NDEBUG

static void
dump_no_core (void)
{
  setrlimit (RLIMIT_CORE, &(struct rlimit) { 0, 0 });
  init_locks ();
}

START_TEST (held_is_known)
{
  for (size_t i = 0; i < NR_RANKS; i++) {
    ck_assert (!lock_rank_is_held (ranks[i]));
    lock_acquire (&locks[i]);
    for (size_t k = 0; k < NR_RANKS; k++)
      ck_assert (lock_rank_is_held (ranks[k]) == (k == i));
    lock_release (&locks[i]);
    ck_assert (!lock_rank_is_held (ranks[i]));
  }
}
END_TEST

static void *
ask_for_rank (void *opaque)
{
  *(bool *) opaque = lock_rank_is_held (ranks[1]);
  return NULL;
}

START_TEST (another_thread_holds_nothing)
{
  pthread_t thread;
  bool held = true;

  lock_acquire (&locks[1]);
  ck_assert_int_eq (pthread_create (&thread, NULL, ask_for_rank, &held), 0);
  pthread_join (thread, NULL);
  ck_assert (!held);
  ck_assert (lock_rank_is_held (ranks[1]));
  lock_release (&locks[1]);
}
END_TEST

/* _i: the rank that is taken second. */
START_TEST (lower_rank_aborts)
{
  lock_acquire (&locks[_i + 1]);
  lock_acquire (&locks[_i]);
}
END_TEST

START_TEST (lowest_rank_aborts_under_all_others)
{
  for (size_t i = 1; i < NR_RANKS; i++)
    lock_acquire (&locks[i]);
  lock_acquire (&locks[0]);
}
END_TEST

/* A second lock of the same rank: another thread may have them the other way
 * round.
 */
START_TEST (same_rank_aborts)
{
  struct lock second;

  lock_init (&second, ranks[_i]);
  lock_acquire (&locks[_i]);
  lock_acquire (&second);
}
END_TEST

START_TEST (range_under_a_mutex_aborts)
{
  lock_acquire (&locks[1]);
  lock_note_acquired (RANK_RANGE);
}
END_TEST

/* Released in between, so that it comes back under a higher rank.
 * (ThreadSanitizer would stop it before that.)
 */
#ifndef __SANITIZE_THREAD__

START_TEST (wait_under_a_higher_rank_aborts)
{
  lock_acquire (&locks[3]);
  lock_acquire (&locks[5]);
  count = 9999;
  /* The thread cannot have the lock before the wait lets go of it. */
  {
    pthread_t thread;

    ck_assert_int_eq (pthread_create (&thread, NULL, count_up, NULL), 0);
  }
  lock_wait (&locks[3], &changed);
}
END_TEST

#endif
#endif /* NDEBUG */

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("lock");
  TCase *tc = tcase_create ("right");

  tcase_add_checked_fixture (tc, init_locks, destroy_locks);
  tcase_set_timeout (tc, 60);
  tcase_add_test (tc, ascending_order_is_right);
  tcase_add_test (tc, scope_guard_releases);
  tcase_add_test (tc, release_keeps_errno);
  tcase_add_test (tc, wait_lets_go_and_comes_back);
#ifndef NDEBUG
  tcase_add_test (tc, held_is_known);
  tcase_add_test (tc, another_thread_holds_nothing);
#endif
  suite_add_tcase (suite, tc);

#ifndef NDEBUG
  tc = tcase_create ("wrong");
  tcase_add_checked_fixture (tc, dump_no_core, NULL);
  tcase_set_timeout (tc, 60);
  tcase_add_loop_test_raise_signal (tc, lower_rank_aborts, SIGABRT,
                                    0, NR_RANKS - 1);
  tcase_add_test_raise_signal (tc, lowest_rank_aborts_under_all_others,
                               SIGABRT);
  tcase_add_loop_test_raise_signal (tc, same_rank_aborts, SIGABRT, 0, NR_RANKS);
  tcase_add_test_raise_signal (tc, range_under_a_mutex_aborts, SIGABRT);
#ifndef __SANITIZE_THREAD__
  tcase_add_test_raise_signal (tc, wait_under_a_higher_rank_aborts, SIGABRT);
#endif
  suite_add_tcase (suite, tc);
#endif
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
