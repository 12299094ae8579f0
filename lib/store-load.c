/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "crc32c.h"
#include "error.h"
#include "store-claims.h"
#include "store-load.h"
#include "thread.h"

struct loader {
  struct dev *dev;
  const char *path;
  store_problem_fn *fn;
  void *opaque;
  struct store_image *image;
  struct claims claims;
  uint32_t seed;                /* of the checksums of entries */
  bool is_stale[2];             /* the copies of the table sector at hand */
  size_t max_runs, max_fixes;
};

static void report (struct loader *l, enum store_damage damage,
                    const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

static void
report (struct loader *l, enum store_damage damage, const char *fmt, ...)
{
  char text[512];
  va_list args;

  if (l->fn == NULL)
    return;
  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  l->fn (l->opaque, damage, text);
}

/* What is left to whoever has a store that is damaged in both copies. */
#define ADVICE "; it is left as it is: put a good copy of it in its place"

#define FATAL(l, err, fmt, ...)                                               \
  (report ((l), STORE_FATAL, fmt, ##__VA_ARGS__),                             \
   set_error ((err), "store %s: " fmt, (l)->path, ##__VA_ARGS__))
#define DAMAGED(l, fmt, ...)                                                  \
  (report ((l), STORE_FATAL, fmt, ##__VA_ARGS__),                             \
   set_error (EUCLEAN, "store %s: " fmt ADVICE, (l)->path, ##__VA_ARGS__))

int
slot_list_add (struct slot_list *list, spare_t slot)
{
  if (claims_grow (&list->slots, list->nr, &list->max,
                   sizeof list->slots[0]) == -1)
    return -1;
  list->slots[list->nr++] = slot.n;
  return 0;
}

/* Superblocks. */

struct super_copy {
  const char *wrong;            /* NULL: good */
  bool is_foreign;              /* and not damaged */
  struct store_super super;
};

static void
read_super (struct loader *l, unsigned copy, uint64_t offset,
            struct super_copy *ret)
{
  uint8_t block[STORE_BLOCK];

  ret->is_foreign = false;
  if (offset > l->dev->info.size_bytes ||
      l->dev->info.size_bytes - offset < STORE_BLOCK)
    ret->wrong = "lies behind the end";
  else if (dev_pread (l->dev, block, sizeof block, offset, DEV_BUFFERED) == -1)
    ret->wrong = "cannot be read";
  else {
    ret->wrong = store_super_decode (block, copy, &ret->super);
    ret->is_foreign = store_super_is_foreign (block);
  }
}

static const char *
copy_name (unsigned copy)
{
  return copy == 0 ? "first" : "second";
}

static int
choose_super (struct loader *l, struct super_copy c[2])
{
  struct store_image *image = l->image;
  unsigned better;

  /* Whoever wrote it knows more than this version: not for us to repair. */
  for (unsigned i = 0; i < 2; i++)
    if (c[i].is_foreign)
      return FATAL (l, EUCLEAN, "the %s superblock %s: use the version of "
                    "remap that wrote it", copy_name (i), c[i].wrong);
  if (c[0].wrong && c[1].wrong) {
    if (strstr (c[0].wrong, "no superblock") &&
        strstr (c[1].wrong, "no superblock"))
      return set_error (EEXIST, "%s exists and is no store; it is left alone: "
                        "name another place with spare=", l->path);
    return DAMAGED (l, "the first superblock %s, and the second %s",
                    c[0].wrong, c[1].wrong);
  }
  if (c[0].wrong || c[1].wrong) {
    better = c[0].wrong != NULL;
    image->super_is_alone = true;
    report (l, STORE_REPAIRABLE, "the %s superblock %s; the other one serves",
            copy_name (!better), c[!better].wrong);
  }
  else {
    if (memcmp (c[0].super.uuid, c[1].super.uuid, STORE_UUID_BYTES) != 0)
      return DAMAGED (l, "the two superblocks belong to two stores");
    if (c[0].super.generation == c[1].super.generation) {
      if (memcmp (&c[0].super, &c[1].super, sizeof c[0].super) != 0)
        return DAMAGED (l, "both superblocks are good and of the same age, "
                        "but differ");
      image->super = c[0].super;
      return 0;
    }
    better = c[1].super.generation > c[0].super.generation;
    report (l, STORE_NORMAL, "the %s superblock is older", copy_name (!better));
  }
  image->super = c[better].super;
  image->super_copy = better;
  image->super_needs_write = true;
  return 0;
}

/* Growth that was interrupted, and a device that was made larger, leave the
 * second superblock before the end.  It is searched for only where the first
 * one is a damaged superblock, and not where there is none: a large file that
 * is no store shall be refused at once.
 */
#define SEARCH_BYTES (UINT64_C (1) << 20)       /* at a time */

static bool
is_second_super (struct loader *l, uint64_t offset, struct super_copy *ret)
{
  struct super_copy c;

  read_super (l, 1, offset, &c);
  if (c.wrong || c.super.store_bytes != offset + STORE_BLOCK)
    return false;
  *ret = c;
  return true;
}

static void
find_second_super (struct loader *l, uint64_t offset, struct super_copy *ret)
{
  CLEANUP_FREE void *memory = NULL;
  uint8_t *bytes;

  if (posix_memalign (&memory, STORE_BLOCK, SEARCH_BYTES) != 0)
    return;
  bytes = memory;
  while (offset > STORE_HEAD_BYTES) {
    uint64_t n = MIN (offset - STORE_HEAD_BYTES, SEARCH_BYTES);
    bool is_read = dev_pread (l->dev, bytes, n, offset - n, 0) == 0;

    for (offset -= n; n > 0; n -= STORE_BLOCK)
      if ((!is_read || memcmp (bytes + n - STORE_BLOCK, STORE_MAGIC,
                               STORE_MAGIC_BYTES) == 0) &&
          is_second_super (l, offset + n - STORE_BLOCK, ret))
        return;
  }
}

/* Shorter than any store: is it the beginning of one? */
static int
refuse_short (struct loader *l)
{
  uint64_t size_bytes = l->dev->info.size_bytes;
  uint8_t magic[STORE_MAGIC_BYTES];

  if (size_bytes >= sizeof magic &&
      dev_pread (l->dev, magic, sizeof magic, 0, DEV_BUFFERED) == 0 &&
      memcmp (magic, STORE_MAGIC, sizeof magic) == 0)
    return DAMAGED (l, "it is cut off: %llu bytes, and no store has so few",
                    (unsigned long long) size_bytes);
  return set_error (EEXIST, "%s exists and is no store (%llu bytes); it is "
                    "left alone: name another place with spare=", l->path,
                    (unsigned long long) size_bytes);
}

/* Growth that a crash interrupted when the second superblock was at its new
 * place, and the first was still the old one: the newer one counts.  Else it
 * would lie in wait there for a day when the first one is damaged, and then
 * know nothing of what happened since.
 */
static void
find_grown_super (struct loader *l, struct super_copy c[2])
{
  uint64_t end = round_down (l->dev->info.size_bytes, STORE_BLOCK);
  struct super_copy last;

  if (c[0].wrong || c[0].super.store_bytes >= end)
    return;
  read_super (l, 1, end - STORE_BLOCK, &last);
  if (!last.wrong && last.super.store_bytes == end &&
      last.super.generation > c[0].super.generation &&
      memcmp (last.super.uuid, c[0].super.uuid, STORE_UUID_BYTES) == 0)
    c[1] = last;
}

static int
load_super (struct loader *l)
{
  uint64_t size_bytes = l->dev->info.size_bytes, end;
  struct super_copy c[2];

  if (size_bytes < STORE_HEAD_BYTES + STORE_TAIL_BYTES)
    return refuse_short (l);
  read_super (l, 0, 0, &c[0]);
  end = c[0].wrong ? round_down (size_bytes, STORE_BLOCK)
    : c[0].super.store_bytes;
  read_super (l, 1, end - STORE_BLOCK, &c[1]);
  if (c[0].wrong && c[1].wrong && !strstr (c[0].wrong, "no superblock"))
    find_second_super (l, end - STORE_BLOCK, &c[1]);
  find_grown_super (l, c);
  if (choose_super (l, c) == -1)
    return -1;
  if (l->image->super.store_bytes > size_bytes)
    return DAMAGED (l, "it is cut off: %llu bytes of %llu",
                    (unsigned long long) size_bytes,
                    (unsigned long long) l->image->super.store_bytes);
  return 0;
}

/* Where one superblock alone is good, it must not be one that could not be
 * written when the other was.
 */
static int
check_super_is_fresh (struct loader *l)
{
  const struct store_image *image = l->image;

  if (!image->super_is_alone ||
      !store_commit_has_stale (&image->commit,
                               store_super_at (&image->super,
                                               image->super_copy)))
    return 0;
  return DAMAGED (l, "the %s superblock is out of date, and the other one is "
                  "damaged", copy_name (image->super_copy));
}

static int
load_commit (struct loader *l)
{
  struct store_image *image = l->image;
  const char *wrong[2];
  bool better;
  struct store_commit c[2];
  uint8_t sector[COMMIT_BYTES];

  for (unsigned i = 0; i < 2; i++) {
    if (dev_pread (l->dev, sector, sizeof sector,
                   store_commit_at (&image->super, i), DEV_BUFFERED) == -1)
      wrong[i] = "cannot be read";
    else
      wrong[i] = store_commit_decode (sector, image->super.uuid, &c[i]);
  }
  if (wrong[0] && wrong[1])
    return DAMAGED (l, "the first commit sector %s, and the second %s",
                    wrong[0], wrong[1]);
  for (unsigned i = 0; i < 2; i++)
    if (wrong[i]) {
      report (l, STORE_REPAIRABLE, "the %s commit sector %s; the other one "
              "serves", copy_name (i), wrong[i]);
      image->commit_needs_write = true;
    }
  /* Whatever once was durable is so still; of two alike the newer one knows
   * more stale blocks.
   */
  better = wrong[0] ||
    (!wrong[1] && (c[1].durable_seq > c[0].durable_seq ||
                   (c[1].durable_seq == c[0].durable_seq &&
                    c[1].count > c[0].count)));
  image->commit = c[better];
  return check_super_is_fresh (l);
}

/* The table. */

static int
add_fix (struct loader *l, spare_t slot, const struct store_entry *entry,
         bool first, bool second)
{
  struct store_image *image = l->image;

  if (claims_grow (&image->fixes, image->nr_fixes, &l->max_fixes,
                   sizeof image->fixes[0]) == -1)
    return -1;
  image->fixes[image->nr_fixes++] = (struct store_fix) {
    .slot = slot, .copy = { first, second }, .entry = *entry,
  };
  return 0;
}

static int
add_claim (struct loader *l, spare_t slot, const struct store_entry *e,
           enum sector_state state)
{
  uint64_t nr_sectors = div_round_up (l->image->super.backing_bytes,
                                      l->image->super.sector_bytes);

  if (e->lba.n >= nr_sectors)
    return DAMAGED (l, "slot %u is for sector %llu of a disk with %llu "
                    "sectors", slot.n, (unsigned long long) e->lba.n,
                    (unsigned long long) nr_sectors);
  if (state == SECTOR_REMAPPED && e->seq > l->image->commit.durable_seq &&
      claims_add_data (&l->claims, slot, e->data_crc) == -1)
    return -1;
  return claims_add (&l->claims, e->lba, e->seq, slot, state, e->cause);
}

static int
note_entry (struct loader *l, spare_t slot, const struct store_entry *e)
{
  struct store_image *image = l->image;

  image->max_seq = MAX (image->max_seq, e->seq);
  switch (e->state) {
  case ENTRY_FREE:
    return 0;
  case ENTRY_BAD_SLOT:
    return slot_list_add (&image->bad_slots, slot);
  case ENTRY_REMAPPED:
    return add_claim (l, slot, e, SECTOR_REMAPPED);
  case ENTRY_LOST:
    return add_claim (l, slot, e, SECTOR_LOST);
  case ENTRY_ZEROED:
    return add_claim (l, slot, e, SECTOR_ZEROED);
  }
  return 0;
}

/* Decide between the two copies of an entry; NULL: it cannot be read, or is
 * known to be out of date.
 */
static int
load_entry (struct loader *l, spare_t slot, const uint8_t *bytes[2])
{
  struct store_entry e[2];
  const char *wrong[2];
  unsigned better;

  for (unsigned i = 0; i < 2; i++)
    wrong[i] = bytes[i]
      ? store_entry_decode_seeded (bytes[i], l->seed, slot, &e[i])
      : l->is_stale[i] ? "is out of date" : "cannot be read";
  if (wrong[0] && wrong[1])
    return DAMAGED (l, "slot %u: the first copy of its entry %s, and the "
                    "second %s", slot.n, wrong[0], wrong[1]);
  if (wrong[0] || wrong[1]) {
    unsigned bad = wrong[0] ? 0 : 1;

    report (l, STORE_REPAIRABLE, "slot %u: the %s copy of its entry %s; the "
            "other one serves", slot.n, bad == 0 ? "first" : "second",
            wrong[bad]);
    if (add_fix (l, slot, &e[!bad], bad == 0, bad == 1) == -1)
      return -1;
    return note_entry (l, slot, &e[!bad]);
  }
  if (memcmp (bytes[0], bytes[1], ENTRY_BYTES) == 0)
    return note_entry (l, slot, &e[0]);

  if (e[0].seq == e[1].seq)
    return DAMAGED (l, "slot %u: both copies of its entry are good and of the "
                    "same age, but differ", slot.n);
  better = e[1].seq > e[0].seq;
  report (l, STORE_NORMAL, "slot %u: one copy of its entry is newer", slot.n);
  if (add_fix (l, slot, &e[better], better == 1, better == 0) == -1)
    return -1;
  return note_entry (l, slot, &e[better]);
}

#define STRETCH_SECTORS 4096    /* of a table at a time */

/* Some sectors of both copies of a table: entries first .. first + nr - 1 of a
 * section; first begins a sector.
 */
struct stretch {
  struct dev *dev;
  const struct store_section *section;
  uint64_t first;
  unsigned nr;                  /* 0: behind the last one */
  uint8_t *bytes[2];
  bool bad[2][STRETCH_SECTORS]; /* cannot be read */
};

/* Past the page cache where that can be: all of it is read once. */
static void
read_copy (struct dev *dev, uint64_t offset, unsigned nr, uint8_t *buf,
           bool *bad)
{
  memset (bad, 0, nr * sizeof *bad);
  if (dev_pread (dev, buf, (size_t) nr * TABLE_SECTOR_BYTES, offset, 0) == 0)
    return;
  for (unsigned i = 0; i < nr; i++)
    bad[i] = dev_pread (dev, buf + i * TABLE_SECTOR_BYTES,
                        TABLE_SECTOR_BYTES, offset + i * TABLE_SECTOR_BYTES,
                        DEV_BUFFERED) == -1;
}

static void *
read_stretch (void *opaque)
{
  struct stretch *t = opaque;
  uint64_t offset = store_entry_offset (t->first);
  unsigned nr = (unsigned) div_round_up (t->nr, ENTRIES_PER_SECTOR);

  read_copy (t->dev, t->section->table_a + offset, nr, t->bytes[0], t->bad[0]);
  read_copy (t->dev, t->section->table_b + offset, nr, t->bytes[1], t->bad[1]);
  return NULL;
}

/* The first nr entries of a table sector, of which both copies are alike: so
 * the checksums of one tell of both.
 */
static int
load_like_sectors (struct loader *l, spare_t slot, unsigned nr,
                   const uint8_t *bytes)
{
  for (unsigned i = 0; i < nr; i++, slot.n++, bytes += ENTRY_BYTES) {
    struct store_entry e;
    int r;

    if (store_entry_decode_seeded (bytes, l->seed, slot, &e) == NULL)
      r = note_entry (l, slot, &e);
    else
      r = load_entry (l, slot, (const uint8_t *[]) { bytes, bytes });
    if (r == -1)
      return -1;
  }
  return 0;
}

/* The same where the copies differ, or one (NULL) cannot be read. */
static int
load_unlike_sectors (struct loader *l, spare_t slot, unsigned nr,
                     const uint8_t *bytes[2])
{
  for (unsigned i = 0; i < nr; i++, slot.n++) {
    const uint8_t *entry[2];

    for (unsigned c = 0; c < 2; c++)
      entry[c] = bytes[c] ? bytes[c] + i * ENTRY_BYTES : NULL;
    if (load_entry (l, slot, entry) == -1)
      return -1;
  }
  return 0;
}

static int
load_stretch (struct loader *l, const struct stretch *t)
{
  spare_t slot = { (uint32_t) (t->section->first_slot + t->first) };
  unsigned nr;

  for (unsigned i = 0, left = t->nr; left > 0; i++, left -= nr, slot.n += nr) {
    const uint8_t *bytes[2];
    int r;

    nr = MIN (left, (unsigned) ENTRIES_PER_SECTOR);
    for (unsigned c = 0; c < 2; c++) {
      l->is_stale[c] = l->image->commit.nr_stale > 0 &&
        store_commit_has_stale (&l->image->commit,
                                store_entry_at (&l->image->super, slot, c));
      bytes[c] = t->bad[c][i] || l->is_stale[c] ? NULL
        : t->bytes[c] + i * TABLE_SECTOR_BYTES;
    }
    if (bytes[0] && bytes[1] &&
        memcmp (bytes[0], bytes[1], TABLE_SECTOR_BYTES) == 0)
      r = load_like_sectors (l, slot, nr, bytes[0]);
    else
      r = load_unlike_sectors (l, slot, nr, bytes);
    if (r == -1)
      return -1;
  }
  return 0;
}

/* Make t the stretch that begins at a slot. */
static void
set_stretch (const struct store_super *super, uint64_t slot,
             struct stretch *t)
{
  uint64_t end;

  t->nr = 0;
  if (slot >= super->nr_ready)
    return;
  t->section = store_section_of (super, (spare_t) { (uint32_t) slot });
  t->first = slot - t->section->first_slot;
  end = MIN (t->section->nr_slots, super->nr_ready - t->section->first_slot);
  t->nr = (unsigned) MIN (end - t->first, (uint64_t)
                          STRETCH_SECTORS * ENTRIES_PER_SECTOR);
}

/* Load one stretch while another thread reads the next one. */
static int
load_and_read_next (struct loader *l, const struct stretch *t,
                    struct stretch *next)
{
  pthread_t reader;
  bool has_reader;
  int r;

  set_stretch (&l->image->super, t->section->first_slot + t->first + t->nr,
               next);
  has_reader = next->nr > 0 &&
    thread_start (&reader, read_stretch, next) == 0;
  r = load_stretch (l, t);
  if (has_reader)
    pthread_join (reader, NULL);
  else if (r == 0 && next->nr > 0)
    read_stretch (next);
  return r;
}

static int
load_tables (struct loader *l)
{
  const struct store_super *super = &l->image->super;
  /* A multiple of STORE_BLOCK: all are aligned, as direct I/O wants it. */
  const size_t copy_bytes = (size_t) MIN (
    store_table_bytes (super->nr_ready), (uint64_t)
    STRETCH_SECTORS * TABLE_SECTOR_BYTES);
  CLEANUP_FREE struct stretch *t = calloc (2, sizeof *t);
  CLEANUP_FREE void *memory = NULL;
  unsigned at = 0;

  if (t == NULL || posix_memalign (&memory, STORE_BLOCK, 4 * copy_bytes) != 0)
    return set_error (ENOMEM, "no memory to read the store");
  for (unsigned i = 0; i < 4; i++)
    t[i / 2].bytes[i % 2] = (uint8_t *) memory + i * copy_bytes;
  t[0].dev = t[1].dev = l->dev;
  l->seed = store_entry_seed (super->uuid);
  claims_expect (&l->claims, super->nr_ready, sizeof l->image->runs[0]);

  set_stretch (super, 0, &t[0]);
  if (t[0].nr > 0)
    read_stretch (&t[0]);
  for (; t[at].nr > 0; at = !at)
    if (load_and_read_next (l, &t[at], &t[!at]) == -1)
      return -1;
  return 0;
}

/* The claims. */

/* Is the data of a slot what its entry says?  1 yes, 0 no, -1 error.  A slot
 * that cannot be read may have held what was acknowledged: its claim stands,
 * and whoever reads the sector will find it lost.
 */
static int
data_is_good (struct loader *l, const struct claim *c, uint8_t *sector)
{
  const struct store_super *super = &l->image->super;
  uint64_t offset = store_data_at (super, (spare_t) { c->slot });

  if (dev_pread (l->dev, sector, super->sector_bytes, offset, 0) == -1)
    return dev_error_is_medium (errno) ? 1 : -1;
  return crc32c (0, sector, super->sector_bytes)
    == claims_data_crc (&l->claims, (spare_t) { c->slot });
}

/* A record that a power cut made void: its slot is free. */
static int
drop_claim (struct loader *l, const struct claim *c)
{
  /* Newer than what it replaces, should one copy alone reach the disk. */
  struct store_entry e = { .state = ENTRY_FREE, .seq = ++l->image->max_seq };

  report (l, STORE_NORMAL, "slot %u: its data for sector %llu was not yet "
          "durable; the record is dropped", (unsigned) c->slot,
          (unsigned long long) c->lba);
  return add_fix (l, (spare_t) { c->slot }, &e, true, true);
}

static int
add_run (struct loader *l, const struct claim *c)
{
  struct store_image *image = l->image;
  struct sector_run *last =
    image->nr_runs > 0 ? &image->runs[image->nr_runs - 1] : NULL;
  enum sector_state state = (enum sector_state) c->state;

  if (state == SECTOR_LOST && c->is_spare_error &&
      slot_list_add (&image->unreadable, (spare_t) { c->slot }) == -1)
    return -1;
  image->nr_remapped += state == SECTOR_REMAPPED;
  image->nr_lost += state == SECTOR_LOST;
  image->nr_zeroed += state == SECTOR_ZEROED;
  if (last && last->state == state &&
      last->lba.n + last->nr_sectors == c->lba &&
      last->spare.n + last->nr_sectors == c->slot) {
    last->nr_sectors++;
    return 0;
  }
  if (claims_grow (&image->runs, image->nr_runs, &l->max_runs,
                   sizeof image->runs[0]) == -1)
    return -1;
  image->runs[image->nr_runs++] = (struct sector_run) {
    .lba = { c->lba }, .nr_sectors = 1, .state = state, .spare = { c->slot },
  };
  return 0;
}

/* Of the claims to one sector, the newest first, take the one that counts.
 * Only those that no flush covers can be void.
 */
static int
resolve (struct loader *l, const struct claim *c, size_t nr, uint8_t *sector)
{
  for (size_t i = 0; i < nr; i++) {
    int good = 1;

    if (i + 1 < nr && claim_seq (&c[i]) == claim_seq (&c[i + 1]))
      return DAMAGED (l, "slots %u and %u both stand in for sector %llu",
                      (unsigned) c[i].slot, (unsigned) c[i + 1].slot,
                      (unsigned long long) c[i].lba);
    if (c[i].state == SECTOR_REMAPPED &&
        claim_seq (&c[i]) > l->image->commit.durable_seq)
      good = data_is_good (l, &c[i], sector);
    if (good == -1)
      return -1;
    if (good)
      return add_run (l, &c[i]);
    if (drop_claim (l, &c[i]) == -1)
      return -1;
  }
  return 0;
}

static int
resolve_claims (struct loader *l)
{
  CLEANUP_FREE void *sector = NULL;
  const struct claims *claims = &l->claims;
  size_t nr;

  if (posix_memalign (&sector, STORE_BLOCK,
                      MAX (l->image->super.sector_bytes, 4096u)) != 0)
    return set_error (ENOMEM, "no memory to read the store");
  if (claims_sort (&l->claims) == -1)
    return -1;
  l->image->runs = claims_reuse (&l->claims, claims->nr,
                                 sizeof l->image->runs[0]);
  l->max_runs = l->image->runs ? claims->nr : 0;
  for (size_t i = 0; i < claims->nr; i += nr) {
    const struct claim *c = &claims->claims[i];

    for (nr = 1; i + nr < claims->nr && c[nr].lba == c->lba; nr++)
      ;
    if (resolve (l, c, nr, sector) == -1)
      return -1;
  }
  return 0;
}

/* The newest record is never overwritten but by a newer one: if there is none
 * as new as what was durable, the table is not all there, or is an older one.
 */
static int
check_seqs (struct loader *l)
{
  struct store_image *image = l->image;

  if (image->max_seq < image->commit.durable_seq)
    return DAMAGED (l, "records are missing: number %llu was durable, but the "
                    "newest is number %llu",
                    (unsigned long long) image->commit.durable_seq,
                    (unsigned long long) image->max_seq);
  if (image->max_seq > SEQ_MAX / 2)
    return DAMAGED (l, "its sequence numbers are used up");
  return 0;
}

int
store_load (struct dev *dev, const char *path, store_problem_fn *fn,
            void *opaque, struct store_image *ret)
{
  struct loader l = {
    .dev = dev, .path = path, .fn = fn, .opaque = opaque, .image = ret,
  };
  int r = -1;

  memset (ret, 0, sizeof *ret);
  if (load_super (&l) == 0 && load_commit (&l) == 0 &&
      load_tables (&l) == 0) {
    r = check_seqs (&l);
    if (r == 0)
      r = resolve_claims (&l);
  }
  claims_free (&l.claims);
  if (r == -1)
    store_image_free (ret);
  return r;
}

/* Superblock and commit sector alone, whoever has the store. */
static int
peek (const char *path, struct store_image *ret)
{
  struct dev *dev = dev_open (path, DEV_DIRECT_OFF,
                              DEV_OPEN_READONLY | DEV_OPEN_NO_LOCK,
                              DEV_TIMEOUT_S);
  struct loader l = { .dev = dev, .path = path, .image = ret };
  int r;

  memset (ret, 0, sizeof *ret);
  if (dev == NULL)
    return -1;
  r = load_super (&l) == -1 ? -1 : load_commit (&l);
  dev_close (dev);
  return r;
}

unsigned
store_owner (const char *path)
{
  struct store_image image;

  return peek (path, &image) == 0 ? image.commit.pid : 0;
}

int
store_uuid (const char *path, uint8_t ret[STORE_UUID_BYTES])
{
  struct store_image image;

  if (peek (path, &image) == -1)
    return -1;
  memcpy (ret, image.super.uuid, STORE_UUID_BYTES);
  return 0;
}

void
store_image_free (struct store_image *image)
{
  int saved = errno;

  free (image->runs);
  free (image->bad_slots.slots);
  free (image->unreadable.slots);
  free (image->fixes);
  memset (image, 0, sizeof *image);
  errno = saved;
}
