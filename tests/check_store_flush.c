/* SPDX-License-Identifier: BSD-3-Clause */
/* Flushes of the store that fail, on every path: what the client was told is
 * durable is there after a power cut that leaves nothing else, or the client is
 * told otherwise, again and again.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dev-fault.h"
#include "error.h"
#include "store-format.h"

enum { SECTORS = 600, SPARES = 512, TABLE_A = STORE_HEAD_BYTES };

static struct fault_rig rig;

static void
begin_sized (unsigned nr_sectors, unsigned nr_spares)
{
  fault_rig_init (&rig,
                  &(struct dev_fault_options) {
                    /* A disk that takes no writes anywhere gets no spares:
                       some sectors behind the others are good. */
                    .size_bytes = (uint64_t) nr_sectors * 512 * 5 / 4,
                    .is_volatile = true },
                  &(struct dev_fault_options) { .is_volatile = true });
  rig.spare_bytes = (uint64_t) nr_spares * 512;
  dev_fault_spoil (rig.backing, 0, nr_sectors, DEV_FAULT_BAD_WRITE, 0, 0);
}

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
}

static void
begin (void)
{
  begin_sized (SECTORS, SPARES);
  open_rig ();
}

static void
end (void)
{
  fault_rig_free (&rig);
}

static void
put (uint64_t lba, uint64_t nr, uint64_t version)
{
  ck_assert_msg (fault_rig_write (&rig, lba, nr, version, 0) == 0, "%s",
                 last_error_text ());
}

static void
expect (uint64_t lba, uint64_t nr, uint64_t version)
{
  int r = fault_rig_read (&rig, lba, nr, version);

  ck_assert_msg (r == 0, "%s", r == -1 ? last_error_text () : "other content");
}

static void
flush (void)
{
  ck_assert_msg (engine_flush (rig.engine) == 0, "%s", last_error_text ());
}

/* Nothing stays but what is durable. */
static void
cut_power (void)
{
  fault_rig_kill (&rig);
  dev_fault_heal_calls (rig.store);
  dev_fault_cut_power (rig.backing, 0);
  dev_fault_cut_power (rig.store, 0);
  open_rig ();
}

static void
fail_flushes (unsigned nth, bool for_ever)
{
  dev_fault_fail_calls (rig.store, DEV_FAULT_FLUSH, nth, for_ever, EIO);
}

static bool
has_flush_failed (void)
{
  struct status status = { .pid = 0 };

  engine_get_status (rig.engine, &status);
  return status.flush_failed;
}

/* Records, a run of them, and slots that took their place. */
START_TEST (one_failure_is_mended)
{
  begin ();
  put (10, 100, 1);
  flush ();
  put (20, 5, 2);
  put (300, 1, 2);
  fail_flushes (1, false);
  flush ();
  ck_assert (!has_flush_failed ());
  cut_power ();
  expect (10, 10, 1);
  expect (20, 5, 2);
  expect (25, 85, 1);
  expect (300, 1, 2);
  end ();
}
END_TEST

/* What was written again is as good as before: later flushes cover more. */
START_TEST (life_goes_on)
{
  begin ();
  for (unsigned i = 0; i < 20; i++) {
    put (i * 7, 7, i);
    if (i % 3 == 0)
      fail_flushes (1, false);
    if (i % 2 == 0)
      flush ();
  }
  flush ();
  cut_power ();
  for (unsigned i = 0; i < 20; i++)
    expect (i * 7, 7, i);
  end ();
}
END_TEST

/* S5: it fails still when all has been written again. */
START_TEST (lasting_failure_is_not_forgotten)
{
  begin ();
  put (1, 1, 1);
  flush ();
  put (2, 1, 1);
  fail_flushes (1, true);
  for (unsigned i = 0; i < 3; i++) {
    ck_assert_int_eq (engine_flush (rig.engine), -1);
    ck_assert_int_eq (errno, EIO);
    ck_assert (has_flush_failed ());
    dev_fault_heal_calls (rig.store);
    put (3, 1, i);
    ck_assert_int_eq (fault_rig_write (&rig, 4, 1, 1, DEV_FUA), -1);
  }
  expect (2, 1, 1);
  cut_power ();
  expect (1, 1, 1);
  flush ();
  put (2, 1, 3);
  flush ();
  end ();
}
END_TEST

/* A bad place below the page cache: it shows when the cache is written. */
struct bad_place {
  uint64_t begin, nr_bytes;
  unsigned nr;                  /* failures */
};

static void
spoil_store (const struct bad_place *p)
{
  dev_fault_spoil (rig.store, p->begin / 512, p->nr_bytes / 512,
                   DEV_FAULT_BAD_WRITE, 0, 0);
}

static int
spoil_at_flush (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct bad_place *p = opaque;

  if (call->kind != DEV_FAULT_FLUSH || is_done || p->nr++ > 0)
    return 0;
  spoil_store (p);
  return EIO;
}

/* 512 + 32 slots: 31 sectors of a table, 4 blocks; data behind them. */
enum { TABLE_BYTES = 16384, TABLE_B = TABLE_A + TABLE_BYTES + 278528 };

static const uint64_t bad_offsets[] = {
  TABLE_A, TABLE_B, COMMIT_A_OFFSET, TABLE_A + 512,
};

START_TEST (bad_place_in_one_copy)
{
  struct bad_place p = { bad_offsets[_i], 512, 0 };
  unsigned touches;

  begin ();
  put (1, 30, 1);
  flush ();
  put (10, 10, 2);
  dev_fault_set_hook (rig.store, spoil_at_flush, &p);
  flush ();
  ck_assert_uint_gt (p.nr, 1);
  touches = dev_fault_touches (rig.store, p.begin / 512);
  put (15, 10, 3);
  flush ();
  put (50, 1, 3);
  flush ();
  ck_assert (!has_flush_failed ());
  ck_assert_uint_eq (dev_fault_touches (rig.store, p.begin / 512), touches);
  dev_fault_set_hook (rig.store, NULL, NULL);
  cut_power ();
  expect (1, 9, 1);
  expect (10, 5, 2);
  expect (15, 10, 3);
  expect (25, 6, 1);
  expect (50, 1, 3);
  end ();
}
END_TEST

START_TEST (bad_place_in_both_copies)
{
  struct bad_place p = { TABLE_A, 512, 0 };

  begin ();
  put (1, 1, 1);
  flush ();
  put (2, 1, 1);
  dev_fault_spoil (rig.store, TABLE_B / 512, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_set_hook (rig.store, spoil_at_flush, &p);
  for (unsigned i = 0; i < 3; i++) {
    ck_assert_int_eq (engine_flush (rig.engine), -1);
    ck_assert (has_flush_failed ());
  }
  expect (1, 1, 1);
  expect (2, 1, 1);
  dev_fault_set_hook (rig.store, NULL, NULL);
  end ();
}
END_TEST

/* A copy that could not be written looks as good as ever.  When the other one
 * rots the store must not be opened with it.
 */
static void
make_stale (int how)
{
  struct bad_place p = { TABLE_A, 512, 0 };

  if (how == 0)                 /* the page cache finds out */
    dev_fault_set_hook (rig.store, spoil_at_flush, &p);
  else
    spoil_store (&p);
  put (10, 10, 2);
  flush ();
  dev_fault_set_hook (rig.store, NULL, NULL);
  put (200, 200, 1);            /* newer records, in other blocks */
  flush ();
}

static void
lose_block (uint64_t offset)
{
  dev_fault_spoil (rig.store, offset / 512, 8, DEV_FAULT_BAD_READ, 0, 0);
}

static void
expect_refused (const char *why)
{
  ck_assert_int_eq (fault_rig_open (&rig), -1);
  ck_assert_int_eq (errno, EUCLEAN);
  ck_assert_msg (strstr (last_error_text (), why), "%s", last_error_text ());
}

START_TEST (stale_copy_is_not_believed)
{
  begin ();
  put (1, 30, 1);
  flush ();
  make_stale (_i);
  fault_rig_kill (&rig);
  dev_fault_cut_power (rig.store, 0);
  lose_block (TABLE_B);
  expect_refused ("is out of date");
  end ();
}
END_TEST

/* It is written anew at a start, if it can be, and then as good as the other. */
START_TEST (stale_copy_is_renewed)
{
  begin ();
  put (1, 30, 1);
  flush ();
  make_stale (_i);
  fault_rig_close (&rig);
  open_rig ();                  /* still bad */
  put (20, 1, 3);
  flush ();
  fault_rig_close (&rig);
  dev_fault_mend (rig.store, TABLE_A / 512, 8);
  open_rig ();
  fault_rig_kill (&rig);
  lose_block (TABLE_B);
  open_rig ();
  expect (1, 9, 1);
  expect (10, 10, 2);
  expect (20, 1, 3);
  expect (21, 10, 1);
  expect (200, 200, 1);
  end ();
}
END_TEST

/* What lies beside a bad block has two copies still. */
START_TEST (neighbours_of_a_bad_block)
{
  uint8_t copy[2][STORE_BLOCK];

  begin ();
  put (1, 30, 1);
  flush ();
  make_stale (0);
  put (100, 120, 1);            /* slots on both sides of the edge */
  put (100, 120, 2);
  flush ();
  for (unsigned i = 1; i < 4; i++) {
    dev_fault_peek (rig.store, copy[0], STORE_BLOCK, TABLE_A + i * STORE_BLOCK);
    dev_fault_peek (rig.store, copy[1], STORE_BLOCK, TABLE_B + i * STORE_BLOCK);
    ck_assert_mem_eq (copy[0], copy[1], STORE_BLOCK);
  }
  fault_rig_kill (&rig);
  lose_block (TABLE_B + STORE_BLOCK);
  open_rig ();
  expect (100, 120, 2);
  end ();
}
END_TEST

/* A record over two blocks, of which one is stale in the first copy, and the
 * other cannot be written in the second: no good block is lost for a stale one.
 */
START_TEST (stale_copy_is_not_copied)
{
  begin ();
  put (1, 100, 1);
  flush ();
  dev_fault_spoil (rig.store, TABLE_A / 512, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  put (10, 10, 2);
  flush ();
  dev_fault_spoil (rig.store, TABLE_B / 512 + 8, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  put (200, 60, 3);             /* slots 110 .. 169; a block has 144 */
  flush ();
  fault_rig_close (&rig);
  open_rig ();
  expect (1, 9, 1);
  expect (10, 10, 2);
  expect (20, 81, 1);
  expect (200, 60, 3);
  end ();
}
END_TEST

/* Nor after a failed flush, when one sector of the good copy cannot be read. */
START_TEST (stale_copy_is_not_put_together)
{
  begin ();
  put (1, 30, 1);
  flush ();
  dev_fault_spoil (rig.store, TABLE_A / 512, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  put (10, 10, 2);
  flush ();
  dev_fault_mend (rig.store, TABLE_A / 512, 8);
  put (60, 1, 3);
  dev_fault_spoil (rig.store, TABLE_B / 512 + 7, 1, DEV_FAULT_BAD_READ, 0, 0);
  fail_flushes (1, false);
  (void) engine_flush (rig.engine);     /* there may be no way to mend that */
  fault_rig_close (&rig);
  dev_fault_mend (rig.store, TABLE_B / 512, 8);
  open_rig ();
  expect (1, 9, 1);
  expect (10, 10, 2);
  expect (20, 11, 1);
  end ();
}
END_TEST

/* Neither copy can be written: what they hold is not lost for that. */
START_TEST (both_copies_are_not_stale)
{
  begin ();
  put (1, 30, 1);
  flush ();
  dev_fault_spoil (rig.store, TABLE_A / 512, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  put (10, 10, 2);
  flush ();
  put (20, 1, 2);
  dev_fault_spoil (rig.store, TABLE_B / 512, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, 60, 10, 3, 0), -1);
  (void) engine_flush (rig.engine);
  fault_rig_close (&rig);
  dev_fault_mend (rig.store, 0, dev_fault_size (rig.store) / 512);
  open_rig ();
  expect (1, 9, 1);
  expect (10, 11, 2);
  expect (21, 10, 1);
  end ();
}
END_TEST

/* A start repairs the stale copy, a flush fails, the other copy turns out bad,
 * and the power is cut before all of that is noted.
 */
static int
stop_in_repair (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  unsigned *state = opaque;

  if (!is_done && call->kind == DEV_FAULT_PWRITE && call->offset == TABLE_A &&
      *state == 0)
    *state = 1;
  if (is_done || call->kind != DEV_FAULT_FLUSH || *state == 0)
    return 0;
  if ((*state)++ == 1) {
    dev_fault_spoil (rig.store, TABLE_B / 512, 8, DEV_FAULT_BAD_WRITE, 0, 0);
    return EIO;
  }
  return *state == 3 ? 0 : ENODEV;
}

START_TEST (repair_is_stopped_between_the_copies)
{
  unsigned state = 0;

  begin ();
  put (1, 30, 1);
  flush ();
  make_stale (1);
  fault_rig_close (&rig);
  dev_fault_mend (rig.store, TABLE_A / 512, 8);
  dev_fault_set_hook (rig.store, stop_in_repair, &state);
  if (fault_rig_open (&rig) == 0)
    fault_rig_kill (&rig);
  ck_assert_uint_gt (state, 2);
  dev_fault_set_hook (rig.store, NULL, NULL);
  dev_fault_cut_power (rig.store, 0);
  dev_fault_mend (rig.store, 0, dev_fault_size (rig.store) / 512);
  open_rig ();
  expect (1, 9, 1);
  expect (10, 10, 2);
  expect (200, 200, 1);
  end ();
}
END_TEST

/* What could not be repaired at a start stays stale. */
START_TEST (stale_copy_stays_stale)
{
  const uint64_t block = 3 * STORE_BLOCK;

  begin ();
  put (0, 450, 1);
  flush ();
  dev_fault_spoil (rig.store, (TABLE_A + block) / 512, 8, DEV_FAULT_BAD_WRITE,
                   0, 0);
  put (450, 50, 1);
  flush ();
  fault_rig_close (&rig);
  dev_fault_spoil (rig.store, TABLE_B / 512 + 31, 1, DEV_FAULT_BAD_READ, 0, 0);
  open_rig ();
  expect (450, 50, 1);
  fault_rig_close (&rig);
  lose_block (TABLE_B + block);
  expect_refused ("is out of date");
  end ();
}
END_TEST

/* Repairs need no data: of a stale block all entries are written anew, also of
 * slots that hold something else by now.
 */
static int
fail_at_flush (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  unsigned *state = opaque;
  bool is_table = call->kind == DEV_FAULT_PWRITE && call->offset >= TABLE_A &&
    call->offset < TABLE_A + STORE_BLOCK;

  if (is_done)
    return 0;
  if (is_table && !(call->flags & DEV_BUFFERED))
    return EIO;
  if (is_table)
    *state = 1;
  if (call->kind != DEV_FAULT_FLUSH || *state != 1)
    return 0;
  *state = 2;
  return EIO;
}

START_TEST (repair_needs_no_data)
{
  uint8_t rubbish[512] = { 1 };
  unsigned state = 0;

  begin ();
  dev_fault_set_hook (rig.store, fail_at_flush, &state);
  put (1, 30, 1);
  put (100, 140, 1);
  flush ();
  put (2, 1, 2);                /* slot 1 is free now; this one is in another
                                   block of the table */
  flush ();
  fault_rig_close (&rig);
  dev_fault_poke (rig.store, rubbish, sizeof rubbish,
                  TABLE_A + TABLE_BYTES + 512);
  for (unsigned i = 0; i < 2; i++) {
    state = 0;
    open_rig ();
    expect (2, 1, 2);
    expect (3, 28, 1);
    fault_rig_close (&rig);
  }
  dev_fault_set_hook (rig.store, NULL, NULL);
  end ();
}
END_TEST

/* Data comes into a slot between two flushes that fail. */
struct late {
  _Atomic unsigned nr_flushes;
  _Atomic bool has_begun;
  _Atomic bool is_written;
  pthread_t thread;
};

static void *
write_late (void *unused)
{
  (void) unused;
  put (100, 1, 7);
  return NULL;
}

static int
let_write_late (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct late *l = opaque;
  bool is_data = call->kind == DEV_FAULT_PWRITE && call->count == 512 &&
    !(call->flags & DEV_BUFFERED) && call->offset >= TABLE_A + TABLE_BYTES;

  if (is_data && is_done && l->has_begun)
    l->is_written = true;
  if (l->nr_flushes == 1 && !l->has_begun && !is_done &&
      call->kind == DEV_FAULT_PWRITE && call->offset == COMMIT_A_OFFSET) {
    l->has_begun = true;
    ck_assert_int_eq (pthread_create (&l->thread, NULL, write_late, NULL), 0);
    while (!l->is_written)
      usleep (1000);
  }
  return call->kind == DEV_FAULT_FLUSH && !is_done && ++l->nr_flushes <= 2
    ? EIO : 0;
}

START_TEST (data_comes_between_failed_flushes)
{
  struct late late = { .nr_flushes = 0 };

  begin ();
  put (1, 30, 1);
  flush ();
  put (50, 1, 1);
  dev_fault_set_hook (rig.store, let_write_late, &late);
  flush ();
  ck_assert (late.has_begun);
  ck_assert_int_eq (pthread_join (late.thread, NULL), 0);
  flush ();
  dev_fault_set_hook (rig.store, NULL, NULL);
  cut_power ();
  expect (50, 1, 1);
  expect (100, 1, 7);
  end ();
}
END_TEST

START_TEST (stale_superblock_is_not_believed)
{
  begin_sized (6000, 6000);
  open_rig ();
  put (0, 10, 1);
  flush ();
  dev_fault_spoil (rig.store, 0, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  put (1000, 4500, 1);          /* slots are made ready */
  flush ();
  ck_assert_int_eq (engine_zero (rig.engine, 512, 0, 0), 0);
  flush ();
  fault_rig_close (&rig);
  open_rig ();
  expect (1000, 4500, 1);
  fault_rig_close (&rig);
  lose_block (dev_fault_size (rig.store) - STORE_BLOCK);
  expect_refused ("superblock is out of date");
  end ();
}
END_TEST

/* Data that no longer counts may be gone. */
START_TEST (data_of_no_account_is_gone)
{
  begin ();
  put (1, 5, 1);
  flush ();
  put (2, 1, 2);
  dev_fault_spoil (rig.store, (TABLE_A + TABLE_BYTES) / 512 + 5, 1,
                   DEV_FAULT_BAD_READ, 0, 0);
  if (_i == 0)                  /* found to be lost, and written again */
    ck_assert_int_eq (fault_rig_read (&rig, 2, 1, 2), -1);
  if (_i == 2)
    ck_assert_int_eq (engine_zero (rig.engine, 512, 2 * 512, 0), 0);
  else
    put (2, 1, 3);
  put (7, 1, 1);
  fail_flushes (1, false);
  flush ();
  cut_power ();
  expect (7, 1, 1);
  if (_i < 2)
    expect (2, 1, 3);
  end ();
}
END_TEST

static unsigned
writes_for (uint64_t lba)
{
  unsigned nr = dev_fault_calls (rig.store, DEV_FAULT_PWRITE);

  put (lba, 50, 1);
  flush ();
  return dev_fault_calls (rig.store, DEV_FAULT_PWRITE) - nr;
}

START_TEST (later_data_is_written_once)
{
  unsigned before;

  begin ();
  before = writes_for (100);
  put (7, 1, 1);
  fail_flushes (1, false);
  flush ();
  ck_assert_uint_eq (writes_for (200), before);
  end ();
}
END_TEST

/* The data is gone as well: nobody shall be told that it is durable. */
START_TEST (data_is_gone)
{
  uint8_t rubbish[512] = { 1 };

  begin ();
  put (1, 1, 1);
  flush ();
  put (2, 3, 1);
  dev_fault_poke (rig.store, rubbish, sizeof rubbish,
                  TABLE_A + TABLE_BYTES + 2 * 512);
  fail_flushes (1, false);
  ck_assert_int_eq (engine_flush (rig.engine), -1);
  ck_assert_int_eq (engine_flush (rig.engine), -1);
  ck_assert_int_eq (fault_rig_read (&rig, 3, 1, 1), -1);
  end ();
}
END_TEST

/* Another client's flush fails while data is in a slot and its record is not
 * made: the data may be lost with it.
 */
static int
fail_flush_between (void *opaque, const struct dev_fault_call *call,
                    bool is_done)
{
  unsigned *nr = opaque;

  if (call->kind == DEV_FAULT_PWRITE && is_done && call->offset >= TABLE_A &&
      !(call->flags & DEV_BUFFERED) && (*nr)++ == 0) {
    fail_flushes (1, false);
    flush ();
  }
  return 0;
}

START_TEST (data_in_hand_is_written_again)
{
  unsigned nr = 0;

  begin ();
  put (1, 1, 1);                /* for the flush to have something to do */
  dev_fault_set_hook (rig.store, fail_flush_between, &nr);
  put (2, 1, 1);
  dev_fault_set_hook (rig.store, NULL, NULL);
  ck_assert_uint_gt (nr, 1);
  flush ();
  cut_power ();
  expect (1, 2, 1);
  end ();
}
END_TEST

/* The nth flush of a life fails, whatever it is for: making the store, slots
 * that are made ready, superblocks, clients, closing it, repairing, growing.
 */
enum { MANY = 4300 };

static void
live (void)
{
  open_rig ();
  put (0, MANY, 1);
  flush ();
  put (17, 300, 2);
  flush ();
  cut_power ();                 /* heals: the fault was met, or comes no more */
}

static void
check_life (void)
{
  expect (0, 17, 1);
  expect (17, 300, 2);
  expect (317, MANY - 317, 1);
}

START_TEST (any_flush_fails_once)
{
  unsigned nr_flushes;

  begin_sized (MANY, MANY + 200);
  live ();
  nr_flushes = dev_fault_calls (rig.store, DEV_FAULT_FLUSH);
  end ();
  ck_assert_uint_gt (nr_flushes, 8);
  for (unsigned n = 1; n <= nr_flushes; n++) {
    begin_sized (MANY, MANY + 200);
    fail_flushes (n, false);
    live ();
    check_life ();
    end ();
  }
}
END_TEST

START_TEST (any_flush_of_opening_fails_once)
{
  for (unsigned n = 1; n < 12; n++) {
    begin_sized (MANY, 3000);
    open_rig ();
    put (0, 2900, 1);
    flush ();
    put (5, 9, 2);
    fault_rig_kill (&rig);
    rig.spare_bytes = (MANY + 200) * 512;       /* it grows */
    fail_flushes (n, false);
    if (n == 1) {               /* of what was written before the kill */
      ck_assert_int_eq (fault_rig_open (&rig), -1);
      ck_assert_int_eq (errno, EIO);
      end ();
      continue;
    }
    open_rig ();
    put (2900, MANY - 2900, 1);
    flush ();
    cut_power ();
    expect (0, 5, 1);
    expect (14, MANY - 14, 1);
    expect (5, 9, 2);
    end ();
  }
}
END_TEST

/* More was written than is remembered: the failure stays.  (New slots are made
 * ready with a flush, so it takes records that need none.)
 */
START_TEST (too_much_to_write_again)
{
  const unsigned nr = 66000;

  begin_sized (nr, nr + 100);
  open_rig ();
  put (0, nr, 1);
  flush ();
  ck_assert_int_eq (engine_zero (rig.engine, (uint64_t) (nr - 100) * 512, 0, 0),
                    0);
  put (nr - 5, 1, 2);
  fail_flushes (1, false);
  ck_assert_int_eq (engine_flush (rig.engine), -1);
  ck_assert_int_eq (engine_flush (rig.engine), -1);
  expect (nr - 5, 1, 2);
  end ();
}
END_TEST

/* As much as that is remembered, however it was come by. */
START_TEST (much_can_be_written_again)
{
  const unsigned nr = 64000;

  begin_sized (nr, nr + 100);
  open_rig ();
  put (0, nr, 1);
  fail_flushes (1, false);
  flush ();
  cut_power ();
  expect (0, nr, 1);
  end ();
}
END_TEST

/* After a good flush it is little again. */
START_TEST (much_was_flushed)
{
  const unsigned nr = 66000;

  begin_sized (nr, nr + 100);
  open_rig ();
  put (0, nr, 1);
  flush ();
  put (5, 1, 2);
  fail_flushes (1, false);
  flush ();
  cut_power ();
  expect (0, 5, 1);
  expect (5, 1, 2);
  expect (6, nr - 6, 1);
  end ();
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("store flush");
  TCase *tc = tcase_create ("failed flushes");
  SRunner *runner;
  int nr_failed;

  tcase_set_timeout (tc, 200);
  tcase_add_test (tc, one_failure_is_mended);
  tcase_add_test (tc, life_goes_on);
  tcase_add_test (tc, lasting_failure_is_not_forgotten);
  tcase_add_loop_test (tc, bad_place_in_one_copy, 0, 4);
  tcase_add_test (tc, bad_place_in_both_copies);
  tcase_add_loop_test (tc, stale_copy_is_not_believed, 0, 2);
  tcase_add_loop_test (tc, stale_copy_is_renewed, 0, 2);
  tcase_add_test (tc, neighbours_of_a_bad_block);
  tcase_add_test (tc, stale_copy_is_not_copied);
  tcase_add_test (tc, stale_copy_is_not_put_together);
  tcase_add_test (tc, both_copies_are_not_stale);
  tcase_add_test (tc, repair_is_stopped_between_the_copies);
  tcase_add_test (tc, stale_copy_stays_stale);
  tcase_add_test (tc, repair_needs_no_data);
  tcase_add_test (tc, data_comes_between_failed_flushes);
  tcase_add_test (tc, stale_superblock_is_not_believed);
  tcase_add_loop_test (tc, data_of_no_account_is_gone, 0, 3);
  tcase_add_test (tc, later_data_is_written_once);
  tcase_add_test (tc, data_is_gone);
  tcase_add_test (tc, data_in_hand_is_written_again);
  tcase_add_test (tc, any_flush_fails_once);
  tcase_add_test (tc, any_flush_of_opening_fails_once);
  tcase_add_test (tc, too_much_to_write_again);
  tcase_add_test (tc, much_can_be_written_again);
  tcase_add_test (tc, much_was_flushed);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
