/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <signal.h>

#include "thread.h"

int
thread_start (pthread_t *ret, void *(*fn) (void *), void *opaque)
{
  sigset_t all, before;
  int err;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  err = pthread_create (ret, NULL, fn, opaque);
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  return err;
}
