/* SPDX-License-Identifier: BSD-3-Clause */
/* cleanup: scope guards.  Each keeps errno, so that an error path may end a
 * scope without losing its reason.
 */
#ifndef REMAP_CLEANUP_H
#define REMAP_CLEANUP_H

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void
cleanup_free (void *ptr)
{
  int saved = errno;

  free (*(void **) ptr);
  errno = saved;
}

static inline void
cleanup_close (int *fd)
{
  int saved = errno;

  if (*fd >= 0)
    close (*fd);
  errno = saved;
}

#define CLEANUP_FREE __attribute__ ((cleanup (cleanup_free)))
#define CLEANUP_CLOSE __attribute__ ((cleanup (cleanup_close)))

#endif /* REMAP_CLEANUP_H */
