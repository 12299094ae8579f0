/* SPDX-License-Identifier: BSD-3-Clause */
/* A request that the disk sits on, in whatever step of taking it apart, holds up
 * no other: reads, writes and remaps elsewhere, beside it, and in the same 4 KiB.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "error.h"
#include "gate.h"

#define NR_SECTORS 400
#define AT 83                   /* the disk sits on it; not the first of a step */
#define WIDE 20                 /* sectors on both sides of it in a wide request */
#define OTHER 200               /* further bad sectors from here on */

static struct fault_rig rig;
static uint32_t unit_sectors;
static uint8_t part[30] = "a part";

static void
begin (uint32_t physical_bytes)
{
  unit_sectors = physical_bytes / 512;
  fault_rig_init (&rig, &(struct dev_fault_options) {
                          .size_bytes = NR_SECTORS * 512,
                          .physical_bytes = physical_bytes },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = 200 * 512;
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
}

static void
expect_done (int r)
{
  ck_assert_msg (r == 0, "%s", r == 1 ? "other data" : last_error_text ());
}

static void
expect_error (int r, int err)
{
  ck_assert_int_eq (r, -1);
  ck_assert_int_eq (errno, err);
}

/* What the disk sits on. */

static int
read_one (void)
{
  return fault_rig_read (&rig, AT, 1, 0);
}

static int
read_wide (void)
{
  return fault_rig_read (&rig, AT - WIDE, 2 * WIDE, 0);
}

static int
write_one (void)
{
  return fault_rig_write (&rig, AT, 1, 1, 0);
}

static int
write_wide (void)
{
  return fault_rig_write (&rig, AT - WIDE, 2 * WIDE, 1, 0);
}

static int
write_part (void)
{
  return engine_pwrite (rig.engine, part, sizeof part, AT * 512 + 100, 0);
}

static int
zero_one (void)
{
  return engine_zero (rig.engine, 512, AT * 512, 0);
}

static int
trim_wide (void)
{
  return engine_trim (rig.engine, 2 * WIDE * 512, (AT - WIDE) * 512, 0);
}

/* The nth call of these kinds that touches AT is the one that hangs. */
static const struct {
  const char *name;
  int (*fn) (void);
  unsigned kinds, nth;
  bool wide;                    /* it writes beside AT as well */
} hangs[] = {
  { "read, first attempt", read_one, DEV_FAULT_PREAD, 1, false },
  { "read, second attempt", read_one, DEV_FAULT_PREAD, 2, false },
  { "read, last attempt", read_one, DEV_FAULT_PREAD, 3, false },
  { "wide read", read_wide, DEV_FAULT_PREAD, 1, false },
  { "wide read, its step", read_wide, DEV_FAULT_PREAD, 2, false },
  { "wide read, its sector", read_wide, DEV_FAULT_PREAD, 3, false },
  { "write", write_one, DEV_FAULT_PWRITE, 1, false },
  { "wide write", write_wide, DEV_FAULT_PWRITE, 1, true },
  { "wide write, its step", write_wide, DEV_FAULT_PWRITE, 2, true },
  { "wide write, its sector", write_wide, DEV_FAULT_PWRITE, 3, true },
  { "part, its read", write_part, DEV_FAULT_PREAD, 1, false },
  { "zero", zero_one, DEV_FAULT_ZERO, 1, false },
  { "trim", trim_wide, DEV_FAULT_TRIM, 1, true },
  { "trim, by writing", trim_wide, DEV_FAULT_PWRITE, 1, true },
};
#define NR_HANGS (sizeof hangs / sizeof hangs[0])

/* What goes on meanwhile. */

static void
go_on_elsewhere (void)
{
  uint64_t bad = OTHER;

  dev_fault_spoil (rig.backing, bad, 1, DEV_FAULT_BAD, 0, 0);
  dev_fault_spoil (rig.backing, bad + 16, 1, DEV_FAULT_BAD, 0, 0);
  expect_done (fault_rig_read (&rig, 8, 20, 0));
  expect_done (fault_rig_write (&rig, 8, 20, 2, 0));
  expect_done (fault_rig_read (&rig, 8, 20, 2));
  expect_done (fault_rig_write (&rig, bad - 8, 16, 2, 0));      /* remapped */
  expect_done (fault_rig_read (&rig, bad - 8, 16, 2));
  expect_done (fault_rig_write (&rig, bad, 1, 3, DEV_FUA));
  expect_done (fault_rig_read (&rig, bad, 1, 3));
  expect_error (fault_rig_read (&rig, bad + 16, 1, 0), EIO);    /* lost */
  ck_assert_int_eq (fault_rig_state (&rig, bad + 16), SECTOR_LOST);
  expect_done (fault_rig_write (&rig, bad + 16, 1, 2, 0));      /* healed */
  expect_done (engine_pwrite (rig.engine, part, sizeof part, 300 * 512 + 1,
                              0));
  expect_done (engine_zero (rig.engine, 8 * 512, 304 * 512, 0));
  expect_done (engine_trim (rig.engine, 8 * 512, 312 * 512, 0));
  expect_done (engine_flush (rig.engine));
}

/* Up to the neighbours, which with physical sectors that are larger are those
 * of the next ones.
 */
static void
go_on_beside (bool is_written)
{
  uint64_t first = AT / unit_sectors * unit_sectors;
  uint64_t end = first + unit_sectors;

  for (uint64_t n = 1; n <= 9; n++) {
    expect_done (fault_rig_write (&rig, first - n, n, 10 + n, 0));
    expect_done (fault_rig_read (&rig, first - n, n, 10 + n));
    expect_done (fault_rig_write (&rig, end, n, 10 + n, 0));
    expect_done (fault_rig_read (&rig, end, n, 10 + n));
  }
  /* Whoever decides on a sector waits for those who write to it. */
  if (is_written)
    return;
  expect_done (engine_pwrite (rig.engine, part, sizeof part, end * 512 + 5, 0));
  if (unit_sectors == 1) {
    dev_fault_spoil (rig.backing, AT - 2, 1, DEV_FAULT_BAD_WRITE, 0, 0);
    expect_done (fault_rig_write (&rig, AT - 2, 1, 5, 0));
    expect_done (fault_rig_read (&rig, AT - 2, 1, 5));
    ck_assert_int_eq (fault_rig_state (&rig, AT - 2), SECTOR_REMAPPED);
  }
}

/* Where others are held up, the test ends by its timeout. */
START_TEST (others_go_on)
{
  unsigned which = (unsigned) _i % NR_HANGS;
  uint32_t physical_bytes = (unsigned) _i < NR_HANGS ? 512 : 4096;
  struct gate_client stuck = { .fn = hangs[which].fn };
  struct gate gate;

  begin (physical_bytes);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD, 0, 0);
  gate = (struct gate) {
    .disk = rig.backing, .kinds = hangs[which].kinds,
    .first_byte = AT * 512, .end_byte = (AT + 1) * 512,
    .nth = hangs[which].nth, .nr_to_stop = 1,
  };
  gate_close (&gate);
  gate_client_start (&stuck);
  gate_wait (&gate, 1);
  go_on_elsewhere ();
  go_on_beside (hangs[which].wide);
  ck_assert_msg (gate.nr_inside == 1, "%s", hangs[which].name);
  gate_open (&gate);
  gate_client_join (&stuck);
  engine_verify (rig.engine);
  ck_assert_int_ne (fault_rig_state (&rig, AT), SECTOR_CLEAN);
  fault_rig_free (&rig);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("slow_sector");
  TCase *tc = tcase_create ("others go on");
  SRunner *runner;
  int nr_failed;

  tcase_set_timeout (tc, 60);
  tcase_add_loop_test (tc, others_go_on, 0, 2 * NR_HANGS);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
