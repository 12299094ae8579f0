/* SPDX-License-Identifier: BSD-3-Clause */
/* A store of any bytes: load it, check it, open it, use it, open it again.
 *
 * What must not happen: a crash, a hang, an access outside of the store, memory
 * that its size does not bound, a refused store that is changed, a map that
 * makes no sense, and a store that was opened and is not the same and sound
 * when it is opened again.
 *
 * Memory: a small constant (two table buffers of a megabyte each, 256 KiB for
 * the map), a few dozen bytes for each slot, each of which takes at least 512
 * bytes of the file; and 8 bytes for each 2^16 sectors of the disk, which is no
 * matter of the store: its size is compared with that of the real disk first.
 * Here the store says how large its disk is, so a larger one than BACKING_MAX
 * is loaded and checked, but not opened.
 *
 * An input begins with a byte of flags:
 *   1   the rest is the store as it is; else it is made of pieces:
 *       size in sectors of 512 bytes (2 bytes), then pieces, each an offset (3
 *       bytes), a length (2 bytes) and as many bytes; the rest is zero
 *   2   superblocks get right checksums, and the second, if zero, is a copy
 *   4   so do commit sectors
 *   8   so do entries; those that are zero become free ones, and those of the
 *       second copy that are zero copies of the first
 *   16  entries get the right checksum of their data
 *   32  the store is on a block device, which does not grow
 *   64  it is to grow
 *   128 the disk is another one than the store says, and is to be adopted
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checked.h"
#include "crc32c.h"
#include "endian.h"
#include "error.h"
#include "fuzz/fuzz.h"
#include "log.h"
#include "store-check.h"
#include "store-load.h"
#include "store.h"

#define FLAG_AS_IT_IS 1u
#define FLAG_SEAL_SUPERS 2u
#define FLAG_SEAL_COMMITS 4u
#define FLAG_SEAL_ENTRIES 8u
#define FLAG_SEAL_DATA 16u
#define FLAG_IS_DEVICE 32u
#define FLAG_GROW 64u
#define FLAG_ADOPT 128u

#define STORE_MAX (UINT64_C (1) << 20)
#define GROWN_MAX (UINT64_C (8) << 20)
#define BACKING_MAX (UINT64_C (1) << 40)

#define MUST(cond)                                                            \
  ((cond) ? (void) 0 : give_up (__LINE__, #cond))

static _Noreturn void
give_up (int line, const char *what)
{
  fprintf (stderr, "fuzz_store.c:%d: not true: %s (last error: %s)\n", line,
           what, last_error_text ());
  abort ();
}

static void *
must_have (void *ptr)
{
  if (ptr == NULL)
    give_up (__LINE__, "memory");
  return ptr;
}

/* A disk in memory. */

struct disk {
  uint8_t *bytes;
  uint64_t size_bytes;
  enum dev_kind kind;
  unsigned nr_writes;
};

struct mem_dev {
  struct dev dev;
  struct disk *disk;
};

static struct disk *
disk_of (struct dev *dev)
{
  return ((struct mem_dev *) dev)->disk;
}

static int
mem_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
           unsigned flags)
{
  struct disk *d = disk_of (dev);

  MUST (offset <= d->size_bytes && count <= d->size_bytes - offset);
  memcpy (buf, d->bytes + offset, count);
  return 0;
}

static int
mem_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
            unsigned flags)
{
  struct disk *d = disk_of (dev);

  MUST (offset <= d->size_bytes && count <= d->size_bytes - offset);
  MUST (flags & DEV_BUFFERED || (offset % 512 == 0 && count % 512 == 0));
  memcpy (d->bytes + offset, buf, count);
  d->nr_writes++;
  return 0;
}

static int
mem_flush (struct dev *dev)
{
  return 0;
}

static int
mem_resize (struct dev *dev, uint64_t size_bytes)
{
  struct disk *d = disk_of (dev);

  MUST (d->kind == DEV_FILE && size_bytes >= d->size_bytes);
  if (size_bytes > GROWN_MAX)
    return set_error (ENOSPC, "the disk is full");
  d->bytes = must_have (realloc (d->bytes, size_bytes));
  memset (d->bytes + d->size_bytes, 0, size_bytes - d->size_bytes);
  d->size_bytes = dev->info.size_bytes = size_bytes;
  return 0;
}

static void
mem_close (struct dev *dev)
{
  free (dev);
}

static const struct dev_ops mem_ops = {
  .pread = mem_pread, .pwrite = mem_pwrite, .flush = mem_flush,
  .resize = mem_resize, .close = mem_close,
};

static struct dev *
disk_open (struct disk *disk)
{
  struct mem_dev *m = must_have (calloc (1, sizeof *m));

  m->disk = disk;
  m->dev.info = (struct dev_info) {
    .size_bytes = disk->size_bytes, .sector_bytes = 512,
    .physical_bytes = 512, .kind = disk->kind, .name = "store",
  };
  dev_init (&m->dev, &mem_ops);
  return &m->dev;
}

/* From input to store. */

static bool
is_zero (const uint8_t *p, size_t n)
{
  return p[0] == 0 && memcmp (p, p + 1, n - 1) == 0;
}

static void
put_pieces (struct disk *d, const uint8_t *data, size_t size)
{
  if (size < 2)
    return;
  d->size_bytes = MIN ((uint64_t) get_le16 (data) * 512, STORE_MAX);
  d->bytes = must_have (calloc (1, d->size_bytes + 1));
  data += 2;
  size -= 2;
  while (size > 5) {
    uint64_t offset = get_le (data, 3), n = get_le16 (data + 3);

    data += 5;
    size -= 5;
    n = MIN (n, (uint64_t) size);
    if (offset < d->size_bytes)
      memcpy (d->bytes + offset, data, MIN (n, d->size_bytes - offset));
    data += n;
    size -= n;
  }
}

static void
put_as_it_is (struct disk *d, const uint8_t *data, size_t size)
{
  d->size_bytes = MIN ((uint64_t) size, STORE_MAX);
  d->bytes = must_have (calloc (1, d->size_bytes + 1));
  if (d->size_bytes > 0)
    memcpy (d->bytes, data, d->size_bytes);
}

static void
seal_super (uint8_t *block)
{
  put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
}

static void
seal_supers (struct disk *d)
{
  uint64_t end = get_le64 (d->bytes + SUPER_STORE_BYTES);
  uint8_t *second;

  if (end < 2 * STORE_BLOCK || end > d->size_bytes)
    end = round_down (d->size_bytes, STORE_BLOCK);
  second = d->bytes + end - STORE_BLOCK;
  if (is_zero (second, STORE_BLOCK)) {
    memcpy (second, d->bytes, STORE_BLOCK);
    put_le32 (second + SUPER_COPY, 1);
  }
  seal_super (d->bytes);
  seal_super (second);
}

static void
seal_commits (struct disk *d, const struct store_super *s)
{
  uint8_t *first = d->bytes + COMMIT_A_OFFSET;
  uint8_t *second = d->bytes + s->store_bytes - STORE_TAIL_BYTES;

  if (is_zero (second, COMMIT_BYTES))
    memcpy (second, first, COMMIT_BYTES);
  put_le32 (first + COMMIT_CRC, crc32c (0, first, COMMIT_CRC));
  put_le32 (second + COMMIT_CRC, crc32c (0, second, COMMIT_CRC));
}

static void
seal_entry (struct disk *d, const struct store_super *s, spare_t slot,
            unsigned copy, unsigned flags)
{
  uint8_t *e = d->bytes + store_entry_at (s, slot, copy), number[8];
  uint32_t crc = crc32c (0, s->uuid, STORE_UUID_BYTES);

  if (is_zero (e, ENTRY_BYTES) && copy == 1)
    memcpy (e, d->bytes + store_entry_at (s, slot, 0), ENTRY_BYTES);
  if (is_zero (e, ENTRY_BYTES))
    e[ENTRY_STATE] = ENTRY_FREE;
  if (flags & FLAG_SEAL_DATA && e[ENTRY_STATE] == ENTRY_REMAPPED)
    put_le32 (e + ENTRY_DATA_CRC,
              crc32c (0, d->bytes + store_data_at (s, slot), s->sector_bytes));
  put_le64 (number, slot.n);
  crc = crc32c (crc, number, sizeof number);
  put_le32 (e + ENTRY_CRC, crc32c (crc, e, ENTRY_CRC));
}

static void
seal (struct disk *d, unsigned flags)
{
  struct store_super s;

  if (d->size_bytes < STORE_HEAD_BYTES + STORE_TAIL_BYTES)
    return;
  if (flags & FLAG_SEAL_SUPERS)
    seal_supers (d);
  if (store_super_decode (d->bytes, 0, &s) || s.store_bytes > d->size_bytes)
    return;
  if (flags & FLAG_SEAL_COMMITS)
    seal_commits (d, &s);
  if (flags & FLAG_SEAL_ENTRIES)
    for (uint32_t i = 0; i < s.nr_ready; i++)
      for (unsigned copy = 0; copy < 2; copy++)
        seal_entry (d, &s, (spare_t) { i }, copy, flags);
}

static struct disk
make_disk (const uint8_t *data, size_t size, unsigned flags)
{
  struct disk d = { .kind = flags & FLAG_IS_DEVICE ? DEV_BLOCK : DEV_FILE };

  if (flags & FLAG_AS_IT_IS)
    put_as_it_is (&d, data, size);
  else
    put_pieces (&d, data, size);
  seal (&d, flags);
  return d;
}

/* What is said. */

static unsigned nr_repaired;

static void
keep_log (int level, const char *message)
{
  MUST (strlen (message) > 0);
  nr_repaired += strstr (message, "being repaired") != NULL;
}

struct findings {
  unsigned nr[STORE_FATAL + 1];
  unsigned nr_data;             /* of them: of the data of a sector */
  unsigned nr_zero;             /* and: where there should be zeroes */
};

static void
count_finding (void *opaque, int damage, const char *problem)
{
  struct findings *f = opaque;

  MUST (damage > STORE_NORMAL && damage <= STORE_FATAL && strlen (problem) > 0);
  f->nr[damage]++;
  f->nr_zero += strstr (problem, "should be zero") != NULL;
  f->nr_data += strstr (problem, "the data of sector") != NULL;
}

/* Check the bytes in a file, as remapctl does. */
static int
check (const struct disk *d, struct findings *ret)
{
  static int fd = -1;
  char path[64];
  int r;

  *ret = (struct findings) { .nr_data = 0 };
  if (fd == -1)
    fd = memfd_create ("store", MFD_CLOEXEC);
  MUST (fd >= 0);
  MUST (ftruncate (fd, 0) == 0);
  MUST (pwrite (fd, d->bytes, d->size_bytes, 0) == (ssize_t) d->size_bytes);
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  r = store_check (path, count_finding, ret);
  MUST (r >= -1 && r <= STORE_FATAL);
  MUST (r != STORE_FATAL || ret->nr[STORE_FATAL] == 1);
  for (int damage = STORE_FATAL; r != -1 && damage > r; damage--)
    MUST (ret->nr[damage] == 0);
  MUST (r <= STORE_NORMAL || ret->nr[r] > 0);
  return r;
}

/* Does the image make sense? */

static void
verify_image (const struct store_image *image)
{
  const struct store_super *s = &image->super;
  uint64_t next = 0, nr = 0;

  for (size_t i = 0; i < image->nr_runs; i++) {
    const struct sector_run *run = &image->runs[i];

    MUST (run->nr_sectors > 0 && run->lba.n >= next);
    next = run->lba.n + run->nr_sectors;
    MUST (next <= div_round_up (s->backing_bytes, s->sector_bytes));
    MUST (run->spare.n + run->nr_sectors <= s->nr_ready);
    nr += run->nr_sectors;
  }
  MUST (nr == image->nr_remapped + image->nr_lost + image->nr_zeroed);
  MUST (nr + image->bad_slots.nr <= s->nr_ready);
  MUST (image->nr_fixes <= s->nr_ready * 2);
}

/* Open and use. */

struct runs {
  struct sector_run *r;
  size_t nr;
};

static struct runs
runs_of (struct map *map)
{
  struct runs runs = { .r = NULL };
  struct sector_run run;

  for (lba_t lba = { 0 }; map_next_mapped (map, lba, &run) == 0;
       lba.n = run.lba.n + run.nr_sectors) {
    runs.r = must_have (realloc (runs.r, (runs.nr + 1) * sizeof *runs.r));
    runs.r[runs.nr++] = run;
  }
  return runs;
}

static void
read_all (struct store *store, const struct runs *runs)
{
  uint32_t sector_bytes = store_sector_bytes (store);
  uint8_t *sector = must_have (malloc (sector_bytes));

  for (size_t i = 0; i < runs->nr; i++)
    if (runs->r[i].state == SECTOR_REMAPPED)
      for (uint32_t k = 0; k < runs->r[i].nr_sectors; k++) {
        spare_t slot = { runs->r[i].spare.n + k };
        lba_t lba = { runs->r[i].lba.n + k };

        MUST (store_read (store, slot, lba, 1, sector) == 0 ||
              errno == EILSEQ);
      }
  free (sector);
}

/* Remap sector 0, if there is room. */
static void
remap_one (struct store *store, struct map *map)
{
  uint32_t sector_bytes = store_sector_bytes (store);
  struct sector_run run = { .nr_sectors = 1, .state = SECTOR_REMAPPED }, old;
  uint8_t *sector;

  if (store_take (store, 1, STORE_FOR_REWRITE, &run.spare) != 1)
    return;
  sector = must_have (calloc (1, sector_bytes));
  memset (sector, 0xa5, sector_bytes);
  MUST (store_write (store, run.spare, 1, sector) == 0);
  MUST (store_record (store, &run, CAUSE_WRITE_ERROR, sector) == 0);
  map_next (map, run.lba, 1, &old);
  {
    LOCK_FOR_SCOPE (store_map_lock (store));
    MUST (map_set (map, &run) == 0);
  }
  if (old.state != SECTOR_CLEAN)
    store_supersede (store, old.spare, 1);
  store_settle (store, 1);
  MUST (store_flush (store) == 0);
  MUST (store_read (store, run.spare, run.lba, 1, sector) == 0);
  free (sector);
}

static void
use (struct store *store, struct map *map, bool has_sectors)
{
  struct runs runs = runs_of (map);

  store_verify (store, map);
  map_verify (map);
  read_all (store, &runs);
  free (runs.r);
  if (has_sectors)
    remap_one (store, map);
  store_verify (store, map);
  map_verify (map);
}

/* What was served is there again. */
static void
open_again (struct disk *d, struct store_options *o, const struct runs *before)
{
  struct map *map = NULL;
  struct store *store;
  struct runs after;

  nr_repaired = 0;
  o->spare_bytes = 0;
  o->adopt = false;
  store = store_open_dev (disk_open (d), o, &map);
  MUST (store != NULL);
  MUST (nr_repaired == 0);
  store_verify (store, map);
  after = runs_of (map);
  MUST (after.nr == before->nr);
  for (size_t i = 0; i < after.nr; i++)
    MUST (after.r[i].lba.n == before->r[i].lba.n &&
          after.r[i].nr_sectors == before->r[i].nr_sectors &&
          after.r[i].state == before->r[i].state &&
          after.r[i].spare.n == before->r[i].spare.n);
  free (after.r);
  store_abandon (store);
  map_free (map);
}

static void
open_and_use (struct disk *d, const struct store_super *super, unsigned flags)
{
  struct identity identity = {
    .kind = (enum dev_kind) super->backing_kind,
    .size_bytes = super->backing_bytes, .sector_bytes = 512, .path = "disk",
  };
  struct store_options o = {
    .path = "store", .backing = &identity, .adopt = flags & FLAG_ADOPT,
  };
  struct map *map = NULL;
  struct store *store;
  struct findings f;
  struct runs runs;

  memcpy (identity.id, super->backing_id, sizeof identity.id);
  if (flags & FLAG_ADOPT)
    identity.size_bytes ^= 512u << (d->bytes[0] % 4);
  if (flags & FLAG_GROW)
    o.spare_bytes = (store_super_slots (super) + 40) * super->sector_bytes;
  store = store_open_dev (disk_open (d), &o, &map);
  if (store == NULL) {
    MUST (errno != 0 && errno == last_error_errno ());
    return;
  }
  use (store, map, identity.size_bytes > 0);
  runs = runs_of (map);
  store_close (store);
  map_free (map);
  open_again (d, &o, &runs);
  free (runs.r);
  MUST (check (d, &f) < STORE_FATAL);
  MUST (f.nr[STORE_REPAIRABLE] + f.nr[STORE_LASTING]
        == f.nr_data + f.nr_zero);
}

/* What cannot be loaded is not changed by whoever tries to open it. */
static void
open_refused (struct disk *d)
{
  struct identity identity = {
    .kind = DEV_FILE, .size_bytes = 1 << 20, .sector_bytes = 512, .path = "disk",
  };
  struct store_options o = { .path = "store", .backing = &identity };
  struct map *map = NULL;
  uint8_t *before = must_have (malloc (d->size_bytes));

  memcpy (before, d->bytes, d->size_bytes);
  MUST (store_open_dev (disk_open (d), &o, &map) == NULL);
  MUST (d->nr_writes == 0);
  MUST (memcmp (before, d->bytes, d->size_bytes) == 0);
  free (before);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct store_image image;
  struct findings f;
  unsigned flags;
  struct disk d;
  struct dev *dev;
  int r, checked;

  if (size == 0)
    return 0;
  flags = data[0];
  d = make_disk (data + 1, size - 1, flags);
  if (d.size_bytes == 0) {
    free (d.bytes);
    return 0;
  }
  log_set_callback (keep_log);
  checked = check (&d, &f);
  dev = disk_open (&d);
  r = store_load (dev, "store", NULL, NULL, &image);
  dev_close (dev);
  MUST ((r == 0) == (checked >= STORE_NORMAL && checked < STORE_FATAL));
  if (r == 0) {
    verify_image (&image);
    if (image.super.backing_bytes <= BACKING_MAX)
      open_and_use (&d, &image.super, flags);
    store_image_free (&image);
  }
  else if (d.kind == DEV_FILE)  /* a blank device becomes a store */
    open_refused (&d);
  free (d.bytes);
  return 0;
}
