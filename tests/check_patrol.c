/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks that die, come back, take no writes any more or fail for a while: no
 * spare is given out for that, and what was called lost is looked at again.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checked.h"
#include "clock.h"
#include "dev-fault.h"
#include "engine-internal.h"
#include "error.h"
#include "gate.h"
#include "patrol.h"
#include "store-internal.h"
#include "store-slots.h"

#define NR_SECTORS 1600
#define AT 800
#define NR_SLOTS 3000

static struct fault_rig rig;
static struct patrol *patrol;

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
  patrol = patrol_new (rig.engine);
  ck_assert (patrol);
}

static void
begin_with (uint32_t physical_bytes)
{
  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .size_bytes = NR_SECTORS * 512,
                    .physical_bytes = physical_bytes },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = NR_SLOTS * 512;
  open_rig ();
}

static void
begin (void)
{
  begin_with (512);
}

static void
end (void)
{
  engine_verify (rig.engine);
  patrol_free (patrol);
  fault_rig_free (&rig);
}

static void
reopen (void)
{
  engine_verify (rig.engine);
  patrol_free (patrol);
  fault_rig_kill (&rig);
  open_rig ();
}

static struct status
get_status (void)
{
  struct status status = { .spares_total = 0 };

  engine_get_status (rig.engine, &status);
  return status;
}

/* Let patrol work until it has nothing to do; it is told that the time is come. */
static void
patrol_until_idle (void)
{
  uint64_t now_ns = clock_now_ns ();

  while (now_ns != UINT64_MAX)
    now_ns = patrol_step (patrol, now_ns);
}

static void
expect_breaker (enum breaker_state state)
{
  ck_assert_str_eq (breaker_state_to_string (get_status ().breaker),
                    breaker_state_to_string (state));
}

static void
expect_error (int r, int err)
{
  ck_assert_int_eq (r, -1);
  ck_assert_msg (errno == err, "%s, not %s", strerror (errno), strerror (err));
}

static void
expect_data (uint64_t lba, uint64_t nr, unsigned version)
{
  int r = fault_rig_read (&rig, lba, nr, version);

  ck_assert_msg (r == 0, "sector %d: %s", (int) lba,
                 r == 1 ? "other data" : last_error_text ());
}

static void
expect_untouched_store (void)
{
  struct status status = get_status ();

  ck_assert_uint_eq (status.nr_remapped + status.nr_lost + status.nr_zeroed,
                     0);
  ck_assert_uint_eq (status.spares_free, status.spares_total);
}

static void
kill_disk (int err)
{
  dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, 1, true, err);
}

static int
clear (bool is_trim, uint64_t lba, uint64_t nr)
{
  return is_trim ? engine_trim (rig.engine, nr * 512, lba * 512, 0)
    : engine_zero (rig.engine, nr * 512, lba * 512, 0);
}

enum request { READ, WRITE, WRITE_PARTS, ZERO, TRIM, NR_REQUESTS };

static int
request (enum request what, uint64_t lba, uint64_t nr)
{
  static uint8_t buf[NR_SECTORS * 512];

  switch (what) {
  case READ: return fault_rig_read (&rig, lba, nr, 0);
  case WRITE: return fault_rig_write (&rig, lba, nr, 0, 0);
  case WRITE_PARTS:
    dev_fault_pattern (buf, 512, lba, 0);
    return engine_pwrite (rig.engine, buf + 10, 20, lba * 512 + 10, 0);
  case ZERO: return clear (false, lba, nr);
  case TRIM: return clear (true, lba, nr);
  case NR_REQUESTS: break;
  }
  return 0;
}

/* Whatever is asked of a dead disk, with or without places known to be good,
 * whatever the size of the request.
 */
START_TEST (dead_disk_costs_nothing)
{
  enum request what = (enum request) (_i % NR_REQUESTS);
  const uint64_t nr = (_i / NR_REQUESTS) % 2 ? 1 : NR_SECTORS / 2;
  const bool is_known = _i / NR_REQUESTS < 2;

  begin ();
  if (is_known)
    expect_data (0, NR_SECTORS, 0);
  kill_disk (EIO);
  for (unsigned i = 0; i < 3; i++)
    expect_error (request (what, AT - i, nr), EIO);
  expect_untouched_store ();
  expect_breaker (BREAKER_OPEN);
  dev_fault_heal_calls (rig.backing);
  patrol_until_idle ();
  expect_breaker (BREAKER_CLOSED);
  ck_assert_int_eq (request (what, AT, nr), 0);
  expect_untouched_store ();
  end ();
}
END_TEST

/* All of the disk in one request: there is no place beside it. */
START_TEST (dead_disk_and_a_request_for_all_of_it)
{
  begin ();
  kill_disk (EIO);
  expect_error (request ((enum request) _i, 0, NR_SECTORS), EIO);
  expect_untouched_store ();
  expect_breaker (BREAKER_OPEN);
  end ();
}
END_TEST

/* Once it is known to be dead a request costs one touch. */
START_TEST (dead_disk_is_touched_once)
{
  unsigned nr;

  begin ();
  kill_disk (EIO);
  expect_error (request (READ, AT, 100), EIO);
  nr = dev_fault_calls (rig.backing, DEV_FAULT_ALL);
  for (unsigned what = READ; what <= TRIM; what++)
    expect_error (request ((enum request) what, AT, 100), EIO);
  ck_assert_uint_eq (dev_fault_calls (rig.backing, DEV_FAULT_ALL) - nr,
                     NR_REQUESTS);
  end ();
}
END_TEST

/* What the probe got tells more than EIO, if it is no error of the medium. */
START_TEST (disk_is_gone)
{
  begin ();
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD, 0, 0);
  dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, 4, true, ENODEV);
  expect_error (request (READ, AT, 1), ENODEV);
  expect_untouched_store ();
  expect_breaker (BREAKER_OPEN);
  end ();
}
END_TEST

/* Lost sectors may be zeroes if so wished; not so those of a dead disk. */
START_TEST (dead_disk_is_not_zeroes)
{
  uint8_t buf[512];

  begin ();
  patrol_free (patrol);
  fault_rig_kill (&rig);
  rig.options.lost_reads_zero = true;
  open_rig ();
  kill_disk (EIO);
  expect_error (engine_pread (rig.engine, buf, 512, AT * 512), EIO);
  expect_error (engine_pread (rig.engine, buf, 100, AT * 512 + 7), EIO);
  dev_fault_heal_calls (rig.backing);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD, 0, 0);
  patrol_until_idle ();
  ck_assert_int_eq (engine_pread (rig.engine, buf, 512, AT * 512), 0);
  ck_assert (buf[0] == 0 && memcmp (buf, buf + 1, 511) == 0);
  end ();
}
END_TEST

/* The disk dies at the nth call of a request that meets a few bad sectors, and
 * comes back: none but these is remapped or lost then.  (If it dies while a
 * place is written back, which then can neither be read, a spare keeps what
 * stood there.)
 */
static void
expect_others_clean (unsigned nr_bad, unsigned unit, unsigned nr_call)
{
  unsigned nr_saved = 0;

  for (uint64_t lba = 0; lba < NR_SECTORS; lba++) {
    enum sector_state state = fault_rig_state (&rig, lba);

    if (lba - AT < round_up (nr_bad, unit))
      continue;
    nr_saved += state == SECTOR_REMAPPED;
    ck_assert_msg (state == SECTOR_CLEAN ||
                   (state == SECTOR_REMAPPED && nr_saved <= unit),
                   "call %u: sector %d is %s", nr_call, (int) lba,
                   sector_state_to_string (state));
  }
  if (nr_saved > 0)
    expect_data (0, AT - 30, 0);
}

START_TEST (disk_dies_in_a_repair)
{
  enum request what = (enum request) (_i % NR_REQUESTS);
  const unsigned unit = _i < NR_REQUESTS ? 1 : 8;
  const unsigned nr_bad = 3;
  int r = -1;

  for (unsigned n = 1; r == -1 || n < 10; n++) {
    unsigned nr_calls;

    begin_with (unit * 512);
    dev_fault_spoil (rig.backing, AT, nr_bad, what == READ
                     ? DEV_FAULT_BAD_READ : DEV_FAULT_BAD_WRITE, 0, 0);
    if (n % 2)
      expect_data (0, AT / 2, 0);
    dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, n, true, EIO);
    nr_calls = dev_fault_calls (rig.backing, DEV_FAULT_ALL);
    r = request (what, AT - 30, 60);
    if (what == READ && dev_fault_calls (rig.backing, DEV_FAULT_ALL) - nr_calls
        < n)
      r = 0;                    /* it has come to its end before */
    dev_fault_heal_calls (rig.backing);
    patrol_until_idle ();
    expect_breaker (BREAKER_CLOSED);
    expect_others_clean (nr_bad, unit, n);
    end ();
    ck_assert_uint_lt (n, 2000);
  }
}
END_TEST

/* An SSD at its end. */
START_TEST (read_only_disk_costs_nothing)
{
  enum request what = (enum request) (1 + _i % (NR_REQUESTS - 1));
  const bool is_known = _i / (NR_REQUESTS - 1);

  begin ();
  if (is_known)
    expect_data (0, NR_SECTORS, 0);
  dev_fault_fail_calls (rig.backing, DEV_FAULT_CHANGES, 1, true, EIO);
  expect_error (request (what, AT, 300), EIO);
  expect_breaker (BREAKER_READ_ONLY);
  expect_error (request (what, 10, 1), EIO);
  expect_untouched_store ();
  expect_data (0, NR_SECTORS, 0);

  /* What cannot be read is lost all the same, and its spare takes writes. */
  dev_fault_spoil (rig.backing, 5, 1, DEV_FAULT_BAD_READ, 0, 0);
  expect_error (request (READ, 5, 1), EIO);
  ck_assert_uint_eq (get_status ().nr_lost, 1);
  ck_assert_int_eq (request (WRITE, 5, 1), 0);
  expect_data (5, 1, 0);

  dev_fault_heal_calls (rig.backing);
  patrol_until_idle ();
  expect_breaker (BREAKER_CLOSED);
  ck_assert_int_eq (request (what, AT, 300), 0);
  ck_assert_uint_eq (get_status ().nr_remapped, 1);
  end ();
}
END_TEST

/* A write-back that fails and leaves rubbish: what stood there is saved. */
static unsigned nr_torn;

static int
tear_writes (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  uint8_t rubbish[512];

  (void) opaque;
  if (call->kind != DEV_FAULT_PWRITE || is_done)
    return 0;
  memset (rubbish, 0x5a, sizeof rubbish);
  nr_torn++;
  dev_fault_poke (call->disk, rubbish, sizeof rubbish, call->offset);
  return EIO;
}

START_TEST (failed_write_back_loses_nothing)
{
  begin ();
  expect_data (0, NR_SECTORS, 0);
  nr_torn = 0;
  dev_fault_set_hook (rig.backing, tear_writes, NULL);
  fault_rig_write (&rig, AT, 1, 1, 0);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert_uint_gt (nr_torn, 1);
  for (uint64_t lba = 0; lba < NR_SECTORS; lba++)
    if (lba != AT)
      expect_data (lba, 1, 0);
  ck_assert_uint_eq (get_status ().nr_remapped, nr_torn - 1);
  end ();
}
END_TEST

/* A write-back does not undo what a client writes meanwhile. */
static struct {
  pthread_t thread;
  bool has_begun, is_over;
  uint64_t lba;
} meeting;

static void *
write_there (void *opaque)
{
  (void) opaque;
  ck_assert_int_eq (fault_rig_write (&rig, meeting.lba, 1, 7, 0), 0);
  __atomic_store_n (&meeting.is_over, true, __ATOMIC_SEQ_CST);
  return NULL;
}

static int
meet_write_back (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  (void) opaque;
  if (call->kind != DEV_FAULT_PWRITE || is_done ||
      call->offset / 512 == AT || meeting.has_begun)
    return 0;
  /* Between its read and its write. */
  meeting.has_begun = true;
  meeting.lba = call->offset / 512;
  ck_assert_int_eq (pthread_create (&meeting.thread, NULL, write_there, NULL),
                    0);
  usleep (50000);
  ck_assert (!__atomic_load_n (&meeting.is_over, __ATOMIC_SEQ_CST));
  return 0;
}

START_TEST (write_back_meets_a_write)
{
  begin ();
  expect_data (0, NR_SECTORS, 0);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  memset (&meeting, 0, sizeof meeting);
  dev_fault_set_hook (rig.backing, meet_write_back, NULL);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 1, 0), 0);
  ck_assert (meeting.has_begun);
  pthread_join (meeting.thread, NULL);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  expect_data (meeting.lba, 1, 7);
  expect_data (AT, 1, 1);
  ck_assert_uint_eq (get_status ().nr_remapped, 1);
  end ();
}
END_TEST

/* The second look. */

/* Sectors that fail for a while, and are called lost. */
static void
lose (uint64_t lba, uint64_t nr)
{
  dev_fault_spoil (rig.backing, lba, nr, DEV_FAULT_BAD, 0, 0);
  for (uint64_t i = 0; i < nr; i += 20)
    expect_error (request (READ, lba + i, MIN (nr - i, UINT64_C (20))), EIO);
  ck_assert_uint_ge (get_status ().nr_lost, nr);
}

#define BURST (BREAKER_BURST_SECTORS + 36)

START_TEST (burst_is_looked_at_again)
{
  begin_with (_i ? 4096 : 512);
  lose (AT, 400);
  lose (AT + 600, 40);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  dev_fault_spoil (rig.backing, AT + 104, 8, DEV_FAULT_BAD, 0, 0);
  dev_fault_forget_touches (rig.backing);
  patrol_until_idle ();
  ck_assert_uint_eq (get_status ().nr_lost, 8);
  for (uint64_t lba = AT + 104; lba < AT + 112; lba++)
    ck_assert_uint_le (dev_fault_touches (rig.backing, lba), _i ? 8 : 1);
  expect_data (AT, 104, 0);
  expect_data (AT + 112, 600, 0);
  expect_error (request (READ, AT + 104, 1), EIO);

  /* The slots are free again, and all of it lasts. */
  ck_assert_uint_eq (get_status ().spares_total - get_status ().spares_free,
                     8);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 104, 1, DEV_FUA), 0);
  reopen ();
  ck_assert_uint_eq (get_status ().nr_lost, 8);
  expect_data (AT, 104, 1);
  expect_data (AT + 112, 600, 0);
  ck_assert_uint_eq (get_status ().nr_remapped, 0);
  end ();
}
END_TEST

/* As few as that are nothing unusual. */
START_TEST (few_losses_are_left_alone)
{
  begin ();
  lose (AT, 10);
  dev_fault_forget_touches (rig.backing);
  ck_assert_uint_eq (patrol_step (patrol, clock_now_ns ()), UINT64_MAX);
  ck_assert_uint_eq (dev_fault_touches (rig.backing, AT), 0);
  ck_assert_uint_eq (get_status ().nr_lost, 10);
  end ();
}
END_TEST

/* ... unless the disk goes away soon after. */
START_TEST (losses_before_death_are_looked_at_again)
{
  begin ();
  lose (AT, 10);
  kill_disk (EIO);
  expect_error (request (READ, 10, 1), EIO);
  expect_breaker (BREAKER_OPEN);
  ck_assert_uint_eq (get_status ().nr_lost, 10);
  dev_fault_heal_calls (rig.backing);
  dev_fault_mend (rig.backing, AT, 9);
  patrol_until_idle ();
  ck_assert_uint_eq (get_status ().nr_lost, 1);
  expect_data (AT, 9, 0);
  end ();
}
END_TEST

/* The disk dies at the nth read of a second look: the rest is looked at when it
 * is back.
 */
START_TEST (disk_dies_in_a_second_look)
{
  begin ();
  lose (AT, 100);
  lose (AT + 200, 100);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  dev_fault_fail_calls (rig.backing, DEV_FAULT_ALL, 1 + 50 * (unsigned) _i,
                        true, EIO);
  patrol_step (patrol, clock_now_ns () + 2 * BREAKER_QUIET_NS);
  expect_breaker (BREAKER_OPEN);
  ck_assert_uint_gt (get_status ().nr_lost, 0);
  dev_fault_heal_calls (rig.backing);
  patrol_until_idle ();
  expect_untouched_store ();
  expect_data (0, NR_SECTORS, 0);
  end ();
}
END_TEST

/* What was healed, or lost anew, since it was lost is not forgotten. */
START_TEST (what_has_changed_is_not_forgotten)
{
  begin ();
  lose (AT, 100);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 10, 5, 3, 0), 0);
  ck_assert_int_eq (clear (false, AT + 20, 5), 0);
  ck_assert_int_eq (engine_flush (rig.engine), 0);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  patrol_until_idle ();
  expect_data (AT, 10, 0);
  expect_data (AT + 10, 5, 3);
  ck_assert_int_eq (fault_rig_state (&rig, AT + 12), SECTOR_REMAPPED);
  ck_assert_int_eq (fault_rig_state (&rig, AT + 22), SECTOR_ZEROED);
  ck_assert_int_eq (fault_rig_state (&rig, AT + 30), SECTOR_CLEAN);
  reopen ();
  expect_data (AT + 10, 5, 3);
  ck_assert_int_eq (fault_rig_state (&rig, AT + 22), SECTOR_ZEROED);
  end ();
}
END_TEST

/* A sector was lost, healed, and lost for good when its spare, by chance the same
 * one again, failed: what the disk has of it is older.
 */
START_TEST (loss_of_a_spare_is_not_forgotten)
{
  struct sector_run run;
  spare_t slot;

  begin ();
  lose (AT, 100);
  map_next (rig.engine->map, (lba_t) { AT }, 1, &run);
  slot = run.spare;
  for (unsigned version = 1; run.state == SECTOR_LOST ||
         run.spare.n != slot.n; version++) {
    ck_assert_uint_lt (version, 1000);
    ck_assert_int_eq (fault_rig_write (&rig, AT, 1, version, 0), 0);
    ck_assert_int_eq (engine_flush (rig.engine), 0);
    map_next (rig.engine->map, (lba_t) { AT }, 1, &run);
  }
  dev_fault_spoil (rig.store, store_data_at (&rig.engine->store->super, slot)
                   / 512, 1, DEV_FAULT_BAD, 0, 0);
  expect_error (request (READ, AT, 1), EIO);
  ck_assert_int_eq (fault_rig_state (&rig, AT), SECTOR_LOST);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  patrol_until_idle ();
  expect_error (request (READ, AT, 1), EIO);
  expect_data (AT + 1, 99, 0);
  reopen ();
  expect_error (request (READ, AT, 1), EIO);
  end ();
}
END_TEST

/* A client heals a sector while patrol reads it. */
static int
heal_meanwhile (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  (void) opaque;
  if (call->kind == DEV_FAULT_PREAD && is_done && call->offset == AT * 512 &&
      !meeting.has_begun) {
    meeting.has_begun = true;
    ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 9, 0), 0);
  }
  return 0;
}

START_TEST (second_look_meets_healing)
{
  begin ();
  lose (AT, 100);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  memset (&meeting, 0, sizeof meeting);
  dev_fault_set_hook (rig.backing, heal_meanwhile, NULL);
  patrol_until_idle ();
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert (meeting.has_begun);
  expect_data (AT, 1, 9);
  ck_assert_int_eq (fault_rig_state (&rig, AT), SECTOR_REMAPPED);
  expect_data (AT + 1, 99, 0);
  reopen ();
  expect_data (AT, 1, 9);
  end ();
}
END_TEST

/* The store does not make it durable: it stays lost, and nothing is written in
 * place that a restart would hide.
 */
START_TEST (store_fails_when_it_is_to_forget)
{
  begin ();
  lose (AT, 100);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  dev_fault_fail_calls (rig.store, _i ? DEV_FAULT_FLUSH : DEV_FAULT_PWRITE, 1,
                        true, ENODEV);
  patrol_until_idle ();
  dev_fault_heal_calls (rig.store);
  ck_assert_uint_eq (get_status ().nr_lost, 100);
  expect_error (request (READ, AT, 1), EIO);
  reopen ();
  /* Either is right now; and the data is there, or EIO. */
  for (uint64_t lba = AT; lba < AT + 100; lba++)
    if (fault_rig_state (&rig, lba) == SECTOR_CLEAN)
      expect_data (lba, 1, 0);
  end ();
}
END_TEST

/* The thread does all of this by itself, and ends. */
START_TEST (thread_does_all)
{
  begin ();
  ck_assert_int_eq (patrol_start (patrol), 0);
  kill_disk (EIO);
  expect_error (request (READ, AT, 1), EIO);
  dev_fault_heal_calls (rig.backing);
  while (get_status ().breaker != BREAKER_CLOSED)
    usleep (1000);
  lose (AT, 200);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  while (get_status ().nr_lost > 0)
    usleep (1000);
  expect_data (0, NR_SECTORS, 0);
  kill_disk (EIO);
  expect_error (request (READ, AT, 1), EIO);
  patrol_free (patrol);
  dev_fault_heal_calls (rig.backing);
  patrol = NULL;
  end ();
}
END_TEST

/* Forgetting meets others. */

static void *
run_patrol (void *opaque)
{
  (void) opaque;
  patrol_until_idle ();
  return NULL;
}

static int
zero_some (void)
{
  return clear (false, AT + 10, 5);
}

static int
trim_some (void)
{
  return clear (true, AT + 10, 5);
}

static int
write_some (void)
{
  return fault_rig_write (&rig, AT + 10, 5, 4, 0);
}

/* While the record of forgetting is written, a client zeroes, trims, writes: it
 * has seen lost sectors, and finds clean ones.
 */
START_TEST (request_meets_forgetting)
{
  static int (*const requests[]) (void) = { zero_some, trim_some, write_some };
  struct gate gate = {
    .kinds = DEV_FAULT_PWRITE, .end_byte = UINT64_MAX, .nth = 1,
    .nr_to_stop = 1,
  };
  struct gate_client client = { .rig = &rig, .fn = requests[_i] };
  pthread_t thread;

  begin ();
  lose (AT, 100);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  gate.disk = rig.store;
  gate_close (&gate);
  ck_assert_int_eq (pthread_create (&thread, NULL, run_patrol, NULL), 0);
  gate_wait (&gate, 1);
  gate_client_start (&client);
  usleep (100000);
  gate_open (&gate);
  gate_client_join (&client);
  pthread_join (thread, NULL);
  ck_assert_int_eq (client.r, 0);
  ck_assert_uint_eq (get_status ().nr_lost, 0);
  /* The disk is well: it needs no spare. */
  ck_assert_uint_eq (get_status ().nr_remapped + get_status ().nr_zeroed, 0);
  end ();
}
END_TEST

/* An error that is not of the medium: again, later. */
static int
fail_once (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  unsigned *nr = opaque;

  return call->kind == DEV_FAULT_PREAD && !is_done &&
    call->offset == AT * 512 && (*nr)++ == 0 ? ENOMEM : 0;
}

START_TEST (second_look_meets_another_error)
{
  unsigned nr = 0;

  begin ();
  lose (AT, 100);
  dev_fault_mend (rig.backing, 0, NR_SECTORS);
  dev_fault_set_hook (rig.backing, fail_once, &nr);
  patrol_until_idle ();
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert_uint_gt (nr, 1);
  expect_untouched_store ();
  end ();
}
END_TEST

/* Write-backs that do harm. */

struct tear {
  uint64_t lba;                 /* what was torn; UINT64_MAX: nothing */
};

/* The first write-back makes its place unreadable. */
static int
tear_once (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct tear *tear = opaque;

  if (call->kind != DEV_FAULT_PWRITE || is_done || tear->lba != UINT64_MAX ||
      call->offset == AT * 512)
    return 0;
  tear->lba = call->offset / 512;
  dev_fault_spoil (rig.backing, tear->lba, 1, DEV_FAULT_BAD_READ, 0, 0);
  return EIO;
}

/* What stood there was durable long ago, and is so in its spare. */
START_TEST (rescued_place_is_durable)
{
  struct tear tear = { UINT64_MAX };

  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .size_bytes = NR_SECTORS * 512, .is_volatile = true },
                  &(struct dev_fault_options) { .is_volatile = true });
  rig.spare_bytes = NR_SLOTS * 512;
  open_rig ();
  expect_data (0, NR_SECTORS, 0);
  ck_assert_int_eq (engine_flush (rig.engine), 0);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_set_hook (rig.backing, tear_once, &tear);
  fault_rig_write (&rig, AT, 1, 1, 0);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert_uint_ne (tear.lba, UINT64_MAX);
  expect_data (tear.lba, 1, 0);
  patrol_free (patrol);
  fault_rig_kill (&rig);
  dev_fault_cut_power (rig.store, 0);
  dev_fault_cut_power (rig.backing, 0);
  open_rig ();
  expect_data (tear.lba, 1, 0);
  end ();
}
END_TEST

/* 0: it becomes unreadable; 1: it holds rubbish. */
START_TEST (no_write_back_without_spares)
{
  struct tear tear = { UINT64_MAX };
  uint64_t nr_left;

  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .size_bytes = NR_SECTORS * 512 },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = 32 * 512;
  open_rig ();
  expect_data (0, NR_SECTORS, 0);
  nr_left = get_status ().spares_free;
  dev_fault_spoil (rig.backing, 1000, nr_left, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, 1000, nr_left, 0, 0), 0);
  ck_assert_uint_eq (get_status ().spares_free, 0);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_set_hook (rig.backing, _i ? tear_writes : tear_once, &tear);
  expect_error (fault_rig_write (&rig, AT, 1, 1, 0), ENOSPC);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  expect_data (0, AT, 0);
  expect_data (AT + 1, NR_SECTORS - AT - 1, 0);
  end ();
}
END_TEST

/* A disk whose writes all fail and destroy: what is spoilt by asking it is no
 * more than a few places, however long that goes on.
 */
START_TEST (probes_do_little_harm)
{
  begin ();
  expect_data (0, NR_SECTORS, 0);
  nr_torn = 0;
  dev_fault_set_hook (rig.backing, tear_writes, NULL);
  for (unsigned i = 0; i < 5; i++) {
    fault_rig_write (&rig, AT, 1, 1, 0);
    for (unsigned k = 0; k < 20; k++)
      patrol_step (patrol, clock_now_ns () + 2 * BREAKER_PROBE_NS);
    expect_breaker (BREAKER_READ_ONLY);
    expect_data (0, AT, 0);
    expect_data (AT + 1, NR_SECTORS - AT - 1, 0);
  }
  ck_assert_uint_lt (get_status ().nr_remapped, 12);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  patrol_until_idle ();
  expect_breaker (BREAKER_CLOSED);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 1, 0), 0);
  end ();
}
END_TEST

/* The disk goes away, with an error that is not the medium's, in a write-back. */
static int
go_in_write_back (void *opaque, const struct dev_fault_call *call,
                  bool is_done)
{
  bool *is_gone = opaque;

  if (is_done)
    return 0;
  *is_gone |= call->kind == DEV_FAULT_PWRITE && call->offset != AT * 512;
  return *is_gone ? ENODEV : 0;
}

START_TEST (disk_goes_in_a_write_back)
{
  bool is_gone = false;

  begin ();
  expect_data (0, NR_SECTORS, 0);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_set_hook (rig.backing, go_in_write_back, &is_gone);
  expect_error (fault_rig_write (&rig, AT, 1, 1, 0), ENODEV);
  dev_fault_set_hook (rig.backing, NULL, NULL);
  ck_assert (is_gone);
  expect_untouched_store ();
  end ();
}
END_TEST

/* Places to probe. */

static uint64_t
middle_of (unsigned region)
{
  const struct evidence *v = rig.engine->evidence;

  return ((uint64_t) region << v->region_shift) +
    (UINT64_C (1) << v->region_shift) / 2;
}

/* The middles of all regions are mapped, and the disk dies: it is not alive
 * because nothing is left to try.
 */
START_TEST (dead_disk_with_mapped_middles)
{
  uint64_t nr;

  begin ();
  for (unsigned i = 0; middle_of (i) < NR_SECTORS; i++) {
    dev_fault_spoil (rig.backing, middle_of (i), 1, DEV_FAULT_BAD_WRITE, 0, 0);
    ck_assert_int_eq (fault_rig_write (&rig, middle_of (i), 1, 0, 0), 0);
  }
  expect_data (0, NR_SECTORS, 0);
  nr = get_status ().nr_remapped;
  kill_disk (EIO);
  for (unsigned i = 0; i < 20; i++) {
    expect_error (request (READ, AT + 5 * i, 1), EIO);
    patrol_step (patrol, clock_now_ns () + 2 * BREAKER_PROBE_NS);
    expect_breaker (BREAKER_OPEN);
  }
  ck_assert_uint_eq (get_status ().nr_lost, 0);
  ck_assert_uint_eq (get_status ().nr_remapped, nr);
  end ();
}
END_TEST

/* Nothing is known of the disk, and a request is all bad: probes that meet a bad
 * sector elsewhere do not come back to it.
 */
START_TEST (probes_do_not_come_back)
{
  begin ();
  dev_fault_spoil (rig.backing, AT, 200, DEV_FAULT_BAD, 0, 0);
  for (unsigned i = 0; middle_of (i) < NR_SECTORS; i++)
    dev_fault_spoil (rig.backing, middle_of (i), 1, DEV_FAULT_BAD, 0, 0);
  dev_fault_forget_touches (rig.backing);
  expect_error (request (READ, AT, 200), EIO);
  for (unsigned i = 0; middle_of (i) < NR_SECTORS; i++)
    if (middle_of (i) - AT >= 200)
      ck_assert_uint_le (dev_fault_touches (rig.backing, middle_of (i)), 3);
  ck_assert_uint_gt (get_status ().nr_lost, 150);
  end ();
}
END_TEST

/* The same for a client that wants one bad sector, and nothing else. */
START_TEST (bad_middles_are_no_dead_disk)
{
  begin ();
  for (unsigned i = 0; middle_of (i) < NR_SECTORS; i++)
    dev_fault_spoil (rig.backing, middle_of (i), 1, DEV_FAULT_BAD, 0, 0);
  dev_fault_spoil (rig.backing, AT + 3, 1, DEV_FAULT_BAD, 0, 0);
  for (unsigned i = 0; i < 5; i++) {
    expect_error (request (READ, AT + 3, 1), EIO);
    patrol_step (patrol, clock_now_ns () + 2 * BREAKER_PROBE_NS);
  }
  expect_breaker (BREAKER_CLOSED);
  ck_assert_int_eq (fault_rig_state (&rig, AT + 3), SECTOR_LOST);
  end ();
}
END_TEST

/* A store that cannot be reached took no record: the slots come back. */
static int
cut_off (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  (void) opaque;
  (void) call;
  return is_done ? 0 : ESHUTDOWN;
}

START_TEST (unreachable_store_costs_no_slots)
{
  begin ();
  rig.engine->store->dev->keeps_unflushed = true;
  dev_fault_spoil (rig.backing, AT, 20, DEV_FAULT_BAD, 0, 0);
  expect_error (request (READ, AT, 1), EIO);
  dev_fault_set_hook (rig.store, cut_off, NULL);
  for (unsigned i = 1; i < 11; i++)
    expect_error (request (READ, AT + i, 1), EIO);
  for (unsigned i = 0; i < 10; i++)
    ck_assert_int_eq (clear (false, AT + 1, 1), -1);
  dev_fault_set_hook (rig.store, NULL, NULL);
  ck_assert_uint_eq (get_status ().spares_total - get_status ().spares_free,
                     1);
  end ();
}
END_TEST

/* One that goes away in the middle of a record may have it: the sector is not
 * written in place any more, and nobody else gets its slot.
 */
START_TEST (store_goes_away_halfway)
{
  begin ();
  rig.engine->store->dev->keeps_unflushed = true;
  dev_fault_spoil (rig.backing, AT, 2, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_fail_calls (rig.store, DEV_FAULT_PWRITE, 2 + (unsigned) _i, true,
                        ESHUTDOWN);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 5, 0), -1);
  ck_assert_int_eq (errno, ESHUTDOWN);
  dev_fault_heal_calls (rig.store);
  ck_assert_int_eq (fault_rig_state (&rig, AT), SECTOR_LOST);
  dev_fault_mend (rig.backing, AT, 1);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 6, 0), -1);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 1, 1, 6, 0), -1);
  ck_assert_int_eq (errno, EIO);
  patrol_free (patrol);
  fault_rig_kill (&rig);
  open_rig ();
  ck_assert_int_eq (fault_rig_read (&rig, AT, 1, _i == 0 ? 0 : 5), 0);
  end ();
}
END_TEST

/* on-lost=zero: a physical sector whose spares are no neighbours. */
START_TEST (zeroes_over_scattered_spares)
{
  static uint8_t buf[4096];

  begin_with (4096);
  patrol_free (patrol);
  fault_rig_kill (&rig);
  rig.options.lost_reads_zero = true;
  open_rig ();
  dev_fault_spoil (rig.backing, AT, 8, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 8, 0, 0), 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 2, 1, 0, 0), 0);
  ck_assert_int_eq (engine_flush (rig.engine), 0);
  dev_fault_spoil (rig.backing, 80, 8, DEV_FAULT_BAD, 0, 0);
  ck_assert_int_eq (engine_pread (rig.engine, buf, 4096, 80 * 512), 0);
  end ();
}
END_TEST

static TCase *
add_case (Suite *suite, const char *name)
{
  TCase *tc = tcase_create (name);

  tcase_set_timeout (tc, 60);
  suite_add_tcase (suite, tc);
  return tc;
}

int
main (void)
{
  Suite *suite = suite_create ("patrol");
  TCase *tc = add_case (suite, "dead");
  SRunner *runner;
  int nr_failed;

  tcase_add_loop_test (tc, dead_disk_costs_nothing, 0, 4 * NR_REQUESTS);
  tcase_add_loop_test (tc, dead_disk_and_a_request_for_all_of_it, 0,
                       NR_REQUESTS);
  tcase_add_test (tc, dead_disk_is_touched_once);
  tcase_add_test (tc, disk_is_gone);
  tcase_add_test (tc, dead_disk_is_not_zeroes);
  tcase_add_loop_test (tc, disk_dies_in_a_repair, 0, 2 * NR_REQUESTS);

  tc = add_case (suite, "read-only");
  tcase_add_loop_test (tc, read_only_disk_costs_nothing, 0,
                       2 * (NR_REQUESTS - 1));
  tcase_add_test (tc, failed_write_back_loses_nothing);
  tcase_add_test (tc, write_back_meets_a_write);

  tc = add_case (suite, "second look");
  tcase_add_loop_test (tc, burst_is_looked_at_again, 0, 2);
  tcase_add_test (tc, few_losses_are_left_alone);
  tcase_add_test (tc, losses_before_death_are_looked_at_again);
  tcase_add_loop_test (tc, disk_dies_in_a_second_look, 0, 4);
  tcase_add_test (tc, what_has_changed_is_not_forgotten);
  tcase_add_test (tc, loss_of_a_spare_is_not_forgotten);
  tcase_add_test (tc, second_look_meets_healing);
  tcase_add_loop_test (tc, store_fails_when_it_is_to_forget, 0, 2);
  tcase_add_loop_test (tc, request_meets_forgetting, 0, 3);
  tcase_add_test (tc, second_look_meets_another_error);
  tcase_add_test (tc, thread_does_all);

  tc = add_case (suite, "harm");
  tcase_add_test (tc, rescued_place_is_durable);
  tcase_add_loop_test (tc, no_write_back_without_spares, 0, 2);
  tcase_add_test (tc, probes_do_little_harm);
  tcase_add_test (tc, disk_goes_in_a_write_back);

  tc = add_case (suite, "places");
  tcase_add_test (tc, dead_disk_with_mapped_middles);
  tcase_add_test (tc, probes_do_not_come_back);
  tcase_add_test (tc, bad_middles_are_no_dead_disk);

  tc = add_case (suite, "others");
  tcase_add_test (tc, unreachable_store_costs_no_slots);
  tcase_add_loop_test (tc, store_goes_away_halfway, 0, 2);
  tcase_add_test (tc, zeroes_over_scattered_spares);

  runner = srunner_create (suite);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
