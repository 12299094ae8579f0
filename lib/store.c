/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "crc32c.h"
#include "error.h"
#include "log.h"
#include "store-internal.h"
#include "store-load.h"

/* New slots are made ready so many at a time, or a sixteenth more: so a store
 * takes little more room than its records do.  Not more than can be written
 * again after a failed flush.
 */
#define READY_STEP UINT64_C (4096)
#define READY_STEP_MAX UINT64_C (32768)

/* Superseded slots are reused once there are so many, before the table is
 * made longer.
 */
#define PENDING_ENOUGH 4096

/* Slots. */

uint32_t
store_sector_bytes (const struct store *s)
{
  return s->super.sector_bytes;
}

void
store_get_mark (const struct store *s, struct mark *ret)
{
  memcpy (ret->uuid, s->super.uuid, sizeof ret->uuid);
  ret->seq = atomic_load (&s->seq_durable);
  memcpy (ret->store, s->path, sizeof ret->store);
}

struct lock *
store_map_lock (struct store *s)
{
  return &s->map_lock;
}

static uint32_t
nr_free (const struct store *s)
{
  return spares_total (s->spares) - spares_taken (s->spares);
}

/* What is pending is as good as free: a flush is all that it needs. */
static uint32_t
nr_left (const struct store *s)
{
  uint32_t n = nr_free (s) + atomic_load (&s->nr_pending);

  return n > s->nr_kept ? n - s->nr_kept : 0;
}

/* How many spares are left, if that is to be said now: once each when a
 * quarter, a tenth, none of them is left.  -1: no.
 */
static int64_t
few_left_locked (struct store *s)
{
  uint32_t total = spares_total (s->spares) - s->nr_kept;
  uint32_t left = nr_left (s);
  bool *said = left == 0 ? &s->said_0
    : left <= total / 10 ? &s->said_10
    : left <= total / 4 ? &s->said_25 : NULL;

  if (said == NULL || *said)
    return -1;
  *said = true;
  return left;
}

static void
tell_few_left (const struct store *s, int64_t few_left)
{
  if (few_left >= 0)
    log_message (LEVEL_WARNING, "store %s: %u of %u spares left; restart with "
                 "a larger spare-size= to have more", s->path,
                 (unsigned) few_left, spares_total (s->spares) - s->nr_kept);
}

void
store_tell_few_left (struct store *s)
{
  int64_t few_left;

  {
    LOCK_FOR_SCOPE (&s->map_lock);
    few_left = few_left_locked (s);
  }
  tell_few_left (s, few_left);
}

/* Why no slot could be taken. */
struct shortage {
  bool all_taken;               /* else: some are not ready yet */
  uint32_t nr_pending, nr_in_hand;
};

/* Take slots that are ready.  0: none is, *ret_why says more. */
static uint32_t
take_ready (struct store *s, uint32_t nr, enum store_purpose purpose,
            spare_t *ret_first, struct shortage *ret_why)
{
  uint32_t kept = purpose == STORE_FOR_NEW ? s->nr_kept : 0;
  int64_t few_left = -1;
  uint32_t n = 0;

  {
    LOCK_FOR_SCOPE (&s->map_lock);
    ret_why->all_taken = nr_free (s) <= kept;
    ret_why->nr_pending = atomic_load (&s->nr_pending);
    ret_why->nr_in_hand = s->nr_in_hand;
    if (!ret_why->all_taken) {
      n = spares_take (s->spares, MIN (nr, nr_free (s) - kept), ret_first);
      s->nr_in_hand += n;
      /* A rewrite gives one back for each that it takes. */
      if (purpose == STORE_FOR_NEW)
        few_left = few_left_locked (s);
    }
  }
  tell_few_left (s, few_left);
  return n;
}

/* Wait until other threads have done something with the slots they took. */
static void
wait_for_slots (struct store *s, uint32_t seen_in_hand)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  if (s->nr_in_hand == seen_in_hand && atomic_load (&s->nr_pending) == 0)
    lock_wait (&s->map_lock, &s->slots_changed);
}

static int
make_more_ready (struct store *s, uint32_t seen_ready)
{
  uint64_t total = spares_total (s->spares);
  uint64_t nr_ready;

  LOCK_FOR_SCOPE (&s->commit);
  if (s->super.nr_ready > seen_ready)
    return 0;                   /* another thread did */
  if (atomic_load (&s->failed))
    return set_error (EIO, "store %s has failed", s->path);
  nr_ready = s->super.nr_ready;
  nr_ready += MIN (MAX (nr_ready / 16, READY_STEP), READY_STEP_MAX);
  nr_ready = MIN (nr_ready, total);
  if (store_make_ready (s, nr_ready) == -1)
    return -1;
  LOCK_FOR_SCOPE (&s->map_lock);
  spares_set_ready (s->spares, (uint32_t) nr_ready);
  return 0;
}

static int flush_through (struct store *s);

int
store_take (struct store *s, uint32_t nr, enum store_purpose purpose,
            spare_t *ret_first)
{
  for (;;) {
    uint32_t seen_ready = spares_ready (s->spares), n;
    bool all_ready = seen_ready == spares_total (s->spares);
    struct shortage why;

    n = take_ready (s, nr, purpose, ret_first, &why);
    if (n > 0)
      return (int) n;
    if (!why.all_taken && !all_ready && why.nr_pending < PENDING_ENOUGH) {
      if (make_more_ready (s, seen_ready) == 0)
        continue;
      if (why.nr_pending == 0)
        return -1;
    }
    if (why.nr_pending > 0) {
      if (flush_through (s) == -1)
        return -1;
    }
    else if (why.nr_in_hand > 0)
      wait_for_slots (s, why.nr_in_hand);
    else
      return set_error (ENOSPC, "store %s: no spare is left", s->path);
  }
}

static void
slots_changed_locked (struct store *s, uint32_t nr_settled)
{
  s->nr_in_hand -= nr_settled;
  if (s->nr_in_hand == 0)
    atomic_store (&s->has_suspects, false);
  pthread_cond_broadcast (&s->slots_changed);
}

void
store_untake (struct store *s, spare_t first, uint32_t nr)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  spares_give (s->spares, first, nr);
  slots_changed_locked (s, nr);
}

void
store_settle (struct store *s, uint32_t nr)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  slots_changed_locked (s, nr);
}

/* Out of memory, the slots stay taken until the store is opened again. */
void
store_supersede (struct store *s, spare_t first, uint32_t nr)
{
  struct pending *p = &s->pending;

  LOCK_FOR_SCOPE (&s->map_lock);
  if (p->nr == p->max) {
    size_t max = p->max ? p->max * 2 : 64;
    struct slot_range *bigger = realloc (p->ranges, max * sizeof *bigger);

    if (bigger == NULL)
      return;
    p->ranges = bigger;
    p->max = max;
  }
  p->ranges[p->nr++] = (struct slot_range) { first, nr };
  atomic_fetch_add (&s->nr_pending, nr);
}

/* Data and records. */

int
store_write (struct store *s, spare_t first, uint32_t nr, const void *buf)
{
  const uint8_t *p = buf;

  while (nr > 0) {
    uint32_t n = store_in_section (&s->super, first, nr);
    size_t bytes = (size_t) n * s->super.sector_bytes;

    if (dev_pwrite (s->dev, p, bytes, store_data_at (&s->super, first),
                    0) == -1)
      return -1;
    p += bytes;
    first.n += n;
    nr -= n;
  }
  return 0;
}

/* Is the server of a store there?  A record that is not begun leaves no doubt
 * whether it has been made.
 */
static int
check_is_reached (struct store *s)
{
  uint8_t sector[COMMIT_BYTES];

  return !s->dev->keeps_unflushed ? 0
    : dev_pread (s->dev, sector, sizeof sector, store_commit_at (&s->super, 0),
                 DEV_BUFFERED) == -1 && errno == ESHUTDOWN ? -1 : 0;
}

/* Write entries that get the next sequence number; e is filled in but for it.
 * One record at a time, so that all up to seq_recorded are written.
 */
static int
record_locked (struct store *s, spare_t first, uint32_t nr,
               struct store_entry *e)
{
  uint64_t seq = atomic_load (&s->seq_recorded) + 1;

  assert (lock_rank_is_held (RANK_COMMIT));
  if (atomic_load (&s->failed))
    return set_error (EIO, "store %s has failed and takes no more records",
                      s->path);
  if (seq > SEQ_MAX)
    return set_error (EOVERFLOW, "store %s has no more sequence numbers: make "
                      "a new one", s->path);
  if (check_is_reached (s) == -1)
    return -1;
  for (uint32_t i = 0; i < nr; i++)
    e[i].seq = seq;
  if (store_write_entries (s, first, nr, e) == -1) {
    int err = errno;

    s->in_doubt = (struct slot_range) { first, nr };
    atomic_store (&s->failed, true);            /* S6 */
    log_message (LEVEL_ERROR, "store %s: a record cannot be written (%s): no "
                 "sector can be remapped until a restart", s->path,
                 errno_text (err));
    return set_error (err == ESHUTDOWN ? err : EIO, "store %s: a record cannot "
                      "be written: %s", s->path, errno_text (err));
  }
  atomic_store (&s->seq_recorded, seq);
  return 0;
}

bool
store_is_in_doubt (const struct store *s, spare_t slot)
{
  return atomic_load (&s->failed) && slot.n - s->in_doubt.first.n
    < s->in_doubt.nr;
}

static enum entry_state
entry_state_of (enum sector_state state)
{
  return state == SECTOR_REMAPPED ? ENTRY_REMAPPED
    : state == SECTOR_LOST ? ENTRY_LOST : ENTRY_ZEROED;
}

int
store_record (struct store *s, const struct sector_run *run,
              enum sector_cause cause, const void *buf)
{
  struct store_entry e[STORE_RECORD_MAX];
  uint32_t now_s = (uint32_t) time (NULL);

  assert (run->nr_sectors > 0 && run->nr_sectors <= STORE_RECORD_MAX);
  assert (run->state != SECTOR_CLEAN && run->spare.n != SPARE_NONE.n);
  for (uint32_t i = 0; i < run->nr_sectors; i++)
    e[i] = (struct store_entry) {
      .lba = { run->lba.n + i },
      .data_crc = buf == NULL ? 0
        : crc32c (0, (const uint8_t *) buf + (size_t) i * s->super.sector_bytes,
                  s->super.sector_bytes),
      .time_s = now_s,
      .state = entry_state_of (run->state),
      .cause = cause,
    };
  LOCK_FOR_SCOPE (&s->commit);
  /* A flush that failed may have lost the data: it was not yet in a record that
   * could have told.
   */
  if (buf && atomic_load (&s->has_suspects) &&
      store_write (s, run->spare, (uint32_t) run->nr_sectors, buf) == -1)
    return -1;
  return record_locked (s, run->spare, (uint32_t) run->nr_sectors, e);
}

static int
record_free (struct store *s, spare_t first, uint32_t nr)
{
  struct store_entry e[STORE_RECORD_MAX];

  for (uint32_t i = 0; i < nr; i++)
    e[i] = (struct store_entry) { .state = ENTRY_FREE };
  LOCK_FOR_SCOPE (&s->commit);
  return record_locked (s, first, nr, e);
}

/* Slots that have failed: their sectors were lost because of that, and what the
 * backing has of them is older than what was lost.
 */
static bool
has_unreadable (struct store *s, spare_t first, uint32_t nr)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  for (size_t i = 0; i < s->unreadable.nr; i++)
    if (s->unreadable.slots[i] - first.n < nr)
      return true;
  return s->has_unlisted;
}

int
store_forget (struct store *s, spare_t first, uint32_t nr)
{
  assert (nr > 0 && nr <= STORE_RECORD_MAX);
  if (has_unreadable (s, first, nr))
    return set_error (EBADF, "store %s: a slot has failed meanwhile", s->path);
  return record_free (s, first, nr) == 0 ? store_flush (s) : -1;
}

int
store_mark_bad (struct store *s, spare_t slot)
{
  struct store_entry e = {
    .time_s = (uint32_t) time (NULL), .state = ENTRY_BAD_SLOT,
    .cause = CAUSE_SPARE_ERROR,
  };

  atomic_fetch_add (&s->nr_bad, 1);
  LOCK_FOR_SCOPE (&s->commit);
  return record_locked (s, slot, 1, &e);
}

int
store_read (struct store *s, spare_t first, lba_t lba, uint32_t nr, void *buf)
{
  return store_read_slots (s->dev, s->path, &s->super, first, lba, nr, buf);
}

/* Flush. */

void
store_note_unreadable (struct store *s, spare_t slot)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  /* Without memory for it, it is used again, and may fail again. */
  if (slot_list_add (&s->unreadable, slot) == -1)
    s->has_unlisted = true;
}

/* Cross a slot off the list of unreadable ones; was it there? */
static bool
take_unreadable_locked (struct store *s, uint32_t slot)
{
  struct slot_list *list = &s->unreadable;

  for (size_t i = 0; i < list->nr; i++)
    if (list->slots[i] == slot) {
      list->slots[i] = list->slots[--list->nr];
      return true;
    }
  return false;
}

/* What was superseded by records that a flush which begins now covers. */
static struct pending
take_pending (struct store *s)
{
  struct pending taken;

  LOCK_FOR_SCOPE (&s->map_lock);
  taken = s->pending;
  s->pending = (struct pending) { .ranges = NULL };
  return taken;
}

/* Give back what was pending; slots that are bad are left for ret_bad. */
static void
give_pending (struct store *s, const struct pending *p,
              struct slot_list *ret_bad)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  for (size_t i = 0; i < p->nr; i++) {
    for (uint32_t k = 0; k < p->ranges[i].nr; k++) {
      spare_t slot = { p->ranges[i].first.n + k };

      if (take_unreadable_locked (s, slot.n))
        slot_list_add (ret_bad, slot);  /* no memory: it just stays taken */
      else
        spares_give (s->spares, slot, 1);
    }
    atomic_fetch_sub (&s->nr_pending, p->ranges[i].nr);
  }
  slots_changed_locked (s, 0);
}

static int
note_durable (struct store *s, uint64_t seq, uint64_t unflushed_end)
{
  LOCK_FOR_SCOPE (&s->commit);
  store_flushed_until (s, unflushed_end);
  atomic_store (&s->seq_durable, seq);
  s->commit_record.durable_seq = seq;           /* S3 */
  return store_write_commit (s);
}

/* All that has been recorded by now. */
static void
get_recorded (struct store *s, uint64_t *ret_seq, uint64_t *ret_unflushed_end)
{
  LOCK_FOR_SCOPE (&s->commit);
  *ret_seq = atomic_load (&s->seq_recorded);
  *ret_unflushed_end = store_unflushed_end (s);
}

static int
write_again (struct store *s)
{
  LOCK_FOR_SCOPE (&s->commit);
  return store_write_again (s);
}

/* Before anybody hears that something is durable, it must be so that some of its
 * copies are stale.
 */
static int
flush_stale (struct store *s)
{
  LOCK_FOR_SCOPE (&s->commit);
  if (store_write_commit (s) == -1 || store_flush_dev (s) == -1)
    return -1;
  atomic_store (&s->has_new_stale, false);
  return 0;
}

/* The flush has not been, but may be some day. */
static void
put_back_pending (struct store *s, const struct pending *p)
{
  for (size_t i = 0; i < p->nr; i++) {
    atomic_fetch_sub (&s->nr_pending, p->ranges[i].nr);
    store_supersede (s, p->ranges[i].first, p->ranges[i].nr);
  }
}

static int
flush_once (struct store *s)
{
  struct pending pending = take_pending (s);    /* S2: before seq */
  struct slot_list bad = { .slots = NULL };
  uint64_t seq, unflushed_end;
  int r;

  get_recorded (s, &seq, &unflushed_end);
  r = dev_flush (s->dev);
  if (r == -1)
    r = write_again (s);
  if (r == 0)
    r = note_durable (s, seq, unflushed_end);
  if (r == 0 && atomic_load (&s->has_new_stale))
    r = flush_stale (s);
  if (r == 0) {
    give_pending (s, &pending, &bad);
    /* Only now, when nothing depends on their old records any more. */
    for (size_t i = 0; i < bad.nr; i++)
      store_mark_bad (s, (spare_t) { bad.slots[i] });
  }
  else {
    int err = errno;

    put_back_pending (s, &pending);
    errno = err;
  }
  free (bad.slots);
  free (pending.ranges);
  return r;
}

static int
flush_error (struct store *s)
{
  return set_error (EIO, "store %s: a flush has failed: what was remapped since "
                    "the one before may not be durable", s->path);
}

/* Lead a flush: the flush mutex is held on entry and on return. */
static void
lead_flush_locked (struct store *s)
{
  uint64_t number = ++s->nr_started;
  int r, err;

  s->is_flushing = true;
  lock_release (&s->flush);
  r = flush_once (s);
  err = errno;
  if (r == -1 && !dev_flush_may_succeed (s->dev, err) &&
      !atomic_exchange (&s->flush_failed, true))        /* S5 */
    log_message (LEVEL_ERROR, "store %s: flush failed (%s); flushes report an "
                 "error until a restart", s->path, errno_text (err));
  lock_acquire (&s->flush);
  s->nr_done = number;
  if (r == 0)
    s->last_good = number;
  s->is_flushing = false;
  pthread_cond_broadcast (&s->flushed);
}

/* Wait for a flush that begins after this call, or lead it. */
static int
flush_through (struct store *s)
{
  uint64_t wanted;

  LOCK_FOR_SCOPE (&s->flush);
  wanted = s->nr_started + 1;
  while (s->nr_done < wanted && !atomic_load (&s->flush_failed)) {
    if (s->is_flushing)
      lock_wait (&s->flush, &s->flushed);
    else
      lead_flush_locked (s);
  }
  if (atomic_load (&s->flush_failed))
    return flush_error (s);
  if (s->last_good < wanted)
    return set_error (ESHUTDOWN, "store %s cannot be reached: what was remapped "
                      "is not durable yet", s->path);
  return 0;
}

int
store_flush (struct store *s)
{
  if (atomic_load (&s->flush_failed))
    return flush_error (s);
  if (atomic_load (&s->seq_recorded) == atomic_load (&s->seq_durable) &&
      !atomic_load (&s->has_new_stale))
    return 0;
  return flush_through (s);
}

/* The rest. */

int
store_set_owner (struct store *s)
{
  LOCK_FOR_SCOPE (&s->commit);
  s->commit_record.pid = (uint32_t) getpid ();
  s->commit_record.is_clean = false;
  return store_write_commit (s);
}

void
store_destroy (struct store *s)
{
  int saved = errno;

  dev_close (s->dev);
  spares_free (s->spares);
  free (s->pending.ranges);
  free (s->unreadable.slots);
  free (s->unflushed.entries);
  pthread_cond_destroy (&s->flushed);
  pthread_cond_destroy (&s->slots_changed);
  lock_destroy (&s->map_lock);
  lock_destroy (&s->flush);
  lock_destroy (&s->commit);
  free (s);
  errno = saved;
}

void
store_abandon (struct store *s)
{
  if (s)
    store_destroy (s);
}

static void
write_good_order (struct store *s)
{
  LOCK_FOR_SCOPE (&s->commit);
  s->commit_record.pid = 0;
  s->commit_record.is_clean = true;
  if (store_write_commit (s) == -1 || dev_flush (s->dev) == -1)
    log_message (LEVEL_WARNING, "store %s: cannot note that it was closed: %s",
                 s->path, last_error_text ());
}

void
store_close (struct store *s)
{
  if (s == NULL)
    return;
  if (store_flush (s) == -1)
    log_message (LEVEL_ERROR, "%s", last_error_text ());
  else if (!atomic_load (&s->failed))
    write_good_order (s);
  store_destroy (s);
}

void
store_get_status (struct store *s, struct status *ret)
{
  memcpy (ret->store, s->path, sizeof ret->store);
  memcpy (ret->identity, s->super.backing_id, sizeof ret->identity);
  ret->spares_total = spares_total (s->spares) - s->nr_kept;
  ret->spares_free = nr_left (s);
  ret->spares_bad = atomic_load (&s->nr_bad);
  ret->flush_failed = atomic_load (&s->flush_failed);
  ret->store_failed = atomic_load (&s->failed);
}

void
store_verify (struct store *s, struct map *map)
{
  struct sector_run run;
  uint64_t nr_owned = 0, nr_waiting = atomic_load (&s->nr_pending);

  for (lba_t lba = { 0 }; map_next_mapped (map, lba, &run) == 0;
       lba.n = run.lba.n + run.nr_sectors)
    if (run.spare.n != SPARE_NONE.n)
      nr_owned += run.nr_sectors;

  LOCK_FOR_SCOPE (&s->map_lock);
  spares_verify (s->spares);
  assert (nr_owned + nr_waiting + atomic_load (&s->nr_bad)
          <= spares_taken (s->spares));
  assert (atomic_load (&s->seq_durable) <= atomic_load (&s->seq_recorded));
  assert (s->commit_record.durable_seq <= atomic_load (&s->seq_durable));
}
