/* SPDX-License-Identifier: BSD-3-Clause */
/* subject: the NBD servers that are compared. */
#ifndef REMAP_BENCH_SUBJECT_H
#define REMAP_BENCH_SUBJECT_H

#include <stdbool.h>

#include "image.h"
#include "process.h"

/* In `command`: {socket}, {image}, {store}, {size} (bytes), {plugin} (ours),
 * {config} (of nbd-server), {pid} (the file for its number; {daemon}, where it
 * makes itself a daemon).
 */
struct subject {
  const char *name;
  const char *command;
  const char *package;          /* of the first word of the command */
  bool is_cached;               /* it goes through the page cache */
  bool needs_direct;            /* it does not start without O_DIRECT */
};

#define SUBJECTS_MAX 32

/* Those that every benchmark has; the last one has no name. */
extern const struct subject subjects_known[];
extern const struct subject *subject_find (const char *name);

/* NAME=COMMAND, of the command line. */
extern const struct subject *subject_of_command (const char *text);

struct server {
  struct process process;
  char socket[4200], uri[4300], pid_file[4200];
};

extern void server_start (struct server *server, const struct subject *subject,
                          const struct image *image);

/* The same under another command: `prefix` stands before that of subject, which
 * has {pid}.
 */
extern void server_start_under (struct server *server,
                                const struct subject *subject,
                                const struct image *image,
                                const char *prefix);

/* It has to be there still, and to end well. */
extern void server_stop (struct server *server);
extern void server_stop_under (struct server *server);

/* Versions of all that takes part. */
extern void subjects_describe (const struct subject *const *subjects,
                               unsigned nr_subjects);

#endif /* REMAP_BENCH_SUBJECT_H */
