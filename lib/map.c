/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "error.h"
#include "lock.h"
#include "map.h"
#include "rcu.h"

#define CHUNK_BITS 16
#define CHUNK_SECTORS (UINT32_C (1) << CHUNK_BITS)

struct entry {
  uint16_t start;
  uint16_t last;                /* the last sector, so that 2^16 fit */
  uint32_t value;               /* state << 30 | spare */
};

struct chunk {
  uint32_t nr;
  struct entry e[];
};

struct map {
  uint64_t nr_sectors, nr_chunks;
  _Atomic uint64_t count[4];    /* sectors, by state */
  _Atomic (struct chunk *) chunks[];
};

static uint32_t
entry_value (enum sector_state state, spare_t spare)
{
  return (uint32_t) state << SPARE_BITS | spare.n;
}

static enum sector_state
entry_state (const struct entry *e)
{
  return (enum sector_state) (e->value >> SPARE_BITS);
}

static spare_t
entry_spare (const struct entry *e)
{
  return (spare_t) { e->value & SPARES_MAX };
}

static uint32_t
entry_sectors (const struct entry *e)
{
  return (uint32_t) e->last - e->start + 1;
}

/* The spare of the sector that is `skip` sectors into a run. */
static spare_t
spare_after (spare_t spare, uint64_t skip)
{
  if (spare.n != SPARES_MAX)
    spare.n += (uint32_t) skip;
  return spare;
}

struct map *
map_new (uint64_t nr_sectors)
{
  uint64_t nr_chunks = div_round_up (nr_sectors, CHUNK_SECTORS);
  struct map *map;

  map = calloc (1, sizeof *map + nr_chunks * sizeof map->chunks[0]);
  if (map == NULL) {
    set_error (ENOMEM, "no memory for the map of %llu sectors",
               (unsigned long long) nr_sectors);
    return NULL;
  }
  map->nr_sectors = nr_sectors;
  map->nr_chunks = nr_chunks;
  return map;
}

void
map_free (struct map *map)
{
  if (map == NULL)
    return;
  for (uint64_t i = 0; i < map->nr_chunks; i++)
    free (atomic_load_explicit (&map->chunks[i], memory_order_relaxed));
  free (map);
}

/* Index of the first entry that ends at or after key. */
static uint32_t
search (const struct chunk *c, uint32_t key)
{
  uint32_t low = 0, high = c->nr;

  while (low < high) {
    uint32_t mid = low + (high - low) / 2;

    if (c->e[mid].last < key)
      low = mid + 1;
    else
      high = mid;
  }
  return low;
}

/* What lies at `key` of a chunk, and up to which last sector. */
static void
chunk_next (const struct chunk *c, uint32_t key, struct sector_run *ret)
{
  uint32_t i = search (c, key);

  if (i < c->nr && c->e[i].start <= key) {
    ret->state = entry_state (&c->e[i]);
    ret->spare = spare_after (entry_spare (&c->e[i]), key - c->e[i].start);
    ret->nr_sectors = (uint64_t) c->e[i].last - key + 1;
  }
  else {
    ret->state = SECTOR_CLEAN;
    ret->spare = SPARE_NONE;
    ret->nr_sectors = (i < c->nr ? c->e[i].start : CHUNK_SECTORS) - key;
  }
}

/* One step of map_next: at most to the end of the chunk. */
static void
next_in_chunk (struct map *map, lba_t lba, struct sector_run *ret)
{
  uint32_t key = lba.n & (CHUNK_SECTORS - 1);
  _Atomic (struct chunk *) *slot = &map->chunks[lba.n >> CHUNK_BITS];
  const struct chunk *c;

  ret->lba = lba;
  ret->state = SECTOR_CLEAN;
  ret->spare = SPARE_NONE;
  ret->nr_sectors = CHUNK_SECTORS - key;
  if (atomic_load_explicit (slot, memory_order_acquire) == NULL)
    return;

  rcu_enter ();
  c = atomic_load_explicit (slot, memory_order_acquire);
  if (c)
    chunk_next (c, key, ret);
  rcu_leave (map);
}

void
map_next (struct map *map, lba_t lba, uint64_t nr_sectors,
          struct sector_run *ret_run)
{
  struct sector_run more;

  assert (nr_sectors > 0 && lba.n + nr_sectors <= map->nr_sectors);
  next_in_chunk (map, lba, ret_run);
  while (ret_run->nr_sectors < nr_sectors &&
         ret_run->state == SECTOR_CLEAN) {
    next_in_chunk (map, (lba_t) { lba.n + ret_run->nr_sectors }, &more);
    if (more.state != SECTOR_CLEAN)
      break;
    ret_run->nr_sectors += more.nr_sectors;
  }
  ret_run->nr_sectors = MIN (ret_run->nr_sectors, nr_sectors);
}

bool
map_is_clean (struct map *map, lba_t lba, uint64_t nr_sectors)
{
  uint64_t first = lba.n >> CHUNK_BITS;
  uint64_t last = (lba.n + nr_sectors - 1) >> CHUNK_BITS;
  struct sector_run run;

  for (uint64_t i = first; i <= last; i++)
    if (atomic_load_explicit (&map->chunks[i], memory_order_acquire))
      goto search;
  return true;

 search:
  map_next (map, lba, nr_sectors, &run);
  return run.state == SECTOR_CLEAN && run.nr_sectors == nr_sectors;
}

int
map_next_mapped (struct map *map, lba_t from, struct sector_run *ret_run)
{
  while (from.n < map->nr_sectors) {
    next_in_chunk (map, from, ret_run);
    if (ret_run->state != SECTOR_CLEAN)
      return 0;
    from.n += ret_run->nr_sectors;
  }
  return -1;
}

uint64_t
map_count (struct map *map, enum sector_state state)
{
  return atomic_load_explicit (&map->count[state], memory_order_relaxed);
}

/* Does e go on where p ends? */
static bool
is_continued_by (const struct entry *p, const struct entry *e)
{
  uint32_t next = entry_spare (p).n + entry_sectors (p);

  if (p->last + 1 != e->start || entry_state (p) != entry_state (e))
    return false;
  if (entry_spare (p).n == SPARES_MAX || entry_spare (e).n == SPARES_MAX)
    return entry_spare (p).n == entry_spare (e).n;
  return next == entry_spare (e).n;
}

/* Append an entry, joining it to the last one where both could be one (M2). */
static void
append (struct chunk *c, struct entry e)
{
  struct entry *p = c->nr > 0 ? &c->e[c->nr - 1] : NULL;

  if (p && is_continued_by (p, &e))
    p->last = e.last;
  else
    c->e[c->nr++] = e;
}

static void
append_part (struct chunk *c, const struct entry *e, uint32_t start,
             uint32_t last)
{
  append (c, (struct entry) {
    .start = (uint16_t) start,
    .last = (uint16_t) last,
    .value = entry_value (entry_state (e),
                          spare_after (entry_spare (e), start - e->start)),
  });
}

/* A new chunk: the old one with [n.start, n.last] replaced by n, or cut out if
 * n is clean.  NULL: nothing is left, or no memory (*ret_failed).
 */
static struct chunk *
chunk_replace (const struct chunk *old, struct entry n, bool *ret_failed)
{
  uint32_t nr_old = old ? old->nr : 0, i = 0;
  struct chunk *c;

  *ret_failed = false;
  c = malloc (sizeof *c + (nr_old + 2) * sizeof c->e[0]);
  if (c == NULL) {
    *ret_failed = true;
    return NULL;
  }
  c->nr = 0;
  for (; i < nr_old && old->e[i].start < n.start; i++)
    append_part (c, &old->e[i], old->e[i].start,
                 MIN ((uint32_t) old->e[i].last, (uint32_t) n.start - 1));
  if (i > 0 && old->e[i - 1].last > n.last)
    i--;                        /* it sticks out behind as well */
  if (entry_state (&n) != SECTOR_CLEAN)
    append (c, n);
  for (; i < nr_old; i++)
    if (old->e[i].last > n.last)
      append_part (c, &old->e[i],
                   MAX ((uint32_t) old->e[i].start, (uint32_t) n.last + 1),
                   old->e[i].last);

  if (c->nr == 0) {
    free (c);
    return NULL;
  }
  if (c->nr < nr_old + 2) {
    struct chunk *smaller = realloc (c, sizeof *c + c->nr * sizeof c->e[0]);

    if (smaller)
      c = smaller;
  }
  return c;
}

static void
count_sectors (const struct chunk *c, uint64_t count[4])
{
  for (uint32_t i = 0; c && i < c->nr; i++)
    count[entry_state (&c->e[i])] += entry_sectors (&c->e[i]);
}

static void
update_counts (struct map *map, const struct chunk *old,
               const struct chunk *new_chunk)
{
  uint64_t before[4] = { 0 }, after[4] = { 0 };

  count_sectors (old, before);
  count_sectors (new_chunk, after);
  for (unsigned i = 0; i < 4; i++)
    if (before[i] != after[i])
      atomic_fetch_add_explicit (&map->count[i], after[i] - before[i],
                                 memory_order_relaxed);
}

static int
set_in_chunk (struct map *map, uint64_t nr_chunk, struct entry e)
{
  _Atomic (struct chunk *) *slot = &map->chunks[nr_chunk];
  struct chunk *old = atomic_load_explicit (slot, memory_order_relaxed);
  struct chunk *c;
  bool failed;

  c = chunk_replace (old, e, &failed);
  if (failed)
    return set_error (ENOMEM, "no memory for the map");
  update_counts (map, old, c);
  atomic_store_explicit (slot, c, memory_order_release);
  if (old)
    rcu_free_later (old, map);
  return 0;
}

int
map_set (struct map *map, const struct sector_run *run)
{
  uint64_t done = 0;

  assert (lock_rank_is_held (RANK_MAP));
  assert (run->lba.n + run->nr_sectors <= map->nr_sectors);
  while (done < run->nr_sectors) {
    uint64_t lba = run->lba.n + done;
    uint32_t start = lba & (CHUNK_SECTORS - 1);
    uint32_t nr = (uint32_t) MIN (run->nr_sectors - done,
                                  (uint64_t) CHUNK_SECTORS - start);
    struct entry e = {
      .start = (uint16_t) start,
      .last = (uint16_t) (start + nr - 1),
      .value = entry_value (run->state, spare_after (run->spare, done)),
    };

    if (set_in_chunk (map, lba >> CHUNK_BITS, e) == -1)
      return -1;
    done += nr;
  }
  return 0;
}

/* Publish a copy, as small as can be, of a chunk that was put together. */
static int
load_chunk (struct map *map, uint64_t nr_chunk, struct chunk *scratch)
{
  struct chunk *c;
  size_t size = sizeof *c + scratch->nr * sizeof c->e[0];

  if (scratch->nr == 0)
    return 0;
  c = malloc (size);
  if (c == NULL)
    return set_error (ENOMEM, "no memory for the map");
  memcpy (c, scratch, size);
  update_counts (map, NULL, c);
  atomic_store_explicit (&map->chunks[nr_chunk], c, memory_order_release);
  scratch->nr = 0;
  return 0;
}

int
map_load (struct map *map, const struct sector_run *runs, size_t nr_runs)
{
  struct chunk *scratch;
  uint64_t current = 0;
  int r = -1;

  /* No chunk has more runs than sectors. */
  scratch = malloc (sizeof *scratch + CHUNK_SECTORS * sizeof scratch->e[0]);
  if (scratch == NULL)
    return set_error (ENOMEM, "no memory for the map");
  scratch->nr = 0;
  for (size_t i = 0; i < nr_runs; i++) {
    const struct sector_run *run = &runs[i];

    for (uint64_t done = 0; done < run->nr_sectors; ) {
      uint64_t lba = run->lba.n + done;
      uint32_t start = lba & (CHUNK_SECTORS - 1);
      uint32_t nr = (uint32_t) MIN (run->nr_sectors - done,
                                    (uint64_t) CHUNK_SECTORS - start);

      if (lba >> CHUNK_BITS != current &&
          load_chunk (map, current, scratch) == -1)
        goto out;
      current = lba >> CHUNK_BITS;
      append (scratch, (struct entry) {
        .start = (uint16_t) start,
        .last = (uint16_t) (start + nr - 1),
        .value = entry_value (run->state, spare_after (run->spare, done)),
      });
      done += nr;
    }
  }
  r = load_chunk (map, current, scratch);
 out:
  free (scratch);
  return r;
}

size_t
map_memory (struct map *map)
{
  size_t bytes = sizeof *map + map->nr_chunks * sizeof map->chunks[0];

  rcu_enter ();
  for (uint64_t i = 0; i < map->nr_chunks; i++) {
    struct chunk *c = atomic_load_explicit (&map->chunks[i],
                                            memory_order_acquire);

    if (c)
      bytes += malloc_usable_size (c) + sizeof (size_t);
  }
  rcu_leave (map);
  return bytes;
}

void
map_verify (struct map *map)
{
  uint64_t count[4] = { 0 };

  for (uint64_t i = 0; i < map->nr_chunks; i++) {
    struct chunk *c = atomic_load_explicit (&map->chunks[i],
                                            memory_order_acquire);

    if (c == NULL)
      continue;
    assert (c->nr > 0);
    for (uint32_t k = 0; k < c->nr; k++) {
      const struct entry *e = &c->e[k], *p = k > 0 ? e - 1 : NULL;

      assert (entry_state (e) != SECTOR_CLEAN);
      assert (e->start <= e->last);
      assert (p == NULL || p->last < e->start);                 /* M1 */
      assert (p == NULL || !is_continued_by (p, e));            /* M2 */
    }
    count_sectors (c, count);
  }
  for (unsigned i = 1; i < 4; i++)
    assert (count[i] == map_count (map, (enum sector_state) i)); /* M3 */
}
