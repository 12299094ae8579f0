/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads with a deadline: in time, late and kept, late and overtaken, in each
 * other's way, many at once, and at the end.  The source of the module is
 * included, so that threads and memory can be denied to it.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "thread.h"

static bool denies_threads, denies_memory;

static int
deniable_start (pthread_t *ret, void *(*fn) (void *), void *opaque)
{
  return denies_threads ? EAGAIN : thread_start (ret, fn, opaque);
}

static void *
deniable_alloc (size_t alignment, size_t size)
{
  return denies_memory ? NULL : aligned_alloc (alignment, size);
}

#define thread_start deniable_start
#define aligned_alloc deniable_alloc
#include "../lib/late-reads.c"
#undef thread_start
#undef aligned_alloc

#include "dev-fault.h"
#include "engine-internal.h"
#include "gate.h"

#define NR_SECTORS 400
#define AT 80                   /* the sector that a test is about */
#define NR 6                    /* and as many that are read with it */
#define NR_SLOTS 200

/* So long that nothing is late; so short that nobody minds to wait. */
#define FAR_MS 100000
#define NEAR_MS 30

static struct fault_rig rig;
static struct gate gate;

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
}

static void
begin_with (uint64_t size_bytes, unsigned nr_slots, uint64_t deadline_ms)
{
  fault_rig_init (&rig, &(struct dev_fault_options) {
                          .size_bytes = size_bytes },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = (uint64_t) nr_slots * 512;
  rig.options.deadline_ms = deadline_ms;
  open_rig ();
}

static void
begin_rig (void)
{
  begin_with (NR_SECTORS * 512, NR_SLOTS, FAR_MS);
}

static void
end (void)
{
  engine_stop (rig.engine);
  engine_verify (rig.engine);
  fault_rig_free (&rig);
}

static void
reopen (void)
{
  fault_rig_kill (&rig);
  open_rig ();
}

static void
expect_data (uint64_t lba, uint64_t nr, unsigned version)
{
  int r = fault_rig_read (&rig, lba, nr, version);

  ck_assert_msg (r == 0, "sectors %d and following: %s", (int) lba,
                 r == 1 ? "other data" : last_error_text ());
}

static void
expect_states (uint64_t lba, uint64_t nr, enum sector_state state)
{
  for (uint64_t i = lba; i < lba + nr; i++) {
    enum sector_state is = fault_rig_state (&rig, i);

    ck_assert_msg (is == state, "sector %d is %s, not %s", (int) i,
                   sector_state_to_string (is),
                   sector_state_to_string (state));
  }
}

static void
expect_late (int r)
{
  ck_assert_int_eq (r, -1);
  ck_assert_int_eq (errno, EIO);
  ck_assert_msg (strstr (last_error_text (), "no answer"), "%s",
                 last_error_text ());
}

/* The deadline of reads that begin from now on. */
static void
set_deadline (uint64_t deadline_ms)
{
  rig.engine->late_reads->deadline_ms = deadline_ms;
}

/* A read that the gate stops, or that must wait for one.  (Reads that shall be
 * in time have a deadline that a slow machine keeps, too.)
 */
static void
make_late (uint64_t lba, uint64_t nr)
{
  set_deadline (NEAR_MS);
  expect_late (fault_rig_read (&rig, lba, nr, 0));
  set_deadline (FAR_MS);
}

static void
expect_error (int r, int err)
{
  ck_assert_int_eq (r, -1);
  ck_assert_int_eq (errno, err);
  ck_assert_ptr_null (strstr (last_error_text (), "no answer"));
}

/* The gate stops the first nr reads of AT and its neighbours. */
static void
close_gate (bool is_done, unsigned nr)
{
  gate = (struct gate) {
    .disk = rig.backing, .kinds = DEV_FAULT_PREAD, .is_done = is_done,
    .first_byte = AT * 512, .end_byte = (AT + NR) * 512,
    .nth = 1, .nr_to_stop = nr,
  };
  gate_close (&gate);
}

/* Wait until no read is late. */
static void
wait_for_late (void)
{
  struct late_reads *l = rig.engine->late_reads;

  LOCK_FOR_SCOPE (&l->mutex);
  while (l->nr_late > 0)
    lock_wait (&l->mutex, &l->changed);
}

static void
open_gate (void)
{
  gate_open (&gate);
  wait_for_late ();
}

/* What the log says. */

static pthread_mutex_t said_mutex = PTHREAD_MUTEX_INITIALIZER;
static char said[20000];

static void
keep_log (int level, const char *message)
{
  pthread_mutex_lock (&said_mutex);
  strncat (said, message, sizeof said - strlen (said) - 1);
  pthread_mutex_unlock (&said_mutex);
}

static bool
has_said (const char *text)
{
  bool r;

  pthread_mutex_lock (&said_mutex);
  r = strstr (said, text) != NULL;
  pthread_mutex_unlock (&said_mutex);
  return r;
}

/* Which thread reads the disk. */

static pthread_t reader;
static char reader_name[16];

static int
note_reader (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  reader = pthread_self ();
  pthread_getname_np (reader, reader_name, sizeof reader_name);
  return 0;
}

START_TEST (without_a_deadline)
{
  begin_with (NR_SECTORS * 512, NR_SLOTS, 0);
  ck_assert_ptr_null (rig.engine->late_reads);
  dev_fault_set_hook (rig.backing, note_reader, NULL);
  expect_data (AT, NR, 0);
  ck_assert (pthread_equal (reader, pthread_self ()));
  fault_rig_free (&rig);
}
END_TEST

START_TEST (in_time)
{
  static const uint64_t sizes[] = { 1, 100, 512, 513, 3000, 512 * 300 };
  uint64_t size_bytes = 512 * 300 + 77;
  uint8_t *all = malloc (size_bytes), *is = malloc (size_bytes);

  begin_with (size_bytes, NR_SLOTS, FAR_MS);
  dev_fault_set_hook (rig.backing, note_reader, NULL);
  dev_fault_peek (rig.backing, all, size_bytes, 0);
  for (unsigned i = 0; i < 6; i++)
    for (uint64_t k = 0; k < 40; k++) {
      uint64_t offset = k < 20 ? k * 51
        : size_bytes - sizes[i] - MIN ((k - 20) * 51, size_bytes - sizes[i]);
      uint64_t count = MIN (sizes[i], size_bytes - offset);

      memset (is, 0xee, size_bytes);
      ck_assert_int_eq (engine_pread (rig.engine, is + 8, count, offset), 0);
      ck_assert (memcmp (is + 8, all + offset, count) == 0);
      ck_assert (is[7] == 0xee && is[8 + count] == 0xee);
    }
  ck_assert_str_eq (reader_name, "remap-read");
  ck_assert (!pthread_equal (reader, pthread_self ()));
  /* Few serve all, though one may be made before another is idle again. */
  ck_assert_uint_le (rig.engine->late_reads->nr_threads, 8);
  free (all);
  free (is);
  end ();
}
END_TEST

/* Errors come to the client as they are; bad sectors are met as ever. */
START_TEST (errors_in_time)
{
  begin_rig ();
  dev_fault_fail_calls (rig.backing, DEV_FAULT_PREAD, 1, true, ENODEV);
  expect_error (fault_rig_read (&rig, AT, NR, 0), ENODEV);
  ck_assert_msg (strstr (last_error_text (), "fault: call"), "%s",
                 last_error_text ());
  dev_fault_heal_calls (rig.backing);
  dev_fault_spoil (rig.backing, AT, 1, DEV_FAULT_BAD, 0, 0);
  expect_error (fault_rig_read (&rig, AT - 2, NR, 0), EIO);
  expect_states (AT, 1, SECTOR_LOST);
  expect_data (AT - 2, 2, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT, 1, 1, 0), 0);
  expect_data (AT, 1, 1);
  end ();
}
END_TEST

START_TEST (late_and_kept)
{
  begin_rig ();
  log_set_callback (keep_log);
  close_gate (_i, 1);
  make_late (AT, NR);
  ck_assert (has_said ("sectors 80 to 85 of fault: no answer for 0.03 s"));
  expect_states (AT, NR, SECTOR_CLEAN);

  /* Meanwhile all else goes on. */
  dev_fault_spoil (rig.backing, AT + NR, 2, DEV_FAULT_BAD, 0, 0);
  expect_data (AT - 8, 8, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT - 2, 2, 1, 0), 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT + NR, 1, 1, 0), 0);
  expect_error (fault_rig_read (&rig, AT + NR + 1, 1, 0), EIO);
  ck_assert_int_eq (engine_flush (rig.engine), 0);
  expect_states (AT + NR, 1, SECTOR_REMAPPED);
  expect_states (AT + NR + 1, 1, SECTOR_LOST);

  open_gate ();
  ck_assert (has_said ("6 of them are kept"));
  expect_states (AT, NR, SECTOR_REMAPPED);
  expect_states (AT - 2, 2, SECTOR_CLEAN);
  for (unsigned i = 0; i < 2; i++) {
    dev_fault_forget_touches (rig.backing);
    expect_data (AT, NR, 0);
    expect_data (AT + 2, 1, 0);
    expect_data (AT - 2, 2, 1);
    for (uint64_t lba = AT; lba < AT + NR; lba++)
      ck_assert_uint_eq (dev_fault_touches (rig.backing, lba), 0);
    reopen ();
  }
  log_set_callback (NULL);
  end ();
}
END_TEST

/* The end of the disk, within a sector; a part of a sector is asked for. */
START_TEST (late_at_the_end)
{
  uint64_t size_bytes = (AT + 2) * 512 + 77;
  uint8_t buf[100], all[577];

  begin_with (size_bytes, NR_SLOTS, FAR_MS);
  close_gate (false, 1);
  set_deadline (NEAR_MS);
  expect_late (engine_pread (rig.engine, buf, 77, size_bytes - 80));
  set_deadline (FAR_MS);
  open_gate ();
  expect_states (AT + 1, 2, SECTOR_REMAPPED);
  reopen ();
  dev_fault_forget_touches (rig.backing);
  expect_data (AT + 1, 2, 0);
  ck_assert_uint_eq (dev_fault_touches (rig.backing, AT + 2), 0);
  dev_fault_peek (rig.backing, all, 577, (AT + 1) * 512 + 12);
  ck_assert_int_eq (engine_pread (rig.engine, buf, 77, size_bytes - 80), 0);
  ck_assert (memcmp (buf, all + 577 - 80, 77) == 0);
  end ();
}
END_TEST

/* What overtakes a read. */

enum change { WRITE, PART, ZERO, TRIM, ZERO_BY_WRITING, NR_CHANGES };

static uint8_t part[20] = "a part of a sector";

/* Of sectors AT + 2 and AT + 3. */
static int
change (enum change what)
{
  switch (what) {
  case WRITE:
    return fault_rig_write (&rig, AT + 2, 2, 1, 0);
  case PART:
    return engine_pwrite (rig.engine, part, sizeof part,
                          (AT + 3) * 512 - 10, 0);
  case TRIM:
    return engine_trim (rig.engine, 1024, (AT + 2) * 512, 0);
  default:
    return engine_zero (rig.engine, 1024, (AT + 2) * 512, 0);
  }
}

static void
expect_changed (enum change what)
{
  uint8_t wanted[1024] = { 0 }, is[1024];

  for (unsigned i = 0; i < 2; i++)
    if (what == WRITE || what == PART)
      dev_fault_pattern (wanted + i * 512, 512, AT + 2 + i, what == WRITE);
  if (what == PART)
    memcpy (wanted + 502, part, sizeof part);
  ck_assert_int_eq (engine_pread (rig.engine, is, 1024, (AT + 2) * 512), 0);
  ck_assert_msg (memcmp (is, wanted, 1024) == 0, "change %d is undone", what);
}

static void
begin_change (enum change what)
{
  fault_rig_init (&rig, &(struct dev_fault_options) {
                          .size_bytes = NR_SECTORS * 512,
                          .cannot_zero = what == ZERO_BY_WRITING },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = NR_SLOTS * 512;
  rig.options.deadline_ms = FAR_MS;
  open_rig ();
}

/* A read that has its data already, or not, is overtaken: before it is late
 * (0, 1) or after that (2, 3).
 */
START_TEST (overtaken)
{
  enum change what = (enum change) (_i / 4);
  bool is_done = _i % 2;

  begin_change (what);
  close_gate (is_done, 1);
  if (_i % 4 < 2) {
    struct gate_client client = { .rig = &rig, .lba = AT, .nr = NR };

    /* Hardly late before the change is made. */
    set_deadline (500);
    gate_client_start (&client);
    gate_wait (&gate, 1);
    ck_assert_int_eq (change (what), 0);
    gate_client_join (&client);
    set_deadline (FAR_MS);
    ck_assert_int_eq (client.err, EIO);
  }
  else {
    make_late (AT, NR);
    ck_assert_int_eq (change (what), 0);
  }
  expect_changed (what);        /* without waiting */
  open_gate ();
  expect_states (AT, 2, SECTOR_REMAPPED);
  expect_states (AT + 2, 2, SECTOR_CLEAN);
  expect_states (AT + 4, NR - 4, SECTOR_REMAPPED);
  for (unsigned i = 0; i < 2; i++) {
    expect_changed (what);
    expect_data (AT, 2, 0);
    expect_data (AT + 4, NR - 4, 0);
    reopen ();
  }
  end ();
}
END_TEST

static enum change the_change;

static int
make_the_change (void)
{
  return change (the_change);
}

/* The change is under way already when the read begins. */
START_TEST (overtaken_by_an_earlier_one)
{
  struct gate write_gate;
  struct gate_client writer = { .fn = make_the_change };

  the_change = (enum change) _i;
  begin_change (the_change);
  write_gate = (struct gate) {
    .disk = rig.backing, .kinds = DEV_FAULT_CHANGES,
    .first_byte = AT * 512, .end_byte = (AT + NR) * 512,
    .nth = 1, .nr_to_stop = 1,
  };
  gate_close (&write_gate);
  gate_client_start (&writer);
  gate_wait (&write_gate, 1);
  close_gate (true, 1);         /* the other one stays closed */
  make_late (AT, NR);
  pthread_mutex_lock (&write_gate.mutex);
  write_gate.is_open = true;
  pthread_cond_broadcast (&write_gate.changed);
  pthread_mutex_unlock (&write_gate.mutex);
  gate_client_join (&writer);
  ck_assert_int_eq (writer.r, 0);
  expect_changed (the_change);
  open_gate ();
  expect_changed (the_change);
  expect_states (AT + 2, 2, SECTOR_CLEAN);
  reopen ();
  expect_changed (the_change);
  end ();
}
END_TEST

/* A write that met a bad sector put it into a spare. */
START_TEST (overtaken_by_a_remap)
{
  begin_rig ();
  close_gate (true, 1);
  make_late (AT, NR);
  dev_fault_spoil (rig.backing, AT + 2, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 1, 3, 1, 0), 0);
  open_gate ();
  expect_states (AT, 1, SECTOR_REMAPPED);
  expect_states (AT + 1, 1, SECTOR_CLEAN);
  expect_states (AT + 2, 1, SECTOR_REMAPPED);
  for (unsigned i = 0; i < 2; i++) {
    expect_data (AT, 1, 0);
    expect_data (AT + 1, 3, 1);
    expect_data (AT + 4, NR - 4, 0);
    reopen ();
  }
  end ();
}
END_TEST

/* A write of these sectors and more failed and has left the range when the read
 * begins, and is taken apart after that.
 */
static int late_result;

static void
read_between (void *opaque, const struct event *event)
{
  if (event->kind != EVENT_WRITE_ERROR || late_result != 0)
    return;
  close_gate (true, 1);
  set_deadline (NEAR_MS);
  late_result = fault_rig_read (&rig, AT, NR, 0);
  set_deadline (FAR_MS);
}

START_TEST (overtaken_by_a_repair)
{
  begin_rig ();
  rig.options.event = read_between;
  fault_rig_kill (&rig);
  open_rig ();
  dev_fault_spoil (rig.backing, AT - 1, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT - 20, 20 + NR - 1, 1, 0), 0);
  ck_assert_int_eq (late_result, -1);
  open_gate ();
  for (unsigned i = 0; i < 2; i++) {
    expect_states (AT, NR - 1, SECTOR_CLEAN);
    expect_states (AT + NR - 1, 1, SECTOR_REMAPPED);
    expect_data (AT - 20, 20 + NR - 1, 1);
    expect_data (AT + NR - 1, 1, 0);
    reopen ();
  }
  end ();
}
END_TEST

/* A write is stuck in the sectors of a late read: that does not wait for it. */
START_TEST (write_is_stuck_too)
{
  struct gate_client writer = {
    .rig = &rig, .lba = AT + 2, .nr = 1, .version = 1, .writes = true,
  };
  struct gate write_gate;

  begin_rig ();
  close_gate (true, 1);
  make_late (AT, NR);
  write_gate = (struct gate) {
    .disk = rig.backing, .kinds = DEV_FAULT_PWRITE,
    .first_byte = AT * 512, .end_byte = (AT + NR) * 512,
    .nth = 1, .nr_to_stop = 1,
  };
  gate_close (&write_gate);
  gate_client_start (&writer);
  gate_wait (&write_gate, 1);
  pthread_mutex_lock (&gate.mutex);
  gate.is_open = true;
  pthread_cond_broadcast (&gate.changed);
  pthread_mutex_unlock (&gate.mutex);
  wait_for_late ();
  expect_states (AT, 2, SECTOR_REMAPPED);
  expect_states (AT + 2, 1, SECTOR_CLEAN);
  expect_states (AT + 3, NR - 3, SECTOR_REMAPPED);
  gate_open (&write_gate);
  gate_client_join (&writer);
  ck_assert_int_eq (writer.r, 0);
  expect_data (AT + 2, 1, 1);
  end ();
}
END_TEST

/* Reads of what a read is late for. */

START_TEST (overlapping_reads_wait)
{
  struct gate_client clients[4];

  begin_rig ();
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 1, 1, 1, 0), 0);
  close_gate (false, 1);
  make_late (AT - 2, NR);
  dev_fault_forget_touches (rig.backing);
  set_deadline (NEAR_MS);
  for (unsigned i = 0; i < 4; i++) {
    clients[i] = (struct gate_client) {
      .rig = &rig, .lba = AT - 3 + i, .nr = 2,
    };
    gate_client_start (&clients[i]);
  }
  for (unsigned i = 0; i < 4; i++) {
    gate_client_join (&clients[i]);
    ck_assert_int_eq (clients[i].err, EIO);
  }
  set_deadline (FAR_MS);
  for (uint64_t lba = AT - 3; lba < AT + NR; lba++)
    ck_assert_uint_eq (dev_fault_touches (rig.backing, lba), 0);
  expect_data (AT + 1, 1, 1);   /* it has a spare: nobody waits */
  expect_data (AT - 3, 1, 0);   /* nor beside it */
  ck_assert_uint_eq (late_reads_count (rig.engine->late_reads), 1);
  open_gate ();
  expect_data (AT - 3, 4, 0);
  expect_data (AT + 1, 1, 1);
  end ();
}
END_TEST

/* Who waits has the data as soon as it comes, and the disk is not asked. */
START_TEST (overlapping_read_gets_its_data)
{
  struct gate_client client = { .rig = &rig, .lba = AT + 1, .nr = 2 };

  begin_rig ();
  close_gate (false, 1);
  make_late (AT, NR);
  dev_fault_forget_touches (rig.backing);
  gate_client_start (&client);
  gate_open (&gate);
  gate_client_join (&client);
  ck_assert_int_eq (client.r, 0);
  ck_assert_uint_eq (dev_fault_touches (rig.backing, AT + 1), 0);
  end ();
}
END_TEST

/* No data comes. */

START_TEST (late_error)
{
  begin_rig ();
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD, 0, 0);
  close_gate (_i, 1);
  make_late (AT, NR);
  open_gate ();
  expect_states (AT, 1, SECTOR_CLEAN);
  expect_states (AT + 1, 1, SECTOR_LOST);
  expect_states (AT + 2, NR - 2, SECTOR_CLEAN);
  for (unsigned i = 0; i < 2; i++) {
    dev_fault_forget_touches (rig.backing);
    expect_error (fault_rig_read (&rig, AT + 1, 1, 0), EIO);
    ck_assert_uint_eq (dev_fault_touches (rig.backing, AT + 1), 0);
    expect_data (AT + 2, NR - 2, 0);
    reopen ();
  }
  end ();
}
END_TEST

/* Stuck in each of the attempts that take a request apart. */
START_TEST (late_in_a_repair)
{
  begin_rig ();
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD, 0, 0);
  close_gate (false, 1);
  gate.nth = 1 + (unsigned) _i;
  gate.first_byte = (AT + 1) * 512;
  gate.end_byte = (AT + 2) * 512;
  make_late (AT - 20, 40);
  ck_assert_int_eq (fault_rig_write (&rig, AT + 2, 1, 1, 0), 0);
  expect_data (AT + 2, 1, 1);
  open_gate ();
  expect_states (AT + 1, 1, SECTOR_LOST);
  expect_data (AT + 2, 1, 1);
  expect_data (AT - 20, 21, 0);
  end ();
}
END_TEST

/* It went away, and came back: the sectors are as good as before. */
START_TEST (late_other_error)
{
  begin_rig ();
  close_gate (false, 1);
  make_late (AT, NR);
  dev_fault_mend (rig.backing, AT, NR);
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD_READ, 0, ENODEV);
  open_gate ();
  expect_states (AT, NR, SECTOR_CLEAN);
  dev_fault_mend (rig.backing, AT, NR);
  expect_data (AT, NR, 0);
  end ();
}
END_TEST

/* Data that is not kept. */

START_TEST (too_few_spares)
{
  begin_with (NR_SECTORS * 512, 40, FAR_MS);
  log_set_callback (keep_log);
  close_gate (false, 1);
  make_late (AT, 31);
  open_gate ();
  ck_assert (has_said ("not all kept"));
  expect_states (AT, 31, SECTOR_CLEAN);
  expect_data (AT, 31, 0);
  close_gate (false, 1);
  make_late (AT, 30);
  open_gate ();
  expect_states (AT, 30, SECTOR_REMAPPED);
  log_set_callback (NULL);
  end ();
}
END_TEST

/* Without a store that takes records the sectors stay as good as they are. */
START_TEST (store_has_failed)
{
  begin_rig ();
  close_gate (false, 1);
  make_late (AT, NR);
  dev_fault_spoil (rig.backing, 7, 1, DEV_FAULT_BAD_WRITE, 0, 0);
  dev_fault_fail_calls (rig.store, DEV_FAULT_PWRITE, 2, true, ENODEV);
  ck_assert_int_eq (fault_rig_write (&rig, 7, 1, 1, 0), -1);
  dev_fault_heal_calls (rig.store);
  open_gate ();
  expect_states (AT, NR, SECTOR_CLEAN);
  expect_data (AT, NR, 0);
  fault_rig_free (&rig);
}
END_TEST

/* Zeroes that were given out for a sector that is lost are no data. */
START_TEST (made_up_zeroes)
{
  fault_rig_init (&rig, &(struct dev_fault_options) {
                          .size_bytes = NR_SECTORS * 512 },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = NR_SLOTS * 512;
  rig.options.deadline_ms = FAR_MS;
  rig.options.lost_reads_zero = true;
  open_rig ();
  dev_fault_spoil (rig.backing, AT + 1, 1, DEV_FAULT_BAD, 0, 0);
  if (_i == 0)
    ck_assert_int_eq (fault_rig_read (&rig, AT + 1, 1, 0), 1);
  close_gate (false, 1);
  make_late (AT, NR);
  open_gate ();
  expect_states (AT, 1, SECTOR_CLEAN);
  expect_states (AT + 1, 1, SECTOR_LOST);
  expect_states (AT + 2, NR - 2, SECTOR_CLEAN);
  close_gate (false, 1);
  make_late (AT + 2, NR - 2);
  open_gate ();
  expect_states (AT + 2, NR - 2, SECTOR_REMAPPED);
  end ();
}
END_TEST

/* Limits. */

START_TEST (no_more_than_64)
{
  begin_rig ();
  gate = (struct gate) {
    .disk = rig.backing, .kinds = DEV_FAULT_PREAD,
    .first_byte = 0, .end_byte = LATE_READS_MAX * 512,
    .nth = 1, .nr_to_stop = LATE_READS_MAX,
  };
  gate_close (&gate);
  for (uint64_t i = 0; i < LATE_READS_MAX; i++)
    make_late (i, 1);
  ck_assert_uint_eq (rig.engine->late_reads->nr_threads, LATE_READS_MAX);
  dev_fault_forget_touches (rig.backing);
  make_late (300, 1);
  ck_assert_uint_eq (dev_fault_touches (rig.backing, 300), 0);
  open_gate ();
  expect_data (300, 1, 0);
  expect_states (0, LATE_READS_MAX, SECTOR_REMAPPED);
  expect_data (0, LATE_READS_MAX, 0);
  end ();
}
END_TEST

/* As many threads as there are reads at a time, and few of them stay. */
START_TEST (threads_come_and_go)
{
  enum { MANY = 3 * IDLE_MAX };
  struct gate_client clients[MANY];
  struct late_reads *l;

  begin_rig ();
  l = rig.engine->late_reads;
  for (unsigned round = 0; round < 3; round++) {
    close_gate (false, MANY);
    for (unsigned i = 0; i < MANY; i++) {
      clients[i] = (struct gate_client) { .rig = &rig, .lba = AT, .nr = 1 };
      gate_client_start (&clients[i]);
    }
    gate_wait (&gate, MANY);
    gate_open (&gate);
    for (unsigned i = 0; i < MANY; i++) {
      gate_client_join (&clients[i]);
      ck_assert_int_eq (clients[i].r, 0);
    }
    LOCK_FOR_SCOPE (&l->mutex);
    while (l->nr_threads > IDLE_MAX)
      lock_wait (&l->mutex, &l->changed);
  }
  end ();
}
END_TEST

START_TEST (nothing_to_be_had)
{
  begin_rig ();
  denies_threads = _i == 0;
  denies_memory = _i == 1;
  dev_fault_set_hook (rig.backing, note_reader, NULL);
  expect_data (AT, NR, 0);
  ck_assert (pthread_equal (reader, pthread_self ()));
  denies_threads = denies_memory = false;
  expect_data (AT, NR, 0);
  ck_assert (!pthread_equal (reader, pthread_self ()));
  end ();
}
END_TEST

/* The end. */

static int
close_rig (void)
{
  fault_rig_close (&rig);
  return 0;
}

START_TEST (closed_while_stuck)
{
  struct gate_client closer = { .fn = close_rig };

  begin_rig ();
  log_set_callback (keep_log);
  close_gate (true, 1);
  make_late (AT, NR);
  gate_client_start (&closer);
  while (!has_said ("waiting for 1 reads"))
    usleep (1000);
  gate_open (&gate);
  gate_client_join (&closer);
  log_set_callback (NULL);
  open_rig ();
  expect_states (AT, NR, SECTOR_REMAPPED);
  expect_data (AT, NR, 0);
  end ();
}
END_TEST

/* Many threads: each writer has its sectors, and reads what it wrote; the
 * others read all over, and the disk is slow now and then, with its data in
 * hand or not.  What comes late must never be older than a write.
 */

#define NR_WRITERS 4
#define NR_READERS 4
#define STORM_SECTORS 64
#define NR_ROUNDS 300

struct storm {
  pthread_t thread;
  unsigned number;
  const char *wrong;
};

static _Atomic bool storm_ends;

static int
dawdle (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  static _Atomic uint64_t nr_calls;
  uint64_t seed = atomic_fetch_add (&nr_calls, 1) * 77 + is_done;
  uint64_t n = dev_fault_random (&seed);

  if (n % 8 == 0)
    usleep ((useconds_t) (n >> 8) % 20000);
  return 0;
}

static int
read_patiently (uint64_t lba, uint64_t version)
{
  int r;

  do
    r = fault_rig_read (&rig, lba, 1, version);
  while (r == -1 && strstr (last_error_text (), "no answer"));
  return r;
}

/* Which read the disk first. */
static int
write_in_parts (uint64_t lba, uint64_t version)
{
  uint8_t buf[512];

  dev_fault_pattern (buf, sizeof buf, lba, version);
  if (engine_pwrite (rig.engine, buf, 300, lba * 512, 0) == -1)
    return -1;
  return engine_pwrite (rig.engine, buf + 300, 212, lba * 512 + 300, 0);
}

static void *
write_and_read (void *opaque)
{
  struct storm *s = opaque;
  uint64_t seed = s->number;

  for (uint64_t version = 1; version <= NR_ROUNDS && !s->wrong; version++) {
    uint64_t lba = dev_fault_random (&seed) % (STORM_SECTORS / NR_WRITERS)
      * NR_WRITERS + s->number;

    if (version % 2 && write_in_parts (lba, version) == -1)
      s->wrong = "write of a part failed";
    else if (version % 2 == 0 &&
             fault_rig_write (&rig, lba, 1, version, 0) == -1)
      s->wrong = "write failed";
    else if (read_patiently (lba, version) != 0)
      s->wrong = "a write was undone";
  }
  return NULL;
}

static void *
read_all_over (void *opaque)
{
  struct storm *s = opaque;
  uint64_t seed = s->number + 1000;
  uint8_t buf[8 * 512];

  while (!atomic_load (&storm_ends)) {
    uint64_t lba = dev_fault_random (&seed) % (STORM_SECTORS - 8);

    if (engine_pread (rig.engine, buf, sizeof buf, lba * 512) == -1 &&
        strstr (last_error_text (), "no answer") == NULL)
      s->wrong = "read failed";
  }
  return NULL;
}

START_TEST (storm)
{
  struct storm threads[NR_WRITERS + NR_READERS];

  begin_with (NR_SECTORS * 512, NR_SLOTS, 2 + (unsigned) _i);
  dev_fault_set_hook (rig.backing, dawdle, NULL);
  for (unsigned i = 0; i < NR_WRITERS + NR_READERS; i++) {
    threads[i] = (struct storm) { .number = i };
    ck_assert_int_eq (pthread_create (&threads[i].thread, NULL,
                                      i < NR_WRITERS ? write_and_read
                                      : read_all_over, &threads[i]), 0);
  }
  for (unsigned i = 0; i < NR_WRITERS + NR_READERS; i++) {
    pthread_join (threads[i].thread, NULL);
    if (i == NR_WRITERS - 1)
      atomic_store (&storm_ends, true);
  }
  for (unsigned i = 0; i < NR_WRITERS + NR_READERS; i++)
    ck_assert_msg (threads[i].wrong == NULL, "thread %u: %s", i,
                   threads[i].wrong);
  end ();
}
END_TEST

static TCase *
add_case (Suite *suite, const char *name)
{
  TCase *tc = tcase_create (name);

  tcase_set_timeout (tc, 120);
  suite_add_tcase (suite, tc);
  return tc;
}

int
main (void)
{
  Suite *suite = suite_create ("late_reads");
  SRunner *runner;
  TCase *tc;
  int nr_failed;

  tc = add_case (suite, "in time");
  tcase_add_test (tc, without_a_deadline);
  tcase_add_test (tc, in_time);
  tcase_add_test (tc, errors_in_time);
  tc = add_case (suite, "late");
  tcase_add_loop_test (tc, late_and_kept, 0, 2);
  tcase_add_test (tc, late_at_the_end);
  tcase_add_loop_test (tc, late_error, 0, 2);
  tcase_add_loop_test (tc, late_in_a_repair, 0, 3);
  tcase_add_test (tc, late_other_error);
  tc = add_case (suite, "overtaken");
  tcase_add_loop_test (tc, overtaken, 0, 4 * NR_CHANGES);
  tcase_add_loop_test (tc, overtaken_by_an_earlier_one, 0, NR_CHANGES);
  tcase_add_test (tc, overtaken_by_a_remap);
  tcase_add_test (tc, overtaken_by_a_repair);
  tcase_add_test (tc, write_is_stuck_too);
  tc = add_case (suite, "overlapping");
  tcase_add_test (tc, overlapping_reads_wait);
  tcase_add_test (tc, overlapping_read_gets_its_data);
  tc = add_case (suite, "not kept");
  tcase_add_test (tc, too_few_spares);
  tcase_add_test (tc, store_has_failed);
  tcase_add_loop_test (tc, made_up_zeroes, 0, 2);
  tc = add_case (suite, "limits");
  tcase_add_test (tc, no_more_than_64);
  tcase_add_test (tc, threads_come_and_go);
  tcase_add_loop_test (tc, nothing_to_be_had, 0, 2);
  tcase_add_test (tc, closed_while_stuck);
  tc = add_case (suite, "storm");
  tcase_add_loop_test (tc, storm, 0, 2);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
