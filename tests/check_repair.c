/* SPDX-License-Identifier: BSD-3-Clause */
/* The error path: how often bad sectors are touched, what is isolated, what
 * happens when the store is full or fails, and threads that meet on a sector.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"
#include "log.h"
#include "store-load.h"
#include "worker.h"

#define NR_SECTORS 160
#define AT 80                   /* the sector that a test is about */
#define SMALL_SLOTS 32

static struct fault_rig rig;
static uint32_t sector_bytes;

static const uint32_t sector_sizes[] = { 512, 4096 };
static const unsigned retry_counts[] = { 0, 1, 2, 5 };
#define NR_CONFIGS 8

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
  engine_verify (rig.engine);
}

static void
begin_with (struct dev_fault_options backing, struct dev_fault_options store,
            unsigned nr_slots, unsigned retries)
{
  sector_bytes = backing.sector_bytes ? backing.sector_bytes : 512;
  if (backing.size_bytes == 0)
    backing.size_bytes = (uint64_t) NR_SECTORS * sector_bytes;
  fault_rig_init (&rig, &backing, &store);
  rig.spare_bytes = (uint64_t) nr_slots * sector_bytes;
  rig.options.retries = retries;
  open_rig ();
}

static void
begin (int config)
{
  begin_with ((struct dev_fault_options) {
                .sector_bytes = sector_sizes[config / 4] },
              (struct dev_fault_options) { .size_bytes = 0 }, 200,
              retry_counts[config % 4]);
}

static void
begin_small (void)
{
  begin_with ((struct dev_fault_options) { .sector_bytes = 512 },
              (struct dev_fault_options) { .size_bytes = 0 }, SMALL_SLOTS, 2);
}

static void
end (void)
{
  engine_verify (rig.engine);
  fault_rig_free (&rig);
}

static void
reopen (void)
{
  engine_verify (rig.engine);
  fault_rig_kill (&rig);
  open_rig ();
}

static void
spoil (uint64_t lba, uint64_t nr, unsigned how)
{
  dev_fault_spoil (rig.backing, lba, nr, how, 0, 0);
}

static void
expect_data (uint64_t lba, uint64_t nr, unsigned version)
{
  int r = fault_rig_read (&rig, lba, nr, version);

  ck_assert_msg (r == 0, "sector %d: %s", (int) lba,
                 r == 1 ? "other data" : last_error_text ());
}

static void
expect_done (int r)
{
  ck_assert_msg (r == 0, "%s", last_error_text ());
  engine_verify (rig.engine);
}

static void
expect_error (int r, int err)
{
  ck_assert_int_eq (r, -1);
  ck_assert_msg (errno == err, "%s, not %s", strerror (errno), strerror (err));
  engine_verify (rig.engine);
}

static void
expect_state (uint64_t lba, enum sector_state state)
{
  enum sector_state is = fault_rig_state (&rig, lba);

  ck_assert_msg (is == state, "sector %d is %s, not %s", (int) lba,
                 sector_state_to_string (is), sector_state_to_string (state));
}

static struct status
get_status (void)
{
  struct status status = { .spares_total = 0 };

  engine_get_status (rig.engine, &status);
  return status;
}

/* Requests. */

enum request { READ, WRITE, WRITE_PARTS, ZERO, TRIM, NR_REQUESTS };

/* Of nr sectors; WRITE_PARTS of a part of the first and the last. */
static int
request (enum request what, uint64_t lba, uint64_t nr, unsigned version)
{
  uint64_t count = nr * sector_bytes, offset = lba * sector_bytes;
  uint8_t *buf = calloc (1, count);
  int r = -1;

  switch (what) {
  case READ:
    r = engine_pread (rig.engine, buf, count, offset);
    break;
  case WRITE:
    r = fault_rig_write (&rig, lba, nr, version, 0);
    break;
  case WRITE_PARTS:
    r = engine_pwrite (rig.engine, buf, count - 20, offset + 10, 0);
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

/* Which sectors of a request of nr are bad. */
#define NR_PATTERNS 6
static bool
is_in_pattern (unsigned pattern, uint64_t i, uint64_t nr)
{
  switch (pattern) {
  case 0: return i == nr / 2;
  case 1: return i == 0;
  case 2: return i == nr - 1;
  case 3: return i >= nr / 3 && i < nr / 3 + 3;
  case 4: return i % 2 == 0;
  default: return true;
  }
}

/* No bad sector is touched more often than it may be (F1), no good one is
 * remapped, and each one reads as it should.
 */
static void
check_after (enum request what, unsigned how, uint64_t first, uint64_t nr,
             unsigned pattern, unsigned retries)
{
  for (uint64_t i = 0; i < nr; i++) {
    uint64_t lba = first + i;
    unsigned touches = dev_fault_touches (rig.backing, lba);
    bool reads = what == READ ||
      (what == WRITE_PARTS && (i == 0 || i == nr - 1));

    if (!is_in_pattern (pattern, i, nr)) {
      expect_state (lba, SECTOR_CLEAN);
      continue;
    }
    ck_assert_msg (touches <= MAX (2u, 1 + retries),
                   "request %d of %d sectors, pattern %u, bad %u, retries %u: "
                   "sector %d is touched %u times", (int) what, (int) nr,
                   pattern, how, retries, (int) i, touches);
    if (reads && how & DEV_FAULT_BAD_READ)
      expect_state (lba, SECTOR_LOST);
    else if (!(what == READ || how == DEV_FAULT_BAD_READ) &&
             !(what == WRITE_PARTS && how & DEV_FAULT_BAD_READ))
      ck_assert_int_ne (fault_rig_state (&rig, lba), SECTOR_CLEAN);
    if (what == WRITE)
      expect_data (lba, 1, 1);
  }
}

static void
try_request (int config, enum request what, unsigned how, uint64_t nr,
             unsigned pattern)
{
  const uint64_t first = 13;
  unsigned retries = retry_counts[config % 4];
  bool fails = false;
  int r;

  begin (config);
  for (uint64_t i = 0; i < nr; i++)
    if (is_in_pattern (pattern, i, nr)) {
      spoil (first + i, 1, how);
      fails |= how & DEV_FAULT_BAD_READ &&
        (what == READ || (what == WRITE_PARTS && (i == 0 || i == nr - 1)));
    }
  dev_fault_forget_touches (rig.backing);
  r = request (what, first, nr, 1);
  if (fails)
    expect_error (r, EIO);
  else
    expect_done (r);
  if (!(what == WRITE_PARTS && fails))  /* else it ends where it failed */
    check_after (what, how, first, nr, pattern, retries);
  expect_state (first - 1, SECTOR_CLEAN);
  expect_state (first + nr, SECTOR_CLEAN);
  expect_data (0, first, 0);
  expect_data (first + nr, NR_SECTORS - first - nr, 0);
  end ();
}

static const uint64_t request_sectors[] = { 1, 3, 8, 21, 128 };
#define NR_SIZES 5

static void
try_sizes_and_patterns (int config, enum request what)
{
  for (unsigned size = 0; size < NR_SIZES; size++)
    for (unsigned pattern = 0; pattern < NR_PATTERNS; pattern++)
      for (unsigned how = 1; how <= DEV_FAULT_BAD; how++)
        try_request (config, what, how, request_sectors[size], pattern);
}

START_TEST (touches_and_isolation)
{
  try_sizes_and_patterns (_i / 3, (enum request) (_i % 3));
}
END_TEST

START_TEST (touches_and_isolation_of_zero_and_trim)
{
  try_sizes_and_patterns (_i / 2, _i % 2 ? TRIM : ZERO);
}
END_TEST

/* After a request that failed no other touches what it found. */
START_TEST (found_sectors_are_left_alone)
{
  begin (_i);
  spoil (AT, 5, DEV_FAULT_BAD);
  expect_error (request (READ, AT - 8, 16, 0), EIO);
  for (unsigned i = 0; i < 5; i++)
    expect_state (AT + i, SECTOR_LOST);
  expect_done (request (WRITE, AT + 1, 1, 1));
  dev_fault_forget_touches (rig.backing);
  for (enum request what = READ; what < NR_REQUESTS; what++) {
    request (what, AT - 8, 16, 2);
    request (what, AT, 5, 2);
    request (what, AT + 1, 1, 2);
  }
  for (unsigned i = 0; i < 5; i++)
    ck_assert_uint_eq (dev_fault_touches (rig.backing, AT + i), 0);
  end ();
}
END_TEST

/* Physical sectors of 4096 bytes, sectors of 512. */

static void
begin_physical (unsigned retries, unsigned nr_slots)
{
  begin_with ((struct dev_fault_options) {
                .sector_bytes = 512, .physical_bytes = 4096 },
              (struct dev_fault_options) { .size_bytes = 0 }, nr_slots,
              retries);
}

START_TEST (physical_sector_is_read_as_one)
{
  begin_physical (retry_counts[_i], 200);
  spoil (AT, 1, DEV_FAULT_BAD_READ);
  expect_error (request (READ, 0, NR_SECTORS, 0), EIO);
  for (unsigned i = 0; i < 8; i++) {
    expect_state (AT + i, SECTOR_LOST);
    ck_assert_uint_le (dev_fault_touches (rig.backing, AT + i),
                       MAX (2u, 1 + retry_counts[_i]));
  }
  expect_state (AT - 1, SECTOR_CLEAN);
  expect_state (AT + 8, SECTOR_CLEAN);
  ck_assert_uint_eq (get_status ().nr_lost, 8);
  expect_data (0, AT, 0);
  expect_data (AT + 8, NR_SECTORS - AT - 8, 0);
  reopen ();
  ck_assert_uint_eq (get_status ().nr_lost, 8);
  end ();
}
END_TEST

START_TEST (physical_sector_is_written_as_one)
{
  begin_physical (retry_counts[_i], 200);
  spoil (AT, 1, DEV_FAULT_BAD_WRITE);
  expect_done (request (WRITE, AT - 13, 40, 1));
  for (unsigned i = 0; i < 8; i++) {
    expect_state (AT + i, SECTOR_REMAPPED);
    ck_assert_uint_le (dev_fault_touches (rig.backing, AT + i),
                       MAX (2u, 1 + retry_counts[_i]));
  }
  ck_assert_uint_eq (get_status ().nr_remapped, 8);
  expect_data (AT - 13, 40, 1);
  reopen ();
  expect_data (AT - 13, 40, 1);
  end ();
}
END_TEST

/* Its touches are those of all of its sectors together. */
START_TEST (physical_sector_is_touched_as_one)
{
  const unsigned most = MAX (2u, 1 + retry_counts[_i]);
  unsigned nr;

  begin_physical (retry_counts[_i], 200);
  spoil (AT, 1, DEV_FAULT_BAD_READ);
  nr = dev_fault_calls (rig.backing, DEV_FAULT_PREAD);
  expect_error (request (READ, AT, 8, 0), EIO);
  ck_assert_uint_le (dev_fault_calls (rig.backing, DEV_FAULT_PREAD) - nr,
                     most + 1); /* and the probe, of another one */
  spoil (AT + 8, 1, DEV_FAULT_BAD_WRITE);
  nr = dev_fault_calls (rig.backing, DEV_FAULT_PWRITE);
  expect_done (request (WRITE, AT + 8, 8, 1));
  ck_assert_uint_le (dev_fault_calls (rig.backing, DEV_FAULT_PWRITE) - nr,
                     most + 1);
  end ();
}
END_TEST

/* A part of it is wanted: the others stay where they are. */
START_TEST (part_of_a_physical_sector)
{
  begin_physical (retry_counts[_i], 200);
  spoil (AT, 1, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT + 2, 3, 1));
  ck_assert_uint_eq (get_status ().nr_remapped, 3);
  expect_data (AT + 2, 3, 1);
  expect_error (request (READ, AT + 1, 6, 0), EIO);
  expect_state (AT, SECTOR_CLEAN);
  expect_state (AT + 1, SECTOR_LOST);
  expect_error (request (READ, AT + 5, 1, 0), EIO);
  expect_state (AT + 5, SECTOR_LOST);
  expect_state (AT + 7, SECTOR_CLEAN);
  expect_data (AT + 2, 3, 1);
  expect_done (request (WRITE, AT, 8, 2));
  expect_data (AT, 8, 2);
  reopen ();
  expect_data (AT, 8, 2);
  end ();
}
END_TEST

/* Neighbours that are met together cost one write of data and one record (a
 * write to each copy of the table).
 */
START_TEST (neighbours_cost_one_record)
{
  const unsigned nr = 1500;
  unsigned nr_writes;

  begin_with ((struct dev_fault_options) { .size_bytes = 1600 * 512 },
              (struct dev_fault_options) { .size_bytes = 0 }, 3500, 2);
  spoil (50, nr, DEV_FAULT_BAD_WRITE);
  nr_writes = dev_fault_calls (rig.store, DEV_FAULT_PWRITE);
  expect_done (fault_rig_write (&rig, 0, 1600, 1, 0));
  nr_writes = dev_fault_calls (rig.store, DEV_FAULT_PWRITE) - nr_writes;
  ck_assert_uint_eq (nr_writes, 2 * 3); /* a record has at most 1024 sectors */
  ck_assert_uint_eq (get_status ().nr_remapped, nr);
  expect_data (0, 1600, 1);
  reopen ();
  expect_data (0, 1600, 1);

  /* The good ones between them are in place, each run is a record. */
  dev_fault_mend (rig.backing, 0, 1600);
  spoil (10, 3, DEV_FAULT_BAD_WRITE);
  spoil (14, 3, DEV_FAULT_BAD_WRITE);
  nr_writes = dev_fault_calls (rig.store, DEV_FAULT_PWRITE);
  expect_done (fault_rig_write (&rig, 5, 20, 2, 0));
  nr_writes = dev_fault_calls (rig.store, DEV_FAULT_PWRITE) - nr_writes;
  ck_assert_uint_eq (nr_writes, 2 * 3);
  expect_state (13, SECTOR_CLEAN);
  expect_data (5, 20, 2);
  end ();
}
END_TEST

/* Before the run that a request has met gets its spares, another request gives
 * one of its sectors a spare, or has it found unreadable.
 */
static void *
meet_the_run (void *what)
{
  int r = *(int *) what == 0 ? fault_rig_write (&rig, AT, 2, 9, 0)
    : fault_rig_read (&rig, AT, 2, 0);

  ck_assert_int_eq (r, *(int *) what == 0 ? 0 : -1);
  return NULL;
}

static int
meet_at_the_last (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  pthread_t thread;

  if (call->kind == DEV_FAULT_PWRITE && call->count == 512 &&
      call->offset == (AT + 4) * 512 && !is_done) {
    dev_fault_set_hook (rig.backing, NULL, NULL);
    ck_assert_int_eq (pthread_create (&thread, NULL, meet_the_run, opaque), 0);
    pthread_join (thread, NULL);
  }
  return 0;
}

START_TEST (run_is_met_by_another_request)
{
  begin_small ();
  spoil (AT, 5, DEV_FAULT_BAD);
  dev_fault_set_hook (rig.backing, meet_at_the_last, &_i);
  expect_done (fault_rig_write (&rig, AT - 1, 7, 1, 0));
  expect_data (AT - 1, 7, 1);
  expect_state (AT, SECTOR_REMAPPED);
  reopen ();
  expect_data (AT - 1, 7, 1);
  end ();
}
END_TEST

/* One spare of a run is bad: all sectors find others. */
START_TEST (bad_spare_in_a_run)
{
  struct store_super super;
  struct store_image image;
  struct dev *dev;

  begin_physical (2, SMALL_SLOTS);
  dev = dev_fault_open (rig.store);
  ck_assert_int_eq (store_load (dev, "store", NULL, NULL, &image), 0);
  dev_close (dev);
  super = image.super;
  store_image_free (&image);
  for (uint32_t i = 0; i < 11; i += 5)
    dev_fault_spoil (rig.store, store_data_at (&super, (spare_t) { i }) / 512,
                     1, DEV_FAULT_BAD_WRITE, 0, 0);
  spoil (AT, 1, DEV_FAULT_BAD_WRITE);
  expect_done (request (WRITE, AT, 8, 1));
  expect_data (AT, 8, 1);
  ck_assert_uint_ge (get_status ().spares_bad, 1);
  ck_assert_uint_le (get_status ().spares_bad, 3);
  reopen ();
  expect_data (AT, 8, 1);
  expect_done (request (WRITE, AT, 8, 2));
  expect_data (AT, 8, 2);
  end ();
}
END_TEST

/* A disk that ends within a sector. */

static const uint32_t rests[] = { 1, 100, 511 };

static void
begin_odd (int i)
{
  begin_with ((struct dev_fault_options) {
                .sector_bytes = 512, .size_bytes = 100 * 512 + rests[i] },
              (struct dev_fault_options) { .size_bytes = 0 }, SMALL_SLOTS, 2);
}

START_TEST (short_last_sector)
{
  uint64_t end_bytes = 100 * 512 + rests[_i];
  uint8_t byte = 0x77;

  begin_odd (_i);
  expect_data (98, 3, 0);
  spoil (100, 1, DEV_FAULT_BAD);
  expect_done (fault_rig_write (&rig, 98, 3, 1, 0));
  expect_state (100, SECTOR_REMAPPED);
  expect_data (98, 3, 1);
  expect_data (100, 1, 1);
  reopen ();
  expect_data (98, 3, 1);
  expect_done (fault_rig_write (&rig, 100, 1, 2, 0));
  expect_data (100, 1, 2);
  expect_done (engine_pwrite (rig.engine, &byte, 1, end_bytes - 1, DEV_FUA));
  byte = 0;
  expect_done (engine_pread (rig.engine, &byte, 1, end_bytes - 1));
  ck_assert_uint_eq (byte, 0x77);
  expect_error (engine_pread (rig.engine, &byte, 1, end_bytes), EINVAL);
  expect_done (engine_zero (rig.engine, end_bytes - 99 * 512, 99 * 512, 0));
  expect_state (100, SECTOR_ZEROED);
  expect_done (engine_pread (rig.engine, &byte, 1, end_bytes - 1));
  ck_assert_uint_eq (byte, 0);
  end ();
}
END_TEST

START_TEST (short_last_sector_is_lost)
{
  uint64_t end_bytes = 100 * 512 + rests[_i];
  uint8_t byte = 0x77;

  begin_odd (_i);
  spoil (100, 1, DEV_FAULT_BAD);
  expect_error (engine_pread (rig.engine, &byte, 1, end_bytes - 1), EIO);
  expect_state (100, SECTOR_LOST);
  expect_data (0, 100, 0);
  reopen ();
  expect_state (100, SECTOR_LOST);
  expect_done (fault_rig_write (&rig, 97, 4, 3, 0));
  expect_data (97, 4, 3);
  expect_state (100, SECTOR_REMAPPED);
  end ();
}
END_TEST

/* Errors that are not the sector's. */

static const int other_errors[] = {
  ENOTCONN, ENODEV, ENXIO, ESHUTDOWN, ENOLINK, ETIMEDOUT, EREMOTEIO, ENOSPC,
  ENOMEM, EPERM,
};
#define NR_OTHER_ERRORS 10

START_TEST (other_errors_remap_nothing)
{
  unsigned nr_changes;

  begin (2);
  nr_changes = dev_fault_calls (rig.store, DEV_FAULT_CHANGES);
  dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, 1, true,
                        other_errors[_i]);
  for (enum request what = READ; what < NR_REQUESTS; what++) {
    expect_error (request (what, AT, 1, 1), other_errors[_i]);
    expect_error (request (what, 3, 100, 1), other_errors[_i]);
  }
  dev_fault_heal_calls (rig.backing);
  expect_data (0, NR_SECTORS, 0);
  ck_assert_uint_eq (get_status ().nr_remapped + get_status ().nr_lost, 0);
  ck_assert_uint_eq (dev_fault_calls (rig.store, DEV_FAULT_CHANGES),
                     nr_changes);
  end ();
}
END_TEST

static const int medium_errors[] = { EIO, ENODATA, EILSEQ };

START_TEST (medium_errors_remap)
{
  begin (2);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD, 0, medium_errors[_i]);
  expect_error (request (READ, AT - 2, 5, 1), EIO);
  expect_state (AT, SECTOR_LOST);
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD, 0,
                   medium_errors[_i]);
  expect_done (request (WRITE, AT - 2, 5, 1));
  expect_data (AT - 2, 5, 1);
  expect_state (AT + 1, SECTOR_REMAPPED);
  end ();
}
END_TEST

/* The disk goes away in the middle of a repair. */
START_TEST (disk_goes_away_in_a_repair)
{
  enum request what = (enum request) (_i % NR_REQUESTS);
  bool was_reached = true;

  for (unsigned n = 2; was_reached; n++) {
    int r;

    begin (_i / NR_REQUESTS);
    spoil (AT, 2, what == READ ? DEV_FAULT_BAD_READ : DEV_FAULT_BAD_WRITE);
    dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, n, true, ENODEV);
    r = request (what, AT - 10, 30, 1);
    was_reached = r == -1 && errno == ENODEV;
    if (!was_reached && what == READ)
      expect_error (r, EIO);
    else if (!was_reached)
      expect_done (r);
    dev_fault_heal_calls (rig.backing);
    expect_state (AT - 1, SECTOR_CLEAN);
    expect_state (AT + 2, SECTOR_CLEAN);
    if (was_reached && what != READ)
      for (unsigned i = 0; i < 2; i++)
        ck_assert_int_ne (fault_rig_state (&rig, AT + i), SECTOR_LOST);
    end ();
    ck_assert (n > 2 || was_reached);
  }
}
END_TEST

/* The store is full. */

static void
use_all_spares (void)
{
  spoil (0, 40, DEV_FAULT_BAD);
  expect_done (request (WRITE, 0, SMALL_SLOTS, 1));
}

START_TEST (exhaustion)
{
  begin_small ();
  use_all_spares ();
  expect_error (request (WRITE, 36, 1, 1), ENOSPC);
  expect_error (request (WRITE, 30, 20, 1), ENOSPC);
  expect_error (request (READ, 38, 1, 0), EIO);
  expect_error (request (WRITE, 38, 1, 1), ENOSPC);
  expect_error (request (ZERO, 38, 1, 1), ENOSPC);
  expect_error (request (WRITE_PARTS, 38, 1, 1), EIO);
  dev_fault_forget_touches (rig.backing);
  expect_error (request (READ, 38, 1, 0), EIO);
  ck_assert_uint_eq (dev_fault_touches (rig.backing, 38), 0);
  ck_assert_uint_eq (get_status ().spares_free, 0);
  expect_data (0, SMALL_SLOTS, 1);
  expect_done (request (WRITE, 60, 40, 2));
  expect_data (60, 40, 2);
  for (unsigned version = 2; version < 9; version++) {
    expect_done (request (WRITE, 0, SMALL_SLOTS, version));
    expect_data (0, SMALL_SLOTS, version);
  }
  expect_done (request (ZERO, 0, 10, 0));
  expect_done (request (WRITE_PARTS, 0, 10, 0));
  expect_done (request (WRITE, 0, 10, 9));
  reopen ();
  expect_data (0, 10, 9);
  expect_data (10, SMALL_SLOTS - 10, 8);
  end ();
}
END_TEST

/* With a larger store all is well. */
START_TEST (exhaustion_is_mended)
{
  begin_small ();
  use_all_spares ();
  expect_error (request (READ, 38, 1, 0), EIO);
  fault_rig_close (&rig);
  rig.spare_bytes = 64 * 512;
  open_rig ();
  expect_data (0, SMALL_SLOTS, 1);
  expect_error (request (READ, 38, 1, 0), EIO);
  expect_state (38, SECTOR_LOST);
  expect_done (request (WRITE, 0, 40, 2));
  expect_data (0, 40, 2);
  end ();
}
END_TEST

/* A request that failed for want of a spare left every sector old or new. */
START_TEST (exhaustion_within_a_request)
{
  begin_small ();
  spoil (10, 100, DEV_FAULT_BAD_WRITE);
  expect_error (request (WRITE, 0, 120, 1), ENOSPC);
  for (unsigned i = 0; i < 120; i++) {
    int r = fault_rig_read (&rig, i, 1, 1);

    ck_assert (r == 0 || (r == 1 && fault_rig_read (&rig, i, 1, 0) == 0));
  }
  expect_data (10, SMALL_SLOTS, 1);
  expect_data (120, NR_SECTORS - 120, 0);
  end ();
}
END_TEST

/* What was said of few spares, as "left of total". */
static unsigned nr_told, told_left, told_total;

static void
note_few_spares (int level, const char *message)
{
  const char *p = strstr (message, "store: ");

  if (p && sscanf (p, "store: %u of %u spares left", &told_left,
                   &told_total) == 2)
    nr_told++;
}

/* Write bad sectors until so many spares are left of `total`; of all that is
 * said meanwhile, the last speaks of `told`, and there are `nr`.  Rewrites say
 * nothing.
 */
static void
use_spares_until (unsigned left, unsigned total, unsigned told, unsigned nr)
{
  for (unsigned i = total - get_status ().spares_free; i < total - left; i++) {
    expect_done (request (WRITE, i, 1, 1));
    expect_done (request (WRITE, 0, i + 1, 1));
    ck_assert_uint_eq (get_status ().spares_free, total - 1 - i);
  }
  ck_assert_uint_eq (get_status ().spares_free, left);
  ck_assert_uint_eq (nr_told, nr);
  if (nr > 0) {
    ck_assert_uint_eq (told_left, told);
    ck_assert_uint_eq (told_total, total);
  }
  nr_told = 0;
}

START_TEST (few_spares_are_told_once)
{
  log_set_callback (note_few_spares);
  begin_small ();
  spoil (0, 80, DEV_FAULT_BAD_WRITE);
  use_spares_until (9, SMALL_SLOTS, 0, 0);
  use_spares_until (8, SMALL_SLOTS, 8, 1);
  use_spares_until (4, SMALL_SLOTS, 0, 0);
  use_spares_until (3, SMALL_SLOTS, 3, 1);
  use_spares_until (1, SMALL_SLOTS, 0, 0);
  use_spares_until (0, SMALL_SLOTS, 0, 1);
  expect_error (request (WRITE, SMALL_SLOTS, 1, 1), ENOSPC);
  expect_done (request (ZERO, 0, 5, 1));
  use_spares_until (0, SMALL_SLOTS, 0, 0);
  reopen ();                    /* a start says it again */
  use_spares_until (0, SMALL_SLOTS, 0, 1);
  fault_rig_close (&rig);
  rig.spare_bytes = 64 * 512;
  open_rig ();
  use_spares_until (17, 64, 0, 0);
  use_spares_until (16, 64, 16, 1);
  use_spares_until (6, 64, 6, 1);
  use_spares_until (0, 64, 0, 1);
  end ();
  log_set_callback (NULL);
}
END_TEST

static void spoil_slots (uint32_t first, uint32_t nr, unsigned how);

/* With no spare left, a lost sector that has its slot is healed by any whole
 * write, and all that is remapped can be lost, zeroed and written again.
 */
START_TEST (exhaustion_and_lost_sectors)
{
  begin_small ();
  spoil (0, 40, DEV_FAULT_BAD);
  expect_error (request (READ, 0, 4, 0), EIO);
  expect_done (request (WRITE, 4, SMALL_SLOTS - 4, 1));
  ck_assert_uint_eq (get_status ().spares_free, 0);
  expect_error (request (WRITE, 38, 1, 1), ENOSPC);
  expect_error (request (WRITE_PARTS, 0, 1, 0), EIO);
  for (unsigned version = 2; version < 30; version++) {
    expect_done (request (WRITE, 0, 1, version));
    expect_data (0, 1, version);
    expect_done (request (ZERO, 1, 1, 0));
    expect_done (request (TRIM, 2, 1, 0));
    expect_error (request (READ, 3, 1, 0), EIO);
    expect_done (request (WRITE_PARTS, 1, 2, 0));
    expect_done (request (WRITE, 4, SMALL_SLOTS - 4 - 4, version));
    ck_assert_uint_eq (get_status ().spares_free, 0);
  }
  /* Unreadable spares are given up, out of what is kept back for rewrites. */
  spoil_slots (10, 4, DEV_FAULT_BAD_READ);
  for (unsigned i = 0; i < SMALL_SLOTS - 4; i++)
    if (fault_rig_read (&rig, i, 1, 29) == -1)
      expect_state (i, SECTOR_LOST);
  ck_assert_uint_gt (get_status ().nr_lost, 1);
  for (unsigned i = 0; i < SMALL_SLOTS - 4; i++)
    expect_done (request (WRITE, i, 1, 30));
  expect_data (0, SMALL_SLOTS - 4, 30);
  reopen ();
  expect_data (0, SMALL_SLOTS - 4, 30);
  end ();
}
END_TEST

/* The store fails. */

/* Bytes of the store where slot i has its data. */
static uint64_t
data_at (uint32_t slot)
{
  struct dev *dev = dev_fault_open (rig.store);
  struct store_image image;
  uint64_t offset;

  ck_assert_int_eq (store_load (dev, "store", NULL, NULL, &image), 0);
  offset = store_data_at (&image.super, (spare_t) { slot });
  store_image_free (&image);
  dev_close (dev);
  return offset;
}

static void
spoil_slots (uint32_t first, uint32_t nr, unsigned how)
{
  dev_fault_spoil (rig.store, data_at (first) / 512,
                   (uint64_t) nr * sector_bytes / 512, how, 0, 0);
}

START_TEST (bad_spares)
{
  begin_small ();
  spoil_slots (0, 5, DEV_FAULT_BAD_WRITE);
  spoil (AT, 3, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 3, 1));
  expect_data (AT, 3, 1);
  ck_assert_uint_eq (get_status ().spares_bad, 5);
  reopen ();
  ck_assert_uint_eq (get_status ().spares_bad, 5);
  for (unsigned version = 2; version < 60; version++)
    expect_done (request (WRITE, AT, 3, version));
  expect_data (AT, 3, 59);
  ck_assert_uint_eq (get_status ().spares_bad, 5);
  end ();
}
END_TEST

/* Every spare that is tried is bad: an error, no loop, and no lie. */
START_TEST (no_good_spare)
{
  unsigned nr;

  begin (2 + 4 * _i);
  nr = dev_fault_calls (rig.store, DEV_FAULT_ALL);
  spoil_slots (0, 200, DEV_FAULT_BAD_WRITE);
  spoil (AT, 1, DEV_FAULT_BAD);
  expect_error (request (WRITE, AT, 1, 1), EIO);
  ck_assert_uint_lt (dev_fault_calls (rig.store, DEV_FAULT_ALL) - nr, 1000);
  for (unsigned i = 0; i < 10; i++)
    ck_assert_int_eq (request (WRITE, AT - 1, 3, 1), -1);
  expect_data (AT - 5, 4, 0);
  expect_done (request (WRITE, 0, 5, 2));
  expect_data (0, 5, 2);
  end ();
}
END_TEST

/* A spare does not give its data: lost, until it is written. */
START_TEST (unreadable_spare)
{
  begin (_i);
  spoil (AT, 3, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 3, 1));
  spoil_slots (1, 1, DEV_FAULT_BAD_READ);
  expect_error (request (READ, AT - 1, 5, 0), EIO);
  expect_state (AT, SECTOR_REMAPPED);
  expect_state (AT + 1, SECTOR_LOST);
  expect_state (AT + 2, SECTOR_REMAPPED);
  expect_data (AT, 1, 1);
  expect_data (AT + 2, 1, 1);
  reopen ();
  expect_state (AT + 1, SECTOR_LOST);
  expect_error (request (READ, AT + 1, 1, 0), EIO);
  expect_done (request (WRITE, AT, 3, 2));
  expect_data (AT, 3, 2);
  reopen ();
  expect_data (AT, 3, 2);
  end ();
}
END_TEST

/* Its read fails so often, and then gives the data; once more, and the sector
 * is lost.
 */
START_TEST (spare_is_read_again)
{
  const unsigned retries = retry_counts[_i % 4], most = MAX (retries, 1u);
  uint64_t at;

  begin (_i);
  spoil (AT, 3, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 3, 1));
  at = data_at (0) / 512;
  dev_fault_spoil (rig.store, at, 1, DEV_FAULT_BAD_READ, most, EIO);
  expect_data (AT, 3, 1);
  dev_fault_spoil (rig.store, at, 1, DEV_FAULT_BAD_READ, retries, EIO);
  if (retries == 0)
    dev_fault_mend (rig.store, at, 1);
  expect_done (request (WRITE_PARTS, AT, 1, 0));
  expect_data (AT + 1, 2, 1);

  at = data_at (1) / 512;
  dev_fault_spoil (rig.store, at, 1, DEV_FAULT_BAD_READ, 0, EIO);
  dev_fault_forget_touches (rig.store);
  expect_error (request (READ, AT + 1, 1, 0), EIO);
  ck_assert_uint_eq (dev_fault_touches (rig.store, at), most + 1);
  expect_state (AT + 1, SECTOR_LOST);
  expect_data (AT + 2, 1, 1);
  end ();
}
END_TEST

/* on-lost=zero: zeroes are for what is lost.  Here it cannot be recorded that it
 * is, so it is EIO, now and later, until the spare gives its data again.
 */
START_TEST (no_zeroes_for_what_is_not_lost)
{
  begin (_i);
  fault_rig_kill (&rig);
  rig.options.lost_reads_zero = true;
  open_rig ();
  spoil (AT, 1, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 1, 1));
  spoil_slots (0, 1, DEV_FAULT_BAD_READ);
  dev_fault_fail_calls (rig.store, DEV_FAULT_PWRITE, 1, true, EIO);
  for (unsigned i = 0; i < 3; i++)
    expect_error (request (READ, AT - 1, 3, 0), EIO);
  expect_state (AT, SECTOR_REMAPPED);
  spoil_slots (0, 1, 0);
  expect_data (AT, 1, 1);
  dev_fault_heal_calls (rig.store);
  reopen ();
  expect_data (AT, 1, 1);
  end ();
}
END_TEST

/* The same for a part of it, which cannot be known then. */
START_TEST (rotten_spare)
{
  uint8_t byte = 0xee;

  begin (_i);
  spoil (AT, 1, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 1, 1));
  dev_fault_poke (rig.store, &byte, 1, data_at (0) + 7);
  expect_error (request (WRITE_PARTS, AT, 1, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  expect_done (request (ZERO, AT, 1, 0));
  expect_state (AT, SECTOR_ZEROED);
  end ();
}
END_TEST

/* The way to the store is bad: nothing is lost for that. */
START_TEST (store_goes_away)
{
  begin (2 + 4 * _i);
  spoil (AT, 3, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 2, 1));
  dev_fault_fail_calls (rig.store, DEV_FAULT_ALL, 1, true, ENODEV);
  expect_error (request (READ, AT, 2, 1), ENODEV);
  expect_error (request (WRITE_PARTS, AT, 1, 1), ENODEV);
  expect_error (request (WRITE, AT, 3, 2), ENODEV);
  expect_state (AT, SECTOR_REMAPPED);
  expect_data (AT - 9, 9, 0);
  expect_done (request (WRITE, AT - 9, 9, 2));
  dev_fault_heal_calls (rig.store);
  expect_data (AT, 2, 1);
  end ();
}
END_TEST

/* Every write of the store fails: requests end, and all else works on. */
START_TEST (store_is_dead)
{
  unsigned nr;

  begin (_i % 4);
  spoil (AT, 9, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 3, 1));
  nr = dev_fault_calls (rig.store, DEV_FAULT_ALL);
  dev_fault_fail_calls (rig.store, DEV_FAULT_CHANGES
                        | (_i / 4 ? DEV_FAULT_FLUSH : 0), 1, true, EIO);
  expect_error (request (WRITE, AT, 9, 2), EIO);
  expect_error (request (WRITE, AT - 2, 12, 2), EIO);
  expect_error (request (READ, AT + 5, 1, 2), EIO);
  expect_error (request (ZERO, AT, 9, 2), EIO);
  expect_error (request (WRITE_PARTS, AT + 7, 1, 2), EIO);
  expect_error (request (READ, AT - 5, 19, 2), EIO);
  expect_data (AT, 3, 1);
  expect_data (0, AT - 10, 0);
  expect_done (request (WRITE, 0, 20, 3));
  expect_data (0, 20, 3);
  ck_assert (get_status ().store_failed);
  ck_assert_uint_lt (dev_fault_calls (rig.store, DEV_FAULT_ALL) - nr, 1000);
  dev_fault_heal_calls (rig.store);
  reopen ();
  expect_data (0, 20, 3);
  expect_data (AT, 3, 1);
  end ();
}
END_TEST

/* It is open whether a record was made: then nothing may be written in place
 * that the record would hide after a restart.
 */
START_TEST (record_may_have_been_made)
{
  int r;

  begin (2);
  spoil (AT, 1, DEV_FAULT_BAD);
  dev_fault_fail_calls (rig.store, DEV_FAULT_PWRITE, 2 + (unsigned) _i, true,
                        ENXIO);
  ck_assert_int_eq (request (WRITE, AT, 1, 1), -1);
  dev_fault_heal_calls (rig.store);
  dev_fault_mend (rig.backing, AT, 1);
  r = request (WRITE, AT, 1, 2);
  reopen ();
  if (r == 0)
    expect_data (AT, 1, 2);
  else
    ck_assert (fault_rig_read (&rig, AT, 1, 0) == 0 ||
               fault_rig_read (&rig, AT, 1, 1) == 0);
  end ();
}
END_TEST

/* The file system of the store is full for a while. */
START_TEST (store_has_no_space)
{
  begin (2 + 4 * _i);
  spoil (AT, 3, DEV_FAULT_BAD);
  dev_fault_fail_calls (rig.store, DEV_FAULT_PWRITE, 1, false, ENOSPC);
  expect_error (request (WRITE, AT, 3, 1), ENOSPC);
  expect_done (request (WRITE, AT, 3, 2));
  expect_data (AT, 3, 2);
  reopen ();
  expect_data (AT, 3, 2);
  end ();
}
END_TEST

/* Meetings of two requests, arranged by hooks.  The hook is called by the
 * first request with nothing held, so it can make the second one itself.
 */

struct meeting {
  struct dev_fault *disk;
  enum dev_fault_kind kind;
  bool is_done;                 /* after the call, which failed */
  unsigned nth;
  void (*second) (void);
};

static int
meet (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct meeting *m = opaque;

  if (m->nth == 0 || call->kind != m->kind || is_done != m->is_done ||
      (is_done && call->err == 0) || --m->nth > 0)
    return 0;
  m->second ();
  return 0;
}

static void
arrange (struct meeting *m)
{
  dev_fault_set_hook (m->disk, meet, m);
}

static void
expect_met (struct meeting *m)
{
  ck_assert_uint_eq (m->nth, 0);
  dev_fault_set_hook (m->disk, NULL, NULL);
  engine_verify (rig.engine);
}

static void
write_whole (void)
{
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 1, 0), 0);
}

/* F2: a read failed, and then a write mended the sector. */
START_TEST (read_error_meets_healing_write)
{
  static const uint64_t sizes[] = { 1, 3, 40 };

  for (unsigned i = 0; i < 3; i++) {
    struct meeting m = {
      .kind = DEV_FAULT_PREAD, .is_done = true, .nth = 1,
      .second = write_whole,
    };

    begin (_i);
    m.disk = rig.backing;
    spoil (AT, 1, DEV_FAULT_BAD_READ);
    arrange (&m);
    expect_done (request (READ, AT, sizes[i], 0));
    expect_met (&m);
    expect_state (AT, SECTOR_CLEAN);
    expect_data (AT, 1, 1);
    end ();
  }
}
END_TEST

/* The write found it bad and took a spare: the read finds it there. */
START_TEST (read_error_meets_remap)
{
  struct meeting m = {
    .kind = DEV_FAULT_PREAD, .is_done = true, .nth = 1, .second = write_whole,
  };

  begin (_i);
  m.disk = rig.backing;
  spoil (AT, 1, DEV_FAULT_BAD);
  arrange (&m);
  expect_done (request (READ, AT - 1, 3, 0));
  expect_met (&m);
  expect_state (AT, SECTOR_REMAPPED);
  expect_data (AT, 1, 1);
  end ();
}
END_TEST

/* The disk sits on AT.  Others go on: each time that it is touched, another
 * thread reads, writes, remaps, loses and flushes beside it, and ends.
 */
static unsigned nr_sat;

static void *
use_others (void *opaque)
{
  const uint64_t bad = 2 + 2 * nr_sat;

  expect_done (request (READ, AT - 20, 20, 0));
  expect_done (request (WRITE, AT + 1, 20, 1));
  expect_done (request (WRITE_PARTS, AT - 1, 1, 0));
  expect_done (request (WRITE, bad, 1, 1));
  expect_error (request (READ, bad + 1, 1, 0), EIO);
  expect_done (request (ZERO, bad, 2, 0));
  expect_done (engine_flush (rig.engine));
  return NULL;
}

static int
sit_on_it (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  pthread_t thread;

  if (is_done || call->offset > AT * sector_bytes ||
      call->offset + call->count <= AT * sector_bytes)
    return 0;
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert_int_eq (pthread_create (&thread, NULL, use_others, NULL), 0);
  pthread_join (thread, NULL);
  nr_sat++;
  dev_fault_set_hook (rig.backing, sit_on_it, NULL);
  return 0;
}

START_TEST (slow_sector_holds_up_no_other)
{
  enum request what = (enum request) (_i % NR_REQUESTS);

  begin (_i / NR_REQUESTS);
  spoil (2, 40, DEV_FAULT_BAD);
  spoil (AT, 1, what == WRITE_PARTS ? DEV_FAULT_BAD_WRITE : DEV_FAULT_BAD);
  dev_fault_set_hook (rig.backing, sit_on_it, NULL);
  if (what == READ)
    expect_error (request (what, AT, 1, 1), EIO);
  else
    expect_done (request (what, AT, 1, 1));
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert_uint_gt (nr_sat, 0);
  ck_assert_int_ne (fault_rig_state (&rig, AT), SECTOR_CLEAN);
  expect_data (AT + 1, 20, 1);
  end ();
}
END_TEST

/* AT moves to another slot, and its old one goes to AT + 1. */
static void
reuse_slot (void)
{
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 2, 0), 0);
  ck_assert_int_eq (engine_flush (rig.engine), 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 1, 1, 7, 0), 0);
}

static void
zero_whole (void)
{
  ck_assert_int_eq (engine_zero (rig.engine, sector_bytes, AT * sector_bytes,
                                 0), 0);
}

/* A read is on its way to a slot (1: to its data, 2: to its entry) when that is
 * given to another sector.
 */
START_TEST (read_meets_reuse_of_its_slot)
{
  struct meeting m = {
    .kind = DEV_FAULT_PREAD, .nth = 1 + (unsigned) _i / NR_CONFIGS,
    .second = reuse_slot,
  };

  begin (_i % NR_CONFIGS);
  m.disk = rig.store;
  spoil (AT, 2, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 1, 1));
  arrange (&m);
  ck_assert_int_eq (fault_rig_read (&rig, AT, 1, 2), 0);
  expect_met (&m);
  expect_data (AT, 1, 2);
  expect_data (AT + 1, 1, 7);
  end ();
}
END_TEST

START_TEST (read_meets_zero)
{
  struct meeting m = {
    .kind = DEV_FAULT_PREAD, .nth = 1 + (unsigned) _i, .second = zero_whole,
  };
  uint8_t buf[512], zeroes[512] = { 0 };

  begin (2);
  m.disk = rig.store;
  spoil (AT, 1, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 1, 1));
  arrange (&m);
  expect_done (engine_pread (rig.engine, buf, 512, AT * 512));
  expect_met (&m);
  ck_assert (memcmp (buf, zeroes, 512) == 0);
  end ();
}
END_TEST

/* Many threads. */

#define NR_THREADS 8

struct job {
  pthread_t thread;
  unsigned number;
  const char *wrong;            /* what went wrong */
};

static void
run_jobs (void *(*fn) (void *), struct job *jobs, unsigned nr)
{
  for (unsigned i = 0; i < nr; i++) {
    jobs[i] = (struct job) { .number = i };
    ck_assert_int_eq (pthread_create (&jobs[i].thread, NULL, fn, &jobs[i]), 0);
  }
  for (unsigned i = 0; i < nr; i++)
    pthread_join (jobs[i].thread, NULL);
  for (unsigned i = 0; i < nr; i++)
    ck_assert_msg (jobs[i].wrong == NULL, "thread %u: %s", i, jobs[i].wrong);
  engine_verify (rig.engine);
}

/* Each thread has a slice of one sector, and writes and reads it. */
#define SLICE_BYTES 61
#define NR_ROUNDS 150

static void *
write_slices (void *opaque)
{
  struct job *job = opaque;
  uint64_t offset = AT * sector_bytes + 3 + job->number * SLICE_BYTES;
  uint8_t buf[SLICE_BYTES], is[SLICE_BYTES];

  for (unsigned round = 1; round <= NR_ROUNDS && !job->wrong; round++) {
    dev_fault_pattern (buf, sizeof buf, job->number, round);
    if (engine_pwrite (rig.engine, buf, sizeof buf, offset,
                       round % 10 ? 0 : DEV_FUA) == -1)
      job->wrong = "write failed";
    else if (engine_pread (rig.engine, is, sizeof is, offset) == -1)
      job->wrong = "read failed";
    else if (memcmp (buf, is, sizeof is) != 0)
      job->wrong = "a write was lost";
  }
  return NULL;
}

/* On a good sector, one that goes bad for writes, and a remapped one; of 512
 * and of 4096 bytes.
 */
START_TEST (slices_of_one_sector)
{
  struct job jobs[NR_THREADS];

  begin_with ((struct dev_fault_options) {
                .sector_bytes = sector_sizes[_i / 3] },
              (struct dev_fault_options) { .tears = true }, SMALL_SLOTS, 2);
  if (_i % 3 > 0)
    spoil (AT, 1, DEV_FAULT_BAD_WRITE);
  if (_i % 3 == 2)
    expect_done (request (WRITE, AT, 1, 1));
  run_jobs (write_slices, jobs, NR_THREADS);
  expect_state (AT, _i % 3 ? SECTOR_REMAPPED : SECTOR_CLEAN);
  expect_data (AT - 1, 1, 0);
  expect_data (AT + 1, 1, 0);
  end ();
}
END_TEST

/* Is it the sector, of whatever version up to `last`? */
static bool
is_some_version (const uint8_t *is, uint64_t lba, uint64_t last)
{
  uint8_t wanted[4096];
  uint64_t word[2];

  memcpy (word, is, sizeof word);
  dev_fault_pattern (wanted, sector_bytes, lba, word[1]);
  return word[0] == lba && word[1] <= last &&
    memcmp (is, wanted, sector_bytes) == 0;
}

static _Atomic bool writers_are_done;
static _Atomic unsigned nr_reads;

/* Threads 0 and 1 rewrite sectors AT and AT + 1 in a store so small that slots
 * go round at once; the others read both.
 */
static void *
rewrite_or_read (void *opaque)
{
  struct job *job = opaque;
  uint8_t *buf = malloc (2 * sector_bytes);

  if (job->number < 2) {
    while (atomic_load (&nr_reads) <= 10)       /* the readers have begun */
      usleep (1000);
    for (unsigned i = 1; i <= 400 && !job->wrong; i++)
      if (fault_rig_write (&rig, AT + job->number, 1, i,
                           i % 7 ? 0 : DEV_FUA) == -1)
        job->wrong = "write failed";
    atomic_store (&writers_are_done, true);
  }
  else
    while (!atomic_load (&writers_are_done) && !job->wrong) {
      atomic_fetch_add (&nr_reads, 1);
      if (engine_pread (rig.engine, buf, 2 * sector_bytes,
                        AT * sector_bytes) == -1)
        job->wrong = "read failed";
      else if (!is_some_version (buf, AT, 400) ||
               !is_some_version (buf + sector_bytes, AT + 1, 400))
        job->wrong = "neither old nor new";
    }
  free (buf);
  return NULL;
}

START_TEST (readers_and_rewriters)
{
  struct job jobs[5];

  begin_with ((struct dev_fault_options) {
                .sector_bytes = sector_sizes[_i] },
              (struct dev_fault_options) { .tears = true }, SMALL_SLOTS, 2);
  spoil (AT, 2, DEV_FAULT_BAD);
  expect_done (request (WRITE, AT, 2, 0));
  run_jobs (rewrite_or_read, jobs, 5);
  ck_assert_uint_gt (atomic_load (&nr_reads), 10);
  expect_data (AT, 2, 400);
  reopen ();
  expect_data (AT, 2, 400);
  end ();
}
END_TEST

/* A bad sector is found by many at once: readers see the old or EIO, never
 * another; whoever writes has written.
 */
static void *
meet_on_bad_sectors (void *opaque)
{
  struct job *job = opaque;
  uint8_t *buf = malloc (8 * sector_bytes);

  for (unsigned i = 0; i < NR_SECTORS - 8 && !job->wrong; i += 3) {
    if (job->number % 2) {
      if (fault_rig_write (&rig, i, 8, job->number, 0) == -1)
        job->wrong = "write failed";
    }
    else if (engine_pread (rig.engine, buf, 8 * sector_bytes,
                           i * sector_bytes) == 0) {
      for (unsigned k = 0; k < 8; k++)
        if (!is_some_version (buf + k * sector_bytes, i + k, NR_THREADS))
          job->wrong = "other data";
    }
    else if (errno != EIO)
      job->wrong = "another error";
  }
  free (buf);
  return NULL;
}

START_TEST (many_meet_on_bad_sectors)
{
  struct job jobs[NR_THREADS];

  begin (_i % NR_CONFIGS);
  for (unsigned i = 1; i < NR_SECTORS; i += 4)
    spoil (i, 1, 1 + i / 4 % 3);
  run_jobs (meet_on_bad_sectors, jobs, NR_THREADS);
  for (unsigned i = 0; i < NR_SECTORS - 8; i++) {
    uint8_t buf[4096];

    ck_assert_int_eq (engine_pread (rig.engine, buf, sector_bytes,
                                    (uint64_t) i * sector_bytes), 0);
    ck_assert (is_some_version (buf, i, NR_THREADS));
    if (i % 4 == 1 && i / 4 % 3 > 0)
      expect_state (i, SECTOR_REMAPPED);
  }
  end ();
}
END_TEST

/* The worker hangs, and everything fails. */

#define STORM_SECTORS 1000      /* of each thread */

static struct worker *worker;

static void
post_event (void *opaque, const struct event *event)
{
  worker_post (worker, event);
}

static void *
write_storm (void *opaque)
{
  struct job *job = opaque;
  uint64_t first = (uint64_t) job->number * STORM_SECTORS;

  for (unsigned i = 0; i < STORM_SECTORS && !job->wrong; ) {
    unsigned nr = MIN (1 + i % 23, STORM_SECTORS - i);

    if (i % 5 == 0 && fault_rig_read (&rig, first + i, nr, 0) == 0)
      job->wrong = "a bad sector was read";
    if (fault_rig_write (&rig, first + i, nr, 1, 0) == -1)
      job->wrong = "write failed";
    i += nr;
  }
  return NULL;
}

static void
wait_for_total (enum event_kind kind, uint64_t total)
{
  struct health_snapshot snapshot;

  for (;;) {
    worker_get_snapshot (worker, &snapshot);
    if (snapshot.total[kind] >= total)
      return;
    usleep (1000);
  }
}

/* Contract, section 7: client I/O goes on, and N errors are N remaps and no
 * fewer counted errors.
 */
START_TEST (storm_with_a_hanging_worker)
{
  const uint64_t nr = NR_THREADS * STORM_SECTORS;
  struct job jobs[NR_THREADS];

  worker = worker_new (nr, NULL);
  ck_assert_int_eq (worker_start (worker), 0);
  /* Not all of it is bad: the disk is not dead. */
  begin_with ((struct dev_fault_options) { .size_bytes = 2 * nr * 512 },
              (struct dev_fault_options) { .size_bytes = 0 }, nr, 0);
  fault_rig_kill (&rig);
  rig.options.event = post_event;
  open_rig ();
  spoil (0, nr, DEV_FAULT_BAD);
  worker_hang (worker);
  run_jobs (write_storm, jobs, NR_THREADS);
  ck_assert_uint_eq (get_status ().nr_remapped, nr);
  expect_data (0, nr, 1);
  expect_done (engine_flush (rig.engine));
  reopen ();
  expect_data (0, nr, 1);
  worker_resume (worker);
  wait_for_total (EVENT_WRITE_ERROR, 1);
  end ();
  worker_free (worker);
}
END_TEST

/* Each of so many lone bad sectors is an error that is counted. */
START_TEST (errors_are_counted_one_by_one)
{
  struct health_snapshot snapshot;

  worker = worker_new (NR_SECTORS, NULL);
  ck_assert_int_eq (worker_start (worker), 0);
  begin (0);
  fault_rig_kill (&rig);
  rig.options.event = post_event;
  open_rig ();
  worker_hang (worker);
  for (unsigned i = 0; i < NR_SECTORS; i += 2) {
    spoil (i, 1, DEV_FAULT_BAD);
    expect_done (request (WRITE, i, 1, 1));
  }
  worker_resume (worker);
  wait_for_total (EVENT_REMAPPED, NR_SECTORS / 2);
  worker_get_snapshot (worker, &snapshot);
  ck_assert_uint_eq (snapshot.total[EVENT_WRITE_ERROR], NR_SECTORS / 2);
  ck_assert_uint_eq (snapshot.total[EVENT_REMAPPED], NR_SECTORS / 2);
  end ();
  worker_free (worker);
}
END_TEST

static TCase *
add_case (Suite *suite, const char *name)
{
  TCase *tc = tcase_create (name);

  tcase_set_timeout (tc, 250);
  suite_add_tcase (suite, tc);
  return tc;
}

static void
add_isolation (Suite *suite)
{
  TCase *tc = add_case (suite, "isolation");

  tcase_add_loop_test (tc, touches_and_isolation, 0, NR_CONFIGS * 3);
  tcase_add_loop_test (tc, touches_and_isolation_of_zero_and_trim, 0,
                       NR_CONFIGS * 2);
  tcase_add_loop_test (tc, found_sectors_are_left_alone, 0, NR_CONFIGS);

  tc = add_case (suite, "physical sectors and ends");
  tcase_add_loop_test (tc, physical_sector_is_read_as_one, 0, 4);
  tcase_add_loop_test (tc, physical_sector_is_written_as_one, 0, 4);
  tcase_add_loop_test (tc, physical_sector_is_touched_as_one, 0, 4);
  tcase_add_loop_test (tc, part_of_a_physical_sector, 0, 4);
  tcase_add_test (tc, neighbours_cost_one_record);
  tcase_add_loop_test (tc, run_is_met_by_another_request, 0, 2);
  tcase_add_test (tc, bad_spare_in_a_run);
  tcase_add_loop_test (tc, short_last_sector, 0, 3);
  tcase_add_loop_test (tc, short_last_sector_is_lost, 0, 3);

  tc = add_case (suite, "errors");
  tcase_add_loop_test (tc, other_errors_remap_nothing, 0, NR_OTHER_ERRORS);
  tcase_add_loop_test (tc, medium_errors_remap, 0, 3);
  tcase_add_loop_test (tc, disk_goes_away_in_a_repair, 0,
                       NR_CONFIGS * NR_REQUESTS);
}

static void
add_store_trouble (Suite *suite)
{
  TCase *tc = add_case (suite, "store");

  tcase_add_test (tc, exhaustion);
  tcase_add_test (tc, exhaustion_is_mended);
  tcase_add_test (tc, exhaustion_within_a_request);
  tcase_add_test (tc, few_spares_are_told_once);
  tcase_add_test (tc, exhaustion_and_lost_sectors);
  tcase_add_test (tc, bad_spares);
  tcase_add_loop_test (tc, no_good_spare, 0, 2);
  tcase_add_loop_test (tc, unreadable_spare, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, spare_is_read_again, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, no_zeroes_for_what_is_not_lost, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, rotten_spare, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, store_goes_away, 0, 2);
  tcase_add_loop_test (tc, store_is_dead, 0, 8);
  tcase_add_loop_test (tc, record_may_have_been_made, 0, 2);
  tcase_add_loop_test (tc, store_has_no_space, 0, 2);
}

static void
add_threads (Suite *suite)
{
  TCase *tc = add_case (suite, "meetings");

  tcase_add_loop_test (tc, read_error_meets_healing_write, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_error_meets_remap, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_meets_reuse_of_its_slot, 0, NR_CONFIGS * 2);
  tcase_add_loop_test (tc, read_meets_zero, 0, 2);
  tcase_add_loop_test (tc, slow_sector_holds_up_no_other, 0,
                       NR_CONFIGS * NR_REQUESTS);

  tc = add_case (suite, "threads");
  tcase_add_loop_test (tc, slices_of_one_sector, 0, 6);
  tcase_add_loop_test (tc, readers_and_rewriters, 0, 2);
  tcase_add_loop_test (tc, many_meet_on_bad_sectors, 0, NR_CONFIGS);
  tcase_add_test (tc, storm_with_a_hanging_worker);
  tcase_add_test (tc, errors_are_counted_one_by_one);
}

int
main (void)
{
  Suite *suite = suite_create ("repair");
  SRunner *runner;
  int nr_failed;

  add_isolation (suite);
  add_store_trouble (suite);
  add_threads (suite);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
