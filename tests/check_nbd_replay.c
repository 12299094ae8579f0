/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-replay.h"

static struct replay r;

static void
add (const char *data, uint64_t offset, bool is_durable)
{
  struct replay_write *w = replay_write_new (data, strlen (data), offset, 0);

  ck_assert_ptr_nonnull (w);
  replay_add (&r, w, is_durable);
  replay_verify (&r);
}

static void
begin (void)
{
  r = (struct replay) { .first = NULL };
}

static void
end (void)
{
  replay_drop (&r, UINT64_MAX);
  replay_verify (&r);
  ck_assert_ptr_null (r.first);
  ck_assert_uint_eq (r.nr_bytes, 0);
}

START_TEST (writes_stand_in_order)
{
  const char *const expected[] = { "one", "two", "three" };
  const struct replay_write *w;

  for (size_t i = 0; i < 3; i++)
    add (expected[i], 10 * i, false);
  w = r.first;
  for (size_t i = 0; i < 3; i++, w = w->next) {
    ck_assert_uint_eq (w->offset, 10 * i);
    ck_assert_uint_eq (w->count, strlen (expected[i]));
    ck_assert_mem_eq (w->data, expected[i], w->count);
  }
  ck_assert_ptr_null (w);
}
END_TEST

/* A flush covers what was answered before it was sent, and no more. */
START_TEST (a_flush_drops_what_it_covers)
{
  uint64_t covered;

  add ("a", 0, false);
  add ("b", 1, false);
  covered = r.end;
  add ("c", 2, false);
  replay_drop (&r, covered);
  replay_verify (&r);
  ck_assert_uint_eq (r.first->offset, 2);
  ck_assert_ptr_null (r.first->next);
  replay_drop (&r, covered);            /* an older flush comes late */
  replay_verify (&r);
  ck_assert_ptr_nonnull (r.first);
}
END_TEST

START_TEST (what_is_durable_is_kept_behind_what_is_not)
{
  add ("durable", 0, true);
  ck_assert_ptr_null (r.first);
  add ("old", 0, false);
  add ("new", 0, true);                 /* or "old" would be written over it */
  ck_assert_mem_eq (r.last->data, "new", 3);
}
END_TEST

START_TEST (zeroes_need_no_memory)
{
  struct replay_write *w = replay_write_new (NULL, UINT64_C (1) << 40, 0, 7);

  ck_assert_ptr_nonnull (w);
  replay_add (&r, w, false);
  replay_verify (&r);
  ck_assert_uint_lt (r.nr_bytes, 1000);
  ck_assert (r.first->is_zero);
  ck_assert_uint_eq (r.first->flags, 7);
}
END_TEST

START_TEST (overlaps_are_seen)
{
  static const struct { uint64_t offset, count; bool overlaps; } others[] = {
    { 0, 10, false }, { 0, 11, true }, { 10, 1, true }, { 19, 5, true },
    { 20, 5, false }, { 0, 100, true }, { 12, 2, true },
  };
  struct replay_write *a = replay_write_new (NULL, 10, 10, 0);

  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    struct replay_write *b = replay_write_new (NULL, others[i].count,
                                               others[i].offset, 0);

    ck_assert (replay_overlap (a, b) == others[i].overlaps);
    ck_assert (replay_overlap (b, a) == others[i].overlaps);
    free (b);
  }
  free (a);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("nbd_replay");
  TCase *tcase = tcase_create ("replay");
  SRunner *runner = srunner_create (suite);
  int nr_failed;

  tcase_add_checked_fixture (tcase, begin, end);
  tcase_add_test (tcase, writes_stand_in_order);
  tcase_add_test (tcase, a_flush_drops_what_it_covers);
  tcase_add_test (tcase, what_is_durable_is_kept_behind_what_is_not);
  tcase_add_test (tcase, zeroes_need_no_memory);
  tcase_add_test (tcase, overlaps_are_seen);
  suite_add_tcase (suite, tcase);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
