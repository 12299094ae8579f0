/* SPDX-License-Identifier: BSD-3-Clause */
/* Unit test of map.  Its source is included, so that entries can be counted. */
#include <config.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "map.c"

/* For loops that run a million times: ck_assert itself makes a system call. */
#define ASSERT_QUICKLY(cond)                                                  \
  do {                                                                        \
    if (!(cond))                                                              \
      ck_abort_msg ("not true: %s", #cond);                                   \
  } while (0)

/* The rank of the map mutex is asserted. */
static struct lock map_mutex;

static void
init_mutex (void)
{
  lock_init (&map_mutex, RANK_MAP);
}

static void
set_run (struct map *map, const struct sector_run *run)
{
  LOCK_FOR_SCOPE (&map_mutex);

  ck_assert_int_eq (map_set (map, run), 0);
}

static void
set (struct map *map, uint64_t lba, uint64_t nr, enum sector_state state,
     uint32_t spare)
{
  set_run (map, &(struct sector_run) {
    .lba = { lba }, .nr_sectors = nr, .state = state, .spare = { spare },
  });
}

static uint64_t
nr_entries (struct map *map)
{
  uint64_t n = 0;

  for (uint64_t i = 0; i < map->nr_chunks; i++) {
    const struct chunk *c = atomic_load (&map->chunks[i]);

    n += c ? c->nr : 0;
  }
  return n;
}

static void
check_run (struct map *map, uint64_t lba, uint64_t nr, enum sector_state state,
           uint32_t spare, uint64_t nr_expected)
{
  struct sector_run run;

  map_next (map, (lba_t) { lba }, nr, &run);
  ck_assert_uint_eq (run.lba.n, lba);
  ck_assert_uint_eq (run.nr_sectors, nr_expected);
  ck_assert_int_eq (run.state, state);
  ck_assert_uint_eq (run.spare.n, spare);
}

#define NONE SPARES_MAX

/* Examples. */

START_TEST (new_map_is_clean)
{
  struct map *map = map_new (3 * CHUNK_SECTORS + 5);
  struct sector_run run;

  ck_assert (map_is_clean (map, (lba_t) { 0 }, 3 * CHUNK_SECTORS + 5));
  check_run (map, 7, 3 * CHUNK_SECTORS - 2, SECTOR_CLEAN, NONE,
             3 * CHUNK_SECTORS - 2);
  ck_assert_int_eq (map_next_mapped (map, (lba_t) { 0 }, &run), -1);
  ck_assert_int_eq (map_next_mapped (map, (lba_t) { UINT64_MAX }, &run), -1);
  map_verify (map);
  map_free (map);
  map_free (NULL);
}
END_TEST

START_TEST (overwriting_splits)
{
  struct map *map = map_new (1000);
  struct sector_run run;

  set (map, 100, 100, SECTOR_REMAPPED, 5000);
  set (map, 140, 10, SECTOR_LOST, 7);
  ck_assert_uint_eq (nr_entries (map), 3);
  check_run (map, 90, 100, SECTOR_CLEAN, NONE, 10);
  check_run (map, 100, 100, SECTOR_REMAPPED, 5000, 40);
  check_run (map, 120, 5, SECTOR_REMAPPED, 5020, 5);
  check_run (map, 140, 100, SECTOR_LOST, 7, 10);
  check_run (map, 145, 100, SECTOR_LOST, 12, 5);
  check_run (map, 150, 800, SECTOR_REMAPPED, 5050, 50);
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 90);
  ck_assert_uint_eq (map_count (map, SECTOR_LOST), 10);
  ck_assert_int_eq (map_next_mapped (map, (lba_t) { 0 }, &run), 0);
  ck_assert_uint_eq (run.lba.n, 100);
  ck_assert_uint_eq (run.nr_sectors, 40);
  ck_assert_int_eq (map_next_mapped (map, (lba_t) { 199 }, &run), 0);
  ck_assert_uint_eq (run.spare.n, 5099);
  ck_assert_int_eq (map_next_mapped (map, (lba_t) { 200 }, &run), -1);
  ck_assert (map_is_clean (map, (lba_t) { 0 }, 100));
  ck_assert (!map_is_clean (map, (lba_t) { 0 }, 101));
  ck_assert (!map_is_clean (map, (lba_t) { 199 }, 1));
  ck_assert (map_is_clean (map, (lba_t) { 200 }, 800));

  set (map, 140, 10, SECTOR_REMAPPED, 5040);    /* as it was */
  ck_assert_uint_eq (nr_entries (map), 1);
  set (map, 0, 1000, SECTOR_CLEAN, NONE);
  ck_assert_uint_eq (nr_entries (map), 0);
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 0);
  ck_assert (map_is_clean (map, (lba_t) { 0 }, 1000));
  map_verify (map);
  map_free (map);
}
END_TEST

START_TEST (run_crosses_chunks)
{
  struct map *map = map_new (4 * CHUNK_SECTORS);
  uint64_t begin = CHUNK_SECTORS - 3, nr = CHUNK_SECTORS + 7;

  set (map, begin, nr, SECTOR_REMAPPED, 100);
  ck_assert_uint_eq (nr_entries (map), 3);
  check_run (map, begin, nr, SECTOR_REMAPPED, 100, 3);
  check_run (map, begin + 3, nr, SECTOR_REMAPPED, 103, CHUNK_SECTORS);
  check_run (map, begin + 3 + CHUNK_SECTORS, nr, SECTOR_REMAPPED,
             103 + CHUNK_SECTORS, 4);
  ck_assert (map_is_clean (map, (lba_t) { begin + nr }, CHUNK_SECTORS));
  ck_assert (!map_is_clean (map, (lba_t) { begin + nr - 1 }, CHUNK_SECTORS));
  ck_assert (!map_is_clean (map, (lba_t) { 0 }, begin + 1));
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), nr);
  set (map, 2 * CHUNK_SECTORS - 1, 2, SECTOR_CLEAN, NONE);
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), nr - 2);
  check_run (map, begin + 3, nr, SECTOR_REMAPPED, 103, CHUNK_SECTORS - 1);
  check_run (map, 2 * CHUNK_SECTORS - 1, 10, SECTOR_CLEAN, NONE, 2);
  map_verify (map);
  map_free (map);
}
END_TEST

/* All of a chunk, whose length does not fit into 16 bits. */
START_TEST (whole_chunk)
{
  struct map *map = map_new (2 * CHUNK_SECTORS);

  set (map, 0, CHUNK_SECTORS, SECTOR_LOST, NONE);
  ck_assert_uint_eq (nr_entries (map), 1);
  check_run (map, 0, 2 * CHUNK_SECTORS, SECTOR_LOST, NONE, CHUNK_SECTORS);
  check_run (map, CHUNK_SECTORS - 1, 2, SECTOR_LOST, NONE, 1);
  check_run (map, CHUNK_SECTORS, 1, SECTOR_CLEAN, NONE, 1);
  ck_assert_uint_eq (map_count (map, SECTOR_LOST), CHUNK_SECTORS);
  map_free (map);
}
END_TEST

START_TEST (no_spare_joins_only_its_like)
{
  struct map *map = map_new (1000);

  set (map, 10, 5, SECTOR_LOST, NONE);
  set (map, 15, 5, SECTOR_LOST, NONE);
  ck_assert_uint_eq (nr_entries (map), 1);
  check_run (map, 12, 100, SECTOR_LOST, NONE, 8);
  set (map, 20, 5, SECTOR_LOST, 7);
  set (map, 5, 5, SECTOR_LOST, 3);
  ck_assert_uint_eq (nr_entries (map), 3);
  set (map, 25, 5, SECTOR_ZEROED, 12);          /* another state */
  set (map, 30, 5, SECTOR_ZEROED, NONE);
  ck_assert_uint_eq (nr_entries (map), 5);
  map_verify (map);

  ck_assert_uint_eq (map_count (map, SECTOR_ZEROED), 10);
  map_verify (map);
  map_free (map);
}
END_TEST

/* SPARE_NONE is the number behind the last spare that there can be. */
START_TEST (no_spare_is_no_neighbour_of_the_last)
{
  struct map *map = map_new (1000);

  set (map, 100, 1, SECTOR_LOST, NONE - 1);
  set (map, 101, 4, SECTOR_LOST, NONE);
  check_run (map, 100, 100, SECTOR_LOST, NONE - 1, 1);
  for (unsigned i = 0; i < 4; i++)
    check_run (map, 101 + i, 1, SECTOR_LOST, NONE, 1);
  set (map, 103, 1, SECTOR_CLEAN, NONE);
  check_run (map, 104, 1, SECTOR_LOST, NONE, 1);
  map_verify (map);
  map_free (map);
}
END_TEST

START_TEST (loading_joins_neighbours)
{
  const uint64_t border = CHUNK_SECTORS;
  const struct sector_run runs[] = {
    { { 5 }, 1, SECTOR_REMAPPED, { 40 } },
    { { 6 }, 2, SECTOR_REMAPPED, { 41 } },
    { { 8 }, 1, SECTOR_REMAPPED, { 44 } },
    { { 9 }, 1, SECTOR_LOST, { 45 } },
    { { border - 2 }, 2 * border, SECTOR_REMAPPED, { 1000 } },
    { { 3 * border }, 1, SECTOR_ZEROED, { 46 } },
    { { 4 * border - 1 }, 1, SECTOR_LOST, { 47 } },
  };
  struct map *map = map_new (4 * border);

  ck_assert_int_eq (map_load (map, runs, sizeof runs / sizeof runs[0]), 0);
  ck_assert_uint_eq (nr_entries (map), 3 + 3 + 2);
  check_run (map, 5, 100, SECTOR_REMAPPED, 40, 3);
  check_run (map, 2 * border, 1, SECTOR_REMAPPED, 1002 + CHUNK_SECTORS, 1);
  check_run (map, 4 * border - 1, 1, SECTOR_LOST, 47, 1);
  ck_assert_uint_eq (map_count (map, SECTOR_REMAPPED), 4 + 2 * border);
  ck_assert_uint_eq (map_count (map, SECTOR_LOST), 2);
  ck_assert_uint_eq (map_count (map, SECTOR_ZEROED), 1);
  map_verify (map);
  map_free (map);

  map = map_new (10);
  ck_assert_int_eq (map_load (map, NULL, 0), 0);
  ck_assert (map_is_clean (map, (lba_t) { 0 }, 10));
  map_free (map);
}
END_TEST

/* Random changes against an array that has one element for each sector. */

#define NR_SECTORS (3 * (uint64_t) CHUNK_SECTORS + 777)

struct sector {
  uint32_t state, spare;
};

static uint64_t
random_below (uint64_t n)
{
  return ((uint64_t) random () << 31 | (uint64_t) random ()) % n;
}

/* Mostly short, mostly in one of a few places: some of these near the borders
 * of chunks.
 */
static void
random_range (uint64_t *ret_lba, uint64_t *ret_nr)
{
  const uint64_t places[] = {
    0, CHUNK_SECTORS, 2 * CHUNK_SECTORS, NR_SECTORS, 1000, 100000,
  };
  uint64_t place = places[random_below (6)], lba;

  lba = place > 100 ? place - random_below (100) : random_below (100);
  if (random_below (20) == 0)
    lba = random_below (NR_SECTORS);
  *ret_lba = MIN (lba, NR_SECTORS - 1);
  *ret_nr = 1 + random_below (random_below (30) == 0 ? NR_SECTORS : 40);
  *ret_nr = MIN (*ret_nr, NR_SECTORS - *ret_lba);
}

/* Few spares, so that neighbours often fit. */
static void
random_run (struct sector_run *ret)
{
  random_range (&ret->lba.n, &ret->nr_sectors);
  ret->state = (enum sector_state) random_below (4);
  ret->spare.n = (uint32_t) (ret->lba.n + 100 * random_below (3));
  if (ret->state == SECTOR_CLEAN ||
      (ret->state == SECTOR_LOST && random_below (3) == 0))
    ret->spare = SPARE_NONE;
}

static void
oracle_set (struct sector *sectors, const struct sector_run *run)
{
  for (uint64_t i = 0; i < run->nr_sectors; i++) {
    struct sector *s = &sectors[run->lba.n + i];

    s->state = run->state;
    s->spare = run->spare.n == NONE ? NONE : run->spare.n + (uint32_t) i;
  }
}

/* Is all of a run as the array says?  The run itself lies inside [lba, nr]. */
static void
compare_run (const struct sector *sectors, const struct sector_run *run,
             uint64_t lba, uint64_t nr)
{
  ASSERT_QUICKLY (run->lba.n == lba);
  ASSERT_QUICKLY (run->nr_sectors > 0 && run->nr_sectors <= nr);
  for (uint64_t i = 0; i < run->nr_sectors; i++) {
    const struct sector *s = &sectors[lba + i];
    uint32_t spare = run->spare.n == NONE ? NONE : run->spare.n + (uint32_t) i;

    ASSERT_QUICKLY (s->state == (uint32_t) run->state);
    ASSERT_QUICKLY (s->spare == spare);
  }
}

static void
compare_range (struct map *map, const struct sector *sectors, uint64_t lba,
               uint64_t nr)
{
  bool is_clean = true;

  for (uint64_t i = 0; i < nr; i++)
    is_clean &= sectors[lba + i].state == SECTOR_CLEAN;
  ASSERT_QUICKLY (map_is_clean (map, (lba_t) { lba }, nr) == is_clean);
  while (nr > 0) {
    struct sector_run run;

    map_next (map, (lba_t) { lba }, nr, &run);
    compare_run (sectors, &run, lba, nr);
    lba += run.nr_sectors;
    nr -= run.nr_sectors;
  }
}

static void
compare_mapped (struct map *map, const struct sector *sectors)
{
  uint64_t lba = 0, count[4] = { 0 };
  struct sector_run run;

  while (map_next_mapped (map, (lba_t) { lba }, &run) == 0) {
    for (; lba < run.lba.n; lba++)
      ASSERT_QUICKLY (sectors[lba].state == SECTOR_CLEAN);
    ASSERT_QUICKLY (run.state != SECTOR_CLEAN);
    compare_run (sectors, &run, lba, NR_SECTORS - lba);
    count[run.state] += run.nr_sectors;
    lba += run.nr_sectors;
  }
  for (; lba < NR_SECTORS; lba++)
    ASSERT_QUICKLY (sectors[lba].state == SECTOR_CLEAN);
  for (int i = SECTOR_REMAPPED; i <= SECTOR_ZEROED; i++)
    ck_assert_uint_eq (map_count (map, (enum sector_state) i), count[i]);
}

/* The same map, loaded at once. */
static void
compare_loaded (const struct sector *sectors, uint64_t nr_entries_set)
{
  struct sector_run *runs = calloc (NR_SECTORS, sizeof *runs);
  struct map *map = map_new (NR_SECTORS);
  size_t nr = 0;

  for (uint64_t i = 0; i < NR_SECTORS; i++)
    if (sectors[i].state != SECTOR_CLEAN)
      runs[nr++] = (struct sector_run) {
        { i }, 1, (enum sector_state) sectors[i].state, { sectors[i].spare },
      };
  ck_assert_int_eq (map_load (map, runs, nr), 0);
  map_verify (map);
  compare_mapped (map, sectors);
  ck_assert_uint_eq (nr_entries (map), nr_entries_set);
  free (runs);
  map_free (map);
}

static unsigned
seed_random (const char *test, int i)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) strtoul (given, NULL, 10)
    : (unsigned) time (NULL) * 100 + (unsigned) i;

  printf ("%s: REMAP_TEST_SEED=%u\n", test, seed);
  fflush (stdout);
  srandom (seed);
  return seed;
}

START_TEST (as_an_array_of_sectors)
{
  struct sector *sectors = calloc (NR_SECTORS, sizeof *sectors);
  struct map *map = map_new (NR_SECTORS);
  struct sector_run run;
  uint64_t lba, nr;

  seed_random ("as_an_array_of_sectors", _i);
  oracle_set (sectors, &(struct sector_run) {
    { 0 }, NR_SECTORS, SECTOR_CLEAN, SPARE_NONE,
  });
  for (unsigned i = 0; i < 1500; i++) {
    random_run (&run);
    set_run (map, &run);
    oracle_set (sectors, &run);
    map_verify (map);
    random_range (&lba, &nr);
    compare_range (map, sectors, lba, nr);
    if (i % 200 == 0)
      compare_mapped (map, sectors);
  }
  compare_mapped (map, sectors);
  compare_range (map, sectors, 0, NR_SECTORS);
  compare_loaded (sectors, nr_entries (map));
  map_free (map);
  free (sectors);
}
END_TEST

/* Readers, while a writer changes what they read. */

#define NR_READERS 4
#define SHARED_SECTORS 3000     /* over the border of two chunks */
#define SHARED_FIRST (CHUNK_SECTORS - 1500)
#define ROUND 100000            /* spares of one change and the next */

static _Atomic bool done;

/* Sector n is clean, or lost without a spare, or in a spare n + k * ROUND. */
static void
check_shared (const struct sector_run *run, uint64_t lba, uint64_t nr)
{
  ASSERT_QUICKLY (run->lba.n == lba);
  ASSERT_QUICKLY (run->nr_sectors > 0 && run->nr_sectors <= nr);
  switch (run->state) {
  case SECTOR_CLEAN:
  case SECTOR_LOST:
    ASSERT_QUICKLY (run->spare.n == NONE);
    break;
  case SECTOR_REMAPPED:
  case SECTOR_ZEROED:
    ASSERT_QUICKLY ((run->spare.n - run->lba.n) % ROUND == 0);
    break;
  default:
    ck_abort_msg ("state %d", (int) run->state);
  }
}

static void *
read_shared (void *opaque)
{
  struct map *map = opaque;
  uint64_t nr_rounds = 0;

  do {
    uint64_t lba = SHARED_FIRST, end = SHARED_FIRST + SHARED_SECTORS;
    struct sector_run run;

    while (lba < end) {
      map_next (map, (lba_t) { lba }, end - lba, &run);
      check_shared (&run, lba, end - lba);
      lba += run.nr_sectors;
    }
    map_is_clean (map, (lba_t) { SHARED_FIRST + nr_rounds % 1000 }, 7);
    if (map_next_mapped (map, (lba_t) { 0 }, &run) == 0)
      check_shared (&run, run.lba.n, SHARED_SECTORS);
    ASSERT_QUICKLY (map_count (map, SECTOR_LOST) <= SHARED_SECTORS);
    ASSERT_QUICKLY (map_memory (map) > 0);
    nr_rounds++;
  } while (!atomic_load (&done));
  return NULL;
}

START_TEST (readers_see_old_or_new)
{
  struct map *map = map_new (2 * CHUNK_SECTORS);
  pthread_t readers[NR_READERS];

  seed_random ("readers_see_old_or_new", 0);
  for (unsigned i = 0; i < NR_READERS; i++)
    ck_assert_int_eq (pthread_create (&readers[i], NULL, read_shared, map), 0);
  for (unsigned i = 0; i < 20000; i++) {
    struct sector_run run = {
      .lba = { SHARED_FIRST + random_below (SHARED_SECTORS) },
      .state = (enum sector_state) random_below (4),
    };

    run.nr_sectors = 1 + random_below (MIN (SHARED_FIRST + SHARED_SECTORS
                                            - run.lba.n, UINT64_C (60)));
    run.spare.n = (uint32_t) (run.lba.n + ROUND * random_below (9));
    if (run.state == SECTOR_CLEAN || run.state == SECTOR_LOST)
      run.spare = SPARE_NONE;
    set_run (map, &run);
  }
  atomic_store (&done, true);
  for (unsigned i = 0; i < NR_READERS; i++)
    pthread_join (readers[i], NULL);
  map_verify (map);
  map_free (map);
}
END_TEST

/* Memory. */

#define TIB (UINT64_C (1) << 40)
#define NR_REMAPS 1000000
#define BYTES_PER_REMAP 14

static int
compare_runs (const void *va, const void *vb)
{
  const struct sector_run *a = va, *b = vb;

  return a->lba.n < b->lba.n ? -1 : a->lba.n > b->lba.n;
}

/* Remaps at random places of a disk of 4 TiB, in sectors of 512 bytes. */
static struct sector_run *
random_remaps (void)
{
  struct sector_run *runs = calloc (NR_REMAPS, sizeof *runs);

  for (uint32_t i = 0; i < NR_REMAPS; i++)
    runs[i] = (struct sector_run) {
      { random_below (4 * TIB / 512) }, 1, SECTOR_REMAPPED, { i * 2 },
    };
  return runs;
}

static size_t
memory_in_use (void)
{
  struct mallinfo2 info = mallinfo2 ();

  return info.uordblks + info.hblkhd;
}

static void
check_memory (struct map *map, size_t before, const char *how)
{
  size_t said = map_memory (map), used = memory_in_use () - before;

  /* What was replaced is freed by another thread, after a grace period. */
  for (unsigned i = 0; i < 1000 && used > BYTES_PER_REMAP * NR_REMAPS; i++) {
    usleep (10000);
    used = memory_in_use () - before;
  }
  printf ("%s: %.2f bytes a remap (malloc says %.2f)\n", how,
          (double) said / NR_REMAPS, (double) used / NR_REMAPS);
  ck_assert_uint_le (said, BYTES_PER_REMAP * NR_REMAPS);
  if (before > 0)               /* 0 where malloc is not the C library's */
    ck_assert_uint_le (used, BYTES_PER_REMAP * NR_REMAPS);
}

START_TEST (a_million_remaps_are_small)
{
  struct sector_run *runs = random_remaps ();
  size_t before = memory_in_use ();
  struct map *map = map_new (4 * TIB / 512);

  for (uint32_t i = 0; i < NR_REMAPS; i++)
    set_run (map, &runs[i]);
  check_memory (map, before, "set");
  map_free (map);

  qsort (runs, NR_REMAPS, sizeof runs[0], compare_runs);
  before = memory_in_use ();
  map = map_new (4 * TIB / 512);
  ck_assert_int_eq (map_load (map, runs, NR_REMAPS), 0);
  check_memory (map, before, "loaded");
  map_free (map);
  free (runs);
}
END_TEST

/* Whatever the order in which it comes together. */
START_TEST (a_run_costs_one_entry)
{
  struct map *map = map_new (4 * TIB / 512);
  size_t empty = map_memory (map);
  uint32_t order[5000];

  seed_random ("a_run_costs_one_entry", 0);
  for (uint32_t i = 0; i < 5000; i++)
    order[i] = i;
  for (uint32_t i = 5000; i-- > 1; ) {
    uint32_t k = (uint32_t) random_below (i + 1), swapped = order[k];

    order[k] = order[i];
    order[i] = swapped;
  }
  for (uint32_t i = 0; i < 5000; i++)
    set (map, 1000000 + order[i], 1, SECTOR_REMAPPED, 777 + order[i]);
  ck_assert_uint_eq (nr_entries (map), 1);
  ck_assert_uint_le (map_memory (map), empty + 64);
  map_free (map);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("map");
  TCase *tc = tcase_create ("examples");

  tcase_set_timeout (tc, 60);
  tcase_add_checked_fixture (tc, init_mutex, NULL);
  tcase_add_test (tc, new_map_is_clean);
  tcase_add_test (tc, overwriting_splits);
  tcase_add_test (tc, run_crosses_chunks);
  tcase_add_test (tc, whole_chunk);
  tcase_add_test (tc, no_spare_joins_only_its_like);
  tcase_add_test (tc, no_spare_is_no_neighbour_of_the_last);
  tcase_add_test (tc, loading_joins_neighbours);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("random");
  tcase_add_checked_fixture (tc, init_mutex, NULL);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, as_an_array_of_sectors, 0, 3);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("threads");
  tcase_add_checked_fixture (tc, init_mutex, NULL);
  tcase_set_timeout (tc, 240);
  tcase_add_test (tc, readers_see_old_or_new);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("memory");
  tcase_add_checked_fixture (tc, init_mutex, NULL);
  tcase_set_timeout (tc, 240);
  tcase_add_test (tc, a_million_remaps_are_small);
  tcase_add_test (tc, a_run_costs_one_entry);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
