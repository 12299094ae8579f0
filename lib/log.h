/* SPDX-License-Identifier: BSD-3-Clause */
/* log: messages for people, handed to the callback of whoever uses the
 * library; without one they go nowhere.  Safe from any thread; keeps errno.
 */
#ifndef REMAP_LOG_H
#define REMAP_LOG_H

#include <stdarg.h>
#include <stdbool.h>

/* The same numbers as enum remap_log_level in remap.h. */
enum log_level {
  LEVEL_ERROR = 0,              /* something failed or was lost */
  LEVEL_WARNING = 1,            /* worth a look */
  LEVEL_INFO = 2,               /* state changes */
  LEVEL_DEBUG = 3,              /* every request that went wrong */
};

typedef void log_fn (int level, const char *message);

extern void log_set_callback (log_fn *fn);
extern void log_message (enum log_level level, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

/* The same for what a failing disk can cause by the thousand: after a burst of
 * 20 it says only five a second, and how many it left out.
 */
extern void log_limited (enum log_level level, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

#endif /* REMAP_LOG_H */
