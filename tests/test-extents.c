/* SPDX-License-Identifier: BSD-3-Clause */
/* Block status: holes of the backing are holes, but a hole that lies over a
 * remapped sector is data, or a copy would drop what is in the spare.
 *
 * The backing with holes and with bad sectors is a file on an ext4 file system
 * on a failing loop device.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum {
  FILE_BYTES = 8 << 20,
  BAD = 1003,                   /* sector of the file */
  HOLE_FIRST = 960, HOLE_NR = 128, /* made later, around it */
};

/* Where on the device is this byte of the file? */
static uint64_t
device_offset_of (int fd, uint64_t offset)
{
  union {
    struct fiemap map;
    char space[sizeof (struct fiemap) + sizeof (struct fiemap_extent)];
  } request = {
    .map = {
      .fm_start = offset, .fm_length = 1, .fm_flags = FIEMAP_FLAG_SYNC,
      .fm_extent_count = 1,
    },
  };
  const struct fiemap_extent *e = &request.map.fm_extents[0];

  if (ioctl (fd, FS_IOC_FIEMAP, &request) == -1 ||
      request.map.fm_mapped_extents != 1)
    T_FAIL ("FIEMAP: %m");
  return e->fe_physical + (offset - e->fe_logical);
}

/* Make a file system on the disk and a file on it, and mount it. */
static char *
make_file (struct t_disk *d)
{
  char *dir = t_path ("ext4"), *file = t_str ("%s/disk.img", dir);
  char *mkfs[] = {
    "mkfs.ext4", "-q", "-b", "4096", "-E", "nodiscard", d->path, NULL
  };
  int fd;

  mkfs[0] = (char *) t_need_tool ("mkfs.ext4");
  if (t_run (mkfs, NULL) != 0)
    T_FAIL ("mkfs.ext4 failed");
  mkdir (dir, 0700);
  if (mount (d->path, dir, "ext4", 0, NULL) == -1)
    t_skip ("cannot mount ext4: %m");
  t_janitor_mount (dir);
  t_image_create (file, FILE_BYTES, 1);
  fd = open (file, O_RDWR | O_CLOEXEC);
  if (fd == -1 || fsync (fd) == -1)
    T_FAIL ("%s: %m", file);
  t_fault_set (d->fault, "both %llu\n", (unsigned long long)
               device_offset_of (fd, BAD * T_SECTOR) / T_SECTOR);
  close (fd);
  return file;
}

static void
punch (const char *file, uint64_t lba, uint64_t nr)
{
  int fd = open (file, O_RDWR | O_CLOEXEC);

  if (fd == -1 || fallocate (fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                             lba * T_SECTOR, nr * T_SECTOR) == -1)
    T_FAIL ("punching a hole into %s: %m", file);
  close (fd);
}

static void
check_status (struct nbd_handle *h)
{
  const uint32_t hole = LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO;

  T_ASSERT (t_nbd_status_of (h, 0) == 0);
  T_ASSERT (t_nbd_status_of (h, HOLE_FIRST * T_SECTOR) == hole);
  T_ASSERT (t_nbd_status_of (h, (BAD - 8) * T_SECTOR) == hole);
  T_ASSERT (t_nbd_status_of (h, BAD * T_SECTOR) == 0);
  T_ASSERT (t_nbd_status_of (h, BAD * T_SECTOR + 100) == 0);
  T_ASSERT (t_nbd_status_of (h, (BAD + 8) * T_SECTOR) == hole);
  T_ASSERT (t_nbd_status_of (h, (HOLE_FIRST + HOLE_NR) * T_SECTOR) == 0);
  T_ASSERT (t_nbd_check_zero_extents (h) >= (HOLE_NR - 8) * T_SECTOR);
}

static void
check_copy (struct t_server *s)
{
  char *copy = t_path ("copy"), byte;
  char *argv[] = {
    (char *) t_need_tool ("nbdcopy"),
    t_str ("nbd+unix:///?socket=%s", s->socket), copy, NULL
  };
  char buf[T_SECTOR];

  T_ASSERT (t_run (argv, NULL) == 0);
  t_image_read (copy, buf, sizeof buf, BAD * T_SECTOR);
  t_pattern_check (buf, sizeof buf, BAD * T_SECTOR, 2, "copied");
  t_image_check (copy, 0, HOLE_FIRST, 1);
  t_image_check (copy, HOLE_FIRST, BAD - HOLE_FIRST, 0);
  t_image_read (copy, &byte, 1, FILE_BYTES - 1);
}

static void
test_holes (void)
{
  struct t_disk *d = t_disk_new (T_DISK_LOOP, 64 << 20, NULL);
  char *file = make_file (d), *store = t_path ("hole-store");
  struct t_server *s = t_server_start ("backing=%s spare=%s", file, store);
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, BAD - 3, 8, 2));
  t_nbd_expect (h, BAD - 3, 8, 2);
  T_ASSERT (strcmp (t_ctl_state_of (store, BAD), "remapped") == 0);
  punch (file, HOLE_FIRST, HOLE_NR);
  check_status (h);
  t_nbd_expect (h, BAD, 1, 2);
  t_nbd_close (h);
  check_copy (s);
  t_server_kill (s);
  t_server_restart (s);
  h = t_nbd_connect (s);
  check_status (h);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (store);
  if (umount2 (t_path ("ext4"), 0) == -1)
    T_FAIL ("umount: %m");
  t_disk_free (d);
}

/* Where the backing knows no holes: lost and remapped sectors are data, and
 * what is called zero is zero.
 */
static void
test_no_holes (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = "both 300-303\n",
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, 300, 1, 2));
  T_ERRNO (t_nbd_touch (h, 301, 1), EIO);
  T_OK (t_nbd_put (h, 302, 1, 2));
  T_OK (t_nbd_zero (h, T_SECTOR, 302 * T_SECTOR));
  T_ASSERT (t_nbd_status_of (h, 0) == 0);
  T_ASSERT (t_nbd_status_of (h, 300 * T_SECTOR) == 0);
  T_ASSERT (t_nbd_status_of (h, 301 * T_SECTOR) == 0);
  t_nbd_expect (h, 302, 1, 0);
  T_OK (t_nbd_put (h, 301, 1, 0)); /* so that all can be read */
  T_ASSERT (t_nbd_check_zero_extents (h) <= 8 << 20);
  t_nbd_close (h);
  t_server_stop (s);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-extents", 40);
  t_disk_each (t_disk_failing_kinds, test_no_holes);
  if (t_disk_can (T_DISK_LOOP)) {
    t_part ("a file with holes on ext4");
    test_holes ();
  }
  return t_end ();
}
