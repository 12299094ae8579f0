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

#include <stdlib.h>

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

struct rcu_retired {
  struct rcu_head head;
  void *ptr, *domain;
};

static inline void
rcu_free_retired (struct rcu_head *head)
{
  struct rcu_retired *r = caa_container_of (head, struct rcu_retired, head);

  RCU_ANNOTATE (acquire, r);
  RCU_ANNOTATE (acquire, r->domain);
  free (r->ptr);
  free (r);
}

/* Free ptr when every reader that is inside now has left.  Waits for nobody: a
 * thread of liburcu's does, so a reader that has stopped for ever costs memory
 * and no more.  domain is but an address, and may be gone by then.  (Without memory to note it, ptr is never freed.)
 */
static inline void
rcu_free_later (void *ptr, void *domain)
{
  struct rcu_retired *r = malloc (sizeof *r);

  if (r == NULL)
    return;
  r->ptr = ptr;
  r->domain = domain;
  RCU_ANNOTATE (release, r);
  urcu_bp_call_rcu (&r->head, rcu_free_retired);
}

#endif /* REMAP_RCU_H */
