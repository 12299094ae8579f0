/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "crc32c.h"
#include "error.h"
#include "nbd-uri.h"
#include "store-check.h"
#include "store-internal.h"

/* The data of so many neighbouring slots are read at a time. */
#define DATA_BYTES (1u << 20)
#define CHUNK_SLOTS (DATA_BYTES / STORE_SECTOR_MIN)
#define CHUNK_SPAN                                                            \
  ((CHUNK_SLOTS / ENTRIES_PER_SECTOR + 2) * TABLE_SECTOR_BYTES)

struct check {
  struct dev *dev;
  const char *path;
  store_problem_fn *fn;
  void *opaque;
  bool is_repaired;             /* now comes what is there still */
  uint64_t nr[STORE_FATAL + 1]; /* problems, by damage */
};

static void
note_problem (void *opaque, int damage, const char *problem)
{
  struct check *c = opaque;
  char text[600];

  c->nr[damage]++;
  if (damage == STORE_NORMAL)
    return;
  if (!c->is_repaired)
    c->fn (c->opaque, damage, problem);
  else if (damage != STORE_LASTING) {   /* that was told before */
    snprintf (text, sizeof text, "after the repair: %s", problem);
    c->fn (c->opaque, damage, text);
  }
}

static void report (struct check *c, enum store_damage damage,
                    const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

static void
report (struct check *c, enum store_damage damage, const char *fmt, ...)
{
  char text[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  note_problem (c, damage, text);
}

static int
worst_of (const struct check *c)
{
  int damage = STORE_FATAL;

  while (damage > STORE_NORMAL && c->nr[damage] == 0)
    damage--;
  return damage;
}

/* Superblocks and commit sectors: is all zero that has to be?  A copy that is
 * not good was told of by the load.
 */

static bool
super_is_plain (const uint8_t block[STORE_BLOCK], unsigned copy)
{
  uint8_t plain[STORE_BLOCK];
  struct store_super super;

  if (store_super_decode (block, copy, &super) != NULL || super.compat != 0 ||
      super.ro_compat != 0)
    return true;
  store_super_encode (&super, copy, plain);
  return memcmp (block, plain, STORE_BLOCK) == 0;
}

static bool
commit_is_plain (const uint8_t sector[COMMIT_BYTES], const uint8_t *uuid)
{
  uint8_t plain[COMMIT_BYTES];
  struct store_commit commit;

  if (store_commit_decode (sector, uuid, &commit) != NULL)
    return true;
  store_commit_encode (&commit, plain);
  return memcmp (sector, plain, COMMIT_BYTES) == 0;
}

static void
check_heads (struct check *c, struct store_image *image)
{
  const struct store_super *super = &image->super;

  for (unsigned copy = 0; copy < 2; copy++) {
    const char *name = copy == 0 ? "first" : "second";
    uint64_t super_at = store_super_at (super, copy);
    uint64_t commit_at = store_commit_at (super, copy);
    uint8_t buf[STORE_BLOCK];

    if (dev_pread (c->dev, buf, STORE_BLOCK, super_at, DEV_BUFFERED) == 0 &&
        !super_is_plain (buf, copy)) {
      report (c, STORE_REPAIRABLE, "the %s superblock has content where it "
              "should be zero", name);
      image->super_needs_write = true;
    }
    if (super->compat == 0 && super->ro_compat == 0 &&
        dev_pread (c->dev, buf, COMMIT_BYTES, commit_at, DEV_BUFFERED) == 0 &&
        !commit_is_plain (buf, super->uuid)) {
      report (c, STORE_REPAIRABLE, "the %s commit sector has content where it "
              "should be zero", name);
      image->commit_needs_write = true;
    }
  }
}

/* Slots: their entries once more, and their data, in the order in which they
 * stand in the store.
 */

struct slots {
  const struct store_super *super;
  uint8_t *owned;               /* a bit for each slot: it holds a sector */
  uint8_t *data;                /* DATA_BYTES, for direct I/O */
  uint8_t spans[2][CHUNK_SPAN]; /* of the table, both copies */
  bool has_span[2];             /* it could be read */
  struct store_entry entries[CHUNK_SLOTS];
};

static bool
is_owned (const struct slots *s, uint64_t slot)
{
  return s->owned[slot / 8] >> slot % 8 & 1;
}

/* One copy of an entry; false: it is not good. */
static bool
get_copy (struct check *c, const struct slots *s, unsigned copy,
          uint64_t first, uint64_t slot, struct store_entry *ret)
{
  spare_t spare = { (uint32_t) slot };
  uint64_t begin = store_entry_at (s->super, (spare_t) { (uint32_t) first },
                                   copy);
  uint64_t offset = store_entry_at (s->super, spare, copy);
  uint8_t bytes[ENTRY_BYTES];

  if (s->has_span[copy])
    memcpy (bytes, s->spans[copy] + (offset - begin), ENTRY_BYTES);
  else if (dev_pread (c->dev, bytes, ENTRY_BYTES, offset, DEV_BUFFERED) == -1)
    return false;
  return store_entry_decode (bytes, s->super->uuid, spare, ret) == NULL;
}

/* The copy that counts. */
static bool
get_entry (struct check *c, const struct slots *s, uint64_t first,
           uint64_t slot, struct store_entry *ret)
{
  struct store_entry second;
  bool has_first = get_copy (c, s, 0, first, slot, ret);

  if (get_copy (c, s, 1, first, slot, &second) &&
      (!has_first || second.seq > ret->seq)) {
    *ret = second;
    return true;
  }
  return has_first;
}

/* A state has no use for some of the fields; they are zero then. */
static void
check_fields (struct check *c, uint64_t slot, const struct store_entry *e)
{
  bool is_free = e->state == ENTRY_FREE;
  bool has_lba = !is_free && e->state != ENTRY_BAD_SLOT;

  if ((e->state != ENTRY_REMAPPED && e->data_crc != 0) ||
      (!has_lba && e->lba.n != 0) ||
      (is_free && (e->time_s != 0 || e->cause != CAUSE_NONE)))
    report (c, STORE_LASTING, "slot %llu: its entry has content where it "
            "should be zero", (unsigned long long) slot);
}

static void
read_spans (struct check *c, struct slots *s, uint64_t first, uint64_t nr)
{
  for (unsigned copy = 0; copy < 2; copy++) {
    uint64_t begin = store_entry_at (s->super,
                                     (spare_t) { (uint32_t) first }, copy);
    uint64_t end = store_entry_at (s->super, (spare_t)
                                   { (uint32_t) (first + nr - 1) }, copy)
      + ENTRY_BYTES;

    s->has_span[copy] = dev_pread (c->dev, s->spans[copy], end - begin, begin,
                                   DEV_BUFFERED) == 0;
  }
}

static void
check_sector (struct check *c, const struct slots *s, uint64_t slot,
              const struct store_entry *e, const uint8_t *data)
{
  if (crc32c (0, data, s->super->sector_bytes) != e->data_crc)
    report (c, STORE_LASTING, "slot %llu: the data of sector %llu is damaged: "
            "it reads as lost", (unsigned long long) slot,
            (unsigned long long) e->lba.n);
}

/* What cannot be read at once is read sector by sector. */
static int
check_sectors_alone (struct check *c, const struct slots *s, uint64_t slot,
                     uint64_t nr, const struct store_entry *e)
{
  for (; nr > 0; slot++, e++, nr--) {
    uint64_t at = store_data_at (s->super, (spare_t) { (uint32_t) slot });

    if (dev_pread (c->dev, s->data, s->super->sector_bytes, at, 0) == 0)
      check_sector (c, s, slot, e, s->data);
    else if (dev_error_is_medium (errno))
      report (c, STORE_LASTING, "slot %llu: the data of sector %llu cannot be "
              "read (%s): it reads as lost", (unsigned long long) slot,
              (unsigned long long) e->lba.n, errno_text (errno));
    else
      return -1;
  }
  return 0;
}

/* The data of slots that are all owned; e are their entries. */
static int
check_data (struct check *c, const struct slots *s, uint64_t slot, uint64_t nr,
            const struct store_entry *e)
{
  uint32_t sector_bytes = s->super->sector_bytes;
  uint64_t at = store_data_at (s->super, (spare_t) { (uint32_t) slot });

  if (dev_pread (c->dev, s->data, nr * sector_bytes, at, 0) == -1)
    return check_sectors_alone (c, s, slot, nr, e);
  for (uint64_t i = 0; i < nr; i++)
    check_sector (c, s, slot + i, &e[i], s->data + i * sector_bytes);
  return 0;
}

/* Slots first ... of one section, CHUNK_SLOTS of them at most. */
static int
check_chunk (struct check *c, struct slots *s, uint64_t first, uint64_t nr)
{
  uint64_t begin = 0;           /* of the run of owned slots before i */

  read_spans (c, s, first, nr);
  for (uint64_t i = 0; i < nr; i++) {
    if (!get_entry (c, s, first, first + i, &s->entries[i]))
      return set_error (EIO, "store %s: the entry of slot %llu could be read "
                        "before, and now cannot", c->path,
                        (unsigned long long) (first + i));
    check_fields (c, first + i, &s->entries[i]);
  }
  for (uint64_t i = 0; i <= nr; i++) {
    if (i < nr && is_owned (s, first + i))
      continue;
    if (i > begin && check_data (c, s, first + begin, i - begin,
                                 &s->entries[begin]) == -1)
      return -1;
    begin = i + 1;
  }
  return 0;
}

static int
check_slots (struct check *c, struct slots *s)
{
  const struct store_super *super = s->super;
  uint64_t chunk = DATA_BYTES / super->sector_bytes, nr;

  for (uint64_t slot = 0; slot < super->nr_ready; slot += nr) {
    nr = MIN (chunk, super->nr_ready - slot);
    nr = store_in_section (super, (spare_t) { (uint32_t) slot },
                           (uint32_t) nr);
    if (check_chunk (c, s, slot, nr) == -1)
      return -1;
  }
  return 0;
}

/* That no slot is owned twice need not be looked for: it has one entry, which
 * names one sector; and of the entries that name a sector the load takes one.
 */
static int
check_content (struct check *c, const struct store_image *image)
{
  CLEANUP_FREE struct slots *s = malloc (sizeof *s);
  CLEANUP_FREE uint8_t *owned =
    calloc (store_super_slots (&image->super) / 8 + 1, 1);
  CLEANUP_FREE void *data = NULL;

  if (s == NULL || owned == NULL ||
      posix_memalign (&data, STORE_BLOCK, DATA_BYTES) != 0)
    return set_error (ENOMEM, "no memory to check store %s", c->path);
  s->super = &image->super;
  s->owned = owned;
  s->data = data;
  for (size_t i = 0; i < image->nr_runs; i++)
    for (uint64_t k = 0; k < image->runs[i].nr_sectors &&
           image->runs[i].state == SECTOR_REMAPPED; k++) {
      uint64_t slot = image->runs[i].spare.n + k;

      owned[slot / 8] |= (uint8_t) (1 << slot % 8);
    }
  return check_slots (c, s);
}

/* All of it. */

/* Returns the worst damage, or -1.  *ret is empty unless the store could be
 * loaded, and is the caller's to free.
 */
static int
check_all (struct check *c, struct store_image *ret)
{
  memset (ret, 0, sizeof *ret);
  memset (c->nr, 0, sizeof c->nr);
  if (store_load (c->dev, c->path, note_problem, c, ret) == 0) {
    check_heads (c, ret);
    return check_content (c, ret) == -1 ? -1 : worst_of (c);
  }
  if (c->nr[STORE_FATAL] > 0)
    return STORE_FATAL;
  if (errno == EEXIST)          /* else: it could not be read */
    set_error (EEXIST, "%s is no store", c->path);
  return -1;
}

static bool
needs_repair (const struct store_image *image)
{
  return image->super_needs_write || image->commit_needs_write ||
    image->nr_fixes > 0 || image->max_seq > image->commit.durable_seq;
}

static int
repair_and_check (struct check *c, const struct store_image *image,
                  int (*forget_cache) (struct dev *dev),
                  uint64_t *ret_nr_repaired)
{
  const uint64_t nr_before = c->nr[STORE_REPAIRABLE];
  struct store_image again;
  int worst;

  if (store_repair (c->dev, c->path, image) == -1 ||
      (forget_cache && forget_cache (c->dev) == -1))
    return -1;
  c->is_repaired = true;
  worst = check_all (c, &again);
  store_image_free (&again);
  if (nr_before > c->nr[STORE_REPAIRABLE])
    *ret_nr_repaired = nr_before - c->nr[STORE_REPAIRABLE];
  return worst;
}

int
store_check_dev (struct dev *dev, const char *path,
                 int (*forget_cache) (struct dev *dev), store_problem_fn *fn,
                 void *opaque, uint64_t *ret_nr_repaired)
{
  struct check c = { .dev = dev, .path = path, .fn = fn, .opaque = opaque };
  struct store_image image;
  int worst;

  if (ret_nr_repaired)
    *ret_nr_repaired = 0;
  if (forget_cache && forget_cache (dev) == -1)
    return -1;
  worst = check_all (&c, &image);
  if (ret_nr_repaired && worst != -1 && worst < STORE_FATAL &&
      (needs_repair (&image) || image.super.ro_compat != 0))
    worst = repair_and_check (&c, &image, forget_cache, ret_nr_repaired);
  store_image_free (&image);
  return worst;
}

/* What cannot be flushed because it is never written need not be. */
static int
forget_cache_of_reader (struct dev *dev)
{
  int r = dev_forget_cache (dev);

  return r == -1 && (errno == EINVAL || errno == EROFS) ? 0 : r;
}

static int
check_file (const char *path, unsigned flags,
            int (*forget_cache) (struct dev *dev), store_problem_fn *fn,
            void *opaque, uint64_t *ret_nr_repaired)
{
  struct dev *dev = dev_open (path, DEV_DIRECT_AUTO, flags, DEV_TIMEOUT_S);
  int worst;

  if (dev == NULL) {
    if (errno == EBUSY)
      store_explain_busy (path);
    return -1;
  }
  worst = store_check_dev (dev, path, forget_cache, fn, opaque,
                           ret_nr_repaired);
  dev_close (dev);
  return worst;
}

int
store_check (const char *path, store_problem_fn *fn, void *opaque)
{
  return check_file (path, DEV_OPEN_READONLY, forget_cache_of_reader, fn,
                     opaque, NULL);
}

int
store_check_and_repair (const char *path, store_problem_fn *fn, void *opaque,
                        uint64_t *ret_nr_repaired)
{
  /* NBD has no locks: a server may have it. */
  if (nbd_uri_is_one (path))
    return set_error (EOPNOTSUPP, "%s: a store on an NBD server is not repaired "
                      "here, where nobody knows who uses it: the next start "
                      "with it does that", path);
  return check_file (path, 0, dev_forget_cache, fn, opaque, ret_nr_repaired);
}
