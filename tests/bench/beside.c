/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "error.h"
#include "identity.h"
#include "mark.h"
#include "parts.h"
#include "remaps.h"
#include "store.h"
#include "target.h"

#define SECTOR_BYTES 512
#define BLOCK_SECTORS 8         /* 4k */
#define NR_ELSEWHERE UINT64_C (1000000)
#define ELSEWHERE_BITS 31       /* sectors that they are scattered in: 1 TiB */

static const char *const names[] = {
  "read-4k-d1-c1", "read-4k-d16-c1", "write-4k-d1-c1", "write-4k-d16-c1",
};
#define NR_NAMES (sizeof names / sizeof names[0])

/* --------------------------------------------------------------- stores -- */

struct recorder {
  const struct image *image;
  uint64_t spare_bytes;
  uint64_t region_bytes;
  void (*record) (struct store *s, const struct recorder *r);
};

/* What the server would have made, had it met bad sectors; the disk bears its
 * mark.  In a process of its own: its memory is nothing to the benchmark.
 */
static void
make_store (void *opaque)
{
  const struct recorder *r = opaque;
  struct dev *dev = dev_file_open (r->image->path, DEV_DIRECT_AUTO, 0);
  struct identity identity;
  struct store *s;
  struct mark mark;
  struct map *map;

  if (dev == NULL)
    bench_fail ("%s", last_error_text ());
  identity_of_dev (dev, r->image->path, &identity);
  s = store_open (&(struct store_options) {
                    .path = r->image->store, .backing = &identity,
                    .spare_bytes = r->spare_bytes }, &map);
  if (s == NULL)
    bench_fail ("%s", last_error_text ());
  store_get_mark (s, &mark);
  if (mark_write (dev, &identity, &mark) == -1)
    bench_fail ("%s", last_error_text ());
  r->record (s, r);
  store_close (s);
  dev_close (dev);
}

static void
record_elsewhere (struct store *s, const struct recorder *r)
{
  remaps_record_scattered (s, NR_ELSEWHERE,
                           (lba_t) { r->region_bytes / SECTOR_BYTES },
                           ELSEWHERE_BITS);
}

/* All blocks of the second half, neighbours in spares far from each other. */
static void
record_half (struct store *s, const struct recorder *r)
{
  uint64_t nr = r->region_bytes / (BLOCK_SECTORS * SECTOR_BYTES);
  uint8_t data[BLOCK_SECTORS * SECTOR_BYTES];
  unsigned nr_bits = (unsigned) __builtin_ctzll (nr);

  for (size_t i = 0; i < sizeof data; i++)
    data[i] = (uint8_t) (i * 7 + 1);
  for (uint64_t i = 0; i < nr; i++) {
    uint64_t block = nr + remaps_scattered (i, nr_bits).n;

    remaps_record_run (s, (lba_t) { block * BLOCK_SECTORS }, BLOCK_SECTORS,
                       data);
  }
}

/* A power of two, so that blocks can be scattered. */
static uint64_t
region_bytes (const struct options *o)
{
  uint64_t bytes = UINT64_C (16) << 20;

  while (bytes * 4 <= o->size_bytes && bytes < UINT64_C (128) << 20)
    bytes *= 2;
  return bytes;
}

/* ------------------------------------------------------------ elsewhere -- */

static double
measure_region (const struct options *o, const struct workload *w,
                struct image *image, uint64_t nr_bytes)
{
  const struct subject *ours = subject_find ("remap");
  struct server server;
  double rate;

  server_start (&server, ours, image);
  rate = options_load (o, w, &server, 0, nr_bytes);
  server_stop (&server);
  return workload_value (w, rate);
}

static void
compare_elsewhere (const struct options *o, const struct workload *w,
                   struct image *with, struct image *without, uint64_t bytes)
{
  struct bench_series many = { .nr = 0 }, none = many;
  char prefix[128];

  for (unsigned round = 0; round < o->rounds; round++) {
    bench_add (&many, measure_region (o, w, with, bytes));
    bench_add (&none, measure_region (o, w, without, bytes));
  }
  snprintf (prefix, sizeof prefix, "elsewhere/%s/", w->name);
  bench_heading (prefix, "%s of a clean region, remaps elsewhere", w->name);
  bench_report ("1,000,000 remaps elsewhere", workload_unit (w), &many);
  bench_report ("none", workload_unit (w), &none);
  bench_report_ratio ("1,000,000 / none", &many, &none);
  target_note_ratio (TARGET_ELSEWHERE, w->name, &many, &none);
}

static void
run_elsewhere (const struct options *o)
{
  uint64_t bytes = region_bytes (o), size_bytes = bytes
    + ((uint64_t) SECTOR_BYTES << ELSEWHERE_BITS);
  struct image with, without;
  struct recorder r = {
    .image = &with, .spare_bytes = 2 * NR_ELSEWHERE * SECTOR_BYTES,
    .region_bytes = bytes, .record = record_elsewhere,
  };

  image_make_sparse (&with, bytes, size_bytes);
  image_make_sparse (&without, bytes, size_bytes);
  bench_in_child (make_store, &r);
  for (unsigned i = 0; i < NR_NAMES; i++)
    compare_elsewhere (o, workload_find (names[i]), &with, &without, bytes);
  image_remove (&with);
  image_remove (&without);
}

/* ------------------------------------------------------------- remapped -- */

static void
compare_remapped (const struct options *o, const struct workload *w,
                  struct image *image, uint64_t bytes)
{
  struct bench_series remapped = { .nr = 0 }, clean = remapped;
  const struct subject *ours = subject_find ("remap");
  struct server server;
  char prefix[128];

  server_start (&server, ours, image);
  for (unsigned round = 0; round < o->rounds; round++) {
    bench_add (&remapped, options_load (o, w, &server, bytes, bytes));
    bench_add (&clean, options_load (o, w, &server, 0, bytes));
  }
  server_stop (&server);
  snprintf (prefix, sizeof prefix, "remapped/%s/", w->name);
  bench_heading (prefix, "%s, remapped sectors and clean ones of one disk",
                 w->name);
  bench_report ("remapped", workload_unit (w), &remapped);
  bench_report ("clean", workload_unit (w), &clean);
  bench_report_ratio ("remapped / clean", &remapped, &clean);
  target_note_ratio (TARGET_REMAPPED, w->name, &remapped, &clean);
}

static void
run_remapped (const struct options *o)
{
  uint64_t bytes = region_bytes (o);
  struct image image;
  struct recorder r = {
    .image = &image, .spare_bytes = 2 * bytes, .region_bytes = bytes,
    .record = record_half,
  };

  image_make_sparse (&image, 2 * bytes, 2 * bytes);
  bench_in_child (make_store, &r);
  for (unsigned i = 0; i < NR_NAMES; i++)
    compare_remapped (o, workload_find (names[i]), &image, bytes);
  image_remove (&image);
}

void
beside_run (const struct options *o)
{
  run_elsewhere (o);
  run_remapped (o);
}
