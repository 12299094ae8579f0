/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bench.h"
#include "guard.h"
#include "image.h"

#define PIECE_BYTES (UINT64_C (1) << 20)

static uint8_t piece[PIECE_BYTES] __attribute__ ((aligned (4096)));

static const char *const names[NR_IMAGE_KINDS] = { "memory", "loop", "disk" };

const char *
image_kind_name (enum image_kind kind)
{
  return names[kind];
}

/* Nothing that a file system or a device could make small. */
static void
fill_piece (void)
{
  static uint64_t x = UINT64_C (0x9e3779b97f4a7c15);
  uint64_t *words = (uint64_t *) (void *) piece;

  for (size_t i = 0; i < PIECE_BYTES / sizeof x; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    words[i] = x;
  }
}

static void
make_file (struct image *image, uint64_t nr_filled)
{
  image->fd = open (image->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (image->fd == -1 ||
      ftruncate (image->fd, (off_t) image->size_bytes) == -1)
    bench_fail ("%s: %s", image->path, strerror (errno));
  for (uint64_t at = 0; at < nr_filled; at += PIECE_BYTES) {
    fill_piece ();
    if (pwrite (image->fd, piece, PIECE_BYTES, (off_t) at)
        != (ssize_t) PIECE_BYTES)
      bench_fail ("%s: no room for %llu MiB; see --size, --images",
                  image->path, (unsigned long long) nr_filled >> 20);
  }
}

static bool
can_open_direct (const char *path)
{
  int fd = open (path, O_RDWR | O_DIRECT | O_CLOEXEC);

  if (fd != -1)
    close (fd);
  return fd != -1;
}

/* Numbers of memory that is really a disk would mislead. */
static const char *
memory_dir (void)
{
  struct statfs fs;

  if (statfs ("/dev/shm", &fs) == -1 || fs.f_type != TMPFS_MAGIC)
    bench_fail ("/dev/shm is no tmpfs; leave it out: --images=disk");
  return "/dev/shm";
}

static const char *
disk_dir (void)
{
  const char *dir = getenv ("TMPDIR");
  static char here[4096];

  if (dir && dir[0])
    return dir;
  if (getcwd (here, sizeof here) == NULL)
    bench_fail ("the current directory has no name");
  return here;
}

/* -------------------------------------------------------- loop devices -- */

/* The next free one; it goes when the last that has it open closes it. */
static int
configure_loop (int file, bool is_direct, char *ret_path, size_t size)
{
  struct loop_config config = { .fd = (uint32_t) file };
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC), n, fd;

  config.info.lo_flags = LO_FLAGS_AUTOCLEAR
    | (is_direct ? LO_FLAGS_DIRECT_IO : 0);
  for (unsigned nr_tries = 0; control != -1 && nr_tries < 16; nr_tries++) {
    n = ioctl (control, LOOP_CTL_GET_FREE);
    snprintf (ret_path, size, "/dev/loop%d", n);
    fd = n == -1 ? -1 : open (ret_path, O_RDWR | O_CLOEXEC);
    if (fd != -1 && ioctl (fd, LOOP_CONFIGURE, &config) == 0) {
      close (control);
      return fd;
    }
    if (fd != -1)
      close (fd);               /* somebody else was quicker, or EINVAL */
  }
  if (control != -1)
    close (control);
  return -1;
}

static bool
loop_is_direct (int fd)
{
  struct loop_info64 info;

  return ioctl (fd, LOOP_GET_STATUS64, &info) == 0 &&
    (info.lo_flags & LO_FLAGS_DIRECT_IO);
}

/* The file has no name from now on: so it goes with the device. */
static void
put_loop_over (struct image *image)
{
  int file = image->fd;

  unlink (image->path);
  image->fd = configure_loop (file, true, image->path, sizeof image->path);
  if (image->fd == -1)
    image->fd = configure_loop (file, false, image->path, sizeof image->path);
  if (image->fd == -1)
    bench_fail ("no loop device can be made (%s): this needs root; or leave it "
                "out: --images=memory,disk", strerror (errno));
  close (file);
  printf ("\n%s is a loop device over a file in /dev/shm, %s\n", image->path,
          loop_is_direct (image->fd) ? "--direct-io=on"
          : "--direct-io=off: this kernel has none on a tmpfs");
}

/* ---------------------------------------------------------------- all -- */

static void
begin_image (struct image *image, const char *parent, const char *name,
             uint64_t size_bytes)
{
  *image = (struct image) { .name = name, .size_bytes = size_bytes };
  snprintf (image->dir, sizeof image->dir, "%s",
            guard_make_dir (parent, "bench-nbd"));
  snprintf (image->path, sizeof image->path, "%s/disk", image->dir);
  snprintf (image->store, sizeof image->store, "%s/store", image->dir);
}

void
image_make (struct image *image, enum image_kind kind, uint64_t size_bytes)
{
  begin_image (image, kind == IMAGE_DISK ? disk_dir () : memory_dir (),
               names[kind], size_bytes);
  make_file (image, size_bytes);
  if (kind == IMAGE_LOOP)
    put_loop_over (image);
  image->takes_direct = can_open_direct (image->path);
}

void
image_make_sparse (struct image *image, uint64_t nr_filled,
                   uint64_t size_bytes)
{
  struct statfs fs;
  bool has_memory = statfs ("/dev/shm", &fs) == 0 &&
    fs.f_type == TMPFS_MAGIC;

  begin_image (image, has_memory ? "/dev/shm" : disk_dir (), "sparse",
               size_bytes);
  make_file (image, nr_filled);
  image->takes_direct = can_open_direct (image->path);
}

/* The directory is removed at the end; what is large, now. */
void
image_remove (struct image *image)
{
  close (image->fd);
  if (strncmp (image->path, image->dir, strlen (image->dir)) == 0)
    unlink (image->path);
  unlink (image->store);
}

static void
read_in (struct image *image)
{
  for (uint64_t at = 0; at < image->size_bytes; at += PIECE_BYTES)
    if (pread (image->fd, piece, PIECE_BYTES, (off_t) at) <= 0)
      bench_fail ("%s: %s", image->path, strerror (errno));
}

void
image_settle (struct image *image, bool is_cached)
{
  struct stat st;

  if (fsync (image->fd) == -1 || fstat (image->fd, &st) == -1)
    bench_fail ("%s: %s", image->path, strerror (errno));
  if (is_cached)
    read_in (image);
  else if (S_ISBLK (st.st_mode))
    ioctl (image->fd, BLKFLSBUF, 0);
  else
    posix_fadvise (image->fd, 0, 0, POSIX_FADV_DONTNEED);
}
