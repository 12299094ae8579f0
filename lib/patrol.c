/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "checked.h"
#include "cleanup.h"
#include "clock.h"
#include "engine-internal.h"
#include "error.h"
#include "evidence.h"
#include "log.h"
#include "patrol.h"
#include "thread.h"

struct patrol {
  struct engine *engine;
  pthread_t thread;
  bool started;
  atomic_bool stopping;
  unsigned pause_s;             /* until the next look, after one that came to
                                   no end */
};

#define PAUSE_MAX_S 64

struct patrol *
patrol_new (struct engine *e)
{
  struct patrol *p = calloc (1, sizeof *p);

  if (p == NULL) {
    set_error (ENOMEM, "no memory for the patrol");
    return NULL;
  }
  p->engine = e;
  return p;
}

/* The second look. */

/* Is one of these sectors still lost, in its slot? */
static bool
is_still_lost (struct engine *e, const struct loss *loss)
{
  struct sector_run run;

  for (uint32_t done = 0; done < loss->nr_sectors;
       done += (uint32_t) run.nr_sectors) {
    map_next (e->map, (lba_t) { loss->lba.n + done }, loss->nr_sectors - done,
              &run);
    if (run.state == SECTOR_LOST && run.spare.n == loss->slot.n + done)
      return true;
  }
  return false;
}

enum look { LOOK_GOOD, LOOK_BAD, LOOK_NO_ANSWER };

/* Without a lock: as long as they are lost, nobody writes them in place, and
 * whether they were all the time is looked at when they are forgotten.
 */
static enum look
look_at_unit (struct engine *e, const struct loss *unit, uint8_t *buf)
{
  if (!is_still_lost (e, unit))
    return LOOK_BAD;
  if (dev_pread (e->backing, buf,
                 sectors_to_bytes (e, unit->lba, unit->nr_sectors),
                 lba_to_bytes (e, unit->lba), DEV_UNCACHED) == 0)
    return LOOK_GOOD;
  if (!dev_error_is_medium (errno))
    return LOOK_NO_ANSWER;
  return evidence_get (e, BREAKER_READ, &(struct evidence_scope) {
                         unit->lba, unit->nr_sectors, UINT64_MAX },
                       unit->lba, unit->nr_sectors, errno) == 0
    ? LOOK_BAD : LOOK_NO_ANSWER;
}

/* false: the store cannot be reached now. */
static bool
forget (struct engine *e, struct loss *loss)
{
  bool r = true;

  if (loss->nr_sectors > 0 &&
      place_forget (e, loss->lba, loss->slot, loss->nr_sectors) == -1) {
    r = errno != ESHUTDOWN;
    log_limited (LEVEL_WARNING, "sector %llu can be read after all, but stays "
                 "lost: %s", (unsigned long long) loss->lba.n,
                 last_error_text ());
  }
  if (r)
    loss->nr_sectors = 0;
  return r;
}

/* Some sectors of a loss, from the nth on. */
static struct loss
part_of (const struct loss *loss, uint32_t n, uint32_t nr_sectors)
{
  return (struct loss) {
    .lba = { loss->lba.n + n }, .slot = { loss->slot.n + n },
    .nr_sectors = nr_sectors,
  };
}

/* Read what was lost at a time, unit by unit; neighbours that can be read are
 * forgotten together.  Returns how many sectors have been dealt with: not all,
 * if the disk or the store stopped to answer.
 */
static uint32_t
look_at_units (struct patrol *p, const struct loss *loss, uint8_t *buf)
{
  struct engine *e = p->engine;
  struct loss good = { .nr_sectors = 0 };
  uint32_t done = 0, n;

  for (; done < loss->nr_sectors && !atomic_load (&p->stopping); done += n) {
    uint32_t skip = (loss->lba.n + done) & (e->unit_sectors - 1);
    struct loss unit;
    enum look look;

    n = MIN (loss->nr_sectors - done, e->unit_sectors - skip);
    unit = part_of (loss, done, n);
    look = look_at_unit (e, &unit, buf);
    if (look == LOOK_NO_ANSWER)
      break;
    if ((look == LOOK_BAD || good.nr_sectors + n > STORE_RECORD_MAX) &&
        !forget (e, &good))
      break;
    if (look == LOOK_GOOD && good.nr_sectors == 0)
      good = unit;
    else if (look == LOOK_GOOD)
      good.nr_sectors += n;
  }
  forget (e, &good);
  return done - good.nr_sectors;
}

static void
take_second_look (struct patrol *p, uint64_t since_ns)
{
  struct engine *e = p->engine;
  CLEANUP_FREE uint8_t *buf = malloc ((size_t) e->unit_sectors
                                      << e->sector_shift);
  struct loss loss;

  while (buf && !atomic_load (&p->stopping) &&
         evidence_state (e->evidence) != BREAKER_OPEN &&
         evidence_take_loss (e->evidence, since_ns, &loss)) {
    uint32_t done = look_at_units (p, &loss, buf);

    if (done == loss.nr_sectors) {
      p->pause_s = 0;
      continue;
    }
    p->pause_s = MIN (MAX (2 * p->pause_s, 1u), (unsigned) PAUSE_MAX_S);
    evidence_give_loss (e->evidence,
                        part_of (&loss, done, loss.nr_sectors - done),
                        since_ns, p->pause_s);
    break;
  }
}

uint64_t
patrol_step (struct patrol *p, uint64_t now_ns)
{
  struct engine *e = p->engine;

  while (!atomic_load (&p->stopping)) {
    uint64_t since_ns, due_ns;

    switch (evidence_get_work (e->evidence, now_ns, &since_ns, &due_ns)) {
    case EVIDENCE_PROBE:
      evidence_probe (e);
      now_ns = 0;               /* one at a time */
      break;
    case EVIDENCE_LOOK:
      take_second_look (p, since_ns);
      break;
    case EVIDENCE_NOTHING:
      return due_ns;
    }
  }
  return UINT64_MAX;
}

/* The thread. */

static void *
patrol_main (void *opaque)
{
  struct patrol *p = opaque;

  while (evidence_wait (p->engine->evidence,
                        patrol_step (p, clock_now_ns ())))
    ;
  return NULL;
}

int
patrol_start (struct patrol *p)
{
  int err;

  assert (!p->started);
  err = thread_start (&p->thread, patrol_main, p);
  if (err)
    return set_error (err, "patrol: no thread can be made: %s",
                      errno_text (err));
  pthread_setname_np (p->thread, "remap-patrol");
  p->started = true;
  return 0;
}

void
patrol_free (struct patrol *p)
{
  if (p == NULL)
    return;
  if (p->started) {
    atomic_store (&p->stopping, true);
    evidence_stop (p->engine->evidence);
    pthread_join (p->thread, NULL);
  }
  free (p);
}
