/* SPDX-License-Identifier: BSD-3-Clause */
/* The check of a store and its repair: each kind of damage is found and named
 * once, what one good copy can mend is mended, and a repair that is stopped at
 * any moment, or cannot write, leaves a store that can be repaired.
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

#include "crc32c.h"
#include "dev-fault.h"
#include "endian.h"
#include "error.h"
#include "store-check.h"
#include "store.h"

#define NR_SECTORS 16384        /* of the backing */
#define NR_DATA 40              /* sectors 0 ... are remapped */
#define LOST_LBA 100
#define ZEROED_LBA 101

static uint64_t seed;
static struct dev_fault *disk;

/* What the latest check said. */
static char said[65536];
static unsigned nr_said[STORE_FATAL + 1];
static uint64_t nr_repaired;

static void
keep_problem (void *opaque, int damage, const char *problem)
{
  size_t n = strlen (said);

  (void) opaque;
  ck_assert_ptr_null (strchr (problem, '\n'));
  nr_said[damage]++;
  snprintf (said + n, sizeof said - n, "%d: %s\n", damage, problem);
}

static int
run (bool repairs)
{
  struct dev *dev = dev_fault_open (disk);
  int r;

  memset (nr_said, 0, sizeof nr_said);
  said[0] = '\0';
  r = store_check_dev (dev, "store", dev_flush, keep_problem, NULL,
                       repairs ? &nr_repaired : NULL);
  dev_close (dev);
  return r;
}

static void
expect (int r, int worst, unsigned nr_problems)
{
  unsigned nr = nr_said[1] + nr_said[2] + nr_said[3];

  ck_assert_msg (r == worst && nr == nr_problems && nr_said[0] == 0,
                 "%d (worst %d) and %u problems, expected %d and %u: %s\n%s",
                 r, r == -1 ? errno : 0, nr, worst, nr_problems,
                 r == -1 ? last_error_text () : "", said);
}

static void
expect_check (int worst, unsigned nr_problems)
{
  expect (run (false), worst, nr_problems);
}

/* What is there, so that a check can be seen to change nothing. */
static uint8_t *
get_content (void)
{
  uint8_t *r = malloc (dev_fault_size (disk));

  dev_fault_peek (disk, r, dev_fault_size (disk), 0);
  return r;
}

static void
expect_content (uint8_t *content)
{
  uint8_t *now = get_content ();

  ck_assert (memcmp (now, content, dev_fault_size (disk)) == 0);
  free (now);
  free (content);
}

/* A store with data in its first slots, and one lost and one zeroed sector. */

static void
put (struct store *s, uint64_t lba, uint32_t nr, enum sector_state state)
{
  struct sector_run r = { .lba = { lba }, .nr_sectors = nr, .state = state };
  uint8_t buf[NR_DATA * 512];

  for (uint32_t i = 0; i < nr; i++)
    dev_fault_pattern (buf + i * 512, 512, lba + i, 1);
  ck_assert_int_eq (store_take (s, nr, STORE_FOR_NEW, &r.spare), (int) nr);
  if (state == SECTOR_REMAPPED)
    ck_assert_int_eq (store_write (s, r.spare, nr, buf), 0);
  ck_assert_int_eq (store_record (s, &r, CAUSE_WRITE_ERROR,
                                  state == SECTOR_REMAPPED ? buf : NULL), 0);
  store_settle (s, nr);
}

/* Opened, and made where there is none. */
static struct store *
open_store (uint64_t nr_slots)
{
  struct identity backing = {
    .kind = DEV_FILE, .size_bytes = NR_SECTORS * 512, .sector_bytes = 512,
    .id = "", .path = "disk.img",
  };
  struct store_options options = {
    .path = "store", .backing = &backing, .spare_bytes = nr_slots * 512,
  };
  struct map *map = NULL;
  struct store *s = store_open_dev (dev_fault_open (disk), &options, &map);

  ck_assert_msg (s != NULL, "%s", last_error_text ());
  map_free (map);
  return s;
}

static void
make (bool is_closed)
{
  struct store *s;

  disk = dev_fault_new (&(struct dev_fault_options) {
                          .kind = DEV_FILE, .is_volatile = true });
  s = open_store (128);
  put (s, 0, NR_DATA, SECTOR_REMAPPED);
  put (s, LOST_LBA, 1, SECTOR_LOST);
  put (s, ZEROED_LBA, 1, SECTOR_ZEROED);
  if (is_closed)
    store_close (s);
  else
    store_abandon (s);
}

static struct store_super
get_super (void)
{
  uint8_t block[STORE_BLOCK];
  struct store_super super;

  dev_fault_peek (disk, block, sizeof block, 0);
  ck_assert_ptr_null (store_super_decode (block, 0, &super));
  return super;
}

static void
flip (uint64_t offset)
{
  uint8_t byte;

  dev_fault_peek (disk, &byte, 1, offset);
  byte ^= 0x10;
  dev_fault_poke (disk, &byte, 1, offset);
}

/* Where each copy of superblock, commit sector, entry of slot 5 begins. */
static uint64_t
place_of (int what, unsigned copy)
{
  struct store_super super = get_super ();

  switch (what) {
  case 0: return copy ? super.store_bytes - STORE_BLOCK : 0;
  case 1: return copy ? super.store_bytes - STORE_TAIL_BYTES : COMMIT_A_OFFSET;
  default: return store_entry_at (&super, (spare_t) { 5 }, copy);
  }
}

/* The second run has nothing to do and writes nothing. */
static void
expect_sound (void)
{
  uint8_t *content;

  expect_check (STORE_NORMAL, 0);
  content = get_content ();
  dev_fault_fail_calls (disk, DEV_FAULT_CHANGES, 1, true, EROFS);
  expect (run (true), STORE_NORMAL, 0);
  ck_assert_uint_eq (nr_repaired, 0);
  dev_fault_heal_calls (disk);
  expect_content (content);
  dev_fault_free (disk);
}

START_TEST (sound_store)
{
  make (true);
  expect_sound ();
}
END_TEST

START_TEST (one_copy)
{
  for (unsigned copy = 0; copy < 2; copy++) {
    uint8_t *content;

    make (true);
    flip (place_of (_i, copy) + 21);
    content = get_content ();
    expect_check (STORE_REPAIRABLE, 1);
    ck_assert_msg (strstr (said, copy ? "second" : "first"), "%s", said);
    expect_content (content);
    expect (run (true), STORE_NORMAL, 1);
    ck_assert_uint_eq (nr_repaired, 1);
    expect_sound ();
  }
}
END_TEST

START_TEST (both_copies)
{
  uint64_t place[2];
  uint8_t *content;

  make (true);
  for (unsigned copy = 0; copy < 2; copy++)
    place[copy] = place_of (_i, copy);
  flip (place[0] + 21);
  flip (place[1] + 21);
  content = get_content ();
  ck_assert_int_eq (run (true), STORE_FATAL);
  ck_assert_uint_eq (nr_said[STORE_FATAL], 1);
  ck_assert_uint_eq (nr_repaired, 0);
  expect_content (content);
  dev_fault_free (disk);
}
END_TEST

/* A copy that cannot be read is written anew; where it cannot be written
 * either, that is what is left.
 */
START_TEST (unreadable_copy)
{
  uint64_t sector;

  make (true);
  sector = place_of (_i, 1) / 512;
  dev_fault_spoil (disk, sector, 1, DEV_FAULT_BAD_READ, 0, 0);
  expect_check (STORE_REPAIRABLE, _i == 2 ? 18 : 1);
  ck_assert_int_eq (run (true), STORE_NORMAL);
  ck_assert_uint_eq (nr_repaired, _i == 2 ? 18 : 1);
  dev_fault_spoil (disk, sector, 1, DEV_FAULT_BAD, 0, 0);
  ck_assert_int_eq (run (true), STORE_REPAIRABLE);
  ck_assert_uint_eq (nr_repaired, 0);
  ck_assert_msg (strstr (said, "after the repair"), "%s", said);
  dev_fault_mend (disk, sector, 1);
  ck_assert_int_eq (run (true), STORE_NORMAL);
  expect_sound ();
}
END_TEST

/* Data that has rotted, or cannot be read, is told of by sector, and left. */
START_TEST (damaged_data)
{
  struct store_super super;
  uint8_t *content;

  make (true);
  super = get_super ();
  flip (store_data_at (&super, (spare_t) { 7 }));
  flip (store_data_at (&super, (spare_t) { NR_DATA - 1 }) + 511);
  flip (store_data_at (&super, (spare_t) { NR_DATA }));         /* lost */
  flip (store_data_at (&super, (spare_t) { NR_DATA + 5 }));     /* free */
  content = get_content ();
  expect_check (STORE_LASTING, 2);
  ck_assert (strstr (said, "slot 7: the data of sector 7 is damaged"));
  ck_assert (strstr (said, "sector 39 is damaged"));
  expect (run (true), STORE_LASTING, 2);
  ck_assert_uint_eq (nr_repaired, 0);
  expect_content (content);

  dev_fault_spoil (disk, store_data_at (&super, (spare_t) { 9 }) / 512, 1,
                   DEV_FAULT_BAD_READ, 0, 0);
  flip (place_of (0, 1) + 100);
  expect_check (STORE_LASTING, 4);
  ck_assert (strstr (said, "sector 9 cannot be read"));
  expect (run (true), STORE_LASTING, 4);        /* not told of twice */
  ck_assert_uint_eq (nr_repaired, 1);
  expect_check (STORE_LASTING, 3);
  dev_fault_free (disk);
}
END_TEST

/* A store that has grown has its slots in several places. */
START_TEST (several_sections)
{
  struct store_super super;
  struct store *s;

  make (true);
  s = open_store (512);
  put (s, 1000, 40, SECTOR_REMAPPED);
  put (s, 1040, 40, SECTOR_REMAPPED);
  put (s, 1080, 14, SECTOR_REMAPPED);   /* up to the end of the first one */
  put (s, 1094, 40, SECTOR_REMAPPED);
  store_close (s);
  expect_check (STORE_NORMAL, 0);
  super = get_super ();
  ck_assert_uint_eq (super.nr_sections, 2);
  for (uint32_t slot = 134; slot < 138; slot++)         /* 136: the second */
    flip (store_data_at (&super, (spare_t) { slot }) + slot);
  expect_check (STORE_LASTING, 4);
  ck_assert_msg (strstr (said, "slot 135: the data of sector 1093 "), "%s",
                 said);
  ck_assert (strstr (said, "slot 136: the data of sector 1094 "));
  dev_fault_free (disk);
}
END_TEST

/* An error that is not the medium's ends the check. */
START_TEST (reading_fails)
{
  unsigned n = 1;

  for (;; n++) {
    make (true);
    dev_fault_fail_calls (disk, DEV_FAULT_PREAD, n, true, ENODEV);
    if (run (false) == STORE_NORMAL)
      break;
    dev_fault_heal_calls (disk);
    expect_check (STORE_NORMAL, 0);
    dev_fault_free (disk);
  }
  ck_assert_uint_gt (n, 6);
  dev_fault_free (disk);
}
END_TEST

/* Bytes whose checksum somebody has put right. */

static void
change_super (unsigned copy, unsigned offset, uint8_t value)
{
  uint64_t place = place_of (0, copy);
  uint8_t block[STORE_BLOCK];

  dev_fault_peek (disk, block, sizeof block, place);
  block[offset] = value;
  put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
  dev_fault_poke (disk, block, sizeof block, place);
}

START_TEST (reserved_of_superblock)
{
  make (true);
  change_super (0, 3000, 1);
  change_super (1, 3000, 1);
  expect_check (STORE_REPAIRABLE, 2);
  expect (run (true), STORE_NORMAL, 2);
  expect_sound ();

  make (true);                  /* a later version may know better */
  change_super (0, 3000, 1);
  change_super (1, 3000, 1);
  change_super (0, SUPER_COMPAT, 1);
  change_super (1, SUPER_COMPAT, 1);
  expect_sound ();
}
END_TEST

START_TEST (reserved_of_commit_sector)
{
  uint8_t sector[COMMIT_BYTES];

  make (true);
  for (unsigned copy = 0; copy < 2; copy++) {
    dev_fault_peek (disk, sector, sizeof sector, place_of (1, copy));
    sector[200] = 1;
    put_le32 (sector + COMMIT_CRC, crc32c (0, sector, COMMIT_CRC));
    dev_fault_poke (disk, sector, sizeof sector, place_of (1, copy));
  }
  expect_check (STORE_REPAIRABLE, 2);
  expect (run (true), STORE_NORMAL, 2);
  expect_sound ();
}
END_TEST

START_TEST (superblocks_differ)
{
  make (true);
  change_super (1, SUPER_NR_READY, (uint8_t) (get_super ().nr_ready - 1));
  expect_check (STORE_FATAL, 1);
  ck_assert_int_eq (run (true), STORE_FATAL);
  dev_fault_free (disk);
}
END_TEST

START_TEST (later_version)
{
  uint8_t *content;

  make (true);
  change_super (0, SUPER_RO_COMPAT, 1);
  change_super (1, SUPER_RO_COMPAT, 1);
  expect_check (STORE_NORMAL, 0);
  flip (place_of (2, 0) + 21);
  content = get_content ();
  expect_check (STORE_REPAIRABLE, 1);
  ck_assert_int_eq (run (true), -1);
  ck_assert_int_eq (errno, EUCLEAN);
  ck_assert_uint_eq (nr_repaired, 0);
  expect_content (content);
  dev_fault_free (disk);
}
END_TEST

static void
change_entry (uint32_t slot, const struct store_entry *e)
{
  struct store_super super = get_super ();
  uint8_t bytes[ENTRY_BYTES];

  store_entry_encode (e, super.uuid, (spare_t) { slot }, bytes);
  for (unsigned copy = 0; copy < 2; copy++)
    dev_fault_poke (disk, bytes, sizeof bytes,
                    store_entry_at (&super, (spare_t) { slot }, copy));
}

static const struct {
  struct store_entry entry;
  int worst;
} odd_entries[] = {
  { { .state = ENTRY_FREE, .seq = 1 }, STORE_NORMAL },
  { { .state = ENTRY_FREE, .lba = { 1 } }, STORE_LASTING },
  { { .state = ENTRY_FREE, .time_s = 1 }, STORE_LASTING },
  { { .state = ENTRY_FREE, .cause = 1 }, STORE_LASTING },
  { { .state = ENTRY_BAD_SLOT, .seq = 2, .time_s = 1, .cause = 4 },
    STORE_NORMAL },
  { { .state = ENTRY_BAD_SLOT, .lba = { 1 } }, STORE_LASTING },
  { { .state = ENTRY_LOST, .lba = { 200 }, .data_crc = 1 }, STORE_LASTING },
  { { .state = ENTRY_ZEROED, .lba = { 200 }, .data_crc = 1 }, STORE_LASTING },
  { { .state = ENTRY_LOST, .lba = { NR_SECTORS } }, STORE_FATAL },
  { { .state = ENTRY_LOST, .lba = { 3 }, .seq = 1 }, STORE_FATAL }, /* twice */
  { { .state = ENTRY_LOST, .lba = { 200 }, .seq = SEQ_MAX }, STORE_FATAL },
};
#define NR_ODD_ENTRIES ((int) (sizeof odd_entries / sizeof odd_entries[0]))

START_TEST (odd_entry)
{
  make (true);
  change_entry (100, &odd_entries[_i].entry);
  expect_check (odd_entries[_i].worst, odd_entries[_i].worst != STORE_NORMAL);
  dev_fault_free (disk);
}
END_TEST

/* What a power cut has made void is settled by a repair: nothing was damaged,
 * and it cannot come back.
 */
START_TEST (void_records)
{
  struct store_super super;
  uint64_t place;

  make (false);
  super = get_super ();
  place = store_data_at (&super, (spare_t) { 7 });
  flip (place);
  expect_check (STORE_NORMAL, 0);
  expect (run (true), STORE_NORMAL, 0);
  flip (place);
  flip (store_data_at (&super, (spare_t) { 8 }));       /* is durable now */
  expect_check (STORE_LASTING, 1);
  ck_assert (strstr (said, "slot 8"));
  flip (store_data_at (&super, (spare_t) { 8 }));
  {
    struct dev *dev = dev_fault_open (disk);
    struct store_image image;

    ck_assert_int_eq (store_load (dev, "store", NULL, NULL, &image), 0);
    ck_assert_uint_eq (image.nr_remapped, NR_DATA - 1);
    ck_assert_uint_eq (image.nr_lost, 1);
    ck_assert (image.commit.is_clean && image.commit.pid == 0);
    store_image_free (&image);
    dev_close (dev);
  }
  expect_sound ();
}
END_TEST

/* The world stops in the repair. */

static void
damage_much (void)
{
  struct store_super super = get_super ();

  flip (store_data_at (&super, (spare_t) { 35 }));      /* void */
  flip (place_of (0, 1) + 33);
  flip (place_of (1, 0) + 33);
  for (uint32_t slot = 0; slot < 30; slot++)
    flip (store_entry_at (&super, (spare_t) { slot }, slot % 2));
}

START_TEST (repair_stops)
{
  unsigned n = 1;

  for (;; n++) {
    int r;

    make (false);
    damage_much ();
    dev_fault_fail_calls (disk, DEV_FAULT_CHANGES | DEV_FAULT_FLUSH, n, true,
                          ENODEV);
    r = run (true);
    dev_fault_heal_calls (disk);
    if (r != -1) {
      expect (r, STORE_NORMAL, 32);
      ck_assert_uint_eq (nr_repaired, 32);
      expect_sound ();
      break;
    }
    ck_assert_int_eq (last_error_errno (), ENODEV);
    if (_i > 0)
      dev_fault_cut_power (disk, _i == 1 ? 0 : dev_fault_random (&seed));
    ck_assert_int_le (run (false), STORE_REPAIRABLE);
    ck_assert_int_eq (run (true), STORE_NORMAL);
    expect_sound ();
  }
  ck_assert_uint_gt (n, 36);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("store-check");
  TCase *tc = tcase_create ("check");

  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, sound_store);
  tcase_add_loop_test (tc, one_copy, 0, 3);
  tcase_add_loop_test (tc, both_copies, 0, 3);
  tcase_add_loop_test (tc, unreadable_copy, 0, 3);
  tcase_add_test (tc, damaged_data);
  tcase_add_test (tc, several_sections);
  tcase_add_test (tc, reading_fails);
  tcase_add_test (tc, reserved_of_superblock);
  tcase_add_test (tc, reserved_of_commit_sector);
  tcase_add_test (tc, superblocks_differ);
  tcase_add_test (tc, later_version);
  tcase_add_loop_test (tc, odd_entry, 0, NR_ODD_ENTRIES);
  tcase_add_test (tc, void_records);
  tcase_add_loop_test (tc, repair_stops, 0, 6);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  seed = given ? strtoull (given, NULL, 0) : (uint64_t) time (NULL);
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) seed);
  fflush (stdout);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
