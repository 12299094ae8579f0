/* SPDX-License-Identifier: BSD-3-Clause */
/* What a store says, against a plain model of "which record counts", and what
 * it is refused for: with so many entries that the load reads their tables in
 * several stretches, and in two sections.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checked.h"
#include "crc32c.h"
#include "dev-fault.h"
#include "error.h"
#include "store-load.h"

#define NR_LBAS 50000           /* of the backing */
#define NR_FIRST 100000         /* slots of the first section */
#define NR_SLOTS 160000
#define DURABLE UINT64_C (1000000)

static struct dev_fault *disk;
static struct store_super super;
static struct store_entry *entries;     /* what the tables say */
static uint64_t seed;

static uint32_t
random_below (uint32_t n)
{
  return (uint32_t) (dev_fault_random (&seed) % n);
}

static void
begin (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  uint64_t end;

  seed = given ? strtoull (given, NULL, 0) : (uint64_t) time (NULL);
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) seed);
  super = (struct store_super) {
    .sector_bytes = 512, .uuid = "sixteen bytes .", .generation = 1,
    .backing_bytes = NR_LBAS * 512, .backing_kind = DEV_FILE, .nr_kept = 8,
    .nr_ready = NR_SLOTS - 7, .nr_sections = 2,
  };
  end = store_section_layout (&super.sections[0], 0, NR_FIRST, 512,
                              STORE_HEAD_BYTES);
  end = store_section_layout (&super.sections[1], NR_FIRST,
                              NR_SLOTS - NR_FIRST, 512, end + STORE_BLOCK);
  super.store_bytes = end + STORE_TAIL_BYTES;
  disk = dev_fault_new (&(struct dev_fault_options) {
                          .size_bytes = super.store_bytes });
  entries = calloc (NR_SLOTS, sizeof *entries);
}

static void
end (void)
{
  dev_fault_free (disk);
  free (entries);
}

static void
poke_entry (uint32_t slot, unsigned copy, const struct store_entry *e)
{
  uint8_t bytes[ENTRY_BYTES];

  store_entry_encode (e, super.uuid, (spare_t) { slot }, bytes);
  dev_fault_poke (disk, bytes, sizeof bytes,
                  store_entry_at (&super, (spare_t) { slot }, copy));
}

/* Both copies of an entry. */
static void
set_entry (uint32_t slot, const struct store_entry *e)
{
  entries[slot] = *e;
  poke_entry (slot, 0, e);
  poke_entry (slot, 1, e);
}

static void
write_heads (void)
{
  uint8_t block[STORE_BLOCK], sector[COMMIT_BYTES];
  struct store_commit commit = { .durable_seq = DURABLE };

  memcpy (commit.uuid, super.uuid, sizeof commit.uuid);
  store_commit_encode (&commit, sector);
  for (unsigned copy = 0; copy < 2; copy++) {
    store_super_encode (&super, copy, block);
    dev_fault_poke (disk, block, sizeof block,
                    copy ? super.store_bytes - STORE_BLOCK : 0);
    dev_fault_poke (disk, sector, sizeof sector,
                    copy ? super.store_bytes - STORE_TAIL_BYTES
                    : COMMIT_A_OFFSET);
  }
}

/* An entry with a sequence number that no other slot has. */
static struct store_entry
random_entry (uint32_t slot)
{
  static const enum entry_state states[] = {
    ENTRY_FREE, ENTRY_FREE, ENTRY_BAD_SLOT, ENTRY_LOST, ENTRY_ZEROED,
    ENTRY_REMAPPED, ENTRY_REMAPPED, ENTRY_REMAPPED, ENTRY_REMAPPED,
  };
  struct store_entry e = { .state = states[random_below (9)] };

  e.seq = ((uint64_t) slot * 7919 + 13) % 180001 + 1;
  if (e.state == ENTRY_FREE || e.state == ENTRY_BAD_SLOT)
    return e;
  e.lba.n = random_below (NR_LBAS);
  e.data_crc = e.state == ENTRY_REMAPPED ? random_below (UINT32_MAX) : 0;
  e.cause = (enum sector_cause) random_below (5);
  return e;
}

static void
write_random (void)
{
  write_heads ();
  for (uint32_t slot = 0; slot < NR_SLOTS; slot++) {
    struct store_entry e = random_entry (slot);

    set_entry (slot, &e);
  }
  /* The newest that was durable; no test changes this slot. */
  set_entry (5, &(struct store_entry) { .state = ENTRY_FREE, .seq = DURABLE });
}

/* Problems, counted and the last one kept. */
struct problems {
  unsigned nr[STORE_FATAL + 1];
  char last[512];
};

static void
note_problem (void *opaque, int damage, const char *problem)
{
  struct problems *p = opaque;

  p->nr[damage]++;
  snprintf (p->last, sizeof p->last, "%s", problem);
}

static int
try_load (struct store_image *image, struct problems *p)
{
  struct dev *dev = dev_fault_open (disk);
  int r, err;

  memset (p, 0, sizeof *p);
  r = store_load (dev, "store", note_problem, p, image);
  err = errno;
  dev_close (dev);
  errno = err;
  return r;
}

/* What counts, sector by sector: slot + 1, 0 none. */
static uint32_t *
count_records (void)
{
  uint32_t *winner = calloc (NR_LBAS, sizeof *winner);

  for (uint32_t slot = 0; slot < super.nr_ready; slot++) {
    const struct store_entry *e = &entries[slot];

    if (e->state != ENTRY_FREE && e->state != ENTRY_BAD_SLOT &&
        (winner[e->lba.n] == 0 ||
         entries[winner[e->lba.n] - 1].seq < e->seq))
      winner[e->lba.n] = slot + 1;
  }
  return winner;
}

static void
expect_winner (const struct sector_run *run, uint64_t i, uint32_t winner)
{
  const struct store_entry *e = &entries[winner - 1];

  if (winner == 0 || run->spare.n + i != winner - 1 ||
      run->state != (e->state == ENTRY_REMAPPED ? SECTOR_REMAPPED
                     : e->state == ENTRY_LOST ? SECTOR_LOST : SECTOR_ZEROED))
    ck_abort_msg ("sector %llu is %s in slot %llu, the model has slot %lld",
                  (unsigned long long) (run->lba.n + i),
                  sector_state_to_string (run->state),
                  (unsigned long long) (run->spare.n + i),
                  (long long) winner - 1);
}

/* The image is what the entries say. */
static void
expect_as_modelled (const struct store_image *image)
{
  uint32_t *winner = count_records ();
  uint64_t next = 0, nr_bad = 0, nr_unreadable = 0, max_seq = 0;

  for (size_t i = 0; i < image->nr_runs; i++) {
    const struct sector_run *run = &image->runs[i];

    for (; next < run->lba.n; next++)
      if (winner[next])
        ck_abort_msg ("sector %llu is missing", (unsigned long long) next);
    for (uint64_t k = 0; k < run->nr_sectors; k++, next++)
      expect_winner (run, k, winner[next]);
  }
  for (; next < NR_LBAS; next++)
    if (winner[next])
      ck_abort_msg ("sector %llu is missing", (unsigned long long) next);
  for (uint32_t slot = 0; slot < super.nr_ready; slot++) {
    nr_bad += entries[slot].state == ENTRY_BAD_SLOT;
    nr_unreadable += entries[slot].state == ENTRY_LOST &&
      entries[slot].cause == CAUSE_SPARE_ERROR &&
      winner[entries[slot].lba.n] == slot + 1;
    max_seq = MAX (max_seq, entries[slot].seq);
  }
  ck_assert_uint_eq (image->bad_slots.nr, nr_bad);
  ck_assert_uint_eq (image->unreadable.nr, nr_unreadable);
  ck_assert_uint_eq (image->max_seq, MAX (max_seq, DURABLE));
  free (winner);
}

START_TEST (newest_records_count)
{
  struct store_image image;
  struct problems p;

  write_random ();
  ck_assert_msg (try_load (&image, &p) == 0, "%s", last_error_text ());
  ck_assert_uint_eq (p.nr[STORE_NORMAL] + p.nr[STORE_REPAIRABLE], 0);
  ck_assert_uint_eq (image.nr_fixes, 0);
  expect_as_modelled (&image);
  store_image_free (&image);
}
END_TEST

/* One copy of some entries is old, or damaged, or cannot be read: whatever
 * stretch they are in, the other one counts, and the fixes say so.
 */
START_TEST (one_copy_counts)
{
  struct store_image image;
  struct problems p;
  unsigned nr_old = 0, nr_bad = 0;

  write_random ();
  for (uint32_t slot = 0; slot < super.nr_ready; slot += 997) {
    unsigned copy = slot & 1;
    uint64_t at = store_entry_at (&super, (spare_t) { slot }, copy);

    if (slot % 3 == 0) {
      poke_entry (slot, copy, &(struct store_entry) { .state = ENTRY_FREE });
      nr_old++;
    }
    else if (slot % 3 == 1) {
      dev_fault_poke (disk, "?", 1, at + 5);
      nr_bad++;
    }
    else {
      dev_fault_spoil (disk, at / 512, 1, DEV_FAULT_BAD_READ, 0, 0);
      for (uint32_t other = slot - 17; other < slot + 18; other++)
        nr_bad += other < super.nr_ready &&
          store_entry_at (&super, (spare_t) { other }, copy) / 512 == at / 512;
    }
  }
  ck_assert_msg (try_load (&image, &p) == 0, "%s", last_error_text ());
  ck_assert_uint_eq (p.nr[STORE_NORMAL], nr_old);
  ck_assert_uint_eq (p.nr[STORE_REPAIRABLE], nr_bad);
  ck_assert_uint_eq (image.nr_fixes, nr_old + nr_bad);
  for (size_t i = 0; i < image.nr_fixes; i++) {
    const struct store_fix *f = &image.fixes[i];

    ck_assert (i == 0 || f[-1].slot.n < f->slot.n);
    ck_assert (f->copy[0] != f->copy[1]);
    ck_assert_uint_eq (f->entry.seq, entries[f->slot.n].seq);
  }
  expect_as_modelled (&image);
  store_image_free (&image);
}
END_TEST

/* Records that no flush covers count only with their data. */
START_TEST (data_proves_what_is_not_durable)
{
  static const uint8_t zeroes[512];
  struct store_image image;
  struct problems p;
  unsigned nr_dropped = 0;

  write_random ();
  for (uint32_t slot = 0; slot < super.nr_ready; slot += 1009) {
    struct store_entry e = {
      .lba = { slot % NR_LBAS }, .seq = DURABLE + slot + 1,
      .state = ENTRY_REMAPPED, .cause = CAUSE_REWRITE,
      .data_crc = crc32c (0, zeroes, sizeof zeroes) + slot % 2,
    };

    set_entry (slot, &e);
    if (slot % 2) {             /* its data is another's */
      entries[slot] = (struct store_entry) { .state = ENTRY_FREE,
                                             .seq = e.seq };
      nr_dropped++;
    }
  }
  ck_assert_msg (try_load (&image, &p) == 0, "%s", last_error_text ());
  ck_assert_uint_gt (nr_dropped, 10);
  ck_assert_uint_eq (p.nr[STORE_NORMAL], nr_dropped);
  ck_assert_uint_eq (image.nr_fixes, nr_dropped);
  image.max_seq -= nr_dropped;  /* each got a number for its fix */
  expect_as_modelled (&image);
  store_image_free (&image);
}
END_TEST

static void
expect_refused (const char *problem)
{
  struct store_image image;
  struct problems p;

  ck_assert_int_eq (try_load (&image, &p), -1);
  ck_assert_int_eq (errno, EUCLEAN);
  ck_assert_str_eq (p.last, problem);
  ck_assert_msg (strstr (last_error_text (), problem), "%s",
                 last_error_text ());
  ck_assert_uint_eq (p.nr[STORE_FATAL], 1);
}

static const struct store_entry lost_7 = {
  .lba = { 7 }, .seq = 500000, .state = ENTRY_LOST,
};

START_TEST (two_records_of_one_age)
{
  write_random ();
  set_entry (150001, &lost_7);
  set_entry (90000, &lost_7);
  expect_refused ("slots 90000 and 150001 both stand in for sector 7");
}
END_TEST

/* Where a newer record counts, nobody looks at the old ones. */
START_TEST (two_old_records_of_one_age)
{
  struct store_entry newer = lost_7;
  struct store_image image;
  struct problems p;

  write_random ();
  newer.seq++;
  set_entry (150001, &lost_7);
  set_entry (90000, &lost_7);
  set_entry (20000, &newer);
  ck_assert_msg (try_load (&image, &p) == 0, "%s", last_error_text ());
  expect_as_modelled (&image);
  store_image_free (&image);
}
END_TEST

START_TEST (copies_of_one_age_that_differ)
{
  struct store_entry e = lost_7;

  write_random ();
  set_entry (150001, &e);
  e.cause = CAUSE_SPARE_ERROR;
  poke_entry (150001, 1, &e);
  expect_refused ("slot 150001: both copies of its entry are good and of the "
                  "same age, but differ");
}
END_TEST

START_TEST (both_copies_damaged)
{
  write_random ();
  for (unsigned copy = 0; copy < 2; copy++)
    dev_fault_poke (disk, "?", 1, store_entry_at (
                      &super, (spare_t) { 80001 }, copy) + ENTRY_CRC);
  if (_i == 1)                  /* alike or not, that is the same */
    dev_fault_poke (disk, "!", 1, store_entry_at (
                      &super, (spare_t) { 80001 }, 1) + ENTRY_TIME);
  expect_refused ("slot 80001: the first copy of its entry has a wrong "
                  "checksum, and the second has a wrong checksum");
}
END_TEST

START_TEST (sector_behind_the_end)
{
  struct store_entry e = lost_7;

  write_random ();
  e.lba.n = NR_LBAS;
  set_entry (150001, &e);
  expect_refused ("slot 150001 is for sector 50000 of a disk with 50000 "
                  "sectors");
}
END_TEST

/* The largest number that is served, and the next one. */
START_TEST (sequence_numbers_without_end)
{
  struct store_entry e = lost_7;
  struct store_image image;
  struct problems p;

  write_random ();
  e.seq = SEQ_MAX / 2;
  set_entry (150001, &e);
  ck_assert_msg (try_load (&image, &p) == 0, "%s", last_error_text ());
  expect_as_modelled (&image);
  store_image_free (&image);
  e.seq++;
  set_entry (150001, &e);
  expect_refused ("its sequence numbers are used up");
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("store-load");
  TCase *tc = tcase_create ("records");
  SRunner *runner;
  int nr_failed;

  tcase_add_checked_fixture (tc, begin, end);
  tcase_set_timeout (tc, 250);
  tcase_add_test (tc, newest_records_count);
  tcase_add_test (tc, one_copy_counts);
  tcase_add_test (tc, data_proves_what_is_not_durable);
  tcase_add_test (tc, two_old_records_of_one_age);
  suite_add_tcase (suite, tc);
  tc = tcase_create ("refusals");
  tcase_add_checked_fixture (tc, begin, end);
  tcase_set_timeout (tc, 250);
  tcase_add_test (tc, two_records_of_one_age);
  tcase_add_test (tc, copies_of_one_age_that_differ);
  tcase_add_loop_test (tc, both_copies_damaged, 0, 2);
  tcase_add_test (tc, sector_behind_the_end);
  tcase_add_test (tc, sequence_numbers_without_end);
  suite_add_tcase (suite, tc);

  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
