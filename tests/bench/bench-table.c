/* SPDX-License-Identifier: BSD-3-Clause */
/* bench-table: how long a look into the table in memory takes, and what it
 * weighs.  (How long a store takes to open: bench-store open.)
 *
 * REMAP_BENCH_QUICK=1: smaller, to see that it works.
 */
#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "error.h"
#include "map.h"
#include "remaps.h"
#include "target.h"

#define DISK_BITS 33            /* sectors with remaps between them: 4 TiB */
#define CLEAN_BITS 28           /* and behind them none at all: 128 GiB */
#define BLOCK_SECTORS 8         /* a request of 4k */
#define NR_HOT 1024
#define NR_LOOKUPS (1u << 21)

static bool is_quick;

struct table {
  struct map *map;
  uint64_t nr_remaps;
  lba_t *sectors;               /* to look up: NR_LOOKUPS, made beforehand */
};

static struct table *table;     /* qsort's callback has no argument for it */

/* --------------------------------------------------------------- tables -- */

static int
compare_runs (const void *va, const void *vb)
{
  const struct sector_run *a = va, *b = vb;

  return a->lba.n < b->lba.n ? -1 : a->lba.n > b->lba.n;
}

static struct sector_run *
make_runs (uint64_t nr)
{
  struct sector_run *runs = calloc (nr, sizeof *runs);

  if (runs == NULL)
    bench_fail ("no memory");
  for (uint64_t i = 0; i < nr; i++)
    runs[i] = (struct sector_run) {
      .lba = remaps_scattered (i, DISK_BITS), .nr_sectors = 1,
      .state = SECTOR_REMAPPED, .spare = { (uint32_t) i },
    };
  qsort (runs, nr, sizeof *runs, compare_runs);
  return runs;
}

static struct map *
new_map (void)
{
  struct map *map = map_new ((UINT64_C (1) << DISK_BITS)
                             + (UINT64_C (1) << CLEAN_BITS));

  if (map == NULL)
    bench_fail ("%s", last_error_text ());
  return map;
}

static void
fill_table (struct table *t)
{
  struct sector_run *runs = make_runs (t->nr_remaps);

  t->map = new_map ();
  if (map_load (t->map, runs, t->nr_remaps) == -1)
    bench_fail ("%s", last_error_text ());
  free (runs);
  t->sectors = calloc (NR_LOOKUPS, sizeof *t->sectors);
  if (t->sectors == NULL)
    bench_fail ("no memory");
}

/* -------------------------------------------------------------- lookups -- */

/* Which sectors are looked up, the i-th of them. */
static lba_t
clean_region (uint64_t i)
{
  lba_t lba = remaps_scattered (i, CLEAN_BITS);

  return (lba_t) { (UINT64_C (1) << DISK_BITS)
                   + lba.n / BLOCK_SECTORS * BLOCK_SECTORS };
}

/* No remap there, but in the chunk. */
static lba_t
clean_beside (uint64_t i)
{
  return remaps_scattered (table->nr_remaps + i, DISK_BITS);
}

static lba_t
remapped (uint64_t i)
{
  return remaps_scattered (i * 7919 % table->nr_remaps, DISK_BITS);
}

static lba_t
remapped_hot (uint64_t i)
{
  return remaps_scattered (i % NR_HOT, DISK_BITS);
}

/* As the engine asks first, for every request. */
static uint64_t
ask_clean (const struct table *t, uint64_t nr_sectors)
{
  uint64_t nr_clean = 0;

  for (unsigned i = 0; i < NR_LOOKUPS; i++)
    nr_clean += map_is_clean (t->map, t->sectors[i], nr_sectors);
  return nr_clean;
}

/* And where not all is clean. */
static uint64_t
ask_where (const struct table *t)
{
  struct sector_run run;
  uint64_t nr_remapped = 0;

  for (unsigned i = 0; i < NR_LOOKUPS; i++) {
    map_next (t->map, t->sectors[i], 1, &run);
    nr_remapped += run.state == SECTOR_REMAPPED;
  }
  return nr_remapped;
}

struct lookup {
  const char *key;
  lba_t (*sector) (uint64_t i);
  bool is_where;                /* map_next; else map_is_clean */
  uint64_t nr_sectors;          /* of map_is_clean */
  bool is_clean;                /* what the answer has to be */
};

static const struct lookup lookups[] = {
  { "is a clean region clean, 4k", clean_region, false, BLOCK_SECTORS, true },
  { "is a clean sector clean, remaps near", clean_beside, false, 1, true },
  { "is a remapped sector clean", remapped, false, 1, false },
  { "where is a remapped sector", remapped, true, 1, false },
  { "where is one of 1024, always the same", remapped_hot, true, 1, false },
  { "where is a clean sector, remaps near", clean_beside, true, 1, true },
};

/* Nanoseconds, with the protection of readers in them. */
static double
time_lookups (const struct table *t, const struct lookup *l)
{
  double begin = bench_cpu_s (), seconds;
  uint64_t nr = l->is_where ? ask_where (t) : ask_clean (t, l->nr_sectors);
  bool is_all = l->is_where != l->is_clean;

  seconds = bench_cpu_s () - begin;
  if (nr != (is_all ? NR_LOOKUPS : 0))
    bench_fail ("%s: the answer was wrong for %llu of %u", l->key,
                (unsigned long long) (is_all ? NR_LOOKUPS - nr : nr),
                NR_LOOKUPS);
  return seconds / NR_LOOKUPS * 1e9;
}

static void
note_lookup (const struct table *t, const struct lookup *l, double ns)
{
  if (l->sector == clean_region)
    target_note (TARGET_LOOKUP_CLEAN, "", ns);
  else if (t->nr_remaps == 1000000)
    target_note (TARGET_LOOKUP_1M, l->key, ns);
  else if (t->nr_remaps == 10000000)
    target_note (TARGET_LOOKUP_10M, l->key, ns);
}

static void
report_lookups (struct table *t, unsigned rounds)
{
  for (size_t k = 0; k < sizeof lookups / sizeof lookups[0]; k++) {
    struct bench_series s = { .nr = 0 };

    for (unsigned i = 0; i < NR_LOOKUPS; i++)
      t->sectors[i] = lookups[k].sector (i);
    for (unsigned round = 0; round < rounds; round++)
      bench_add (&s, time_lookups (t, &lookups[k]));
    bench_report (lookups[k].key, "ns", &s);
    note_lookup (t, &lookups[k], bench_quantile (&s, 0.5));
  }
}

/* ----------------------------------------------------------------- main -- */

static void
bench_remaps (uint64_t nr_remaps, const char *prefix)
{
  static struct table t;
  double bytes;

  table = &t;
  t.nr_remaps = nr_remaps;
  bench_heading (prefix, "%llu random remaps on a disk of 4 TiB",
                 (unsigned long long) nr_remaps);
  fill_table (&t);
  map_verify (t.map);
  bytes = (double) map_memory (t.map) / (double) nr_remaps;
  bench_report_value ("memory", "bytes a remap", bytes);
  if (nr_remaps == 1000000)
    target_note (TARGET_MEMORY, "", bytes);
  report_lookups (&t, is_quick ? 3 : 9);
  map_free (t.map);
  free (t.sectors);
}

/* What a run costs more than an empty table: as much as one of one sector. */
static double
run_bytes (uint32_t nr_sectors)
{
  struct map *map = new_map ();
  double empty = (double) map_memory (map), full;
  struct sector_run run = {
    .lba = { 1000 }, .nr_sectors = nr_sectors, .state = SECTOR_REMAPPED,
    .spare = { 0 },
  };

  if (map_load (map, &run, 1) == -1)
    bench_fail ("%s", last_error_text ());
  full = (double) map_memory (map);
  map_free (map);
  return full - empty;
}

static void
bench_runs (void)
{
  double one = run_bytes (1), many = run_bytes (10000);

  bench_heading ("runs/", "A run of neighbours");
  bench_report_value ("of 1 sector", "bytes", one);
  bench_report_value ("of 10,000 sectors", "bytes", many);
  target_note (TARGET_RUN, "", many / one);
}

int
main (void)
{
  const char *quick = getenv ("REMAP_BENCH_QUICK");

  is_quick = quick && quick[0] && strcmp (quick, "0") != 0;
  bench_begin ("table");
  bench_runs ();
  if (is_quick)
    bench_remaps (100000, "100k/");
  else {
    bench_remaps (1000000, "1M/");
    bench_remaps (10000000, "10M/");
  }
  targets_report ();
  bench_end ();
  return EXIT_SUCCESS;
}
