/* SPDX-License-Identifier: BSD-3-Clause */
/* t_fault: a server that plays a failing disk (support/fault-plugin.c). */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "t_base.h"
#include "t_fault.h"
#include "t_image.h"
#include "t_wait.h"

/* Where the build leaves the plugin. */
static const char *
plugin_path (void)
{
  const char *path = getenv ("REMAP_FAULT_PLUGIN");

  if (path == NULL || *path == '\0')
    path = t_built ("tests/.libs/fault-plugin.so");
  if (access (path, R_OK) == -1)
    T_FAIL ("%s: %m (is it built?)", path);
  return path;
}

/* Replace the control file as a whole.  Its mtime is the present to the
 * nanosecond, not the kernel's coarse clock: no two versions look the same.
 */
static void
write_faults (const struct t_fault *f, const char *text)
{
  char *next = t_str ("%s.next", f->faults);
  struct timespec times[2];

  t_write_file (next, text);
  clock_gettime (CLOCK_REALTIME, &times[0]);
  times[1] = times[0];
  if (utimensat (AT_FDCWD, next, times, 0) == -1 ||
      rename (next, f->faults) == -1)
    T_FAIL ("%s: %m", f->faults);
}

static bool
is_ready (void *arg)
{
  struct t_fault *f = arg;

  if (t_has_ended (f->pid))
    T_FAIL ("the fault server of %s ended at once", f->image);
  return t_file_is_filled (t_str ("%s.pid", f->socket));
}

struct t_fault *
t_fault_start (const char *image, const char *faults)
{
  static unsigned counter;
  const unsigned n = counter++;
  struct t_fault *f = calloc (1, sizeof *f);
  /* The plugin is built like all else here: with a sanitizer if that is. */
  const struct t_spawn how = { .preload = getenv ("REMAP_TEST_PRELOAD") };

  if (f == NULL)
    T_FAIL ("out of memory");
  f->image = t_str ("%s", image);
  f->socket = t_path ("fault-%u.sock", n);
  f->faults = t_path ("fault-%u.faults", n);
  f->log = t_path ("fault-%u.log", n);
  write_faults (f, faults ? faults : "");

  char *argv[] = {
    "nbdkit", "-f", "-U", f->socket, "-P", t_str ("%s.pid", f->socket),
    (char *) plugin_path (), t_str ("file=%s", f->image),
    t_str ("faults=%s", f->faults), t_str ("log=%s", f->log), NULL
  };
  t_need_tool ("nbdkit");
  f->pid = t_spawn (argv, &how);
  t_wait_until (is_ready, f, 10000, "the fault server");
  return f;
}

void
t_fault_stop (struct t_fault *f)
{
  int status;

  t_wait_for_idle_nbdkit (f->pid);
  kill (f->pid, SIGTERM);
  status = t_reap (f->pid, 10000);
  if (!WIFEXITED (status) || WEXITSTATUS (status) != 0)
    T_FAIL ("the fault server of %s: %s", f->image, t_status_text (status));
  free (f);
}

void
t_fault_set (struct t_fault *f, const char *fmt, ...)
{
  char *text;
  va_list args;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) == -1)
    T_FAIL ("out of memory");
  va_end (args);
  write_faults (f, text);
  free (text);
}

void
t_fault_mark (struct t_fault *f)
{
  struct stat st;

  f->mark = stat (f->log, &st) == 0 ? (long) st.st_size : 0;
}

void
t_fault_visit (struct t_fault *f,
               void (*visit) (const struct t_fault_request *r, void *arg),
               void *arg)
{
  FILE *fp = fopen (f->log, "re");
  struct t_fault_request r;
  char line[200], result[20], fua[10];
  unsigned long long offset, count;
  int n;

  if (fp == NULL || fseek (fp, f->mark, SEEK_SET) == -1)
    T_FAIL ("%s: %m", f->log);
  while (fgets (line, sizeof line, fp) != NULL) {
    n = sscanf (line, "%c %llu %llu %19s %9s", &r.op, &offset, &count, result,
                fua);
    if (n < 4)
      T_FAIL ("%s: cannot parse \"%s\"", f->log, line);
    r.offset = offset;
    r.count = count;
    r.failed = strcmp (result, "0") != 0;
    r.fua = n == 5;
    visit (&r, arg);
  }
  fclose (fp);
}

struct counting {
  const char *ops;
  bool only_sector, only_failed;
  uint64_t lba;
  unsigned nr;
};

static void
count_request (const struct t_fault_request *r, void *arg)
{
  struct counting *c = arg;

  if (strchr (c->ops, r->op) == NULL || (c->only_failed && !r->failed))
    return;
  if (c->only_sector && ((c->lba + 1) * T_SECTOR <= r->offset ||
                         c->lba * T_SECTOR >= r->offset + r->count))
    return;
  c->nr++;
}

unsigned
t_fault_touches (struct t_fault *f, const char *ops, uint64_t lba)
{
  struct counting c = { .ops = ops, .only_sector = true, .lba = lba };

  t_fault_visit (f, count_request, &c);
  return c.nr;
}

unsigned
t_fault_requests (struct t_fault *f, const char *ops)
{
  struct counting c = { .ops = ops };

  t_fault_visit (f, count_request, &c);
  return c.nr;
}

unsigned
t_fault_failures (struct t_fault *f, const char *ops)
{
  struct counting c = { .ops = ops, .only_failed = true };

  t_fault_visit (f, count_request, &c);
  return c.nr;
}
