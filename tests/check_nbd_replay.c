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
  replay_clear (&r);
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
    ck_assert_mem_eq (w->bytes, expected[i], w->count);
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

/* What is not durable, at each byte: '.' nothing. */
static void
expect (const char *text)
{
  const size_t nr = strlen (text);
  char is[64];

  memset (is, '.', nr);
  for (const struct replay_write *w = r.first; w; w = w->next) {
    ck_assert_uint_le (w->offset + w->count, nr);
    for (uint64_t i = 0; i < w->count; i++) {
      if (is[w->offset + i] != '.')
        ck_abort_msg ("two writes at %u", (unsigned) (w->offset + i));
      is[w->offset + i] = w->bytes ? (char) w->bytes[i] : '0';
    }
  }
  is[nr] = '\0';
  ck_assert_str_eq (is, text);
}

START_TEST (what_is_newer_takes_the_place)
{
  add ("abcdef", 2, false);
  add ("XY", 4, false);                 /* in the middle: two are left */
  expect ("..abXYef..");
  add ("123", 1, false);
  expect (".123XYef..");
  add ("789", 7, false);
  expect (".123XYe789");
  add ("ssssssss", 1, false);           /* over several */
  expect (".ssssssss9");
  add ("!", 9, false);
  expect (".ssssssss!");
}
END_TEST

START_TEST (what_is_durable_takes_the_place)
{
  add ("durable", 0, true);
  ck_assert_ptr_null (r.first);
  add ("abcdef", 0, false);
  add ("XY", 2, true);
  expect ("ab..ef");
  add ("XY", 4, true);
  expect ("ab....");
  add ("XYZ", 0, true);
  expect ("......");
  ck_assert_uint_eq (r.nr_bytes, 0);
}
END_TEST

/* Both parts of a write that was cut in two have its number. */
START_TEST (parts_are_dropped_together)
{
  uint64_t covered;

  add ("abcdef", 0, false);
  covered = r.end;
  add ("XY", 2, false);
  replay_drop (&r, covered);
  replay_verify (&r);
  expect ("..XY..");
}
END_TEST

/* What is owed is not dropped, and is found, until something newer is there. */
START_TEST (what_is_owed_stays)
{
  char buf[10];
  bool is_owed;

  add ("abcdef", 2, false);
  replay_owe (&r, r.first);
  add ("z", 8, false);
  ck_assert_uint_eq (replay_owed (&r, buf, 10, 0, &is_owed), 2);
  ck_assert (!is_owed);
  ck_assert_uint_eq (replay_owed (&r, buf, 7, 3, &is_owed), 5);
  ck_assert (is_owed);
  ck_assert_mem_eq (buf, "bcdef", 5);
  ck_assert_uint_eq (replay_owed (&r, buf, 2, 8, &is_owed), 2);
  ck_assert (!is_owed);
  add ("XY", 4, true);
  ck_assert_uint_eq (r.nr_owed, 2);
  ck_assert_uint_eq (replay_owed (&r, buf, 6, 4, &is_owed), 2);
  ck_assert (!is_owed);
  replay_drop (&r, r.end);
  replay_verify (&r);
  expect ("..ab..ef..");
  replay_pay (&r, r.first);
  replay_drop (&r, r.end);
  replay_verify (&r);
  expect ("......ef..");
}
END_TEST

START_TEST (any_writes)
{
  enum { SIZE = 60, NR = 2000 };
  char model[SIZE + 1], text[SIZE + 1];
  uint64_t numbers[SIZE] = { 0 };
  unsigned seed = 1;

  memset (model, '.', SIZE);
  model[SIZE] = '\0';
  for (unsigned n = 0; n < NR; n++) {
    unsigned offset = rand_r (&seed) % SIZE;
    unsigned count = 1 + rand_r (&seed) % (SIZE - offset);
    bool is_durable = rand_r (&seed) % 8 == 0;

    count = count > 12 && n % 16 ? 12 : count;
    memset (text, 'a' + (int) (n % 26), count);
    text[count] = '\0';
    for (unsigned i = 0; i < count; i++) {
      model[offset + i] = is_durable ? '.' : text[0];
      numbers[offset + i] = r.end;
    }
    add (text, offset, is_durable);
    if (n % 32 == 0) {
      uint64_t covered = r.end - rand_r (&seed) % (r.end < 8 ? 1 : 8);

      replay_drop (&r, covered);
      replay_verify (&r);
      for (unsigned i = 0; i < SIZE; i++)
        model[i] = numbers[i] < covered ? '.' : model[i];
    }
    expect (model);
  }
}
END_TEST

START_TEST (zeroes_need_no_memory)
{
  struct replay_write *w = replay_write_new (NULL, UINT64_C (1) << 40, 0, 7);

  ck_assert_ptr_nonnull (w);
  replay_add (&r, w, false);
  replay_verify (&r);
  ck_assert_uint_lt (r.nr_bytes, 1000);
  ck_assert_ptr_null (r.first->bytes);
  ck_assert_uint_eq (r.first->flags, 7);
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
  tcase_add_test (tcase, what_is_newer_takes_the_place);
  tcase_add_test (tcase, what_is_durable_takes_the_place);
  tcase_add_test (tcase, parts_are_dropped_together);
  tcase_add_test (tcase, what_is_owed_stays);
  tcase_add_test (tcase, any_writes);
  tcase_add_test (tcase, zeroes_need_no_memory);
  suite_add_tcase (suite, tcase);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
