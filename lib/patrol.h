/* SPDX-License-Identifier: BSD-3-Clause */
/* patrol: disk I/O in the background, on a thread of its own ("remap-patrol").
 *
 * Purpose:    while the disk does not answer (breaker.h), probe it once a second;
 *             afterwards, and after a burst of losses, read again what was
 *             called lost, and forget that of it which can be read.
 * Invariants: T1 A loss is forgotten only if the sector has been read from the
 *                disk since, is lost still, and its record is durably gone.
 *             T2 With nothing to do the thread sleeps.
 * Locking:    none of its own.
 */
#ifndef REMAP_PATROL_H
#define REMAP_PATROL_H

#include "engine.h"

struct patrol;

/* NULL: no memory.  Makes no thread, so that the process may still fork. */
extern struct patrol *patrol_new (struct engine *e);

/* After the last fork. */
extern int patrol_start (struct patrol *p);

/* Stop and join the thread, which may have to wait for the disk.  NULL is
 * allowed.
 */
extern void patrol_free (struct patrol *p);

/* Do what is due at a time, in the calling thread; returns when there is more to
 * do (UINT64_MAX: when something happens).  Times are of clock_now_ns.  For the
 * thread, and for tests, which need none, nor the patience.
 */
extern uint64_t patrol_step (struct patrol *p, uint64_t now_ns);

#endif /* REMAP_PATROL_H */
