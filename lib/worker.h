/* SPDX-License-Identifier: BSD-3-Clause */
/* worker: the libev loop, on a thread of its own ("remap-worker").
 *
 * Purpose:    drain the event queue into the health counters, publish a
 *             snapshot of them, and run whoever else lives on the loop
 *             (the control socket).  It never does disk I/O.
 * Invariants: W1 The health mutex is taken in worker.c alone, and by the
 *                worker's thread alone; it is held while callbacks of the
 *                loop run, and not while the loop waits.  (Where no thread
 *                was ever started, worker_free stands in for it.)
 *             W2 worker_post waits for nothing: with the worker stopped at any
 *                instruction, for ever, I/O goes on.
 *             W3 Events posted before worker_free are analysed before it
 *                returns.
 *             W4 worker_get_snapshot returns whatever the worker does or does
 *                not do, and the worker waits for no reader.
 * Locking:    health mutex, rank 40.  The event queue and the snapshot are
 *             free of locks.
 */
#ifndef REMAP_WORKER_H
#define REMAP_WORKER_H

#include "event.h"
#include "health.h"

struct ev_loop;
struct worker;

/* Somebody who lives on the loop: called on the worker's thread with the
 * health mutex held, attach before the first event, detach after the last.
 */
struct worker_guest {
  void (*attach) (void *opaque, struct ev_loop *loop);
  void (*detach) (void *opaque, struct ev_loop *loop);
  void *opaque;
};

/* Makes no thread, so that the process may still fork.  guest may be NULL.
 * NULL with the error set: no memory.
 */
extern struct worker *worker_new (uint64_t nr_sectors,
                                  const struct worker_guest *guest);

/* Start the thread; after the last fork. */
extern int worker_start (struct worker *worker);

/* Stop and join the thread (if started), analyse what is still queued.  No
 * other call may be under way.  NULL is allowed.
 */
extern void worker_free (struct worker *worker);

/* Any thread, also before worker_start.  Never waits, never loses a count. */
extern void worker_post (struct worker *worker, const struct event *event);

/* The last published snapshot.  Any thread; never waits for the worker. */
extern void worker_get_snapshot (struct worker *worker,
                                 struct health_snapshot *ret);

/* For the tests, on a worker that was started: hold the health mutex on the
 * worker's own thread until worker_resume, as a worker would that hangs.
 * worker_hang returns when the worker hangs.
 */
extern void worker_hang (struct worker *worker);
extern void worker_resume (struct worker *worker);

#endif /* REMAP_WORKER_H */
