/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lock.h"

#ifndef NDEBUG

/* Bit r is set while this thread holds a lock of rank r. */
static _Thread_local uint64_t ranks_held;

void
lock_note_acquired (enum lock_rank rank)
{
  if (ranks_held >> rank) {
    fprintf (stderr, "libremap: bug: lock of rank %d taken with %#llx held\n",
             (int) rank, (unsigned long long) ranks_held);
    abort ();
  }
  ranks_held |= UINT64_C (1) << rank;
}

void
lock_note_released (enum lock_rank rank)
{
  ranks_held &= ~(UINT64_C (1) << rank);
}

bool
lock_rank_is_held (enum lock_rank rank)
{
  return (ranks_held >> rank) & 1;
}

#else

void lock_note_acquired (enum lock_rank rank) { (void) rank; }
void lock_note_released (enum lock_rank rank) { (void) rank; }
bool lock_rank_is_held (enum lock_rank rank) { (void) rank; return true; }

#endif

void
lock_init (struct lock *lock, enum lock_rank rank)
{
  pthread_mutex_init (&lock->mutex, NULL);
  lock->rank = rank;
}

void
lock_destroy (struct lock *lock)
{
  pthread_mutex_destroy (&lock->mutex);
}

void
lock_acquire (struct lock *lock)
{
  lock_note_acquired (lock->rank);
  pthread_mutex_lock (&lock->mutex);
}

/* Keeps errno, so that a scope guard does not spoil it. */
void
lock_release (struct lock *lock)
{
  int saved = errno;

  pthread_mutex_unlock (&lock->mutex);
  lock_note_released (lock->rank);
  errno = saved;
}

/* Before a wait.  The rank is taken again before it, so that a violation (L1)
 * shows even where nobody wakes this thread.
 */
static void
note_wait (const struct lock *lock)
{
  lock_note_released (lock->rank);
  lock_note_acquired (lock->rank);
  lock_note_released (lock->rank);
}

void
lock_wait (struct lock *lock, pthread_cond_t *cond)
{
  note_wait (lock);
  pthread_cond_wait (cond, &lock->mutex);
  lock_note_acquired (lock->rank);
}

bool
lock_wait_until (struct lock *lock, pthread_cond_t *cond, uint64_t until_ns)
{
  const struct timespec until = {
    .tv_sec = (time_t) (until_ns / 1000000000),
    .tv_nsec = (long) (until_ns % 1000000000),
  };
  int r;

  note_wait (lock);
  r = pthread_cond_timedwait (cond, &lock->mutex, &until);
  lock_note_acquired (lock->rank);
  return r != ETIMEDOUT;
}

void
lock_cond_init (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}
