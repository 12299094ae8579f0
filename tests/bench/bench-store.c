/* SPDX-License-Identifier: BSD-3-Clause */
/* bench-store: how a store grows: time and memory to open it, its size, its
 * records a second.
 *
 *   bench-store [open] [records] [runs]       all of them, if none is named
 *
 * REMAP_BENCH_QUICK=1: smaller, to see that it works.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "checked.h"
#include "crc32c.h"
#include "engine.h"
#include "error.h"
#include "log.h"
#include "remaps.h"
#include "store-internal.h"
#include "target.h"

#define SECTOR_BYTES 512
#define DISK_BITS 34            /* sectors of the disk: 8 TiB */
#define NR_THREADS 64

static struct identity backing = {
  .kind = DEV_FILE, .size_bytes = (UINT64_C (1) << DISK_BITS) * SECTOR_BYTES,
  .sector_bytes = SECTOR_BYTES, .id = "", .path = "disk",
};
static uint8_t zeroes[SECTOR_BYTES];
static bool is_quick;

static lba_t
scattered (uint64_t i)
{
  return remaps_scattered (i, DISK_BITS);
}

static struct store *
open_store (const char *path, uint64_t nr_slots, struct map **ret_map)
{
  struct store *s = store_open (&(struct store_options) {
                                  .path = path, .backing = &backing,
                                  .spare_bytes = nr_slots * SECTOR_BYTES },
                                ret_map);

  if (s == NULL)
    bench_fail ("%s", last_error_text ());
  return s;
}

/* -------------------------------------------------------------- opening -- */

struct opening {
  char path[4096];
  uint64_t nr_remaps, nr_slots;
  bool is_warm;                 /* what is read is in the page cache */
  /* Results. */
  double seconds, cpu_seconds, peak_bytes, resident_bytes, close_seconds;
  double apparent_bytes, room_bytes;    /* without spares */
};

static void
make_scattered (void *opaque)
{
  struct opening *o = opaque;
  struct map *map;
  struct store *s = open_store (o->path, o->nr_slots, &map);

  remaps_record_scattered (s, o->nr_remaps, (lba_t) { 0 }, DISK_BITS);
  store_close (s);
  map_free (map);
}

static struct store *
open_warm (const struct opening *o, struct map **ret_map)
{
  struct dev *dev = dev_file_open (o->path, DEV_DIRECT_AUTO, 0);
  struct store *s = dev == NULL ? NULL
    : store_open_dev (dev, &(struct store_options) {
                        .path = o->path, .backing = &backing }, ret_map);

  if (s == NULL)
    bench_fail ("%s", last_error_text ());
  return s;
}

/* Every sector where it was put, and no other. */
static void
verify_scattered (const struct opening *o, struct map *map)
{
  struct sector_run run;

  if (map_count (map, SECTOR_REMAPPED) != o->nr_remaps)
    bench_fail ("%llu sectors are remapped, not %llu",
                (unsigned long long) map_count (map, SECTOR_REMAPPED),
                (unsigned long long) o->nr_remaps);
  for (uint64_t i = 0; i < o->nr_remaps; i++) {
    map_next (map, scattered (i), 1, &run);
    if (run.state != SECTOR_REMAPPED || run.spare.n != i)
      bench_fail ("sector %llu is not in its slot",
                  (unsigned long long) scattered (i).n);
  }
}

static void
verify (void *opaque)
{
  struct opening *o = opaque;
  struct map *map;
  struct store *s = open_warm (o, &map);

  verify_scattered (o, map);
  store_close (s);
  map_free (map);
}

static void
time_opening (void *opaque)
{
  struct opening *o = opaque;
  double before = bench_resident (), begin, cpu_begin;
  struct store *s;
  struct map *map;

  bench_reset_peak ();
  begin = bench_now_s ();
  cpu_begin = bench_cpu_s ();
  s = o->is_warm ? open_warm (o, &map) : open_store (o->path, 0, &map);
  o->cpu_seconds = bench_cpu_s () - cpu_begin;
  o->seconds = bench_now_s () - begin;
  o->peak_bytes = bench_peak () - before;
  o->resident_bytes = bench_resident () - before;
  begin = bench_now_s ();
  store_close (s);
  o->close_seconds = bench_now_s () - begin;
  map_free (map);
}

static void
report_opening (struct opening *o, unsigned rounds)
{
  struct bench_series cold = { .nr = 0 }, cpu = cold, warm = cold,
    peak = cold, resident = cold, closing = cold;

  for (unsigned i = 0; i < rounds; i++) {
    o->is_warm = false;
    bench_in_child (time_opening, o);
    bench_add (&cold, o->seconds);
    bench_add (&cpu, o->cpu_seconds);
    bench_add (&peak, o->peak_bytes / (double) o->nr_remaps);
    bench_add (&resident, o->resident_bytes / (double) o->nr_remaps);
    bench_add (&closing, o->close_seconds);
    o->is_warm = true;
    bench_in_child (time_opening, o);
    bench_add (&warm, o->seconds);
  }
  bench_report ("open, nothing cached", "s", &cold);
  if (o->nr_remaps == 1000000)
    target_note (TARGET_START_1M, "", bench_quantile (&cold, 0.5));
  if (o->nr_remaps == 10000000)
    target_note (TARGET_START_10M, "", bench_quantile (&cold, 0.5));
  bench_report ("open, nothing cached, of the CPU", "s", &cpu);
  bench_report ("open, cached", "s", &warm);
  bench_report ("close", "s", &closing);
  bench_report ("memory while opening, peak", "bytes a remap", &peak);
  bench_report ("memory when open", "bytes a remap", &resident);
}

/* The data of the spares is all holes: what takes room are the tables. */
static void
measure_size (void *opaque)
{
  struct opening *o = opaque;
  struct store_image image;
  struct dev *dev;
  struct stat st;

  dev = dev_file_open (o->path, DEV_DIRECT_AUTO, DEV_OPEN_READONLY);
  if (dev == NULL || store_load (dev, o->path, NULL, NULL, &image) == -1 ||
      fstat (dev_file_fd (dev), &st) == -1)
    bench_fail ("%s", last_error_text ());
  o->apparent_bytes = (double) ((uint64_t) st.st_size
                                - store_super_slots (&image.super)
                                * SECTOR_BYTES);
  o->room_bytes = (double) st.st_blocks * 512;
  store_image_free (&image);
  dev_close (dev);
}

static void
report_size (struct opening *o)
{
  bench_in_child (measure_size, o);
  bench_report_value ("size, without spares", "bytes a remap",
                      o->apparent_bytes / (double) o->nr_remaps);
  bench_report_value ("room taken, without spares", "bytes a remap",
                      o->room_bytes / (double) o->nr_remaps);
}

static void
bench_opening (uint64_t nr_remaps, unsigned rounds, const char *prefix)
{
  struct opening *o = bench_shared (sizeof *o);
  double begin;

  snprintf (o->path, sizeof o->path, "%s", bench_file ());
  o->nr_remaps = o->nr_slots = nr_remaps;
  bench_heading (prefix, "%llu scattered remaps",
                 (unsigned long long) nr_remaps);
  begin = bench_now_s ();
  bench_in_child (make_scattered, o);
  bench_report_value ("make", "s", bench_now_s () - begin);
  report_opening (o, rounds);
  report_size (o);
  bench_in_child (verify, o);
}

/* Room for twice as many: the tables are as long as has been needed so far. */
static void
bench_room (uint64_t nr_remaps, const char *prefix)
{
  struct opening *o = bench_shared (sizeof *o);

  snprintf (o->path, sizeof o->path, "%s", bench_file ());
  o->nr_remaps = nr_remaps;
  o->nr_slots = 2 * nr_remaps;
  bench_heading (prefix, "%llu scattered remaps, as many spares left",
                 (unsigned long long) nr_remaps);
  bench_in_child (make_scattered, o);
  report_size (o);
}

static void
subject_open (void)
{
  bench_opening (100000, 7, "open/100k/");
  if (!is_quick) {
    bench_opening (1000000, 7, "open/1M/");
    bench_opening (10000000, 5, "open/10M/");
  }
  bench_room (is_quick ? 100000 : 5000000, "open/room/");
}

/* -------------------------------------------------------------- records -- */

struct recording {
  char path[4096];
  unsigned rounds;
  double seconds;               /* of a round */
  struct bench_series raw, one, many;
};

struct writers {
  struct store *store;
  double until_s;
  _Atomic uint64_t nr_records;  /* made, and their sectors' numbers */
  uint64_t nr_before;
};

static void
record_and_flush (struct store *s, uint64_t number)
{
  struct sector_run run = {
    .lba = scattered (number), .nr_sectors = 1, .state = SECTOR_REMAPPED,
  };
  uint32_t n;

  run.spare = remaps_take (s, 1, &n);
  if (store_write (s, run.spare, 1, zeroes) == -1 ||
      store_record (s, &run, CAUSE_WRITE_ERROR, zeroes) == -1)
    bench_fail ("%s", last_error_text ());
  store_settle (s, 1);
  if (store_flush (s) == -1)
    bench_fail ("%s", last_error_text ());
}

static void *
writer (void *opaque)
{
  struct writers *w = opaque;

  while (bench_now_s () < w->until_s)
    record_and_flush (w->store, atomic_fetch_add (&w->nr_records, 1));
  return NULL;
}

/* Records a second of nr_threads that flush after each record. */
static double
record_rate (struct writers *w, unsigned nr_threads, double seconds)
{
  double begin = bench_now_s ();
  pthread_t threads[NR_THREADS];
  uint64_t nr_before = atomic_load (&w->nr_records);

  w->until_s = begin + seconds;
  for (unsigned i = 0; i < nr_threads; i++)
    if (pthread_create (&threads[i], NULL, writer, w) != 0)
      bench_fail ("no more threads");
  for (unsigned i = 0; i < nr_threads; i++)
    pthread_join (threads[i], NULL);
  return (double) (atomic_load (&w->nr_records) - nr_before)
    / (bench_now_s () - begin);
}

static void
record (void *opaque)
{
  struct recording *r = opaque;
  struct map *map;
  struct writers w = { .store = open_store (r->path, 4000000, &map) };
  char path[4112];
  int fd;

  snprintf (path, sizeof path, "%s.raw", r->path);
  fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  unlink (path);
  if (fd == -1)
    bench_fail ("cannot make %s", path);
  bench_fdatasync_rate (fd, 0);
  record_rate (&w, NR_THREADS, r->seconds);     /* to warm up */
  for (unsigned i = 0; i < r->rounds; i++) {
    bench_add (&r->raw, bench_fdatasync_rate (fd, r->seconds));
    bench_add (&r->one, record_rate (&w, 1, r->seconds));
    bench_add (&r->many, record_rate (&w, NR_THREADS, r->seconds));
  }
  close (fd);
  store_close (w.store);
  map_free (map);
}

static void
subject_records (void)
{
  struct recording *r = bench_shared (sizeof *r);

  snprintf (r->path, sizeof r->path, "%s", bench_file ());
  r->rounds = is_quick ? 3 : 7;
  r->seconds = is_quick ? 0.2 : 1;
  bench_heading ("records/", "Records of one sector, each with its data and "
                 "a flush");
  bench_in_child (record, r);
  bench_report ("pwrite and fdatasync alone", "a second", &r->raw);
  bench_report ("1 thread", "records a second", &r->one);
  bench_report ("64 threads", "records a second", &r->many);
  bench_report_ratio ("1 thread to fdatasync", &r->one, &r->raw);
  bench_report_ratio ("64 threads to 1", &r->many, &r->one);
}

/* ----------------------------------------------------------------- runs -- */

/* A device that counts what is written, and hands everything on. */
struct counting_dev {
  struct dev dev;
  struct dev *below;
  uint64_t nr_data, nr_metadata;        /* writes */
};

static struct counting_dev *
counting (struct dev *dev)
{
  return (struct counting_dev *) dev;
}

static int
counting_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
                unsigned flags)
{
  return dev_pread (counting (dev)->below, buf, count, offset, flags);
}

static int
counting_pwrite (struct dev *dev, const void *buf, size_t count,
                 uint64_t offset, unsigned flags)
{
  if (flags & DEV_BUFFERED)
    counting (dev)->nr_metadata++;
  else
    counting (dev)->nr_data++;
  return dev_pwrite (counting (dev)->below, buf, count, offset, flags);
}

/* dev_flush holds a lock, and takes no second one of its rank. */
static int
counting_flush (struct dev *dev)
{
  struct dev *below = counting (dev)->below;

  return below->ops->flush (below);
}

static int
counting_resize (struct dev *dev, uint64_t size_bytes)
{
  struct dev *below = counting (dev)->below;
  int r = dev_resize (below, size_bytes);

  dev->info = below->info;
  return r;
}

static void
counting_close (struct dev *dev)
{
  dev_close (counting (dev)->below);
}

static const struct dev_ops counting_ops = {
  .pread = counting_pread, .pwrite = counting_pwrite, .flush = counting_flush,
  .resize = counting_resize, .close = counting_close,
};

/* A disk that takes no write, but far behind what is written: one there proves
 * that the disk lives, and that errors are the sectors'.
 */
#define BAD_BYTES (UINT64_C (1) << 32)

static int
bad_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
           unsigned flags)
{
  memset (buf, 0, count);
  return 0;
}

static int
bad_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
            unsigned flags)
{
  return offset >= BAD_BYTES ? 0 : set_error (EIO, "bad");
}

static int
bad_flush (struct dev *dev)
{
  return 0;
}

static void
bad_close (struct dev *dev)
{
}

static const struct dev_ops bad_ops = {
  .pread = bad_pread, .pwrite = bad_pwrite, .flush = bad_flush,
  .close = bad_close,
};

struct running {
  char path[4096];
  uint64_t nr_sectors;
  bool by_engine;
  double seconds, nr_data, nr_metadata;
};

#define REQUEST_SECTORS 2048    /* 1 MiB */

static void
run_through_store (struct running *r, struct store *s, const uint8_t *buf)
{
  for (uint64_t done = 0; done < r->nr_sectors; done += REQUEST_SECTORS)
    remaps_record_run (s, (lba_t) { done }, REQUEST_SECTORS, buf);
  store_close (s);
}

static void
run_through_engine (struct running *r, struct store *s, struct map *map,
                    const uint8_t *buf)
{
  struct dev bad = {
    .info = { .size_bytes = backing.size_bytes, .sector_bytes = SECTOR_BYTES,
              .physical_bytes = SECTOR_BYTES, .kind = DEV_FILE,
              .direct = true, .name = "bad disk" },
  };
  struct engine *e;

  dev_init (&bad, &bad_ops);
  e = engine_new (&bad, s, map, &(struct engine_options) { .retries = 2 });
  if (e == NULL)
    bench_fail ("%s", last_error_text ());
  if (engine_pwrite (e, buf, SECTOR_BYTES, BAD_BYTES, 0) == -1)
    bench_fail ("%s", last_error_text ());
  for (uint64_t done = 0; done < r->nr_sectors; done += REQUEST_SECTORS)
    if (engine_pwrite (e, buf, REQUEST_SECTORS * SECTOR_BYTES,
                       done * SECTOR_BYTES, 0) == -1)
      bench_fail ("%s", last_error_text ());
  if (engine_flush (e) == -1)
    bench_fail ("%s", last_error_text ());
  engine_free (e);
}

static void
time_run (void *opaque)
{
  struct running *r = opaque;
  struct counting_dev c = { .nr_data = 0 };
  uint8_t *buf = calloc (REQUEST_SECTORS, SECTOR_BYTES);
  int fd = open (r->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  struct store *s;
  struct map *map;
  double begin;

  close (fd);
  dev_init (&c.dev, &counting_ops);
  c.below = dev_file_open (r->path, DEV_DIRECT_AUTO, 0);
  if (buf == NULL || c.below == NULL)
    bench_fail ("%s", last_error_text ());
  c.dev.info = c.below->info;
  s = store_open_dev (&c.dev, &(struct store_options) {
                        .path = r->path, .backing = &backing,
                        .spare_bytes = r->nr_sectors * SECTOR_BYTES }, &map);
  if (s == NULL)
    bench_fail ("%s", last_error_text ());
  c.nr_data = c.nr_metadata = 0;
  begin = bench_now_s ();
  if (r->by_engine)
    run_through_engine (r, s, map, buf);
  else
    run_through_store (r, s, buf);
  r->seconds = bench_now_s () - begin;
  r->nr_data = (double) c.nr_data;
  r->nr_metadata = (double) c.nr_metadata;
}

static void
report_run (struct running *r, const char *prefix, const char *what)
{
  double nr_requests = (double) r->nr_sectors / REQUEST_SECTORS;

  bench_heading (prefix, "%llu neighbouring sectors, %s, by requests of 1 MiB",
                 (unsigned long long) r->nr_sectors, what);
  bench_in_child (time_run, r);
  bench_report_value ("all", "s", r->seconds);
  bench_report_value ("writes of data", "a request", r->nr_data / nr_requests);
  bench_report_value ("writes of metadata", "a request",
                      r->nr_metadata / nr_requests);
}

static void
subject_runs (void)
{
  struct running *r = bench_shared (sizeof *r);

  snprintf (r->path, sizeof r->path, "%s", bench_file ());
  r->nr_sectors = round_up (is_quick ? 10000 : 1000000, REQUEST_SECTORS);
  report_run (r, "runs/store/", "recorded in the store");
  r->by_engine = true;
  r->nr_sectors = round_up (is_quick ? 10000 : 100000, REQUEST_SECTORS);
  report_run (r, "runs/engine/", "written through the engine to a disk where "
              "each is bad");
}

/* ----------------------------------------------------------------- main -- */

static const struct {
  const char *name;
  void (*fn) (void);
} subjects[] = {
  { "open", subject_open },
  { "records", subject_records },
  { "runs", subject_runs },
};

int
main (int argc, char *argv[])
{
  const char *quick = getenv ("REMAP_BENCH_QUICK");

  is_quick = quick && quick[0] && strcmp (quick, "0") != 0;
  bench_begin ("store");
  for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
    bool wanted = argc < 2;

    for (int k = 1; k < argc; k++)
      wanted = wanted || strcmp (argv[k], subjects[i].name) == 0;
    if (wanted)
      subjects[i].fn ();
  }
  targets_report ();
  bench_end ();
  return EXIT_SUCCESS;
}
