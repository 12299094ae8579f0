/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <ev.h>

#include "error.h"
#include "event-queue.h"
#include "lock.h"
#include "log.h"
#include "thread.h"
#include "worker.h"

#define QUEUE_CAPACITY 4096

/* Events to take at a time, so that the control socket has its turn in a
 * storm that does not end.
 */
#define DRAIN_MAX (8 * QUEUE_CAPACITY)

/* Two copies of the snapshot: turn is even: read copy 0, odd: read copy 1.
 * The worker writes the copy that nobody is sent to, so a reader finds one
 * that is whole wherever the worker has stopped (W4); it reads again only if
 * a snapshot was published meanwhile.  The words are atomic, each released and
 * acquired, so that a reader which has seen one new word also sees the turn.
 */
#define NR_WORDS                                                              \
  ((sizeof (struct health_snapshot) + sizeof (uint64_t) - 1)                  \
   / sizeof (uint64_t))

struct latch {
  _Atomic uint64_t turn;
  _Atomic uint64_t copy[2][NR_WORDS];
};

struct worker {
  struct event_queue *queue;
  struct latch snapshot;
  struct worker_guest guest;

  /* NULL until the thread is about to run.  Any thread. */
  _Atomic (struct ev_loop *) loop;
  _Atomic uint64_t nr_posts;
  ev_async wake;

  /* Used by the owner's thread only. */
  pthread_t thread;
  bool started;

  atomic_bool stopping;
  struct lock health_mutex;
  struct health health;                 /* health_mutex */
  ev_periodic never;                    /* health_mutex */

  struct lock hang_mutex;               /* a leaf */
  pthread_cond_t hang_changed;
  bool hang_wanted, hangs;              /* hang_mutex */
};

static void
latch_write_copy (struct latch *latch, unsigned which, const uint64_t *words)
{
  for (size_t i = 0; i < NR_WORDS; i++)
    atomic_store_explicit (&latch->copy[which][i], words[i],
                           memory_order_release);
}

/* One writer. */
static void
latch_write (struct latch *latch, const struct health_snapshot *snapshot)
{
  uint64_t words[NR_WORDS] = { 0 };
  uint64_t turn = atomic_load_explicit (&latch->turn, memory_order_relaxed);

  memcpy (words, snapshot, sizeof *snapshot);
  atomic_store_explicit (&latch->turn, turn + 1, memory_order_release);
  latch_write_copy (latch, 0, words);
  atomic_store_explicit (&latch->turn, turn + 2, memory_order_release);
  latch_write_copy (latch, 1, words);
}

static void
latch_read (struct latch *latch, struct health_snapshot *ret)
{
  uint64_t words[NR_WORDS];
  uint64_t turn;

  do {
    turn = atomic_load_explicit (&latch->turn, memory_order_acquire);
    for (size_t i = 0; i < NR_WORDS; i++)
      words[i] = atomic_load_explicit (&latch->copy[turn & 1][i],
                                       memory_order_acquire);
  } while (atomic_load_explicit (&latch->turn, memory_order_relaxed) != turn);
  memcpy (ret, words, sizeof *ret);
}

static void
publish_locked (struct worker *worker)
{
  struct health_snapshot snapshot;

  health_get_snapshot (&worker->health, &snapshot);
  latch_write (&worker->snapshot, &snapshot);
}

static void
note_count (void *opaque, unsigned region, enum event_kind kind,
            uint64_t count)
{
  struct worker *worker = opaque;

  health_note_count (&worker->health, region, kind, count);
}

/* Analyse up to max events; returns whether there may be more.  Publishes
 * once, however many there were.
 */
static bool
drain_locked (struct worker *worker, uint64_t max)
{
  struct event event;
  uint64_t n = 0;

  assert (lock_rank_is_held (RANK_HEALTH));
  while (n < max && event_queue_pop (worker->queue, &event)) {
    health_note (&worker->health, &event);
    n++;
  }
  event_queue_take_counts (worker->queue, note_count, worker);
  publish_locked (worker);
  return n == max;
}

struct worker *
worker_new (uint64_t nr_sectors, const struct worker_guest *guest)
{
  struct worker *worker = calloc (1, sizeof *worker);

  if (!worker) {
    set_error (ENOMEM, "worker: no memory");
    return NULL;
  }
  worker->queue = event_queue_new (QUEUE_CAPACITY, HEALTH_NR_REGIONS);
  if (!worker->queue) {
    free (worker);
    return NULL;
  }
  if (guest)
    worker->guest = *guest;
  lock_init (&worker->health_mutex, RANK_HEALTH);
  lock_init (&worker->hang_mutex, RANK_LEAF);
  pthread_cond_init (&worker->hang_changed, NULL);
  health_init (&worker->health, nr_sectors);
  return worker;
}

void
worker_post (struct worker *worker, const struct event *event)
{
  struct ev_loop *loop;

  event_queue_push (worker->queue, event,
                    health_region_of (&worker->health, event->lba));

  /* Either worker_main counts after us and finds the event when it drains for
   * the first time, or we count after it and find the loop.
   */
  atomic_fetch_add (&worker->nr_posts, 1);
  loop = atomic_load (&worker->loop);
  if (loop)
    ev_async_send (loop, &worker->wake);
}

void
worker_get_snapshot (struct worker *worker, struct health_snapshot *ret)
{
  latch_read (&worker->snapshot, ret);
}

/* The loop lets go of the health mutex while it waits (W1). */
static void
release_health (struct ev_loop *loop) EV_NOEXCEPT
{
  struct worker *worker = ev_userdata (loop);

  lock_release (&worker->health_mutex);
}

static void
acquire_health (struct ev_loop *loop) EV_NOEXCEPT
{
  struct worker *worker = ev_userdata (loop);

  lock_acquire (&worker->health_mutex);
}

static void
hang_if_wanted_locked (struct worker *worker)
{
  LOCK_FOR_SCOPE (&worker->hang_mutex);

  while (worker->hang_wanted) {
    worker->hangs = true;
    pthread_cond_broadcast (&worker->hang_changed);
    lock_wait (&worker->hang_mutex, &worker->hang_changed);
  }
  worker->hangs = false;
}

static void
on_wake (struct ev_loop *loop, ev_async *wake, int revents)
{
  struct worker *worker = ev_userdata (loop);

  hang_if_wanted_locked (worker);
  if (drain_locked (worker, DRAIN_MAX))
    ev_async_send (loop, wake);
  else if (atomic_load (&worker->stopping))
    ev_break (loop, EVBREAK_ALL);
}

static void
on_never (struct ev_loop *loop, ev_periodic *never, int revents)
{
}

/* What the watched disk went through, for the log of a server that ends. */
static void
log_totals_locked (const struct worker *worker)
{
  const uint64_t *total = worker->health.total;

  if (total[EVENT_READ_ERROR] + total[EVENT_WRITE_ERROR]
      + total[EVENT_SPARE_ERROR] + total[EVENT_OTHER_ERROR] > 0)
    log_message (LEVEL_INFO,
                 "errors since the start: %" PRIu64 " reading, %" PRIu64
                 " writing, %" PRIu64 " of spares, %" PRIu64 " others",
                 total[EVENT_READ_ERROR], total[EVENT_WRITE_ERROR],
                 total[EVENT_SPARE_ERROR], total[EVENT_OTHER_ERROR]);
}

static void
finish_locked (struct worker *worker)
{
  while (drain_locked (worker, UINT64_MAX))
    ;
  health_verify (&worker->health);
  log_totals_locked (worker);
}

static void *
worker_main (void *opaque)
{
  struct worker *worker = opaque;
  struct ev_loop *loop = atomic_load (&worker->loop);
  LOCK_FOR_SCOPE (&worker->health_mutex);

  atomic_fetch_add (&worker->nr_posts, 1);      /* see worker_post */
  on_wake (loop, &worker->wake, 0);
  if (worker->guest.attach)
    worker->guest.attach (worker->guest.opaque, loop);

  ev_run (loop, 0);

  if (worker->guest.detach)
    worker->guest.detach (worker->guest.opaque, loop);
  finish_locked (worker);       /* W3 */
  return NULL;
}

/* libev looks at the clock once a minute, unless it has a periodic watcher:
 * then it has the kernel tell it when the clock is set, and sleeps on.  The
 * watcher itself is due in some thousand years.
 */
static void
sleep_soundly (struct worker *worker, struct ev_loop *loop)
{
  ev_periodic_init (&worker->never, on_never, 1e11, 0., NULL);
  ev_periodic_start (loop, &worker->never);
}

static struct ev_loop *
make_loop (struct worker *worker)
{
  struct ev_loop *loop = ev_loop_new (EVFLAG_AUTO | EVFLAG_NOENV);

  if (!loop) {
    set_error (errno ? errno : ENOMEM, "worker: no event loop can be made");
    return NULL;
  }
  ev_set_userdata (loop, worker);
  ev_set_loop_release_cb (loop, release_health, acquire_health);

  /* First of all that are due: what a client of the control socket asks after
   * an error sees the error.
   */
  ev_async_init (&worker->wake, on_wake);
  ev_set_priority (&worker->wake, EV_MAXPRI);
  ev_async_start (loop, &worker->wake);
  sleep_soundly (worker, loop);
  return loop;
}

int
worker_start (struct worker *worker)
{
  struct ev_loop *loop = make_loop (worker);
  int err;

  assert (!worker->started);
  if (!loop)
    return -1;
  atomic_store (&worker->loop, loop);
  err = thread_start (&worker->thread, worker_main, worker);
  if (err)
    /* worker_free destroys the loop: somebody may be posting to it. */
    return set_error (err, "worker: no thread can be made: %s",
                      errno_text (err));
  pthread_setname_np (worker->thread, "remap-worker");
  worker->started = true;
  return 0;
}

void
worker_free (struct worker *worker)
{
  struct ev_loop *loop;

  if (!worker)
    return;
  loop = atomic_load (&worker->loop);
  if (worker->started) {
    atomic_store (&worker->stopping, true);
    ev_async_send (loop, &worker->wake);
    pthread_join (worker->thread, NULL);
  }
  else {
    LOCK_FOR_SCOPE (&worker->health_mutex);
    finish_locked (worker);
  }
  if (loop)
    ev_loop_destroy (loop);
  event_queue_free (worker->queue);
  pthread_cond_destroy (&worker->hang_changed);
  lock_destroy (&worker->hang_mutex);
  lock_destroy (&worker->health_mutex);
  free (worker);
}

void
worker_hang (struct worker *worker)
{
  LOCK_FOR_SCOPE (&worker->hang_mutex);

  worker->hang_wanted = true;
  ev_async_send (atomic_load (&worker->loop), &worker->wake);
  while (!worker->hangs)
    lock_wait (&worker->hang_mutex, &worker->hang_changed);
}

void
worker_resume (struct worker *worker)
{
  LOCK_FOR_SCOPE (&worker->hang_mutex);

  worker->hang_wanted = false;
  pthread_cond_broadcast (&worker->hang_changed);
}
