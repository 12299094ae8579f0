/* SPDX-License-Identifier: BSD-3-Clause */
/* fsx: random operations on the files of a directory, and a model of them in
 * memory that knows every byte.
 *
 * Purpose: the directory is on a file system that stands on a disk under test.
 *   Whatever that disk does below, the files have to be what the model says.
 *
 *     fsx [--seed=N] [--operations=N] [--seconds=N] [--bytes=N] [--load=MODEL]
 *         [--save=MODEL] [--remount=COMMAND] [--read-errors] DIRECTORY
 *
 *     --seed         what happens depends on it alone, and on what --load
 *                    brings (default: REMAP_TEST_SEED, else the clock); it is
 *                    printed
 *     --operations   how many at most (no limit), and
 *     --seconds      how long (10)
 *     --bytes        the largest file (512 KiB)
 *     --load         DIRECTORY already has these files: they are all compared
 *     --save         at the end, all files as they should be, in a new
 *                    directory of that name, on another disk
 *     --remount      now and then all files are closed, COMMAND is run, has to
 *                    succeed, and all is compared
 *     --read-errors  EIO (or SIGBUS) is right where data is read; wrong data
 *                    never is.  Without, an error ends the run as wrong data
 *                    does.
 *
 * A failure tells the bytes, the seed and the latest operations, and the exit
 * status is 1.
 *
 * Invariants: the model of a file is zero behind its size.  Where an operation
 *   has failed, each byte is what it was or what it was to be: `doubt` tells.
 *   The first read that brings it settles that.
 */

#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/falloc.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define NR(a) (sizeof (a) / sizeof (a)[0])

enum {
  NR_NAMES = 12,
  NR_LINES = 80,                /* of the log */
  LINE_BYTES = 100,
  SECTOR = 512,                 /* what direct I/O is aligned to */
  BLOCK = 4096,                 /* a multiple of the file system's */
  MOST_BYTES = 192 << 10,       /* of one operation */
  NR_VECS = 6,
};

/* doubt: */
enum { CERTAIN, OLD_OR_NEW, ANYTHING };

/* What one name or several stand for. */
struct file {
  uint8_t *data;
  uint8_t *other;               /* where it may be this */
  uint8_t *doubt;
  uint64_t size_bytes;
  unsigned nr_names;
};

struct name {
  char text[8];
  struct file *file;            /* NULL: there is none */
  int fd, direct_fd;            /* -1: not open */
};

struct range {
  uint64_t offset;
  size_t count;
};

static struct {
  uint64_t seed, nr_operations, max_bytes;
  unsigned seconds;
  const char *load, *save, *remount, *directory;
  bool read_errors;
} options = { .max_bytes = 512 << 10, .seconds = 10 };

static struct name names[NR_NAMES];
static uint64_t random_state, nr_done, nr_errors;
static char lines[NR_LINES][LINE_BYTES];
static uint8_t *buffer;         /* MOST_BYTES, aligned */
static sigjmp_buf bus_error;
static volatile sig_atomic_t expects_bus_error;

/* What failed, and how it came to it. */

static void
note (const char *format, ...)
{
  char *line = lines[nr_done % NR_LINES];
  int n = snprintf (line, LINE_BYTES, "#%" PRIu64 " ", nr_done);
  va_list args;

  va_start (args, format);
  vsnprintf (line + n, (size_t) (LINE_BYTES - n), format, args);
  va_end (args);
}

static void __attribute__ ((noreturn, format (printf, 1, 2)))
fail (const char *format, ...)
{
  va_list args;

  printf ("fsx: FAILED: ");
  va_start (args, format);
  vprintf (format, args);
  va_end (args);
  printf ("\nfsx: at operation %" PRIu64 " of --seed=%" PRIu64
          "; the latest ones:\n", nr_done, options.seed);
  for (uint64_t n = nr_done > NR_LINES ? nr_done - NR_LINES + 1 : 1;
       n <= nr_done; n++)
    printf ("  %s\n", lines[n % NR_LINES]);
  fflush (stdout);
  exit (1);
}

/* An error of a call.  Returns if it may be. */
static void
met_error (const char *call, const struct name *name)
{
  if (errno != EIO || !options.read_errors)
    fail ("%s of %s: %s", call, name->text, strerror (errno));
  nr_errors++;
}

static void *
allocate (size_t size)
{
  void *p = calloc (1, size);

  if (p == NULL)
    fail ("no memory");
  return p;
}

/* Chance. */

static uint64_t
next_random (uint64_t *state)
{
  uint64_t z = *state += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint64_t
below (uint64_t n)
{
  return next_random (&random_state) % n;
}

static bool
one_in (unsigned n)
{
  return below (n) == 0;
}

/* New data, which is nowhere else. */
static void
fill (uint8_t *buf, size_t count)
{
  uint64_t state = next_random (&random_state);

  for (size_t i = 0; i < count; i += sizeof state) {
    uint64_t word = next_random (&state);

    memcpy (buf + i, &word, MIN (sizeof word, count - i));
  }
}

/* Within the first `end` bytes, which are more than none; short ones as often
 * as long ones, and most of them in units of sectors or blocks.
 */
static struct range
pick_range (uint64_t end, uint64_t unit)
{
  static const uint64_t units[] = { 1, SECTOR, BLOCK, BLOCK };
  uint64_t offset, most = UINT64_C (1) << below (18), n;

  if (unit == 0)
    unit = units[below (NR (units))];
  if (end < unit)
    unit = 1;
  offset = below (end) / unit * unit;
  n = (below (most) + unit) / unit * unit;
  n = MIN (MIN (n, end - offset), (uint64_t) MOST_BYTES);
  if (n >= unit)
    n -= n % unit;
  return (struct range) { offset, (size_t) n };
}

/* The model. */

static struct file *
file_new (void)
{
  struct file *f = allocate (sizeof *f);

  f->data = allocate (options.max_bytes);
  f->other = allocate (options.max_bytes);
  f->doubt = allocate (options.max_bytes);
  f->nr_names = 1;
  return f;
}

static void
file_drop_name (struct file *f)
{
  if (--f->nr_names > 0)
    return;
  free (f->data);
  free (f->other);
  free (f->doubt);
  free (f);
}

static void
model_write (struct file *f, struct range r, const uint8_t *buf)
{
  memcpy (f->data + r.offset, buf, r.count);
  memset (f->doubt + r.offset, CERTAIN, r.count);
  f->size_bytes = MAX (f->size_bytes, r.offset + r.count);
}

static void
model_zero (struct file *f, uint64_t offset, uint64_t count)
{
  memset (f->data + offset, 0, count);
  memset (f->doubt + offset, CERTAIN, count);
}

static void
model_truncate (struct file *f, uint64_t size_bytes)
{
  if (size_bytes < f->size_bytes)
    model_zero (f, size_bytes, f->size_bytes - size_bytes);
  f->size_bytes = size_bytes;
}

/* This was to be written, and may have been.  Only the file tells its size. */
static void
model_doubt (struct file *f, struct range r, const uint8_t *buf,
             uint64_t size_bytes)
{
  for (size_t i = 0; i < r.count && r.offset + i < size_bytes; i++) {
    f->doubt[r.offset + i] =
      f->doubt[r.offset + i] == CERTAIN ? OLD_OR_NEW : ANYTHING;
    f->other[r.offset + i] = buf[i];
  }
  f->size_bytes = size_bytes;
}

static bool
settle (struct file *f, uint64_t offset, uint8_t byte)
{
  bool is_right = byte == f->data[offset] || f->doubt[offset] == ANYTHING ||
    (f->doubt[offset] == OLD_OR_NEW && byte == f->other[offset]);

  f->data[offset] = byte;
  f->doubt[offset] = CERTAIN;
  return is_right;
}

static void
print_bytes (char *to, const uint8_t *bytes, size_t count)
{
  for (size_t i = 0; i < count; i++)
    to += sprintf (to, "%02x ", bytes[i]);
}

static void __attribute__ ((noreturn))
fail_compare (const struct name *name, uint64_t offset, const uint8_t *is,
              const uint8_t *should_be, size_t count)
{
  char text[2][16 * 3 + 1];
  size_t nr_wrong = 0, n = MIN (count, (size_t) 16);

  for (size_t i = 0; i < count; i++)
    nr_wrong += is[i] != should_be[i];
  print_bytes (text[0], is, n);
  print_bytes (text[1], should_be, n);
  fail ("wrong data in %s: %zu of the %zu bytes from %" PRIu64 " (0x%" PRIx64
        ") on\n  there is  %s\n  should be %s", name->text, nr_wrong, count,
        offset, offset, text[0], text[1]);
}

/* All that was read is what it should be. */
static void
compare (const struct name *name, uint64_t offset, const uint8_t *buf,
         size_t count)
{
  struct file *f = name->file;
  uint8_t *before;

  if (memcmp (buf, f->data + offset, count) == 0) {
    memset (f->doubt + offset, CERTAIN, count);
    return;
  }
  before = allocate (count);
  memcpy (before, f->data + offset, count);
  for (size_t i = 0; i < count; i++)
    if (!settle (f, offset + i, buf[i]))
      fail_compare (name, offset + i, buf + i, before + i, count - i);
  free (before);
}

/* Names and what is open. */

static void
name_close (struct name *name)
{
  if (name->fd != -1)
    close (name->fd);
  if (name->direct_fd != -1)
    close (name->direct_fd);
  name->fd = name->direct_fd = -1;
}

static int
fd_of (struct name *name, bool direct)
{
  int *fd = direct ? &name->direct_fd : &name->fd;

  if (*fd == -1)
    *fd = open (name->text, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (*fd == -1)
    fail ("open %s: %s", name->text, strerror (errno));
  return *fd;
}

static uint64_t
size_of (struct name *name)
{
  struct stat st;

  if (fstat (fd_of (name, false), &st) == -1)
    fail ("stat %s: %s", name->text, strerror (errno));
  return (uint64_t) st.st_size;
}

static struct name *
find_name (bool has_file)
{
  size_t first = below (NR_NAMES);

  for (size_t i = 0; i < NR_NAMES; i++) {
    struct name *name = &names[(first + i) % NR_NAMES];

    if ((name->file != NULL) == has_file)
      return name;
  }
  return NULL;
}

static void
create (struct name *name)
{
  int fd = open (name->text, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

  if (fd == -1)
    fail ("create %s: %s", name->text, strerror (errno));
  name->fd = fd;
  name->file = file_new ();
}

/* One that there is. */
static struct name *
some_name (void)
{
  struct name *name = find_name (true);

  if (name == NULL) {
    name = &names[0];
    create (name);
  }
  return name;
}

/* One that has something in it, or NULL. */
static struct name *
some_data (void)
{
  struct name *name = some_name ();

  if (name->file->size_bytes > 0)
    return name;
  note ("nothing: %s is empty", name->text);
  return NULL;
}

/* Reading. */

static void
take_bus_error (int sig)
{
  if (!expects_bus_error) {
    signal (sig, SIG_DFL);
    return;
  }
  siglongjmp (bus_error, 1);
}

/* memcpy from or to mapped memory; -1 where that cannot be read. */
static int
copy_mapped (void *to, const void *from, size_t count)
{
  if (sigsetjmp (bus_error, 1) != 0) {
    expects_bus_error = 0;
    errno = EIO;
    return -1;
  }
  expects_bus_error = 1;
  memcpy (to, from, count);
  __asm__ volatile ("" ::: "memory");
  expects_bus_error = 0;
  return 0;
}

static uint8_t *
map_file (struct name *name, struct range r, int protection, size_t *ret_count)
{
  uint64_t first = r.offset / BLOCK * BLOCK;
  uint8_t *p;

  *ret_count = (size_t) (r.offset - first) + r.count;
  p = mmap (NULL, *ret_count, protection, MAP_SHARED, fd_of (name, false),
            (off_t) first);
  if (p == MAP_FAILED)
    fail ("mmap %s: %s", name->text, strerror (errno));
  return p;
}

/* Page by page: one that cannot be read says nothing of the others. */
static void
read_mapped (struct name *name, struct range r)
{
  size_t count, done = r.offset % BLOCK;
  uint8_t *p = map_file (name, r, PROT_READ, &count);

  while (done < count) {
    size_t n = MIN (count - done, BLOCK - done % BLOCK);

    if (copy_mapped (buffer, p + done, n) == -1)
      met_error ("mapped read", name);
    else
      compare (name, r.offset / BLOCK * BLOCK + done, buffer, n);
    done += n;
  }
  munmap (p, count);
}

/* Cut into pieces, as many as chance will have. */
static int
pick_vecs (struct iovec vecs[NR_VECS], uint8_t *buf, size_t count, size_t unit)
{
  size_t nr = 1 + below (NR_VECS), n = 0;

  while (n < nr && count > 0) {
    size_t part = n + 1 == nr ? count
      : MIN (count, (below (count) / unit + 1) * unit);

    vecs[n++] = (struct iovec) { buf, part };
    buf += part;
    count -= part;
  }
  return (int) n;
}

static void
read_file (struct name *name, struct range r, bool direct)
{
  int fd = fd_of (name, direct);
  uint64_t size_bytes = name->file->size_bytes;
  size_t right = r.offset >= size_bytes ? 0
    : (size_t) MIN ((uint64_t) r.count, size_bytes - r.offset);
  size_t done = 0;

  memset (buffer, 0xee, r.count);
  while (done < r.count) {
    struct iovec vecs[NR_VECS];
    int nr = pick_vecs (vecs, buffer + done, r.count - done,
                        direct ? SECTOR : 1);
    ssize_t n = preadv (fd, vecs, nr, (off_t) (r.offset + done));

    if (n == -1) {
      met_error (direct ? "direct read" : "read", name);
      break;
    }
    if (n == 0 || (direct && n % SECTOR != 0)) {
      done += (size_t) n;
      if (done != right)
        fail ("%s has %" PRIu64 " bytes: read %zu of %zu at %" PRIu64,
              name->text, size_bytes, done, r.count, r.offset);
      break;
    }
    done += (size_t) n;
  }
  if (done > right)
    fail ("%s has %" PRIu64 " bytes: read %zu of %zu at %" PRIu64, name->text,
          size_bytes, done, r.count, r.offset);
  compare (name, r.offset, buffer, done);
}

static void
op_read (void)
{
  struct name *name = some_name ();
  struct range r = pick_range (options.max_bytes, 0);

  note ("read %s 0x%" PRIx64 "+0x%zx", name->text, r.offset, r.count);
  read_file (name, r, false);
}

static void
op_read_direct (void)
{
  struct name *name = some_name ();
  struct range r = pick_range (options.max_bytes, SECTOR);

  note ("direct read %s 0x%" PRIx64 "+0x%zx", name->text, r.offset, r.count);
  read_file (name, r, true);
}

static void
op_read_mapped (void)
{
  struct name *name = some_data ();
  struct range r;

  if (name == NULL)
    return;
  r = pick_range (name->file->size_bytes, 0);
  note ("mapped read %s 0x%" PRIx64 "+0x%zx", name->text, r.offset, r.count);
  read_mapped (name, r);
}

static void
verify (struct name *name)
{
  uint64_t size_bytes = name->file->size_bytes;
  unsigned way = (unsigned) below (3);
  uint64_t is = size_of (name);

  if (is != size_bytes)
    fail ("%s has %" PRIu64 " bytes, should have %" PRIu64, name->text, is,
          size_bytes);
  for (uint64_t offset = 0; offset < size_bytes; ) {
    struct range r = { offset, BLOCK << below (5) };

    r.count = MIN (r.count, (size_t) MOST_BYTES);
    if (way == 2) {
      r.count = (size_t) MIN ((uint64_t) r.count, size_bytes - offset);
      read_mapped (name, r);
    }
    else
      read_file (name, r, way == 1);
    offset += r.count;
  }
}

static void
op_verify (void)
{
  struct name *name = some_name ();

  note ("verify %s", name->text);
  verify (name);
}

static void
verify_all (void)
{
  for (size_t i = 0; i < NR_NAMES; i++) {
    if (names[i].file)
      verify (&names[i]);
    else if (access (names[i].text, F_OK) == 0)
      fail ("%s should not be there", names[i].text);
  }
}

/* Of a file that is durable, the kernel need not keep a copy. */
static void
forget_cached (struct name *name)
{
  int fd = fd_of (name, false);

  if (fsync (fd) == -1)
    fail ("fsync %s: %s", name->text, strerror (errno));
  posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* Writing. */

static void
write_file (struct name *name, struct range r, bool direct)
{
  int fd = fd_of (name, direct), flags = one_in (8) ? RWF_DSYNC : 0;
  size_t done = 0;

  fill (buffer, r.count);
  while (done < r.count) {
    struct range rest = { r.offset + done, r.count - done };
    struct iovec vecs[NR_VECS];
    int nr = pick_vecs (vecs, buffer + done, rest.count, direct ? SECTOR : 1);
    ssize_t n = pwritev2 (fd, vecs, nr, (off_t) rest.offset, flags);

    if (n == -1) {
      met_error (direct ? "direct write" : "write", name);
      model_doubt (name->file, rest, buffer + done, size_of (name));
      return;
    }
    if (n == 0)
      fail ("write to %s: nothing was written", name->text);
    model_write (name->file, (struct range) { rest.offset, (size_t) n },
                 buffer + done);
    done += (size_t) n;
  }
}

static void
op_write (void)
{
  struct name *name = some_name ();
  struct range r = pick_range (options.max_bytes, 0);

  note ("write %s 0x%" PRIx64 "+0x%zx", name->text, r.offset, r.count);
  write_file (name, r, false);
}

/* Where pages of the same place are dirty, kernels give up now and then ("Direct
 * I/O collision with buffered writes!"), and that file has an error from then on.
 */
static void
op_write_direct (void)
{
  struct name *name = some_name ();
  struct range r = pick_range (options.max_bytes, SECTOR);

  note ("direct write %s 0x%" PRIx64 "+0x%zx", name->text, r.offset, r.count);
  forget_cached (name);
  write_file (name, r, true);
}

static void
op_write_mapped (void)
{
  static const int ways[] = { 0, MS_ASYNC, MS_SYNC };
  struct name *name = some_data ();
  struct range r;
  size_t count, done;
  uint8_t *p;
  int way = ways[below (NR (ways))];

  if (name == NULL)
    return;
  r = pick_range (name->file->size_bytes, 0);
  note ("mapped write %s 0x%" PRIx64 "+0x%zx msync %d", name->text, r.offset,
        r.count, way);
  p = map_file (name, r, PROT_READ | PROT_WRITE, &count);
  fill (buffer, r.count);
  for (done = r.offset % BLOCK; done < count; ) {
    size_t n = MIN (count - done, BLOCK - done % BLOCK);
    uint64_t offset = r.offset / BLOCK * BLOCK + done;
    const uint8_t *from = buffer + (offset - r.offset);

    if (copy_mapped (p + done, from, n) == -1)
      met_error ("mapped write", name);
    else
      model_write (name->file, (struct range) { offset, n }, from);
    done += n;
  }
  if (way && msync (p, count, way) == -1)
    fail ("msync %s: %s", name->text, strerror (errno));
  munmap (p, count);
}

static void
op_truncate (void)
{
  struct name *name = some_name ();
  uint64_t size_bytes = one_in (8) ? 0 : below (options.max_bytes + 1);
  int r;

  if (one_in (2))
    size_bytes -= size_bytes % BLOCK;
  note ("truncate %s 0x%" PRIx64 " -> 0x%" PRIx64, name->text,
        name->file->size_bytes, size_bytes);
  r = one_in (2) ? truncate (name->text, (off_t) size_bytes)
    : ftruncate (fd_of (name, false), (off_t) size_bytes);
  if (r == -1)
    fail ("truncate %s: %s", name->text, strerror (errno));
  model_truncate (name->file, size_bytes);
}

/* fallocate.  What the file system does not know, is not asked for again. */

enum way { ALLOCATE, ALLOCATE_KEEP, PUNCH, ZERO, ZERO_KEEP, COLLAPSE, INSERT };

static struct {
  const char *name;
  int mode;
  bool is_unknown;
} ways[] = {
  [ALLOCATE] = { "allocate", 0, false },
  [ALLOCATE_KEEP] = { "allocate, keep size", FALLOC_FL_KEEP_SIZE, false },
  [PUNCH] = { "punch hole", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, false },
  [ZERO] = { "zero range", FALLOC_FL_ZERO_RANGE, false },
  [ZERO_KEEP] = { "zero range, keep size",
                  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, false },
  [COLLAPSE] = { "collapse range", FALLOC_FL_COLLAPSE_RANGE, false },
  [INSERT] = { "insert range", FALLOC_FL_INSERT_RANGE, false },
};

static bool
may_be_done (const struct file *f, enum way way, struct range r)
{
  bool is_aligned = (r.offset | r.count) % BLOCK == 0;

  switch (way) {
  case COLLAPSE:
    return is_aligned && r.offset + r.count < f->size_bytes;
  case INSERT:
    return is_aligned && r.offset < f->size_bytes &&
      f->size_bytes + r.count <= options.max_bytes;
  default:
    return true;
  }
}

/* The rest of a file moves from one place to another. */
static void
model_move (struct file *f, uint64_t from, uint64_t to)
{
  uint64_t count = f->size_bytes - from;

  memmove (f->data + to, f->data + from, count);
  memmove (f->other + to, f->other + from, count);
  memmove (f->doubt + to, f->doubt + from, count);
}

static void
model_fallocate (struct file *f, enum way way, struct range r)
{
  uint64_t end = r.offset + r.count;

  switch (way) {
  case ALLOCATE:
    f->size_bytes = MAX (f->size_bytes, end);
    break;
  case ALLOCATE_KEEP:
    break;
  case ZERO:
    f->size_bytes = MAX (f->size_bytes, end);
    model_zero (f, r.offset, r.count);
    break;
  case PUNCH: case ZERO_KEEP:
    model_zero (f, r.offset, r.count);
    break;
  case COLLAPSE:
    model_move (f, end, r.offset);
    model_truncate (f, f->size_bytes - r.count);
    break;
  case INSERT:
    model_move (f, r.offset, end);
    model_zero (f, r.offset, r.count);
    f->size_bytes += r.count;
    break;
  }
}

static void
op_fallocate (void)
{
  struct name *name = some_name ();
  enum way way = (enum way) below (NR (ways));
  bool moves = way == COLLAPSE || way == INSERT;
  struct range r = pick_range (options.max_bytes, moves ? BLOCK : 0);

  note ("%s %s 0x%" PRIx64 "+0x%zx of 0x%" PRIx64, ways[way].name, name->text,
        r.offset, r.count, name->file->size_bytes);
  if (ways[way].is_unknown || !may_be_done (name->file, way, r))
    return;
  if (fallocate (fd_of (name, false), ways[way].mode, (off_t) r.offset,
                 (off_t) r.count) == 0)
    model_fallocate (name->file, way, r);
  else if (errno == EOPNOTSUPP)
    ways[way].is_unknown = true;
  else
    fail ("%s of %s: %s", ways[way].name, name->text, strerror (errno));
}

/* From one file to another, or within one where the two places are apart. */
static void
op_copy (void)
{
  struct name *from = some_data (), *to = some_name ();
  struct range r;
  off_t in, out;
  uint64_t at;

  if (from == NULL)
    return;
  r = pick_range (from->file->size_bytes, 0);
  at = pick_range (options.max_bytes - r.count + 1, 0).offset;
  note ("copy %s 0x%" PRIx64 "+0x%zx -> %s 0x%" PRIx64, from->text, r.offset,
        r.count, to->text, at);
  if (from->file == to->file && at < r.offset + r.count &&
      r.offset < at + r.count)
    return;
  in = (off_t) r.offset;
  out = (off_t) at;
  for (size_t done = 0; done < r.count; ) {
    ssize_t n = copy_file_range (fd_of (from, false), &in, fd_of (to, false),
                                 &out, r.count - done, 0);

    if (n <= 0)
      fail ("copy to %s: %s", to->text, n == 0 ? "nothing" : strerror (errno));
    model_write (to->file, (struct range) { at + done, (size_t) n },
                 from->file->data + r.offset + done);
    done += (size_t) n;
  }
}

/* Durability and caches.  A write never fails, so these never do. */

static void
op_sync (void)
{
  struct name *name = some_name ();
  unsigned way = (unsigned) below (4);
  int fd = fd_of (name, false), r = 0;

  note ("sync %s, way %u", name->text, way);
  switch (way) {
  case 0: r = fsync (fd); break;
  case 1: r = fdatasync (fd); break;
  case 2: r = syncfs (fd); break;
  case 3:
    r = sync_file_range (fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE |
                         SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    break;
  }
  if (r == -1)
    fail ("sync %s, way %u: %s", name->text, way, strerror (errno));
}

static void
op_read_anew (void)
{
  struct name *name = some_name ();

  note ("read anew, from the disk, %s", name->text);
  forget_cached (name);
  verify (name);
}

static void
op_reopen (void)
{
  struct name *name = some_name ();

  note ("reopen %s", name->text);
  name_close (name);
  fd_of (name, false);
}

static void
op_remount (void)
{
  int status;

  note ("remount");
  if (options.remount == NULL)
    return;
  for (size_t i = 0; i < NR_NAMES; i++)
    name_close (&names[i]);
  /* It must be unmountable, and is another one then. */
  if (chdir ("/") == -1)
    fail ("chdir /: %s", strerror (errno));
  fflush (stdout);
  status = system (options.remount);
  if (status != 0)
    fail ("%s: status %d", options.remount, status);
  if (chdir (options.directory) == -1)
    fail ("chdir %s: %s", options.directory, strerror (errno));
  verify_all ();
}

/* Names. */

static void
op_create (void)
{
  struct name *name = find_name (false);

  note ("create %s", name ? name->text : "nothing");
  if (name)
    create (name);
}

static void
remove_name (struct name *name)
{
  name_close (name);
  file_drop_name (name->file);
  name->file = NULL;
}

static void
op_unlink (void)
{
  struct name *name = some_name ();

  note ("unlink %s", name->text);
  if (unlink (name->text) == -1)
    fail ("unlink %s: %s", name->text, strerror (errno));
  remove_name (name);
}

/* Over another one, as often as not. */
static void
op_rename (void)
{
  struct name *from = some_name (), *to = &names[below (NR_NAMES)];

  note ("rename %s %s", from->text, to->text);
  if (rename (from->text, to->text) == -1)
    fail ("rename %s %s: %s", from->text, to->text, strerror (errno));
  /* Of two names of one file both stay. */
  if (from->file == to->file)
    return;
  if (to->file)
    remove_name (to);
  name_close (from);
  to->file = from->file;
  from->file = NULL;
}

static void
op_link (void)
{
  struct name *from = some_name (), *to = find_name (false);

  note ("link %s %s", from->text, to ? to->text : "nowhere");
  if (to == NULL)
    return;
  if (link (from->text, to->text) == -1)
    fail ("link %s %s: %s", from->text, to->text, strerror (errno));
  to->file = from->file;
  to->file->nr_names++;
}

/* What there is to do, and how often.  Where reads fail, operations that make
 * the kernel read a block to change a part of it leave what nobody tells.
 */
static struct {
  const char *name;
  void (*run) (void);
  unsigned weight;
  bool with_read_errors;
  uint64_t nr;
} operations[] = {
  { "read", op_read, 60, true, 0 },
  { "direct read", op_read_direct, 40, true, 0 },
  { "mapped read", op_read_mapped, 40, true, 0 },
  { "verify", op_verify, 10, true, 0 },
  { "read anew", op_read_anew, 20, true, 0 },
  { "write", op_write, 80, true, 0 },
  { "direct write", op_write_direct, 80, true, 0 },
  { "mapped write", op_write_mapped, 60, true, 0 },
  { "truncate", op_truncate, 25, false, 0 },
  { "fallocate", op_fallocate, 60, false, 0 },
  { "copy", op_copy, 25, false, 0 },
  { "sync", op_sync, 30, true, 0 },
  { "reopen", op_reopen, 20, true, 0 },
  { "create", op_create, 15, true, 0 },
  { "unlink", op_unlink, 8, true, 0 },
  { "rename", op_rename, 12, true, 0 },
  { "link", op_link, 8, true, 0 },
  { "remount", op_remount, 1, true, 0 },
};

static void
run_one (void)
{
  unsigned all = 0;
  uint64_t n;

  nr_done++;
  for (size_t i = 0; i < NR (operations); i++)
    all += operations[i].weight;
  n = below (all);
  for (size_t i = 0; i < NR (operations); i++) {
    if (n < operations[i].weight) {
      if (operations[i].with_read_errors || !options.read_errors) {
        operations[i].nr++;
        operations[i].run ();
      }
      else
        note ("no %s", operations[i].name);
      return;
    }
    n -= operations[i].weight;
  }
}

/* A model as a directory: plain files, links as links. */

static void
model_path (char path[PATH_MAX], const char *directory, const char *name)
{
  if (snprintf (path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
    fail ("%s: too long", directory);
}

static void
load_file (size_t n, ino_t inodes[])
{
  char path[PATH_MAX];
  struct stat st;
  struct file *f;
  FILE *in;

  model_path (path, options.load, names[n].text);
  if (stat (path, &st) == -1)
    return;
  inodes[n] = st.st_ino;
  for (size_t i = 0; i < n; i++) {
    if (names[i].file && inodes[i] == st.st_ino) {
      names[n].file = names[i].file;
      names[n].file->nr_names++;
      return;
    }
  }
  f = names[n].file = file_new ();
  in = fopen (path, "re");
  if (in == NULL || (uint64_t) st.st_size > options.max_bytes ||
      fread (f->data, 1, (size_t) st.st_size, in) != (size_t) st.st_size)
    fail ("cannot load %s", path);
  f->size_bytes = (uint64_t) st.st_size;
  fclose (in);
}

static void
save_file (size_t n)
{
  const struct file *f = names[n].file;
  char path[PATH_MAX], first[PATH_MAX];
  FILE *out;

  model_path (path, options.save, names[n].text);
  for (size_t i = 0; i < n; i++) {
    if (names[i].file == f) {
      model_path (first, options.save, names[i].text);
      if (link (first, path) == -1)
        fail ("link %s: %s", path, strerror (errno));
      return;
    }
  }
  out = fopen (path, "wxe");
  if (out == NULL || fwrite (f->data, 1, f->size_bytes, out) != f->size_bytes ||
      fclose (out) != 0)
    fail ("cannot save %s: %s", path, strerror (errno));
}

static void
save (void)
{
  if (mkdir (options.save, 0700) == -1)
    fail ("mkdir %s: %s", options.save, strerror (errno));
  for (size_t i = 0; i < NR_NAMES; i++)
    if (names[i].file)
      save_file (i);
}

/* main */

static uint64_t
number (const char *text)
{
  char *end;
  uint64_t n;

  errno = 0;
  n = strtoull (text, &end, 0);
  if (errno != 0 || end == text || *end)
    fail ("not a number: %s", text);
  return n;
}

static const char *
absolute (const char *path)
{
  char *p, cwd[PATH_MAX];

  if (*path == '/')
    return path;
  if (getcwd (cwd, sizeof cwd) == NULL ||
      asprintf (&p, "%s/%s", cwd, path) == -1)
    fail ("getcwd: %s", strerror (errno));
  return p;
}

static void
parse_options (int argc, char **argv)
{
  static const struct option table[] = {
    { "seed", required_argument, NULL, 's' },
    { "operations", required_argument, NULL, 'n' },
    { "seconds", required_argument, NULL, 't' },
    { "bytes", required_argument, NULL, 'b' },
    { "load", required_argument, NULL, 'l' },
    { "save", required_argument, NULL, 'S' },
    { "remount", required_argument, NULL, 'r' },
    { "read-errors", no_argument, NULL, 'e' },
    { NULL, 0, NULL, 0 },
  };
  const char *seed = getenv ("REMAP_TEST_SEED");
  int c;

  options.seed = seed && *seed ? number (seed)
    : (uint64_t) time (NULL) << 16 ^ (uint64_t) getpid ();
  while ((c = getopt_long (argc, argv, "", table, NULL)) != -1) {
    switch (c) {
    case 's': options.seed = number (optarg); break;
    case 'n': options.nr_operations = number (optarg); break;
    case 't': options.seconds = (unsigned) number (optarg); break;
    case 'b': options.max_bytes = number (optarg) / BLOCK * BLOCK; break;
    case 'l': options.load = absolute (optarg); break;
    case 'S': options.save = absolute (optarg); break;
    case 'r': options.remount = optarg; break;
    case 'e': options.read_errors = true; break;
    default: exit (2);
    }
  }
  if (optind + 1 != argc || options.max_bytes < MOST_BYTES)
    fail ("one directory, and --bytes of %d or more, please", MOST_BYTES);
  options.directory = absolute (argv[optind]);
}

static void
begin (void)
{
  struct sigaction action = { .sa_handler = take_bus_error };
  ino_t inodes[NR_NAMES];

  setvbuf (stdout, NULL, _IOLBF, 0);
  random_state = options.seed;
  buffer = aligned_alloc (BLOCK, MOST_BYTES);
  if (buffer == NULL)
    fail ("no memory");
  sigaction (SIGBUS, &action, NULL);
  if (chdir (options.directory) == -1)
    fail ("%s: %s", options.directory, strerror (errno));
  for (size_t i = 0; i < NR_NAMES; i++) {
    snprintf (names[i].text, sizeof names[i].text, "f%02u", (unsigned) i);
    names[i].fd = names[i].direct_fd = -1;
    if (options.load)
      load_file (i, inodes);
  }
}

int
main (int argc, char **argv)
{
  time_t end;

  parse_options (argc, argv);
  begin ();
  printf ("fsx: --seed=%" PRIu64 "\n", options.seed);
  verify_all ();
  end = time (NULL) + (time_t) options.seconds;
  while (time (NULL) < end &&
         (options.nr_operations == 0 || nr_done < options.nr_operations))
    run_one ();
  note ("the end");
  for (size_t i = 0; i < NR_NAMES; i++)
    if (names[i].file)
      forget_cached (&names[i]);
  verify_all ();
  if (options.save)
    save ();
  printf ("fsx: %" PRIu64 " operations, %" PRIu64 " errors:", nr_done,
          nr_errors);
  for (size_t i = 0; i < NR (operations); i++)
    printf (" %s %" PRIu64 "%s", operations[i].name, operations[i].nr,
            i + 1 < NR (operations) ? "," : "\n");
  return 0;
}
