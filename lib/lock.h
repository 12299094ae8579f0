/* SPDX-License-Identifier: BSD-3-Clause */
/* lock: ranked mutexes.
 *
 * Purpose:    every mutex of the library, with a rank; locks are taken in
 *             ascending rank only, and a thread can tell what it holds.
 * Invariants: L1 A thread that takes a lock holds none of the same or a
 *                higher rank.  (Checked in builds without NDEBUG: a violation
 *                is a bug that can hang, so it aborts.)
 *
 *   rank  lock                      protects                    I/O while held
 *   10    range, exclusive          one range of sectors        yes
 *   20    store commit mutex        the store on disk           metadata only
 *   25    flush mutex (store)       who flushes, and for whom   never
 *   30    map mutex                 changes of map and spares   never
 *   40    health mutex (worker.c)   error counters, watchers    never
 *   44    parts of blocks (dev-nbd) who writes a part of one    its read, write
 *   45    flush of a device (dev.c) who flushes it             its flush
 *   48    NBD link (nbd-link.c)     connections, requests       never waits
 *   50    leaf (ranges, log, ...)   own fields; calls nothing   never
 *
 * The range lock (ranges.c) is no mutex, but counts with rank 10.
 */
#ifndef REMAP_LOCK_H
#define REMAP_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
  RANK_RANGE = 10,
  RANK_COMMIT = 20,
  RANK_FLUSH = 25,
  RANK_MAP = 30,
  RANK_HEALTH = 40,
  RANK_DEV_PARTS = 44,
  RANK_DEV_FLUSH = 45,
  RANK_NBD_LINK = 48,
  RANK_LEAF = 50,
};

struct lock {
  pthread_mutex_t mutex;
  enum lock_rank rank;
};

extern void lock_init (struct lock *lock, enum lock_rank rank);
extern void lock_destroy (struct lock *lock);
extern void lock_acquire (struct lock *lock);
extern void lock_release (struct lock *lock);

/* Wait on cond; the lock is held before and after, not between. */
extern void lock_wait (struct lock *lock, pthread_cond_t *cond);

/* The same, but not longer than until CLOCK_MONOTONIC is until_ns: false then.
 * cond is one of lock_cond_init.
 */
extern bool lock_wait_until (struct lock *lock, pthread_cond_t *cond,
                             uint64_t until_ns);
extern void lock_cond_init (pthread_cond_t *cond);

/* Does this thread hold a lock of that rank?  Always true with NDEBUG. */
extern bool lock_rank_is_held (enum lock_rank rank);

/* For range locks, which are no mutexes. */
extern void lock_note_acquired (enum lock_rank rank);
extern void lock_note_released (enum lock_rank rank);

static inline void
cleanup_lock_release (struct lock **lock)
{
  if (*lock)
    lock_release (*lock);
}

#define LOCK_CONCAT_(a, b) a##b
#define LOCK_CONCAT(a, b) LOCK_CONCAT_ (a, b)

/* Hold the lock until the end of the scope. */
#define LOCK_FOR_SCOPE(l)                                                  \
  __attribute__ ((cleanup (cleanup_lock_release), unused))                    \
  struct lock *LOCK_CONCAT (scope_lock_, __LINE__) = (l);                     \
  lock_acquire (LOCK_CONCAT (scope_lock_, __LINE__))

#endif /* REMAP_LOCK_H */
