/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "clock.h"
#include "engine-internal.h"
#include "error.h"
#include "evidence.h"
#include "log.h"

/* Where the disk was good a moment ago, so many places have to fail before others
 * are tried; of these at least so many, and then no more after that time: a disk
 * may need half a minute for each.
 */
#define TRIES_MIN 4
#define HARM_MAX 2              /* places that a probe for a request may hurt */
#define REST_MAX 64             /* patrol: every so many probes at least */
#define TRIES_NS UINT64_C (5000000000)

/* The probes stay away from the failure so far, if the disk is large enough. */
#define AWAY_BYTES (UINT64_C (32) << 20)

struct evidence *
evidence_new (uint64_t nr_sectors)
{
  struct evidence *v = aligned_alloc (64, sizeof *v);

  if (v == NULL) {
    set_error (ENOMEM, "no memory for the breaker");
    return NULL;
  }
  memset (v, 0, sizeof *v);
  while (nr_sectors >> v->region_shift > EVIDENCE_REGIONS - 1)
    v->region_shift++;
  v->nr_regions = (unsigned) (nr_sectors >> v->region_shift) + 1;
  for (unsigned i = 0; i < EVIDENCE_REGIONS; i++)
    atomic_init (&v->places[i].lba, UINT64_MAX);
  v->scratch = UINT64_MAX;
  lock_init (&v->lock, RANK_LEAF);
  pthread_cond_init (&v->changed, NULL);
  lock_cond_init (&v->has_news);
  return v;
}

void
evidence_free (struct evidence *v)
{
  if (v == NULL)
    return;
  losses_free (&v->losses);
  free (v->scratch_data);
  pthread_cond_destroy (&v->has_news);
  pthread_cond_destroy (&v->changed);
  lock_destroy (&v->lock);
  free (v);
}

/* Places to probe. */

/* A probe under way. */
struct probe {
  enum breaker_op op;
  const struct evidence_scope *scope;   /* NULL: nothing has failed */
  lba_t lba;                    /* what has failed */
  uint64_t nr_sectors;
  uint64_t away_sectors;
  uint64_t number;              /* of the probe: each begins elsewhere */
  uint8_t *buf[2];              /* of a unit */
  unsigned nr_tries;
  unsigned nr_zero;             /* places that were left out: zeroes */
  bool takes_zeroes;            /* write these back, and nothing else */
  bool can_read;
  unsigned nr_harmed;           /* places */
  bool is_over;                 /* it did harm: try nothing more */
  int err;
};

static bool
is_apart (lba_t unit, uint64_t unit_sectors, lba_t lba, uint64_t nr_sectors,
          uint64_t by_sectors)
{
  return unit.n + unit_sectors + by_sectors <= lba.n ||
    unit.n >= lba.n + nr_sectors + by_sectors;
}

/* The unit around a place, if it can be probed: whole, and all of it clean. */
static bool
is_place (struct engine *e, uint64_t lba, lba_t *ret_unit)
{
  uint64_t unit = e->unit_sectors;

  ret_unit->n = lba & ~(unit - 1);
  return (ret_unit->n + unit) << e->sector_shift <= e->size_bytes &&
    map_is_clean (e->map, *ret_unit, unit);
}

/* Is it none that the request may have found bad? */
static bool
is_far (const struct engine *e, const struct probe *p, lba_t unit)
{
  return p->scope == NULL ||
    (is_apart (unit, e->unit_sectors, p->lba, p->nr_sectors,
               p->away_sectors) &&
     is_apart (unit, e->unit_sectors, p->scope->lba, p->scope->nr_sectors, 0));
}

static uint32_t
unit_bytes (const struct engine *e)
{
  return e->unit_sectors << e->sector_shift;
}

static int
read_place (struct engine *e, lba_t unit, uint8_t *buf)
{
  return dev_pread (e->backing, buf, unit_bytes (e), lba_to_bytes (e, unit),
                    DEV_UNCACHED);
}

/* The place could not be written.  Is its content still what it was?  (V2) */
static void
rescue_place (struct engine *e, lba_t unit, struct probe *p)
{
  struct evidence *v = e->evidence;

  if (!dev_error_is_medium (errno))
    return;
  if (read_place (e, unit, p->buf[1]) == 0
      ? memcmp (p->buf[0], p->buf[1], unit_bytes (e)) == 0
      : !dev_error_is_medium (errno))
    return;
  p->is_over = true;
  if (place_rescue (e, unit, e->unit_sectors, p->buf[0]) == -1)
    return;
  p->is_over = p->scope == NULL || ++p->nr_harmed >= HARM_MAX;
  v->scratch = UINT64_MAX;
  if (v->scratch_data == NULL)
    v->scratch_data = malloc (unit_bytes (e));
  if (v->scratch_data) {
    memcpy (v->scratch_data, p->buf[0], unit_bytes (e));
    v->scratch = unit.n;
  }
}

static bool
is_zero (const uint8_t *buf, size_t nr_bytes)
{
  return buf[0] == 0 && memcmp (buf, buf + 1, nr_bytes - 1) == 0;
}

/* Should it go wrong, there must be spares for what stands there. */
static bool
can_rescue (struct engine *e)
{
  struct status status = { .spares_free = 0 };

  store_get_status (e->store, &status);
  return !status.store_failed && !status.flush_failed &&
    !atomic_load (&e->failed) && status.spares_free >= e->unit_sectors;
}

/* Zeroes may be a hole of a sparse file, which would then take room, or find
 * none.
 */
static int
write_back_locked (struct engine *e, lba_t unit, struct probe *p)
{
  int err;

  if (!map_is_clean (e->map, unit, e->unit_sectors) || !can_rescue (e))
    return -1;
  if (read_place (e, unit, p->buf[0]) == -1)
    return 0;
  p->can_read = true;
  if (is_zero (p->buf[0], unit_bytes (e)) != p->takes_zeroes) {
    p->nr_zero += !p->takes_zeroes;
    return -1;
  }
  if (dev_pwrite (e->backing, p->buf[0], unit_bytes (e),
                  lba_to_bytes (e, unit), 0) == 0)
    return 1;
  err = errno;
  rescue_place (e, unit, p);
  errno = err;
  return err == ENOSPC ? -1 : 0;
}

/* 1: the place answers as the probe wants it, 0: it does not, -1: it was not
 * tried, or says nothing.
 */
static int
write_back (struct engine *e, lba_t unit, struct probe *p)
{
  struct range_lock lock;
  int r, err;

  if (!ranges_try_lock (e->ranges, &lock, unit, e->unit_sectors))
    return -1;
  r = write_back_locked (e, unit, p);
  err = errno;
  ranges_unlock_tried (e->ranges, &lock);
  errno = err;
  return r;
}

/* The same. */
static int
try_place (struct engine *e, lba_t unit, struct probe *p)
{
  int r;

  if (p->op == BREAKER_WRITE)
    r = write_back (e, unit, p);
  else {
    r = read_place (e, unit, p->buf[0]) == 0;
    p->can_read |= r;
  }
  if (r == 0) {
    p->err = errno;
    p->nr_tries++;
  }
  return r;
}

/* Regions one after the other, each far from the last, from one after the failure
 * on.
 */
static uint64_t
nth_region (const struct evidence *v, const struct probe *p, unsigned n)
{
  return ((p->lba.n >> v->region_shift) + 1 + p->number + 5 * n)
    % EVIDENCE_REGIONS;
}

/* Where it was good a moment ago. */
static bool
try_known (struct engine *e, struct probe *p)
{
  struct evidence *v = e->evidence;
  lba_t unit;

  if (p->scope && p->scope->good != UINT64_MAX &&
      is_place (e, p->scope->good, &unit) &&
      is_apart (unit, e->unit_sectors, p->lba, p->nr_sectors, 0) &&
      try_place (e, unit, p) == 1)
    return true;
  for (unsigned i = 0; i < EVIDENCE_REGIONS && p->nr_tries < TRIES_MIN &&
         !p->is_over; i++) {
    _Atomic uint64_t *place = &v->places[nth_region (v, p, i)].lba;
    uint64_t lba = atomic_load (place);
    int r;

    if (lba == UINT64_MAX || !is_place (e, lba, &unit) || !is_far (e, p, unit))
      continue;
    r = try_place (e, unit, p);
    if (r == 1)
      return true;
    if (r == 0)
      atomic_store (place, UINT64_MAX);
  }
  return false;
}

/* The first unit of a region, from a point of it on, that can be tried. */
static bool
find_place (struct engine *e, const struct probe *p, uint64_t from,
            uint64_t end, bool everywhere, lba_t *ret_unit)
{
  struct sector_run run;

  for (unsigned i = 0; i < 64 && from < MIN (end, e->nr_sectors); i++) {
    if (is_place (e, from, ret_unit) &&
        is_apart (*ret_unit, e->unit_sectors, p->lba, p->nr_sectors, 0) &&
        (everywhere || is_far (e, p, *ret_unit)))
      return true;
    map_next (e->map, (lba_t) { from }, e->nr_sectors - from, &run);
    from += run.state == SECTOR_CLEAN ? e->unit_sectors : run.nr_sectors;
  }
  return false;
}

/* In the middle of each region, or elsewhere in it, with each probe at another
 * place; within the request as well, if there is nothing else.
 */
static bool
try_unknown (struct engine *e, struct probe *p, bool everywhere)
{
  struct evidence *v = e->evidence;
  const uint64_t size = UINT64_C (1) << v->region_shift;
  uint64_t end_ns = clock_now_ns () + TRIES_NS;

  for (unsigned i = 0; i < 3 * EVIDENCE_REGIONS && !p->is_over; i++) {
    uint64_t region = nth_region (v, p, i);
    uint64_t begin = region << v->region_shift;
    uint64_t at = (size / 2 + p->number * (size / 8 + 1) +
                   i / EVIDENCE_REGIONS * (size / 3)) % size;
    lba_t unit;
    int r;

    if (!find_place (e, p, begin + at, begin + size, everywhere, &unit))
      continue;
    r = try_place (e, unit, p);
    if (r == 1) {
      atomic_store (&v->places[region].lba, unit.n);
      return true;
    }
    if (p->nr_tries >= TRIES_MIN && clock_now_ns () >= end_ns)
      break;
  }
  return false;
}

static bool
try_places (struct engine *e, struct probe *p)
{
  return try_known (e, p) || try_unknown (e, p, false) ||
    (p->nr_tries == 0 && try_unknown (e, p, true));
}

/* A place that was hurt by a write-back has its data in spares: writing that there
 * again does no more harm.
 */
static bool
try_scratch (struct engine *e, struct probe *p)
{
  lba_t unit = { e->evidence->scratch };
  struct range_lock lock;
  struct sector_run run;
  bool r = false;

  if (unit.n == UINT64_MAX ||
      !ranges_try_lock (e->ranges, &lock, unit, e->unit_sectors))
    return false;
  for (uint64_t i = 0; i < e->unit_sectors; i += run.nr_sectors) {
    map_next (e->map, (lba_t) { unit.n + i }, e->unit_sectors - i, &run);
    if (run.state == SECTOR_CLEAN)
      break;
    if (i + run.nr_sectors == e->unit_sectors)
      r = dev_pwrite (e->backing, e->evidence->scratch_data, unit_bytes (e),
                      lba_to_bytes (e, unit), 0) == 0;
  }
  ranges_unlock_tried (e->ranges, &lock);
  return r;
}

/* While the disk is known to do harm, patrol tries others ever more seldom. */
static bool
is_rest_due (struct evidence *v, const struct probe *p)
{
  unsigned n = v->nr_scratch_failures;

  if (v->scratch == UINT64_MAX || p->scope)
    return true;
  v->nr_scratch_failures++;
  return (n & (n - 1)) == 0 || n % REST_MAX == 0;
}

/* Where there is no place to try, nothing speaks for or against the disk. */
static enum breaker_answer
answer_without_a_try (const struct evidence *v, enum breaker_answer wanted)
{
  switch (evidence_state (v)) {
  case BREAKER_CLOSED: return wanted;
  case BREAKER_READ_ONLY: return BREAKER_ANSWERS_READ;
  case BREAKER_OPEN: break;
  }
  return BREAKER_NO_ANSWER;
}

static enum breaker_answer
ask_disk (struct engine *e, struct probe *p)
{
  struct evidence *v = e->evidence;
  const enum breaker_answer wanted = p->op == BREAKER_WRITE
    ? BREAKER_ANSWERS_WRITE : BREAKER_ANSWERS_READ;
  CLEANUP_FREE uint8_t *buf = malloc (2 * (size_t) unit_bytes (e));

  if (buf == NULL)
    return answer_without_a_try (v, wanted);
  p->buf[0] = buf;
  p->buf[1] = buf + unit_bytes (e);
  p->away_sectors = MIN (AWAY_BYTES >> e->sector_shift, e->nr_sectors / 4);
  if (p->op == BREAKER_WRITE && try_scratch (e, p))
    return wanted;
  if (p->op == BREAKER_WRITE && !is_rest_due (v, p))
    return BREAKER_ANSWERS_READ;
  if (try_places (e, p))
    return wanted;
  p->takes_zeroes = true;
  if (p->nr_zero > 0 && !p->is_over && try_places (e, p))
    return wanted;
  if (p->nr_tries == 0)
    return answer_without_a_try (v, wanted);
  return p->can_read ? BREAKER_ANSWERS_READ : BREAKER_NO_ANSWER;
}

/* The breaker. */

static void
tell (struct engine *e, enum breaker_state before, enum breaker_state state,
      uint64_t for_ns)
{
  const char *name = e->backing->info.name;

  if (state == BREAKER_OPEN)
    log_message (LEVEL_ERROR, "%s does not answer, not even where it was good "
                 "before: no sector is called lost or remapped until it does",
                 name);
  else if (state == BREAKER_READ_ONLY)
    log_message (LEVEL_ERROR, "%s can be read, but takes no writes anywhere: no "
                 "sector is remapped until it does", name);
  else
    log_message (LEVEL_WARNING, "%s %s again, after %llu s", name,
                 before == BREAKER_OPEN ? "answers" : "takes writes",
                 (unsigned long long) (for_ns / 1000000000));
}

static void
wake_patrol_locked (struct evidence *v)
{
  v->is_news = true;
  pthread_cond_signal (&v->has_news);
}

/* Make a probe; v->lock is held before and after, not between (V1). */
static void
probe_locked (struct engine *e, struct probe *p)
{
  struct evidence *v = e->evidence;
  enum breaker_state before = v->breaker.state, state;
  uint64_t began_ns = clock_now_ns (), now_ns, for_ns;
  enum breaker_answer answer;

  v->is_probing = true;
  p->number = v->nr_probes++;
  lock_release (&v->lock);
  answer = ask_disk (e, p);
  if (answer == BREAKER_ANSWERS_WRITE)
    v->nr_scratch_failures = 0;
  now_ns = clock_now_ns ();
  lock_acquire (&v->lock);
  for_ns = now_ns - v->breaker.since_ns;
  breaker_note_probe (&v->breaker, p->op, answer, began_ns, now_ns);
  v->err = p->err;
  state = v->breaker.state;
  atomic_store (&v->state, (int) state);
  v->is_probing = false;
  pthread_cond_broadcast (&v->changed);
  if (state == before)
    return;
  wake_patrol_locked (v);
  lock_release (&v->lock);
  tell (e, before, state, for_ns);
  lock_acquire (&v->lock);
}

/* It has begun who knows when: that closes the breaker, but proves no error. */
void
evidence_note_answer (struct engine *e, enum breaker_op op)
{
  struct evidence *v = e->evidence;
  enum breaker_state before, state;
  uint64_t now_ns = clock_now_ns (), for_ns;

  {
    LOCK_FOR_SCOPE (&v->lock);
    before = v->breaker.state;
    if (v->is_probing || before == BREAKER_CLOSED)
      return;
    for_ns = now_ns - v->breaker.since_ns;
    breaker_note_probe (&v->breaker, op, op == BREAKER_WRITE
                        ? BREAKER_ANSWERS_WRITE : BREAKER_ANSWERS_READ, 0,
                        now_ns);
    state = v->breaker.state;
    atomic_store (&v->state, (int) state);
    wake_patrol_locked (v);
  }
  if (state != before)
    tell (e, before, state, for_ns);
}

static int
refuse_locked (const struct engine *e, enum breaker_op op, int err)
{
  const struct evidence *v = e->evidence;
  bool is_read_only = op == BREAKER_WRITE &&
    v->breaker.state == BREAKER_READ_ONLY;

  if (v->err && !dev_error_is_medium (v->err))
    err = v->err;
  return set_error (err, "%s %s: %s", e->backing->info.name,
                    is_read_only ? "takes no writes" : "does not answer",
                    errno_text (err));
}

int
evidence_get (struct engine *e, enum breaker_op op,
              const struct evidence_scope *scope, lba_t lba,
              uint64_t nr_sectors, int err)
{
  struct evidence *v = e->evidence;
  uint64_t failed_ns = clock_now_ns ();

  LOCK_FOR_SCOPE (&v->lock);
  for (;;) {
    struct probe p = {
      .op = op, .scope = scope, .lba = lba, .nr_sectors = nr_sectors,
    };

    switch (breaker_judge (&v->breaker, op, failed_ns)) {
    case BREAKER_BELIEVE:
      return 0;
    case BREAKER_REFUSE:
      return refuse_locked (e, op, err);
    case BREAKER_PROBE:
      break;
    }
    if (v->is_probing)
      lock_wait (&v->lock, &v->changed);
    else
      probe_locked (e, &p);
  }
}

void
evidence_probe (struct engine *e)
{
  struct evidence *v = e->evidence;
  struct probe p = { .scope = NULL };

  LOCK_FOR_SCOPE (&v->lock);
  while (v->is_probing)
    lock_wait (&v->lock, &v->changed);
  p.op = breaker_probe_op (&v->breaker);
  probe_locked (e, &p);
}

/* Losses. */

void
evidence_note_lost (struct evidence *v, lba_t lba, spare_t slot,
                    uint64_t nr_sectors)
{
  uint64_t now_ns = clock_now_ns ();
  struct loss loss = {
    .lba = lba, .slot = slot, .nr_sectors = (uint32_t) nr_sectors,
    .when_ns = now_ns,
  };
  uint64_t due_ns;

  LOCK_FOR_SCOPE (&v->lock);
  due_ns = breaker_look_due (&v->breaker);
  if (due_ns == BREAKER_NEVER && v->breaker.state != BREAKER_OPEN &&
      !v->is_looking && now_ns > BREAKER_DOUBT_NS)
    losses_expire (&v->losses, now_ns - BREAKER_DOUBT_NS);
  losses_add (&v->losses, &loss);
  breaker_note_lost (&v->breaker, nr_sectors, now_ns);
  if (breaker_look_due (&v->breaker) != due_ns)
    wake_patrol_locked (v);
}

bool
evidence_take_loss (struct evidence *v, uint64_t since_ns, struct loss *ret)
{
  LOCK_FOR_SCOPE (&v->lock);
  return losses_take (&v->losses, since_ns, ret);
}

void
evidence_give_loss (struct evidence *v, struct loss loss, uint64_t since_ns,
                    unsigned pause_s)
{
  loss.when_ns = clock_now_ns ();

  LOCK_FOR_SCOPE (&v->lock);
  losses_add (&v->losses, &loss);
  breaker_look_again (&v->breaker, since_ns,
                      loss.when_ns + pause_s * UINT64_C (1000000000));
}

/* Work for patrol. */

enum evidence_work
evidence_get_work (struct evidence *v, uint64_t now_ns, uint64_t *ret_since_ns,
                   uint64_t *ret_due_ns)
{
  uint64_t probe_ns, look_ns;

  LOCK_FOR_SCOPE (&v->lock);
  v->is_news = v->is_looking = false;
  probe_ns = breaker_probe_due (&v->breaker);
  look_ns = breaker_look_due (&v->breaker);
  if (probe_ns <= now_ns)
    return EVIDENCE_PROBE;
  if (look_ns <= now_ns) {
    *ret_since_ns = breaker_take_look (&v->breaker);
    v->is_looking = true;
    return EVIDENCE_LOOK;
  }
  *ret_due_ns = MIN (probe_ns, look_ns);
  return EVIDENCE_NOTHING;
}

bool
evidence_wait (struct evidence *v, uint64_t due_ns)
{
  LOCK_FOR_SCOPE (&v->lock);
  while (!v->is_news && !v->is_stopped) {
    if (due_ns == BREAKER_NEVER)
      lock_wait (&v->lock, &v->has_news);
    else if (clock_now_ns () >= due_ns)
      break;
    else
      lock_wait_until (&v->lock, &v->has_news, due_ns);
  }
  return !v->is_stopped;
}

void
evidence_stop (struct evidence *v)
{
  LOCK_FOR_SCOPE (&v->lock);
  v->is_stopped = true;
  pthread_cond_signal (&v->has_news);
}
