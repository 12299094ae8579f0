/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "bench.h"
#include "guard.h"
#include "parts.h"
#include "target.h"

#define SECTOR_BYTES 512
#define REQUEST_BYTES (1u << 20)
#define BAD_WRITTEN 1001        /* sectors: in the first MiB, in the fourth */
#define BAD_READ (3 * 2048 + 701)
#define FAULT_PLUGIN BENCH_BUILDDIR "/tests/.libs/fault-plugin.so"

/* ------------------------------------------------------------ a bad disk -- */

struct bad_disk {
  struct image medium, image;   /* what it holds; what the kernel shows */
  struct process plugin, fuse;
};

static void
write_faults (const char *path)
{
  FILE *f = fopen (path, "we");

  if (f == NULL ||
      fprintf (f, "both %d\nboth %d\n", BAD_WRITTEN, BAD_READ) < 0 ||
      fclose (f) == EOF)
    bench_fail ("%s: %s", path, strerror (errno));
}

/* Errors of real system calls: the plugin fails, FUSE hands that on. */
static void
start_bad_disk (struct bad_disk *d)
{
  char faults[4200], socket[4200], uri[4300], log[4200], pid[4200];
  const struct process_value names[] = {
    { "plugin", FAULT_PLUGIN }, { "medium", d->medium.path },
    { "faults", faults }, { "socket", socket }, { "uri", uri },
    { "pid", pid }, { "mount", d->image.path }, { NULL, NULL },
  };

  image_make_sparse (&d->medium, UINT64_C (8) << 20, UINT64_C (8) << 20);
  d->image = d->medium;
  snprintf (faults, sizeof faults, "%s/faults", d->medium.dir);
  snprintf (socket, sizeof socket, "%s/medium.sock", d->medium.dir);
  snprintf (uri, sizeof uri, "nbd+unix:///?socket=%s", socket);
  snprintf (pid, sizeof pid, "%s/fuse.pid", d->medium.dir);
  snprintf (d->image.path, sizeof d->image.path, "%s/bad", d->medium.dir);
  write_faults (faults);
  snprintf (log, sizeof log, "%s/plugin.log", d->medium.dir);
  process_start (&d->plugin, "fault-plugin", log, process_words (
    "nbdkit -f -U {socket} {plugin} file={medium} faults={faults}", names));
  process_await_socket (&d->plugin, socket);
  close (open (d->image.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  guard_mount (d->image.path);
  snprintf (log, sizeof log, "%s/fuse.log", d->medium.dir);
  process_start (&d->fuse, "nbdfuse", log, process_words (
    "nbdfuse -P {pid} {mount} {uri}", names));
  process_await_file (&d->fuse, pid);
}

/* nbdfuse ends when nothing is mounted any more; asked to, it calls that an
 * error.
 */
static void
stop_bad_disk (struct bad_disk *d)
{
  const struct process_value names[] = {
    { "mount", d->image.path }, { NULL, NULL },
  };

  process_check (&d->fuse);
  free (process_output (process_words ("fusermount3 -u {mount}", names)));
  process_await_end (&d->fuse);
  process_stop (&d->plugin);
  image_remove (&d->medium);
}

/* ---------------------------------------------------------- system calls -- */

struct calls {
  unsigned nr_all, nr_bad;      /* of the disk; those that cover the sector */
  unsigned nr_flushes, nr_store;
};

/* What strace -y says of a read or write: NAME(FD<PATH>, ..., COUNT, OFFSET)
 * or, with a vector, [{iov_base=..., iov_len=COUNT}], 1, OFFSET, FLAGS).
 */
static bool
parse_call (const char *line, uint64_t *ret_count, uint64_t *ret_offset)
{
  const char *vector = strstr (line, "iov_len="), *at = strstr (line, ") = ");
  unsigned nr_commas = vector ? 0 : 2;

  if (vector) {
    *ret_count = strtoull (vector + 8, NULL, 0);
    at = strstr (vector, "], ");
    at = at ? strchr (at + 3, ',') : NULL;
    if (at)
      *ret_offset = strtoull (at + 1, NULL, 0);
    return at != NULL;
  }
  while (at && at > line && nr_commas > 0)
    if (*--at == ',')
      nr_commas--;
  if (at == NULL || at == line)
    return false;
  *ret_count = strtoull (at + 1, NULL, 0);
  at = strchr (at + 1, ',');
  *ret_offset = at ? strtoull (at + 1, NULL, 0) : 0;
  return at != NULL;
}

static void
count_line (const char *line, const struct image *image, uint64_t bad,
            struct calls *calls)
{
  uint64_t count, offset;
  char disk[4300], store[4300];

  snprintf (disk, sizeof disk, "<%s>", image->path);
  snprintf (store, sizeof store, "<%s>", image->store);
  if (strstr (line, store))
    calls->nr_store++;
  if (!strstr (line, disk))
    return;
  if (strstr (line, "sync(")) {
    calls->nr_flushes++;
    return;
  }
  if (!parse_call (line, &count, &offset))
    bench_fail ("strace says what is not understood: %s", line);
  calls->nr_all++;
  if (offset <= bad * SECTOR_BYTES && bad * SECTOR_BYTES < offset + count)
    calls->nr_bad++;
}

/* One file a thread; all that they have now, and less what was there before. */
static void
count_calls (const struct image *image, uint64_t bad, struct calls *calls)
{
  DIR *dir = opendir (image->dir);
  struct dirent *entry;
  char path[4600], line[4096];
  FILE *f;

  *calls = (struct calls) { .nr_all = 0 };
  while (dir && (entry = readdir (dir)) != NULL) {
    if (strncmp (entry->d_name, "strace.", 7) != 0)
      continue;
    snprintf (path, sizeof path, "%s/%s", image->dir, entry->d_name);
    f = fopen (path, "re");
    while (f && fgets (line, sizeof line, f))
      count_line (line, image, bad, calls);
    if (f)
      fclose (f);
  }
  if (dir)
    closedir (dir);
}

static struct nbd_handle *
connect_to (const char *uri)
{
  struct nbd_handle *nbd = nbd_create ();

  if (nbd == NULL || nbd_connect_uri (nbd, uri) == -1)
    bench_fail ("%s", nbd_get_error ());
  return nbd;
}

/* needed: what is not bad, on both sides of it. */
static void
report_calls (const char *what, const struct calls *before,
              const struct calls *after)
{
  const unsigned needed = 2;
  unsigned nr_bad = after->nr_bad - before->nr_bad;
  unsigned nr_all = after->nr_all - before->nr_all;
  unsigned nr_rest = nr_all - nr_bad;
  char prefix[64];

  if (nr_bad == 0 || nr_rest < needed)
    bench_fail ("strace has seen %u calls on the disk, %u of the bad sector",
                nr_all, nr_bad);
  snprintf (prefix, sizeof prefix, "calls/%s/", what);
  bench_heading (prefix, "A %s of 1 MiB with a bad sector in it", what);
  bench_report_value ("reads and writes of the disk", "calls", nr_all);
  bench_report_value ("of them, touch the bad sector", "calls", nr_bad);
  bench_report_value ("the rest, more than needed", "calls",
                      nr_rest - needed);
  bench_report_value ("flushes of the disk", "calls",
                      after->nr_flushes - before->nr_flushes);
  bench_report_value ("calls on the store", "calls",
                      after->nr_store - before->nr_store);
  target_note (TARGET_TOUCHES, what, nr_bad);
  target_note (TARGET_CALLS, what, nr_rest - needed);
}

/* The write succeeds, the read fails: anything else is no measurement. */
static void
meet_bad_sectors (const char *uri, const struct image *image)
{
  static uint8_t buf[REQUEST_BYTES];
  struct nbd_handle *nbd = connect_to (uri);
  struct calls before, after;
  uint64_t read_offset = (uint64_t) BAD_READ * SECTOR_BYTES
    / REQUEST_BYTES * REQUEST_BYTES;

  memset (buf, 'x', sizeof buf);
  count_calls (image, BAD_WRITTEN, &before);
  if (nbd_pwrite (nbd, buf, sizeof buf, 0, 0) == -1)
    bench_fail ("%s", nbd_get_error ());
  count_calls (image, BAD_WRITTEN, &after);
  report_calls ("write", &before, &after);

  count_calls (image, BAD_READ, &before);
  if (nbd_pread (nbd, buf, sizeof buf, read_offset, 0) == 0 ||
      nbd_get_errno () != EIO)
    bench_fail ("a sector that is bad has been read");
  count_calls (image, BAD_READ, &after);
  report_calls ("read", &before, &after);
  nbd_shutdown (nbd, 0);
  nbd_close (nbd);
}

static void
run_calls (void)
{
  struct bad_disk disk;
  struct server server;
  char prefix[4400];

  if (access (FAULT_PLUGIN, R_OK) == -1)
    bench_fail ("%s is not there: make bench builds it", FAULT_PLUGIN);
  start_bad_disk (&disk);
  snprintf (prefix, sizeof prefix,
            "strace -ff -y -v -s 0 -qq -o %s/strace -e trace=pread64,"
            "pwrite64,preadv,pwritev,preadv2,pwritev2,fsync,fdatasync ",
            disk.image.dir);
  server_start_under (&server, subject_find ("remap"), &disk.image, prefix);
  meet_bad_sectors (server.uri, &disk.image);
  server_stop_under (&server);
  stop_bad_disk (&disk);
}

/* ------------------------------------------------------------------ idle -- */

/* Whenever a thread has run and is to wait again. */
static double
count_switches (pid_t pid)
{
  char path[64];
  struct dirent *entry;
  double nr = 0;
  DIR *dir;

  snprintf (path, sizeof path, "/proc/%d/task", (int) pid);
  dir = opendir (path);
  while (dir && (entry = readdir (dir)) != NULL) {
    char status[512];

    if (entry->d_name[0] == '.')
      continue;
    snprintf (status, sizeof status, "%s/%s/status", path, entry->d_name);
    nr += bench_status_number (status, "voluntary_ctxt_switches");
  }
  if (dir == NULL)
    bench_fail ("%s: %s", path, strerror (errno));
  closedir (dir);
  return nr;
}

/* After a client that has gone, and with one that is silent. */
static void
run_idle (const struct options *o)
{
  const struct workload *w = workload_find ("read-4k-d16-c1");
  double seconds = o->is_quick ? 3 : 10, before, rate, resident;
  struct nbd_handle *nbd;
  struct server server;
  struct image image;
  char status[64];

  image_make_sparse (&image, o->size_bytes, o->size_bytes);
  server_start (&server, subject_find ("remap"), &image);
  options_load (o, w, &server, 0, o->size_bytes);
  nbd = connect_to (server.uri);
  sleep (1);
  before = count_switches (server.process.pid);
  sleep ((unsigned) seconds);
  rate = (count_switches (server.process.pid) - before) / seconds;
  snprintf (status, sizeof status, "/proc/%d/status",
            (int) server.process.pid);
  resident = bench_status_number (status, "VmRSS") / 1024;
  bench_heading ("idle/", "An idle server, for %g seconds", seconds);
  bench_report_value ("wake-ups", "a second", rate);
  bench_report_value ("resident", "MiB", resident);
  target_note (TARGET_WAKEUPS, "", rate);
  target_note (TARGET_RESIDENT, "", resident);
  nbd_shutdown (nbd, 0);
  nbd_close (nbd);
  server_stop (&server);
  image_remove (&image);
}

void
counts_run (const struct options *o)
{
  run_calls ();
  run_idle (o);
}
