/* SPDX-License-Identifier: BSD-3-Clause */
/* Unit test of event-queue.  Its source is included, so that a producer can be
 * stopped between claiming a slot and filling it.
 */
#include <config.h>

#include <check.h>
#include <pthread.h>

#include "event-queue.c"

#define NR_REGIONS 16

/* For loops that run a million times: ck_assert itself makes a system call. */
#define ASSERT_QUICKLY(cond)                                                  \
  do {                                                                        \
    if (!(cond))                                                              \
      ck_abort_msg ("not true: %s", #cond);                                   \
  } while (0)

static uint64_t counted[NR_REGIONS][NR_EVENT_KINDS];

static void
add_count (void *opaque, unsigned region, enum event_kind kind,
           uint64_t count)
{
  ASSERT_QUICKLY (region < NR_REGIONS);
  ASSERT_QUICKLY ((unsigned) kind < NR_EVENT_KINDS);
  ASSERT_QUICKLY (count > 0);
  counted[region][kind] += count;
}

static uint64_t
take_counts (struct event_queue *q)
{
  uint64_t sum = 0;

  memset (counted, 0, sizeof counted);
  event_queue_take_counts (q, add_count, NULL);
  for (unsigned r = 0; r < NR_REGIONS; r++)
    for (unsigned k = 0; k < NR_EVENT_KINDS; k++)
      sum += counted[r][k];
  return sum;
}

static struct event
make_event (uint64_t lba, enum event_kind kind)
{
  return (struct event) {
    .lba = { lba }, .nr_sectors = 1, .kind = kind, .when_ns = lba + 1,
  };
}

static void
push (struct event_queue *q, uint64_t lba)
{
  struct event event = make_event (lba, EVENT_READ_ERROR);

  event_queue_push (q, &event, lba % NR_REGIONS);
}

START_TEST (first_in_first_out_over_many_rounds)
{
  struct event_queue *q = event_queue_new (8, NR_REGIONS);
  struct event event;
  uint64_t pushed = 0, popped = 0;

  for (unsigned round = 0; round < 1000; round++) {
    for (unsigned i = 0; i < 1 + round % 8; i++)
      push (q, pushed++);
    while (event_queue_pop (q, &event)) {
      ck_assert_uint_eq (event.lba.n, popped);
      ck_assert_uint_eq (event.when_ns, popped + 1);
      popped++;
    }
    ck_assert_uint_eq (popped, pushed);
  }
  ck_assert_uint_eq (take_counts (q), 0);
  event_queue_free (q);
}
END_TEST

START_TEST (full_counts_by_region_and_kind)
{
  struct event_queue *q = event_queue_new (8, NR_REGIONS);
  struct event event;
  unsigned nr_popped = 0;

  for (unsigned i = 0; i < 8; i++)
    push (q, i);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    for (unsigned i = 0; i < kind + 1; i++) {
      event = make_event (i, kind);
      event_queue_push (q, &event, kind + 3);
    }

  ck_assert_uint_eq (take_counts (q), 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    ck_assert_uint_eq (counted[kind + 3][kind], kind + 1);
  ck_assert_uint_eq (take_counts (q), 0);       /* taken is taken */

  while (event_queue_pop (q, &event))
    ck_assert_uint_eq (event.lba.n, nr_popped++);
  ck_assert_uint_eq (nr_popped, 8);
  push (q, 0);                  /* room again: not counted */
  ck_assert_uint_eq (take_counts (q), 0);
  ck_assert (event_queue_pop (q, &event));
  event_queue_free (q);
}
END_TEST

/* Q1: a producer is stopped with its slot claimed and not filled. */
START_TEST (stopped_producer_stops_no_other)
{
  struct event_queue *q = event_queue_new (8, NR_REGIONS);
  struct event event;
  uint64_t position;
  struct slot *slot = claim_slot (q, &position);

  ck_assert_ptr_nonnull (slot);
  for (unsigned i = 1; i < 20; i++)
    push (q, i);
  ck_assert_uint_eq (take_counts (q), 12);      /* 7 slots, the rest counted */
  ck_assert (!event_queue_pop (q, &event));

  slot->event = make_event (0, EVENT_READ_ERROR);
  atomic_store (&slot->turn, position + 1);
  for (unsigned i = 0; i < 8; i++) {
    ck_assert (event_queue_pop (q, &event));
    ck_assert_uint_eq (event.lba.n, i);
  }
  ck_assert (!event_queue_pop (q, &event));
  event_queue_free (q);
}
END_TEST

/* Q2, with many producers and a queue that is mostly full. */

#define NR_PRODUCERS 8
#define NR_EVENTS 100000        /* of each producer */

struct producer {
  pthread_t thread;
  struct event_queue *q;
  unsigned number;
};

static void *
produce (void *opaque)
{
  struct producer *p = opaque;

  for (uint64_t i = 0; i < NR_EVENTS; i++) {
    struct event event = make_event (i, (enum event_kind) p->number);

    event.nr_sectors = (uint32_t) (p->number * NR_EVENTS + i);
    event_queue_push (p->q, &event, p->number);
  }
  return NULL;
}

/* Each producer's kind is its number. */
static void
consume (struct event_queue *q, uint64_t *nr_of, uint64_t *next_of)
{
  struct event event;

  while (event_queue_pop (q, &event)) {
    ASSERT_QUICKLY (event.kind < NR_PRODUCERS);
    ASSERT_QUICKLY (event.nr_sectors == event.kind * NR_EVENTS + event.lba.n);
    ASSERT_QUICKLY (event.when_ns == event.lba.n + 1);
    ASSERT_QUICKLY (event.lba.n >= next_of[event.kind]);
    next_of[event.kind] = event.lba.n + 1;
    nr_of[event.kind]++;
  }
  take_counts (q);
  for (unsigned i = 0; i < NR_PRODUCERS; i++)
    for (unsigned region = 0; region < NR_REGIONS; region++) {
      ASSERT_QUICKLY (region == i || counted[region][i] == 0);
      nr_of[i] += counted[region][i];
    }
}

static uint64_t
sum_of (const uint64_t *nr_of)
{
  uint64_t sum = 0;

  for (unsigned i = 0; i < NR_PRODUCERS; i++)
    sum += nr_of[i];
  return sum;
}

START_TEST (nothing_is_lost_with_many_producers)
{
  struct event_queue *q = event_queue_new ((size_t) 2 << (2 * _i), NR_REGIONS);
  struct producer producers[NR_PRODUCERS];
  uint64_t nr_of[NR_PRODUCERS] = { 0 }, next_of[NR_PRODUCERS] = { 0 };

  for (unsigned i = 0; i < NR_PRODUCERS; i++) {
    producers[i] = (struct producer) { .q = q, .number = i };
    ck_assert_int_eq (pthread_create (&producers[i].thread, NULL, produce,
                                      &producers[i]), 0);
  }
  while (sum_of (nr_of) < NR_PRODUCERS * NR_EVENTS)     /* or time is over */
    consume (q, nr_of, next_of);
  for (unsigned i = 0; i < NR_PRODUCERS; i++)
    pthread_join (producers[i].thread, NULL);
  consume (q, nr_of, next_of);
  for (unsigned i = 0; i < NR_PRODUCERS; i++)
    ck_assert_uint_eq (nr_of[i], NR_EVENTS);
  event_queue_free (q);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("event-queue");
  TCase *tc = tcase_create ("one thread");

  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, first_in_first_out_over_many_rounds);
  tcase_add_test (tc, full_counts_by_region_and_kind);
  tcase_add_test (tc, stopped_producer_stops_no_other);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("many threads");
  tcase_set_timeout (tc, 120);
  tcase_add_loop_test (tc, nothing_is_lost_with_many_producers, 0, 11);
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
