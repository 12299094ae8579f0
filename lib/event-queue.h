/* SPDX-License-Identifier: BSD-3-Clause */
/* event-queue: bounded queue of events, many producers, one consumer.
 *
 * Purpose:    I/O threads tell the worker what they met, without ever
 *             waiting for it.
 * Invariants: Q1 event_queue_push never waits, whatever the consumer and the
 *                other producers do, and never fails.
 *             Q2 Nothing is lost: an event that finds the queue full is
 *                counted, by region and kind.  Pushed = popped + counted.
 * Locking:    none.  push: any thread; pop and take_counts: one thread.
 * Source:     slots with sequence numbers after D. Vyukov, "Bounded MPMC
 *             queue", 2010 (1024cores.net).
 */
#ifndef REMAP_EVENT_QUEUE_H
#define REMAP_EVENT_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "event.h"

struct event_queue;

/* capacity is a power of two, at least 2.  NULL with the error set: no
 * memory.
 */
extern struct event_queue *event_queue_new (size_t capacity,
                                            unsigned nr_regions);
extern void event_queue_free (struct event_queue *q);

/* region: where to count the event if the queue is full. */
extern void event_queue_push (struct event_queue *q,
                              const struct event *event, unsigned region);
extern bool event_queue_pop (struct event_queue *q, struct event *ret);

/* Take (and reset) the counts of events that found the queue full. */
typedef void event_queue_count_fn (void *opaque, unsigned region,
                                   enum event_kind kind, uint64_t count);
extern void event_queue_take_counts (struct event_queue *q,
                                     event_queue_count_fn *fn, void *opaque);

#endif /* REMAP_EVENT_QUEUE_H */
