/* SPDX-License-Identifier: BSD-3-Clause */
/* error: the last error of this thread, a number and a sentence.
 *
 * Set once, where the error arises; whoever passes -1 upward stays silent.
 */
#ifndef REMAP_ERROR_H
#define REMAP_ERROR_H

/* Set the thread's error and errno.  Always returns -1, so that
 * `return set_error (EINVAL, "...")` reads well.
 */
extern int set_error (int err, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

extern const char *last_error_text (void);
extern int last_error_errno (void);

/* As strerror (3), which is not safe in threads, and whose translations take
 * locks of the C library.
 */
extern const char *errno_text (int err);

#endif /* REMAP_ERROR_H */
