/* SPDX-License-Identifier: BSD-3-Clause */
/* dev-file: a regular file or a block device.
 *
 * Purpose:    preadv2/pwritev2 and fallocate, with direct I/O where it can be
 *             had, so that pwrite tells what the medium answered.
 * Design:     two file descriptors: `direct` (O_DIRECT, or -1) and `buffered`;
 *             and a third that is only flushed, because the kernel tells each
 *             open file once of lost writes, and a write with FUA that hears
 *             of another's loss must not take it away from the next flush.
 *             What direct I/O cannot take goes through the page cache:
 *             metadata of a store (DEV_BUFFERED), reads at odd places (via a
 *             bounce buffer), and the last page of a file whose size is no
 *             multiple of the page.  All writes of that page go that way, since
 *             the page cache writes whole pages and would overwrite what
 *             direct I/O put beside it; they are durable before they return,
 *             so that an error shows and direct reads find them.
 * Locking:    none; the buffer for bouncing belongs to the thread.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "checked.h"
#include "cleanup.h"
#include "dev.h"
#include "error.h"
#include "log.h"

#define PAGE_BYTES 4096         /* of the page cache, on the machines served */
#define BOUNCE_BYTES (1u << 20)

struct dev_file {
  struct dev dev;
  int buffered, direct, flushed;        /* file descriptors; direct may be -1 */
  uint32_t memory_align, offset_align;  /* of direct I/O */
  uint64_t direct_end;          /* beyond, only buffered writes */
  bool is_trusted;              /* RWF_DSYNC makes durable, and what is
                                   punched out reads as zeroes */
};

static struct dev_file *
dev_file_of (struct dev *dev)
{
  return (struct dev_file *) dev;
}

int
dev_file_fd (const struct dev *dev)
{
  return ((const struct dev_file *) dev)->buffered;
}

/* Buffers of this thread for direct I/O. */

static pthread_key_t bounce_key;
static pthread_once_t bounce_once = PTHREAD_ONCE_INIT;

static void
make_bounce_key (void)
{
  pthread_key_create (&bounce_key, free);
}

static void *
bounce_buffer (void)
{
  void *buf;

  pthread_once (&bounce_once, make_bounce_key);
  buf = pthread_getspecific (bounce_key);
  if (buf == NULL && posix_memalign (&buf, PAGE_BYTES, BOUNCE_BYTES) == 0)
    pthread_setspecific (bounce_key, buf);
  return buf;
}

/* One transfer: all of it, or -1 with errno. */

static int
read_fully (int fd, void *buf, size_t count, uint64_t offset, uint64_t end)
{
  uint8_t *p = buf;

  while (count > 0 && offset < end) {
    ssize_t r = pread (fd, p, count, (off_t) offset);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == 0)
      errno = EIO;              /* a short read inside the disk */
    if (r <= 0)
      return -1;
    p += r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  /* What a rounded request wants beyond the end is not there. */
  memset (p, 0, count);
  return 0;
}

/* fua: durable on return, with the write itself where the file system is known
 * to take RWF_DSYNC seriously, else with a flush behind it.
 */
static int
write_fully (const struct dev_file *f, int fd, const void *buf, size_t count,
             uint64_t offset, bool fua)
{
  const uint8_t *p = buf;
  int rwf = fua && f->is_trusted ? RWF_DSYNC : 0;

  while (count > 0) {
    struct iovec iov = { (void *) (uintptr_t) p, count };
    ssize_t r = pwritev2 (fd, &iov, 1, (off_t) offset, rwf);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == 0)
      errno = EIO;
    if (r <= 0)
      return -1;
    p += r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  return fua && rwf == 0 ? fdatasync (fd) : 0;
}

static int
transfer_failed (const struct dev_file *f, const char *what, size_t count,
                 uint64_t offset)
{
  int err = errno;

  return set_error (err, "%s: %s of %zu bytes at %llu: %s", f->dev.info.name,
                    what, count, (unsigned long long) offset, errno_text (err));
}

/* Reads. */

static bool
fits_direct (const struct dev_file *f, const void *buf, size_t count,
             uint64_t offset)
{
  return is_aligned ((uintptr_t) buf, f->memory_align) &&
    is_aligned (offset | count, f->offset_align);
}

/* Read through the bounce buffer, a piece at a time. */
static int
read_bounced (struct dev_file *f, uint8_t *buf, size_t count, uint64_t offset)
{
  uint8_t *bounce = bounce_buffer ();

  if (bounce == NULL) {
    errno = ENOMEM;
    return -1;
  }
  while (count > 0) {
    uint64_t begin = round_down (offset, f->offset_align);
    size_t skip = (size_t) (offset - begin);
    size_t n = MIN (count, BOUNCE_BYTES - skip);

    if (read_fully (f->direct, bounce, round_up (skip + n, f->offset_align),
                    begin, f->dev.info.size_bytes) == -1)
      return -1;
    memcpy (buf, bounce + skip, n);
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

/* Clean pages alone go; what is there then was read or written just now. */
static void
drop_pages (const struct dev_file *f, size_t count, uint64_t offset)
{
  uint64_t begin = round_down (offset, PAGE_BYTES);

  posix_fadvise (f->buffered, (off_t) begin,
                 (off_t) (round_up (offset + count, PAGE_BYTES) - begin),
                 POSIX_FADV_DONTNEED);
}

static int
file_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
            unsigned flags)
{
  struct dev_file *f = dev_file_of (dev);
  uint64_t end = dev->info.size_bytes;
  int r;

  if (f->direct == -1 && flags & DEV_UNCACHED)
    drop_pages (f, count, offset);
  if (f->direct == -1 || flags & DEV_BUFFERED)
    r = read_fully (f->buffered, buf, count, offset, end);
  else if (fits_direct (f, buf, count, offset))
    r = read_fully (f->direct, buf, count, offset, end);
  else
    r = read_bounced (f, buf, count, offset);
  return r == 0 ? 0 : transfer_failed (f, "read", count, offset);
}

/* Writes. */

static int
write_bounced (struct dev_file *f, const uint8_t *buf, size_t count,
               uint64_t offset, bool fua)
{
  uint8_t *bounce = bounce_buffer ();

  if (bounce == NULL) {
    errno = ENOMEM;
    return -1;
  }
  while (count > 0) {
    size_t n = MIN (count, (size_t) BOUNCE_BYTES);

    memcpy (bounce, buf, n);
    if (write_fully (f, f->direct, bounce, n, offset, fua) == -1)
      return -1;
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

/* How many bytes of a write go to the medium directly: those before
 * direct_end, unless the sectors are finer than direct I/O.
 */
static size_t
direct_part (const struct dev_file *f, size_t count, uint64_t offset)
{
  uint64_t n;

  if (f->direct == -1 || offset >= f->direct_end)
    return 0;
  n = MIN ((uint64_t) count, f->direct_end - offset);
  return is_aligned (offset | n, f->offset_align) ? (size_t) n : 0;
}

static int
file_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
             unsigned flags)
{
  struct dev_file *f = dev_file_of (dev);
  bool wants_direct = f->direct != -1 && !(flags & DEV_BUFFERED);
  bool fua = (flags & DEV_FUA) != 0;
  size_t n = wants_direct ? direct_part (f, count, offset) : 0;
  int r = 0;

  if (n > 0 && fits_direct (f, buf, n, offset))
    r = write_fully (f, f->direct, buf, n, offset, fua);
  else if (n > 0)
    r = write_bounced (f, buf, n, offset, fua);
  /* Where direct I/O was wanted the medium shall answer at once. */
  if (r == 0 && count > n)
    r = write_fully (f, f->buffered, (const uint8_t *) buf + n, count - n,
                     offset + n, fua || wants_direct);
  return r == 0 ? 0 : transfer_failed (f, "write", count, offset);
}

static int
file_flush (struct dev *dev)
{
  struct dev_file *f = dev_file_of (dev);

  if (fdatasync (f->flushed) == -1)
    return set_error (errno, "%s: flush: %s", dev->info.name,
                      errno_text (errno));
  return 0;
}

/* Zero and trim. */

/* The kernel drops what the page cache has of a range before it clears the range:
 * who is killed in between must not find there what is older still.
 */
static int
write_pages (struct dev_file *f, uint64_t count, uint64_t offset)
{
  if (f->direct != -1)
    return 0;
  return sync_file_range (f->buffered, (off_t) offset, (off_t) count,
                          SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                          SYNC_FILE_RANGE_WAIT_AFTER);
}

static int
punch (struct dev_file *f, int mode, uint64_t count, uint64_t offset,
       const char *what)
{
  int r;

  if (write_pages (f, count, offset) == -1)
    return transfer_failed (f, what, count, offset);
  do
    r = fallocate (f->buffered, mode | FALLOC_FL_KEEP_SIZE, (off_t) offset,
                   (off_t) count);
  while (r == -1 && errno == EINTR);
  if (r == -1 && (errno == ENOTSUP || errno == ENOSYS || errno == EINVAL))
    errno = EOPNOTSUPP;
  if (r == -1)
    return transfer_failed (f, what, count, offset);
  return 0;
}

static int
file_zero (struct dev *dev, uint64_t count, uint64_t offset, unsigned flags)
{
  struct dev_file *f = dev_file_of (dev);
  int r = -1;

  errno = EOPNOTSUPP;
  if (flags & DEV_MAY_TRIM && f->is_trusted)
    r = punch (f, FALLOC_FL_PUNCH_HOLE, count, offset, "zero");
  if (r == -1 && errno == EOPNOTSUPP &&
      !(flags & DEV_FAST && dev->info.kind == DEV_BLOCK))
    r = punch (f, FALLOC_FL_ZERO_RANGE, count, offset, "zero");
  if (r == -1 && errno == EOPNOTSUPP)
    return set_error (EOPNOTSUPP, "%s: zero: not supported", dev->info.name);
  return r;
}

static int
file_trim (struct dev *dev, uint64_t count, uint64_t offset, unsigned flags)
{
  struct dev_file *f = dev_file_of (dev);
  int r;

  if (dev->info.kind == DEV_BLOCK) {
    uint64_t range[2] = { offset, count };

    if (write_pages (f, count, offset) == -1)
      return transfer_failed (f, "trim", count, offset);
    r = ioctl (f->buffered, BLKDISCARD, range);
    if (r == -1 && (errno == ENOTTY || errno == EINVAL))
      errno = EOPNOTSUPP;
    if (r == -1)
      return transfer_failed (f, "trim", count, offset);
  }
  else
    r = punch (f, FALLOC_FL_PUNCH_HOLE, count, offset, "trim");
  return r;
}

/* Holes.  lseek moves the file's position, which nothing else here uses; its
 * answer is for the call alone, so threads do not disturb each other.
 */
static int
file_extents (struct dev *dev, uint64_t count, uint64_t offset,
              dev_extents_fn *fn, void *opaque)
{
  struct dev_file *f = dev_file_of (dev);
  const uint64_t end = offset + count;

  while (offset < end) {
    off_t data = lseek (f->buffered, (off_t) offset, SEEK_DATA);
    off_t hole;

    if (data == -1 && errno == ENXIO)
      data = (off_t) end;       /* a hole up to the end */
    if (data == -1)
      goto err;
    if ((uint64_t) data > offset) {
      uint64_t stop = MIN ((uint64_t) data, end);

      if (fn (opaque, offset, stop - offset,
              DEV_EXTENT_HOLE | DEV_EXTENT_ZERO) != 0)
        return -1;
      offset = stop;
      continue;
    }
    hole = lseek (f->buffered, data, SEEK_HOLE);
    if (hole == -1)
      goto err;
    if (fn (opaque, offset, MIN ((uint64_t) hole, end) - offset, 0) != 0)
      return -1;
    offset = MIN ((uint64_t) hole, end);
  }
  return 0;

 err:
  return set_error (errno, "%s: lseek: %s", dev->info.name, errno_text (errno));
}

static int
file_cache (struct dev *dev, uint64_t count, uint64_t offset)
{
  struct dev_file *f = dev_file_of (dev);
  int r = posix_fadvise (f->buffered, (off_t) offset, (off_t) count,
                         POSIX_FADV_WILLNEED);

  return r == 0 ? 0 : set_error (r, "%s: posix_fadvise: %s", dev->info.name,
                                 errno_text (r));
}

static int
file_resize (struct dev *dev, uint64_t size_bytes)
{
  struct dev_file *f = dev_file_of (dev);

  if (dev->info.kind != DEV_FILE)
    return set_error (EOPNOTSUPP, "%s: a device cannot be resized",
                      dev->info.name);
  if (ftruncate (f->buffered, (off_t) size_bytes) == -1)
    return set_error (errno, "%s: cannot be made %llu bytes long: %s",
                      dev->info.name, (unsigned long long) size_bytes,
                      errno_text (errno));
  dev->info.size_bytes = size_bytes;
  if (f->direct != -1)
    f->direct_end = round_down (size_bytes, PAGE_BYTES);
  return 0;
}

static void
file_close (struct dev *dev)
{
  struct dev_file *f = dev_file_of (dev);

  if (f->flushed != -1)
    close (f->flushed);
  if (f->direct != -1)
    close (f->direct);
  if (f->buffered != -1)
    close (f->buffered);
  free (f);
}

static const struct dev_ops file_ops = {
  .pread = file_pread,
  .pwrite = file_pwrite,
  .flush = file_flush,
  .zero = file_zero,
  .trim = file_trim,
  .extents = file_extents,
  .cache = file_cache,
  .resize = file_resize,
  .close = file_close,
};

/* Open. */

static int
open_failed (const char *path)
{
  int err = errno;

  if (err == EBUSY)
    return set_error (EBUSY, "%s is in use (mounted, or claimed by another "
                      "program)", path);
  return set_error (err, "cannot open %s: %s", path, errno_text (err));
}

/* An OFD lock on all of a file: it belongs to the open file, and so survives
 * the fork of a server that becomes a daemon.
 */
static int
lock_file (const struct dev_file *f, const char *path)
{
  struct flock lock = {
    .l_type = f->dev.info.readonly ? F_RDLCK : F_WRLCK,
    .l_whence = SEEK_SET,
  };

  if (fcntl (f->buffered, F_OFD_SETLK, &lock) == 0)
    return 0;
  if (errno == EAGAIN || errno == EACCES)
    return set_error (EBUSY, "%s is locked by another process", path);
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) {
    log_message (LEVEL_WARNING, "%s: the file system has no locks: nothing "
                 "keeps a second server away", path);
    return 0;
  }
  return set_error (errno, "cannot lock %s: %s", path, errno_text (errno));
}

static int
open_buffered (struct dev_file *f, const char *path, unsigned flags)
{
  int mode = flags & DEV_OPEN_READONLY ? O_RDONLY : O_RDWR;
  struct stat st;

  f->dev.info.readonly = (flags & DEV_OPEN_READONLY) != 0;
  if (stat (path, &st) == -1)
    return open_failed (path);
  if (!S_ISREG (st.st_mode) && !S_ISBLK (st.st_mode))
    return set_error (EINVAL, "%s is %s: a regular file or a block device is "
                      "needed", path,
                      S_ISDIR (st.st_mode) ? "a directory"
                      : S_ISCHR (st.st_mode) ? "a character device"
                      : S_ISSOCK (st.st_mode) ? "a socket" : "no disk");
  f->dev.info.kind = S_ISBLK (st.st_mode) ? DEV_BLOCK : DEV_FILE;
  if (S_ISBLK (st.st_mode) && !(flags & DEV_OPEN_NO_LOCK))
    mode |= O_EXCL;             /* refused while mounted or claimed */
  f->buffered = open (path, mode | O_CLOEXEC);
  if (f->buffered == -1)
    return open_failed (path);
  if (S_ISREG (st.st_mode) && !(flags & DEV_OPEN_NO_LOCK))
    return lock_file (f, path);
  return 0;
}

/* Does direct I/O take 512 bytes?  offset_align 0: there is none.  Asked of the kernel where it can say; else
 * tried, where a bad sector is as good an answer as a good one.
 */
static void
find_alignment (struct dev_file *f)
{
  struct statx sx;
  void *buf;

  f->memory_align = f->offset_align = 512;
  if (f->dev.info.kind == DEV_BLOCK) {
    int logical = 512;

    if (ioctl (f->direct, BLKSSZGET, &logical) == 0)
      f->memory_align = f->offset_align = (uint32_t) logical;
  }
#ifdef STATX_DIOALIGN
  if (statx (f->direct, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
      sx.stx_mask & STATX_DIOALIGN) {
    if (sx.stx_dio_offset_align == 0)
      f->offset_align = 0;      /* none: it would be buffered all the same */
    if (f->offset_align == 0)
      return;
    f->memory_align = MAX (sx.stx_dio_mem_align, 1u);
    if (f->dev.info.kind == DEV_FILE)
      f->offset_align = MAX (sx.stx_dio_offset_align, 512u);
    return;
  }
#else
  (void) sx;
#endif
  if (f->dev.info.kind == DEV_BLOCK ||
      posix_memalign (&buf, PAGE_BYTES, PAGE_BYTES) != 0)
    return;
  if (pread (f->direct, buf, 512, 0) == -1 && errno == EINVAL)
    f->memory_align = f->offset_align = PAGE_BYTES;
  free (buf);
}

/* Open again what `buffered` is, with other flags; -1 with errno. */
static int
open_again (const struct dev_file *f, const char *path, int flags)
{
  int fd = open (path, flags | O_CLOEXEC);
  struct stat a, b;

  if (fd == -1)
    return -1;
  if (fstat (f->buffered, &a) == 0 && fstat (fd, &b) == 0 &&
      a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_rdev == b.st_rdev)
    return fd;
  close (fd);
  errno = ESTALE;               /* it was replaced meanwhile */
  return -1;
}

static int
no_direct (struct dev_file *f, const char *path, enum dev_direct direct,
           const char *why)
{
  if (f->direct != -1)
    close (f->direct);
  f->direct = -1;
  if (direct == DEV_DIRECT_ON)
    return set_error (EINVAL, "%s: no direct I/O (%s): use direct=auto or "
                      "direct=off", path, why);
  return 0;
}

/* 0 with f->direct == -1: the kernel has no direct I/O for it. */
static int
open_direct (struct dev_file *f, const char *path, enum dev_direct direct)
{
  if (direct == DEV_DIRECT_OFF)
    return 0;
  f->direct = open_again (f, path, O_DIRECT |
                          (f->dev.info.readonly ? O_RDONLY : O_RDWR));
  if (f->direct == -1 && errno == ESTALE)
    return open_failed (path);
  if (f->direct == -1)
    return no_direct (f, path, direct, errno_text (errno));
  find_alignment (f);
  if (f->offset_align == 0)
    return no_direct (f, path, direct, "the file system only pretends it");
  if (f->offset_align > PAGE_BYTES || !is_power_of_2 (f->offset_align))
    return no_direct (f, path, direct, "it takes too large blocks");
  return 0;
}

static int
open_flushed (struct dev_file *f, const char *path)
{
  f->flushed = open_again (f, path, O_RDONLY);
  return f->flushed == -1 ? open_failed (path) : 0;
}

static bool
is_rotational (dev_t device)
{
  char path[128], answer = '0';
  CLEANUP_CLOSE int fd = -1;

  snprintf (path, sizeof path, "/sys/dev/block/%u:%u/queue/rotational",
            major (device), minor (device));
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd == -1) {               /* a partition: its disk knows */
    snprintf (path, sizeof path, "/sys/dev/block/%u:%u/../queue/rotational",
              major (device), minor (device));
    fd = open (path, O_RDONLY | O_CLOEXEC);
  }
  return fd != -1 && read (fd, &answer, 1) == 1 && answer == '1';
}

static int
describe_block (struct dev_file *f, const struct stat *st)
{
  struct dev_info *info = &f->dev.info;
  int logical = 512;
  unsigned physical = 512;
  int misaligned = 0;           /* physical sectors begin elsewhere */

  if (ioctl (f->buffered, BLKGETSIZE64, &info->size_bytes) == -1)
    return set_error (errno, "%s: BLKGETSIZE64: %s", info->name,
                      errno_text (errno));
  if (ioctl (f->buffered, BLKSSZGET, &logical) == 0)
    info->sector_bytes = (uint32_t) logical;
  info->physical_bytes = info->sector_bytes;
  if (ioctl (f->buffered, BLKPBSZGET, &physical) == 0 &&
      physical > info->sector_bytes && is_power_of_2 (physical) &&
      physical <= 65536 && ioctl (f->buffered, BLKALIGNOFF, &misaligned) == 0 &&
      misaligned == 0)
    info->physical_bytes = physical;
  info->rotational = is_rotational (st->st_rdev);
  return 0;
}

/* FUSE and network file systems may not hand RWF_DSYNC on, and some answer
 * FALLOC_FL_PUNCH_HOLE with a trim that leaves the data (nbdfuse 1.14).
 */
static bool
is_trusted (const struct dev_file *f)
{
  struct statfs fs;

  if (f->dev.info.kind == DEV_BLOCK)
    return true;
  if (fstatfs (f->buffered, &fs) == -1)
    return false;
  return fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
    fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC;
}

static int
describe (struct dev_file *f)
{
  struct dev_info *info = &f->dev.info;
  struct stat st;

  if (fstat (f->buffered, &st) == -1)
    return set_error (errno, "%s: fstat: %s", info->name, errno_text (errno));
  info->size_bytes = (uint64_t) st.st_size;
  info->sector_bytes = info->physical_bytes = 512;
  if (f->direct != -1 && info->kind == DEV_FILE)
    info->sector_bytes = info->physical_bytes = f->offset_align;
  if (info->kind == DEV_BLOCK && describe_block (f, &st) == -1)
    return -1;
  f->direct_end = info->kind == DEV_BLOCK ? info->size_bytes
    : round_down (info->size_bytes, PAGE_BYTES);
  f->is_trusted = is_trusted (f);
  info->direct = f->direct != -1;
  info->can_zero = info->can_trim = !info->readonly;
  info->can_extents = info->kind == DEV_FILE &&
    lseek (f->buffered, 0, SEEK_HOLE) >= 0;
  info->can_cache = f->direct == -1;
  return 0;
}

int
dev_file_forget_cache (struct dev *dev)
{
  if (dev_flush (dev) == -1)
    return -1;
  posix_fadvise (dev_file_fd (dev), 0, 0, POSIX_FADV_DONTNEED);
  return 0;
}

struct dev *
dev_file_open (const char *path, enum dev_direct direct, unsigned flags)
{
  struct dev_file *f = calloc (1, sizeof *f);

  if (f == NULL) {
    set_error (ENOMEM, "no memory to open %s", path);
    return NULL;
  }
  dev_init (&f->dev, &file_ops);
  f->buffered = f->direct = f->flushed = -1;
  snprintf (f->dev.info.name, sizeof f->dev.info.name, "%s", path);
  if (open_buffered (f, path, flags) == 0 &&
      open_direct (f, path, direct) == 0 && open_flushed (f, path) == 0 &&
      describe (f) == 0)
    return &f->dev;
  dev_close (&f->dev);
  return NULL;
}
