/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "checked.h"
#include "error.h"
#include "event-queue.h"

/* A position counts up for ever; its slot is position % capacity.
 *
 * turn says whose turn it is with a slot: == position, free for the producer
 * of that position; == position + 1, filled, for the consumer; the consumer
 * leaves position + capacity, free for the next round.  A producer that is
 * preempted before it has filled its slot holds up the consumer there, and
 * nobody else: other producers take the slots behind it, or count.
 */
struct slot {
  _Atomic uint64_t turn;
  struct event event;
};

#define CACHE_LINE_BYTES 64

struct event_queue {
  size_t capacity;
  unsigned nr_regions;
  struct slot *slots;
  _Atomic uint64_t *counts;     /* [region * NR_EVENT_KINDS + kind] */

  char pad0[CACHE_LINE_BYTES];
  _Atomic uint64_t push_position;       /* producers */
  char pad1[CACHE_LINE_BYTES];
  uint64_t pop_position;                /* consumer */
  char pad2[CACHE_LINE_BYTES];
  atomic_bool has_counts;               /* both */
};

struct event_queue *
event_queue_new (size_t capacity, unsigned nr_regions)
{
  struct event_queue *q = calloc (1, sizeof *q);

  /* One slot could not tell "filled" from "free for the next round". */
  assert (capacity >= 2 && is_power_of_2 (capacity));
  if (!q)
    goto err;
  q->capacity = capacity;
  q->nr_regions = nr_regions;
  q->slots = calloc (capacity, sizeof *q->slots);
  q->counts = calloc ((size_t) nr_regions * NR_EVENT_KINDS,
                      sizeof *q->counts);
  if (!q->slots || !q->counts)
    goto err;
  for (size_t i = 0; i < capacity; i++)
    atomic_init (&q->slots[i].turn, i);
  return q;

 err:
  event_queue_free (q);
  set_error (ENOMEM, "event queue: no memory");
  return NULL;
}

void
event_queue_free (struct event_queue *q)
{
  if (!q)
    return;
  free (q->slots);
  free (q->counts);
  free (q);
}

/* Claim a free slot; NULL if the queue is full.  A lost race means that
 * another producer has got on; the bound on the number of races makes even
 * that wait-free (Q1).
 */
static struct slot *
claim_slot (struct event_queue *q, uint64_t *ret_position)
{
  uint64_t position =
    atomic_load_explicit (&q->push_position, memory_order_relaxed);

  for (int races = 0; races < 64; races++) {
    struct slot *slot = &q->slots[position & (q->capacity - 1)];
    uint64_t turn = atomic_load_explicit (&slot->turn, memory_order_acquire);

    if (turn < position)
      return NULL;              /* still filled from the round before */
    if (turn > position)        /* somebody else was faster */
      position = atomic_load_explicit (&q->push_position,
                                       memory_order_relaxed);
    else if (atomic_compare_exchange_weak_explicit (&q->push_position,
                                                    &position, position + 1,
                                                    memory_order_relaxed,
                                                    memory_order_relaxed)) {
      *ret_position = position;
      return slot;
    }
  }
  return NULL;
}

/* Count, then say so.  Saying it with a read-modify-write (here an exchange)
 * keeps the release sequence: the consumer that takes the word sees the
 * counts of every producer that said it.
 */
static void
count_event (struct event_queue *q, unsigned region, enum event_kind kind)
{
  size_t i = (size_t) region * NR_EVENT_KINDS + kind;

  atomic_fetch_add_explicit (&q->counts[i], 1, memory_order_relaxed);
  atomic_exchange_explicit (&q->has_counts, true, memory_order_release);
}

void
event_queue_push (struct event_queue *q, const struct event *event,
                  unsigned region)
{
  uint64_t position;
  struct slot *slot = claim_slot (q, &position);

  assert (region < q->nr_regions);
  if (!slot) {
    count_event (q, region, event->kind);       /* Q2 */
    return;
  }
  slot->event = *event;
  atomic_store_explicit (&slot->turn, position + 1, memory_order_release);
}

bool
event_queue_pop (struct event_queue *q, struct event *ret)
{
  struct slot *slot = &q->slots[q->pop_position & (q->capacity - 1)];

  if (atomic_load_explicit (&slot->turn, memory_order_acquire)
      != q->pop_position + 1)
    return false;
  *ret = slot->event;
  atomic_store_explicit (&slot->turn, q->pop_position + q->capacity,
                         memory_order_release);
  q->pop_position++;
  return true;
}

void
event_queue_take_counts (struct event_queue *q, event_queue_count_fn *fn,
                         void *opaque)
{
  /* An exchange costs more than a look, and mostly there is nothing. */
  if (!atomic_load_explicit (&q->has_counts, memory_order_relaxed))
    return;
  atomic_exchange_explicit (&q->has_counts, false, memory_order_acquire);

  for (unsigned region = 0; region < q->nr_regions; region++)
    for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++) {
      _Atomic uint64_t *count = &q->counts[region * NR_EVENT_KINDS + kind];
      uint64_t n = 0;

      if (atomic_load_explicit (count, memory_order_relaxed) > 0)
        n = atomic_exchange_explicit (count, 0, memory_order_relaxed);
      if (n > 0)
        fn (opaque, region, (enum event_kind) kind, n);
    }
}
