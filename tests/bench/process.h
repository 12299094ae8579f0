/* SPDX-License-Identifier: BSD-3-Clause */
/* process: other programs, started and ended by number. */
#ifndef REMAP_BENCH_PROCESS_H
#define REMAP_BENCH_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

#define PROCESS_WORDS_MAX 64

struct process {
  pid_t pid;                    /* 0: none */
  char name[64], log[4096];     /* the file with what it says */
};

/* A command: words with spaces between; {name} is replaced by its value.  The
 * words stay valid until the next call.  NULL ends both.
 */
struct process_value {
  const char *name, *value;
};
extern char **process_words (const char *command,
                             const struct process_value *values);

/* Is the program there?  Else the benchmark ends, and names its package. */
extern void process_need (const char *program, const char *package);

/* In the background.  Killed when this process ends. */
extern void process_start (struct process *p, const char *name,
                           const char *log, char **words);

/* It was started, and makes itself a daemon: from now on p is that one, whose
 * number comes to be in the file.
 */
extern void process_follow_daemon (struct process *p, const char *pid_file);

/* The benchmark ends if the process has ended, and says what that has said. */
extern void process_check (struct process *p);

/* The same, as it fails for another reason. */
extern void process_fail (struct process *p, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3), noreturn));

/* Ask it to end.  It has to be there still, and to end well. */
extern void process_stop (struct process *p);

/* The same for one that has started another, and ends when that ends: whose
 * number is in the file.
 */
extern void process_stop_below (struct process *p, const char *pid_file);

/* Until it has ended by itself, well. */
extern void process_await_end (struct process *p);

/* Until something answers on a Unix socket, or there is a file. */
extern void process_await_socket (struct process *p, const char *path);
extern void process_await_file (struct process *p, const char *path);

/* Run a command to its end; what it has printed, to be freed.  It has to
 * succeed.
 */
extern char *process_output (char **words);

#endif /* REMAP_BENCH_PROCESS_H */
