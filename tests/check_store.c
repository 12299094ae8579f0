/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"
#include "log.h"
#include "store-internal.h"
#include "store-load.h"

#define NR_SECTORS 16384        /* of the backing */
#define SMALL_SLOTS 32          /* 16 KiB of 512 bytes */
#define SMALL_KEPT 8

/* The store under test. */
static uint32_t physical_bytes; /* of its disk; 0: as the sectors */
static struct dev_fault *disk;
static struct identity backing;
static struct store_options options;
static struct store *store;
static struct map *map;

/* What was logged since it was last cleared. */
static char log_text[65536];

static void
keep_log (int level, const char *message)
{
  size_t n = strlen (log_text);

  snprintf (log_text + n, sizeof log_text - n, "%d: %s\n", level, message);
}

static void
begin (uint32_t sector_bytes, enum dev_kind kind, uint64_t size_bytes,
       uint64_t nr_slots)
{
  disk = dev_fault_new (&(struct dev_fault_options) {
                          .kind = kind, .size_bytes = size_bytes,
                          .physical_bytes = physical_bytes,
                          .is_volatile = true });
  backing = (struct identity) {
    .kind = DEV_FILE, .size_bytes = (uint64_t) NR_SECTORS * sector_bytes,
    .sector_bytes = sector_bytes, .id = "", .path = "disk.img",
  };
  options = (struct store_options) {
    .path = "store", .backing = &backing,
    .spare_bytes = nr_slots * sector_bytes,
  };
  log_text[0] = '\0';
  log_set_callback (keep_log);
}

static void
begin_small (void)
{
  begin (512, DEV_FILE, 0, SMALL_SLOTS);
}

static int
try_open (void)
{
  map = NULL;
  store = store_open_dev (dev_fault_open (disk), &options, &map);
  return store ? 0 : -1;
}

static void
verify (void)
{
  map_verify (map);
  store_verify (store, map);
}

static void
open_store (void)
{
  ck_assert_msg (try_open () == 0, "open: %s", last_error_text ());
  verify ();
}

static void
expect_refused (int err)
{
  if (try_open () == 0)
    ck_abort_msg ("opened, but %s was expected", strerror (err));
  ck_assert_msg (errno == err, "expected %s: %s", strerror (err),
                 last_error_text ());
}

/* As after kill -9. */
static void
kill_store (void)
{
  store_abandon (store);
  map_free (map);
  store = NULL;
  map = NULL;
}

static void
reopen (void)
{
  kill_store ();
  open_store ();
}

static void
close_store (void)
{
  store_close (store);
  map_free (map);
  store = NULL;
  map = NULL;
}

static void
end (void)
{
  if (store)
    kill_store ();
  dev_fault_free (disk);
  log_set_callback (NULL);
}

/* Records, made as the engine makes them. */

static void
fill (uint8_t *buf, uint64_t lba, uint32_t nr, unsigned version)
{
  for (uint32_t i = 0; i < nr; i++)
    dev_fault_pattern (buf + (size_t) i * backing.sector_bytes,
                       backing.sector_bytes, lba + i, version);
}

static void
set_map (const struct sector_run *run)
{
  LOCK_FOR_SCOPE (store_map_lock (store));
  ck_assert_int_eq (map_set (map, run), 0);
}

/* The run counts from now on; what it replaces is superseded, but for what is
 * in the same slot.
 */
static void
replace (const struct sector_run *run)
{
  struct sector_run *old = malloc (run->nr_sectors * sizeof *old);

  for (uint64_t i = 0; i < run->nr_sectors; i++)
    map_next (map, (lba_t) { run->lba.n + i }, 1, &old[i]);
  set_map (run);
  for (uint64_t i = 0; i < run->nr_sectors; i++)
    if (old[i].state != SECTOR_CLEAN && old[i].spare.n != run->spare.n + i)
      store_supersede (store, old[i].spare, 1);
  free (old);
}

/* Record a run in slots that were taken. */
static int
try_record (uint64_t lba, uint32_t nr, spare_t spare, enum sector_state state,
            unsigned version)
{
  struct sector_run run = {
    .lba = { lba }, .nr_sectors = nr, .state = state, .spare = spare,
  };
  uint8_t *buf = malloc ((size_t) nr * backing.sector_bytes);
  bool has_data = state == SECTOR_REMAPPED;
  int r = 0;

  fill (buf, lba, nr, version);
  if (has_data)
    r = store_write (store, spare, nr, buf);
  if (r == 0)
    r = store_record (store, &run, CAUSE_WRITE_ERROR, has_data ? buf : NULL);
  free (buf);
  if (r == -1)
    return -1;
  replace (&run);
  return 0;
}

/* Take slots and be done with them: no other thread waits for them. */
static int
take (uint32_t nr, enum store_purpose purpose, spare_t *ret_first)
{
  int n = store_take (store, nr, purpose, ret_first);

  if (n > 0)
    store_settle (store, (uint32_t) n);
  return n;
}

static int
try_put (uint64_t lba, uint32_t nr, enum sector_state state, unsigned version)
{
  while (nr > 0) {
    spare_t spare;
    struct sector_run old;
    int n, r;

    map_next (map, (lba_t) { lba }, nr, &old);
    n = store_take (store, MIN ((uint32_t) old.nr_sectors, 1000u),
                    old.state == SECTOR_CLEAN ? STORE_FOR_NEW
                    : STORE_FOR_REWRITE, &spare);
    if (n == -1)
      return -1;
    r = try_record (lba, (uint32_t) n, spare, state, version);
    store_settle (store, (uint32_t) n);
    if (r == -1)
      return -1;
    lba += (uint32_t) n;
    nr -= (uint32_t) n;
  }
  return 0;
}

static void
put (uint64_t lba, uint32_t nr, enum sector_state state, unsigned version)
{
  ck_assert_msg (try_put (lba, nr, state, version) == 0, "put: %s",
                 last_error_text ());
  verify ();
}

static void
flush (void)
{
  ck_assert_int_eq (store_flush (store), 0);
  verify ();
}

static spare_t
slot_of (uint64_t lba)
{
  struct sector_run run;

  map_next (map, (lba_t) { lba }, 1, &run);
  return run.spare;
}

static void
expect_state (uint64_t lba, enum sector_state state)
{
  struct sector_run run;

  map_next (map, (lba_t) { lba }, 1, &run);
  ck_assert_msg (run.state == state, "sector %d is %s", (int) lba,
                 sector_state_to_string (run.state));
}

static void
expect_data (uint64_t lba, unsigned version)
{
  uint8_t *is = malloc (backing.sector_bytes * 2);
  uint8_t *wanted = is + backing.sector_bytes;

  expect_state (lba, SECTOR_REMAPPED);
  ck_assert_msg (store_read (store, slot_of (lba), (lba_t) { lba }, 1, is) == 0,
                 "%s", last_error_text ());
  fill (wanted, lba, 1, version);
  ck_assert_msg (memcmp (is, wanted, backing.sector_bytes) == 0,
                 "sector %d is not version %u", (int) lba, version);
  free (is);
}

static struct status
get_status (void)
{
  struct status status = { .spares_total = 0 };

  store_get_status (store, &status);
  return status;
}

/* Look at the disk, as remapctl would. */
static void
load (struct store_image *image, store_problem_fn *fn, void *opaque)
{
  struct dev *dev = dev_fault_open (disk);

  ck_assert_msg (store_load (dev, "store", fn, opaque, image) == 0, "%s",
                 last_error_text ());
  dev_close (dev);
}

static struct store_super
get_super (void)
{
  struct store_image image;
  struct store_super super;

  load (&image, NULL, NULL);
  super = image.super;
  store_image_free (&image);
  return super;
}

static struct store_commit
get_commit (void)
{
  struct store_image image;
  struct store_commit commit;

  load (&image, NULL, NULL);
  commit = image.commit;
  store_image_free (&image);
  return commit;
}

static void
count_problem (void *opaque, int damage, const char *problem)
{
  unsigned *counts = opaque;

  counts[damage]++;
}

static void
expect_perfect (void)
{
  struct store_image image;
  unsigned counts[STORE_FATAL + 1] = { 0 };

  load (&image, count_problem, counts);
  ck_assert_uint_eq (counts[0] + counts[1] + counts[2] + counts[3], 0);
  ck_assert_uint_eq (image.nr_fixes, 0);
  ck_assert (!image.super_needs_write && !image.commit_needs_write);
  store_image_free (&image);
}

static void
flip (uint64_t offset)
{
  uint8_t byte;

  dev_fault_peek (disk, &byte, 1, offset);
  byte ^= 0x10;
  dev_fault_poke (disk, &byte, 1, offset);
}

/* Make and open. */

START_TEST (new_store)
{
  begin_small ();
  open_store ();
  ck_assert_uint_eq (get_status ().spares_total, SMALL_SLOTS);
  ck_assert_uint_eq (get_status ().spares_free, SMALL_SLOTS);
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 0);
  ck_assert_uint_eq (store_sector_bytes (store), 512);
  expect_perfect ();
  ck_assert_int_eq (store_set_owner (store), 0);
  ck_assert_uint_eq (get_commit ().pid, (uint32_t) getpid ());
  ck_assert (!get_commit ().is_clean);
  close_store ();
  ck_assert_uint_eq (get_commit ().pid, 0);
  ck_assert (get_commit ().is_clean);
  open_store ();
  end ();
}
END_TEST

START_TEST (default_size)
{
  begin (512, DEV_FILE, 0, 0);
  open_store ();
  ck_assert_uint_eq (get_status ().spares_total, 4096);
  kill_store ();
  dev_fault_free (disk);
  begin (4096, DEV_FILE, 0, 0);
  backing.size_bytes = UINT64_C (4096) * 1000000;
  open_store ();
  ck_assert_uint_eq (get_status ().spares_total, 10000);
  end ();
}
END_TEST

START_TEST (impossible_sizes)
{
  begin_small ();
  options.spare_bytes = 16383;
  expect_refused (EINVAL);
  options.spare_bytes = UINT64_MAX;
  expect_refused (EINVAL);
  ck_assert_uint_eq (dev_fault_size (disk), 0);
  end ();
}
END_TEST

static const uint32_t sector_sizes[] = { 512, 4096, 65536 };

START_TEST (records_survive_a_kill)
{
  begin (sector_sizes[_i], DEV_FILE, 0, 64);
  open_store ();
  put (0, 1, SECTOR_REMAPPED, 1);
  put (1000, 20, SECTOR_REMAPPED, 2);
  put (NR_SECTORS - 2, 2, SECTOR_REMAPPED, 3);
  put (5, 3, SECTOR_LOST, 0);
  put (50, 4, SECTOR_ZEROED, 0);
  for (int i = 0; i < 3; i++) {
    expect_data (0, 1);
    for (unsigned k = 0; k < 20; k++)
      expect_data (1000 + k, 2);
    expect_data (NR_SECTORS - 1, 3);
    expect_state (7, SECTOR_LOST);
    expect_state (8, SECTOR_CLEAN);
    expect_state (53, SECTOR_ZEROED);
    ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 23);
    ck_assert_uint_eq (map_count (map, SECTOR_LOST), 3);
    ck_assert_uint_eq (map_count (map, SECTOR_ZEROED), 4);
    reopen ();
  }
  ck_assert_uint_eq (get_status ().spares_free, 64 - 30);
  end ();
}
END_TEST

START_TEST (newest_record_counts)
{
  begin_small ();
  open_store ();
  for (unsigned version = 1; version < 200; version++) {
    put (7, 1, SECTOR_REMAPPED, version);
    put (9, 1, version % 3 == 0 ? SECTOR_LOST : version % 3 == 1
         ? SECTOR_ZEROED : SECTOR_REMAPPED, version);
    if (version % 10 == 0) {
      reopen ();
      expect_data (7, version);
    }
    if (version % 10 == 3) {
      reopen ();
      expect_state (9, version % 3 == 0 ? SECTOR_LOST : version % 3 == 1
                    ? SECTOR_ZEROED : SECTOR_REMAPPED);
    }
  }
  expect_data (7, 199);
  end ();
}
END_TEST

/* A run may be changed in the middle, and in its own slots. */
START_TEST (runs_are_split)
{
  spare_t slot;

  begin_small ();
  open_store ();
  put (100, 10, SECTOR_REMAPPED, 1);
  slot = slot_of (104);
  ck_assert_int_eq (try_record (104, 2, slot, SECTOR_ZEROED, 0), 0);
  put (107, 1, SECTOR_REMAPPED, 2);
  reopen ();
  expect_state (104, SECTOR_ZEROED);
  expect_state (105, SECTOR_ZEROED);
  ck_assert_uint_eq (slot_of (105).n, slot.n + 1);
  expect_data (103, 1);
  expect_data (106, 1);
  expect_data (107, 2);
  expect_data (108, 1);
  end ();
}
END_TEST

/* Slots. */

/* S2: the slot comes back, but not before a flush. */
START_TEST (superseded_slot_waits_for_a_flush)
{
  unsigned nr_flushes;
  spare_t old, slot = { 0 };
  int n = 1;

  begin_small ();
  open_store ();
  put (7, 1, SECTOR_REMAPPED, 1);
  old = slot_of (7);
  put (7, 1, SECTOR_REMAPPED, 2);
  nr_flushes = dev_fault_calls (disk, DEV_FAULT_FLUSH);
  for (unsigned i = 0; i < SMALL_SLOTS + SMALL_KEPT - 2; i++) {
    n = take (1, STORE_FOR_REWRITE, &slot);
    ck_assert_int_eq (n, 1);
    ck_assert_uint_ne (slot.n, old.n);
    ck_assert_uint_eq (dev_fault_calls (disk, DEV_FAULT_FLUSH), nr_flushes);
  }
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_uint_eq (slot.n, old.n);
  ck_assert_uint_gt (dev_fault_calls (disk, DEV_FAULT_FLUSH), nr_flushes);
  dev_fault_cut_power (disk, 0);
  reopen ();
  expect_data (7, 2);           /* it was made durable */
  end ();
}
END_TEST

START_TEST (superseded_slot_is_free_after_a_flush)
{
  spare_t old, slot;

  begin_small ();
  open_store ();
  put (7, 1, SECTOR_REMAPPED, 1);
  old = slot_of (7);
  put (7, 1, SECTOR_REMAPPED, 2);
  flush ();
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), 1);
  ck_assert_uint_eq (slot.n, old.n);
  end ();
}
END_TEST

static void *
rewrite_now (void *opaque)
{
  put (7, 1, SECTOR_REMAPPED, 3);
  return NULL;
}

static int
rewrite_in_flush (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  bool *done = opaque;

  pthread_t thread;

  if (call->kind == DEV_FAULT_FLUSH && !is_done && !*done) {
    *done = true;
    ck_assert_int_eq (pthread_create (&thread, NULL, rewrite_now, NULL), 0);
    pthread_join (thread, NULL);
  }
  return 0;
}

/* S2, S3: a record made while a flush is under way is none of its business. */
START_TEST (flush_does_not_cover_what_comes_later)
{
  spare_t first, second, slot;
  bool done = false;

  begin_small ();
  open_store ();
  put (7, 1, SECTOR_REMAPPED, 1);
  first = slot_of (7);
  put (7, 1, SECTOR_REMAPPED, 2);
  second = slot_of (7);
  dev_fault_set_hook (disk, rewrite_in_flush, &done);
  flush ();
  ck_assert (done);
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_uint_eq (slot.n, first.n);
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_uint_ne (slot.n, second.n);
  ck_assert_uint_lt (get_commit ().durable_seq, 3);
  flush ();                     /* the record of version 3 is new to it */
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_uint_eq (slot.n, second.n);
  end ();
}
END_TEST

START_TEST (exhaustion_and_what_is_kept)
{
  spare_t slot;

  begin_small ();
  open_store ();
  for (unsigned i = 0; i < SMALL_SLOTS; i++)
    put (100 + i * 2, 1, SECTOR_REMAPPED, 1);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  ck_assert_uint_eq (get_status ().spares_free, 0);
  for (unsigned i = 0; i < SMALL_SLOTS; i++)    /* more than are kept */
    put (100 + i * 2, 1, SECTOR_REMAPPED, 2);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  for (unsigned i = 0; i + 1 < SMALL_KEPT; i++)
    ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_int_eq (store_take (store, 1, STORE_FOR_REWRITE, &slot), 1);
  store_untake (store, slot, 1);
  ck_assert_int_eq (take (5, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  reopen ();
  for (unsigned i = 0; i < SMALL_SLOTS; i++)
    expect_data (100 + i * 2, 2);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  end ();
}
END_TEST

/* The operator is told at a quarter, a tenth and nothing, once each. */
START_TEST (few_spares_are_announced)
{
  unsigned nr = 0;

  begin_small ();
  open_store ();
  put (0, SMALL_SLOTS, SECTOR_REMAPPED, 1);
  put (0, SMALL_SLOTS, SECTOR_REMAPPED, 2);
  kill_store ();
  for (const char *p = log_text; (p = strstr (p, "spares left")); p++)
    nr++;
  ck_assert_uint_ge (nr, 1);
  ck_assert_uint_le (nr, 3);
  ck_assert_ptr_nonnull (strstr (log_text, "0 of 32 spares left"));
  end ();
}
END_TEST

START_TEST (bad_slots_are_never_used_again)
{
  bool is_bad[SMALL_SLOTS + SMALL_KEPT] = { false };
  spare_t slot;

  begin_small ();
  open_store ();
  for (unsigned i = 0; i < 6; i++) {
    ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), 1);
    if (i % 2 == 0) {
      ck_assert_int_eq (store_mark_bad (store, slot), 0);
      is_bad[slot.n] = true;
    }
    else
      ck_assert_int_eq (try_record (i, 1, slot, SECTOR_REMAPPED, 1), 0);
    verify ();
  }
  reopen ();
  ck_assert_uint_eq (get_status ().spares_bad, 3);
  for (unsigned i = 0; i < SMALL_SLOTS + SMALL_KEPT - 6; i++) {
    ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
    ck_assert (!is_bad[slot.n]);
  }
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), -1);
  expect_data (5, 1);
  end ();
}
END_TEST

/* Size. */

/* More slots than are made ready at once. */
START_TEST (readiness_grows)
{
  begin (512, DEV_FILE, 0, 6000);
  open_store ();
  ck_assert_uint_eq (get_super ().nr_ready, 4096);
  for (unsigned lba = 0; lba < 6000; lba += 1000) {
    put (lba, 1000, SECTOR_REMAPPED, 1);
    if (lba == 4000)
      dev_fault_cut_power (disk, 0);    /* what is flushed stays usable */
    if (lba == 4000) {
      reopen ();
      ck_assert_uint_gt (get_super ().nr_ready, 4096);
      put (0, 5000, SECTOR_REMAPPED, 1);
    }
  }
  reopen ();
  for (unsigned lba = 0; lba < 6000; lba++)
    expect_data (lba, 1);
  expect_perfect ();
  end ();
}
END_TEST

static const struct {
  enum dev_kind kind;
  uint64_t size_bytes;
} growables[] = { { DEV_FILE, 0 }, { DEV_BLOCK, 4 << 20 } };

START_TEST (larger_size_grows)
{
  unsigned slots = SMALL_SLOTS;

  begin (512, growables[_i].kind, growables[_i].size_bytes, slots);
  open_store ();
  put (0, SMALL_SLOTS, SECTOR_REMAPPED, 1);
  for (unsigned i = 1; i < STORE_SECTIONS_MAX; i++) {
    if (i % 2)
      close_store ();
    else
      kill_store ();
    slots += 20 + i;
    options.spare_bytes = slots * 512;
    open_store ();
    ck_assert_uint_eq (get_status ().spares_total, slots);
    ck_assert_uint_eq (get_super ().nr_sections, i + 1);
    put (100 * i, 20 + i, SECTOR_REMAPPED, i);
    put (0, SMALL_SLOTS, SECTOR_REMAPPED, i);
    expect_perfect ();
  }
  reopen ();
  expect_data (0, STORE_SECTIONS_MAX - 1);
  for (unsigned i = 1; i < STORE_SECTIONS_MAX; i++)
    expect_data (100 * i + 20, i);
  kill_store ();
  options.spare_bytes = (slots + 1) * 512;
  expect_refused (ENOSPC);
  options.spare_bytes = slots * 512;
  open_store ();
  end ();
}
END_TEST

START_TEST (smaller_size_is_refused)
{
  begin (512, DEV_FILE, 0, 64);
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  close_store ();
  options.spare_bytes = 63 * 512;
  expect_refused (EINVAL);
  options.spare_bytes = 0;      /* whatever it has */
  open_store ();
  ck_assert_uint_eq (get_status ().spares_total, 64);
  expect_data (1, 1);
  end ();
}
END_TEST

START_TEST (device_too_small)
{
  begin (512, DEV_BLOCK, 32768, SMALL_SLOTS);
  expect_refused (ENOSPC);
  dev_fault_free (disk);
  begin (512, DEV_BLOCK, 65536, SMALL_SLOTS);
  open_store ();
  close_store ();
  options.spare_bytes = 128 * 512;
  expect_refused (ENOSPC);
  options.spare_bytes = 0;
  open_store ();
  expect_perfect ();
  end ();
}
END_TEST

/* Whose store is it? */

START_TEST (store_of_another_disk)
{
  struct identity own;

  begin_small ();
  strcpy (backing.id, "wwn-0x1");
  own = backing;
  open_store ();
  put (NR_SECTORS - 1, 1, SECTOR_REMAPPED, 1);
  close_store ();
  strcpy (backing.id, "wwn-0x2");
  expect_refused (ESTALE);
  ck_assert_ptr_nonnull (strstr (last_error_text (), "wwn-0x1"));
  ck_assert_ptr_nonnull (strstr (last_error_text (), "wwn-0x2"));
  backing = own;
  backing.size_bytes += 512;
  expect_refused (ESTALE);
  backing = own;
  backing.kind = DEV_BLOCK;
  expect_refused (ESTALE);
  backing = own;
  backing.sector_bytes = 1024;
  expect_refused (EINVAL);
  backing = own;
  open_store ();
  expect_data (NR_SECTORS - 1, 1);
  end ();
}
END_TEST

START_TEST (adopted_store)
{
  begin_small ();
  open_store ();
  put (NR_SECTORS - 1, 1, SECTOR_REMAPPED, 1);
  close_store ();
  strcpy (backing.id, "wwn-0x2");
  backing.size_bytes += 512;
  options.adopt = true;
  open_store ();
  expect_data (NR_SECTORS - 1, 1);
  close_store ();
  options.adopt = false;
  open_store ();
  expect_data (NR_SECTORS - 1, 1);
  close_store ();
  options.adopt = true;         /* of a smaller disk it cannot be */
  backing.size_bytes = (NR_SECTORS - 1) * 512;
  expect_refused (ESTALE);
  end ();
}
END_TEST

/* Damage. */

static void
make_with_records (void)
{
  begin_small ();
  open_store ();
  put (1, 3, SECTOR_REMAPPED, 1);
  put (9, 1, SECTOR_LOST, 1);
  put (1, 1, SECTOR_REMAPPED, 2);
  close_store ();
  expect_perfect ();
}

static void
expect_records (void)
{
  expect_data (1, 2);
  expect_data (2, 1);
  expect_state (9, SECTOR_LOST);
}

/* Where the copies of superblock, commit sector and an entry are. */
struct spot {
  uint64_t offset[2];
  uint64_t count;
};
#define NR_SPOTS 3

static struct spot
find_spot (int which)
{
  struct store_super s = get_super ();
  spare_t slot = { 1 };

  switch (which) {
  case 0:
    return (struct spot) { { 0, s.store_bytes - STORE_BLOCK }, STORE_BLOCK };
  case 1:
    return (struct spot) {
      { COMMIT_A_OFFSET, s.store_bytes - STORE_TAIL_BYTES }, COMMIT_BYTES };
  default:
    return (struct spot) {
      { store_entry_at (&s, slot, 0), store_entry_at (&s, slot, 1) },
      ENTRY_BYTES };
  }
}

static void
expect_said_and_repaired (const char *what)
{
  ck_assert_msg (strstr (log_text, "repaired"), "%s: not said: %s", what,
                 log_text);
  verify ();
  expect_records ();
  kill_store ();
  expect_perfect ();
}

START_TEST (one_damaged_copy)
{
  for (unsigned copy = 0; copy < 2; copy++) {
    struct spot spot;

    make_with_records ();
    spot = find_spot (_i);
    flip (spot.offset[copy] + spot.count / 2);
    open_store ();
    expect_said_and_repaired ("damaged");
    dev_fault_free (disk);
  }
}
END_TEST

/* Unreadable until it is written as a whole: 512 bytes on some disks, 4096 on
 * others and wherever the page cache has to read a page before it can change a
 * part of it.
 */
START_TEST (one_unreadable_copy)
{
  physical_bytes = _i < NR_SPOTS ? 512 : 4096;
  for (unsigned copy = 0; copy < 2; copy++) {
    struct spot spot;
    uint64_t first, last;

    make_with_records ();
    spot = find_spot (_i % NR_SPOTS);
    first = spot.offset[copy] / 512;
    last = (spot.offset[copy] + spot.count - 1) / 512;
    dev_fault_spoil (disk, first, last - first + 1, DEV_FAULT_BAD_READ, 0, 0);
    open_store ();
    expect_said_and_repaired ("unreadable");
    dev_fault_free (disk);
  }
}
END_TEST

START_TEST (both_copies_damaged)
{
  struct spot spot;

  make_with_records ();
  spot = find_spot (_i);
  flip (spot.offset[0] + spot.count / 2);
  flip (spot.offset[1] + spot.count / 3);
  expect_refused (EUCLEAN);
  flip (spot.offset[0] + spot.count / 2);
  open_store ();
  expect_records ();
  end ();
}
END_TEST

START_TEST (both_copies_unreadable)
{
  struct spot spot;

  make_with_records ();
  spot = find_spot (_i);
  for (unsigned copy = 0; copy < 2; copy++)
    dev_fault_spoil (disk, spot.offset[copy] / 512, 1, DEV_FAULT_BAD_READ, 0,
                     0);
  expect_refused (EUCLEAN);
  end ();
}
END_TEST

/* Does a byte of the store mean anything?  Not behind the entries in use. */
static bool
is_meaningful (const struct store_super *s, uint64_t offset)
{
  const struct store_section *sect = &s->sections[0];
  uint64_t table_bytes = store_table_bytes (sect->nr_slots);

  for (unsigned copy = 0; copy < 2; copy++) {
    uint64_t begin = copy ? sect->table_b : sect->table_a;

    if (offset >= begin && offset < begin + table_bytes) {
      uint64_t in_sector = (offset - begin) % TABLE_SECTOR_BYTES;
      uint64_t slot = (offset - begin) / TABLE_SECTOR_BYTES
        * ENTRIES_PER_SECTOR + in_sector / ENTRY_BYTES;

      return in_sector < ENTRIES_PER_SECTOR * ENTRY_BYTES &&
        slot < s->nr_ready;
    }
  }
  if (offset >= sect->data && offset < sect->table_b)
    return false;               /* data: proved when it is read */
  return offset < COMMIT_A_OFFSET + COMMIT_BYTES ||
    (offset >= s->store_bytes - STORE_TAIL_BYTES &&
     offset < s->store_bytes - STORE_TAIL_BYTES + COMMIT_BYTES) ||
    offset >= s->store_bytes - STORE_BLOCK;
}

/* Any one byte may be wrong: all is served all the same, and it is said.  (A
 * third of them is tried.)
 */
START_TEST (any_byte_damaged)
{
  struct store_super super;
  unsigned nr_meaningful = 0;

  make_with_records ();
  super = get_super ();
  for (uint64_t i = 0; i < super.store_bytes;
       i += is_meaningful (&super, i) ? 3 : 61) {
    struct store_image image;
    unsigned counts[STORE_FATAL + 1] = { 0 };

    flip (i);
    load (&image, count_problem, counts);
    ck_assert_uint_eq (counts[1], is_meaningful (&super, i));
    ck_assert_uint_eq (counts[2], 0);
    ck_assert_uint_eq (image.nr_remapped, 3);
    ck_assert_uint_eq (image.nr_lost, 1);
    nr_meaningful += counts[1];
    store_image_free (&image);
    flip (i);
  }
  ck_assert_uint_ge (nr_meaningful, 2 * (STORE_BLOCK + COMMIT_BYTES) / 3);
  end ();
}
END_TEST

static void
expect_untouched (const uint8_t *content, size_t count)
{
  uint8_t *now = malloc (count);

  dev_fault_peek (disk, now, count, 0);
  ck_assert (memcmp (now, content, count) == 0);
  free (now);
}

START_TEST (not_a_store)
{
  static const struct {
    enum dev_kind kind;
    uint64_t size_bytes;
  } cases[] = {
    { DEV_FILE, 1 }, { DEV_FILE, 16383 }, { DEV_FILE, 16384 },
    { DEV_FILE, 100001 }, { DEV_BLOCK, 65536 }, { DEV_BLOCK, 1 << 20 },
  };
  uint8_t *content = malloc (cases[_i].size_bytes);

  begin (512, cases[_i].kind, cases[_i].size_bytes, SMALL_SLOTS);
  dev_fault_pattern (content, cases[_i].size_bytes, 1, 1);
  dev_fault_poke (disk, content, cases[_i].size_bytes, 0);
  expect_refused (EEXIST);
  expect_untouched (content, cases[_i].size_bytes);
  free (content);
  end ();
}
END_TEST

START_TEST (blank_device_becomes_a_store)
{
  begin (512, DEV_BLOCK, 1 << 20, SMALL_SLOTS);
  open_store ();
  put (5, 1, SECTOR_REMAPPED, 1);
  reopen ();
  expect_data (5, 1);
  end ();
}
END_TEST

/* Both copies say so, with good checksums. */
START_TEST (store_of_the_future)
{
  struct store_super super;
  uint8_t block[STORE_BLOCK];

  make_with_records ();
  super = get_super ();
  *(_i == 0 ? &super.incompat : &super.ro_compat) = 4;
  for (unsigned copy = 0; copy < 2; copy++) {
    store_super_encode (&super, copy, block);
    dev_fault_poke (disk, block, sizeof block,
                    copy ? super.store_bytes - STORE_BLOCK : 0);
  }
  expect_refused (EUCLEAN);
  end ();
}
END_TEST

/* A disk of the first n bytes of this one. */
static void
truncate_to (uint64_t size_bytes)
{
  struct dev_fault *d = dev_fault_new (&(struct dev_fault_options) {
                                         .size_bytes = size_bytes });
  uint8_t *content = malloc (size_bytes);

  dev_fault_peek (disk, content, size_bytes, 0);
  dev_fault_poke (d, content, size_bytes, 0);
  free (content);
  dev_fault_free (disk);
  disk = d;
}

START_TEST (truncated_store)
{
  uint64_t size_bytes;

  make_with_records ();
  for (size_bytes = dev_fault_size (disk); size_bytes > 20000; ) {
    size_bytes -= size_bytes % 512 ? 4001 : 1;
    truncate_to (size_bytes);
    expect_refused (EUCLEAN);
  }
  end ();
}
END_TEST

/* Something was put behind it: that is no reason to refuse it. */
START_TEST (store_in_a_longer_file)
{
  struct dev_fault *d;
  uint8_t *content;
  uint64_t size_bytes;

  make_with_records ();
  size_bytes = dev_fault_size (disk);
  content = malloc (size_bytes);
  dev_fault_peek (disk, content, size_bytes, 0);
  d = dev_fault_new (&(struct dev_fault_options) {
                       .size_bytes = size_bytes + 12345 });
  dev_fault_poke (d, content, size_bytes, 0);
  free (content);
  dev_fault_free (disk);
  disk = d;
  open_store ();
  expect_records ();
  put (30, 1, SECTOR_REMAPPED, 1);
  reopen ();
  expect_records ();
  expect_data (30, 1);
  end ();
}
END_TEST

/* The first half of one store, the second half of another. */
START_TEST (swapped_halves)
{
  uint8_t *half;
  uint64_t size_bytes;

  make_with_records ();
  size_bytes = dev_fault_size (disk);
  half = malloc (size_bytes / 2);
  dev_fault_peek (disk, half, size_bytes / 2, 0);
  dev_fault_free (disk);
  make_with_records ();
  dev_fault_poke (disk, half, size_bytes / 2, 0);
  free (half);
  expect_refused (EUCLEAN);
  end ();
}
END_TEST

/* Read: a slot must prove that it holds the sector. */

static void
expect_rejected (uint64_t lba, spare_t slot)
{
  uint8_t buf[512];

  ck_assert_int_eq (store_read (store, slot, (lba_t) { lba }, 1, buf), -1);
  ck_assert_int_eq (errno, EILSEQ);
}

START_TEST (slot_of_another_sector)
{
  struct store_super super;
  spare_t free_slot;

  begin_small ();
  open_store ();
  put (5, 2, SECTOR_REMAPPED, 1);
  put (9, 1, SECTOR_ZEROED, 0);
  put (10, 1, SECTOR_LOST, 0);
  expect_data (5, 1);
  expect_rejected (6, slot_of (5));
  expect_rejected (5, slot_of (6));
  expect_rejected (9, slot_of (9));
  expect_rejected (10, slot_of (10));
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &free_slot), 1);
  expect_rejected (5, free_slot);
  /* The data of another one, under the right entry. */
  super = get_super ();
  flip (store_data_at (&super, slot_of (5)));
  expect_rejected (5, slot_of (5));
  expect_data (6, 1);
  end ();
}
END_TEST

START_TEST (entry_damaged_while_served)
{
  struct store_super super;
  uint64_t entry[2];

  begin_small ();
  open_store ();
  put (5, 1, SECTOR_REMAPPED, 1);
  super = get_super ();
  for (unsigned copy = 0; copy < 2; copy++)
    entry[copy] = store_entry_at (&super, slot_of (5), copy) + 3;
  flip (entry[0]);
  expect_data (5, 1);
  flip (entry[1]);
  expect_rejected (5, slot_of (5));
  flip (entry[0]);
  expect_data (5, 1);
  end ();
}
END_TEST

START_TEST (unreadable_slot)
{
  struct store_super super;
  uint8_t buf[512];

  begin_small ();
  open_store ();
  put (5, 2, SECTOR_REMAPPED, 1);
  super = get_super ();
  dev_fault_spoil (disk, store_data_at (&super, slot_of (5)) / 512, 1,
                   DEV_FAULT_BAD_READ, 0, ENODATA);
  ck_assert_int_eq (store_read (store, slot_of (5), (lba_t) { 5 }, 1, buf),
                    -1);
  ck_assert_int_eq (errno, ENODATA);
  expect_data (6, 1);
  reopen ();                    /* it may have been acknowledged: it stays */
  expect_state (5, SECTOR_REMAPPED);
  expect_data (6, 1);
  end ();
}
END_TEST

/* Durability. */

START_TEST (durable_is_never_too_high)
{
  begin_small ();
  open_store ();
  for (unsigned i = 1; i < 50; i++) {
    uint64_t durable = get_commit ().durable_seq;

    put (i % 7, 1, SECTOR_REMAPPED, i);
    put (7 + i % 5, 1, SECTOR_LOST, i);
    ck_assert_uint_eq (get_commit ().durable_seq, durable);
    if (i % 3 == 0) {
      flush ();
      ck_assert_uint_eq (get_commit ().durable_seq, 2 * i);
      ck_assert_int_eq (store_flush (store), 0);
    }
    if (i == 30)
      dev_fault_cut_power (disk, 0);    /* just after a flush */
    if (i == 30 || i == 40)
      reopen ();
  }
  end ();
}
END_TEST

START_TEST (nothing_new_needs_no_flush)
{
  unsigned nr;

  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  flush ();
  nr = dev_fault_calls (disk, DEV_FAULT_ALL);
  flush ();
  ck_assert_uint_eq (dev_fault_calls (disk, DEV_FAULT_ALL), nr);
  put (1, 1, SECTOR_REMAPPED, 1);
  flush ();
  ck_assert_uint_eq (get_commit ().durable_seq, 2);
  end ();
}
END_TEST

/* What was not flushed is gone, and what was before it counts again. */
START_TEST (power_cut_goes_back_to_the_flush)
{
  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  put (2, 1, SECTOR_LOST, 1);
  flush ();
  put (1, 1, SECTOR_REMAPPED, 2);
  put (2, 1, SECTOR_REMAPPED, 2);
  put (3, 1, SECTOR_REMAPPED, 2);
  dev_fault_cut_power (disk, 0);
  reopen ();
  expect_data (1, 1);
  expect_state (2, SECTOR_LOST);
  expect_state (3, SECTOR_CLEAN);
  end ();
}
END_TEST

/* The record has reached the disk, its data has not. */
START_TEST (record_without_its_data)
{
  struct store_super super;
  spare_t slot;

  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  flush ();
  put (1, 1, SECTOR_REMAPPED, 2);
  put (2, 1, SECTOR_REMAPPED, 2);
  super = get_super ();
  flip (store_data_at (&super, slot_of (1)));
  flip (store_data_at (&super, slot_of (2)));
  slot = slot_of (2);
  reopen ();
  expect_data (1, 1);
  expect_state (2, SECTOR_CLEAN);
  expect_perfect ();            /* the records are gone */
  put (2, 1, SECTOR_REMAPPED, 3);
  put (1, 1, SECTOR_REMAPPED, 3);
  ck_assert_uint_le (slot_of (2).n, slot.n);    /* the slots are free */
  reopen ();
  expect_data (1, 3);
  expect_data (2, 3);
  end ();
}
END_TEST

/* Rotten after a flush: what was before it must not come back. */
START_TEST (rotten_data_does_not_bring_back_the_old)
{
  struct store_super super;

  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  put (1, 1, SECTOR_REMAPPED, 2);
  flush ();
  super = get_super ();
  flip (store_data_at (&super, slot_of (1)));
  reopen ();
  expect_state (1, SECTOR_REMAPPED);
  expect_rejected (1, slot_of (1));
  end ();
}
END_TEST

/* Failures. */

/* S5 */
START_TEST (failed_flush_is_not_forgotten)
{
  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  flush ();
  put (2, 1, SECTOR_REMAPPED, 1);
  dev_fault_fail_calls (disk, DEV_FAULT_FLUSH, 1, true, EIO);
  for (unsigned i = 0; i < 3; i++) {
    ck_assert_int_eq (store_flush (store), -1);
    ck_assert_int_eq (errno, EIO);
    verify ();
    dev_fault_heal_calls (disk);
    put (3, 1, SECTOR_REMAPPED, i);
  }
  ck_assert (get_status ().flush_failed);
  ck_assert (!get_status ().store_failed);
  ck_assert_uint_eq (get_commit ().durable_seq, 1);
  expect_data (2, 1);
  close_store ();
  ck_assert (!get_commit ().is_clean);
  open_store ();
  expect_data (2, 1);
  flush ();
  put (4, 1, SECTOR_REMAPPED, 1);
  flush ();
  end ();
}
END_TEST

/* S2, S5: the slots that the failed flush was to free stay taken. */
START_TEST (failed_flush_frees_nothing)
{
  spare_t slot;

  begin_small ();
  open_store ();
  put (1, 10, SECTOR_REMAPPED, 1);
  put (1, 10, SECTOR_REMAPPED, 2);
  dev_fault_fail_calls (disk, DEV_FAULT_FLUSH, 1, true, EIO);
  ck_assert_int_eq (store_flush (store), -1);
  for (unsigned i = 0; i < SMALL_SLOTS + SMALL_KEPT - 20; i++)
    ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), 1);
  ck_assert_int_eq (take (1, STORE_FOR_REWRITE, &slot), -1);
  end ();
}
END_TEST

/* S6.  The first copy, or the second. */
START_TEST (failed_record_stops_the_store)
{
  unsigned nr;
  spare_t slot;

  begin_small ();
  open_store ();
  put (1, 1, SECTOR_REMAPPED, 1);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), 1);
  dev_fault_fail_calls (disk, DEV_FAULT_PWRITE, 2 + (unsigned) _i, false,
                        ENXIO);
  ck_assert_int_eq (try_record (1, 1, slot, SECTOR_REMAPPED, 2), -1);
  ck_assert_int_eq (errno, EIO);
  ck_assert (get_status ().store_failed);
  nr = dev_fault_calls (disk, DEV_FAULT_CHANGES);
  ck_assert_int_eq (try_record (2, 1, slot, SECTOR_LOST, 2), -1);
  ck_assert_int_eq (store_mark_bad (store, slot), -1);
  ck_assert_uint_eq (dev_fault_calls (disk, DEV_FAULT_CHANGES), nr);
  expect_data (1, 1);
  flush ();                     /* of what was recorded before */
  close_store ();
  ck_assert (!get_commit ().is_clean);
  open_store ();
  expect_data (1, _i == 0 ? 1 : 2);
  expect_state (2, SECTOR_CLEAN);
  put (2, 1, SECTOR_REMAPPED, 3);
  end ();
}
END_TEST

/* S6.  The store's server goes away before a record, or halfway. */
START_TEST (unreachable_store_may_be_in_doubt)
{
  spare_t slot, other;

  begin_small ();
  open_store ();
  store->dev->keeps_unflushed = true;
  put (1, 1, SECTOR_REMAPPED, 1);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &slot), 1);
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &other), 1);
  dev_fault_fail_calls (disk, DEV_FAULT_PREAD, 1, false, ESHUTDOWN);
  ck_assert_int_eq (try_record (1, 1, slot, SECTOR_REMAPPED, 2), -1);
  ck_assert_int_eq (errno, ESHUTDOWN);
  ck_assert (!store_is_in_doubt (store, slot));
  ck_assert (!get_status ().store_failed);
  dev_fault_fail_calls (disk, DEV_FAULT_PWRITE, 2 + (unsigned) _i, false,
                        ESHUTDOWN);
  ck_assert_int_eq (try_record (1, 1, slot, SECTOR_REMAPPED, 2), -1);
  ck_assert_int_eq (errno, ESHUTDOWN);
  ck_assert (store_is_in_doubt (store, slot));
  ck_assert (!store_is_in_doubt (store, other));
  ck_assert (get_status ().store_failed);
  ck_assert_int_eq (try_record (2, 1, other, SECTOR_LOST, 2), -1);
  ck_assert_int_eq (errno, EIO);
  ck_assert (!store_is_in_doubt (store, other));
  kill_store ();
  open_store ();
  expect_data (1, _i == 0 ? 1 : 2);
  expect_state (2, SECTOR_CLEAN);
  end ();
}
END_TEST

START_TEST (failing_device_while_opening)
{
  unsigned nr_failed = 0;

  make_with_records ();
  for (unsigned n = 1; ; n++) {
    struct dev_fault *whole = dev_fault_clone (disk);
    int r;

    dev_fault_fail_calls (disk, DEV_FAULT_CHANGES | DEV_FAULT_FLUSH, n, true,
                          n % 2 ? EIO : ENOSPC);
    options.spare_bytes = 64 * 512;     /* it has to grow */
    r = try_open ();
    dev_fault_heal_calls (disk);
    if (r == 0) {
      expect_records ();
      kill_store ();
      dev_fault_free (whole);
      break;
    }
    nr_failed++;
    open_store ();              /* as after a restart */
    expect_records ();
    kill_store ();
    dev_fault_free (disk);
    disk = whole;
  }
  ck_assert_uint_gt (nr_failed, 5);
  end ();
}
END_TEST

/* Many threads. */

#define NR_FLUSHERS 16

static atomic_uint nr_recorded, nr_flushes_held;
static atomic_bool hold_flushes;

static int
hold_first_flush (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  if (call->kind == DEV_FAULT_FLUSH && !is_done &&
      atomic_fetch_add (&nr_flushes_held, 1) == 0)
    while (atomic_load (&hold_flushes))
      usleep (1000);
  return 0;
}

struct flusher {
  pthread_t thread;
  unsigned number;
  spare_t slot;
  int result;
};

static void *
record_and_flush (void *opaque)
{
  struct flusher *f = opaque;
  struct sector_run run = {
    .lba = { f->number }, .nr_sectors = 1, .state = SECTOR_REMAPPED,
    .spare = f->slot,
  };
  uint8_t buf[512];

  fill (buf, f->number, 1, 1);
  f->result = store_write (store, f->slot, 1, buf);
  if (f->result == 0)
    f->result = store_record (store, &run, CAUSE_WRITE_ERROR, buf);
  atomic_fetch_add (&nr_recorded, 1);
  if (f->result == 0)
    f->result = store_flush (store);
  return NULL;
}

static void
start_flusher (struct flusher *f, unsigned number)
{
  f->number = number;
  ck_assert_int_eq (take (1, STORE_FOR_NEW, &f->slot), 1);
  ck_assert_int_eq (pthread_create (&f->thread, NULL, record_and_flush, f), 0);
}

static void
wait_for (atomic_uint *counter, unsigned value)
{
  while (atomic_load (counter) < value)
    usleep (1000);
}

static void
join_flusher (struct flusher *f)
{
  struct sector_run run = {
    .lba = { f->number }, .nr_sectors = 1, .state = SECTOR_REMAPPED,
    .spare = f->slot,
  };

  pthread_join (f->thread, NULL);
  ck_assert_int_eq (f->result, 0);
  set_map (&run);
}

START_TEST (flushes_are_shared)
{
  struct flusher f[NR_FLUSHERS];
  unsigned nr;

  begin_small ();
  open_store ();
  nr = dev_fault_calls (disk, DEV_FAULT_FLUSH);
  atomic_store (&hold_flushes, true);
  dev_fault_set_hook (disk, hold_first_flush, NULL);
  for (unsigned i = 0; i < NR_FLUSHERS; i++)
    start_flusher (&f[i], i);
  wait_for (&nr_recorded, NR_FLUSHERS);
  wait_for (&nr_flushes_held, 1);
  usleep (50000);               /* let them come to the flush */
  atomic_store (&hold_flushes, false);
  for (unsigned i = 0; i < NR_FLUSHERS; i++)
    join_flusher (&f[i]);
  ck_assert_uint_le (dev_fault_calls (disk, DEV_FAULT_FLUSH) - nr,
                     NR_FLUSHERS / 4);
  dev_fault_cut_power (disk, 0);
  dev_fault_set_hook (disk, NULL, NULL);
  reopen ();
  for (unsigned i = 0; i < NR_FLUSHERS; i++)
    expect_data (i, 1);
  end ();
}
END_TEST

/* Whoever comes while a flush is under way is not served by that one. */
START_TEST (flush_begins_after_the_call)
{
  struct flusher f[2];

  begin_small ();
  open_store ();
  atomic_store (&hold_flushes, true);
  dev_fault_set_hook (disk, hold_first_flush, NULL);
  start_flusher (&f[0], 0);
  wait_for (&nr_flushes_held, 1);
  start_flusher (&f[1], 1);
  wait_for (&nr_recorded, 2);
  usleep (20000);
  atomic_store (&hold_flushes, false);
  join_flusher (&f[1]);
  dev_fault_cut_power (disk, 0);
  join_flusher (&f[0]);
  dev_fault_set_hook (disk, NULL, NULL);
  reopen ();
  expect_data (0, 1);
  expect_data (1, 1);
  end ();
}
END_TEST

/* Each thread rewrites its own sector: slots go round, flushes are shared, and
 * no slot is given to two.
 */
#define NR_WRITERS 4

static void *
rewrite_often (void *opaque)
{
  struct flusher *f = opaque;

  for (unsigned i = 1; i <= 300 && f->result == 0; i++) {
    f->result = try_put (f->number, 1, SECTOR_REMAPPED, i);
    if (f->result == 0 && i % 50 == 0)
      f->result = store_flush (store);
  }
  return NULL;
}

START_TEST (slots_go_round_among_threads)
{
  struct flusher f[NR_WRITERS];

  begin_small ();
  open_store ();
  for (unsigned i = 0; i < NR_WRITERS; i++) {
    f[i] = (struct flusher) { .number = i * 10 };
    ck_assert_int_eq (pthread_create (&f[i].thread, NULL, rewrite_often,
                                      &f[i]), 0);
  }
  for (unsigned i = 0; i < NR_WRITERS; i++) {
    pthread_join (f[i].thread, NULL);
    ck_assert_int_eq (f[i].result, 0);
  }
  verify ();
  reopen ();
  for (unsigned i = 0; i < NR_WRITERS; i++)
    expect_data (i * 10, 300);
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
add_damage (Suite *suite)
{
  TCase *tc = add_case (suite, "damage");

  tcase_add_loop_test (tc, one_damaged_copy, 0, NR_SPOTS);
  tcase_add_loop_test (tc, one_unreadable_copy, 0, 2 * NR_SPOTS);
  tcase_add_loop_test (tc, both_copies_damaged, 0, NR_SPOTS);
  tcase_add_loop_test (tc, both_copies_unreadable, 0, NR_SPOTS);
  tcase_add_test (tc, any_byte_damaged);
  tcase_add_loop_test (tc, not_a_store, 0, 6);
  tcase_add_test (tc, blank_device_becomes_a_store);
  tcase_add_loop_test (tc, store_of_the_future, 0, 2);
  tcase_add_test (tc, truncated_store);
  tcase_add_test (tc, store_in_a_longer_file);
  tcase_add_test (tc, swapped_halves);
}

static void
add_records (Suite *suite)
{
  TCase *tc = add_case (suite, "records");

  tcase_add_test (tc, new_store);
  tcase_add_test (tc, default_size);
  tcase_add_test (tc, impossible_sizes);
  tcase_add_loop_test (tc, records_survive_a_kill, 0, 3);
  tcase_add_test (tc, newest_record_counts);
  tcase_add_test (tc, runs_are_split);

  tc = add_case (suite, "slots");
  tcase_add_test (tc, superseded_slot_waits_for_a_flush);
  tcase_add_test (tc, superseded_slot_is_free_after_a_flush);
  tcase_add_test (tc, flush_does_not_cover_what_comes_later);
  tcase_add_test (tc, exhaustion_and_what_is_kept);
  tcase_add_test (tc, few_spares_are_announced);
  tcase_add_test (tc, bad_slots_are_never_used_again);

  tc = add_case (suite, "size");
  tcase_add_test (tc, readiness_grows);
  tcase_add_loop_test (tc, larger_size_grows, 0, 2);
  tcase_add_test (tc, smaller_size_is_refused);
  tcase_add_test (tc, device_too_small);

  tc = add_case (suite, "identity");
  tcase_add_test (tc, store_of_another_disk);
  tcase_add_test (tc, adopted_store);
}

static void
add_durability (Suite *suite)
{
  TCase *tc = add_case (suite, "read");

  tcase_add_test (tc, slot_of_another_sector);
  tcase_add_test (tc, entry_damaged_while_served);
  tcase_add_test (tc, unreadable_slot);

  tc = add_case (suite, "durability");
  tcase_add_test (tc, durable_is_never_too_high);
  tcase_add_test (tc, nothing_new_needs_no_flush);
  tcase_add_test (tc, power_cut_goes_back_to_the_flush);
  tcase_add_test (tc, record_without_its_data);
  tcase_add_test (tc, rotten_data_does_not_bring_back_the_old);

  tc = add_case (suite, "failures");
  tcase_add_test (tc, failed_flush_is_not_forgotten);
  tcase_add_test (tc, failed_flush_frees_nothing);
  tcase_add_loop_test (tc, failed_record_stops_the_store, 0, 2);
  tcase_add_loop_test (tc, unreachable_store_may_be_in_doubt, 0, 2);
  tcase_add_test (tc, failing_device_while_opening);

  tc = add_case (suite, "threads");
  tcase_add_test (tc, flushes_are_shared);
  tcase_add_test (tc, flush_begins_after_the_call);
  tcase_add_test (tc, slots_go_round_among_threads);
}

int
main (void)
{
  Suite *suite = suite_create ("store");
  SRunner *runner;
  int nr_failed;

  add_records (suite);
  add_damage (suite);
  add_durability (suite);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
