/* SPDX-License-Identifier: BSD-3-Clause */
/* rcu: userspace RCU (liburcu-bp) for readers without locks.
 *
 * The "bulletproof" flavour, because the threads that read are nbdkit's and
 * register themselves nowhere.  Pointers are published with C11 atomics;
 * liburcu gives the grace periods only.  ThreadSanitizer cannot see into
 * liburcu, so the order that a grace period makes is told to it here.
 */
#ifndef REMAP_RCU_H
#define REMAP_RCU_H

#include <urcu-bp.h>

#if defined(__SANITIZE_THREAD__)
#define RCU_TSAN 1
#elif defined(__has_feature)
#if __has_feature (thread_sanitizer)
#define RCU_TSAN 1
#endif
#endif

#ifdef RCU_TSAN
extern void __tsan_acquire (void *addr);
extern void __tsan_release (void *addr);
#define RCU_ANNOTATE(what, addr) __tsan_##what (addr)
#else
#define RCU_ANNOTATE(what, addr) ((void) (addr))
#endif

static inline void
rcu_enter (void)
{
  urcu_bp_read_lock ();
}

static inline void
rcu_leave (void *domain)
{
  RCU_ANNOTATE (release, domain);
  urcu_bp_read_unlock ();
}

/* Wait until every reader that is inside now has left. */
static inline void
rcu_wait_for_readers (void *domain)
{
  urcu_bp_synchronize_rcu ();
  RCU_ANNOTATE (acquire, domain);
}

#endif /* REMAP_RCU_H */
