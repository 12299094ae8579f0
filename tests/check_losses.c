/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of what was lost of late. */
#include <config.h>

#include <check.h>
#include <stdlib.h>

#include "losses.h"

static struct losses l;

static void
end (void)
{
  losses_free (&l);
}

static void
add (uint64_t lba, uint32_t slot, uint32_t nr, uint64_t when_ns)
{
  losses_add (&l, &(struct loss) { { lba }, { slot }, nr, when_ns });
}

static void
expect_next (uint64_t since_ns, uint64_t lba, uint32_t slot, uint32_t nr)
{
  struct loss loss;

  ck_assert (losses_take (&l, since_ns, &loss));
  ck_assert_uint_eq (loss.lba.n, lba);
  ck_assert_uint_eq (loss.slot.n, slot);
  ck_assert_uint_eq (loss.nr_sectors, nr);
}

static void
expect_none (uint64_t since_ns)
{
  struct loss loss;

  ck_assert (!losses_take (&l, since_ns, &loss));
}

START_TEST (newest_first_down_to_a_time)
{
  expect_none (0);
  add (10, 0, 1, 100);
  add (20, 1, 2, 200);
  add (30, 3, 1, 300);
  expect_next (200, 30, 3, 1);
  expect_next (200, 20, 1, 2);
  expect_none (200);
  expect_next (100, 10, 0, 1);
  expect_none (0);
}
END_TEST

START_TEST (neighbours_join)
{
  add (10, 5, 1, 100);
  add (11, 6, 3, 110);
  add (14, 8, 1, 120);          /* the slot does not follow */
  add (16, 9, 1, 130);          /* the sector does not */
  expect_next (0, 16, 9, 1);
  expect_next (0, 14, 8, 1);
  expect_next (105, 10, 5, 4);  /* as new as its newest part */
  expect_none (0);
}
END_TEST

START_TEST (old_ones_expire)
{
  for (unsigned i = 0; i < 1000; i++)
    add (10 * i, 2 * i, 1, 100 + i);
  losses_expire (&l, 100 + 990);
  for (unsigned i = 999; i >= 990; i--)
    expect_next (0, 10 * i, 2 * i, 1);
  expect_none (0);
  add (1, 1, 1, 2000);
  expect_next (0, 1, 1, 1);
}
END_TEST

START_TEST (oldest_go_when_there_are_too_many)
{
  for (unsigned i = 0; i < LOSSES_MAX + 100; i++)
    add (10 * i, 2 * i, 1, i);
  for (unsigned i = LOSSES_MAX + 99; i >= 100; i--)
    expect_next (0, 10 * i, 2 * i, 1);
  expect_none (0);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("losses");
  TCase *tc = tcase_create ("losses");
  SRunner *runner;
  int nr_failed;

  tcase_add_checked_fixture (tc, NULL, end);
  tcase_add_test (tc, newest_first_down_to_a_time);
  tcase_add_test (tc, neighbours_join);
  tcase_add_test (tc, old_ones_expire);
  tcase_add_test (tc, oldest_go_when_there_are_too_many);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
