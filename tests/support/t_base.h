/* SPDX-License-Identifier: BSD-3-Clause */
/* t_base: what every test needs: a verdict, a directory, child processes.
 *
 * Purpose:    a test is a program of its own.  It begins with t_begin, ends
 *             with t_end, and in between fails (T_FAIL, T_ASSERT: exit 1) or
 *             is skipped (t_skip: exit 77 and a line naming what is missing;
 *             with REMAP_TEST_STRICT=1 a skip is a failure).
 * Clean-up:   t_begin starts a janitor, a process that outlives the test.
 *             When the test ends in whatever way, SIGKILL included, the
 *             janitor kills what t_spawn started and is still there, unmounts
 *             what t_janitor_mount named, and removes the directory (kept
 *             with REMAP_TEST_KEEP=1).
 * Time:       a test that takes longer than it may is ended by SIGALRM.
 *             Under sanitizers and valgrind all limits are longer (t_scale).
 * Threads:    t_spawn is for the main thread only: a child is killed when the
 *             thread that started it ends.  T_FAIL is for any thread.
 */

#ifndef REMAP_T_BASE_H
#define REMAP_T_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define T_PRINTF(f, a) __attribute__ ((__format__ (__printf__, f, a)))

/* Start the test.  limit_s: how many seconds it may take (times t_scale). */
void t_begin (const char *name, unsigned limit_s);

/* The test has passed (or, if all of its parts were skipped, is skipped). */
int t_end (void);

/* One part of the test begins: named in messages from here on. */
void t_part (const char *fmt, ...) T_PRINTF (1, 2);

/* The whole test, or only this part, cannot be run here.  t_skip_part returns:
 * the caller goes on with its next part.
 */
void t_skip (const char *fmt, ...) T_PRINTF (1, 2)
  __attribute__ ((__noreturn__));
void t_skip_part (const char *fmt, ...) T_PRINTF (1, 2);

void t_note (const char *fmt, ...) T_PRINTF (1, 2);

void t_fail_at (const char *file, int line, const char *fmt, ...)
  T_PRINTF (3, 4) __attribute__ ((__noreturn__));
#define T_FAIL(...) t_fail_at (__FILE__, __LINE__, __VA_ARGS__)
#define T_ASSERT(cond)                                                  \
  ((cond) ? (void) 0 : t_fail_at (__FILE__, __LINE__, "not true: %s", #cond))

/* Called by t_fail_at after its message, to show more (a server's log). */
void t_on_fail (void (*show) (void));

/* How much longer than usual everything may take here: 1, or more. */
unsigned t_scale (void);

/* Strings that live until the test ends. */
char *t_str (const char *fmt, ...) T_PRINTF (1, 2);

/* A path in the directory of this test. */
char *t_path (const char *fmt, ...) T_PRINTF (1, 2);

/* A path in the build tree: REMAP_BUILDDIR or abs_top_builddir, else the
 * directory above the current one.
 */
char *t_built (const char *relative);

/* What is tested: the plugin, as nbdkit is to be told of it, and remapctl.  run-test
 * says which: those of the build tree, or with `make installcheck` those that
 * are installed.
 */
char *t_plugin (void);
char *t_remapctl (void);

/* With `make installcheck`: no libremap and no plugin of the build tree is in
 * this process.
 */
void t_check_installed (pid_t pid);

/* The whole of a small text file; "" where there is none. */
char *t_read_file (const char *path);
void t_write_file (const char *path, const char *content);

/* Is this program there?  (Looked for in PATH and the sbin directories.) */
const char *t_find_tool (const char *name);

/* Skips the test where it is not. */
const char *t_need_tool (const char *name);

struct t_spawn {
  const char *stdin_from;       /* a file; default /dev/null */
  const char *stdout_to;        /* a file, appended to; default ours */
  const char *stderr_to;
  const char *preload;          /* LD_PRELOAD */
};

/* Start a program (argv[0] looked up in PATH).  It gets SIGTERM when the test
 * dies.
 */
pid_t t_spawn (char *const argv[], const struct t_spawn *how);

/* Wait until a child has ended, at most limit_ms (times t_scale).  Returns the
 * wait status; fails the test after that time.
 */
int t_reap (pid_t pid, unsigned limit_ms);

/* Has this child ended?  Does not reap it. */
bool t_has_ended (pid_t pid);

/* Wait, not for long, until an nbdkit is done with clients that have gone.  If
 * it is told to end before that, it does not close what they had open, which
 * leak checkers report.
 */
void t_wait_for_idle_nbdkit (pid_t pid);

/* Run a program to its end; returns its exit status, or 128 + signal.  Output
 * goes where "how" says.
 */
int t_run (char *const argv[], const struct t_spawn *how);

/* Run it; its stdout is returned, its stderr goes to the log of the test.
 * *ret_status is its exit status.
 */
char *t_run_output (char *const argv[], int *ret_status);

/* For a wait status: "exit 1", "signal 9". */
const char *t_status_text (int status);

/* Have this unmounted at the end, whatever happens. */
void t_janitor_mount (const char *path);

#endif /* REMAP_T_BASE_H */
