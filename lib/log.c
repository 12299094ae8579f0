/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "clock.h"
#include "log.h"

static _Atomic (log_fn *) log_callback;

void
log_set_callback (log_fn *fn)
{
  atomic_store (&log_callback, fn);
}

static void
log_va (enum log_level level, const char *fmt, va_list args)
{
  log_fn *fn = atomic_load (&log_callback);
  char text[1024];

  if (fn == NULL)
    return;
  vsnprintf (text, sizeof text, fmt, args);
  fn (level, text);
}

void
log_message (enum log_level level, const char *fmt, ...)
{
  int saved = errno;
  va_list args;

  va_start (args, fmt);
  log_va (level, fmt, args);
  va_end (args);
  errno = saved;
}

#define BURST 20
#define NS_PER_MESSAGE 200000000

/* A bucket of tokens for each level, as the time up to which they are used up.  Returns
 * whether there is one left; *ret_left_out then is how many were refused.
 */
static bool
may_speak (enum log_level level, unsigned *ret_left_out)
{
  static _Atomic uint64_t used_up_until[LEVEL_DEBUG + 1];
  static _Atomic unsigned left_out[LEVEL_DEBUG + 1];
  const uint64_t burst_ns = (uint64_t) BURST * NS_PER_MESSAGE;
  uint64_t now_ns, was, next;
  now_ns = clock_now_ns () + burst_ns;
  was = atomic_load (&used_up_until[level]);
  do {
    next = (was < now_ns - burst_ns ? now_ns - burst_ns : was)
      + NS_PER_MESSAGE;
    if (next > now_ns) {
      atomic_fetch_add (&left_out[level], 1);
      return false;
    }
  } while (!atomic_compare_exchange_weak (&used_up_until[level], &was, next));
  *ret_left_out = atomic_exchange (&left_out[level], 0);
  return true;
}

void
log_limited (enum log_level level, const char *fmt, ...)
{
  int saved = errno;
  unsigned left_out;
  va_list args;

  if (may_speak (level, &left_out)) {
    if (left_out > 0)
      log_message (level, "(%u messages like the next one were left out)",
                   left_out);
    va_start (args, fmt);
    log_va (level, fmt, args);
    va_end (args);
  }
  errno = saved;
}
