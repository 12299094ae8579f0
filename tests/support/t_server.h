/* SPDX-License-Identifier: BSD-3-Clause */
/* t_server: the server under test, nbdkit with the plugin.
 *
 * Purpose: starts it as a process of its own, kills it, stops it, starts it
 *   again.  Each way of ending checks the exit status, and that what the
 *   server wrote to stderr has no report of a sanitizer or of valgrind.
 * Environment: NBDKIT, the nbdkit to use.  REMAP_TEST_PRELOAD, a sanitizer's
 *   library for its LD_PRELOAD.  REMAP_TEST_VALGRIND, 1 or a command with
 *   options: run it under valgrind.
 * Parameters: a printf format whose result is split at spaces, all of it
 *   arguments to nbdkit ("-r backing=%s retries=2").
 */

#ifndef REMAP_T_SERVER_H
#define REMAP_T_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct t_server {
  char *socket;
  char *pid_file;
  char *params;
  char *log;                    /* stderr of the present or latest run */
  pid_t pid;                    /* 0: not running */
  struct t_server *next;        /* all servers, for messages */
};

struct t_server *t_server_start (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2)));

/* Start it again, after it was stopped or killed; the second with other
 * parameters.
 */
void t_server_restart (struct t_server *s);
void t_server_restart_with (struct t_server *s, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));

/* kill -9.  The server must have been alive until now. */
void t_server_kill (struct t_server *s);

/* It was sent SIGKILL by others: reap it. */
void t_server_was_killed (struct t_server *s);

/* SIGTERM; must exit with status 0.  Clients must have disconnected: nbdkit
 * waits for them.
 */
void t_server_stop (struct t_server *s);

bool t_server_is_alive (const struct t_server *s);

/* Is this said in the log of the present or latest run? */
bool t_server_has_said (const struct t_server *s, const char *text);

/* Try to start a server that must refuse: it exits non-zero before it forks
 * to the background, having said one line, which is returned.
 */
char *t_server_refusal (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2)));

#endif /* REMAP_T_SERVER_H */
