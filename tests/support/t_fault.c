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

enum { MAX_WORDS = 40 };

static size_t
append_words (char **argv, size_t n, const char *text)
{
  char *save = NULL;

  for (char *word = strtok_r (t_str ("%s", text ? text : ""), " ", &save);
       word != NULL; word = strtok_r (NULL, " ", &save)) {
    if (n >= MAX_WORDS)
      T_FAIL ("too many words: %s", text);
    argv[n++] = word;
  }
  return n;
}

static size_t
append_place (char **argv, size_t n, const struct t_fault *f)
{
  if (f->options.address == NULL) {
    argv[n++] = "-U";
    argv[n++] = f->socket;
    return n;
  }
  argv[n++] = "-i";
  argv[n++] = t_str ("%s", f->options.address);
  argv[n++] = "-p";
  argv[n++] = t_str ("%u", f->options.port);
  return n;
}

void
t_fault_restart (struct t_fault *f)
{
  /* The plugin is built like all else here: with a sanitizer if that is. */
  const struct t_spawn how = { .preload = getenv ("REMAP_TEST_PRELOAD") };
  char *argv[MAX_WORDS + 20];
  size_t n = append_words (argv, 0, f->options.before);

  unlink (f->socket);
  unlink (t_str ("%s.pid", f->socket));
  argv[n++] = "nbdkit";
  argv[n++] = "-f";
  argv[n++] = "-P";
  argv[n++] = t_str ("%s.pid", f->socket);
  n = append_place (argv, n, f);
  n = append_words (argv, n, f->options.nbdkit);
  argv[n++] = (char *) plugin_path ();
  argv[n++] = t_str ("file=%s", f->image);
  argv[n++] = t_str ("faults=%s", f->faults);
  argv[n++] = t_str ("log=%s", f->log);
  if (f->journal)
    argv[n++] = t_str ("journal=%s", f->journal);
  n = append_words (argv, n, f->options.params);
  argv[n] = NULL;
  f->pid = t_spawn (argv, &how);
  t_wait_until (is_ready, f, 10000, "the fault server");
}

struct t_fault *
t_fault_start_with (const char *image, const struct t_fault_options *options)
{
  static unsigned counter;
  const unsigned n = counter++;
  struct t_fault *f = calloc (1, sizeof *f);

  if (f == NULL)
    T_FAIL ("out of memory");
  t_need_tool ("nbdkit");
  f->options = *options;
  f->image = t_str ("%s", image);
  f->socket = t_path ("fault-%u.sock", n);
  f->faults = t_path ("fault-%u.faults", n);
  f->log = t_path ("fault-%u.log", n);
  f->journal = options->volatile_cache ? t_path ("fault-%u.journal", n) : NULL;
  /* The name of the export, which nbdkit ignores, is this run's own: servers
   * remember exports.
   */
  f->uri = options->address
    ? t_str ("nbd://%s:%u/%d-%u", options->address, options->port,
             (int) getpid (), n)
    : t_str ("nbd+unix:///?socket=%s", f->socket);
  write_faults (f, options->faults ? options->faults : "");
  t_fault_restart (f);
  return f;
}

struct t_fault *
t_fault_start (const char *image, const char *faults, bool volatile_cache)
{
  return t_fault_start_with (image, &(struct t_fault_options) {
                               .faults = faults,
                               .volatile_cache = volatile_cache });
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
t_fault_freeze (struct t_fault *f)
{
  siginfo_t info;

  kill (f->pid, SIGSTOP);
  if (waitid (P_PID, f->pid, &info, WSTOPPED) == -1) /* all of its threads */
    T_FAIL ("waitid: %m");
}

/* One write of the journal. */
struct record {
  uint64_t offset, count;
  char *before, *after;
};

/* False at the end, which may be in the middle of a record. */
static bool
read_record (FILE *fp, struct record *r)
{
  uint64_t head[2];

  *r = (struct record) { 0 };
  if (fread (head, sizeof head, 1, fp) != 1)
    return false;
  r->offset = head[0];
  r->count = head[1];
  r->before = malloc (r->count);
  r->after = malloc (r->count);
  if (r->before == NULL || r->after == NULL)
    T_FAIL ("out of memory");
  if (fread (r->before, r->count, 1, fp) == 1 &&
      fread (r->after, r->count, 1, fp) == 1)
    return true;
  free (r->before);
  free (r->after);
  return false;
}

static struct record *
read_journal (const char *path, size_t *ret_nr)
{
  FILE *fp = fopen (path, "re");
  struct record *records = NULL;
  size_t nr = 0;

  if (fp == NULL)
    T_FAIL ("%s: %m", path);
  do {
    records = realloc (records, (nr + 1) * sizeof *records);
    if (records == NULL)
      T_FAIL ("out of memory");
  } while (read_record (fp, &records[nr]) && ++nr);
  fclose (fp);
  *ret_nr = nr;
  return records;
}

static void
put (int fd, const char *buf, size_t count, uint64_t offset)
{
  if (pwrite (fd, buf, count, offset) != (ssize_t) count)
    T_FAIL ("writing the image: %m");
}

/* Do a write again that the cut undid: all of it, some sectors, or none. */
static void
maybe_redo (int fd, const struct record *r, unsigned *seed)
{
  const unsigned fate = rand_r (seed) % 3;

  if (fate == 0)
    return;
  for (uint64_t done = 0, n; done < r->count; done += n) {
    n = T_SECTOR - (r->offset + done) % T_SECTOR;
    if (n > r->count - done)
      n = r->count - done;
    if (fate == 1 || rand_r (seed) % 2)
      put (fd, r->after + done, n, r->offset + done);
  }
}

void
t_fault_kill (struct t_fault *f)
{
  kill (f->pid, SIGKILL);
  t_reap (f->pid, 10000);
}

void
t_fault_lose_cache (struct t_fault *f, unsigned seed)
{
  int fd = open (f->image, O_WRONLY | O_CLOEXEC);
  struct record *records;
  size_t nr;

  if (fd == -1 || f->journal == NULL)
    T_FAIL ("%s: no image or no volatile cache", f->image);
  records = read_journal (f->journal, &nr);
  for (size_t i = nr; i-- > 0; )
    put (fd, records[i].before, records[i].count, records[i].offset);
  for (size_t i = 0; i < nr; i++) {
    if (seed)
      maybe_redo (fd, &records[i], &seed);
    free (records[i].before);
    free (records[i].after);
  }
  free (records);
  close (fd);
  if (truncate (f->journal, 0) == -1)
    T_FAIL ("%s: %m", f->journal);
}

void
t_fault_cut_power (struct t_fault *f, unsigned seed)
{
  t_fault_kill (f);
  t_fault_lose_cache (f, seed);
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
