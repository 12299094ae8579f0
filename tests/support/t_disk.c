/* SPDX-License-Identifier: BSD-3-Clause */
/* t_disk: a disk to be served, of one of several kinds. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_base.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_wait.h"

const int t_disk_failing_kinds[] = { T_DISK_FUSE, T_DISK_LOOP, -1 };
const int t_disk_all_kinds[] = { T_DISK_PLAIN, T_DISK_FUSE, T_DISK_LOOP, -1 };
const int t_disk_fuse_only[] = { T_DISK_FUSE, -1 };

const char *
t_disk_kind_name (enum t_disk_kind kind)
{
  return kind == T_DISK_PLAIN ? "plain file"
    : kind == T_DISK_FUSE ? "nbdfuse file" : "loop device";
}

bool
t_disk_can (enum t_disk_kind kind)
{
  if (kind == T_DISK_PLAIN)
    return true;
  if (t_find_tool ("nbdfuse") == NULL || access ("/dev/fuse", R_OK) == -1) {
    t_skip_part ("nbdfuse or /dev/fuse is missing");
    return false;
  }
  if (kind == T_DISK_LOOP &&
      (geteuid () != 0 || access ("/dev/loop-control", R_OK | W_OK) == -1)) {
    t_skip_part ("loop devices need root and /dev/loop-control");
    return false;
  }
  return true;
}

/*---- nbdfuse ----*/

static bool
is_mounted (void *arg)
{
  struct t_disk *d = arg;
  struct stat st;

  if (t_has_ended (d->fuse_pid))
    T_FAIL ("nbdfuse ended at once: %s",
            t_read_file (t_str ("%s.log", d->fuse_path)));
  return stat (d->fuse_path, &st) == 0 && (uint64_t) st.st_size == d->size;
}

static void
fuse_mount (struct t_disk *d)
{
  char *argv[] = {
    "nbdfuse", "-C", t_str ("%u", d->options.connections
                            ? d->options.connections : 4),
    d->fuse_path, "--unix", d->fault->socket, NULL
  };
  const struct t_spawn how = { .stderr_to = t_str ("%s.log", d->fuse_path) };

  t_write_file (d->fuse_path, "");
  t_janitor_mount (d->fuse_path);
  d->fuse_pid = t_spawn (argv, &how);
  t_wait_until (is_mounted, d, 10000, "nbdfuse");
}

/* What still holds the file (a loop device that is being detached) lets go of
 * it soon.
 */
static bool
is_unmounted (void *path)
{
  char *argv[] = { "fusermount3", "-u", path, NULL };

  if (umount2 (path, 0) == 0)
    return true;
  return errno == EPERM && t_run (argv, NULL) == 0;
}

static void
fuse_unmount (struct t_disk *d)
{
  t_wait_until (is_unmounted, d->fuse_path, 10000, "unmounting nbdfuse");
  t_reap (d->fuse_pid, 10000);  /* its exit status depends on the kernel */
}

/*---- Loop devices ----*/

/* The device goes when the last process that has it open does: ours, or a
 * server's.
 */
static bool
loop_configure (struct t_disk *d, int file, const struct t_disk_options *o)
{
  struct loop_config config = {
    .fd = file,
    .block_size = o->sector_bytes ? o->sector_bytes : 512,
    .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO |
      (o->read_only ? LO_FLAGS_READ_ONLY : 0),
  };

  if (ioctl (d->loop_fd, LOOP_CONFIGURE, &config) == 0)
    return true;
  if (errno != EBUSY)           /* another test was faster */
    T_FAIL ("LOOP_CONFIGURE: %m");
  return false;
}

static void
loop_attach (struct t_disk *d, const struct t_disk_options *o)
{
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC);
  int file = open (d->fuse_path,
                   (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  struct loop_info64 info;
  bool done = false;

  if (control == -1 || file == -1)
    T_FAIL ("/dev/loop-control, %s: %m", d->fuse_path);
  while (!done) {
    d->path = t_str ("/dev/loop%d", ioctl (control, LOOP_CTL_GET_FREE));
    d->loop_fd = open (d->path, O_RDWR | O_CLOEXEC);
    if (d->loop_fd == -1)
      T_FAIL ("%s: %m", d->path);
    done = loop_configure (d, file, o);
    if (!done)
      close (d->loop_fd);
  }
  if (ioctl (d->loop_fd, LOOP_GET_STATUS64, &info) == -1 ||
      !(info.lo_flags & LO_FLAGS_DIRECT_IO))
    T_FAIL ("%s: no direct I/O on %s", d->path, d->fuse_path);
  close (file);
  close (control);
}

/*---- Disks ----*/

/* Serve, mount and attach the image, as the kind is. */
static void
attach (struct t_disk *d, const char *faults)
{
  d->path = d->image;
  if (d->kind != T_DISK_PLAIN) {
    const unsigned physical = d->options.physical_bytes;
    const struct t_fault_options how = {
      .faults = faults, .volatile_cache = d->options.volatile_cache,
      .params = physical ? t_str ("physical=%u", physical) : NULL,
    };

    d->fault = t_fault_start_with (d->image, &how);
    d->path = d->fuse_path;
    fuse_mount (d);
  }
  if (d->kind == T_DISK_LOOP)
    loop_attach (d, &d->options);
}

static void
detach (struct t_disk *d)
{
  if (d->loop_fd != -1)
    close (d->loop_fd);
  d->loop_fd = -1;
  if (d->kind != T_DISK_PLAIN)
    fuse_unmount (d);
}

struct t_disk *
t_disk_new (enum t_disk_kind kind, uint64_t size,
            const struct t_disk_options *options)
{
  static unsigned counter;
  const unsigned n = counter++;
  struct t_disk *d = calloc (1, sizeof *d);
  struct stat st;

  if (d == NULL)
    T_FAIL ("out of memory");
  d->kind = kind;
  d->loop_fd = -1;
  if (options)
    d->options = *options;
  d->image = d->options.image ? t_str ("%s", d->options.image)
    : t_path ("image-%u", n);
  if (d->options.image == NULL)
    t_image_create (d->image, size, d->options.gen);
  if (stat (d->image, &st) == -1)
    T_FAIL ("%s: %m", d->image);
  d->size = st.st_size;
  d->fuse_path = t_path ("disk-%u", n);
  attach (d, d->options.faults);
  d->store = kind == T_DISK_LOOP ? t_path ("store-%u", n)
    : t_str ("%s.remap", d->path);
  return d;
}

void
t_disk_free (struct t_disk *d)
{
  detach (d);
  if (d->fault)
    t_fault_stop (d->fault);
  free (d);
}

void
t_disk_cut_power (struct t_server *s, struct t_disk *const *disks, size_t nr,
                  unsigned seed)
{
  /* Frozen disks answer nothing any more, so the server, which is killed then,
   * cannot do a last flush.
   */
  for (size_t i = 0; i < nr; i++)
    t_fault_freeze (disks[i]->fault);
  kill (s->pid, SIGKILL);
  for (size_t i = 0; i < nr; i++) {
    disks[i]->options.faults = t_read_file (disks[i]->fault->faults);
    t_fault_cut_power (disks[i]->fault, seed ? seed + i : 0);
  }
  t_server_was_killed (s);
  for (size_t i = 0; i < nr; i++) {
    detach (disks[i]);
    attach (disks[i], disks[i]->options.faults);
  }
}

const char *
t_disk_params (const struct t_disk *d)
{
  /* A file has its store beside it by itself. */
  if (d->kind == T_DISK_LOOP)
    return t_str ("backing=%s spare=%s", d->path, d->store);
  return t_str ("backing=%s", d->path);
}

void
t_disk_each (const int *kinds, void (*test) (enum t_disk_kind kind))
{
  for (; *kinds != -1; kinds++) {
    if (!t_disk_can (*kinds))
      continue;
    t_part ("%s", t_disk_kind_name (*kinds));
    test (*kinds);
  }
}
