/* SPDX-License-Identifier: BSD-3-Clause */
/* t_ctl: remapctl, and the control socket itself. */

#ifndef REMAP_T_CTL_H
#define REMAP_T_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/* Run "remapctl COMMAND --json DISK"; it must succeed and print one JSON
 * value, which is the caller's.  DISK: a disk, store or control socket.
 */
json_t *t_ctl_json (const char *command, const char *disk);

/* Run "remapctl COMMAND DISK": its exit status, and what it printed. */
int t_ctl (const char *command, const char *disk, char **ret_output);

/* Run "remapctl WORDS", split at spaces: its exit status, what it printed, and
 * what it said on stderr (may be NULL).
 */
int t_ctl_run (const char *words, char **ret_output, char **ret_error);

/* How many sectors of this state ("remapped", "lost") are listed? */
uint64_t t_ctl_count (const char *disk, const char *state);

/* The state of this sector as listed; "" if it is not. */
const char *t_ctl_state_of (const char *disk, uint64_t lba);

/* A number of "remapctl status --json", by a path such as "errors.write".
 * Fails the test where there is none.
 */
int64_t t_ctl_status (const char *disk, const char *path);

/* The store must be sound: "remapctl check". */
void t_ctl_check (const char *store);

/* Connect to a control socket; returns a file descriptor or -1. */
int t_control_connect (const char *path);

/* Send bytes as they are. */
void t_control_send (int fd, const void *data, size_t count);

/* The next line, at most limit_ms (times t_scale) from now; NULL where the
 * server closed the connection.  Fails the test when the time is over.
 */
char *t_control_line (int fd, unsigned limit_ms);

/* The next line must be JSON; it is the caller's. */
json_t *t_control_answer (int fd);

#endif /* REMAP_T_CTL_H */
