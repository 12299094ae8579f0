/* SPDX-License-Identifier: BSD-3-Clause */
/* storm: the engine, and a disk in this process whose writes fail (but for a
 * few places, which prove that it lives); the store is a file on the disk of
 * $TMPDIR, and that is what has to be fast.  A disk that fails under the kernel
 * (FUSE) would be the slowest part of it.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "dev.h"
#include "engine.h"
#include "error.h"
#include "parts.h"
#include "remaps.h"
#include "store.h"
#include "target.h"

#define SECTOR_BYTES 512
#define DISK_BITS 34            /* sectors: 8 TiB */
#define NR_IN_FLIGHT 64
#define REGION_BITS (DISK_BITS - 4)
#define NR_GOOD 8               /* sectors at the beginning of a region */

struct storm {
  char path[4096];
  unsigned rounds;
  double seconds;
  struct engine *engine;
  double until_s;
  _Atomic uint64_t nr_begun, nr_written;        /* to bad sectors */
  _Atomic uint64_t nr_failed;   /* of the disk's writes */
  struct bench_series raw, one, many;
};

static struct storm *storm;

/* ----------------------------------------------------------- a bad disk -- */

static int
storm_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
             unsigned flags)
{
  memset (buf, 0, count);
  return 0;
}

static bool
is_good (uint64_t sector)
{
  return (sector & ((UINT64_C (1) << REGION_BITS) - 1)) < NR_GOOD;
}

static int
storm_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
              unsigned flags)
{
  if (is_good (offset / SECTOR_BYTES))
    return 0;
  atomic_fetch_add (&storm->nr_failed, 1);
  return set_error (EIO, "bad");
}

static int
storm_flush (struct dev *dev)
{
  return 0;
}

static void
storm_close (struct dev *dev)
{
}

static const struct dev_ops storm_ops = {
  .pread = storm_pread, .pwrite = storm_pwrite, .flush = storm_flush,
  .close = storm_close,
};

static struct dev bad_disk = {
  .info = { .size_bytes = (UINT64_C (1) << DISK_BITS) * SECTOR_BYTES,
            .sector_bytes = SECTOR_BYTES, .physical_bytes = SECTOR_BYTES,
            .kind = DEV_FILE, .direct = true, .name = "bad disk" },
};

/* --------------------------------------------------------------- writes -- */

static void
write_sector (struct storm *s, uint64_t sector)
{
  uint8_t data[SECTOR_BYTES] = "a sector";

  memcpy (data + SECTOR_BYTES / 2, &sector, sizeof sector);
  if (engine_pwrite (s->engine, data, sizeof data, sector * SECTOR_BYTES,
                     DEV_FUA) == -1)
    bench_fail ("%s", last_error_text ());
}

static void
write_to_good_sectors (struct storm *s)
{
  for (uint64_t region = 0; region < UINT64_C (1) << (DISK_BITS - REGION_BITS);
       region++)
    write_sector (s, region << REGION_BITS);
}

static void *
write_to_bad_sectors (void *opaque)
{
  struct storm *s = opaque;

  while (bench_now_s () < s->until_s) {
    uint64_t i = atomic_fetch_add (&s->nr_begun, 1);
    lba_t lba = remaps_scattered (i, DISK_BITS);

    if (is_good (lba.n))
      continue;
    write_sector (s, lba.n);
    atomic_fetch_add (&s->nr_written, 1);
  }
  return NULL;
}

static double
storm_rate (struct storm *s, unsigned nr_threads)
{
  pthread_t threads[NR_IN_FLIGHT];
  double begin = bench_now_s ();
  uint64_t before = atomic_load (&s->nr_written);

  s->until_s = begin + s->seconds;
  for (unsigned i = 0; i < nr_threads; i++)
    if (pthread_create (&threads[i], NULL, write_to_bad_sectors, s) != 0)
      bench_fail ("no more threads");
  for (unsigned i = 0; i < nr_threads; i++)
    pthread_join (threads[i], NULL);
  return (double) (atomic_load (&s->nr_written) - before)
    / (bench_now_s () - begin);
}

static void
open_engine (struct storm *s)
{
  static struct identity identity = {
    .kind = DEV_FILE, .sector_bytes = SECTOR_BYTES, .path = "bad disk",
    .size_bytes = (UINT64_C (1) << DISK_BITS) * SECTOR_BYTES,
  };
  struct map *map;
  struct store *store = store_open (&(struct store_options) {
    .path = s->path, .backing = &identity,
    .spare_bytes = UINT64_C (1) << 35 }, &map);

  dev_init (&bad_disk, &storm_ops);
  if (store == NULL ||
      (s->engine = engine_new (&bad_disk, store, map,
                               &(struct engine_options) { .retries = 2 }))
      == NULL || engine_start (s->engine) == -1)
    bench_fail ("%s", last_error_text ());
}

/* Every write must have met a sector that was bad, and must be in the store. */
static void
verify_storm (struct storm *s)
{
  struct sector_run run = { .lba = { 0 } };
  uint64_t nr = 0;

  while (engine_next_run (s->engine, run.lba, &run) == 0) {
    nr += run.nr_sectors;
    run.lba.n += run.nr_sectors;
  }
  if (nr == 0 || nr != s->nr_written || s->nr_failed < s->nr_written)
    bench_fail ("%llu writes, %llu of the disk failed, %llu sectors are "
                "remapped", (unsigned long long) s->nr_written,
                (unsigned long long) s->nr_failed, (unsigned long long) nr);
}

static void
measure_storm (void *opaque)
{
  struct storm *s = opaque;
  char path[4200];
  int fd;

  snprintf (path, sizeof path, "%s.raw", s->path);
  fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  unlink (path);
  if (fd == -1)
    bench_fail ("%s: %s", path, strerror (errno));
  open_engine (s);
  write_to_good_sectors (s);
  bench_fdatasync_rate (fd, 0);
  storm_rate (s, NR_IN_FLIGHT);         /* to warm up */
  for (unsigned i = 0; i < s->rounds; i++) {
    bench_add (&s->raw, bench_fdatasync_rate (fd, s->seconds));
    bench_add (&s->one, storm_rate (s, 1));
    bench_add (&s->many, storm_rate (s, NR_IN_FLIGHT));
  }
  verify_storm (s);
  close (fd);
  engine_stop (s->engine);
  engine_free (s->engine);
}

void
storm_run (const struct options *o)
{
  storm = bench_shared (sizeof *storm);
  snprintf (storm->path, sizeof storm->path, "%s", bench_file ());
  storm->rounds = o->rounds;
  storm->seconds = o->seconds;
  bench_heading ("storm/", "Error storm: FUA writes of a sector, each meets a "
                 "new bad one (the engine, without NBD)");
  bench_in_child (measure_storm, storm);
  bench_report ("pwrite and fdatasync alone", "a second", &storm->raw);
  bench_report ("1 in flight", "writes/s", &storm->one);
  bench_report ("64 in flight", "writes/s", &storm->many);
  bench_report_ratio ("1 in flight / fdatasync", &storm->one, &storm->raw);
  bench_report_ratio ("64 in flight / fdatasync", &storm->many, &storm->raw);
  target_note_ratio (TARGET_STORM, "", &storm->many, &storm->raw);
}
