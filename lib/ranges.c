/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "error.h"
#include "lock.h"
#include "ranges.h"

enum slot_state {
  SLOT_FREE = 0,
  SLOT_CLAIMED,                 /* first and last are being filled in */
  SLOT_ACTIVE,                  /* a writer is inside */
};

/* One cache line each. */
struct range_slot {
  _Atomic int state;
  _Atomic uint64_t first, last;
} __attribute__ ((aligned (64)));

#define SLOTS_PER_BLOCK 64

/* Blocks are added when all slots are in use, and never removed. */
struct block {
  struct range_slot slots[SLOTS_PER_BLOCK];
  _Atomic (struct block *) next;
};

struct ranges {
  struct block first_block;
  _Atomic unsigned nr_locks;    /* exclusive owners and those who wait to be */
  struct lock mutex;
  /* Under mutex: */
  pthread_cond_t changed;
  struct range_lock *locks;     /* exclusive owners */
};

struct ranges *
ranges_new (void)
{
  struct ranges *r = aligned_alloc (64, sizeof *r);

  if (r == NULL) {
    set_error (ENOMEM, "no memory for the range lock");
    return NULL;
  }
  *r = (struct ranges) { .locks = NULL };
  lock_init (&r->mutex, RANK_LEAF);
  pthread_cond_init (&r->changed, NULL);
  return r;
}

void
ranges_free (struct ranges *r)
{
  struct block *b, *next;

  if (r == NULL)
    return;
  for (b = atomic_load (&r->first_block.next); b; b = next) {
    next = atomic_load (&b->next);
    free (b);
  }
  pthread_cond_destroy (&r->changed);
  lock_destroy (&r->mutex);
  free (r);
}

static bool
overlaps (uint64_t first, uint64_t last, uint64_t first2, uint64_t last2)
{
  return first <= last2 && first2 <= last;
}

/* Where this thread looks first. */
static unsigned
home_slot (void)
{
  static _Atomic unsigned nr_threads;
  static _Thread_local unsigned home;

  if (home == 0)
    home = 1 + atomic_fetch_add (&nr_threads, 1) % SLOTS_PER_BLOCK;
  return home - 1;
}

static struct range_slot *
claim_in_block (struct block *b)
{
  unsigned home = home_slot ();

  for (unsigned i = 0; i < SLOTS_PER_BLOCK; i++) {
    struct range_slot *slot = &b->slots[(home + i) % SLOTS_PER_BLOCK];
    int expected = SLOT_FREE;

    if (atomic_load_explicit (&slot->state, memory_order_relaxed) == SLOT_FREE
        && atomic_compare_exchange_strong (&slot->state, &expected,
                                           SLOT_CLAIMED))
      return slot;
  }
  return NULL;
}

/* Add a block behind b, or find the one that another thread has added.
 * NULL: no memory; the caller tries all slots again, one gets free in time.
 */
static struct block *
next_block (struct ranges *r, struct block *b)
{
  struct block *next = atomic_load (&b->next), *expected = NULL;

  if (next)
    return next;
  next = aligned_alloc (64, sizeof *next);
  if (next == NULL)
    return &r->first_block;
  *next = (struct block) { .next = NULL };
  if (atomic_compare_exchange_strong (&b->next, &expected, next))
    return next;
  free (next);
  return expected;
}

static struct range_slot *
claim_slot (struct ranges *r)
{
  struct block *b = &r->first_block;
  struct range_slot *slot;

  while ((slot = claim_in_block (b)) == NULL)
    b = next_block (r, b);
  return slot;
}

static bool
is_locked (const struct ranges *r, uint64_t first, uint64_t last)
{
  for (const struct range_lock *l = r->locks; l; l = l->next)
    if (overlaps (l->first, l->last, first, last))
      return true;
  return false;
}

/* Wake whoever waits; called after state that they wait for has changed. */
static void
wake (struct ranges *r)
{
  LOCK_FOR_SCOPE (&r->mutex);
  pthread_cond_broadcast (&r->changed);
}

static void
leave_slot (struct ranges *r, struct range_slot *slot)
{
  atomic_store (&slot->state, SLOT_FREE);
  if (atomic_load (&r->nr_locks) > 0)
    wake (r);
}

struct range_slot *
ranges_enter (struct ranges *r, lba_t lba, uint64_t nr_sectors)
{
  uint64_t first = lba.n, last = lba.n + nr_sectors - 1;
  struct range_slot *slot;

  lock_note_acquired (RANK_RANGE);
  for (;;) {
    slot = claim_slot (r);
    atomic_store_explicit (&slot->first, first, memory_order_relaxed);
    atomic_store_explicit (&slot->last, last, memory_order_relaxed);
    atomic_store (&slot->state, SLOT_ACTIVE);   /* ... before this load: */
    if (atomic_load (&r->nr_locks) == 0)
      return slot;

    lock_acquire (&r->mutex);
    if (!is_locked (r, first, last)) {
      lock_release (&r->mutex);
      return slot;
    }
    atomic_store (&slot->state, SLOT_FREE);
    pthread_cond_broadcast (&r->changed);
    while (is_locked (r, first, last))
      lock_wait (&r->mutex, &r->changed);
    lock_release (&r->mutex);
  }
}

void
ranges_leave (struct ranges *r, struct range_slot *slot)
{
  leave_slot (r, slot);
  lock_note_released (RANK_RANGE);
}

static bool
has_writer (struct ranges *r, uint64_t first, uint64_t last)
{
  for (struct block *b = &r->first_block; b; b = atomic_load (&b->next))
    for (unsigned i = 0; i < SLOTS_PER_BLOCK; i++)
      if (atomic_load (&b->slots[i].state) == SLOT_ACTIVE &&
          overlaps (atomic_load (&b->slots[i].first),
                    atomic_load (&b->slots[i].last), first, last))
        return true;
  return false;
}

static void
add_lock (struct ranges *r, struct range_lock *lock)
{
  lock->next = r->locks;
  r->locks = lock;
  atomic_fetch_add (&r->nr_locks, 1);
}

static void
remove_lock (struct ranges *r, const struct range_lock *lock)
{
  struct range_lock **p;

  for (p = &r->locks; *p != lock; p = &(*p)->next)
    assert (*p);
  *p = lock->next;
  atomic_fetch_sub (&r->nr_locks, 1);
  pthread_cond_broadcast (&r->changed);
}

void
ranges_lock (struct ranges *r, struct range_lock *lock, lba_t lba,
             uint64_t nr_sectors)
{
  lock->first = lba.n;
  lock->last = lba.n + nr_sectors - 1;
  lock_note_acquired (RANK_RANGE);

  LOCK_FOR_SCOPE (&r->mutex);
  while (is_locked (r, lock->first, lock->last))
    lock_wait (&r->mutex, &r->changed);
  add_lock (r, lock);           /* ... before this look: */
  while (has_writer (r, lock->first, lock->last))
    lock_wait (&r->mutex, &r->changed);
}

void
ranges_unlock (struct ranges *r, struct range_lock *lock)
{
  ranges_unlock_tried (r, lock);
  lock_note_released (RANK_RANGE);
}

bool
ranges_try_lock (struct ranges *r, struct range_lock *lock, lba_t lba,
                 uint64_t nr_sectors)
{
  lock->first = lba.n;
  lock->last = lba.n + nr_sectors - 1;

  LOCK_FOR_SCOPE (&r->mutex);
  if (is_locked (r, lock->first, lock->last))
    return false;
  add_lock (r, lock);           /* ... before this look: */
  if (!has_writer (r, lock->first, lock->last))
    return true;
  remove_lock (r, lock);
  return false;
}

void
ranges_unlock_tried (struct ranges *r, struct range_lock *lock)
{
  LOCK_FOR_SCOPE (&r->mutex);
  remove_lock (r, lock);
}

bool
ranges_is_busy (struct ranges *r, lba_t lba, uint64_t nr_sectors)
{
  uint64_t first = lba.n, last = lba.n + nr_sectors - 1;

  if (has_writer (r, first, last))
    return true;
  if (atomic_load (&r->nr_locks) == 0)
    return false;
  LOCK_FOR_SCOPE (&r->mutex);
  return is_locked (r, first, last);
}
