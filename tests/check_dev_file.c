/* SPDX-License-Identifier: BSD-3-Clause */
/* Unit test of dev-file.  Its source is included, so that transfers can be
 * made short, interrupted, counted and failed on their way to the kernel.
 */
#include <config.h>

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dev.h"

/* What is to happen to transfers, and what did. */
static struct {
  bool cut;                     /* make them short, interrupt them */
  int fail_errno;               /* 0: none fails */
  int flush_errno;
  unsigned nr_direct_reads, nr_buffered_reads;
  unsigned nr_direct_writes, nr_buffered_writes;
  unsigned nr_unsynced_writes, nr_flushes;
} shim;

static bool
is_direct (int fd)
{
  return fcntl (fd, F_GETFL) & O_DIRECT;
}

/* 0: interrupt; else how much to transfer, in sectors where it must be. */
static size_t
shorten (int fd, size_t count)
{
  size_t unit = is_direct (fd) ? 4096 : 1;

  if (!shim.cut)
    return count;
  if (random () % 4 == 0)
    return 0;
  if (count <= unit)
    return count;
  return unit * (1 + (size_t) random () % (count / unit));
}

static ssize_t
shim_pread (int fd, void *buf, size_t count, off_t offset)
{
  size_t n = shorten (fd, count);

  if (is_direct (fd))
    shim.nr_direct_reads++;
  else
    shim.nr_buffered_reads++;
  errno = n == 0 ? EINTR : shim.fail_errno;
  return errno ? -1 : pread (fd, buf, n, offset);
}

static ssize_t
shim_pwritev2 (int fd, const struct iovec *iov, int nr_iov, off_t offset,
               int flags)
{
  size_t n = shorten (fd, iov->iov_len);

  ck_assert_int_eq (nr_iov, 1);
  if (is_direct (fd))
    shim.nr_direct_writes++;
  else
    shim.nr_buffered_writes++;
  shim.nr_unsynced_writes += !(flags & RWF_DSYNC);
  errno = n == 0 ? EINTR : shim.fail_errno;
  return errno ? -1
    : pwritev2 (fd, &(struct iovec) { iov->iov_base, n }, 1, offset, flags);
}

static int
shim_fdatasync (int fd)
{
  shim.nr_flushes++;
  errno = shim.flush_errno;
  return errno ? -1 : fdatasync (fd);
}

#define pread(fd, buf, count, offset) shim_pread (fd, buf, count, offset)
#define pwritev2(fd, iov, nr, offset, flags)                                  \
  shim_pwritev2 (fd, iov, nr, offset, flags)
#define fdatasync(fd) shim_fdatasync (fd)
#include "dev-file.c"
#undef pread
#undef pwritev2
#undef fdatasync

/* A directory and a file in it. */

static char folder[64], path[96];

/* In the build tree: /tmp may be memory, and without direct I/O. */
static void
make_folder (void)
{
  snprintf (folder, sizeof folder, "./dev-file.XXXXXX");
  ck_assert_ptr_nonnull (mkdtemp (folder));
  snprintf (path, sizeof path, "%s/disk", folder);
}

static void
remove_folder (void)
{
  DIR *dir = opendir (folder);
  struct dirent *d;

  while ((d = readdir (dir)))
    unlinkat (dirfd (dir), d->d_name, 0);
  closedir (dir);
  rmdir (folder);
}

static void
make_file (uint64_t size)
{
  int fd = open (path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

  ck_assert_int_ne (fd, -1);
  ck_assert_int_eq (ftruncate (fd, (off_t) size), 0);
  close (fd);
}

static struct dev *
open_file (enum dev_direct direct)
{
  struct dev *dev = dev_file_open (path, direct, 0);

  if (dev == NULL)
    ck_abort_msg ("%s", last_error_text ());
  return dev;
}

/* Opening fails, with this error and a message that names the file. */
static void
check_refused (const char *what, enum dev_direct direct, unsigned flags,
               int err, const char *says)
{
  struct dev *dev = dev_file_open (what, direct, flags);
  int is = errno;

  ck_assert_ptr_null (dev);
  ck_assert_int_eq (is, err);
  ck_assert_int_eq (last_error_errno (), err);
  if (strstr (last_error_text (), what) == NULL ||
      strstr (last_error_text (), says) == NULL)
    ck_abort_msg ("\"%s\" says nothing of %s or \"%s\"", last_error_text (),
                  what, says);
}

static unsigned
seed_random (const char *test, int i)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) strtoul (given, NULL, 10)
    : (unsigned) time (NULL) * 100 + (unsigned) i;

  printf ("%s: REMAP_TEST_SEED=%u\n", test, seed);
  fflush (stdout);
  srandom (seed);
  return seed;
}

static uint64_t
random_below (uint64_t n)
{
  return ((uint64_t) random () << 31 | (uint64_t) random ()) % n;
}

/* What can be opened. */

START_TEST (info_of_a_file)
{
  struct dev *dev;

  make_file (1000003);
  dev = open_file (DEV_DIRECT_OFF);
  ck_assert_uint_eq (dev->info.size_bytes, 1000003);
  ck_assert_uint_eq (dev->info.sector_bytes, 512);
  ck_assert_uint_eq (dev->info.physical_bytes, 512);
  ck_assert_int_eq (dev->info.kind, DEV_FILE);
  ck_assert (!dev->info.readonly && !dev->info.direct);
  ck_assert (dev->info.can_zero && dev->info.can_trim);
  ck_assert (dev->info.can_cache);
  ck_assert_str_eq (dev->info.name, path);
  ck_assert_int_eq (dev_cache (dev, 5000, 3), 0);
  dev_close (dev);

  dev = open_file (DEV_DIRECT_AUTO);
  ck_assert (dev->info.direct == !dev->info.can_cache);
  if (dev->info.direct) {
    struct dev *second;

    dev_close (dev);
    second = open_file (DEV_DIRECT_ON);
    ck_assert (second->info.direct);
    ck_assert_uint_ge (second->info.sector_bytes, 512);
    dev = second;
  }
  dev_close (dev);
  dev_close (NULL);
}
END_TEST

START_TEST (readonly)
{
  struct dev *dev;

  make_file (4096);
  ck_assert_int_eq (chmod (path, 0400), 0);
  dev = dev_file_open (path, DEV_DIRECT_AUTO, DEV_OPEN_READONLY);
  ck_assert_ptr_nonnull (dev);
  ck_assert (dev->info.readonly);
  ck_assert (!dev->info.can_zero && !dev->info.can_trim);
  ck_assert_int_eq (dev_pwrite (dev, path, 8, 0, DEV_BUFFERED), -1);
  ck_assert_int_eq (dev->ops->zero (dev, 4096, 0, 0), -1);
  ck_assert_int_eq (dev->ops->trim (dev, 4096, 0, 0), -1);
  dev_close (dev);
}
END_TEST

START_TEST (what_is_no_disk_is_refused)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  check_refused (folder, DEV_DIRECT_AUTO, 0, EINVAL, "directory");
  check_refused ("/dev/null", DEV_DIRECT_AUTO, 0, EINVAL, "character device");
  check_refused (path, DEV_DIRECT_AUTO, 0, ENOENT, "No such file");
  ck_assert_int_eq (mkfifo (path, 0600), 0);    /* must not hang */
  check_refused (path, DEV_DIRECT_AUTO, 0, EINVAL, "regular file");
  ck_assert_int_eq (unlink (path), 0);

  snprintf (address.sun_path, sizeof address.sun_path, "%s", path);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq (bind (fd, (struct sockaddr *) &address, sizeof address), 0);
  check_refused (path, DEV_DIRECT_AUTO, 0, EINVAL, "socket");
  close (fd);
}
END_TEST

/* A regular file, of a file system without direct I/O. */
START_TEST (direct_where_there_is_none)
{
  static const char no_direct[] = "/proc/version";
  struct dev *dev;

  check_refused (no_direct, DEV_DIRECT_ON,
                 DEV_OPEN_READONLY | DEV_OPEN_NO_LOCK, EINVAL,
                 "no direct I/O");
  dev = dev_file_open (no_direct, DEV_DIRECT_AUTO,
                       DEV_OPEN_READONLY | DEV_OPEN_NO_LOCK);
  ck_assert_ptr_nonnull (dev);
  ck_assert (!dev->info.direct);
  dev_close (dev);
}
END_TEST

/* Locks. */

START_TEST (second_opening_is_refused)
{
  struct dev *dev, *second;

  make_file (8192);
  dev = open_file (DEV_DIRECT_AUTO);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "locked");
  check_refused (path, DEV_DIRECT_OFF, DEV_OPEN_READONLY, EBUSY, "locked");
  second = dev_file_open (path, DEV_DIRECT_OFF,
                          DEV_OPEN_READONLY | DEV_OPEN_NO_LOCK);
  ck_assert_ptr_nonnull (second);
  dev_close (second);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "locked");
  dev_close (dev);
  dev_close (open_file (DEV_DIRECT_AUTO));
}
END_TEST

START_TEST (readers_share)
{
  struct dev *a, *b;

  make_file (8192);
  a = dev_file_open (path, DEV_DIRECT_AUTO, DEV_OPEN_READONLY);
  b = dev_file_open (path, DEV_DIRECT_AUTO, DEV_OPEN_READONLY);
  ck_assert_ptr_nonnull (a);
  ck_assert_ptr_nonnull (b);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "locked");
  dev_close (a);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "locked");
  dev_close (b);
  dev_close (open_file (DEV_DIRECT_AUTO));
}
END_TEST

/* As when nbdkit goes into the background. */
START_TEST (lock_survives_a_fork)
{
  struct dev *dev;
  int go_on[2], status;
  char byte;
  pid_t child;

  make_file (8192);
  ck_assert_int_eq (pipe2 (go_on, O_CLOEXEC), 0);
  dev = open_file (DEV_DIRECT_AUTO);
  child = fork ();
  if (child == 0) {
    close (go_on[1]);
    _exit (read (go_on[0], &byte, 1) == 0 ? 0 : 1);
  }
  dev_close (dev);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "locked");
  close (go_on[1]);
  ck_assert_int_eq (waitpid (child, &status, 0), child);
  ck_assert_int_eq (status, 0);
  close (go_on[0]);
  dev_close (open_file (DEV_DIRECT_AUTO));
}
END_TEST

/* Data, against a copy in memory. */

#define MAX_COUNT (3u << 20)    /* more than the bounce buffer takes */

struct mirror {
  struct dev *dev;
  uint64_t size;
  uint8_t *bytes, *buf;
};

static void
mirror_init (struct mirror *m, struct dev *dev)
{
  m->dev = dev;
  m->size = dev->info.size_bytes;
  m->bytes = calloc (1, m->size);
  ck_assert_int_eq (posix_memalign ((void **) &m->buf, 4096,
                                    MAX_COUNT + 4096), 0);
}

static void
mirror_free (struct mirror *m)
{
  dev_close (m->dev);
  free (m->bytes);
  free (m->buf);
}

/* Mostly at the begin of the buffer, where direct I/O can use it. */
static uint8_t *
random_buffer (struct mirror *m)
{
  return m->buf + (random_below (3) ? 0 : 1 + random_below (4095));
}

static void
random_range (const struct mirror *m, uint64_t unit, uint64_t *ret_offset,
              size_t *ret_count)
{
  uint64_t nr_units = (m->size + unit - 1) / unit, end;
  uint64_t first = random_below (3) ? random_below (nr_units)
    : nr_units - 1 - random_below (MIN (nr_units, UINT64_C (9)));
  uint64_t max = random_below (20) ? 20 : MAX_COUNT / unit;

  *ret_offset = first * unit;
  end = MIN (m->size, *ret_offset + (1 + random_below (max)) * unit);
  *ret_count = (size_t) (end - *ret_offset);
}

static void
check_read (struct mirror *m, uint64_t offset, size_t count, unsigned flags)
{
  uint8_t *buf = random_buffer (m);

  if (dev_pread (m->dev, buf, count, offset, flags) == -1)
    ck_abort_msg ("%s", last_error_text ());
  if (memcmp (buf, m->bytes + offset, count) != 0)
    ck_abort_msg ("read of %zu bytes at %llu", count,
                  (unsigned long long) offset);
}

static void
check_write (struct mirror *m, uint64_t offset, size_t count, unsigned flags)
{
  uint8_t *buf = random_buffer (m);
  uint64_t pattern = random_below (UINT64_MAX);

  for (size_t i = 0; i < count; i++)
    buf[i] = (uint8_t) (pattern + i * 7 + (offset + i) / 512);
  if (dev_pwrite (m->dev, buf, count, offset, flags) == -1)
    ck_abort_msg ("%s", last_error_text ());
  memcpy (m->bytes + offset, buf, count);
}

/* What other programs read. */
static void
check_content (const struct mirror *m)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  uint8_t *bytes = malloc (m->size);
  struct stat st;

  ck_assert_int_eq (fstat (fd, &st), 0);
  if (S_ISREG (st.st_mode))
    ck_assert_uint_eq ((uint64_t) st.st_size, m->size);
  ck_assert_int_eq (pread (fd, bytes, m->size, 0), (ssize_t) m->size);
  ck_assert_mem_eq (bytes, m->bytes, m->size);
  free (bytes);
  close (fd);
}

static void
check_random_io (struct mirror *m, unsigned nr)
{
  uint64_t offset;
  size_t count;

  for (unsigned i = 0; i < nr; i++)
    switch (random_below (8)) {
    case 0: case 1:
      random_range (m, m->dev->info.sector_bytes, &offset, &count);
      check_write (m, offset, count, random_below (4) ? 0 : DEV_FUA);
      break;
    case 2:
      random_range (m, m->dev->info.sector_bytes, &offset, &count);
      check_read (m, offset, count, 0);
      break;
    case 3:
      ck_assert_int_eq (dev_flush (m->dev), 0);
      break;
    default:
      random_range (m, 1, &offset, &count);
      check_read (m, offset, count, 0);
    }
  ck_assert_int_eq (dev_flush (m->dev), 0);
}

/* Sizes whose last page, last sector and neither is short. */
static const uint64_t sizes[] = {
  4 << 20, (4 << 20) + 777, (4 << 20) + 1024, (4 << 20) - 1, 100, 4096, 5000,
};
#define NR_SIZES (sizeof sizes / sizeof sizes[0])

START_TEST (random_io)
{
  struct mirror m;

  seed_random ("random_io", _i);
  make_file (sizes[(unsigned) _i / 2]);
  mirror_init (&m, open_file (_i % 2 ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO));
  check_random_io (&m, 500);
  check_content (&m);
  mirror_free (&m);
}
END_TEST

START_TEST (short_and_interrupted_transfers)
{
  struct mirror m;

  seed_random ("short_and_interrupted_transfers", _i);
  make_file (sizes[(unsigned) _i / 2]);
  mirror_init (&m, open_file (_i % 2 ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO));
  shim.cut = true;
  check_random_io (&m, 300);
  check_content (&m);
  mirror_free (&m);
}
END_TEST

/* What is in the page cache and what is on the medium are the same, at every
 * byte, as a store uses it: data directly, tables beside it buffered.
 */
START_TEST (buffered_beside_direct)
{
  struct mirror m;
  uint64_t offset;
  size_t count;

  seed_random ("buffered_beside_direct", _i);
  make_file (1 << 20);
  mirror_init (&m, open_file (DEV_DIRECT_AUTO));
  for (unsigned i = 0; i < 500; i++) {
    bool is_table = random_below (2);
    unsigned flags = is_table ? DEV_BUFFERED : 0;

    random_range (&m, is_table ? 1 : m.dev->info.sector_bytes, &offset, &count);
    if (random_below (2))
      check_read (&m, offset, count, flags);
    /* Direct and buffered writes share no page. */
    else if (is_table && offset < m.size / 2)
      check_write (&m, offset, MIN (count, m.size / 2 - offset), flags);
    else if (!is_table && offset >= m.size / 2)
      check_write (&m, offset, count, flags);
  }
  check_content (&m);
  mirror_free (&m);
}
END_TEST

/* Direct I/O answers for the medium; where it cannot be had, the write waits
 * until it is durable.
 */
START_TEST (a_write_shows_its_error_at_once)
{
  static uint8_t sector[4096] __attribute__ ((aligned (4096)));
  struct dev *dev;

  make_file (8192 + 700);
  dev = open_file (DEV_DIRECT_AUTO);
  if (dev->info.direct) {
    ck_assert_int_eq (dev_pwrite (dev, sector, 4096, 4096, 0), 0);
    ck_assert_uint_eq (shim.nr_direct_writes, 1);
    ck_assert_uint_eq (shim.nr_buffered_writes, 0);
    shim.nr_unsynced_writes = 0;
    /* Of the last page, which the page cache has a part in. */
    ck_assert_int_eq (dev_pwrite (dev, sector, 700, 8192, 0), 0);
    ck_assert_uint_eq (shim.nr_direct_writes, 1);
    ck_assert_uint_eq (shim.nr_buffered_writes, 1);
    ck_assert_int_eq (dev_pwrite (dev, sector, 512, 8192, 0), 0);
    ck_assert_uint_eq (shim.nr_direct_writes, 1);
    ck_assert_uint_eq (shim.nr_buffered_writes, 2);
    ck_assert (shim.nr_unsynced_writes == 0 || shim.nr_flushes > 0);
    shim.fail_errno = EIO;
    ck_assert_int_eq (dev_pwrite (dev, sector, 700, 8192, 0), -1);
    ck_assert_int_eq (errno, EIO);
  }
  dev_close (dev);
}
END_TEST

START_TEST (fua_is_durable)
{
  static uint8_t sector[4096] __attribute__ ((aligned (4096)));
  bool is_trusted = _i & 1, direct = _i & 2;
  struct dev *dev;

  make_file (8192 + 700);
  dev = open_file (direct ? DEV_DIRECT_AUTO : DEV_DIRECT_OFF);
  dev_file_of (dev)->is_trusted = is_trusted;
  ck_assert_int_eq (dev_pwrite (dev, sector, 4096, 0, 0), 0);
  ck_assert_uint_eq (shim.nr_flushes, 0);

  for (uint64_t offset = 0; offset <= 8192; offset += 4096) {
    size_t count = offset == 8192 ? 700 : 4096;

    shim.nr_unsynced_writes = shim.nr_flushes = 0;
    ck_assert_int_eq (dev_pwrite (dev, sector, count, offset, DEV_FUA), 0);
    ck_assert (is_trusted ? shim.nr_unsynced_writes == 0
               : shim.nr_flushes > 0);
  }
  if (!is_trusted) {
    shim.flush_errno = EIO;
    ck_assert_int_eq (dev_pwrite (dev, sector, 4096, 0, DEV_FUA), -1);
    ck_assert_int_eq (errno, EIO);
  }
  dev_close (dev);
}
END_TEST

/* Errors. */

START_TEST (errors_are_told)
{
  static const int errors[] = { EIO, ENODATA, EILSEQ, ENOSPC, ENODEV };
  static uint8_t sector[512] __attribute__ ((aligned (512)));
  struct dev *dev;

  make_file (8192);
  dev = open_file (_i % 2 ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO);
  shim.fail_errno = shim.flush_errno = errors[_i / 2];
  ck_assert_int_eq (dev_pread (dev, sector, 512, 0, 0), -1);
  ck_assert_int_eq (errno, errors[_i / 2]);
  ck_assert_int_eq (last_error_errno (), errors[_i / 2]);
  ck_assert_ptr_nonnull (strstr (last_error_text (), path));
  ck_assert_ptr_nonnull (strstr (last_error_text (), "read of 512 bytes at 0"));
  ck_assert_int_eq (dev_pread (dev, sector, 10, 3, 0), -1);
  ck_assert_int_eq (errno, errors[_i / 2]);
  ck_assert_int_eq (dev_pwrite (dev, sector, 512, 0, 0), -1);
  ck_assert_int_eq (errno, errors[_i / 2]);
  ck_assert_int_eq (dev_flush (dev), -1);
  ck_assert_int_eq (errno, errors[_i / 2]);
  dev_close (dev);
}
END_TEST

/* The kernel tells of it once. */
START_TEST (failed_flush_stays_failed)
{
  static uint8_t sector[512] __attribute__ ((aligned (512)));
  struct dev *dev;

  make_file (8192);
  dev = open_file (DEV_DIRECT_AUTO);
  ck_assert_int_eq (dev_flush (dev), 0);
  shim.flush_errno = ENOSPC;
  ck_assert_int_eq (dev_flush (dev), -1);
  shim.flush_errno = 0;
  for (unsigned i = 0; i < 3; i++) {
    errno = 0;
    ck_assert_int_eq (dev_flush (dev), -1);
    ck_assert_int_eq (errno, ENOSPC);
    ck_assert_ptr_nonnull (strstr (last_error_text (), path));
  }
  ck_assert_int_eq (dev_pwrite (dev, sector, 512, 0, 0), 0);
  dev_close (dev);
}
END_TEST

/* A disk that is shorter than it was: a medium error, and no zeroes. */
START_TEST (short_read_inside_the_disk)
{
  static uint8_t buf[16384] __attribute__ ((aligned (4096)));
  struct dev *dev;

  make_file (65536);
  dev = open_file (_i ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO);
  ck_assert_int_eq (truncate (path, 20480), 0);
  ck_assert_int_eq (dev_pread (dev, buf, 4096, 16384, 0), 0);
  for (unsigned i = 0; i < 3; i++) {
    ck_assert_int_eq (dev_pread (dev, buf, 16384 - i, 16384 + i, 0), -1);
    ck_assert_int_eq (errno, EIO);
  }
  ck_assert_int_eq (dev_pread (dev, buf, 1, 65535, 0), -1);
  ck_assert_int_eq (errno, EIO);
  dev_close (dev);
}
END_TEST

/* Zero, trim, extents, resize. */

/* It reads as zeroes, or nothing has happened. */
static void
check_zero (struct mirror *m, uint64_t count, uint64_t offset, unsigned flags)
{
  int r = m->dev->ops->zero (m->dev, count, offset, flags);

  if (r == 0)
    memset (m->bytes + offset, 0, count);
  else
    ck_assert_int_eq (errno, EOPNOTSUPP);
  check_read (m, offset > 5000 ? offset - 5000 : 0, (size_t) MIN
              (count + 10000, m->size - (offset > 5000 ? offset - 5000 : 0)),
              0);
}

START_TEST (zero)
{
  static const unsigned flags[] = {
    0, DEV_MAY_TRIM, DEV_FAST, DEV_MAY_TRIM | DEV_FAST,
  };
  struct mirror m;

  seed_random ("zero", _i);
  make_file ((1 << 20) + 777);
  mirror_init (&m, open_file (_i ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO));
  for (unsigned i = 0; i < 100; i++) {
    uint64_t offset;
    size_t count;

    random_range (&m, m.dev->info.sector_bytes, &offset, &count);
    check_write (&m, offset, count, 0);
    random_range (&m, m.dev->info.sector_bytes, &offset, &count);
    check_zero (&m, count, offset, flags[i % 4]);
  }
  check_content (&m);
  mirror_free (&m);
}
END_TEST

/* Others may leave the data where a hole was punched: they are not asked to. */
START_TEST (zero_trusts_known_file_systems_only)
{
  struct mirror m;
  struct stat before, after;

  make_file (1 << 20);
  mirror_init (&m, open_file (DEV_DIRECT_AUTO));
  check_write (&m, 0, 1 << 20, DEV_FUA);
  ck_assert_int_eq (stat (path, &before), 0);
  dev_file_of (m.dev)->is_trusted = false;
  check_zero (&m, 1 << 20, 0, DEV_MAY_TRIM);
  ck_assert_int_eq (stat (path, &after), 0);
  ck_assert_int_ge (after.st_blocks, before.st_blocks);
  mirror_free (&m);
}
END_TEST

START_TEST (trim)
{
  struct mirror m;

  make_file (1 << 20);
  mirror_init (&m, open_file (_i ? DEV_DIRECT_OFF : DEV_DIRECT_AUTO));
  check_write (&m, 0, 1 << 20, 0);
  if (m.dev->ops->trim (m.dev, 65536, 8192, 0) == 0)
    memset (m.bytes + 8192, 0, 65536);  /* a hole, of a file */
  else
    ck_assert_int_eq (errno, EOPNOTSUPP);
  check_read (&m, 0, 1 << 20, 0);
  check_content (&m);
  mirror_free (&m);
}
END_TEST

struct extents {
  uint64_t next;                /* where the next one must begin */
  unsigned nr, stop_after;
  uint64_t nr_data_bytes, nr_hole_bytes;
};

static int
note_extent (void *opaque, uint64_t offset, uint64_t count, unsigned type)
{
  struct extents *x = opaque;

  ck_assert_uint_eq (offset, x->next);
  ck_assert_uint_gt (count, 0);
  ck_assert (type == 0 || type == (DEV_EXTENT_HOLE | DEV_EXTENT_ZERO));
  x->next += count;
  if (type == 0)
    x->nr_data_bytes += count;
  else
    x->nr_hole_bytes += count;
  return ++x->nr == x->stop_after;
}

START_TEST (extents)
{
  struct mirror m;
  struct extents x = { .next = 0 };

  make_file (1 << 20);
  mirror_init (&m, open_file (DEV_DIRECT_AUTO));
  if (m.dev->info.can_extents) {
    check_write (&m, 65536, 65536, DEV_FUA);
    check_write (&m, 524288, 65536, DEV_FUA);
    ck_assert_int_eq (dev_extents (m.dev, 1 << 20, 0, note_extent, &x), 0);
    ck_assert_uint_eq (x.next, 1 << 20);
    ck_assert_uint_eq (x.nr, 5);
    ck_assert_uint_eq (x.nr_data_bytes, 131072);

    x = (struct extents) { .next = 70001 };     /* within data, within a hole */
    ck_assert_int_eq (dev_extents (m.dev, 100000, 70001, note_extent, &x), 0);
    ck_assert_uint_eq (x.next, 170001);
    ck_assert_uint_eq (x.nr, 2);
    ck_assert_uint_eq (x.nr_data_bytes, 131072 - 70001);

    x = (struct extents) { .next = 0, .stop_after = 1 };
    ck_assert_int_eq (dev_extents (m.dev, 1 << 20, 0, note_extent, &x), -1);
    ck_assert_uint_eq (x.nr, 1);
  }
  mirror_free (&m);
}
END_TEST

START_TEST (resize)
{
  struct mirror m;
  uint8_t *bigger;

  seed_random ("resize", _i);
  make_file (0);
  mirror_init (&m, open_file (DEV_DIRECT_AUTO));
  ck_assert_uint_eq (m.size, 0);
  for (unsigned i = 0; i < 20; i++) {
    uint64_t size = 1 + random_below (1 << 20);

    ck_assert_int_eq (dev_resize (m.dev, size), 0);
    ck_assert_uint_eq (m.dev->info.size_bytes, size);
    bigger = calloc (1, size);
    memcpy (bigger, m.bytes, MIN (size, m.size));
    free (m.bytes);
    m.bytes = bigger;
    m.size = size;
    check_random_io (&m, 20);
    check_content (&m);
  }
  /* What is whole pages now is written directly. */
  ck_assert_int_eq (dev_resize (m.dev, 1 << 20), 0);
  memset (m.buf, 1, 1 << 20);
  shim.nr_direct_writes = shim.nr_buffered_writes = 0;
  ck_assert_int_eq (dev_pwrite (m.dev, m.buf, 1 << 20, 0, 0), 0);
  if (m.dev->info.direct)
    ck_assert_uint_eq (shim.nr_buffered_writes, 0);
  mirror_free (&m);
}
END_TEST

/* The path is opened twice, for direct and buffered I/O.  (Not shown: that a
 * file which is replaced between the two is refused.)
 */
START_TEST (all_is_closed_again)
{
  int before = dup (0), after;

  close (before);
  make_file (8192);
  for (unsigned i = 0; i < 10; i++) {
    struct dev *dev = open_file (DEV_DIRECT_AUTO);

    check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "");
    check_refused (folder, DEV_DIRECT_AUTO, 0, EINVAL, "");
    dev_close (dev);
  }
  after = dup (0);
  close (after);
  ck_assert_int_eq (after, before);
}
END_TEST

/* A block device, where one can be made. */

/* A loop device over the file of this test; it goes when it is closed for the
 * last time.  -1: there are none here.
 */
static int
attach_loop (char device[32], unsigned sector_bytes)
{
  struct loop_config config = { .block_size = sector_bytes };
  int control = open ("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;

  config.fd = (uint32_t) open (path, O_RDWR | O_CLOEXEC);
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  for (unsigned i = 0; control != -1 && fd == -1 && i < 100; i++) {
    int number = ioctl (control, LOOP_CTL_GET_FREE);

    if (number == -1)
      break;
    snprintf (device, 32, "/dev/loop%d", number);
    fd = open (device, O_RDWR | O_CLOEXEC);
    if (fd == -1)
      break;
    if (ioctl (fd, LOOP_CONFIGURE, &config) == 0)
      break;
    close (fd);
    fd = -1;
    if (errno != EBUSY)         /* another process was faster */
      break;
  }
  close (control);
  close ((int) config.fd);
  return fd;
}

START_TEST (block_device)
{
  unsigned sector_bytes = _i % 2 ? 4096 : 512;
  struct mirror m;
  char device[32];
  int fd;

  make_file (8 << 20);
  fd = attach_loop (device, sector_bytes);
  if (fd == -1) {
    printf ("block_device: not tested: no loop device can be made here\n");
    return;
  }
  seed_random ("block_device", _i);
  snprintf (path, sizeof path, "%s", device);
  mirror_init (&m, open_file (_i < 2 ? DEV_DIRECT_AUTO : DEV_DIRECT_OFF));
  ck_assert_int_eq (m.dev->info.kind, DEV_BLOCK);
  ck_assert_uint_eq (m.size, 8 << 20);
  ck_assert_uint_eq (m.dev->info.sector_bytes, sector_bytes);
  ck_assert_uint_ge (m.dev->info.physical_bytes, sector_bytes);
  ck_assert (m.dev->info.direct == (_i < 2));
  ck_assert (!m.dev->info.can_extents);
  check_refused (path, DEV_DIRECT_AUTO, 0, EBUSY, "in use");

  check_random_io (&m, 300);
  for (unsigned i = 0; i < 4; i++)
    check_zero (&m, 1 << 16, i << 20, i << 1);
  ck_assert_int_eq (dev_resize (m.dev, 4096), -1);
  ck_assert_int_eq (errno, EOPNOTSUPP);
  ck_assert_int_eq (dev_flush (m.dev), 0);
  check_content (&m);
  if (m.dev->ops->trim (m.dev, 1 << 20, 1 << 20, 0) == -1)
    ck_assert_int_eq (errno, EOPNOTSUPP);
  mirror_free (&m);
  close (fd);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("dev-file");
  TCase *tc = tcase_create ("opening");

  tcase_add_checked_fixture (tc, make_folder, remove_folder);
  tcase_set_timeout (tc, 60);
  tcase_add_test (tc, info_of_a_file);
  tcase_add_test (tc, readonly);
  tcase_add_test (tc, what_is_no_disk_is_refused);
  tcase_add_test (tc, direct_where_there_is_none);
  tcase_add_test (tc, second_opening_is_refused);
  tcase_add_test (tc, readers_share);
  tcase_add_test (tc, lock_survives_a_fork);
  tcase_add_test (tc, all_is_closed_again);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("data");
  tcase_add_checked_fixture (tc, make_folder, remove_folder);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, random_io, 0, 2 * NR_SIZES);
  tcase_add_loop_test (tc, short_and_interrupted_transfers, 0, 2 * NR_SIZES);
  tcase_add_loop_test (tc, buffered_beside_direct, 0, 2);
  tcase_add_test (tc, a_write_shows_its_error_at_once);
  tcase_add_loop_test (tc, fua_is_durable, 0, 4);
  tcase_add_loop_test (tc, errors_are_told, 0, 10);
  tcase_add_test (tc, failed_flush_stays_failed);
  tcase_add_loop_test (tc, short_read_inside_the_disk, 0, 2);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("space");
  tcase_add_checked_fixture (tc, make_folder, remove_folder);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, zero, 0, 2);
  tcase_add_test (tc, zero_trusts_known_file_systems_only);
  tcase_add_loop_test (tc, trim, 0, 2);
  tcase_add_test (tc, extents);
  tcase_add_loop_test (tc, resize, 0, 2);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("block device");
  tcase_add_checked_fixture (tc, make_folder, remove_folder);
  tcase_set_timeout (tc, 240);
  tcase_add_loop_test (tc, block_device, 0, 4);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
