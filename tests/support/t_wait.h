/* SPDX-License-Identifier: BSD-3-Clause */
/* t_wait: wait for a condition, with a deadline; never for a time. */

#ifndef REMAP_T_WAIT_H
#define REMAP_T_WAIT_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds of a clock that only goes forward. */
uint64_t t_now_ms (void);

/* Wait until cond (arg) is true; false after limit_ms (times t_scale). */
bool t_wait_for (bool (*cond) (void *arg), void *arg, unsigned limit_ms);

/* The same; where the time runs out the test fails, naming what it waited
 * for.
 */
void t_wait_until (bool (*cond) (void *arg), void *arg, unsigned limit_ms,
                   const char *what);

/* Wait until the file exists and is not empty. */
bool t_file_is_filled (void *path);

#endif /* REMAP_T_WAIT_H */
