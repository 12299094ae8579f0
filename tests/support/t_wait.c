/* SPDX-License-Identifier: BSD-3-Clause */
/* t_wait: wait for a condition, with a deadline; never for a time. */

#include <config.h>

#include <sys/stat.h>
#include <time.h>

#include "t_base.h"
#include "t_wait.h"

uint64_t
t_now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

bool
t_wait_for (bool (*cond) (void *arg), void *arg, unsigned limit_ms)
{
  const uint64_t deadline = t_now_ms () + (uint64_t) limit_ms * t_scale ();
  struct timespec pause = { .tv_nsec = 500000 };

  while (!cond (arg)) {
    if (t_now_ms () > deadline)
      return false;
    nanosleep (&pause, NULL);
    if (pause.tv_nsec < 10000000)
      pause.tv_nsec += pause.tv_nsec / 2;
  }
  return true;
}

void
t_wait_until (bool (*cond) (void *arg), void *arg, unsigned limit_ms,
              const char *what)
{
  if (!t_wait_for (cond, arg, limit_ms))
    T_FAIL ("waited %u ms in vain for: %s", limit_ms * t_scale (), what);
}

bool
t_file_is_filled (void *path)
{
  struct stat st;

  return stat (path, &st) == 0 && st.st_size > 0;
}
