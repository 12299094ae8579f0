/* SPDX-License-Identifier: BSD-3-Clause */
/* The breaker: which errors are believed, and when it opens and closes; with a
 * clock that the test sets.
 */
#include <config.h>

#include <check.h>
#include <stdlib.h>

#include "breaker.h"

#define S UINT64_C (1000000000)
#define T0 (1000 * S)           /* now, at the beginning */

static struct breaker b;

static void
begin (void)
{
  b = (struct breaker) { .state = BREAKER_CLOSED };
}

static void
probe (enum breaker_op op, enum breaker_answer answer, uint64_t at_ns)
{
  breaker_note_probe (&b, op, answer, at_ns, at_ns + 1);
}

static void
expect_verdict (enum breaker_op op, uint64_t failed_ns,
                enum breaker_verdict verdict)
{
  ck_assert_int_eq (breaker_judge (&b, op, failed_ns), verdict);
}

/* B1: only what was answered later than the failure counts. */
START_TEST (belief_needs_a_later_answer)
{
  expect_verdict (BREAKER_READ, T0, BREAKER_PROBE);
  expect_verdict (BREAKER_WRITE, T0, BREAKER_PROBE);
  probe (BREAKER_READ, BREAKER_ANSWERS_READ, T0 + 10);
  expect_verdict (BREAKER_READ, T0, BREAKER_BELIEVE);
  expect_verdict (BREAKER_READ, T0 + 9, BREAKER_BELIEVE);
  expect_verdict (BREAKER_READ, T0 + 10, BREAKER_PROBE);
  expect_verdict (BREAKER_READ, T0 + 11, BREAKER_PROBE);
  /* That it can be read says nothing of writes; not so the other way round. */
  expect_verdict (BREAKER_WRITE, T0, BREAKER_PROBE);
  probe (BREAKER_WRITE, BREAKER_ANSWERS_WRITE, T0 + 20);
  expect_verdict (BREAKER_WRITE, T0 + 15, BREAKER_BELIEVE);
  expect_verdict (BREAKER_READ, T0 + 15, BREAKER_BELIEVE);
  ck_assert_int_eq (b.state, BREAKER_CLOSED);
}
END_TEST

/* Every transition: state before, what was tried, what was answered, after. */
static const struct {
  enum breaker_state before;
  enum breaker_op op;
  enum breaker_answer answer;
  enum breaker_state after;
} transitions[] = {
  { BREAKER_CLOSED, BREAKER_READ, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_CLOSED, BREAKER_READ, BREAKER_ANSWERS_READ, BREAKER_CLOSED },
  { BREAKER_CLOSED, BREAKER_WRITE, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_CLOSED, BREAKER_WRITE, BREAKER_ANSWERS_READ, BREAKER_READ_ONLY },
  { BREAKER_CLOSED, BREAKER_WRITE, BREAKER_ANSWERS_WRITE, BREAKER_CLOSED },
  { BREAKER_READ_ONLY, BREAKER_READ, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_READ_ONLY, BREAKER_READ, BREAKER_ANSWERS_READ, BREAKER_READ_ONLY },
  { BREAKER_READ_ONLY, BREAKER_WRITE, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_READ_ONLY, BREAKER_WRITE, BREAKER_ANSWERS_READ,
    BREAKER_READ_ONLY },
  { BREAKER_READ_ONLY, BREAKER_WRITE, BREAKER_ANSWERS_WRITE, BREAKER_CLOSED },
  { BREAKER_OPEN, BREAKER_READ, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_OPEN, BREAKER_READ, BREAKER_ANSWERS_READ, BREAKER_CLOSED },
  { BREAKER_OPEN, BREAKER_WRITE, BREAKER_NO_ANSWER, BREAKER_OPEN },
  { BREAKER_OPEN, BREAKER_WRITE, BREAKER_ANSWERS_READ, BREAKER_READ_ONLY },
  { BREAKER_OPEN, BREAKER_WRITE, BREAKER_ANSWERS_WRITE, BREAKER_CLOSED },
};
#define NR_TRANSITIONS ((int) (sizeof transitions / sizeof transitions[0]))

static void
bring_into (enum breaker_state state)
{
  if (state == BREAKER_OPEN)
    probe (BREAKER_READ, BREAKER_NO_ANSWER, T0);
  if (state == BREAKER_READ_ONLY)
    probe (BREAKER_WRITE, BREAKER_ANSWERS_READ, T0);
  ck_assert_int_eq (b.state, state);
}

START_TEST (transition)
{
  bring_into (transitions[_i].before);
  probe (transitions[_i].op, transitions[_i].answer, T0 + S);
  ck_assert_int_eq (b.state, transitions[_i].after);

  /* B2, whatever was answered at other times. */
  b.answered_ns[BREAKER_READ] = b.answered_ns[BREAKER_WRITE] = T0 + 9 * S;
  expect_verdict (BREAKER_READ, T0 + 2 * S, b.state == BREAKER_OPEN
                  ? BREAKER_REFUSE : BREAKER_BELIEVE);
  expect_verdict (BREAKER_WRITE, T0 + 2 * S, b.state == BREAKER_CLOSED
                  ? BREAKER_BELIEVE : BREAKER_REFUSE);
}
END_TEST

/* Once a second, and never while nothing is wrong. */
START_TEST (probes_are_due)
{
  ck_assert_uint_eq (breaker_probe_due (&b), BREAKER_NEVER);
  probe (BREAKER_READ, BREAKER_NO_ANSWER, T0);
  for (uint64_t t = T0; t < T0 + 5 * S; t += S) {
    ck_assert_uint_eq (breaker_probe_due (&b), t + 1 + S);
    ck_assert_int_eq (breaker_probe_op (&b), BREAKER_READ);
    probe (BREAKER_READ, BREAKER_NO_ANSWER, t + S);
  }
  probe (BREAKER_READ, BREAKER_ANSWERS_READ, T0 + 6 * S);
  ck_assert_uint_eq (breaker_probe_due (&b), BREAKER_NEVER);
  probe (BREAKER_WRITE, BREAKER_ANSWERS_READ, T0 + 7 * S);
  ck_assert_uint_eq (breaker_probe_due (&b), T0 + 8 * S + 1);
  ck_assert_int_eq (breaker_probe_op (&b), BREAKER_WRITE);
}
END_TEST

/* What was lost in the minute before the disk went away is doubtful. */
START_TEST (second_look_after_it_has_been_open)
{
  probe (BREAKER_READ, BREAKER_NO_ANSWER, T0);
  probe (BREAKER_READ, BREAKER_NO_ANSWER, T0 + 30 * S);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);
  probe (BREAKER_READ, BREAKER_ANSWERS_READ, T0 + 100 * S);
  ck_assert_uint_eq (breaker_look_due (&b), T0 + 100 * S + 1);
  ck_assert_uint_eq (breaker_take_look (&b), T0 + 1 - BREAKER_DOUBT_NS);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);

  /* Writes that fail cast no doubt on what could not be read. */
  probe (BREAKER_WRITE, BREAKER_ANSWERS_READ, T0 + 200 * S);
  probe (BREAKER_WRITE, BREAKER_ANSWERS_WRITE, T0 + 201 * S);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);
}
END_TEST

/* It went away as one that took no writes any more. */
START_TEST (second_look_after_open_from_read_only)
{
  probe (BREAKER_WRITE, BREAKER_ANSWERS_READ, T0);
  probe (BREAKER_READ, BREAKER_NO_ANSWER, T0 + 500 * S);
  probe (BREAKER_READ, BREAKER_ANSWERS_READ, T0 + 501 * S);
  ck_assert_uint_ne (breaker_look_due (&b), BREAKER_NEVER);
  ck_assert_uint_le (breaker_take_look (&b), T0 + 500 * S - BREAKER_DOUBT_NS);
}
END_TEST

START_TEST (second_look_after_a_burst)
{
  /* As many as there may be in a second, for long. */
  for (uint64_t t = T0; t < T0 + 10 * S; t += S)
    breaker_note_lost (&b, BREAKER_BURST_SECTORS, t);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);

  /* One more; and when it has been quiet for a second. */
  breaker_note_lost (&b, 1, T0 + 10 * S - 1);
  ck_assert_uint_eq (breaker_look_due (&b), T0 + 11 * S - 1);
  for (unsigned i = 0; i < 100; i++)
    breaker_note_lost (&b, 1, T0 + 10 * S - 1 + i);
  ck_assert_uint_eq (breaker_look_due (&b), T0 + 11 * S + 98);
  ck_assert_uint_le (breaker_take_look (&b), T0 + 9 * S);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);
}
END_TEST

/* A burst, and then the disk is gone: all of it is looked at, once. */
START_TEST (second_look_waits_for_the_disk)
{
  breaker_note_lost (&b, 1000, T0);
  probe (BREAKER_READ, BREAKER_NO_ANSWER, T0 + S / 2);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);
  probe (BREAKER_READ, BREAKER_ANSWERS_READ, T0 + 300 * S);
  ck_assert_uint_eq (breaker_look_due (&b), T0 + 300 * S + 1);
  ck_assert_uint_le (breaker_take_look (&b), T0 - S);
  ck_assert_uint_eq (breaker_look_due (&b), BREAKER_NEVER);
}
END_TEST

START_TEST (states_have_names)
{
  ck_assert_str_eq (breaker_state_to_string (BREAKER_CLOSED), "closed");
  ck_assert_str_eq (breaker_state_to_string (BREAKER_READ_ONLY), "read-only");
  ck_assert_str_eq (breaker_state_to_string (BREAKER_OPEN), "open");
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("breaker");
  TCase *tc = tcase_create ("breaker");
  SRunner *runner;
  int nr_failed;

  tcase_add_checked_fixture (tc, begin, NULL);
  tcase_add_test (tc, belief_needs_a_later_answer);
  tcase_add_loop_test (tc, transition, 0, NR_TRANSITIONS);
  tcase_add_test (tc, probes_are_due);
  tcase_add_test (tc, second_look_after_it_has_been_open);
  tcase_add_test (tc, second_look_after_open_from_read_only);
  tcase_add_test (tc, second_look_after_a_burst);
  tcase_add_test (tc, second_look_waits_for_the_disk);
  tcase_add_test (tc, states_have_names);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
