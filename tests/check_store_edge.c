/* SPDX-License-Identifier: BSD-3-Clause */
/* The edges of the format: a store with as many slots as there can be, its
 * first and its last one; disks with sectors far beyond 2^32; sectors so large
 * that the smallest store has room for less than one.
 *
 * The store is a device in memory that has only the blocks that were written.
 * (Not shown: a store of which all slots are ready.  It has 92 GB of table.)
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "engine.h"
#include "error.h"
#include "store-internal.h"

#define MOST (SPARES_MAX - 256)

/* A sparse device. */

#define BLOCK 4096
#define NR_BUCKETS 4096

struct block {
  uint64_t number;
  struct block *next;
  uint8_t bytes[BLOCK];
};

struct sparse {
  struct block *buckets[NR_BUCKETS];
  uint64_t size_bytes;
};

struct handle {
  struct dev dev;
  struct sparse *sparse;
};

static struct block *
find_block (struct sparse *s, uint64_t number, bool make)
{
  struct block **bucket = &s->buckets[number % NR_BUCKETS], *b = *bucket;

  while (b && b->number != number)
    b = b->next;
  if (b == NULL && make) {
    b = calloc (1, sizeof *b);
    b->number = number;
    b->next = *bucket;
    *bucket = b;
  }
  return b;
}

static struct sparse *
sparse_of (struct dev *dev)
{
  return ((struct handle *) dev)->sparse;
}

/* A part of a transfer within one block. */
static size_t
part_of (size_t count, uint64_t offset)
{
  return MIN (count, (size_t) (BLOCK - offset % BLOCK));
}

static int
sparse_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
              unsigned flags)
{
  uint8_t *p = buf;

  ck_assert_uint_le (offset + count, sparse_of (dev)->size_bytes);
  while (count > 0) {
    const struct block *b = find_block (sparse_of (dev), offset / BLOCK, false);
    size_t n = part_of (count, offset);

    if (b)
      memcpy (p, b->bytes + offset % BLOCK, n);
    else
      memset (p, 0, n);
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
sparse_pwrite (struct dev *dev, const void *buf, size_t count,
               uint64_t offset, unsigned flags)
{
  const uint8_t *p = buf;

  ck_assert_uint_le (offset + count, sparse_of (dev)->size_bytes);
  while (count > 0) {
    struct block *b = find_block (sparse_of (dev), offset / BLOCK, true);
    size_t n = part_of (count, offset);

    memcpy (b->bytes + offset % BLOCK, p, n);
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

static int
sparse_flush (struct dev *dev)
{
  return 0;
}

static int
sparse_clear (struct dev *dev, uint64_t count, uint64_t offset, unsigned flags)
{
  return set_error (EOPNOTSUPP, "no");
}

static int
sparse_resize (struct dev *dev, uint64_t size_bytes)
{
  sparse_of (dev)->size_bytes = dev->info.size_bytes = size_bytes;
  return 0;
}

static void
sparse_close (struct dev *dev)
{
  free (dev);
}

static const struct dev_ops sparse_ops = {
  .pread = sparse_pread, .pwrite = sparse_pwrite, .flush = sparse_flush,
  .zero = sparse_clear, .trim = sparse_clear, .resize = sparse_resize,
  .close = sparse_close,
};

static struct dev *
open_sparse (struct sparse *s, uint32_t sector_bytes)
{
  struct handle *h = calloc (1, sizeof *h);

  *h = (struct handle) {
    .sparse = s,
    .dev.info = {
      .size_bytes = s->size_bytes, .sector_bytes = sector_bytes,
      .physical_bytes = sector_bytes, .kind = DEV_FILE, .direct = true,
      .name = "sparse",
    },
  };
  dev_init (&h->dev, &sparse_ops);
  return &h->dev;
}

static void
free_sparse (struct sparse *s)
{
  for (unsigned i = 0; i < NR_BUCKETS; i++)
    while (s->buckets[i]) {
      struct block *next = s->buckets[i]->next;

      free (s->buckets[i]);
      s->buckets[i] = next;
    }
  s->size_bytes = 0;
}

/* The store under test. */

static struct sparse sparse;
static struct store *store;
static struct map *map;
static uint32_t sector_bytes;
static uint64_t backing_bytes;

static int
try_to_open (uint64_t nr_spares)
{
  struct identity identity = {
    .kind = DEV_FILE, .size_bytes = backing_bytes,
    .sector_bytes = sector_bytes, .path = "backing",
  };
  struct store_options options = {
    .path = "store", .backing = &identity,
    .spare_bytes = nr_spares * sector_bytes,
  };

  store = store_open_dev (open_sparse (&sparse, 512), &options, &map);
  return store ? 0 : -1;
}

static void
open_store (uint64_t nr_spares)
{
  ck_assert_msg (try_to_open (nr_spares) == 0, "%s", last_error_text ());
  store_verify (store, map);
}

static void
close_store (void)
{
  store_close (store);
  map_free (map);
}

static void
fill (uint8_t *buf, uint64_t lba)
{
  for (uint32_t i = 0; i < sector_bytes; i++)
    buf[i] = (uint8_t) (lba * 31 + i * 7 + i / 256);
}

/* Remap a sector to this slot, which is taken. */
static void
remap_to (uint64_t lba, spare_t slot)
{
  struct sector_run run = {
    .lba = { lba }, .nr_sectors = 1, .state = SECTOR_REMAPPED, .spare = slot,
  };
  uint8_t *buf = malloc (sector_bytes);

  fill (buf, lba);
  ck_assert_int_eq (store_write (store, slot, 1, buf), 0);
  ck_assert_int_eq (store_record (store, &run, CAUSE_WRITE_ERROR, buf), 0);
  {
    LOCK_FOR_SCOPE (store_map_lock (store));
    ck_assert_int_eq (map_set (map, &run), 0);
  }
  store_settle (store, 1);
  free (buf);
}

static void
expect_remapped (uint64_t lba, uint32_t slot)
{
  uint8_t *buf = malloc (2 * sector_bytes);
  struct sector_run run;

  map_next (map, (lba_t) { lba }, 1, &run);
  ck_assert_int_eq (run.state, SECTOR_REMAPPED);
  ck_assert_uint_eq (run.spare.n, slot);
  ck_assert_msg (store_read (store, run.spare, run.lba, 1, buf) == 0, "%s",
                 last_error_text ());
  fill (buf + sector_bytes, lba);
  ck_assert (memcmp (buf, buf + sector_bytes, sector_bytes) == 0);
  free (buf);
}

static spare_t
take (enum store_purpose purpose)
{
  spare_t slot;

  ck_assert_msg (store_take (store, 1, purpose, &slot) == 1, "%s",
                 last_error_text ());
  return slot;
}

static struct status
get_status (void)
{
  struct status status = { .spares_total = 0 };

  store_get_status (store, &status);
  return status;
}

static const uint32_t sector_sizes[] = { 512, 4096, 65536 };

static void
begin (uint32_t bytes, uint64_t nr_sectors)
{
  sector_bytes = bytes;
  backing_bytes = nr_sectors * bytes;
}

/* The largest store, and one that is larger. */
START_TEST (largest_store)
{
  begin (sector_sizes[_i], 1000);
  ck_assert_int_eq (try_to_open (MOST + 1), -1);
  ck_assert_int_eq (errno, EINVAL);
  ck_assert_ptr_nonnull (strstr (last_error_text (), "too large: at most"));
  ck_assert_uint_eq (sparse.size_bytes, 0);

  open_store (MOST);
  ck_assert_uint_eq (get_status ().spares_total, MOST);
  remap_to (7, take (STORE_FOR_NEW));
  expect_remapped (7, 0);
  close_store ();
  ck_assert_int_eq (try_to_open (MOST + 1), -1);
  ck_assert_int_eq (errno, EINVAL);
  open_store (MOST);
  expect_remapped (7, 0);
  ck_assert_uint_eq (get_status ().spares_free, MOST - 1);
  close_store ();
  free_sparse (&sparse);
}
END_TEST

/* A store that grows as far as it can. */
START_TEST (grown_to_the_largest)
{
  begin (sector_sizes[_i], 1000);
  open_store (5000);
  remap_to (7, take (STORE_FOR_NEW));
  close_store ();
  ck_assert_int_eq (try_to_open (MOST + 1), -1);
  ck_assert_int_eq (errno, EINVAL);
  open_store (MOST);
  ck_assert_uint_eq (get_status ().spares_total, MOST);
  expect_remapped (7, 0);
  close_store ();
  free_sparse (&sparse);
}
END_TEST

static void
peek (void *buf, size_t count, uint64_t offset)
{
  struct dev *dev = open_sparse (&sparse, 512);

  ck_assert_int_eq (sparse_pread (dev, buf, count, offset, 0), 0);
  sparse_close (dev);
}

/* The last slot has its data and its entries where remap-store(5) says. */
static void
check_last_slot (uint64_t lba)
{
  const uint64_t table = round_up (div_round_up (SPARES_MAX, 18) * 512, 4096);
  const uint64_t data = round_up ((uint64_t) SPARES_MAX * sector_bytes, 4096);
  const uint64_t last = SPARES_MAX - 1;
  const uint64_t entry = last / 18 * 512 + last % 18 * 28;
  uint8_t *buf = malloc (2 * sector_bytes);

  fill (buf, lba);
  peek (buf + sector_bytes, sector_bytes, 8192 + table + last * sector_bytes);
  ck_assert (memcmp (buf, buf + sector_bytes, sector_bytes) == 0);
  peek (buf, 28, 8192 + entry);
  ck_assert_uint_eq (buf[0], lba);
  ck_assert_uint_eq (buf[20], 2);
  peek (buf + 28, 28, 8192 + table + data + entry);
  ck_assert (memcmp (buf, buf + 28, 28) == 0);
  ck_assert_uint_eq (sparse.size_bytes, 8192 + 2 * table + data + 8192);
  free (buf);
}

/* All slots are taken, down to the last.  As if they were ready. */
START_TEST (last_slot)
{
  spare_t slot;

  begin (sector_sizes[2 * _i], 1000);
  open_store (MOST);
  store->super.nr_ready = SPARES_MAX;
  spares_set_ready (store->spares, SPARES_MAX);
  ck_assert_int_eq (store_take (store, UINT32_MAX, STORE_FOR_NEW, &slot),
                    MOST);
  store_settle (store, MOST);
  ck_assert_uint_eq (get_status ().spares_free, 0);
  ck_assert_int_eq (store_take (store, 1, STORE_FOR_NEW, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  for (uint32_t i = 0; i < 256; i++) {
    slot = take (STORE_FOR_REWRITE);
    ck_assert_uint_eq (slot.n, MOST + i);
    remap_to (100 + i / 2, slot);
  }
  ck_assert_uint_eq (slot.n, SPARES_MAX - 1);
  expect_remapped (227, SPARES_MAX - 1);
  check_last_slot (227);
  ck_assert_int_eq (store_take (store, 1, STORE_FOR_REWRITE, &slot), -1);
  ck_assert_int_eq (errno, ENOSPC);
  store_abandon (store);
  map_free (map);
  free_sparse (&sparse);
}
END_TEST

/* A disk of 512 TiB and more: its last sectors. */
START_TEST (far_sectors)
{
  const uint64_t nr = (UINT64_C (1) << 40) + 3;
  const uint64_t lbas[] = {
    0, UINT32_MAX, UINT64_C (1) << 32, (UINT64_C (1) << 40) - 1,
    UINT64_C (1) << 40, nr - 1,
  };

  begin (512, nr);
  open_store (100);
  for (unsigned i = 0; i < 6; i++)
    remap_to (lbas[i], take (STORE_FOR_NEW));
  for (unsigned pass = 0; pass < 2; pass++) {
    for (uint32_t i = 0; i < 6; i++) {
      expect_remapped (lbas[i], i);
      ck_assert (!map_is_clean (map, (lba_t) { lbas[i] }, 1));
    }
    ck_assert (map_is_clean (map, (lba_t) { 1 }, UINT32_MAX - 1));
    ck_assert (map_is_clean (map, (lba_t) { nr - 2 }, 1));
    ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 6);
    close_store ();
    open_store (100);
  }
  close_store ();
  free_sparse (&sparse);
}
END_TEST

/* With more sectors than can be numbered, no store is made. */
START_TEST (too_many_sectors)
{
  begin (512, LBA_MAX + 2);
  ck_assert_int_eq (try_to_open (100), -1);
  ck_assert_int_eq (errno, EFBIG);
  ck_assert_ptr_nonnull (strstr (last_error_text (), "too large"));
  ck_assert_uint_eq (sparse.size_bytes, 0);
}
END_TEST

/* spare-size=16K for sectors of 64K. */
START_TEST (less_than_a_sector)
{
  struct identity identity = {
    .kind = DEV_FILE, .size_bytes = 1 << 30, .sector_bytes = 65536,
    .path = "backing",
  };
  struct store_options options = {
    .path = "store", .backing = &identity, .spare_bytes = 16384,
  };

  begin (65536, 1000);
  for (unsigned i = 0; i < 2; i++) {
    store = store_open_dev (open_sparse (&sparse, 512), &options, &map);
    ck_assert_msg (store != NULL, "%s", last_error_text ());
    ck_assert_uint_eq (get_status ().spares_total, 1);
    if (i == 0)
      remap_to (5, take (STORE_FOR_NEW));
    expect_remapped (5, 0);
    close_store ();
  }
  free_sparse (&sparse);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("store: edges");
  TCase *tc = tcase_create ("edges");
  SRunner *runner;
  int nr_failed;

  tcase_set_timeout (tc, 250);
  suite_add_tcase (suite, tc);
  tcase_add_loop_test (tc, largest_store, 0, 3);
  tcase_add_loop_test (tc, grown_to_the_largest, 0, 3);
  tcase_add_loop_test (tc, last_slot, 0, 2);
  tcase_add_test (tc, far_sectors);
  tcase_add_test (tc, too_many_sectors);
  tcase_add_test (tc, less_than_a_sector);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
