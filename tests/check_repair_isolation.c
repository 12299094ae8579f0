/* SPDX-License-Identifier: BSD-3-Clause */
/* Isolation: requests of one sector to 32 MiB, with bad sectors in any pattern.
 * Every call of the disk that fails is counted for each unit (physical sector)
 * that it covers, good units are found in place, and spares are used for the
 * bad ones alone.  (A part of a sector is written like a request of its own:
 * there the sectors are counted.)
 *
 * REMAP_TEST_SEED=N repeats a run.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"

#define MARGIN_BYTES 65536      /* good, on both sides of the request */

static struct fault_rig rig;
static uint64_t base_seed;

static const struct layout {
  uint32_t sector_bytes, physical_bytes;
} layouts[] = { { 512, 512 }, { 512, 4096 }, { 4096, 4096 }, { 4096, 16384 } };
static const unsigned retry_counts[] = { 0, 1, 2, 5 };
#define NR_CONFIGS 16

/* READ_PARTS and WRITE_PARTS begin and end within a sector. */
enum request { READ, READ_PARTS, WRITE, WRITE_PARTS, ZERO, TRIM, NR_REQUESTS };

enum pattern {
  ONE, FIRST_AND_LAST, RUN, RUNS, STEP_EDGES, A_MIB, ONE_IN_SIX, MOST, ALL,
  NR_PATTERNS
};

/* A request, and what is bad in it. */
struct trial {
  struct layout layout;
  unsigned retries, how;
  enum request what;
  enum pattern pattern;
  uint64_t seed;
  uint64_t first, nr;           /* sectors */
  uint32_t unit_sectors;
  uint64_t nr_all;              /* of the disk */
  bool *is_bad;                 /* by unit of the disk */
  unsigned *nr_failed;          /* calls that failed and covered it; by sector */
};

static bool
is_read (const struct trial *t)
{
  return t->what == READ || t->what == READ_PARTS;
}

static uint64_t
bytes_to_cut (const struct trial *t)
{
  return t->what == READ_PARTS || t->what == WRITE_PARTS ? 13 : 0;
}

static int
count_failure (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct trial *t = opaque;
  uint32_t grain = t->what == WRITE_PARTS ? 1 : t->unit_sectors;
  uint64_t lba = call->offset / t->layout.sector_bytes;
  uint64_t end = div_round_up (call->offset + call->count,
                               t->layout.sector_bytes);

  if (is_done && call->err)
    for (lba = round_down (lba, grain); lba < round_up (end, grain); lba++)
      t->nr_failed[lba]++;
  return 0;
}

/* Patterns. */

static void
set_bad (struct trial *t, uint64_t lba)
{
  if (lba >= t->first && lba < t->first + t->nr)
    t->is_bad[lba / t->unit_sectors] = true;
}

static void
set_bad_run (struct trial *t, uint64_t lba, uint64_t nr)
{
  for (uint64_t i = 0; i < nr; i++)
    set_bad (t, lba + i);
}

static uint64_t
pick (struct trial *t, uint64_t below)
{
  return dev_fault_random (&t->seed) % below;
}

/* Of so many in a hundred. */
static void
set_bad_at_random (struct trial *t, unsigned percent)
{
  for (uint64_t i = 0; i < t->nr; i++)
    if (pick (t, 100) < percent)
      set_bad (t, t->first + i);
}

static void
choose_bad (struct trial *t)
{
  uint64_t step = 4096 / t->layout.sector_bytes, mib;

  switch (t->pattern) {
  case ONE:
    set_bad (t, t->first + pick (t, t->nr));
    break;
  case FIRST_AND_LAST:
    set_bad (t, t->first);
    set_bad (t, t->first + t->nr - 1);
    break;
  case RUN:
    set_bad_run (t, t->first + pick (t, t->nr), 1 + pick (t, 40));
    break;
  case RUNS:
    for (unsigned i = 0; i < 9; i++)
      set_bad_run (t, t->first + pick (t, t->nr), 1 + pick (t, 12));
    break;
  case STEP_EDGES:
    for (uint64_t i = 0; i < t->nr; i += step * (1 + pick (t, 4))) {
      set_bad (t, round_down (t->first + i, step));
      set_bad (t, round_down (t->first + i, step) + step - 1);
    }
    break;
  case A_MIB:
    mib = (1u << 20) / t->layout.sector_bytes;
    set_bad_run (t, t->nr > mib ? t->first + pick (t, t->nr - mib) : t->first,
                 mib);
    break;
  case ONE_IN_SIX:
    set_bad_at_random (t, 16);
    break;
  case MOST:
    set_bad_at_random (t, 90);
    break;
  case ALL:
    set_bad_run (t, t->first, t->nr);
    break;
  case NR_PATTERNS:
    break;
  }
  /* What is beside the request stays good, and where the rest of a sector is
   * needed to write a part of it, that as well: else the request must fail.
   */
  if (t->what == WRITE_PARTS && t->how & DEV_FAULT_BAD_READ) {
    t->is_bad[t->first / t->unit_sectors] = false;
    t->is_bad[(t->first + t->nr - 1) / t->unit_sectors] = false;
  }
}

static void
spoil_bad (struct trial *t)
{
  for (uint64_t i = 0; i * t->unit_sectors < t->nr_all; i++)
    if (t->is_bad[i])
      dev_fault_spoil (rig.backing, i * t->unit_sectors, 1, t->how, 0,
                       i % 3 ? EIO : ENODATA);
}

/* Which sectors must have been found bad? */

/* A part of a unit that cannot be read cannot be written either. */
static bool
is_found (const struct trial *t, uint64_t lba)
{
  uint64_t unit = lba / t->unit_sectors * t->unit_sectors;
  bool is_part = unit < t->first || unit + t->unit_sectors > t->first + t->nr ||
    (bytes_to_cut (t) && (unit == t->first ||
                          unit + t->unit_sectors == t->first + t->nr));

  if (lba < t->first || lba >= t->first + t->nr ||
      !t->is_bad[lba / t->unit_sectors])
    return false;
  if (is_read (t))
    return t->how & DEV_FAULT_BAD_READ;
  return t->how & DEV_FAULT_BAD_WRITE || is_part;
}

static void
fails (const struct trial *t, const char *what, uint64_t lba)
{
  ck_abort_msg ("REMAP_TEST_SEED=%llu: request %d of %d sectors of %u/%u at %d,"
                " pattern %d, bad %u, retries %u: %s at sector %d",
                (unsigned long long) base_seed, (int) t->what, (int) t->nr,
                t->layout.sector_bytes, t->layout.physical_bytes,
                (int) t->first, (int) t->pattern, t->how, t->retries, what,
                (int) lba);
}

/* F1.  Once more than retries= says a bad one must be found, unless the request
 * is no larger than what fails as one, and is written: it has been, then.
 */
static unsigned
touches_allowed (const struct trial *t)
{
  bool is_unit = t->first / t->unit_sectors
    == (t->first + t->nr - 1) / t->unit_sectors;

  if (is_unit && !is_read (t) && t->what != WRITE_PARTS)
    return 1;
  return MAX (2u, 1 + t->retries);
}

static void
check_touches (const struct trial *t)
{
  for (uint64_t lba = 0; lba < t->nr_all; lba++)
    if (t->nr_failed[lba] > touches_allowed (t) &&
        t->is_bad[lba / t->unit_sectors])
      fails (t, "too many touches", lba);
}

static bool
is_zero (const uint8_t *p, size_t n)
{
  return p[0] == 0 && memcmp (p, p + 1, n - 1) == 0;
}

/* Does the sector hold what it must?  Parts that were cut off are old. */
static bool
holds (const struct trial *t, uint64_t lba, const uint8_t *is)
{
  uint32_t n = t->layout.sector_bytes, cut = (uint32_t) bytes_to_cut (t);
  bool inside = lba >= t->first && lba < t->first + t->nr;
  uint8_t old[4096], new[4096];

  dev_fault_pattern (old, n, lba, 0);
  if (!inside || is_read (t))
    return memcmp (is, old, n) == 0;
  if (t->what == ZERO || t->what == TRIM)
    return is_zero (is, n);
  dev_fault_pattern (new, n, lba, 1);
  if (lba == t->first)
    memcpy (new, old, cut);
  if (lba == t->first + t->nr - 1)
    memcpy (new + n - cut, old + n - cut, cut);
  return memcmp (is, new, n) == 0;
}

static void
check_sector (const struct trial *t, uint64_t lba, uint8_t *buf)
{
  uint32_t n = t->layout.sector_bytes;
  enum sector_state state = fault_rig_state (&rig, lba);

  if (!is_found (t, lba)) {
    if (state != SECTOR_CLEAN)
      fails (t, "a good sector has a spare", lba);
    dev_fault_peek (rig.backing, buf, n, lba * n);
    if (!holds (t, lba, buf))
      fails (t, "not in place", lba);
    return;
  }
  if ((state == SECTOR_LOST) != is_read (t) || state == SECTOR_CLEAN)
    fails (t, "a bad sector is not as it should be", lba);
}

/* All of the disk through the engine, where it can be read. */
static void
check_content (const struct trial *t, uint8_t *buf)
{
  uint32_t n = t->layout.sector_bytes;

  for (uint64_t lba = 0; lba < t->nr_all; lba++) {
    int r;

    if (fault_rig_state (&rig, lba) == SECTOR_CLEAN &&
        t->is_bad[lba / t->unit_sectors] && t->how & DEV_FAULT_BAD_READ)
      continue;                 /* bad, and not part of the request */
    r = engine_pread (rig.engine, buf, n, lba * n);
    if (r == -1 && !(is_read (t) && is_found (t, lba)))
      fails (t, last_error_text (), lba);
    if (r == 0 && !holds (t, lba, buf))
      fails (t, "other data", lba);
  }
}

static void
check_counts (const struct trial *t)
{
  struct status status = { .spares_total = 0 };
  uint64_t nr_bad = 0;

  for (uint64_t lba = 0; lba < t->nr_all; lba++)
    nr_bad += is_found (t, lba);
  engine_get_status (rig.engine, &status);
  ck_assert_uint_eq (status.nr_remapped + status.nr_zeroed,
                     is_read (t) ? 0 : nr_bad);
  ck_assert_uint_eq (status.nr_lost, is_read (t) ? nr_bad : 0);
  ck_assert_uint_eq (status.spares_total - status.spares_free, nr_bad);
}

static int
make_request (const struct trial *t)
{
  uint32_t n = t->layout.sector_bytes;
  uint64_t cut = bytes_to_cut (t);
  uint64_t count = t->nr * n - 2 * cut, offset = t->first * n + cut;
  uint8_t *buf = malloc (t->nr * n);
  int r = -1;

  for (uint64_t i = 0; i < t->nr; i++)
    dev_fault_pattern (buf + i * n, n, t->first + i, 1);
  switch (t->what) {
  case READ: case READ_PARTS:
    r = engine_pread (rig.engine, buf, count, offset);
    break;
  case WRITE: case WRITE_PARTS:
    r = engine_pwrite (rig.engine, buf + cut, count, offset, 0);
    break;
  case ZERO:
    r = engine_zero (rig.engine, count, offset, 0);
    break;
  case TRIM:
    r = engine_trim (rig.engine, count, offset, 0);
    break;
  case NR_REQUESTS:
    break;
  }
  free (buf);
  return r;
}

static void
begin (struct trial *t)
{
  uint64_t margin = MARGIN_BYTES / t->layout.sector_bytes;

  t->unit_sectors = t->layout.physical_bytes / t->layout.sector_bytes;
  /* Room for probes beside the request. */
  margin = MAX (margin, round_up (t->nr / 2, t->unit_sectors));
  t->first = margin + (pick (t, 2) ? pick (t, 2 * t->unit_sectors) : 0);
  t->nr_all = round_up (t->first + t->nr, t->unit_sectors) + margin;
  t->is_bad = calloc (t->nr_all, sizeof *t->is_bad);
  t->nr_failed = calloc (t->nr_all, sizeof *t->nr_failed);
  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .size_bytes = t->nr_all * t->layout.sector_bytes,
                    .sector_bytes = t->layout.sector_bytes,
                    .physical_bytes = t->layout.physical_bytes },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = MAX (t->nr + 64, (uint64_t) 64) * t->layout.sector_bytes;
  rig.options.retries = t->retries;
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
}

static void
try (struct trial t)
{
  uint8_t sector[4096];
  bool must_fail = false;
  int r;

  begin (&t);
  choose_bad (&t);
  spoil_bad (&t);
  for (uint64_t lba = 0; lba < t.nr_all; lba++)
    must_fail |= is_read (&t) && is_found (&t, lba);
  dev_fault_set_hook (rig.backing, count_failure, &t);
  r = make_request (&t);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  if ((r == -1) != must_fail || (r == -1 && errno != EIO))
    fails (&t, r == -1 ? last_error_text () : "no error", t.first);
  check_touches (&t);
  check_counts (&t);
  for (uint64_t lba = 0; lba < t.nr_all; lba++)
    check_sector (&t, lba, sector);
  check_content (&t, sector);
  engine_verify (rig.engine);
  fault_rig_free (&rig);
  free (t.is_bad);
  free (t.nr_failed);
}

static struct trial
trial_of (int config, uint64_t number)
{
  return (struct trial) {
    .layout = layouts[config / 4], .retries = retry_counts[config % 4],
    .seed = base_seed + (uint64_t) config * 1000003 + number,
  };
}

/* Every request, pattern and kind of badness, of some size. */
START_TEST (small_requests)
{
  static const uint64_t sizes[] = { 1, 2, 8, 11, 64, 300 };

  for (unsigned i = 0; i < 2 * NR_REQUESTS * NR_PATTERNS * 3; i++) {
    struct trial t = trial_of (_i, i);

    t.nr = sizes[pick (&t, 6)];
    t.what = (enum request) (i % NR_REQUESTS);
    t.pattern = (enum pattern) (i / NR_REQUESTS % NR_PATTERNS);
    t.how = 1 + i / NR_REQUESTS / NR_PATTERNS % 3;
    try (t);
  }
}
END_TEST

/* Up to 32 MiB, some of each. */
START_TEST (large_requests)
{
  static const uint64_t sizes[] = { 1 << 20, 3 << 20, 32 << 20 };

  for (unsigned i = 0; i < NR_REQUESTS; i++) {
    struct trial t = trial_of (_i, 10000 + i);

    t.what = (enum request) i;
    t.nr = sizes[(i + (unsigned) _i) % 3] / t.layout.sector_bytes;
    t.pattern = (enum pattern) pick (&t, NR_PATTERNS);
    t.how = 1 + (unsigned) pick (&t, 3);
    try (t);
  }
}
END_TEST

static void
choose_seed (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");

  base_seed = given ? strtoull (given, NULL, 0)
    : (uint64_t) time (NULL) * 1000 + (uint64_t) getpid () % 1000;
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) base_seed);
  fflush (stdout);
}

static void
add_case (Suite *suite, const char *name, const TTest *test)
{
  TCase *tc = tcase_create (name);

  tcase_set_timeout (tc, 250);
  suite_add_tcase (suite, tc);
  tcase_add_loop_test (tc, test, 0, NR_CONFIGS);
}

int
main (void)
{
  Suite *suite = suite_create ("repair: isolation");
  SRunner *runner;
  int nr_failed;

  choose_seed ();
  add_case (suite, "small requests", small_requests);
  add_case (suite, "large requests", large_requests);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
