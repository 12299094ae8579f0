/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdcopy writes an image, holes and all, over a disk with bad sectors, and
 * reads it back: both ways equal, to the byte.
 */

#include <config.h>

#include <fcntl.h>
#include <unistd.h>

#include "t_base.h"
#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_server.h"

enum { BYTES = 16 << 20 };

static void
nbdcopy (const char *from, const char *to)
{
  char *argv[] = {
    (char *) t_need_tool ("nbdcopy"), "--flush", (char *) from, (char *) to,
    NULL
  };

  if (t_run (argv, NULL) != 0)
    T_FAIL ("nbdcopy %s %s failed", from, to);
}

/* Data, a hole over good and bad sectors, data. */
static char *
make_source (void)
{
  char *path = t_path ("source");
  int fd;

  t_image_create (path, BYTES, 5);
  fd = open (path, O_RDWR | O_CLOEXEC);
  if (fd == -1 || fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             4 << 20, 4 << 20) == -1)
    T_FAIL ("%s: %m", path);
  close (fd);
  return path;
}

static void
test (enum t_disk_kind kind)
{
  /* In the data, at the edges of requests, and in the hole. */
  const struct t_disk_options options = {
    .gen = 1, .faults = kind == T_DISK_PLAIN ? NULL :
      "both 0\nboth 511-513\nwrite 1000-1063\nwrite 10000\nall 12000\n"
      "both 32767\n",
  };
  struct t_disk *d = t_disk_new (kind, BYTES, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  char *uri = t_str ("nbd+unix:///?socket=%s", s->socket);
  char *source = make_source (), *copy = t_path ("copy-%d", kind);

  nbdcopy (source, uri);
  nbdcopy (uri, copy);
  T_ASSERT (t_image_equal (source, copy));
  t_server_kill (s);
  unlink (copy);
  t_server_restart (s);
  nbdcopy (uri, copy);
  T_ASSERT (t_image_equal (source, copy));
  if (kind != T_DISK_PLAIN)
    T_ASSERT (t_ctl_count (d->store, "remapped") >= 1 + 3 + 64 + 1);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-nbdcopy", 30);
  t_need_tool ("nbdcopy");
  t_disk_each (t_disk_all_kinds, test);
  return t_end ();
}
