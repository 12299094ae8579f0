/* SPDX-License-Identifier: BSD-3-Clause */
/* place: give sectors their spares, and take them back.
 *
 * Purpose:    a sector that this thread has alone gets a slot, its data there,
 *             a record, and its place in the map (E3); what becomes of it where
 *             one of these fails.
 * Locking:    the caller has the sectors alone, but for place_late and
 *             place_forget, which see to that themselves.
 */
#include <config.h>

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

/* The record of a run was not made (err), and nothing of it is on disk. */
static bool
is_surely_not_recorded (const struct engine *e, const struct sector_run *run,
                        int err)
{
  return err == ESHUTDOWN && !store_is_in_doubt (e->store, run->spare);
}

int
place_commit (struct engine *e, const struct sector_run *run,
            enum sector_cause cause, const uint8_t *buf)
{
  struct old_slots old;

  note_old_slots (e, run, &old);
  if (store_record (e->store, run, cause, buf) == -1) {
    int err = errno;

    if (!is_surely_not_recorded (e, run, err))
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
  if (run->state != SECTOR_CLEAN)
    dev_forget_range (e->backing, sectors_to_bytes (e, run->lba,
                                                    run->nr_sectors),
                      lba_to_bytes (e, run->lba));
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

int
place_commit_taken (struct engine *e, const struct sector_run *run,
              enum sector_cause cause, const uint8_t *buf)
{
  int r = place_commit (e, run, cause, buf), err = errno;

  if (r == -1 && is_surely_not_recorded (e, run, err))
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
    if (place_commit_taken (e, &run, cause, buf) == -1)
      return -1;
    lba.n += run.nr_sectors;
    nr_sectors -= run.nr_sectors;
    if (buf)
      buf += run.nr_sectors << e->sector_shift;
  }
  return 0;
}

int
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

void
place_lost (struct engine *e, lba_t lba, uint64_t nr_sectors, int err)
{
  log_limited (LEVEL_WARNING, "sector %llu%s of %s cannot be read (%s): lost",
               (unsigned long long) lba.n, nr_sectors > 1 ? " and following" : "",
               e->backing->info.name, errno_text (err));
  engine_post (e, EVENT_LOST, lba, nr_sectors, err);
  if (place (e, lba, nr_sectors, NULL, CAUSE_READ_ERROR, STORE_FOR_NEW) == -1) {
    int err_of_place = errno;

    log_limited (LEVEL_WARNING, "sector %llu is not recorded as lost: %s",
                 (unsigned long long) lba.n, last_error_text ());
    if (err_of_place != ESHUTDOWN)      /* else it may be tried again */
      block_sectors (e, &(struct sector_run) { .lba = lba,
                                               .nr_sectors = nr_sectors });
  }
  note_lost (e, lba, nr_sectors);
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
place_late (struct engine *e, struct late_read *read)
{
  uint64_t first = late_read_lba (read).n;
  uint64_t nr_sectors = late_read_nr_sectors (read);
  int nr_kept;

  if (evidence_state (e->evidence) != BREAKER_CLOSED)
    return;                     /* it was not the sector */
  nr_kept = check_room_for_late (e, nr_sectors) == -1 ? -1 : keep (e, read);
  if (nr_kept > 0)
    engine_post (e, EVENT_WEAK, late_read_lba (read), nr_sectors, 0);
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

/* Rescue and forget. */

int
place_rescue (struct engine *e, lba_t lba, uint64_t nr_sectors,
               const uint8_t *buf)
{
  engine_post (e, EVENT_REMAPPED, lba, nr_sectors, EIO);
  if (place_data (e, lba, nr_sectors, buf, CAUSE_WRITE_ERROR,
                  STORE_FOR_REWRITE) == 0 &&
      store_flush (e->store) == 0)
    return 0;
  log_message (LEVEL_ERROR, "sector %llu of %s may have lost its data: %s",
               (unsigned long long) lba.n, e->backing->info.name,
               last_error_text ());
  /* Nobody shall take what stands there now for it. */
  block_sectors (e, &(struct sector_run) { .lba = lba,
                                           .nr_sectors = nr_sectors });
  return -1;
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

    if (forget_locked (e, &one) == -1 && (err == 0 || err == EBADF)) {
      r = -1;
      err = errno;
    }
  }
  errno = err;
  return r;
}

int
place_forget (struct engine *e, lba_t lba, spare_t slot, uint32_t nr_sectors)
{
  struct range_lock lock;
  struct sector_run run;
  int r = 0;

  ranges_lock (e->ranges, &lock, lba, nr_sectors);
  for (uint32_t done = 0; (r == 0 || errno == EBADF) && done < nr_sectors;
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
