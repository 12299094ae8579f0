/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "spares.h"

START_TEST (nothing_is_given_out_before_it_is_ready)
{
  struct spares *s = spares_new (100);
  spare_t first = { 12345 };

  ck_assert_uint_eq (spares_total (s), 100);
  ck_assert_uint_eq (spares_ready (s), 0);
  ck_assert_uint_eq (spares_take (s, 10, &first), 0);
  ck_assert_uint_eq (first.n, 12345);
  spares_set_ready (s, 3);
  ck_assert_uint_eq (spares_ready (s), 3);
  ck_assert_uint_eq (spares_take (s, 10, &first), 3);
  ck_assert_uint_eq (first.n, 0);
  ck_assert_uint_eq (spares_take (s, 1, &first), 0);
  spares_set_ready (s, 100);
  ck_assert_uint_eq (spares_take (s, 1, &first), 1);
  ck_assert_uint_eq (first.n, 3);
  ck_assert_uint_eq (spares_taken (s), 4);
  spares_verify (s);
  spares_free (s);
}
END_TEST

/* The number of slots is no multiple of the bits in a word. */
START_TEST (all_slots_can_be_taken_and_no_more)
{
  uint32_t total = (uint32_t) _i;
  struct spares *s = spares_new (total);
  spare_t first;

  spares_set_ready (s, total);
  for (uint32_t i = 0; i < total; i++) {
    ck_assert_uint_eq (spares_take (s, 1, &first), 1);
    ck_assert_uint_eq (first.n, i);
  }
  ck_assert_uint_eq (spares_take (s, 1, &first), 0);
  ck_assert_uint_eq (spares_taken (s), total);
  spares_give (s, (spare_t) { 0 }, total);
  ck_assert_uint_eq (spares_taken (s), 0);
  ck_assert_uint_eq (spares_take (s, total + 5, &first), total);
  spares_verify (s);
  spares_free (s);
}
END_TEST

START_TEST (lowest_neighbours_first)
{
  struct spares *s = spares_new (200);
  spare_t first;

  spares_set_ready (s, 200);
  spares_take_at (s, (spare_t) { 60 }, 10);
  ck_assert_uint_eq (spares_take (s, 100, &first), 60); /* up to those */
  ck_assert_uint_eq (first.n, 0);
  ck_assert_uint_eq (spares_take (s, 100, &first), 100);
  ck_assert_uint_eq (first.n, 70);
  spares_give (s, (spare_t) { 62 }, 4);
  spares_give (s, (spare_t) { 5 }, 1);
  ck_assert_uint_eq (spares_take (s, 4, &first), 1);
  ck_assert_uint_eq (first.n, 5);
  ck_assert_uint_eq (spares_take (s, 4, &first), 4);
  ck_assert_uint_eq (first.n, 62);
  ck_assert_uint_eq (spares_take (s, 4, &first), 4);
  ck_assert_uint_eq (first.n, 170);
  spares_verify (s);
  spares_free (s);
}
END_TEST

/* Against an array of bytes. */

struct oracle {
  struct spares *s;
  uint32_t total, ready, nr_taken;
  char *taken;
};

static uint32_t
random_below (uint32_t n)
{
  return (uint32_t) random () % n;
}

static void
take (struct oracle *o)
{
  uint32_t nr = 1 + random_below (90), first = 0, n = 0, got;
  spare_t slot;

  while (first < o->ready && o->taken[first])
    first++;
  while (n < nr && first + n < o->ready && !o->taken[first + n])
    n++;
  got = spares_take (o->s, nr, &slot);
  ck_assert_uint_eq (got, n);
  if (n > 0)
    ck_assert_uint_eq (slot.n, first);
  for (uint32_t i = 0; i < n; i++)
    o->taken[first + i] = 1;
  o->nr_taken += n;
}

/* Slots from a random one on, as many as are alike. */
static void
take_or_give_at (struct oracle *o)
{
  uint32_t first = random_below (o->total), nr = 1 + random_below (90), n = 0;
  char was = o->taken[first];

  for (; n < nr && first + n < o->total && o->taken[first + n] == was; n++)
    o->taken[first + n] = !was;
  if (was) {
    spares_give (o->s, (spare_t) { first }, n);
    o->nr_taken -= n;
  }
  else {
    spares_take_at (o->s, (spare_t) { first }, n);
    o->nr_taken += n;
  }
}

START_TEST (as_an_array_of_bytes)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) strtoul (given, NULL, 10)
    : (unsigned) time (NULL) * 100 + (unsigned) _i;
  struct oracle o = { .total = 1 + (unsigned) _i * 137 };

  printf ("as_an_array_of_bytes: REMAP_TEST_SEED=%u\n", seed);
  fflush (stdout);
  srandom (seed);
  o.s = spares_new (o.total);
  o.taken = calloc (1, o.total);
  for (unsigned i = 0; i < 3000; i++) {
    switch (random_below (8)) {
    case 0:
      o.ready += random_below (o.total - o.ready + 1) / 8;
      spares_set_ready (o.s, o.ready);
      break;
    case 1: case 2: case 3: case 4:
      take (&o);
      break;
    default:
      take_or_give_at (&o);
    }
    ck_assert_uint_eq (spares_taken (o.s), o.nr_taken);
    if (i % 16 == 0)
      spares_verify (o.s);
  }
  spares_free (o.s);
  free (o.taken);
}
END_TEST

/* P1: nobody is given what somebody has. */
#ifndef NDEBUG

static void
dump_no_core (void)
{
  setrlimit (RLIMIT_CORE, &(struct rlimit) { 0, 0 });
}

START_TEST (taking_what_is_taken_aborts)
{
  struct spares *s = spares_new (10);

  spares_take_at (s, (spare_t) { 4 }, 2);
  spares_take_at (s, (spare_t) { 2 }, 3);
}
END_TEST

START_TEST (giving_what_is_free_aborts)
{
  struct spares *s = spares_new (10);

  spares_take_at (s, (spare_t) { 4 }, 2);
  spares_give (s, (spare_t) { 4 }, 3);
}
END_TEST

#endif /* NDEBUG */

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("spares");
  TCase *tc = tcase_create ("taking and giving");

  tcase_set_timeout (tc, 240);
  tcase_add_test (tc, nothing_is_given_out_before_it_is_ready);
  tcase_add_loop_test (tc, all_slots_can_be_taken_and_no_more, 1, 200);
  tcase_add_test (tc, lowest_neighbours_first);
  tcase_add_loop_test (tc, as_an_array_of_bytes, 0, 8);
  suite_add_tcase (suite, tc);

#ifndef NDEBUG
  tc = tcase_create ("wrong");
  tcase_set_timeout (tc, 60);
  tcase_add_checked_fixture (tc, dump_no_core, NULL);
  tcase_add_test_raise_signal (tc, taking_what_is_taken_aborts, SIGABRT);
  tcase_add_test_raise_signal (tc, giving_what_is_free_aborts, SIGABRT);
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
