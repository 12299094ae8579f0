/* SPDX-License-Identifier: BSD-3-Clause */
/* The store is sparse, and the file system below it is full, or read-only:
 * writes that need a spare get ENOSPC, all else works on, nothing that was
 * acknowledged is lost, and all is well again when there is room.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { FIRST = 1000, NR_BAD = 8000, CHUNK = 50, LATE = 12000 };

static char *dir;               /* where the file system is */

static void
mount_tmpfs (void)
{
  T_ASSERT (mount ("tmpfs", dir, "tmpfs", 0, "size=2M") == 0);
  t_janitor_mount (dir);
}

static void
mount_ext4 (void)
{
  char *image = t_path ("ext4-image");
  char *mkfs[] = { (char *) t_need_tool ("mkfs.ext4"), "-q", "-F", "-O",
                   "^has_journal", image, NULL };
  char *how[] = { "mount", "-o", "loop", image, dir, NULL };

  t_image_create (image, 16 << 20, 0);
  T_ASSERT (t_run (mkfs, NULL) == 0);
  T_ASSERT (t_run (how, NULL) == 0);
  t_janitor_mount (dir);
}

/* Fill the file system up, but for so many bytes. */
static void
fill (size_t rest)
{
  static char buf[65536];
  int fd = open (t_str ("%s/fill", dir), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  off_t size;

  T_ASSERT (fd != -1);
  while (write (fd, buf, sizeof buf) > 0)
    ;
  T_ASSERT (errno == ENOSPC);
  size = lseek (fd, 0, SEEK_END);
  T_ASSERT (size > (off_t) rest && ftruncate (fd, size - rest) == 0);
  T_ASSERT (fsync (fd) == 0);
  close (fd);
}

/* Write bad sectors until that fails; how many were written? */
static unsigned
use_up (struct nbd_handle *h, unsigned from, uint32_t gen)
{
  unsigned n = from;
  int err = 0;

  while (n < NR_BAD && (err = t_nbd_put (h, FIRST + n, CHUNK, gen)) == 0)
    n += CHUNK;
  T_ERRNO (err, ENOSPC);
  return n;
}

static void
check_full (struct nbd_handle *h, unsigned n)
{
  T_ERRNO (t_nbd_put (h, FIRST + n, CHUNK, 3), ENOSPC);
  t_nbd_expect (h, FIRST, n, 2);
  T_OK (t_nbd_put (h, 10, 20, 5));      /* good sectors */
  t_nbd_expect (h, 10, 20, 5);
  T_ERRNO (t_nbd_touch (h, LATE, 1), EIO);
}

static void
check_store (struct t_server *s, const char *store, unsigned n)
{
  struct nbd_handle *h = t_nbd_connect (s);

  T_ASSERT (t_ctl_status (store, "remapped") >= n);
  check_full (h, n);
  t_nbd_close (h);
}

static void
test_full (const char *name, void (*mount_it) (void))
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d-%d\nboth %d\n", FIRST,
                               FIRST + NR_BAD - 1, LATE),
  };
  struct t_disk *d;
  struct t_server *s;
  struct nbd_handle *h;
  char *store;
  unsigned n;

  t_part ("%s is full", name);
  dir = t_path ("%s", name);
  mkdir (dir, 0700);
  mount_it ();
  d = t_disk_new (T_DISK_FUSE, 8 << 20, &options);
  store = t_str ("%s/store", dir);
  s = t_server_start ("backing=%s spare=%s spare-size=8M", d->path, store);
  fill (1 << 20);
  h = t_nbd_connect (s);
  n = use_up (h, 0, 2);
  T_ASSERT (n >= CHUNK);
  check_full (h, n);
  t_nbd_close (h);
  t_server_kill (s);
  t_server_restart (s);
  check_store (s, store, n);

  t_part ("%s has room again", name);
  T_ASSERT (unlink (t_str ("%s/fill", dir)) == 0);
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, FIRST + n, CHUNK, 2));
  T_OK (t_nbd_flush (h));
  t_nbd_expect (h, FIRST, n + CHUNK, 2);
  T_ERRNO (t_nbd_touch (h, LATE, 1), EIO);
  T_OK (t_nbd_put (h, LATE, 1, 2));
  t_nbd_expect (h, LATE, 1, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (store);

  t_part ("%s is read-only", name);
  T_ASSERT (mount (NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0);
  T_ASSERT (strstr (t_server_refusal ("backing=%s spare=%s", d->path, store),
                    "Read-only file system; name a place") != NULL);
  T_ASSERT (strstr (t_server_refusal ("backing=%s spare=%s/other new-store=yes",
                                      d->path, dir), "Read-only") != NULL);
  T_ASSERT (t_ctl_status (store, "remapped") >= n);
  t_disk_free (d);
  T_ASSERT (umount2 (dir, 0) == 0);
}

int
main (void)
{
  t_begin ("test-full-file-system", 60);
  if (geteuid () != 0)
    t_skip ("mounting needs root");
  if (t_disk_can (T_DISK_FUSE)) {
    test_full ("tmpfs", mount_tmpfs);
    test_full ("ext4", mount_ext4);
  }
  return t_end ();
}
