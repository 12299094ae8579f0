/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of the contract, section 3, cell by cell, and a model that is asked
 * for anything in any order.  check_repair.c has the rest of the error path.
 *
 * REMAP_TEST_SEED=N repeats the model's run.
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

#define NR_SECTORS 160
#define AT 80                   /* the sector that a test is about */

static struct fault_rig rig;
static uint32_t sector_bytes;
static unsigned retries;

static const uint32_t sector_sizes[] = { 512, 4096 };
static const unsigned retry_counts[] = { 0, 1, 2, 5 };
#define NR_CONFIGS 8

/* Events, counted. */
static unsigned nr_events[NR_EVENT_KINDS];

static void
count_event (void *opaque, const struct event *event)
{
  nr_events[event->kind]++;
}

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
  engine_verify (rig.engine);
}

static void
begin_with (struct dev_fault_options options)
{
  sector_bytes = options.sector_bytes;
  options.is_volatile = true;
  fault_rig_init (&rig, &options,
                  &(struct dev_fault_options) { .is_volatile = true });
  rig.spare_bytes = 64 * sector_bytes;
  rig.options.retries = retries;
  rig.options.event = count_event;
  open_rig ();
}

static void
begin (int config)
{
  retries = retry_counts[config % 4];
  begin_with ((struct dev_fault_options) {
                .sector_bytes = sector_sizes[config / 4],
                .size_bytes = (uint64_t) NR_SECTORS
                  * sector_sizes[config / 4] });
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
spoil (uint64_t lba, unsigned how)
{
  dev_fault_spoil (rig.backing, lba, 1, how, 0, 0);
}

static void
expect_data (uint64_t lba, uint64_t nr, unsigned version)
{
  int r = fault_rig_read (&rig, lba, nr, version);

  ck_assert_msg (r == 0, "sector %d: %s", (int) lba,
                 r == 1 ? "other data" : last_error_text ());
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
expect_done (int r)
{
  ck_assert_msg (r == 0, "%s", last_error_text ());
  engine_verify (rig.engine);
}

static void
expect_state (uint64_t lba, enum sector_state state)
{
  ck_assert_str_eq (sector_state_to_string (fault_rig_state (&rig, lba)),
                    sector_state_to_string (state));
}

/* What stands on the backing itself. */
static void
expect_in_place (uint64_t lba, unsigned version)
{
  uint8_t *is = malloc (2 * sector_bytes);

  dev_fault_peek (rig.backing, is, sector_bytes, lba * sector_bytes);
  dev_fault_pattern (is + sector_bytes, sector_bytes, lba, version);
  ck_assert (memcmp (is, is + sector_bytes, sector_bytes) == 0);
  free (is);
}

static void
expect_untouched (uint64_t lba)
{
  ck_assert_uint_eq (dev_fault_touches (rig.backing, lba), 0);
}

static void
expect_zeroes (uint64_t lba, uint64_t nr)
{
  uint8_t *buf = malloc (nr * sector_bytes);

  ck_assert_int_eq (engine_pread (rig.engine, buf, nr * sector_bytes,
                                  lba * sector_bytes), 0);
  for (uint64_t i = 0; i < nr * sector_bytes; i++)
    ck_assert_uint_eq (buf[i], 0);
  free (buf);
}

/* Make AT remapped (version 1), lost, or zeroed. */
static void
make (enum sector_state state)
{
  if (state == SECTOR_REMAPPED || state == SECTOR_ZEROED) {
    spoil (AT, DEV_FAULT_BAD);
    ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 1, 0), 0);
  }
  if (state == SECTOR_LOST) {
    spoil (AT, DEV_FAULT_BAD);
    ck_assert_int_eq (fault_rig_read (&rig, AT, 1, 0), -1);
  }
  if (state == SECTOR_ZEROED)
    ck_assert_int_eq (engine_zero (rig.engine, sector_bytes, AT * sector_bytes,
                                   0), 0);
  expect_state (AT, state);
  dev_fault_forget_touches (rig.backing);
  memset (nr_events, 0, sizeof nr_events);
}

/* Bytes of AT from skip on become 0x55 in buf, which holds the whole sector. */
static void
change_part (uint8_t *buf, uint32_t skip, uint32_t n)
{
  memset (buf + skip, 0x55, n);
}

static int
write_part (uint64_t lba, uint32_t skip, uint32_t n, unsigned flags)
{
  uint8_t *buf = malloc (n);
  int r;

  memset (buf, 0x55, n);
  r = engine_pwrite (rig.engine, buf, n, lba * sector_bytes + skip, flags);
  free (buf);
  return r;
}

/* AT is of this version but for n bytes from skip on. */
static void
expect_changed (unsigned version, uint32_t skip, uint32_t n)
{
  uint8_t *is = malloc (2 * sector_bytes);

  ck_assert_int_eq (engine_pread (rig.engine, is, sector_bytes,
                                  AT * sector_bytes), 0);
  dev_fault_pattern (is + sector_bytes, sector_bytes, AT, version);
  change_part (is + sector_bytes, skip, n);
  ck_assert (memcmp (is, is + sector_bytes, sector_bytes) == 0);
  free (is);
  engine_verify (rig.engine);
}

/* Read. */

START_TEST (read_good)
{
  uint8_t byte[3], wanted[3];

  begin (_i);
  expect_data (0, NR_SECTORS, 0);
  for (uint32_t at = 0; at < 3 * sector_bytes; at += 17) {
    dev_fault_peek (rig.backing, wanted, 3, at);
    expect_done (engine_pread (rig.engine, byte, 3, at));
    ck_assert (memcmp (byte, wanted, 3) == 0);
  }
  expect_done (engine_pread (rig.engine, byte, 0, 7));
  end ();
}
END_TEST

/* Lost in the request of some size; only it. */
static void
read_bad_in (uint64_t first, uint64_t nr)
{
  spoil (AT, DEV_FAULT_BAD_READ);
  expect_error (fault_rig_read (&rig, first, nr, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  ck_assert_uint_eq (nr_events[EVENT_LOST], 1);
  ck_assert_uint_eq (nr_events[EVENT_WEAK], 0);
  dev_fault_forget_touches (rig.backing);
  expect_error (fault_rig_read (&rig, AT, 1, 0), EIO);
  expect_error (fault_rig_read (&rig, first, nr, 0), EIO);
  for (uint64_t i = first; i < first + nr; i++)
    expect_untouched (i);
  for (uint64_t i = first; i < first + nr; i++)
    if (i != AT) {
      expect_state (i, SECTOR_CLEAN);
      expect_data (i, 1, 0);
    }
  reopen ();
  expect_state (AT, SECTOR_LOST);
  expect_error (fault_rig_read (&rig, AT, 1, 0), EIO);
  expect_untouched (AT);
}

static const struct {
  uint64_t first, nr;
} requests[] = { { AT, 1 }, { AT - 1, 3 }, { AT - 20, 64 }, { 0, NR_SECTORS } };
#define NR_REQUESTS 4

START_TEST (read_bad)
{
  begin (_i / NR_REQUESTS);
  read_bad_in (requests[_i % NR_REQUESTS].first, requests[_i % NR_REQUESTS].nr);
  end ();
}
END_TEST

/* It fails so often, and then reads: weak, not lost. */
START_TEST (read_passes_after_retries)
{
  unsigned nr_failures = retry_counts[_i / NR_REQUESTS % 4];

  begin (_i / NR_REQUESTS);
  nr_failures = MAX (nr_failures, 1u);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_READ, nr_failures,
                   ENODATA);
  expect_data (requests[_i % NR_REQUESTS].first, requests[_i % NR_REQUESTS].nr,
               0);
  expect_state (AT, SECTOR_CLEAN);
  ck_assert_uint_eq (nr_events[EVENT_LOST], 0);
  ck_assert_uint_ge (nr_events[EVENT_WEAK], 1);
  expect_data (AT, 1, 0);
  end ();
}
END_TEST

/* Once more, and it is lost. */
START_TEST (read_fails_after_retries)
{
  begin (_i);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_READ, 2 + retries, 0);
  expect_error (fault_rig_read (&rig, AT, 1, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  end ();
}
END_TEST

START_TEST (read_mapped)
{
  begin (_i);
  make (SECTOR_REMAPPED);
  expect_data (AT, 1, 1);
  expect_data (AT - 5, 5, 0);
  ck_assert_int_eq (fault_rig_read (&rig, AT - 5, 11, 0), 1);
  expect_changed (1, 0, 0);
  expect_untouched (AT);
  reopen ();
  expect_data (AT, 1, 1);
  expect_untouched (AT);
  end ();
}
END_TEST

/* Every part of a spare, and of a request that has one in the middle. */
START_TEST (read_parts_of_mapped)
{
  uint8_t *wanted, *is;

  begin (_i);
  make (SECTOR_REMAPPED);
  wanted = malloc (6 * sector_bytes);
  is = wanted + 3 * sector_bytes;
  for (unsigned i = 0; i < 3; i++)
    dev_fault_pattern (wanted + i * sector_bytes, sector_bytes, AT - 1 + i,
                       i == 1);
  for (uint32_t from = 0; from < 2 * sector_bytes; from += 101)
    for (uint32_t n = 1; from + n < 3 * sector_bytes; n += 307) {
      expect_done (engine_pread (rig.engine, is, n,
                                 (AT - 1) * sector_bytes + from));
      ck_assert (memcmp (is, wanted + from, n) == 0);
    }
  expect_untouched (AT);
  free (wanted);
  end ();
}
END_TEST

START_TEST (read_lost_as_zero)
{
  begin (_i);
  rig.options.lost_reads_zero = true;
  reopen ();
  make (SECTOR_CLEAN);
  spoil (AT, DEV_FAULT_BAD_READ);
  expect_zeroes (AT, 1);
  expect_state (AT, SECTOR_LOST);
  dev_fault_forget_touches (rig.backing);
  expect_zeroes (AT, 1);
  ck_assert_int_eq (fault_rig_read (&rig, AT - 3, 7, 0), 1);
  expect_data (AT - 3, 3, 0);
  expect_error (write_part (AT, 3, 5, 0), EIO); /* it stays unknown */
  expect_untouched (AT);
  end ();
}
END_TEST

/* Write, whole sectors. */

START_TEST (write_good)
{
  begin (_i);
  expect_done (fault_rig_write (&rig, 10, 50, 1, 0));
  for (unsigned i = 10; i < 60; i++)
    expect_in_place (i, 1);
  expect_data (0, 10, 0);
  expect_data (10, 50, 1);
  expect_data (60, 10, 0);
  ck_assert_int_eq (engine_next_run (rig.engine, (lba_t) { 0 },
                                     &(struct sector_run) { .spare = { 0 } }),
                    -1);
  end ();
}
END_TEST

static void
write_over_bad (unsigned how, uint64_t first, uint64_t nr)
{
  spoil (AT, how);
  expect_done (fault_rig_write (&rig, first, nr, 1, 0));
  dev_fault_forget_touches (rig.backing);
  expect_data (first, nr, 1);
  expect_state (AT, SECTOR_REMAPPED);
  expect_untouched (AT);
  for (uint64_t i = first; i < first + nr; i++)
    if (i != AT) {
      expect_state (i, SECTOR_CLEAN);
      expect_in_place (i, 1);
    }
  ck_assert_uint_eq (nr_events[EVENT_REMAPPED], 1);
  reopen ();
  expect_data (first, nr, 1);
  expect_untouched (AT);
}

START_TEST (write_bad)
{
  begin (_i / NR_REQUESTS);
  write_over_bad (DEV_FAULT_BAD, requests[_i % NR_REQUESTS].first,
                  requests[_i % NR_REQUESTS].nr);
  end ();
}
END_TEST

/* It can be written: so it heals, in place. */
START_TEST (write_unreadable)
{
  begin (_i);
  spoil (AT, DEV_FAULT_BAD_READ);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 1, 0));
  expect_state (AT, SECTOR_CLEAN);
  expect_in_place (AT, 1);
  expect_data (AT - 1, 3, 1);
  end ();
}
END_TEST

static const enum sector_state mapped_states[] = {
  SECTOR_REMAPPED, SECTOR_LOST, SECTOR_ZEROED,
};

START_TEST (write_mapped)
{
  begin (_i / 3);
  make (mapped_states[_i % 3]);
  expect_done (fault_rig_write (&rig, AT, 1, 2, 0));
  expect_state (AT, SECTOR_REMAPPED);
  expect_data (AT, 1, 2);
  ck_assert_uint_eq (nr_events[EVENT_HEALED], _i % 3 == 1);
  expect_done (fault_rig_write (&rig, AT - 4, 9, 3, 0));
  expect_data (AT - 4, 9, 3);
  expect_untouched (AT);
  expect_in_place (AT - 1, 3);
  reopen ();
  expect_data (AT - 4, 9, 3);
  expect_untouched (AT);
  end ();
}
END_TEST

/* Write, parts of sectors. */

START_TEST (write_part_of_good)
{
  begin (_i);
  expect_done (write_part (AT, 5, 300, 0));
  expect_changed (0, 5, 300);
  expect_state (AT, SECTOR_CLEAN);
  expect_data (AT - 3, 3, 0);
  expect_data (AT + 1, 3, 0);
  expect_done (fault_rig_write (&rig, AT, 1, 1, 0));
  /* head, whole sectors, tail */
  expect_done (write_part (AT - 2, sector_bytes - 7, 7 + sector_bytes + 9, 0));
  expect_changed (1, 0, 9);
  end ();
}
END_TEST

START_TEST (write_part_of_unreadable)
{
  begin (_i);
  spoil (AT, DEV_FAULT_BAD_READ);
  expect_error (write_part (AT, 5, 300, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  expect_error (fault_rig_read (&rig, AT, 1, 0), EIO);
  expect_done (fault_rig_write (&rig, AT, 1, 1, 0));
  expect_data (AT, 1, 1);
  expect_data (AT + 1, 1, 0);
  end ();
}
END_TEST

START_TEST (write_part_of_unwritable)
{
  begin (_i);
  spoil (AT, DEV_FAULT_BAD_WRITE);
  expect_done (write_part (AT, 5, 300, 0));
  expect_state (AT, SECTOR_REMAPPED);
  expect_changed (0, 5, 300);
  reopen ();
  expect_changed (0, 5, 300);
  end ();
}
END_TEST

START_TEST (write_part_of_mapped)
{
  begin (_i / 3);
  make (mapped_states[_i % 3]);
  if (_i % 3 == 1)
    expect_error (write_part (AT, 5, 300, 0), EIO);
  else
    expect_done (write_part (AT, 5, 300, 0));
  if (_i % 3 == 0)
    expect_changed (1, 5, 300);
  if (_i % 3 == 2) {
    uint8_t bytes[302];

    expect_done (engine_pread (rig.engine, bytes, 302,
                               AT * sector_bytes + 4));
    ck_assert_uint_eq (bytes[0], 0);
    ck_assert_uint_eq (bytes[1], 0x55);
    ck_assert_uint_eq (bytes[300], 0x55);
    ck_assert_uint_eq (bytes[301], 0);
  }
  expect_state (AT, _i % 3 == 1 ? SECTOR_LOST : SECTOR_REMAPPED);
  expect_untouched (AT);
  end ();
}
END_TEST

/* Zero and trim. */

static int
clear (bool is_trim, uint64_t lba, uint64_t nr, unsigned flags)
{
  return (is_trim ? engine_trim : engine_zero)
    (rig.engine, nr * sector_bytes, lba * sector_bytes, flags);
}

START_TEST (clear_good)
{
  enum dev_fault_kind kind = _i % 2 ? DEV_FAULT_TRIM : DEV_FAULT_ZERO;
  unsigned nr;

  begin (_i / 2);
  nr = dev_fault_calls (rig.backing, DEV_FAULT_PWRITE);
  expect_done (clear (_i % 2, AT, 9, 0));
  ck_assert_uint_eq (dev_fault_calls (rig.backing, kind), 1);
  ck_assert_uint_eq (dev_fault_calls (rig.backing, DEV_FAULT_PWRITE), nr);
  expect_zeroes (AT, 9);
  expect_data (AT - 1, 1, 0);
  expect_data (AT + 9, 1, 0);
  expect_state (AT, SECTOR_CLEAN);
  end ();
}
END_TEST

START_TEST (clear_where_the_disk_cannot)
{
  retries = 2;
  begin_with ((struct dev_fault_options) {
                .sector_bytes = sector_sizes[_i], .cannot_zero = true,
                .size_bytes = (uint64_t) NR_SECTORS * sector_sizes[_i],
                .cannot_trim = true });
  expect_error (clear (false, AT, 9, DEV_FAST), EOPNOTSUPP);
  expect_data (AT, 9, 0);
  expect_done (clear (true, AT, 9, 0));
  expect_data (AT, 9, 0);
  expect_done (clear (false, AT, 9, 0));
  expect_zeroes (AT, 9);
  spoil (AT + 20, DEV_FAULT_BAD_WRITE);
  expect_done (clear (false, AT + 18, 5, 0));
  expect_zeroes (AT + 18, 5);
  expect_data (AT + 17, 1, 0);
  expect_data (AT + 23, 1, 0);
  end ();
}
END_TEST

START_TEST (clear_bad)
{
  bool is_trim = _i % 2;

  begin (_i / 2);
  spoil (AT, DEV_FAULT_BAD);
  expect_done (clear (is_trim, AT - 2, 5, 0));
  expect_zeroes (AT - 2, 5);
  ck_assert_int_ne (fault_rig_state (&rig, AT), SECTOR_CLEAN);
  ck_assert_int_ne (fault_rig_state (&rig, AT), SECTOR_LOST);
  expect_state (AT - 1, SECTOR_CLEAN);
  reopen ();
  dev_fault_forget_touches (rig.backing);
  expect_zeroes (AT - 2, 5);
  expect_untouched (AT);
  end ();
}
END_TEST

START_TEST (clear_mapped)
{
  bool is_trim = _i % 2;

  begin (_i / 6);
  make (mapped_states[_i / 2 % 3]);
  expect_done (clear (is_trim, AT - 2, 5, 0));
  expect_zeroes (AT - 2, 5);
  expect_state (AT, SECTOR_ZEROED);
  ck_assert_uint_eq (nr_events[EVENT_HEALED],
                     mapped_states[_i / 2 % 3] == SECTOR_LOST);
  reopen ();
  expect_zeroes (AT, 1);
  expect_untouched (AT);
  expect_done (fault_rig_write (&rig, AT, 1, 2, 0));
  expect_data (AT, 1, 2);
  end ();
}
END_TEST

/* Of sectors cleared in part, the part becomes zero; trim leaves it. */
START_TEST (clear_parts)
{
  uint8_t *is, *wanted;

  begin (_i / 2);
  make (SECTOR_REMAPPED);
  is = calloc (8, sector_bytes);
  wanted = is + 4 * sector_bytes;
  for (unsigned i = 0; i < 4; i++)
    dev_fault_pattern (wanted + i * sector_bytes, sector_bytes, AT - 1 + i,
                       i == 1);
  expect_done ((_i % 2 ? engine_trim : engine_zero)
               (rig.engine, 2 * sector_bytes, AT * sector_bytes + 10, 0));
  if (_i % 2)
    memset (wanted + 2 * sector_bytes, 0, sector_bytes);
  else
    memset (wanted + sector_bytes + 10, 0, 2 * sector_bytes);
  expect_done (engine_pread (rig.engine, is, 4 * sector_bytes,
                             (AT - 1) * sector_bytes));
  ck_assert (memcmp (is, wanted, 4 * sector_bytes) == 0);
  expect_untouched (AT);
  free (is);
  end ();
}
END_TEST

START_TEST (zero_part_of_lost)
{
  begin (_i);
  make (SECTOR_LOST);
  expect_error (engine_zero (rig.engine, 10, AT * sector_bytes + 1, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  expect_done (engine_trim (rig.engine, 10, AT * sector_bytes + 1, 0));
  expect_state (AT, SECTOR_LOST);
  end ();
}
END_TEST

/* Flush and FUA. */

static void
cut_power (void)
{
  fault_rig_kill (&rig);
  dev_fault_cut_power (rig.backing, 0);
  dev_fault_cut_power (rig.store, 0);
  open_rig ();
}

/* The good and the bad sector. */
START_TEST (flush_makes_durable)
{
  begin (_i);
  spoil (AT, DEV_FAULT_BAD_WRITE);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 1, 0));
  cut_power ();
  expect_data (AT - 1, 3, 0);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 2, 0));
  expect_done (engine_flush (rig.engine));
  cut_power ();
  expect_data (AT - 1, 3, 2);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 3, 0));
  cut_power ();
  expect_data (AT - 1, 3, 2);
  end ();
}
END_TEST

static const enum sector_state all_states[] = {
  SECTOR_CLEAN, SECTOR_REMAPPED, SECTOR_LOST, SECTOR_ZEROED,
};

/* On good and bad sectors and on mapped ones. */
START_TEST (fua_makes_durable)
{
  begin (_i / 4);
  make (all_states[_i % 4]);
  spoil (AT + 1, DEV_FAULT_BAD_WRITE);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 4, DEV_FUA));
  cut_power ();
  expect_data (AT - 1, 3, 4);
  expect_done (write_part (AT, 5, 300, DEV_FUA));
  cut_power ();
  expect_changed (4, 5, 300);
  expect_done (clear (false, AT - 1, 3, DEV_FUA));
  cut_power ();
  expect_zeroes (AT - 1, 3);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 5, DEV_FUA));
  expect_done (clear (true, AT - 1, 3, DEV_FUA));
  cut_power ();
  expect_zeroes (AT - 1, 3);
  end ();
}
END_TEST

/* Either of the two fails, and the store goes on failing while it tries again:
 * the client hears of it, now and later.
 */
START_TEST (failed_flush_is_reported)
{
  struct dev_fault *which;

  begin (0);
  which = _i ? rig.store : rig.backing;
  spoil (AT, DEV_FAULT_BAD_WRITE);
  expect_done (fault_rig_write (&rig, AT - 1, 3, 1, 0));
  dev_fault_fail_calls (which, DEV_FAULT_FLUSH, 1, true, EIO);
  for (unsigned i = 0; i < 3; i++) {
    expect_error (engine_flush (rig.engine), EIO);
    dev_fault_heal_calls (which);
    expect_done (fault_rig_write (&rig, AT - 1, 3, 1, 0));
  }
  expect_data (AT - 1, 3, 1);
  reopen ();
  expect_data (AT - 1, 3, 1);
  expect_done (engine_flush (rig.engine));
  end ();
}
END_TEST

/* Block status. */

struct extent {
  uint64_t offset, count;
  unsigned type;
};
static struct extent extents[64];
static unsigned nr_extents;

/* Joins what is alike. */
static int
note_extent (void *opaque, uint64_t offset, uint64_t count, unsigned type)
{
  struct extent *last = nr_extents ? &extents[nr_extents - 1] : NULL;

  if (last)
    ck_assert_uint_eq (offset, last->offset + last->count);
  if (last && last->type == type)
    last->count += count;
  else
    extents[nr_extents++] = (struct extent) { offset, count, type };
  return 0;
}

static void
expect_extent (unsigned i, uint64_t first, uint64_t end, unsigned type)
{
  ck_assert_uint_lt (i, nr_extents);
  ck_assert_uint_eq (extents[i].offset, first * sector_bytes);
  ck_assert_uint_eq (extents[i].count, (end - first) * sector_bytes);
  ck_assert_uint_eq (extents[i].type, type);
}

START_TEST (block_status)
{
  const unsigned hole = DEV_EXTENT_HOLE | DEV_EXTENT_ZERO;

  begin (_i / 4);
  expect_done (clear (true, AT - 10, 8, 0));
  expect_done (clear (true, AT + 1, 8, 0));
  make (all_states[_i % 4]);
  nr_extents = 0;
  expect_done (engine_extents (rig.engine, 40 * sector_bytes,
                               (AT - 20) * sector_bytes, note_extent, NULL));
  expect_extent (0, AT - 20, AT - 10, 0);
  expect_extent (1, AT - 10, AT - 2, hole);
  if (all_states[_i % 4] == SECTOR_ZEROED) {
    expect_extent (2, AT - 2, AT, 0);
    expect_extent (3, AT, AT + 1, DEV_EXTENT_ZERO);
  }
  else
    expect_extent (2, AT - 2, AT + 1, 0);
  expect_extent (nr_extents - 2, AT + 1, AT + 9, hole);
  expect_extent (nr_extents - 1, AT + 9, AT + 20, 0);
  end ();
}
END_TEST

/* A mapped sector may stand over a hole: it is data all the same. */
START_TEST (block_status_over_a_hole)
{
  begin (_i);
  expect_done (clear (true, AT - 5, 10, 0));
  make (SECTOR_REMAPPED);
  nr_extents = 0;
  expect_done (engine_extents (rig.engine, 10 * sector_bytes,
                               (AT - 5) * sector_bytes, note_extent, NULL));
  expect_extent (1, AT, AT + 1, 0);
  ck_assert_uint_eq (nr_extents, 3);
  nr_extents = 0;               /* parts of sectors */
  expect_done (engine_extents (rig.engine, 20, AT * sector_bytes - 10,
                               note_extent, NULL));
  ck_assert_uint_eq (nr_extents, 2);
  ck_assert_uint_eq (extents[0].count, 10);
  ck_assert_uint_eq (extents[1].count, 10);
  ck_assert_uint_eq (extents[1].type, 0);
  end ();
}
END_TEST

/* What is no request of a sector. */

START_TEST (out_of_bounds)
{
  uint64_t size_bytes = (uint64_t) NR_SECTORS * 512;
  uint8_t buf[1024];

  begin (0);
  expect_error (engine_pread (rig.engine, buf, 2, size_bytes - 1), EINVAL);
  expect_error (engine_pread (rig.engine, buf, 1, UINT64_MAX), EINVAL);
  expect_error (engine_pwrite (rig.engine, buf, 2, size_bytes - 1, 0), EINVAL);
  expect_error (engine_zero (rig.engine, UINT64_MAX, 1, 0), EINVAL);
  expect_error (engine_trim (rig.engine, 1, size_bytes, 0), EINVAL);
  expect_error (engine_cache (rig.engine, 1, size_bytes), EINVAL);
  expect_error (engine_extents (rig.engine, 1, size_bytes, note_extent, NULL),
                EINVAL);
  expect_done (engine_pwrite (rig.engine, buf, 0, size_bytes, 0));
  expect_done (engine_trim (rig.engine, 0, size_bytes, 0));
  expect_done (engine_zero (rig.engine, 0, 0, 0));
  expect_done (engine_cache (rig.engine, 512, 0));
  expect_data (0, NR_SECTORS, 0);
  end ();
}
END_TEST

/* Nothing reaches the disk but reads; what is lost is recorded. */
START_TEST (read_only)
{
  retries = 2;
  begin_with ((struct dev_fault_options) {
                .sector_bytes = 512, .size_bytes = NR_SECTORS * 512,
                .readonly = true });
  spoil (AT, DEV_FAULT_BAD_READ);
  expect_error (fault_rig_read (&rig, AT - 1, 3, 0), EIO);
  expect_error (fault_rig_write (&rig, AT, 1, 1, 0), EROFS);
  expect_error (clear (false, AT, 1, 0), EROFS);
  expect_error (clear (true, AT, 1, 0), EROFS);
  expect_done (engine_flush (rig.engine));
  reopen ();
  expect_state (AT, SECTOR_LOST);
  ck_assert_uint_eq (dev_fault_calls (rig.backing, DEV_FAULT_CHANGES), 0);
  fault_rig_close (&rig);
  ck_assert_uint_eq (dev_fault_calls (rig.backing, DEV_FAULT_CHANGES
                                      | DEV_FAULT_FLUSH), 0);
  fault_rig_free (&rig);
}
END_TEST

/* The model: what each sector is, as bytes. */

#define MODEL_SECTORS 200

static uint64_t base_seed;

struct model {
  uint64_t seed, size_bytes;
  uint8_t *bytes;
  bool lost[MODEL_SECTORS];     /* until it is written whole */
  unsigned nr_requests, nr_failed, nr_reopened;
};

static unsigned
pick (struct model *m, unsigned below)
{
  return (unsigned) (dev_fault_random (&m->seed) % below);
}

static void
model_fails (const struct model *m, const char *what, uint64_t lba)
{
  ck_abort_msg ("REMAP_TEST_SEED=%llu, request %u: %s at sector %d (errno %s)",
                (unsigned long long) base_seed, m->nr_requests, what,
                (int) lba, strerror (errno));
}

static size_t
bytes_of (const struct model *m, uint64_t lba)
{
  return (size_t) MIN ((uint64_t) sector_bytes,
                       m->size_bytes - lba * sector_bytes);
}

static void
pick_range (struct model *m, uint64_t *ret_offset, uint64_t *ret_count)
{
  uint64_t offset = pick (m, (unsigned) m->size_bytes);
  uint64_t count = 1 + pick (m, (pick (m, 4) ? 4 : 40) * sector_bytes);

  if (pick (m, 3)) {
    offset = round_down (offset, sector_bytes);
    count = round_up (count, sector_bytes);
  }
  *ret_offset = offset;
  *ret_count = MIN (count, m->size_bytes - offset);
}

/* Could this sector be unreadable, or be found to be so now? */
static bool
may_be_lost (const struct model *m, uint64_t lba)
{
  return m->lost[lba] || (fault_rig_state (&rig, lba) == SECTOR_LOST) ||
    (fault_rig_state (&rig, lba) == SECTOR_CLEAN &&
     dev_fault_how_bad (rig.backing, lba) & DEV_FAULT_BAD_READ);
}

static void
model_read (struct model *m, uint64_t offset, uint64_t count)
{
  uint8_t *buf = malloc (count);
  uint64_t first = offset / sector_bytes;
  uint64_t last = (offset + count - 1) / sector_bytes;
  bool may_fail = false, must_fail = false;

  for (uint64_t i = first; i <= last; i++) {
    may_fail |= may_be_lost (m, i);
    must_fail |= m->lost[i];
  }
  errno = 0;
  if (engine_pread (rig.engine, buf, count, offset) == 0) {
    if (must_fail)
      model_fails (m, "a lost sector was read", first);
    if (memcmp (buf, m->bytes + offset, count) != 0)
      model_fails (m, "other data", first);
  }
  else if (!may_fail || errno != EIO)
    model_fails (m, "read failed", first);
  for (uint64_t i = first; i <= last; i++)
    m->lost[i] |= fault_rig_state (&rig, i) == SECTOR_LOST;
  free (buf);
}

/* After a request that failed: each of its sectors is old or new. */
static void
settle_sector (struct model *m, uint64_t lba, const uint8_t *wanted)
{
  uint8_t *is = malloc (sector_bytes);
  size_t n = bytes_of (m, lba);
  bool may_fail = may_be_lost (m, lba);

  if (engine_pread (rig.engine, is, n, lba * sector_bytes) == 0) {
    if (memcmp (is, wanted, n) == 0) {
      memcpy (m->bytes + lba * sector_bytes, is, n);
      m->lost[lba] = false;
    }
    else if (memcmp (is, m->bytes + lba * sector_bytes, n) != 0 ||
             m->lost[lba])
      model_fails (m, "neither old nor new", lba);
  }
  else if (!may_fail || errno != EIO)
    model_fails (m, "read failed", lba);
  else
    m->lost[lba] = true;
  free (is);
}

/* data NULL: zero; or trim, of whole sectors alone. */
static void
model_change (struct model *m, uint64_t offset, uint64_t count,
              const uint8_t *data, bool is_trim)
{
  unsigned flags = pick (m, 10) == 0 ? DEV_FUA : 0;
  uint8_t *wanted = malloc (m->size_bytes);
  uint64_t first = offset / sector_bytes;
  uint64_t last = (offset + count - 1) / sector_bytes;
  bool may_fail = false;
  int r;

  memcpy (wanted, m->bytes, m->size_bytes);
  if (data)
    memcpy (wanted + offset, data, count);
  else
    memset (wanted + offset, 0, count);
  for (uint64_t i = first; i <= last; i++)
    may_fail |= may_be_lost (m, i) &&
      (offset > i * sector_bytes ||
       offset + count < i * sector_bytes + bytes_of (m, i));
  errno = 0;
  r = data ? engine_pwrite (rig.engine, data, count, offset, flags)
    : is_trim ? engine_trim (rig.engine, count, offset, flags)
    : engine_zero (rig.engine, count, offset, flags);
  if (r == 0) {
    memcpy (m->bytes, wanted, m->size_bytes);
    for (uint64_t i = first; i <= last; i++) {
      if (offset <= i * sector_bytes &&
          offset + count >= i * sector_bytes + bytes_of (m, i))
        m->lost[i] = false;
    }
  }
  else {
    m->nr_failed++;
    if (!(may_fail && errno == EIO) && errno != ENOSPC)
      model_fails (m, "write failed", first);
    for (uint64_t i = first; i <= last; i++)
      settle_sector (m, i, wanted + i * sector_bytes);
  }
  free (wanted);
}

static void
model_request (struct model *m)
{
  uint64_t offset, count;
  uint8_t *data = NULL;
  unsigned what = pick (m, 100);

  pick_range (m, &offset, &count);
  m->nr_requests++;
  if (what < 45)
    model_read (m, offset, count);
  else if (what < 85) {
    data = malloc (count);
    dev_fault_pattern (data, count, offset, dev_fault_random (&m->seed));
    model_change (m, offset, count, data, false);
    free (data);
  }
  else if (what < 92)
    model_change (m, offset, count, NULL, false);
  else if (what < 98) {
    uint64_t end = round_down (offset + count, sector_bytes);

    offset = round_up (offset, sector_bytes);
    if (end > offset)
      model_change (m, offset, end - offset, NULL, true);
  }
  else
    ck_assert_int_eq (engine_flush (rig.engine), 0);
}

/* What found no spare was lost in memory alone. */
static void
forget_unrecorded (struct model *m)
{
  for (uint64_t lba = 0; lba < MODEL_SECTORS; lba++) {
    bool is_lost = fault_rig_state (&rig, lba) == SECTOR_LOST;

    ck_assert (m->lost[lba] || !is_lost);
    m->lost[lba] = is_lost;
  }
}

/* A few never go bad: a disk on which nothing can be read or written is dead,
 * and its sectors are not remapped.
 */
static void
model_spoil (uint64_t lba, unsigned nr, unsigned how, unsigned nr_failures,
             int err)
{
  for (unsigned i = 0; i < nr; i++)
    if ((lba + i) % 64 / 8 != 1)
      dev_fault_spoil (rig.backing, lba + i, 1, how, nr_failures, err);
}

/* Sectors go bad and get well again, and servers are killed. */
static void
model_fault (struct model *m)
{
  unsigned what = pick (m, 100);
  uint64_t lba = pick (m, MODEL_SECTORS);
  unsigned nr = 1 + pick (m, (unsigned) MIN (8u, MODEL_SECTORS - lba));
  unsigned how = 1 + pick (m, 3);

  if (what < 30)
    model_spoil (lba, nr, how, 0, pick (m, 2) ? EIO : EILSEQ);
  else if (what < 50)
    model_spoil (lba, nr, how, 1 + pick (m, 4), ENODATA);
  else if (what < 90)
    dev_fault_mend (rig.backing, lba, nr);
  else {
    m->nr_reopened++;
    if (what < 95)
      fault_rig_kill (&rig);
    else
      fault_rig_close (&rig);
    open_rig ();
    forget_unrecorded (m);
  }
}

static void
model_begin (struct model *m, int config)
{
  uint32_t bytes = sector_sizes[config % 2];
  uint32_t physical = config % 4 >= 2 ? 4096 : bytes;

  *m = (struct model) {
    .seed = base_seed + (unsigned) config,
    .size_bytes = (uint64_t) MODEL_SECTORS * bytes - (config % 3 ? 77 : 0),
  };
  retries = retry_counts[config % 4];
  sector_bytes = bytes;
  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .sector_bytes = bytes, .physical_bytes = physical,
                    .size_bytes = m->size_bytes,
                    .cannot_zero = config % 5 == 0 },
                  &(struct dev_fault_options) { .kind = DEV_FILE });
  rig.spare_bytes = (config < 4 ? 256 : 40) * bytes;
  rig.options.retries = retries;
  open_rig ();
  m->bytes = malloc (m->size_bytes);
  dev_fault_peek (rig.backing, m->bytes, m->size_bytes, 0);
}

#define NR_MODELS 8
#define MODEL_NS (UINT64_C (3000000000) / NR_MODELS)

static uint64_t
now_ns (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

START_TEST (model)
{
  uint64_t until = now_ns () + MODEL_NS;
  struct model m;

  model_begin (&m, _i);
  while (m.nr_requests < 200 || now_ns () < until) {
    if (pick (&m, 10) == 0)
      model_fault (&m);
    model_request (&m);
    engine_verify (rig.engine);
  }
  for (uint64_t lba = 0; lba < MODEL_SECTORS; lba++)
    model_read (&m, lba * sector_bytes, bytes_of (&m, lba));
  printf ("model %d: %u requests, %u writes failed, opened %u times\n", _i,
          m.nr_requests, m.nr_failed, m.nr_reopened + 1);
  free (m.bytes);
  end ();
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
add_reads_and_writes (Suite *suite)
{
  TCase *tc = add_case (suite, "read");

  tcase_add_loop_test (tc, read_good, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_bad, 0, NR_CONFIGS * NR_REQUESTS);
  tcase_add_loop_test (tc, read_passes_after_retries, 0,
                       NR_CONFIGS * NR_REQUESTS);
  tcase_add_loop_test (tc, read_fails_after_retries, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_mapped, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_parts_of_mapped, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, read_lost_as_zero, 0, NR_CONFIGS);

  tc = add_case (suite, "write");
  tcase_add_loop_test (tc, write_good, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, write_bad, 0, NR_CONFIGS * NR_REQUESTS);
  tcase_add_loop_test (tc, write_unreadable, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, write_mapped, 0, NR_CONFIGS * 3);
  tcase_add_loop_test (tc, write_part_of_good, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, write_part_of_unreadable, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, write_part_of_unwritable, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, write_part_of_mapped, 0, NR_CONFIGS * 3);
}

static void
add_others (Suite *suite)
{
  TCase *tc = add_case (suite, "zero and trim");

  tcase_add_loop_test (tc, clear_good, 0, NR_CONFIGS * 2);
  tcase_add_loop_test (tc, clear_where_the_disk_cannot, 0, 2);
  tcase_add_loop_test (tc, clear_bad, 0, NR_CONFIGS * 2);
  tcase_add_loop_test (tc, clear_mapped, 0, NR_CONFIGS * 6);
  tcase_add_loop_test (tc, clear_parts, 0, NR_CONFIGS * 2);
  tcase_add_loop_test (tc, zero_part_of_lost, 0, NR_CONFIGS);

  tc = add_case (suite, "durability");
  tcase_add_loop_test (tc, flush_makes_durable, 0, NR_CONFIGS);
  tcase_add_loop_test (tc, fua_makes_durable, 0, NR_CONFIGS * 4);
  tcase_add_loop_test (tc, failed_flush_is_reported, 0, 2);

  tc = add_case (suite, "other");
  tcase_add_loop_test (tc, block_status, 0, NR_CONFIGS * 4);
  tcase_add_loop_test (tc, block_status_over_a_hole, 0, NR_CONFIGS);
  tcase_add_test (tc, out_of_bounds);
  tcase_add_test (tc, read_only);

  tc = add_case (suite, "model");
  tcase_add_loop_test (tc, model, 0, NR_MODELS);
}

static void
choose_seed (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");

  base_seed = given ? strtoull (given, NULL, 0)
    : (uint64_t) time (NULL) * 1000 + (uint64_t) getpid () % 1000;
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) base_seed);
  fflush (stdout);
}

int
main (void)
{
  Suite *suite = suite_create ("engine");
  SRunner *runner;
  int nr_failed;

  choose_seed ();
  add_reads_and_writes (suite);
  add_others (suite);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
