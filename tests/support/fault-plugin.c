/* SPDX-License-Identifier: BSD-3-Clause */
/* fault-plugin: an nbdkit plugin that plays a failing disk.
 *
 * Purpose: it stands below the server under test (mounted with nbdfuse, or
 *   attached as a loop device over that), keeps its data in a plain image
 *   file, and fails the requests that a control file names.
 *
 *     nbdkit ./fault-plugin.so file=IMAGE [faults=FILE] [log=FILE]
 *            [journal=FILE] [sector=512] [physical=4096]
 *
 * The control file has one fault a line; # starts a comment:
 *
 *     OPS FIRST[-LAST] [errno=NAME] [times=N] [until-write] [delay-ms=N]
 *                      [torn]
 *
 *     OPS          read, write (zeroing too), both (read and write), trim,
 *                  all (these three), flush (no sector numbers follow)
 *     FIRST-LAST   sector numbers, in units of sector= (512)
 *     errno=       EIO (default), ENOSPC, EPERM, ENOMEM, EINVAL, ESHUTDOWN.
 *                  nbdkit turns any other into EINVAL, so others (ENODATA,
 *                  ETIMEDOUT, ...) cannot reach the reader of the NBD server
 *                  and are refused here instead of silently meaning EINVAL.
 *     times=N      each sector fails N times and is good from then on
 *     until-write  reads fail until the sector has been written whole
 *     delay-ms=N   the request takes that long first; alone ("delay-ms=5
 *                  errno=0") it only makes the place slow
 *     torn         a failing write writes the sectors before the bad one and
 *                  leaves garbage in the bad one; without it, nothing
 *
 * Like a real disk, a request that covers a bad sector fails as a whole, and a
 * sector that is read while it is written is old or new, never a mix.
 * With physical=4096, whatever touches a physical sector that has a bad
 * sector in it fails.
 *
 * The file is looked at on every request, so that replacing it (with
 * rename; its new mtime must differ) is in force for every request that
 * starts afterwards.  Counters (times=, until-write) start anew with it.
 *
 * The log gets one line for each request, written before the request is
 * answered:  OP OFFSET COUNT RESULT [fua], where OP is r, w, z (zero), t
 * (trim) or f (flush) and RESULT an errno name or 0.  A request that is
 * delayed also has a line with the OP d, when the delay begins.
 *
 * With journal=, the disk has a volatile cache: the journal holds, for every
 * write since the last flush, its offset and length (two 64-bit numbers), the
 * old content and the new.  So the image can be put back into any state that a
 * power cut may leave (t_fault_cut_power).  FUA counts as a flush then.
 * Without, nothing is lost: the image only has to outlive this process.
 *
 * Locking: rules_lock is held (shared) while a request looks at the rules,
 *   exclusive while they are replaced; counter_lock guards the counters.
 *   Neither is held while a request waits or does I/O on the image.
 *   journal_lock makes one of a write and its record.  image_lock is held
 *   (shared) while the image is read, exclusive while it is written: the page
 *   cache below would mix old and new within a sector.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

/* nbdkit's callbacks have parameters that this plugin has no use for. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
  OP_READ = 1,
  OP_WRITE = 2,
  OP_TRIM = 4,
  OP_FLUSH = 8,
};

/* One line of the control file. */
struct rule {
  unsigned ops;
  uint64_t first, last;         /* sectors */
  int err;                      /* 0: only slow */
  unsigned delay_ms;
  unsigned times;               /* 0: for ever */
  bool until_write;
  bool torn;
  uint32_t *failures;           /* per sector, with times= or until-write */
};

#define HEALED UINT32_MAX

/* What the rules say about one request. */
struct verdict {
  int err;
  unsigned delay_ms;
  bool torn;
  uint64_t first_bad;           /* sector, where err != 0 */
};

static const struct { const char *name; int err; } errno_names[] = {
  { "0", 0 },             { "EIO", EIO },       { "ENOSPC", ENOSPC },
  { "EPERM", EPERM },     { "ENOMEM", ENOMEM }, { "EINVAL", EINVAL },
  { "ESHUTDOWN", ESHUTDOWN },
};
#define NR_ERRNO_NAMES (sizeof errno_names / sizeof errno_names[0])

static char *image_path, *faults_path, *log_path, *journal_path;
static uint64_t sector_bytes = 512, physical_bytes;
static int image_fd = -1, log_fd = -1, journal_fd = -1;

static pthread_rwlock_t rules_lock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_mutex_t counter_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t journal_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t image_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct rule *rules;
static size_t nr_rules;
static bool rules_are_broken;
static struct stat rules_stat;

/* Parse "FIRST" or "FIRST-LAST". */
static int
parse_range (const char *word, struct rule *rule)
{
  char *end;

  errno = 0;
  rule->first = rule->last = strtoull (word, &end, 10);
  if (errno == 0 && end != word && *end == '-') {
    word = end + 1;
    rule->last = strtoull (word, &end, 10);
  }
  if (errno != 0 || end == word || *end || rule->last < rule->first)
    return -1;
  return 0;
}

static int
parse_ops (const char *word, struct rule *rule)
{
  static const struct { const char *name; unsigned ops; } names[] = {
    { "read", OP_READ },   { "write", OP_WRITE }, { "both", OP_READ|OP_WRITE },
    { "trim", OP_TRIM },   { "flush", OP_FLUSH },
    { "all", OP_READ|OP_WRITE|OP_TRIM },
  };

  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp (word, names[i].name) == 0) {
      rule->ops = names[i].ops;
      return 0;
    }
  return -1;
}

static int
parse_errno (const char *name, struct rule *rule)
{
  for (size_t i = 0; i < NR_ERRNO_NAMES; i++)
    if (strcmp (name, errno_names[i].name) == 0) {
      rule->err = errno_names[i].err;
      return 0;
    }
  return -1;
}

static int
parse_option (const char *word, struct rule *rule)
{
  if (strncmp (word, "errno=", 6) == 0)
    return parse_errno (word + 6, rule);
  if (sscanf (word, "times=%u", &rule->times) == 1 ||
      sscanf (word, "delay-ms=%u", &rule->delay_ms) == 1)
    return 0;
  if (strcmp (word, "until-write") == 0) {
    rule->until_write = true;
    return 0;
  }
  if (strcmp (word, "torn") == 0) {
    rule->torn = true;
    return 0;
  }
  return -1;
}

/* Returns 1 for a rule, 0 for an empty line, -1 for nonsense. */
static int
parse_line (char *line, struct rule *rule)
{
  char *save = NULL, *word;

  line[strcspn (line, "#\n")] = '\0';
  word = strtok_r (line, " \t", &save);
  if (word == NULL)
    return 0;
  *rule = (struct rule) { .err = EIO };
  if (parse_ops (word, rule) == -1)
    return -1;
  if (rule->ops != OP_FLUSH) {
    word = strtok_r (NULL, " \t", &save);
    if (word == NULL || parse_range (word, rule) == -1)
      return -1;
  }
  while ((word = strtok_r (NULL, " \t", &save)) != NULL)
    if (parse_option (word, rule) == -1)
      return -1;
  if (rule->times || rule->until_write) {
    rule->failures = calloc (rule->last - rule->first + 1,
                             sizeof *rule->failures);
    if (rule->failures == NULL)
      return -1;
  }
  return 1;
}

static void
free_rules (void)
{
  for (size_t i = 0; i < nr_rules; i++)
    free (rules[i].failures);
  free (rules);
  rules = NULL;
  nr_rules = 0;
}

static int
append_rule (const struct rule *rule)
{
  if ((nr_rules & (nr_rules + 1)) == 0) { /* 0, 1, 3, 7, ...: full */
    struct rule *p = realloc (rules, (2 * nr_rules + 1) * sizeof *p);

    if (p == NULL)
      return -1;
    rules = p;
  }
  rules[nr_rules++] = *rule;
  return 0;
}

/* Replace the rules by those in the file.  Expects rules_lock, exclusive. */
static void
load_rules_locked (void)
{
  FILE *fp = fopen (faults_path, "re");
  char *line = NULL;
  size_t size = 0;
  struct rule rule;
  int r;

  free_rules ();
  rules_are_broken = true;
  memset (&rules_stat, 0, sizeof rules_stat);
  if (fp == NULL) {
    nbdkit_error ("%s: %m", faults_path);
    return;
  }
  rules_are_broken = fstat (fileno (fp), &rules_stat) == -1;
  while (getline (&line, &size, fp) != -1) {
    r = parse_line (line, &rule);
    if (r == -1 || (r == 1 && append_rule (&rule) == -1)) {
      nbdkit_error ("%s: cannot parse the line of \"%s\"", faults_path, line);
      rules_are_broken = true;
    }
  }
  free (line);
  fclose (fp);
}

static bool
rules_are_stale (const struct stat *now)
{
  return now->st_ino != rules_stat.st_ino ||
    now->st_size != rules_stat.st_size ||
    now->st_mtim.tv_sec != rules_stat.st_mtim.tv_sec ||
    now->st_mtim.tv_nsec != rules_stat.st_mtim.tv_nsec;
}

/* Take rules_lock (shared) with the rules of the file as it is now. */
static void
lock_rules (void)
{
  struct stat now = { 0 };

  pthread_rwlock_rdlock (&rules_lock);
  if (faults_path == NULL ||
      (stat (faults_path, &now) == 0 && !rules_are_stale (&now)))
    return;
  pthread_rwlock_unlock (&rules_lock);

  pthread_rwlock_wrlock (&rules_lock);
  if (stat (faults_path, &now) == -1 || rules_are_stale (&now))
    load_rules_locked ();
  pthread_rwlock_unlock (&rules_lock);
  pthread_rwlock_rdlock (&rules_lock);
}

/* Does this sector fail now?  Counts the failure. */
static bool
sector_fails_now (struct rule *rule, uint64_t sector)
{
  uint32_t *failures;
  bool r = true;

  if (rule->failures == NULL)
    return true;
  failures = &rule->failures[sector - rule->first];
  pthread_mutex_lock (&counter_lock);
  if (*failures == HEALED || (rule->times && *failures >= rule->times))
    r = false;
  else
    ++*failures;
  pthread_mutex_unlock (&counter_lock);
  return r;
}

/* A good write of these whole sectors heals what waits for one. */
static void
heal (uint64_t offset, uint32_t count)
{
  uint64_t unit = physical_bytes / sector_bytes;
  uint64_t begin = (offset + physical_bytes - 1) / physical_bytes * unit;
  uint64_t end = (offset + count) / physical_bytes * unit;

  pthread_rwlock_rdlock (&rules_lock);
  pthread_mutex_lock (&counter_lock);
  for (size_t i = 0; i < nr_rules; i++) {
    struct rule *rule = &rules[i];

    if (!rule->until_write)
      continue;
    for (uint64_t s = begin; s < end; s++)
      if (s >= rule->first && s <= rule->last)
        rule->failures[s - rule->first] = HEALED;
  }
  pthread_mutex_unlock (&counter_lock);
  pthread_rwlock_unlock (&rules_lock);
}

/* Apply one rule to the sectors BEGIN..END-1 of a request. */
static void
judge_rule (struct rule *rule, uint64_t begin, uint64_t end,
            struct verdict *v)
{
  uint64_t from = rule->first > begin ? rule->first : begin;
  uint64_t to = rule->last + 1 < end ? rule->last + 1 : end;

  for (uint64_t s = from; s < to; s++) {
    if (!sector_fails_now (rule, s))
      continue;
    if (rule->delay_ms > v->delay_ms)
      v->delay_ms = rule->delay_ms;
    if (rule->err && (v->err == 0 || s < v->first_bad)) {
      v->err = rule->err;
      v->torn = rule->torn;
      v->first_bad = s;
    }
  }
}

static const char *
name_of_errno (int err)
{
  for (size_t i = 0; i < NR_ERRNO_NAMES; i++)
    if (errno_names[i].err == err)
      return errno_names[i].name;
  return "other";
}

/* Returns -1 if the log cannot be written. */
static int
log_request (char op, uint64_t offset, uint64_t count, uint32_t flags, int err)
{
  char line[100];
  int n;

  if (log_fd == -1)
    return 0;
  n = snprintf (line, sizeof line, "%c %llu %llu %s%s\n", op,
                (unsigned long long) offset, (unsigned long long) count,
                name_of_errno (err), flags & NBDKIT_FLAG_FUA ? " fua" : "");
  if (write (log_fd, line, n) == n)
    return 0;
  nbdkit_error ("%s: %m", log_path);
  return -1;
}

/* Log the request and turn its result into what a callback returns. */
static int
answer (char op, uint64_t offset, uint32_t count, uint32_t flags, int err)
{
  if (log_request (op, offset, count, flags, err) == -1)
    err = EINVAL;
  if (err == 0)
    return 0;
  nbdkit_set_error (err);
  return -1;
}

/* What happens to this request? */
static struct verdict
judge (unsigned op, uint64_t offset, uint64_t count)
{
  uint64_t unit = physical_bytes / sector_bytes;
  uint64_t begin = offset / physical_bytes * unit;
  uint64_t end = (offset + count + physical_bytes - 1) / physical_bytes * unit;
  struct verdict v = { 0 };

  if (op == OP_FLUSH) {
    begin = 0;
    end = 1;
  }
  lock_rules ();
  if (rules_are_broken)
    v.err = EINVAL;
  for (size_t i = 0; i < nr_rules; i++)
    if (rules[i].ops & op)
      judge_rule (&rules[i], begin, end, &v);
  pthread_rwlock_unlock (&rules_lock);

  if (v.delay_ms) {
    struct timespec ts = { v.delay_ms / 1000, v.delay_ms % 1000 * 1000000L };

    log_request ('d', offset, count, 0, 0);
    nanosleep (&ts, NULL);
  }
  return v;
}

/* Read or write all of it.  Returns 0 or an errno. */
static int
read_all (int fd, char *buf, size_t count, uint64_t offset)
{
  while (count > 0) {
    ssize_t n = pread (fd, buf, count, offset);

    if (n <= 0)
      return n == 0 ? EINVAL : errno;
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

static int
write_all (int fd, const char *buf, size_t count, uint64_t offset)
{
  while (count > 0) {
    ssize_t n = pwrite (fd, buf, count, offset);

    if (n == -1)
      return errno;
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

/* Append a record: what this write will change.  Expects journal_lock. */
static int
journal_record_locked (const char *buf, uint64_t count, uint64_t offset)
{
  const uint64_t head[2] = { offset, count };
  off_t end = lseek (journal_fd, 0, SEEK_END);
  char *old = malloc (count);
  int err;

  if (end == -1 || old == NULL) {
    free (old);
    return ENOMEM;
  }
  err = read_all (image_fd, old, count, offset);
  if (err == 0)
    err = write_all (journal_fd, (const char *) head, sizeof head, end);
  if (err == 0)
    err = write_all (journal_fd, old, count, end + sizeof head);
  if (err == 0)
    err = write_all (journal_fd, buf, count, end + sizeof head + count);
  free (old);
  return err;
}

static int
image_pread (char *buf, size_t count, uint64_t offset)
{
  int err;

  pthread_rwlock_rdlock (&image_lock);
  err = read_all (image_fd, buf, count, offset);
  pthread_rwlock_unlock (&image_lock);
  return err;
}

static int
image_write_all (const char *buf, size_t count, uint64_t offset)
{
  int err;

  pthread_rwlock_wrlock (&image_lock);
  err = write_all (image_fd, buf, count, offset);
  pthread_rwlock_unlock (&image_lock);
  return err;
}

static int
image_pwrite (const char *buf, size_t count, uint64_t offset)
{
  int err;

  if (journal_fd == -1)
    return image_write_all (buf, count, offset);
  pthread_mutex_lock (&journal_lock);
  err = journal_record_locked (buf, count, offset);
  if (err == 0)
    err = image_write_all (buf, count, offset);
  pthread_mutex_unlock (&journal_lock);
  return err;
}

/* What was written before this is durable. */
static int
image_flush (void)
{
  int err = 0;

  if (journal_fd == -1)
    return 0;
  pthread_mutex_lock (&journal_lock);
  if (ftruncate (journal_fd, 0) == -1)
    err = errno;
  pthread_mutex_unlock (&journal_lock);
  return err;
}

/* Zero by punching a hole, or by writing zeroes where that can't be. */
static int
image_zero (uint64_t offset, uint64_t count, bool may_punch)
{
  static const char zeroes[65536];
  int mode = may_punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    : FALLOC_FL_ZERO_RANGE;
  int err = 0;

  if (journal_fd == -1) {
    pthread_rwlock_wrlock (&image_lock);
    err = fallocate (image_fd, mode, offset, count);
    pthread_rwlock_unlock (&image_lock);
    if (err == 0)
      return 0;
    err = 0;
  }
  while (count > 0 && err == 0) {
    size_t n = count < sizeof zeroes ? count : sizeof zeroes;

    err = image_pwrite (zeroes, n, offset);
    offset += n;
    count -= n;
  }
  return err;
}

/* What a failed write may leave on a real disk. */
static void
tear (const char *buf, uint32_t count, uint64_t offset,
      const struct verdict *v)
{
  uint64_t bad = v->first_bad * sector_bytes;
  char garbage[512];

  if (bad > offset + count)     /* in the same physical sector, behind it */
    bad = offset + count;
  if (bad > offset)
    image_pwrite (buf, bad - offset, offset);
  else
    bad = offset;
  memset (garbage, 0xdb, sizeof garbage);
  if (bad < offset + count)
    image_pwrite (garbage, sector_bytes < 512 ? sector_bytes : 512, bad);
}

static int
fault_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
             uint32_t flags)
{
  struct verdict v = judge (OP_READ, offset, count);

  if (v.err == 0)
    v.err = image_pread (buf, count, offset);
  return answer ('r', offset, count, flags, v.err);
}

/* A write of part of a physical sector reads the rest of it first. */
static void
judge_read_before_write (uint64_t offset, uint32_t count, struct verdict *v)
{
  uint64_t end = offset + count;
  struct verdict r = { 0 };

  if (v->err == 0 && offset % physical_bytes)
    r = judge (OP_READ, offset, 1);
  if (v->err == 0 && r.err == 0 && end % physical_bytes)
    r = judge (OP_READ, end - 1, 1);
  if (r.err)
    *v = r;
}

static int
fault_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
              uint32_t flags)
{
  struct verdict v = judge (OP_WRITE, offset, count);

  if (physical_bytes > sector_bytes)
    judge_read_before_write (offset, count, &v);
  if (v.err && v.torn)
    tear (buf, count, offset, &v);
  if (v.err == 0)
    v.err = image_pwrite (buf, count, offset);
  if (v.err == 0)
    heal (offset, count);
  if (v.err == 0 && (flags & NBDKIT_FLAG_FUA))
    v.err = image_flush ();
  return answer ('w', offset, count, flags, v.err);
}

static int
fault_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct verdict v = judge (OP_WRITE, offset, count);

  if (v.err == 0)
    v.err = image_zero (offset, count, flags & NBDKIT_FLAG_MAY_TRIM);
  if (v.err == 0)
    heal (offset, count);
  if (v.err == 0 && (flags & NBDKIT_FLAG_FUA))
    v.err = image_flush ();
  return answer ('z', offset, count, flags, v.err);
}

static int
fault_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct verdict v = judge (OP_TRIM, offset, count);

  if (v.err == 0)
    v.err = image_zero (offset, count, true);
  if (v.err == 0 && (flags & NBDKIT_FLAG_FUA))
    v.err = image_flush ();
  return answer ('t', offset, count, flags, v.err);
}

static int
fault_flush (void *handle, uint32_t flags)
{
  struct verdict v = judge (OP_FLUSH, 0, 0);

  if (v.err == 0)
    v.err = image_flush ();
  return answer ('f', 0, 0, flags, v.err);
}

static int
fault_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
  uint64_t end = offset + count;

  while (offset < end) {
    off_t data = lseek (image_fd, offset, SEEK_DATA), hole;

    if (data == -1 || (uint64_t) data > end)
      data = end;
    if ((uint64_t) data > offset &&
        nbdkit_add_extent (extents, offset, data - offset,
                           NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) == -1)
      return -1;
    if ((uint64_t) data >= end)
      break;
    hole = lseek (image_fd, data, SEEK_HOLE);
    if (hole == -1)
      hole = end;
    if (nbdkit_add_extent (extents, data, hole - data, 0) == -1)
      return -1;
    offset = hole;
  }
  return 0;
}

static void *
fault_open (int readonly)
{
  return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t
fault_get_size (void *handle)
{
  struct stat st;

  if (fstat (image_fd, &st) == -1) {
    nbdkit_error ("%s: %m", image_path);
    return -1;
  }
  return st.st_size;
}

static int
fault_yes (void *handle)
{
  return 1;
}

static int
fault_can_fua (void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

static int
set_size (const char *key, const char *value, uint64_t *ret)
{
  int64_t n = nbdkit_parse_size (value);

  if (n < 1 || (n & (n - 1))) {
    nbdkit_error ("%s must be a power of two", key);
    return -1;
  }
  *ret = n;
  return 0;
}

static int
fault_config (const char *key, const char *value)
{
  char **path = strcmp (key, "file") == 0 ? &image_path
    : strcmp (key, "faults") == 0 ? &faults_path
    : strcmp (key, "log") == 0 ? &log_path
    : strcmp (key, "journal") == 0 ? &journal_path : NULL;

  if (path != NULL) {
    free (*path);
    *path = nbdkit_absolute_path (value);
    return *path ? 0 : -1;
  }
  if (strcmp (key, "sector") == 0)
    return set_size (key, value, &sector_bytes);
  if (strcmp (key, "physical") == 0)
    return set_size (key, value, &physical_bytes);
  nbdkit_error ("unknown parameter '%s'", key);
  return -1;
}

static int
fault_config_complete (void)
{
  if (image_path == NULL) {
    nbdkit_error ("file= is missing");
    return -1;
  }
  if (physical_bytes < sector_bytes)
    physical_bytes = sector_bytes;
  return 0;
}

static int
open_file (const char *path, int flags, int *ret_fd)
{
  if (path == NULL)
    return 0;
  *ret_fd = open (path, flags | O_CLOEXEC, 0600);
  if (*ret_fd == -1)
    nbdkit_error ("%s: %m", path);
  return *ret_fd == -1 ? -1 : 0;
}

static int
fault_get_ready (void)
{
  if (open_file (image_path, O_RDWR, &image_fd) == -1 ||
      open_file (log_path, O_WRONLY | O_APPEND | O_CREAT, &log_fd) == -1 ||
      open_file (journal_path, O_RDWR | O_CREAT, &journal_fd) == -1)
    return -1;
  lock_rules ();
  pthread_rwlock_unlock (&rules_lock);
  return rules_are_broken ? -1 : 0;
}

static void
fault_unload (void)
{
  free_rules ();
  free (image_path);
  free (faults_path);
  free (log_path);
  free (journal_path);
  if (image_fd >= 0)
    close (image_fd);
  if (log_fd >= 0)
    close (log_fd);
  if (journal_fd >= 0)
    close (journal_fd);
}

static struct nbdkit_plugin plugin = {
  .name              = "fault",
  .longname          = "a failing disk, for the tests of nbdkit-remap-plugin",
  .unload            = fault_unload,
  .config            = fault_config,
  .config_complete   = fault_config_complete,
  .magic_config_key  = "file",
  .get_ready         = fault_get_ready,
  .open              = fault_open,
  .get_size          = fault_get_size,
  .can_multi_conn    = fault_yes,
  .can_trim          = fault_yes,
  .can_zero          = fault_yes,
  .can_extents       = fault_yes,
  .can_fua           = fault_can_fua,
  .pread             = fault_pread,
  .pwrite            = fault_pwrite,
  .zero              = fault_zero,
  .trim              = fault_trim,
  .flush             = fault_flush,
  .extents           = fault_extents,
  .errno_is_preserved = 1,
};

NBDKIT_REGISTER_PLUGIN (plugin)
