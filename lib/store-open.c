/* SPDX-License-Identifier: BSD-3-Clause */
/* store-open: make a store, or open one: check whose it is, repair what one
 * copy can repair, grow it.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "cleanup.h"
#include "error.h"
#include "log.h"
#include "nbd-uri.h"
#include "store-internal.h"
#include "store-load.h"

#define SPARES_MIN_DEFAULT UINT64_C (4096)
#define SPARE_BYTES_MIN 16384
#define READY_AT_FIRST UINT64_C (4096)

/* Slots kept back, so that sectors that are remapped can be rewritten when no
 * spare is left for others: a sixteenth, 8 .. 256, beside what was asked for.
 */
static uint32_t
slots_to_keep (uint64_t nr_slots)
{
  return (uint32_t) MIN (MAX (nr_slots / 16, UINT64_C (8)), UINT64_C (256));
}

/* How many spares the user asks for.  0 with the error set: impossible. */
static uint64_t
wanted_slots (const struct store_options *o, uint32_t sector_bytes)
{
  uint64_t nr;

  if (o->spare_bytes == 0)
    nr = MAX (div_round_up (o->backing->size_bytes / 100, sector_bytes),
              SPARES_MIN_DEFAULT);
  else
    nr = MAX (o->spare_bytes / sector_bytes, UINT64_C (1));
  if (o->spare_bytes != 0 && o->spare_bytes < SPARE_BYTES_MIN) {
    set_error (EINVAL, "spare-size=%llu is too small: at least 16K",
               (unsigned long long) o->spare_bytes);
    return 0;
  }
  if (nr > SPARES_MAX - 256) {
    if (o->spare_bytes == 0)
      return SPARES_MAX - 256;
    set_error (EINVAL, "spare-size=%llu is too large: at most %llu",
               (unsigned long long) o->spare_bytes,
               (unsigned long long) (SPARES_MAX - 256) * sector_bytes);
    return 0;
  }
  return nr;
}

static struct store *
store_new (struct dev *dev, const char *path, const struct store_super *super)
{
  struct store *s = calloc (1, sizeof *s);

  if (s == NULL) {
    set_error (ENOMEM, "no memory for the store");
    return NULL;
  }
  s->spares = spares_new ((uint32_t) store_super_slots (super));
  if (s->spares == NULL) {
    free (s);
    return NULL;
  }
  s->dev = dev;
  snprintf (s->path, sizeof s->path, "%s", path);
  s->super = *super;
  s->nr_kept = super->nr_kept;
  memcpy (s->commit_record.uuid, super->uuid, STORE_UUID_BYTES);
  spares_set_ready (s->spares, (uint32_t) super->nr_ready);
  lock_init (&s->commit, RANK_COMMIT);
  lock_init (&s->flush, RANK_FLUSH);
  lock_init (&s->map_lock, RANK_MAP);
  pthread_cond_init (&s->flushed, NULL);
  pthread_cond_init (&s->slots_changed, NULL);
  return s;
}

/* Make. */

/* A file is made as long as it must be, but never shorter; a device must be long
 * enough.  All of it is the store's, so that the second superblock is at the
 * end.
 */
static int
make_room (struct dev *dev, const char *path, uint64_t wanted_bytes,
           uint64_t *ret_store_bytes)
{
  *ret_store_bytes = round_down (dev->info.size_bytes, STORE_BLOCK);
  if (*ret_store_bytes >= wanted_bytes)
    return 0;
  if (dev->info.kind != DEV_FILE)
    return set_error (ENOSPC, "%s has %llu bytes, the store needs %llu: use a "
                      "larger device or a smaller spare-size=", path,
                      (unsigned long long) dev->info.size_bytes,
                      (unsigned long long) wanted_bytes);
  *ret_store_bytes = wanted_bytes;
  return dev_resize (dev, wanted_bytes);
}

static int
plan_super (struct dev *dev, const struct store_options *o,
            struct store_super *ret)
{
  uint32_t sector_bytes = o->backing->sector_bytes;
  uint64_t nr = wanted_slots (o, sector_bytes), end;

  if (nr == 0)
    return -1;
  if (o->backing->size_bytes / sector_bytes > LBA_MAX)
    return set_error (EFBIG, "%s is too large: a store can number %llu sectors "
                      "of %u bytes", o->backing->path,
                      (unsigned long long) LBA_MAX + 1, sector_bytes);
  *ret = (struct store_super) {
    .sector_bytes = sector_bytes,
    .created_s = (uint64_t) time (NULL),
    .nr_sections = 1,
    .nr_kept = slots_to_keep (nr),
  };
  store_describe_backing (ret, o->backing);
  if (getrandom (ret->uuid, sizeof ret->uuid, 0) != sizeof ret->uuid)
    return set_error (errno, "getrandom: %s", errno_text (errno));
  end = store_section_layout (&ret->sections[0], 0, nr + ret->nr_kept,
                              sector_bytes, STORE_HEAD_BYTES);
  return make_room (dev, o->path, end + STORE_TAIL_BYTES, &ret->store_bytes);
}

/* Write an empty store; all is durable on return. */
static int
format (struct dev *dev, const struct store_options *o)
{
  struct store_super super;
  struct store *s;
  int r = -1;

  if (plan_super (dev, o, &super) == -1)
    return -1;
  s = store_new (dev, o->path, &super);
  if (s == NULL)
    return -1;
  if (store_write_commit (s) == 0 &&
      store_make_ready (s, MIN (store_super_slots (&super),
                                READY_AT_FIRST)) == 0)
    r = 0;
  s->dev = NULL;                /* the caller's */
  store_destroy (s);
  return r;
}

/* Open. */

static bool
is_of_later_version (const char *path, const struct store_super *super)
{
  if (super->ro_compat != 0)
    set_error (EUCLEAN, "store %s uses features of a later version: it can be "
               "looked at, but not served or repaired", path);
  return super->ro_compat != 0;
}

/* Write a copy of an entry, if need be (and if that is allowed) with its whole
 * block, from the other copy.
 */
static int
write_fix_copy (struct store *s, const struct store_fix *fix, unsigned copy,
                bool whole_blocks)
{
  if (store_write_entry_copy (s, fix->slot, copy, &fix->entry) == 0)
    return 0;
  if (!whole_blocks || !dev_error_is_medium (errno))
    return -1;
  return store_mend_block (s, store_entry_at (&s->super, fix->slot, !copy),
                           store_entry_at (&s->super, fix->slot, copy));
}

static int
write_fix (struct store *s, const struct store_fix *fix, bool whole_blocks)
{
  int r = 0;

  for (unsigned copy = 0; copy < 2; copy++)
    if (fix->copy[copy] && write_fix_copy (s, fix, copy, whole_blocks) == -1)
      r = -1;
  return r;
}

/* Write what the load found to be missing in one copy, or void. */
static int
repair (struct store *s, const struct store_image *image)
{
  size_t nr_left = 0;

  for (size_t i = 0; i < image->nr_fixes; i++)
    nr_left += write_fix (s, &image->fixes[i], false) == -1;
  /* Whole blocks only now, when all that could be mended in part is: what
   * they are copied from is as new as it can be.
   */
  for (size_t i = 0; nr_left > 0 && i < image->nr_fixes; i++)
    if (write_fix (s, &image->fixes[i], true) == -1)
      return -1;
  return 0;
}

/* Append a section for nr_more slots.  The old copies of superblock and commit
 * sector stay where they are until the new ones are durable.
 */
static int
append_section (struct store *s, uint64_t nr_more)
{
  struct store_super old = s->super;
  const struct store_section *last = &old.sections[old.nr_sections - 1];
  bool is_file = s->dev->info.kind == DEV_FILE;
  uint64_t begin = is_file ? old.store_bytes
    : last->table_b + store_table_bytes (last->nr_slots);
  uint64_t end, nr_slots = store_super_slots (&old);

  if (old.nr_sections == STORE_SECTIONS_MAX)
    return set_error (ENOSPC, "store %s was made larger %d times and cannot "
                      "be again", s->path, STORE_SECTIONS_MAX - 1);
  end = store_section_layout (&s->super.sections[old.nr_sections], nr_slots,
                              nr_more, old.sector_bytes, begin);
  if (make_room (s->dev, s->path, end + STORE_TAIL_BYTES,
                 &s->super.store_bytes) == -1)
    return -1;
  s->super.nr_sections++;
  return 0;
}

/* A larger spare-size= than before grows the store, a smaller one is refused. */
static int
fit_size (struct store *s, const struct store_options *o)
{
  uint64_t has = store_super_slots (&s->super) - s->super.nr_kept;
  uint64_t wanted;

  if (o->spare_bytes == 0)
    return 0;
  wanted = wanted_slots (o, s->super.sector_bytes);
  if (wanted == 0)
    return -1;
  if (wanted < has)
    return set_error (EINVAL, "store %s has room for %llu spares (spare-size="
                      "%llu) and cannot be made smaller", o->path,
                      (unsigned long long) has,
                      (unsigned long long) has * s->super.sector_bytes);
  if (wanted == has)
    return 0;
  if (append_section (s, wanted - has) == -1)
    return -1;
  log_message (LEVEL_INFO, "store %s grows from %llu to %llu spares", o->path,
               (unsigned long long) has, (unsigned long long) wanted);
  return 1;
}

static struct map *
build_map (struct store *s, const struct store_image *image)
{
  struct map *map = map_new (div_round_up (s->super.backing_bytes,
                                           s->super.sector_bytes));

  if (map && map_load (map, image->runs, image->nr_runs) == -1) {
    map_free (map);
    return NULL;
  }
  return map;
}

static void
take_used_slots (struct store *s, struct store_image *image)
{
  for (size_t i = 0; i < image->nr_runs; i++)
    spares_take_at (s->spares, image->runs[i].spare,
                    (uint32_t) image->runs[i].nr_sectors);
  for (size_t i = 0; i < image->bad_slots.nr; i++)
    spares_take_at (s->spares, (spare_t) { image->bad_slots.slots[i] }, 1);
  atomic_store (&s->nr_bad, (uint32_t) image->bad_slots.nr);
  s->unreadable = image->unreadable;
  image->unreadable = (struct slot_list) { .slots = NULL };
}

/* Where the store of a file ended before it grew there is a second superblock,
 * with a good checksum and without the new sections.  It must not be found on
 * the day that the new ones are damaged.
 */
static int
forget_old_supers (struct store *s)
{
  static const uint8_t zeroes[STORE_BLOCK];
  uint8_t block[STORE_BLOCK];
  struct store_super old;
  bool is_changed = false;

  for (unsigned i = 1; i < s->super.nr_sections; i++) {
    uint64_t end = s->super.sections[i].table_a;

    if (dev_pread (s->dev, block, sizeof block, end - STORE_BLOCK,
                   DEV_BUFFERED) == -1 ||
        store_super_decode (block, 1, &old) || old.store_bytes != end)
      continue;
    if (dev_pwrite (s->dev, zeroes, sizeof zeroes, end - STORE_BLOCK, 0) == 0)
      is_changed = true;
    else if (dev_error_is_medium (errno))
      log_message (LEVEL_WARNING, "%s: an old superblock stays there",
                   last_error_text ());
    else
      return -1;
  }
  return is_changed ? store_flush_dev (s) : 0;
}

/* Before anything else changes there must be two good superblocks again. */
static int
repair_super (struct store *s, const struct store_image *image)
{
  s->commit_record = image->commit;
  atomic_store (&s->seq_recorded, image->max_seq);
  return image->super_needs_write
    ? store_write_super (s, !image->super_copy) : 0;
}

/* Then all that counts is durable, and what does not count is gone. */
static int
repair_rest (struct store *s, const struct store_image *image, uint32_t pid)
{
  if (repair (s, image) == -1 || store_flush_dev (s) == -1)
    return -1;
  store_renew_stale (s);
  s->commit_record.durable_seq = image->max_seq;
  s->commit_record.pid = pid;
  s->commit_record.is_clean = pid == 0;
  atomic_store (&s->seq_durable, image->max_seq);
  store_flushed_until (s, store_unflushed_end (s));
  if (store_write_commit (s) == -1 || store_flush_dev (s) == -1)
    return -1;
  atomic_store (&s->has_new_stale, false);
  return 0;
}

/* Make the store on disk as it should be: repaired, adopted, grown. */
static int
bring_up_to_date (struct store *s, const struct store_image *image,
                  const struct store_options *o)
{
  int grown;

  if (repair_super (s, image) == -1)
    return -1;
  grown = fit_size (s, o);
  if (grown == -1)
    return -1;
  store_describe_backing (&s->super, o->backing);
  if (repair_rest (s, image, (uint32_t) getpid ()) == -1)
    return -1;
  if ((grown || !store_is_described_alike (&image->super, &s->super)) &&
      store_write_super (s, 1) == -1)
    return -1;
  return forget_old_supers (s);
}

int
store_repair (struct dev *dev, const char *path,
              const struct store_image *image)
{
  struct store *s;
  int r = -1;

  if (is_of_later_version (path, &image->super))
    return -1;
  s = store_new (dev, path, &image->super);
  if (s == NULL)
    return -1;
  if (repair_super (s, image) == 0)
    r = repair_rest (s, image, 0);
  s->dev = NULL;                /* the caller's */
  store_destroy (s);
  return r;
}

/* A bad block makes many problems; these are told one by one. */
#define PROBLEMS_TOLD 20

struct problem_log {
  const char *path;
  unsigned long nr[STORE_FATAL];        /* by damage */
};

static void
log_problem (void *opaque, int damage, const char *problem)
{
  struct problem_log *l = opaque;

  if (damage < STORE_FATAL && l->nr[damage]++ < PROBLEMS_TOLD)
    log_message (damage ? LEVEL_WARNING : LEVEL_INFO, "store %s: %s%s",
                 l->path, problem, damage ? ": it is being repaired" : "");
}

static int
load_and_tell (struct dev *dev, const char *path, struct store_image *ret)
{
  struct problem_log l = { .path = path };
  int r = store_load (dev, path, log_problem, &l, ret);

  for (int damage = 0; damage < STORE_FATAL; damage++)
    if (l.nr[damage] > PROBLEMS_TOLD)
      log_message (damage ? LEVEL_WARNING : LEVEL_INFO, "store %s: and %lu more "
                   "like these", path, l.nr[damage] - PROBLEMS_TOLD);
  return r;
}

/* The bitmap of slots is as long as the store: a grown one needs a new one. */
static int
renew_spares (struct store *s)
{
  struct spares *spares = spares_new ((uint32_t) store_super_slots (&s->super));

  if (spares == NULL)
    return -1;
  spares_free (s->spares);
  s->spares = spares;
  spares_set_ready (s->spares, (uint32_t) s->super.nr_ready);
  return 0;
}

static struct store *
open_loaded (struct dev *dev, const struct store_options *o,
             struct store_image *image, struct map **ret_map)
{
  struct store *s = store_new (dev, o->path, &image->super);
  struct map *map;

  if (s == NULL)
    return NULL;
  if (bring_up_to_date (s, image, o) == 0 && renew_spares (s) == 0 &&
      (map = build_map (s, image)) != NULL) {
    take_used_slots (s, image);
    store_tell_few_left (s);
    *ret_map = map;
    return s;
  }
  s->dev = NULL;
  store_destroy (s);
  return NULL;
}

/* A device is made a store only where it holds nothing: no file system, volume
 * manager, RAID or partition table leaves so much zero at both ends.
 */
#define BLANK_BYTES (4u << 20)

static bool
is_blank (struct dev *dev)
{
  uint64_t size = dev->info.size_bytes;
  size_t n = (size_t) MIN (size, (uint64_t) BLANK_BYTES);
  CLEANUP_FREE uint8_t *buf = malloc (MAX (n, (size_t) 1));

  if (buf == NULL || n == 0)
    return n == 0;
  for (unsigned end = 0; end < 2; end++) {
    if (dev_pread (dev, buf, n, end ? size - n : 0, DEV_BUFFERED) == -1)
      return false;
    if (buf[0] != 0 || memcmp (buf, buf + 1, n - 1) != 0)
      return false;
  }
  return true;
}

static void
explain_flush (const char *path)
{
  set_error (errno, "store %s cannot be flushed (%s): what was written to it "
             "last may be lost; if this goes on after another start, copy it "
             "to a better place", path, errno_text (errno));
}

struct store *
store_open_dev (struct dev *dev, const struct store_options *o,
                struct map **ret_map)
{
  const bool is_new = dev->info.size_bytes == 0 ||
    (dev->info.kind != DEV_FILE && is_blank (dev));
  struct store_image image;
  struct store *s = NULL;

  if (is_new && (store_check_may_make (o) == -1 || format (dev, o) == -1))
    goto err;
  /* What was written in an earlier life cannot be written again. */
  if (!is_new && dev_flush (dev) == -1) {
    explain_flush (o->path);
    goto err;
  }
  if (is_new && o->ret_created)
    *o->ret_created = true;
  if (load_and_tell (dev, o->path, &image) == -1)
    goto err;
  if (dev->info.kind == DEV_NBD && !is_new && !image.commit.is_clean)
    log_message (LEVEL_WARNING, "store %s was not closed in good order: if "
                 "a server on another machine still has it, stop one of them: "
                 "NBD has no locks", o->path);
  if (!is_of_later_version (o->path, &image.super) &&
      (is_new || store_check_backing (&image, o) == 0))
    s = open_loaded (dev, o, &image, ret_map);
  store_image_free (&image);
  if (s)
    return s;
 err:
  dev_close (dev);
  return NULL;
}

/* Files. */

static int
flush_directory_of (const char *path)
{
  CLEANUP_FREE char *copy = strdup (path);
  CLEANUP_CLOSE int fd = -1;

  if (copy == NULL)
    return set_error (ENOMEM, "no memory");
  fd = open (dirname (copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd == -1 || fsync (fd) == -1)
    return set_error (errno, "directory of %s: %s", path, errno_text (errno));
  return 0;
}

/* Make a store under a temporary name and give it its own when it is whole, so
 * that no crash leaves half of one, and nothing that exists is overwritten.
 */
static int
make_file (const struct store_options *o)
{
  CLEANUP_FREE char *temporary = NULL;
  struct dev *dev;
  int fd, r = -1;

  if (strncmp (o->path, "/dev/", 5) == 0 &&
      strncmp (o->path, "/dev/shm/", 9) != 0)
    return set_error (ENOENT, "%s is not there, and a file made there would "
                      "be gone after a restart: attach the device, or name "
                      "another place with spare=", o->path);

  if (asprintf (&temporary, "%s.XXXXXX", o->path) == -1) {
    temporary = NULL;
    return set_error (ENOMEM, "no memory");
  }
  fd = mkostemp (temporary, O_CLOEXEC);
  if (fd == -1)
    return set_error (errno, "cannot make the store %s: %s; name a place that "
                      "can be written with spare=", o->path, errno_text (errno));
  close (fd);
  dev = dev_file_open (temporary, DEV_DIRECT_AUTO, 0);
  if (dev && format (dev, o) == 0) {
    r = renameat2 (AT_FDCWD, temporary, AT_FDCWD, o->path, RENAME_NOREPLACE);
    if (r == -1 && errno == EINVAL)     /* the file system cannot */
      r = access (o->path, F_OK) == 0 ? -1 : rename (temporary, o->path);
    if (r == -1)
      set_error (errno, "cannot make the store %s: %s", o->path,
                 errno_text (errno));
    else
      r = flush_directory_of (o->path);
  }
  dev_close (dev);
  if (r == -1) {
    int saved = errno;

    unlink (temporary);
    errno = saved;
  }
  return r;
}

void
store_explain_busy (const char *path)
{
  unsigned pid = store_owner (path);

  /* One that was killed does not have it any more; who looks at a store, or
   * repairs it, has it and leaves no note.
   */
  if (pid && (kill ((pid_t) pid, 0) == 0 || errno != ESRCH))
    set_error (EBUSY, "store %s is in use by process %u: one server at a time",
               path, pid);
  else
    set_error (EBUSY, "store %s is in use by another process", path);
}

/* On an NBD server. */
static struct store *
open_export (const struct store_options *options, struct map **ret_map)
{
  struct store_options o = *options;
  char path[sizeof ((struct store *) NULL)->path];
  struct dev *dev = dev_nbd_open (o.path, 0, o.timeout_s);

  if (dev == NULL) {
    if (errno == EROFS)
      set_error (EROFS, "the store %s is read-only; name a place that can be "
                 "written with spare=", o.path);
    return NULL;
  }
  snprintf (path, sizeof path, "%s", dev->info.name);
  o.path = path;
  return store_open_dev (dev, &o, ret_map);
}

struct store *
store_open (const struct store_options *options, struct map **ret_map)
{
  struct store_options changed = *options;
  const struct store_options *o = &changed;
  struct dev *dev;
  struct stat st;

  if (strlen (o->path) >= sizeof ((struct store *) NULL)->path) {
    set_error (ENAMETOOLONG, "%s: the name of a store has at most %zu bytes",
               o->path, sizeof ((struct store *) NULL)->path - 1);
    return NULL;
  }
  if (nbd_uri_is_one (o->path))
    return open_export (o, ret_map);
  if (lstat (o->path, &st) == -1 && errno == ENOENT) {
    if (store_check_may_make (o) == -1 || make_file (o) == -1)
      return NULL;
    if (o->ret_created)
      *o->ret_created = true;
    changed.mark = NULL;        /* it speaks of the store before this one */
  }
  dev = dev_file_open (o->path, DEV_DIRECT_AUTO, 0);
  if (dev == NULL) {
    if (errno == EBUSY)
      store_explain_busy (o->path);
    else if (errno == EROFS || errno == EACCES || errno == EPERM)
      set_error (errno, "cannot open the store %s: %s; name a place that can "
                 "be written with spare=", o->path, errno_text (errno));
    return NULL;
  }
  if (dev->info.size_bytes == 0) {
    dev_close (dev);
    set_error (EEXIST, "%s exists, is empty and no store; it is left alone: "
               "remove it, or name another place with spare=", o->path);
    return NULL;
  }
  if (dev_file_forget_cache (dev) == -1) {
    explain_flush (o->path);
    dev_close (dev);
    return NULL;
  }
  return store_open_dev (dev, o, ret_map);
}
