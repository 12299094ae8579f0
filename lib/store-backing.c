/* SPDX-License-Identifier: BSD-3-Clause */
/* store-backing: is this store the one of that disk?
 *
 * A store knows its disk, and the disk bears a mark of its store (mark.h); either
 * may be another's, or one of an earlier day.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "checked.h"
#include "error.h"
#include "log.h"
#include "store-internal.h"

void
store_describe_backing (struct store_super *super,
                        const struct identity *backing)
{
  super->backing_bytes = backing->size_bytes;
  super->backing_kind = backing->kind;
  memset (super->backing_id, 0, sizeof super->backing_id);
  memset (super->backing_path, 0, sizeof super->backing_path);
  snprintf (super->backing_id, sizeof super->backing_id, "%s", backing->id);
  snprintf (super->backing_path, sizeof super->backing_path, "%s",
            backing->path);
  super->backing_inode = backing->inode;
  super->backing_born_s = backing->born_s;
  super->backing_born_ns = backing->born_ns;
}

bool
store_is_described_alike (const struct store_super *a,
                          const struct store_super *b)
{
  return a->backing_bytes == b->backing_bytes &&
    a->backing_kind == b->backing_kind &&
    strcmp (a->backing_id, b->backing_id) == 0 &&
    strcmp (a->backing_path, b->backing_path) == 0 &&
    a->backing_inode == b->backing_inode &&
    a->backing_born_s == b->backing_born_s &&
    a->backing_born_ns == b->backing_born_ns;
}

/* A store that was made where the file system tells nothing of inodes fits
 * any file.
 */
static bool
is_same_file (const struct store_super *super, const struct identity *b)
{
  return super->backing_inode == 0 ||
    (super->backing_inode == b->inode && super->backing_born_s == b->born_s &&
     super->backing_born_ns == b->born_ns);
}

/* "PATH (ID, N bytes)": ret has room for what superblocks can hold. */
#define DISK_TEXT_BYTES 512

static void
describe_disk (char *ret, const char *path, const char *id, uint64_t inode,
               uint64_t born_s, uint64_t size_bytes)
{
  time_t born = (time_t) born_s;
  char file[80] = "no id", when[32] = "";
  struct tm tm;

  if (gmtime_r (&born, &tm))
    strftime (when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &tm);
  if (inode)
    snprintf (file, sizeof file, "inode %llu, made %s",
              (unsigned long long) inode, when);
  snprintf (ret, DISK_TEXT_BYTES, "%s (%s, %llu bytes)", path,
            id[0] ? id : file, (unsigned long long) size_bytes);
}

static int
refuse_backing (const struct store_super *super, const struct store_options *o)
{
  const struct identity *b = o->backing;
  char has[DISK_TEXT_BYTES], is[DISK_TEXT_BYTES];

  describe_disk (has, super->backing_path, super->backing_id,
                 super->backing_inode, super->backing_born_s,
                 super->backing_bytes);
  describe_disk (is, b->path, b->id, b->inode, b->born_s, b->size_bytes);
  return set_error (ESTALE, "store %s belongs to %s, and not to %s: give its "
                    "own store with spare=, or adopt=yes if it is the same "
                    "disk; remove that store if the disk is a new one",
                    o->path, has, is);
}

/* The disk bears the mark of another store. */
static int
refuse_mark (const struct store_options *o)
{
  if (strcmp (o->mark->store, o->path) != 0)
    return set_error (ESTALE, "%s was last served with another store, %s, and "
                      "not with %s: give that with spare=, or adopt=yes if "
                      "this one is right", o->backing->path, o->mark->store,
                      o->path);
  return set_error (ESTALE, "%s was last served with another store, which stood "
                    "where %s does now: bring that back, or give adopt=yes if "
                    "this one is right", o->backing->path, o->path);
}

/* A store that has never had a record is as good as a new one. */
static int
check_identity (const struct store_image *image, const struct store_options *o)
{
  const struct store_super *super = &image->super;
  const struct identity *b = o->backing;
  bool fits = super->backing_bytes == b->size_bytes &&
    super->backing_kind == b->kind &&
    strcmp (super->backing_id, b->id) == 0 && is_same_file (super, b);
  bool is_marked = o->mark == NULL ||
    memcmp (o->mark->uuid, super->uuid, STORE_UUID_BYTES) == 0 ||
    (o->new_store && image->max_seq == 0);

  if (super->sector_bytes < b->sector_bytes)
    return set_error (EINVAL, "store %s is for sectors of %u bytes, but %s "
                      "has sectors of %u: %s", o->path, super->sector_bytes,
                      b->path, b->sector_bytes, b->kind == DEV_FILE
                      ? "serve it with direct=off, as before"
                      : "give its own store with spare=");
  if (fits && is_marked)
    return 0;
  if (!fits && !o->adopt)
    return refuse_backing (super, o);
  if (!o->adopt)
    return refuse_mark (o);
  if (fits)
    log_message (LEVEL_WARNING, "store %s is adopted for %s, which was last "
                 "served with %s", o->path, b->path, o->mark->store);
  else
    log_message (LEVEL_WARNING, "store %s, which belonged to %s, is adopted for "
                 "%s", o->path, super->backing_path, b->path);
  return 0;
}

/* The disk has seen later records than the store has. */
static int
check_is_recent (const struct store_image *image, const struct store_options *o)
{
  if (o->mark == NULL || image->max_seq >= o->mark->seq ||
      memcmp (o->mark->uuid, image->super.uuid, STORE_UUID_BYTES) != 0)
    return 0;
  if (o->adopt) {
    log_message (LEVEL_WARNING, "store %s, an old copy, is adopted for %s: what "
                 "was remapped later reads as what was there before", o->path,
                 o->backing->path);
    return 0;
  }
  return set_error (ESTALE, "store %s is an old copy: %s was last served with "
                    "a later one (record %llu, this has %llu): give that with "
                    "spare=, or adopt=yes to go back", o->path,
                    o->backing->path, (unsigned long long) o->mark->seq,
                    (unsigned long long) image->max_seq);
}

static int
check_adopted_size (const struct store_image *image,
                    const struct store_options *o)
{
  const struct sector_run *last =
    image->nr_runs > 0 ? &image->runs[image->nr_runs - 1] : NULL;
  uint64_t nr_sectors = div_round_up (o->backing->size_bytes,
                                      image->super.sector_bytes);

  if (last && last->lba.n + last->nr_sectors > nr_sectors)
    return set_error (ESTALE, "store %s has remapped sectors behind the end of "
                      "%s: it is the store of a larger disk", o->path,
                      o->backing->path);
  return 0;
}

int
store_check_backing (const struct store_image *image,
                     const struct store_options *o)
{
  return check_identity (image, o) == 0 && check_is_recent (image, o) == 0 &&
    check_adopted_size (image, o) == 0 ? 0 : -1;
}

/* A disk that has a store is not given another one: what was remapped would
 * read as it was before.
 */
int
store_check_may_make (const struct store_options *o)
{
  if (o->mark == NULL)
    return 0;
  if (!o->new_store)
    return set_error (ESTALE, "%s was served with the store %s, and there is "
                      "none at %s: bring it back, or say with spare= where it "
                      "is; or give up what was remapped, which then reads as "
                      "old data, with new-store=yes", o->backing->path,
                      o->mark->store, o->path);
  log_message (LEVEL_WARNING, "%s gets a new store, %s: what was remapped to "
               "%s is given up, and reads as what was there before",
               o->backing->path, o->path, o->mark->store);
  return 0;
}
