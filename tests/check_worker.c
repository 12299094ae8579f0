/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ev.h>

#include "lock.h"
#include "log.h"
#include "worker.h"

#define NR_SECTORS (1 << 20)

static void
post (struct worker *worker, uint64_t lba, enum event_kind kind)
{
  struct event event = {
    .lba = { lba }, .nr_sectors = 1, .kind = kind, .when_ns = lba + 1,
  };

  worker_post (worker, &event);
}

static uint64_t
get_total (struct worker *worker, enum event_kind kind)
{
  struct health_snapshot snapshot;

  worker_get_snapshot (worker, &snapshot);
  return snapshot.total[kind];
}

/* Wait until so many are counted, or until the time of the test is over. */
static void
wait_for_total (struct worker *worker, enum event_kind kind, uint64_t total)
{
  const struct timespec pause = { .tv_nsec = 1000000 };

  while (get_total (worker, kind) < total)
    nanosleep (&pause, NULL);
  ck_assert_uint_eq (get_total (worker, kind), total);
}

/* What the worker says of its counters when it ends. */

static char last_words[1024];

static void
note_last_words (int level, const char *message)
{
  ck_assert_int_eq (level, LEVEL_INFO);
  snprintf (last_words, sizeof last_words, "%s", message);
}

static void
free_and_expect (struct worker *worker, unsigned long long nr_read,
                 unsigned long long nr_write)
{
  char expected[1024];

  snprintf (expected, sizeof expected, "errors since the start: %llu reading, "
            "%llu writing, 0 of spares, 0 others", nr_read, nr_write);
  last_words[0] = '\0';
  log_set_callback (note_last_words);
  worker_free (worker);
  log_set_callback (NULL);
  ck_assert_str_eq (last_words, nr_read + nr_write > 0 ? expected : "");
}

/* Threads that post. */

#define NR_POSTERS 8

struct poster {
  pthread_t thread;
  struct worker *worker;
  unsigned number, nr_events;
};

static void *
post_many (void *opaque)
{
  struct poster *p = opaque;

  for (unsigned i = 0; i < p->nr_events; i++)
    post (p->worker, (uint64_t) p->number * 1000 + i, EVENT_READ_ERROR);
  return NULL;
}

static void
start_posters (struct poster *posters, struct worker *worker,
               unsigned nr_events)
{
  for (unsigned i = 0; i < NR_POSTERS; i++) {
    posters[i] = (struct poster) {
      .worker = worker, .number = i, .nr_events = nr_events,
    };
    ck_assert_int_eq (pthread_create (&posters[i].thread, NULL, post_many,
                                      &posters[i]), 0);
  }
}

static void
join_posters (struct poster *posters)
{
  for (unsigned i = 0; i < NR_POSTERS; i++)
    pthread_join (posters[i].thread, NULL);
}

START_TEST (events_are_counted)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);

  ck_assert_ptr_nonnull (worker);
  ck_assert_int_eq (worker_start (worker), 0);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    for (unsigned i = 0; i <= kind; i++)
      post (worker, i, (enum event_kind) kind);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    wait_for_total (worker, (enum event_kind) kind, kind + 1);
  worker_free (worker);
}
END_TEST

START_TEST (never_started)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);

  ck_assert_uint_eq (get_total (worker, EVENT_READ_ERROR), 0);
  for (unsigned i = 0; i < 10000; i++)  /* more than the queue holds */
    post (worker, i, EVENT_WRITE_ERROR);
  free_and_expect (worker, 0, 10000);
  worker_free (NULL);
}
END_TEST

START_TEST (events_from_before_the_start)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);

  for (unsigned i = 0; i < 10000; i++)
    post (worker, i, EVENT_READ_ERROR);
  ck_assert_int_eq (worker_start (worker), 0);
  wait_for_total (worker, EVENT_READ_ERROR, 10000);
  free_and_expect (worker, 10000, 0);
}
END_TEST

START_TEST (events_during_the_start)
{
  for (unsigned i = 0; i < 100; i++) {
    struct worker *worker = worker_new (NR_SECTORS, NULL);
    struct poster posters[NR_POSTERS];

    start_posters (posters, worker, i % 10 + 1);
    ck_assert_int_eq (worker_start (worker), 0);
    wait_for_total (worker, EVENT_READ_ERROR, NR_POSTERS * (i % 10 + 1));
    join_posters (posters);
    worker_free (worker);
  }
}
END_TEST

/* W3 */
START_TEST (events_before_the_end)
{
  for (unsigned i = 0; i < 100; i++) {
    struct worker *worker = worker_new (NR_SECTORS, NULL);

    ck_assert_int_eq (worker_start (worker), 0);
    for (unsigned n = 0; n < i * 50; n++)
      post (worker, n, EVENT_READ_ERROR);
    free_and_expect (worker, i * 50, 0);
  }
}
END_TEST

/* As nbdkit does: all that can fail first, then a fork, then the thread. */
START_TEST (starts_after_a_fork)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);
  int status;
  pid_t pid;

  post (worker, 1, EVENT_READ_ERROR);
  pid = fork ();
  if (pid == 0) {
    if (worker_start (worker) == -1)
      _exit (1);
    post (worker, 2, EVENT_READ_ERROR);
    while (get_total (worker, EVENT_READ_ERROR) != 2)
      usleep (1000);
    worker_free (worker);
    _exit (0);
  }
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_int_eq (status, 0);
  worker_free (worker);
}
END_TEST

/* W2: the worker hangs, for ever as far as those who post can see. */
START_TEST (hanging_worker_stops_nobody)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);
  struct poster posters[NR_POSTERS];
  struct health_snapshot snapshot;

  ck_assert_int_eq (worker_start (worker), 0);
  post (worker, 0, EVENT_READ_ERROR);
  wait_for_total (worker, EVENT_READ_ERROR, 1);

  worker_hang (worker);
  start_posters (posters, worker, 12500);
  join_posters (posters);       /* all returned */
  worker_get_snapshot (worker, &snapshot);
  ck_assert_uint_eq (snapshot.total[EVENT_READ_ERROR], 1);

  worker_resume (worker);
  wait_for_total (worker, EVENT_READ_ERROR, 100001);
  worker_get_snapshot (worker, &snapshot);
  ck_assert_uint_gt (snapshot.nr_uncounted_details, 0);
  ck_assert_uint_lt (snapshot.nr_uncounted_details, 100001);
  free_and_expect (worker, 100001, 0);
}
END_TEST

START_TEST (storms_are_counted)
{
  struct worker *worker = worker_new (NR_SECTORS, NULL);
  struct poster posters[NR_POSTERS];

  ck_assert_int_eq (worker_start (worker), 0);
  start_posters (posters, worker, 50000);
  join_posters (posters);
  wait_for_total (worker, EVENT_READ_ERROR, NR_POSTERS * 50000);
  worker_free (worker);
}
END_TEST

/* W4: whoever reads while it is published sees one snapshot, not parts of
 * two.  All errors are in one region here.
 */
START_TEST (snapshots_are_whole)
{
  struct worker *worker = worker_new (UINT64_C (1) << 40, NULL);
  struct poster posters[NR_POSTERS];
  struct health_snapshot snapshot;
  uint64_t last = 0;

  ck_assert_int_eq (worker_start (worker), 0);
  start_posters (posters, worker, 20000);
  do {
    worker_get_snapshot (worker, &snapshot);
    if (snapshot.total[EVENT_READ_ERROR] < last
        || snapshot.nr_worst != (snapshot.total[EVENT_READ_ERROR] > 0)
        || snapshot.worst[0].nr_errors != snapshot.total[EVENT_READ_ERROR])
      ck_abort_msg ("a snapshot of two halves");
    last = snapshot.total[EVENT_READ_ERROR];
  } while (last < NR_POSTERS * 20000);
  join_posters (posters);
  worker_free (worker);
}
END_TEST

/* A guest; what is called on the worker's thread cannot use ck_assert. */

static atomic_int nr_attached, nr_detached, nr_wrong;
static atomic_uint guest_tid;

static void
note_call (atomic_int *counter, void *opaque, struct ev_loop *loop)
{
  guest_tid = (unsigned) gettid ();
  if (opaque != &nr_attached || !loop || !lock_rank_is_held (RANK_HEALTH))
    nr_wrong++;
  (*counter)++;
}

static void
guest_attach (void *opaque, struct ev_loop *loop)
{
  note_call (&nr_attached, opaque, loop);
}

static void
guest_detach (void *opaque, struct ev_loop *loop)
{
  if (nr_attached != 1)
    nr_wrong++;
  note_call (&nr_detached, opaque, loop);
}

static const struct worker_guest guest = {
  .attach = guest_attach, .detach = guest_detach, .opaque = &nr_attached,
};

START_TEST (guest_comes_and_goes_with_the_loop)
{
  struct worker *worker = worker_new (NR_SECTORS, &guest);

  ck_assert_int_eq (nr_attached, 0);
  ck_assert_int_eq (worker_start (worker), 0);
  worker_free (worker);
  ck_assert_int_eq (nr_attached, 1);
  ck_assert_int_eq (nr_detached, 1);
  ck_assert_int_eq (nr_wrong, 0);
  ck_assert_uint_ne (guest_tid, (unsigned) gettid ());
}
END_TEST

START_TEST (guest_of_a_worker_never_started)
{
  worker_free (worker_new (NR_SECTORS, &guest));
  ck_assert_int_eq (nr_attached, 0);
  ck_assert_int_eq (nr_detached, 0);
}
END_TEST

/* The thread as the kernel sees it. */

static unsigned long long
read_status (unsigned tid, const char *field, int base)
{
  char path[64], line[256];
  FILE *fp;

  snprintf (path, sizeof path, "/proc/self/task/%u/status", tid);
  fp = fopen (path, "r");
  ck_assert_ptr_nonnull (fp);
  while (fgets (line, sizeof line, fp))
    if (strncmp (line, field, strlen (field)) == 0) {
      fclose (fp);
      return strtoull (line + strlen (field), NULL, base);
    }
  ck_abort_msg ("%s: no %s", path, field);
}

static struct worker *
start_with_guest (void)
{
  struct worker *worker = worker_new (NR_SECTORS, &guest);

  ck_assert_int_eq (worker_start (worker), 0);
  while (nr_attached == 0)
    usleep (1000);
  return worker;
}

START_TEST (thread_has_its_name)
{
  struct worker *worker = start_with_guest ();
  char path[64], name[64];
  FILE *fp;

  snprintf (path, sizeof path, "/proc/self/task/%u/comm", guest_tid);
  fp = fopen (path, "r");
  ck_assert_ptr_nonnull (fp);
  ck_assert_ptr_nonnull (fgets (name, sizeof name, fp));
  fclose (fp);
  ck_assert_str_eq (name, "remap-worker\n");
  worker_free (worker);
}
END_TEST

START_TEST (thread_takes_no_signals)
{
  struct worker *worker = start_with_guest ();
  unsigned long long blocked = read_status (guest_tid, "SigBlk:", 16);

  /* 32 and 33 are the C library's; KILL and STOP cannot be blocked. */
  for (int sig = 1; sig < 32; sig++)
    ck_assert (sig == SIGKILL || sig == SIGSTOP
               || (blocked & (1ULL << (sig - 1))));
  ck_assert_uint_eq (read_status (getpid (), "SigBlk:", 16), 0);
  worker_free (worker);
}
END_TEST

static bool
is_asleep (unsigned tid)
{
  char path[64], line[512];
  char state = 0;
  FILE *fp;

  snprintf (path, sizeof path, "/proc/self/task/%u/stat", tid);
  fp = fopen (path, "r");
  ck_assert_ptr_nonnull (fp);
  ck_assert_ptr_nonnull (fgets (line, sizeof line, fp));
  fclose (fp);
  ck_assert_int_eq (sscanf (strrchr (line, ')'), ") %c", &state), 1);
  return state == 'S';
}

/* That something does not happen can only be seen by giving it time. */
START_TEST (idle_worker_sleeps)
{
  struct worker *worker = start_with_guest ();
  unsigned long long before;

  post (worker, 0, EVENT_READ_ERROR);
  wait_for_total (worker, EVENT_READ_ERROR, 1);
  while (!is_asleep (guest_tid))
    usleep (1000);
  usleep (100000);              /* it may have been on its way to sleep */
  before = read_status (guest_tid, "voluntary_ctxt_switches:", 10);
  usleep (1000000);
  ck_assert_uint_eq (read_status (guest_tid, "voluntary_ctxt_switches:", 10),
                     before);
  worker_free (worker);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("worker");
  TCase *tc = tcase_create ("events");

  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, events_are_counted);
  tcase_add_test (tc, never_started);
  tcase_add_test (tc, events_from_before_the_start);
  tcase_add_test (tc, events_during_the_start);
  tcase_add_test (tc, events_before_the_end);
  tcase_add_test (tc, starts_after_a_fork);
  tcase_add_test (tc, storms_are_counted);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("nobody waits");
  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, hanging_worker_stops_nobody);
  tcase_add_test (tc, snapshots_are_whole);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("thread");
  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, guest_comes_and_goes_with_the_loop);
  tcase_add_test (tc, guest_of_a_worker_never_started);
  tcase_add_test (tc, thread_has_its_name);
  tcase_add_test (tc, thread_takes_no_signals);
  tcase_add_test (tc, idle_worker_sleeps);
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
