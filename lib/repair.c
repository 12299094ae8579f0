/* SPDX-License-Identifier: BSD-3-Clause */
/* repair: the error path of the engine.
 *
 * Purpose:    take a failed request apart until only bad sectors are left, and
 *             give these a spare, inside the request.
 * Invariants: E1 .. E5 of engine.h, and
 *             F1 For one request no bad sector is touched more often than
 *                1 + retries times; but at least once after the request
 *                itself, because it must be found, and because a write that
 *                was under way may have mended it.
 *             F2 A sector is called lost only by a thread that has it alone,
 *                after an attempt that began when it had.
 * Touches:    the request is the first.  With three or more to spend, pieces of
 *             a step (4 KiB or the physical sector) are the second, and what
 *             fails as one alone gets the rest; with fewer, steps are left out.
 * Records:    units that cannot be written are collected while they are
 *             neighbours, and get their spares together: one record.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "engine-internal.h"
#include "error.h"
#include "lock.h"
#include "log.h"

/* How a request that is read is taken apart. */
struct search {
  unsigned nr_touches;          /* of the sectors at hand, so far */
  unsigned nr_spare_touches;    /* the same of their spares */
  unsigned nr_found;            /* bad or weak sectors */
  struct evidence_scope scope;
};

static struct evidence_scope
scope_of (lba_t lba, uint64_t nr_sectors)
{
  return (struct evidence_scope) { lba, nr_sectors, .good = UINT64_MAX };
}

/* The disk has just answered there. */
static void
note_good (struct engine *e, lba_t lba, struct evidence_scope *scope)
{
  evidence_note_good (e->evidence, lba);
  scope->good = lba.n;
}

static unsigned
touches_allowed (const struct engine *e)
{
  return 1 + e->options.retries;
}

/* Read. */

/* Read clean sectors that this thread has alone, with the touches that are
 * left; the last failure makes them lost.
 */
static int
read_clean_locked (struct engine *e, lba_t lba, uint64_t nr_sectors,
                   struct search *s, uint8_t *buf)
{
  unsigned nr_touches = s->nr_touches, nr_failed = 0;
  int err;

  do {
    if (dev_pread (e->backing, buf, sectors_to_bytes (e, lba, nr_sectors),
                   lba_to_bytes (e, lba), 0) == 0) {
      if (nr_failed > 0) {
        s->nr_found++;
        engine_post (e, EVENT_WEAK, lba, nr_sectors, 0);
      }
      note_good (e, lba, &s->scope);
      return 0;
    }
    err = errno;
    if (!engine_is_medium_error (e, EVENT_READ_ERROR, lba, nr_sectors))
      return -1;
    nr_failed++;
  } while (++nr_touches < touches_allowed (e));

  if (evidence_get (e, BREAKER_READ, &s->scope, lba, nr_sectors, err) == -1)
    return -1;                  /* E6 */
  s->nr_found++;
  place_lost (e, lba, nr_sectors, err);
  return engine_lost_error (lba);
}

/* A slot does not give its sector's data, and nobody else can have it now. */
static int
lose_remapped (struct engine *e, const struct sector_run *run)
{
  int err = errno;

  log_limited (LEVEL_WARNING, "sector %llu was remapped, but its spare %u "
               "failed (%s): lost", (unsigned long long) run->lba.n,
               run->spare.n, last_error_text ());
  engine_post (e, EVENT_SPARE_ERROR, run->lba, 1, err);
  engine_post (e, EVENT_LOST, run->lba, 1, err);
  store_note_unreadable (e->store, run->spare);
  /* In its own slot: the old record must not outlive the new one. */
  if (place_commit (e, &(struct sector_run) {
                       .lba = run->lba, .nr_sectors = 1, .state = SECTOR_LOST,
                       .spare = run->spare }, CAUSE_SPARE_ERROR, NULL) == -1)
    return -1;
  return engine_lost_error (run->lba);
}

/* Its spare is tried as often as a sector of the disk would be. */
static int
read_spare_locked (struct engine *e, const struct sector_run *run,
                   unsigned nr_touches, uint8_t *buf)
{
  while (store_read (e->store, run->spare, run->lba, 1, buf) == -1) {
    if (errno != EILSEQ && !dev_error_is_medium (errno))
      return -1;
    if (++nr_touches >= touches_allowed (e))
      return lose_remapped (e, run);
    engine_post (e, EVENT_SPARE_ERROR, run->lba, 1, errno);
  }
  return 0;
}

/* Read one sector that this thread has alone, wherever it lives.  buf has room
 * for a whole one.
 */
static int
read_sector_locked (struct engine *e, lba_t lba, struct search *s,
                    uint8_t *buf)
{
  struct sector_run run;

  map_next (e->map, lba, 1, &run);
  switch (run.state) {
  case SECTOR_CLEAN:
    return read_clean_locked (e, lba, 1, s, buf);
  case SECTOR_REMAPPED:
    return read_spare_locked (e, &run, s->nr_spare_touches, buf);
  case SECTOR_LOST:
    return engine_lost_error (lba);
  case SECTOR_ZEROED:
    break;
  }
  memset (buf, 0, e->sector_bytes);
  return 0;
}

/* Lost sectors are zeroes if that was asked for. */
static int
lost_or_zero (struct engine *e, int r, lba_t lba, uint64_t nr_sectors,
              uint8_t *buf)
{
  struct sector_run run;
  int err = errno;

  if (r == 0 || !e->options.lost_reads_zero)
    return r;
  for (uint64_t done = 0; done < nr_sectors; done += run.nr_sectors) {
    map_next (e->map, (lba_t) { lba.n + done }, nr_sectors - done, &run);
    errno = err;
    if (run.state != SECTOR_LOST)
      return r;
  }
  memset (buf, 0, nr_sectors << e->sector_shift);
  engine_note_made_up ();
  return 0;
}

/* Read what fails as one: a physical sector, or as much of it as is wanted. */
static int
read_unit (struct engine *e, lba_t lba, uint64_t nr_sectors,
           struct search *s, uint8_t *buf)
{
  struct range_lock lock;
  int r = 0;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  if (map_is_clean (e->map, lba, nr_sectors))
    r = lost_or_zero (e, read_clean_locked (e, lba, nr_sectors, s, buf), lba,
                      nr_sectors, buf);
  else
    for (uint64_t i = 0; r == 0 && i < nr_sectors; i++) {
      uint8_t *p = buf + (i << e->sector_shift);
      lba_t at = { lba.n + i };

      r = lost_or_zero (e, read_sector_locked (e, at, s, p), at, 1, p);
    }
  ranges_unlock (e->ranges, &lock);
  return r;
}

/* What must be kept in mind when one part of a request failed and the others
 * are still to be done: the first error.
 */
static void
keep_first_error (int r, int *first_error)
{
  if (r == -1 && *first_error == 0)
    *first_error = errno;
}

/* Sectors from lba on up to the next multiple of `unit`, at most nr. */
static uint64_t
up_to_multiple (lba_t lba, uint64_t nr, uint32_t unit)
{
  return MIN (nr, unit - (lba.n & (unit - 1)));
}

/* Is an error one that ends a read, because going on is senseless? */
static bool
ends_read (const struct engine *e, int r)
{
  return r == -1 && (!dev_error_is_medium (errno) ||
                     evidence_refuses (e->evidence, BREAKER_READ));
}

static int
read_units (struct engine *e, lba_t lba, uint64_t nr_sectors,
            struct search *s, uint8_t *buf)
{
  int first_error = 0;

  while (nr_sectors > 0) {
    uint64_t n = up_to_multiple (lba, nr_sectors, e->unit_sectors);
    int r = read_unit (e, lba, n, s, buf);

    if (ends_read (e, r))
      return -1;
    keep_first_error (r, &first_error);
    lba.n += n;
    nr_sectors -= n;
    buf += n << e->sector_shift;
  }
  return first_error ? set_error (first_error, "a sector is lost") : 0;
}

/* One step: as a whole if that is a smaller request than the one that failed,
 * and then in units.
 */
static int
read_step (struct engine *e, lba_t lba, uint64_t nr_sectors, bool is_smaller,
           struct search *s, uint8_t *buf)
{
  s->nr_touches = 1;
  if (is_smaller && touches_allowed (e) >= 3 &&
      map_is_clean (e->map, lba, nr_sectors)) {
    if (dev_pread (e->backing, buf, sectors_to_bytes (e, lba, nr_sectors),
                   lba_to_bytes (e, lba), 0) == 0) {
      note_good (e, lba, &s->scope);
      return 0;
    }
    if (!engine_is_medium_error (e, EVENT_READ_ERROR, lba, nr_sectors))
      return -1;
    s->nr_touches++;
  }
  return read_units (e, lba, nr_sectors, s, buf);
}

/* All of the request is read, though it may have failed early: whatever is bad
 * in it is found now and not by the next request.
 */
int
repair_read (struct engine *e, uint8_t *buf, size_t count, uint64_t offset)
{
  lba_t lba = { offset >> e->sector_shift };
  uint64_t nr_left = ((offset + count - 1) >> e->sector_shift) - lba.n + 1;
  bool is_smaller = nr_left > e->step_sectors;
  struct span all = { lba, nr_left };
  struct search search = { .scope = scope_of (lba, nr_left) };
  CLEANUP_FREE uint8_t *step = NULL;
  int first_error = 0;

  step = malloc ((size_t) e->step_sectors << e->sector_shift);
  if (step == NULL)
    return set_error (ENOMEM, "no memory to take a request apart");
  while (count > 0) {
    uint64_t n = up_to_multiple (lba, nr_left, e->step_sectors);
    size_t skip = (size_t) (offset - lba_to_bytes (e, lba));
    size_t bytes = (size_t) MIN ((uint64_t) count,
                                 (n << e->sector_shift) - skip);
    int r = read_step (e, lba, n, is_smaller, &search, step);

    if (ends_read (e, r))
      return -1;
    keep_first_error (r, &first_error);
    memcpy (buf, step + skip, bytes);
    buf += bytes;
    count -= bytes;
    offset += bytes;
    lba.n += n;
    nr_left -= n;
  }
  /* It failed once and now reads: one of its sectors is weak. */
  if (search.nr_found == 0)
    engine_post (e, EVENT_WEAK, all.lba, all.nr_sectors, 0);
  return first_error ? set_error (first_error, "a sector is lost") : 0;
}

int
repair_spare_read (struct engine *e, lba_t lba, uint32_t nr_sectors,
                   uint8_t *buf)
{
  struct search search = {
    .nr_spare_touches = 1, .scope = scope_of (lba, nr_sectors),
  };

  for (uint32_t i = 0; i < nr_sectors; i++)
    if (read_unit (e, (lba_t) { lba.n + i }, 1, &search,
                   buf + ((size_t) i << e->sector_shift)) == -1)
      return -1;
  return 0;
}

/* Write. */

/* Sectors that are clean and cannot be written go to spares. */
static int
remap_locked (struct engine *e, lba_t lba, uint64_t nr_sectors,
              const uint8_t *buf, int err)
{
  if (place_data (e, lba, nr_sectors, buf, CAUSE_WRITE_ERROR,
                  STORE_FOR_NEW) == -1)
    return -1;
  log_limited (LEVEL_INFO, "sector %llu%s of %s cannot be written (%s): "
               "remapped", (unsigned long long) lba.n,
               nr_sectors > 1 ? " and following" : "", e->backing->info.name,
               errno_text (err));
  engine_post (e, EVENT_REMAPPED, lba, nr_sectors, err);
  return 0;
}

/* Mapped sectors get new spares with the new data. */
static int
rewrite_locked (struct engine *e, lba_t lba, uint64_t nr_sectors,
                const uint8_t *buf)
{
  while (nr_sectors > 0) {
    struct sector_run run;

    map_next (e->map, lba, nr_sectors, &run);
    if (place_data (e, lba, run.nr_sectors, buf, CAUSE_REWRITE,
                    run.spare.n == SPARE_NONE.n ? STORE_FOR_NEW
                    : STORE_FOR_REWRITE) == -1)
      return -1;
    if (run.state == SECTOR_LOST)
      engine_post (e, EVENT_HEALED, lba, run.nr_sectors, 0);
    lba.n += run.nr_sectors;
    nr_sectors -= run.nr_sectors;
    buf += run.nr_sectors << e->sector_shift;
  }
  return 0;
}

int
repair_rewrite (struct engine *e, lba_t lba, uint32_t nr_sectors,
                const uint8_t *buf)
{
  struct range_lock lock;
  int r;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  /* What was lost a moment ago may have been forgotten. */
  r = engine_has_clean (e, (struct span) { lba, nr_sectors })
    ? 1 : rewrite_locked (e, lba, nr_sectors, buf);
  ranges_unlock (e->ranges, &lock);
  return r;
}

/* Write a clean sector that this thread has alone; a bad one goes to a spare. */
static int
write_clean_locked (struct engine *e, lba_t lba, const uint8_t *buf,
                    unsigned flags, const struct evidence_scope *scope,
                    bool *ret_used_store)
{
  int err;

  engine_overtake_reads (e, lba, 1);
  if (dev_pwrite (e->backing, buf, sectors_to_bytes (e, lba, 1),
                  lba_to_bytes (e, lba), flags) == 0)
    return 0;
  err = errno;
  if (!engine_is_medium_error (e, EVENT_WRITE_ERROR, lba, 1) ||
      evidence_get (e, BREAKER_WRITE, scope, lba, 1, err) == -1)    /* E6 */
    return -1;
  *ret_used_store = true;
  return remap_locked (e, lba, 1, buf, err);
}

/* How a request that is written is taken apart. */
struct write_search {
  unsigned flags;
  int failed;                   /* it has failed with this error, and was no
                                   larger than a unit; 0: it was */
  bool as_a_whole;              /* try steps first */
  bool used_store;
  struct evidence_scope scope;
  /* Bad units that were met, one behind the other, and what they shall hold:
   * together they cost one record.
   */
  lba_t bad_lba;
  uint64_t nr_bad_sectors;
  const uint8_t *bad_buf;
  int bad_err;
};

/* Give the bad units their spares.  Meanwhile, since they were tried, another
 * request may have got them some.
 */
static int
place_bad (struct engine *e, struct write_search *s)
{
  lba_t lba = s->bad_lba;
  uint64_t nr_sectors = s->nr_bad_sectors;
  const uint8_t *buf = s->bad_buf;
  struct range_lock lock;
  int r = 0;

  if (nr_sectors == 0)
    return 0;
  if (evidence_get (e, BREAKER_WRITE, &s->scope, lba, nr_sectors,
                    s->bad_err) == -1)
    return -1;                  /* E6 */
  s->used_store = true;
  s->nr_bad_sectors = 0;
  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  while (r == 0 && nr_sectors > 0) {
    struct sector_run run;

    map_next (e->map, lba, nr_sectors, &run);
    r = run.state == SECTOR_CLEAN
      ? remap_locked (e, lba, run.nr_sectors, buf, s->bad_err)
      : rewrite_locked (e, lba, run.nr_sectors, buf);
    lba.n += run.nr_sectors;
    nr_sectors -= run.nr_sectors;
    buf += run.nr_sectors << e->sector_shift;
  }
  ranges_unlock (e->ranges, &lock);
  return r;
}

static int
add_bad (struct engine *e, lba_t lba, uint64_t nr_sectors, const uint8_t *buf,
         int err, struct write_search *s)
{
  bool goes_on = s->nr_bad_sectors > 0 &&
    s->bad_lba.n + s->nr_bad_sectors == lba.n &&
    s->nr_bad_sectors + nr_sectors <= STORE_RECORD_MAX;

  if (!goes_on) {
    if (place_bad (e, s) == -1)
      return -1;
    s->bad_lba = lba;
    s->bad_buf = buf;
  }
  s->nr_bad_sectors += nr_sectors;
  s->bad_err = err;
  return 0;
}

/* Write sectors to the backing, if they are clean.  1: it cannot be done, errno
 * is a medium error.
 */
static int
try_write (struct engine *e, lba_t lba, uint64_t nr_sectors,
           const uint8_t *buf, struct write_search *s)
{
  struct range_slot *slot = ranges_enter (e->ranges, lba, nr_sectors);
  bool is_clean = map_is_clean (e->map, lba, nr_sectors);
  int r = 0, err;

  if (is_clean) {
    engine_overtake_reads (e, lba, nr_sectors);
    r = dev_pwrite (e->backing, buf, sectors_to_bytes (e, lba, nr_sectors),
                    lba_to_bytes (e, lba), s->flags);
  }
  err = errno;
  ranges_leave (e->ranges, slot);
  errno = err;
  if (!is_clean)        /* mapped meanwhile: each goes where it lives now */
    return engine_write_sectors (e, lba, nr_sectors, buf, s->flags, 1,
                                 &s->used_store);
  if (r == 0) {
    note_good (e, lba, &s->scope);
    return 0;
  }
  return engine_is_medium_error (e, EVENT_WRITE_ERROR, lba, nr_sectors)
    ? 1 : -1;
}

static int
write_units (struct engine *e, lba_t lba, uint64_t nr_sectors,
             const uint8_t *buf, struct write_search *s)
{
  while (nr_sectors > 0) {
    uint64_t n = up_to_multiple (lba, nr_sectors, e->unit_sectors);
    int r = s->failed ? 1 : try_write (e, lba, n, buf, s);

    if (r == 1)
      r = add_bad (e, lba, n, buf, s->failed ? s->failed : errno, s);
    if (r == -1)
      return -1;
    lba.n += n;
    nr_sectors -= n;
    buf += n << e->sector_shift;
  }
  return 0;
}

int
repair_write (struct engine *e, lba_t lba, uint64_t nr_sectors,
              const uint8_t *buf, unsigned flags, unsigned nr_touches,
              bool *ret_used_store)
{
  bool is_unit = nr_sectors <= up_to_multiple (lba, nr_sectors,
                                               e->unit_sectors);
  struct write_search s = {
    .flags = flags, .failed = is_unit ? errno : 0,
    .scope = scope_of (lba, nr_sectors),
    .as_a_whole = nr_sectors > e->step_sectors &&
      nr_touches + 2 <= touches_allowed (e),
  };
  int r = 0;

  while (r == 0 && nr_sectors > 0) {
    uint64_t n = up_to_multiple (lba, nr_sectors, e->step_sectors);

    r = s.as_a_whole ? try_write (e, lba, n, buf, &s) : 1;
    if (r == 1)
      r = write_units (e, lba, n, buf, &s);
    lba.n += n;
    nr_sectors -= n;
    buf += n << e->sector_shift;
  }
  if (r == 0)
    r = place_bad (e, &s);
  *ret_used_store |= s.used_store;
  return r;
}

static int
write_part_locked (struct engine *e, struct span request, lba_t lba,
                   uint32_t skip, uint32_t nr_bytes, const uint8_t *buf,
                   unsigned flags, uint8_t *sector, bool *ret_used_store)
{
  struct search search = { .scope = scope_of (request.lba,
                                              request.nr_sectors) };
  struct sector_run run;

  if (read_sector_locked (e, lba, &search, sector) == -1)
    return -1;
  if (buf)
    memcpy (sector + skip, buf, nr_bytes);
  else
    memset (sector + skip, 0, nr_bytes);
  map_next (e->map, lba, 1, &run);
  if (run.state == SECTOR_CLEAN)
    return write_clean_locked (e, lba, sector, flags, &search.scope,
                               ret_used_store);
  *ret_used_store = true;
  return rewrite_locked (e, lba, 1, sector);
}

int
repair_write_part (struct engine *e, struct span request, lba_t lba,
                   uint32_t skip, uint32_t nr_bytes, const uint8_t *buf,
                   unsigned flags, bool *ret_used_store)
{
  CLEANUP_FREE uint8_t *sector = calloc (1, e->sector_bytes);
  struct range_lock lock;
  int r;

  if (sector == NULL)
    return set_error (ENOMEM, "no memory for a sector");
  ranges_lock (e->ranges, &lock, lba, 1);
  r = write_part_locked (e, request, lba, skip, nr_bytes, buf, flags, sector,
                         ret_used_store);
  ranges_unlock (e->ranges, &lock);
  return r;
}

/* Zero. */

/* In their own slots, whose data then no longer counts; a lost sector that
 * found no spare needs one now.
 */
static int
zero_run_locked (struct engine *e, struct sector_run *run)
{
  bool was_lost = run->state == SECTOR_LOST;
  int n = 0, r;

  if (run->state == SECTOR_ZEROED)
    return 0;
  if (run->spare.n == SPARE_NONE.n) {
    n = store_take (e->store, (uint32_t) run->nr_sectors, STORE_FOR_NEW,
                    &run->spare);
    if (n == -1)
      return -1;
    run->nr_sectors = (uint64_t) n;
  }
  run->state = SECTOR_ZEROED;
  r = n > 0 ? place_commit_taken (e, run, CAUSE_REWRITE, NULL)
    : place_commit (e, run, CAUSE_REWRITE, NULL);
  if (r == -1)
    return -1;
  if (was_lost)
    engine_post (e, EVENT_HEALED, run->lba, run->nr_sectors, 0);
  return 0;
}

int
repair_zero (struct engine *e, lba_t lba, uint32_t nr_sectors)
{
  struct range_lock lock;
  struct sector_run run;
  uint64_t nr_left = nr_sectors;
  int r = 0;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  while (r == 0 && nr_left > 0) {
    map_next (e->map, lba, nr_left, &run);
    r = run.state == SECTOR_CLEAN ? 1 : zero_run_locked (e, &run);
    lba.n += run.nr_sectors;
    nr_left -= run.nr_sectors;
  }
  ranges_unlock (e->ranges, &lock);
  return r;
}
