/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "health.h"

static struct health health;    /* large, for a stack */

static void
note (uint64_t lba, enum event_kind kind, uint64_t when_ns)
{
  struct event event = {
    .lba = { lba }, .nr_sectors = 1, .kind = kind, .when_ns = when_ns,
  };

  health_note (&health, &event);
  health_verify (&health);
}

static struct health_snapshot
get_snapshot (void)
{
  struct health_snapshot snapshot;

  health_get_snapshot (&health, &snapshot);
  return snapshot;
}

static unsigned
region_of (uint64_t lba)
{
  return health_region_of (&health, (lba_t) { lba });
}

START_TEST (regions_cover_the_disk)
{
  static const uint64_t sizes[] = {
    0, 1, 2, 1023, 1024, 1025, 2047, 2048, 2049, 1000003,
    UINT64_C (1) << 48,
  };

  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    uint64_t last = sizes[i] > 0 ? sizes[i] - 1 : 0;

    health_init (&health, sizes[i]);
    ck_assert_uint_eq (region_of (0), 0);
    ck_assert_uint_lt (region_of (last), HEALTH_NR_REGIONS);
    ck_assert_uint_ge (region_of (last), last < HEALTH_NR_REGIONS ? last
                       : HEALTH_NR_REGIONS / 2);
    ck_assert_uint_eq (region_of (UINT64_MAX), HEALTH_NR_REGIONS - 1);
    for (unsigned r = 1; r < HEALTH_NR_REGIONS; r++) {
      uint64_t start = r * health.sectors_per_region;

      ck_assert_uint_eq (region_of (start), r);
      ck_assert_uint_eq (region_of (start - 1), r - 1);
    }
  }
}
END_TEST

START_TEST (counts_events_by_kind)
{
  struct health_snapshot snapshot;

  health_init (&health, 1 << 20);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    for (unsigned i = 0; i <= kind; i++)
      note (i * 1000, (enum event_kind) kind, 1);
  health_note_count (&health, 5, EVENT_WRITE_ERROR, 1000);
  health_note_count (&health, HEALTH_NR_REGIONS - 1, EVENT_LOST, 7);
  health_verify (&health);

  snapshot = get_snapshot ();
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    ck_assert_uint_eq (snapshot.total[kind], kind + 1
                       + (kind == EVENT_WRITE_ERROR ? 1000 : 0)
                       + (kind == EVENT_LOST ? 7 : 0));
  ck_assert_uint_eq (snapshot.nr_uncounted_details, 1007);
}
END_TEST

START_TEST (last_error_goes_by_the_clock)
{
  health_init (&health, 1 << 20);
  ck_assert_uint_eq (get_snapshot ().last_error.when_ns, 0);

  note (1, EVENT_WEAK, 10);     /* these are no errors */
  note (2, EVENT_REMAPPED, 10);
  note (3, EVENT_LOST, 10);
  note (4, EVENT_HEALED, 10);
  ck_assert_uint_eq (get_snapshot ().last_error.when_ns, 0);

  note (5, EVENT_READ_ERROR, 20);
  ck_assert_uint_eq (get_snapshot ().last_error.lba.n, 5);
  note (6, EVENT_WRITE_ERROR, 19);      /* posted late */
  ck_assert_uint_eq (get_snapshot ().last_error.lba.n, 5);
  note (7, EVENT_SPARE_ERROR, 21);
  ck_assert_uint_eq (get_snapshot ().last_error.lba.n, 7);
  note (8, EVENT_OTHER_ERROR, 22);
  note (9, EVENT_WEAK, 23);
  ck_assert_uint_eq (get_snapshot ().last_error.lba.n, 8);
  ck_assert_int_eq (get_snapshot ().last_error.kind, EVENT_OTHER_ERROR);
}
END_TEST

START_TEST (worst_regions_come_worst_first)
{
  /* 10 errors at region 100, 11 at 200, ...; then one more, of two kinds. */
  struct health_snapshot snapshot;
  const uint64_t per_region = (1 << 20) / HEALTH_NR_REGIONS;

  health_init (&health, 1 << 20);
  ck_assert_uint_eq (get_snapshot ().nr_worst, 0);
  for (unsigned i = 0; i < 10; i++)
    for (unsigned n = 0; n < 10 + i; n++)
      note ((i + 1) * 100 * per_region + n, n % 2
            ? EVENT_READ_ERROR : EVENT_WRITE_ERROR, 1);
  for (unsigned n = 0; n < 100; n++)    /* none of these is a medium error */
    note (50 * per_region, (enum event_kind) (EVENT_WEAK + n % 6), 1);

  snapshot = get_snapshot ();
  ck_assert_uint_eq (snapshot.nr_worst, HEALTH_NR_WORST);
  for (unsigned i = 0; i < HEALTH_NR_WORST; i++) {
    ck_assert_uint_eq (snapshot.worst[i].lba.n, (10 - i) * 100 * per_region);
    ck_assert_uint_eq (snapshot.worst[i].nr_errors, 19 - i);
    ck_assert_uint_eq (snapshot.worst[i].nr_sectors, per_region);
  }
}
END_TEST

START_TEST (equally_bad_regions_come_by_lba)
{
  struct health_snapshot snapshot;

  health_init (&health, HEALTH_NR_REGIONS);
  for (unsigned i = 20; i > 0; i--)
    note (i * 3, EVENT_READ_ERROR, 1);
  snapshot = get_snapshot ();
  ck_assert_uint_eq (snapshot.nr_worst, HEALTH_NR_WORST);
  for (unsigned i = 0; i < HEALTH_NR_WORST; i++)
    ck_assert_uint_eq (snapshot.worst[i].lba.n, (i + 1) * 3);
}
END_TEST

START_TEST (worst_region_ends_with_the_disk)
{
  struct health_snapshot snapshot;

  health_init (&health, 2 * HEALTH_NR_REGIONS - 1);
  note (2 * HEALTH_NR_REGIONS - 2, EVENT_READ_ERROR, 1);
  snapshot = get_snapshot ();
  ck_assert_uint_eq (snapshot.nr_worst, 1);
  ck_assert_uint_eq (snapshot.worst[0].lba.n, 2 * HEALTH_NR_REGIONS - 2);
  ck_assert_uint_eq (snapshot.worst[0].nr_sectors, 1);
}
END_TEST

START_TEST (verify_sees_a_wrong_total)
{
  health_init (&health, 1 << 20);
  note (1, EVENT_READ_ERROR, 1);
  health.total[EVENT_READ_ERROR]++;
  fclose (stderr);              /* nobody needs to be told */
  health_verify (&health);
}
END_TEST

START_TEST (every_kind_has_a_name)
{
  for (unsigned a = 0; a < NR_EVENT_KINDS; a++) {
    ck_assert_str_ne (event_kind_to_string ((enum event_kind) a), "unknown");
    for (unsigned b = 0; b < a; b++)
      ck_assert_str_ne (event_kind_to_string ((enum event_kind) a),
                        event_kind_to_string ((enum event_kind) b));
  }
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("health");
  TCase *tc = tcase_create ("counters");

  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, regions_cover_the_disk);
  tcase_add_test (tc, counts_events_by_kind);
  tcase_add_test (tc, last_error_goes_by_the_clock);
  tcase_add_test (tc, every_kind_has_a_name);
#ifndef NDEBUG
  tcase_add_test_raise_signal (tc, verify_sees_a_wrong_total, SIGABRT);
#endif
  suite_add_tcase (suite, tc);

  tc = tcase_create ("worst regions");
  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, worst_regions_come_worst_first);
  tcase_add_test (tc, equally_bad_regions_come_by_lba);
  tcase_add_test (tc, worst_region_ends_with_the_disk);
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
