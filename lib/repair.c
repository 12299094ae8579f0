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

/* More bad spares than this, one behind the other, and the store is at fault. */
#define BAD_SPARES_MAX 64

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

/* Spares. */

/* The slots that sectors have, but for those that a record is for. */
struct old_slots {
  struct sector_run runs[STORE_RECORD_MAX];
  size_t nr;
};

static void
note_old_slots (struct engine *e, const struct sector_run *wanted,
                struct old_slots *ret)
{
  struct sector_run run;

  ret->nr = 0;
  for (uint64_t done = 0; done < wanted->nr_sectors; done += run.nr_sectors) {
    map_next (e->map, (lba_t) { wanted->lba.n + done },
              wanted->nr_sectors - done, &run);
    if (run.state != SECTOR_CLEAN && run.spare.n != SPARE_NONE.n &&
        run.spare.n != wanted->spare.n + done)
      ret->runs[ret->nr++] = run;
  }
}

static void
supersede (struct engine *e, const struct old_slots *old)
{
  for (size_t i = 0; i < old->nr; i++)
    store_supersede (e->store, old->runs[i].spare,
                     (uint32_t) old->runs[i].nr_sectors);
}

static int
set_map (struct engine *e, const struct sector_run *run)
{
  LOCK_FOR_SCOPE (store_map_lock (e->store));
  return map_set (e->map, run);
}

/* It may or may not be recorded that these sectors have moved.  Those that were
 * clean must not be written in place any more: after a restart the record may
 * be found, and what it says is older.
 */
static void
block_sectors (struct engine *e, const struct sector_run *wanted)
{
  struct sector_run run;
  lba_t lba = wanted->lba;
  uint64_t nr = wanted->nr_sectors;

  while (nr > 0) {
    map_next (e->map, lba, nr, &run);
    lba.n += run.nr_sectors;
    nr -= run.nr_sectors;
    if (run.state != SECTOR_CLEAN)
      continue;
    run.state = SECTOR_LOST;
    run.spare = SPARE_NONE;
    if (set_map (e, &run) == -1 && !atomic_exchange (&e->failed, true))
      log_message (LEVEL_ERROR, "%s; nothing is written until a restart",
                   last_error_text ());
  }
}

/* Record a run whose data, if any, is in its slots, and let it count (E3). */
static int
commit_run (struct engine *e, const struct sector_run *run,
            enum sector_cause cause, const uint8_t *buf)
{
  struct old_slots old;

  note_old_slots (e, run, &old);
  if (store_record (e->store, run, cause, buf) == -1) {
    int err = errno;

    if (err != ESHUTDOWN)
      block_sectors (e, run);
    errno = err;
    return -1;
  }
  if (set_map (e, run) == -1) {
    /* What is recorded does not count in memory: nothing may be written that
     * the record would hide after a restart.
     */
    if (!atomic_exchange (&e->failed, true))
      log_message (LEVEL_ERROR, "%s; nothing is written until a restart",
                   last_error_text ());
    return -1;
  }
  supersede (e, &old);
  return 0;
}

/* Take up to *nr slots and write data into them; slots that are bad are marked
 * and others taken.  Returns how many, or -1.  *nr is 1 once a bad one was
 * met: of several that are written together it cannot be told which one it is.
 */
static int
fill_slots (struct engine *e, lba_t lba, uint32_t *nr, const uint8_t *buf,
            enum store_purpose purpose, spare_t *ret_first)
{
  for (unsigned nr_bad = 0; nr_bad < BAD_SPARES_MAX; ) {
    int n = store_take (e->store, *nr, purpose, ret_first), err;

    if (n == -1)
      return -1;
    if (store_write (e->store, *ret_first, (uint32_t) n, buf) == 0)
      return n;
    err = errno;
    if (!dev_error_is_medium (err)) {
      store_untake (e->store, *ret_first, (uint32_t) n);
      errno = err;
      return -1;
    }
    engine_post (e, EVENT_SPARE_ERROR, lba, 1, err);
    if (n > 1) {
      store_untake (e->store, *ret_first, (uint32_t) n);
      *nr = 1;
      continue;
    }
    log_message (LEVEL_WARNING, "spare %u is bad; the next one is taken",
                 ret_first->n);
    n = store_mark_bad (e->store, *ret_first);
    store_settle (e->store, 1);
    if (n == -1)
      return -1;
    nr_bad++;
  }
  return set_error (EIO, "%d spares in a row are bad: the store is failing",
                    BAD_SPARES_MAX);
}

/* The same for slots in hand, which come back if there is no record of them. */
static int
commit_taken (struct engine *e, const struct sector_run *run,
              enum sector_cause cause, const uint8_t *buf)
{
  int r = commit_run (e, run, cause, buf), err = errno;

  if (r == -1 && err == ESHUTDOWN)
    store_untake (e->store, run->spare, (uint32_t) run->nr_sectors);
  else
    store_settle (e->store, (uint32_t) run->nr_sectors);
  errno = err;
  return r;
}

/* Give whole sectors new spares with this data (NULL: lost, no data). */
static int
place (struct engine *e, lba_t lba, uint64_t nr_sectors, const uint8_t *buf,
       enum sector_cause cause, enum store_purpose purpose)
{
  uint32_t most = STORE_RECORD_MAX;

  while (nr_sectors > 0) {
    uint32_t nr = (uint32_t) MIN (nr_sectors, (uint64_t) most);
    struct sector_run run = {
      .lba = lba, .state = buf ? SECTOR_REMAPPED : SECTOR_LOST,
    };
    int n = buf ? fill_slots (e, lba, &nr, buf, purpose, &run.spare)
      : store_take (e->store, nr, purpose, &run.spare);

    if (n == -1)
      return -1;
    if (nr == 1)
      most = 1;
    run.nr_sectors = (uint64_t) n;
    if (commit_taken (e, &run, cause, buf) == -1)
      return -1;
    lba.n += run.nr_sectors;
    nr_sectors -= run.nr_sectors;
    if (buf)
      buf += run.nr_sectors << e->sector_shift;
  }
  return 0;
}

/* The same for data that may end with the disk, within a sector. */
static int
place_data (struct engine *e, lba_t lba, uint64_t nr_sectors,
            const uint8_t *buf, enum sector_cause cause,
            enum store_purpose purpose)
{
  uint64_t nr_bytes = sectors_to_bytes (e, lba, nr_sectors);
  uint64_t nr_full = nr_bytes >> e->sector_shift;
  uint64_t rest_bytes = nr_bytes - (nr_full << e->sector_shift);
  CLEANUP_FREE uint8_t *padded = NULL;

  if (nr_full > 0 && place (e, lba, nr_full, buf, cause, purpose) == -1)
    return -1;
  if (rest_bytes == 0)
    return 0;
  padded = calloc (1, e->sector_bytes);
  if (padded == NULL)
    return set_error (ENOMEM, "no memory for a sector");
  memcpy (padded, buf + (nr_full << e->sector_shift), rest_bytes);
  return place (e, (lba_t) { lba.n + nr_full }, 1, padded, cause, purpose);
}

/* They may be looked at again (patrol.h), if they have their record. */
static void
note_lost (struct engine *e, lba_t lba, uint64_t nr_sectors)
{
  struct sector_run run;

  for (; nr_sectors > 0; nr_sectors -= run.nr_sectors) {
    map_next (e->map, lba, nr_sectors, &run);
    if (run.state == SECTOR_LOST && run.spare.n != SPARE_NONE.n)
      evidence_note_lost (e->evidence, lba, run.spare, run.nr_sectors);
    lba.n += run.nr_sectors;
  }
}

/* Call clean sectors lost.  Without a spare for them they are lost in memory
 * alone: that is enough to leave the bad spot in peace.
 */
static void
call_lost (struct engine *e, lba_t lba, uint64_t nr_sectors, int err)
{
  log_limited (LEVEL_WARNING, "sector %llu%s of %s cannot be read (%s): lost",
               (unsigned long long) lba.n, nr_sectors > 1 ? " and following" : "",
               e->backing->info.name, errno_text (err));
  engine_post (e, EVENT_LOST, lba, nr_sectors, err);
  if (place (e, lba, nr_sectors, NULL, CAUSE_READ_ERROR, STORE_FOR_NEW) == -1) {
    log_limited (LEVEL_WARNING, "sector %llu is not recorded as lost: %s",
                 (unsigned long long) lba.n, last_error_text ());
    block_sectors (e, &(struct sector_run) { .lba = lba,
                                             .nr_sectors = nr_sectors });
  }
  note_lost (e, lba, nr_sectors);
}

static int
lost_error (lba_t lba)
{
  return set_error (EIO, "sector %llu is lost", (unsigned long long) lba.n);
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
  call_lost (e, lba, nr_sectors, err);
  return lost_error (lba);
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
  if (commit_run (e, &(struct sector_run) {
                       .lba = run->lba, .nr_sectors = 1, .state = SECTOR_LOST,
                       .spare = run->spare }, CAUSE_SPARE_ERROR, NULL) == -1)
    return -1;
  return lost_error (run->lba);
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
    return lost_error (lba);
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

/* Late data. */

/* The next sectors from *lba on that are clean, and whose late data is true.
 * Returns how many, at most a record's; 0: none before end.
 */
static uint64_t
next_to_keep (struct engine *e, const struct late_read *read, lba_t *lba,
              lba_t end)
{
  while (lba->n < end.n) {
    bool is_overtaken = true;
    struct sector_run run;

    map_next (e->map, *lba, end.n - lba->n, &run);
    if (run.state == SECTOR_CLEAN)
      run.nr_sectors = late_read_next (e->late_reads, read, *lba,
                                       run.nr_sectors, &is_overtaken);
    if (!is_overtaken)
      return MIN (run.nr_sectors, (uint64_t) STORE_RECORD_MAX);
    lba->n += run.nr_sectors;
  }
  return 0;
}

/* Give these sectors spares with their late data, as far as it is still true
 * now that this thread has them alone (D4).  Returns how many, or -1.
 */
static int
keep_locked (struct engine *e, const struct late_read *read, lba_t lba,
             lba_t end)
{
  int nr_kept = 0;
  uint64_t n;

  while ((n = next_to_keep (e, read, &lba, end)) > 0) {
    const uint8_t *data = late_read_data (read) +
      ((lba.n - late_read_lba (read).n) << e->sector_shift);

    if (place_data (e, lba, n, data, CAUSE_READ_ERROR, STORE_FOR_NEW) == -1)
      return -1;
    engine_post (e, EVENT_REMAPPED, lba, n, 0);
    nr_kept += (int) n;
    lba.n += n;
  }
  return nr_kept;
}

/* The range that is taken alone is one that nobody has overtaken by now: a
 * write that the disk sits on as well is not waited for.
 */
static int
keep (struct engine *e, const struct late_read *read)
{
  lba_t lba = late_read_lba (read);
  lba_t end = { lba.n + late_read_nr_sectors (read) };
  int nr_kept = 0;
  uint64_t n;

  while ((n = next_to_keep (e, read, &lba, end)) > 0) {
    lba_t next = { lba.n + n };
    struct range_lock lock;
    int r;

    ranges_lock (e->ranges, &lock, lba, n);
    r = keep_locked (e, read, lba, next);
    ranges_unlock (e->ranges, &lock);
    if (r == -1)
      return -1;
    nr_kept += r;
    lba = next;
  }
  return nr_kept;
}

/* Late data takes no spare of the last quarter, which is for sectors that are
 * bad, and none where a record cannot be made: its sector would be given up.
 */
static int
check_room_for_late (struct engine *e, uint64_t nr_sectors)
{
  struct status status = { .spares_total = 0 };

  store_get_status (e->store, &status);
  if (status.store_failed || atomic_load (&e->failed))
    return set_error (EIO, "the store has failed");
  if (nr_sectors + status.spares_total / 4 > status.spares_free)
    return set_error (ENOSPC, "%llu of %llu spares are left",
                      (unsigned long long) status.spares_free,
                      (unsigned long long) status.spares_total);
  return 0;
}

void
repair_keep_late (struct engine *e, struct late_read *read)
{
  uint64_t first = late_read_lba (read).n;
  uint64_t nr_sectors = late_read_nr_sectors (read);
  int nr_kept;

  if (evidence_state (e->evidence) != BREAKER_CLOSED)
    return;                     /* it was not the sector */
  engine_post (e, EVENT_WEAK, late_read_lba (read), nr_sectors, 0);
  nr_kept = check_room_for_late (e, nr_sectors) == -1 ? -1 : keep (e, read);
  if (nr_kept == -1)
    log_limited (LEVEL_WARNING, "sectors %llu to %llu of %s came after %u "
                 "seconds, and are not all kept: %s",
                 (unsigned long long) first,
                 (unsigned long long) (first + nr_sectors - 1),
                 e->backing->info.name, late_read_took_s (read),
                 last_error_text ());
  else
    log_limited (LEVEL_INFO, "sectors %llu to %llu of %s came after %u "
                 "seconds: %d of them are kept in spares",
                 (unsigned long long) first,
                 (unsigned long long) (first + nr_sectors - 1),
                 e->backing->info.name, late_read_took_s (read), nr_kept);
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

/* What was lost a moment ago may have been forgotten. */
static bool
has_clean (struct engine *e, lba_t lba, uint64_t nr_sectors)
{
  struct sector_run run;

  for (; nr_sectors > 0; nr_sectors -= run.nr_sectors) {
    map_next (e->map, lba, nr_sectors, &run);
    if (run.state == SECTOR_CLEAN)
      return true;
    lba.n += run.nr_sectors;
  }
  return false;
}

int
repair_rewrite (struct engine *e, lba_t lba, uint32_t nr_sectors,
                const uint8_t *buf)
{
  struct range_lock lock;
  int r;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  r = has_clean (e, lba, nr_sectors)
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
  r = n > 0 ? commit_taken (e, run, CAUSE_REWRITE, NULL)
    : commit_run (e, run, CAUSE_REWRITE, NULL);
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

/* Rescue and forget. */

void
repair_rescue (struct engine *e, lba_t lba, uint64_t nr_sectors,
               const uint8_t *buf)
{
  engine_post (e, EVENT_REMAPPED, lba, nr_sectors, EIO);
  if (place_data (e, lba, nr_sectors, buf, CAUSE_WRITE_ERROR,
                  STORE_FOR_REWRITE) == 0 &&
      store_flush (e->store) == 0)
    return;
  log_message (LEVEL_ERROR, "sector %llu of %s may have lost its data: %s",
               (unsigned long long) lba.n, e->backing->info.name,
               last_error_text ());
  /* Nobody shall take what stands there now for it. */
  block_sectors (e, &(struct sector_run) { .lba = lba,
                                           .nr_sectors = nr_sectors });
}

static int
forget_locked (struct engine *e, const struct sector_run *lost)
{
  struct sector_run clean = {
    .lba = lost->lba, .nr_sectors = lost->nr_sectors, .state = SECTOR_CLEAN,
    .spare = SPARE_NONE,
  };
  uint32_t nr = (uint32_t) lost->nr_sectors;

  if (store_forget (e->store, lost->spare, nr) == -1 ||
      set_map (e, &clean) == -1)
    return -1;
  store_supersede (e->store, lost->spare, nr);
  log_limited (LEVEL_INFO, "sector %llu%s of %s can be read after all",
               (unsigned long long) lost->lba.n,
               nr > 1 ? " and following" : "", e->backing->info.name);
  return 0;
}

/* One by one, where a slot among them has failed since: that one stays. */
static int
forget_each_locked (struct engine *e, const struct sector_run *lost)
{
  int r = 0, err = 0;

  for (uint32_t i = 0; i < lost->nr_sectors; i++) {
    struct sector_run one = {
      .lba = { lost->lba.n + i }, .nr_sectors = 1, .state = lost->state,
      .spare = { lost->spare.n + i },
    };

    if (forget_locked (e, &one) == -1) {
      r = -1;
      err = errno;
    }
  }
  errno = err;
  return r;
}

int
repair_forget (struct engine *e, lba_t lba, spare_t slot, uint32_t nr_sectors)
{
  struct range_lock lock;
  struct sector_run run;
  int r = 0;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  for (uint32_t done = 0; r == 0 && done < nr_sectors;
       done += (uint32_t) run.nr_sectors) {
    map_next (e->map, (lba_t) { lba.n + done }, nr_sectors - done, &run);
    if (run.state == SECTOR_LOST && run.spare.n == slot.n + done)
      r = forget_locked (e, &run);
    if (r == -1 && errno == EBADF)
      r = forget_each_locked (e, &run);
  }
  ranges_unlock (e->ranges, &lock);
  return r;
}
