/* SPDX-License-Identifier: BSD-3-Clause */
/* What sectors in each state do: requests over all of them with ends anywhere,
 * lost sectors that are written in pieces, disks that end within a sector, and
 * readers and writers that meet on one sector.
 *
 * REMAP_TEST_SEED=N repeats a run.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"

#define NR_SECTORS 160
#define AT 80                   /* the sector that a test is about */

static struct fault_rig rig;
static uint32_t sector_bytes;
static uint64_t base_seed;

static const uint32_t sector_sizes[] = { 512, 4096 };
static const enum sector_state all_states[] = {
  SECTOR_CLEAN, SECTOR_REMAPPED, SECTOR_LOST, SECTOR_ZEROED,
};

static void
open_rig (void)
{
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s", last_error_text ());
  engine_verify (rig.engine);
}

/* size_bytes 0: NR_SECTORS. */
static void
begin (uint32_t bytes, uint32_t physical_bytes, uint64_t size_bytes,
       unsigned nr_slots)
{
  sector_bytes = bytes;
  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .sector_bytes = bytes, .physical_bytes = physical_bytes,
                    .size_bytes = size_bytes ? size_bytes
                      : (uint64_t) NR_SECTORS * bytes },
                  &(struct dev_fault_options) { .tears = true });
  rig.spare_bytes = (uint64_t) nr_slots * bytes;
  open_rig ();
}

static void
end (void)
{
  engine_verify (rig.engine);
  fault_rig_free (&rig);
}

static void
reopen (void)
{
  engine_verify (rig.engine);
  fault_rig_kill (&rig);
  open_rig ();
}

static void
spoil (uint64_t lba, unsigned how)
{
  dev_fault_spoil (rig.backing, lba, 1, how, 0, 0);
}

static void
expect_done (int r)
{
  ck_assert_msg (r == 0, "%s", last_error_text ());
}

static void
expect_error (int r, int err)
{
  ck_assert_int_eq (r, -1);
  ck_assert_msg (errno == err, "%s, not %s", strerror (errno), strerror (err));
}

static void
expect_state (uint64_t lba, enum sector_state state)
{
  ck_assert_str_eq (sector_state_to_string (fault_rig_state (&rig, lba)),
                    sector_state_to_string (state));
}

static uint64_t
size_of_disk (void)
{
  return dev_fault_size (rig.backing);
}

/* Bytes of a sector: fewer if it is the last one. */
static uint32_t
bytes_of (uint64_t lba)
{
  return (uint32_t) MIN ((uint64_t) sector_bytes,
                         size_of_disk () - lba * sector_bytes);
}

/* Give a sector this state; remapped: with version 1. */
static void
make (uint64_t lba, enum sector_state state)
{
  uint8_t *buf = malloc (sector_bytes);
  uint64_t offset = lba * sector_bytes;

  if (state != SECTOR_CLEAN)
    spoil (lba, DEV_FAULT_BAD);
  if (state == SECTOR_LOST)
    expect_error (engine_pread (rig.engine, buf, bytes_of (lba), offset), EIO);
  if (state == SECTOR_REMAPPED || state == SECTOR_ZEROED)
    expect_done (fault_rig_write (&rig, lba, 1, 1, 0));
  if (state == SECTOR_ZEROED)
    expect_done (engine_zero (rig.engine, bytes_of (lba), offset, 0));
  expect_state (lba, state);
  free (buf);
}

/* Requests over sectors of every state. */

struct oracle {
  uint64_t seed;
  uint8_t bytes[NR_SECTORS * 4096];
  bool is_lost[NR_SECTORS], is_mapped[NR_SECTORS], is_hole[NR_SECTORS];
  bool is_unknown[NR_SECTORS];  /* whether it is a hole: a request failed */
};
static struct oracle o;

static uint64_t
pick (uint64_t below)
{
  return dev_fault_random (&o.seed) % below;
}

static void
fails (const char *what, uint64_t lba)
{
  ck_abort_msg ("REMAP_TEST_SEED=%llu: %s at sector %d",
                (unsigned long long) base_seed, what, (int) lba);
}

static void
choose_states (void)
{
  uint8_t *p = o.bytes;

  for (uint64_t lba = 0; lba < NR_SECTORS; lba++, p += sector_bytes) {
    /* In runs, so that neighbours are alike now and then. */
    enum sector_state state = lba && pick (2) ? fault_rig_state (&rig, lba - 1)
      : all_states[pick (4)];

    o.is_hole[lba] = pick (3) == 0;
    if (o.is_hole[lba])
      expect_done (engine_trim (rig.engine, sector_bytes, lba * sector_bytes,
                                0));
    make (lba, state);
    o.is_lost[lba] = state == SECTOR_LOST;
    o.is_mapped[lba] = state != SECTOR_CLEAN;
    if (state == SECTOR_ZEROED || (state == SECTOR_CLEAN && o.is_hole[lba]))
      memset (p, 0, sector_bytes);
    else
      dev_fault_pattern (p, sector_bytes, lba, state == SECTOR_REMAPPED);
  }
  dev_fault_forget_touches (rig.backing);
}

/* E5: neither is a sector that is mapped touched, nor becomes a clean one (none
 * of which is bad) anything else.
 */
static void
check_untouched (void)
{
  for (uint64_t lba = 0; lba < NR_SECTORS; lba++) {
    if (o.is_mapped[lba] && dev_fault_touches (rig.backing, lba) > 0)
      fails ("a mapped sector is touched", lba);
    if (o.is_mapped[lba] != (fault_rig_state (&rig, lba) != SECTOR_CLEAN))
      fails ("mapped or not", lba);
    if (o.is_lost[lba] != (fault_rig_state (&rig, lba) == SECTOR_LOST))
      fails ("lost or not", lba);
  }
}

static void
read_at (uint64_t offset, uint64_t count)
{
  uint8_t *buf = malloc (count);
  bool must_fail = false;
  int r;

  for (uint64_t i = offset / sector_bytes;
       i <= (offset + count - 1) / sector_bytes; i++)
    must_fail |= o.is_lost[i];
  r = engine_pread (rig.engine, buf, count, offset);
  if ((r == -1) != must_fail || (r == -1 && errno != EIO))
    fails (r == -1 ? "read failed" : "a lost sector was read",
           offset / sector_bytes);
  if (r == 0 && memcmp (buf, o.bytes + offset, count) != 0)
    fails ("other data", offset / sector_bytes);
  free (buf);
}

/* A request that failed: each sector is old, or new if it was covered. */
static void
settle (uint64_t offset, uint64_t count, const uint8_t *data)
{
  uint8_t *is = malloc (2 * sector_bytes), *new = is + sector_bytes;

  for (uint64_t i = offset / sector_bytes;
       i <= (offset + count - 1) / sector_bytes; i++) {
    uint64_t begin = i * sector_bytes, from = MAX (begin, offset);
    uint64_t to = MIN (begin + sector_bytes, offset + count);
    uint8_t *old = o.bytes + begin;

    memcpy (new, old, sector_bytes);
    memcpy (new + (from - begin), data + (from - offset), to - from);
    if (engine_pread (rig.engine, is, sector_bytes, begin) == -1) {
      if (!o.is_lost[i])
        fails ("read failed", i);
      continue;
    }
    if (o.is_lost[i] && to - from < sector_bytes)
      fails ("healed in part", i);
    if (memcmp (is, new, sector_bytes) != 0 &&
        (o.is_lost[i] || memcmp (is, old, sector_bytes) != 0))
      fails ("neither old nor new", i);
    memcpy (old, is, sector_bytes);
    o.is_lost[i] = false;
  }
  free (is);
}

/* zero: by a request that zeroes. */
static void
write_at (uint64_t offset, uint64_t count, bool zero)
{
  uint64_t first = offset / sector_bytes;
  uint64_t last = (offset + count - 1) / sector_bytes;
  bool must_fail = (o.is_lost[first] && offset % sector_bytes) ||
    (o.is_lost[last] && (offset + count) % sector_bytes);
  uint8_t *data = calloc (1, count);
  int r;

  if (!zero)
    dev_fault_pattern (data, count, offset, pick (1000000));
  must_fail |= first == last && o.is_lost[first] && count < sector_bytes;
  r = zero ? engine_zero (rig.engine, count, offset, pick (4) ? 0 : DEV_FUA)
    : engine_pwrite (rig.engine, data, count, offset, pick (4) ? 0 : DEV_FUA);
  if ((r == -1) != must_fail || (r == -1 && errno != EIO))
    fails (r == -1 ? "write failed" : "part of a lost sector was written",
           first);
  if (r == -1)
    settle (offset, count, data);
  else {
    memcpy (o.bytes + offset, data, count);
    for (uint64_t i = first; i <= last; i++)
      o.is_lost[i] = false;
  }
  for (uint64_t i = first; i <= last; i++) {
    o.is_hole[i] = false;       /* dev-fault: also where it is zeroed */
    o.is_unknown[i] = r == -1;
  }
  free (data);
}

/* Whole sectors alone: of others, the part is left. */
static void
trim_at (uint64_t offset, uint64_t count)
{
  uint64_t begin = round_up (offset, sector_bytes);
  uint64_t stop = round_down (offset + count, sector_bytes);

  if (engine_trim (rig.engine, count, offset, 0) == -1)
    fails ("trim failed", offset / sector_bytes);
  for (uint64_t i = begin / sector_bytes; i * sector_bytes < stop; i++) {
    memset (o.bytes + i * sector_bytes, 0, sector_bytes);
    o.is_lost[i] = false;
    o.is_hole[i] |= !o.is_mapped[i];
    o.is_unknown[i] = false;
  }
}

static uint64_t told_until;

static int
check_extent (void *opaque, uint64_t offset, uint64_t count, unsigned type)
{
  if (offset != told_until || count == 0)
    fails ("block status has a gap", offset / sector_bytes);
  told_until += count;
  for (uint64_t i = offset / sector_bytes; i * sector_bytes < told_until; i++) {
    enum sector_state state = fault_rig_state (&rig, i);
    unsigned wanted = state == SECTOR_ZEROED ? DEV_EXTENT_ZERO
      : state == SECTOR_CLEAN && o.is_hole[i]
      ? DEV_EXTENT_HOLE | DEV_EXTENT_ZERO : 0;

    if (type != wanted && !(o.is_unknown[i] && state == SECTOR_CLEAN))
      fails ("other block status", i);
  }
  return 0;
}

static void
look_at (uint64_t offset, uint64_t count)
{
  told_until = offset;
  expect_done (engine_extents (rig.engine, count, offset, check_extent, NULL));
  ck_assert_uint_eq (told_until, offset + count);
}

START_TEST (mixed_requests)
{
  o.seed = base_seed + (uint64_t) _i;
  begin (sector_sizes[_i % 2], 0, 0, 256);
  choose_states ();
  for (unsigned i = 0; i < 600; i++) {
    uint64_t offset = pick (size_of_disk ());
    uint64_t count = 1 + pick ((pick (3) ? 3 : 60) * sector_bytes);
    unsigned what = (unsigned) pick (100);

    count = MIN (count, size_of_disk () - offset);
    if (what < 40)
      read_at (offset, count);
    else if (what < 60)
      look_at (offset, count);
    else if (what < 80)
      write_at (offset, count, false);
    else if (what < 90)
      write_at (offset, count, true);
    else if (what < 95)
      trim_at (offset, count);
    else if (what < 97)
      reopen ();
    check_untouched ();
  }
  for (uint64_t lba = 0; lba < NR_SECTORS; lba++)
    read_at (lba * sector_bytes, sector_bytes);
  check_untouched ();
  end ();
}
END_TEST

/* All of its bytes were sent, but not at once: nobody knows whether all of them
 * arrived, so it stays lost.
 */
START_TEST (pieces_do_not_heal)
{
  uint8_t piece[4096] = { 1 };
  bool zero = _i % 2;

  begin (sector_sizes[_i / 2], 0, 0, 256);
  make (AT, SECTOR_LOST);
  for (uint32_t at = 0; at < sector_bytes; at += 128)
    expect_error (zero ? engine_zero (rig.engine, 128,
                                      AT * sector_bytes + at, 0)
                  : engine_pwrite (rig.engine, piece, 128,
                                   AT * sector_bytes + at, 0), EIO);
  expect_error (engine_pwrite (rig.engine, piece, sector_bytes,
                               AT * sector_bytes + 1, 0), EIO);
  expect_error (engine_pwrite (rig.engine, piece, sector_bytes,
                               AT * sector_bytes - 1, 0), EIO);
  expect_state (AT, SECTOR_LOST);
  expect_error (engine_pread (rig.engine, piece, 1, AT * sector_bytes), EIO);
  reopen ();
  expect_state (AT, SECTOR_LOST);
  expect_done (fault_rig_write (&rig, AT, 1, 2, 0));
  ck_assert_int_eq (fault_rig_read (&rig, AT, 1, 2), 0);
  end ();
}
END_TEST

/* Disks of odd sizes. */

static const uint64_t odd_sizes[] = {
  1, 2, 511, 512, 513, 4095, 4096, 4097, 100 * 512 + 1, 100 * 512 + 511,
};
#define NR_ODD_SIZES 10

static void
expect_bytes (uint64_t offset, const uint8_t *wanted, size_t count)
{
  uint8_t *is = malloc (count);

  expect_done (engine_pread (rig.engine, is, count, offset));
  ck_assert (memcmp (is, wanted, count) == 0);
  free (is);
}

/* The last byte, alone; and the sector around it, which is otherwise as in
 * `sector`.
 */
static void
change_last_byte (uint64_t lba, uint8_t *sector, uint8_t byte)
{
  sector[bytes_of (lba) - 1] = byte;
  expect_done (engine_pwrite (rig.engine, &byte, 1, size_of_disk () - 1,
                              DEV_FUA));
  expect_bytes (lba * sector_bytes, sector, bytes_of (lba));
}

static void
use_the_end (uint64_t lba, enum sector_state state)
{
  uint8_t sector[4096] = { 0 }, byte = 0;
  uint32_t n = bytes_of (lba);

  make (lba, state);
  expect_error (engine_pread (rig.engine, &byte, 1, size_of_disk ()), EINVAL);
  expect_error (engine_pread (rig.engine, sector, n + 1, lba * sector_bytes),
                EINVAL);
  expect_error (engine_pwrite (rig.engine, sector, n + 1, lba * sector_bytes,
                               0), EINVAL);
  if (state == SECTOR_LOST) {
    expect_error (engine_pread (rig.engine, &byte, 1, size_of_disk () - 1),
                  EIO);
    /* Of a sector of one byte that is all. */
    if (n > 1)
      expect_error (engine_pwrite (rig.engine, &byte, 1, size_of_disk () - 1,
                                   0), EIO);
    expect_done (fault_rig_write (&rig, lba, 1, 1, 0));
  }
  if (state != SECTOR_ZEROED)
    dev_fault_pattern (sector, n, lba, state != SECTOR_CLEAN);
  expect_bytes (lba * sector_bytes, sector, n);
  change_last_byte (lba, sector, 0x77);
  reopen ();
  expect_bytes (lba * sector_bytes, sector, n);
  change_last_byte (lba, sector, 0x78);
  expect_done (fault_rig_write (&rig, 0, lba + 1, 3, 0));
  ck_assert_int_eq (fault_rig_read (&rig, 0, lba + 1, 3), 0);
  expect_done (engine_zero (rig.engine, n, lba * sector_bytes, DEV_FUA));
  memset (sector, 0, n);
  expect_bytes (lba * sector_bytes, sector, n);
  change_last_byte (lba, sector, 0x79);
  expect_done (engine_trim (rig.engine, n, lba * sector_bytes, 0));
  expect_done (engine_pread (rig.engine, &byte, 1, size_of_disk () - 1));
  ck_assert_uint_eq (byte, 0);
  expect_done (engine_flush (rig.engine));
}

START_TEST (odd_size)
{
  const uint64_t size = odd_sizes[_i / 8];
  const enum sector_state state = all_states[_i % 4];

  begin (512, _i / 4 % 2 ? 4096 : 512, size, 256);
  ck_assert_int_eq (fault_rig_read (&rig, 0, div_round_up (size, 512), 0), 0);
  use_the_end ((size - 1) / 512, state);
  reopen ();
  if (state != SECTOR_CLEAN)
    expect_state ((size - 1) / 512, SECTOR_ZEROED);
  end ();
}
END_TEST

/* Readers and writers of one sector.
 *
 * One thread writes versions 1, 2, ... of it, and after the first few it goes
 * bad.  What a reader gets is of one version, of the last one that was
 * acknowledged when it began or of a later one that was begun, and never older
 * than what it has seen before.  Until the first is written: what it was.
 */

#define NR_MEETINGS 4           /* sectors, one after the other */
#define NR_VERSIONS 16
#define NR_READERS 3

enum writer { WRITES_WHOLE, WRITES_PARTS, NR_WRITERS };

static struct meeting {
  enum sector_state state;      /* at first */
  enum writer writer;
  unsigned how;                 /* it goes bad */
  _Atomic uint64_t lba;
  _Atomic unsigned begun, done; /* versions of this sector */
  _Atomic unsigned nr_seen;     /* reads that ended well */
  _Atomic bool is_over;
  const char *_Atomic wrong;
} meeting;

/* Version v as a sector: its bytes tell v and their place.  In parts: each half
 * tells its own version.
 */
static void
fill (uint8_t *buf, uint32_t from, uint32_t to, unsigned version)
{
  for (uint32_t i = from; i < to; i++)
    buf[i] = (uint8_t) (version * 7 + i % 251);
}

/* Which version is this?  -1: none. */
static int
version_of (const uint8_t *buf, uint32_t from, uint32_t to)
{
  unsigned version;

  for (version = 1; version <= NR_VERSIONS; version++)
    if (buf[from] == (uint8_t) (version * 7 + from % 251))
      break;
  for (uint32_t i = from; i < to; i++)
    if (buf[i] != (uint8_t) (version * 7 + i % 251))
      return -1;
  return version <= NR_VERSIONS ? (int) version : -1;
}

/* Is it what the sector was at first? */
static bool
is_first_content (const uint8_t *buf, uint64_t lba, uint32_t from, uint32_t to)
{
  uint8_t wanted[4096] = { 0 };

  if (meeting.state != SECTOR_ZEROED)
    dev_fault_pattern (wanted, sector_bytes, lba,
                       meeting.state != SECTOR_CLEAN);
  return memcmp (buf + from, wanted + from, to - from) == 0;
}

/* A stretch that is written at once: does it hold one version, between these?
 * Returns it, or -1.
 */
static int
check_stretch (const uint8_t *buf, uint64_t lba, uint32_t from, uint32_t to,
               unsigned least, unsigned most)
{
  int version = version_of (buf, from, to);

  if (version == -1 && least == 0 && meeting.state != SECTOR_LOST &&
      is_first_content (buf, lba, from, to))
    return 0;
  if (version == -1)
    meeting.wrong = "neither old nor new";
  else if ((unsigned) version < least)
    meeting.wrong = "older than what was acknowledged, or seen";
  else if ((unsigned) version > most)
    meeting.wrong = "newer than what was begun";
  return version;
}

/* EIO is right for what was lost at first, and has not been written; and where
 * reads find a sector bad that is being written.
 */
static void
read_once (uint64_t lba, unsigned seen[2], uint8_t *buf)
{
  const uint32_t half = sector_bytes / 2;
  unsigned done = meeting.done, begun;

  if (engine_pread (rig.engine, buf, 3 * sector_bytes,
                    (lba - 1) * sector_bytes) == -1) {
    if (errno != EIO)
      meeting.wrong = "another error";
    else if (!(meeting.state == SECTOR_LOST && done == 0) &&
             !(meeting.how & DEV_FAULT_BAD_READ))
      meeting.wrong = "EIO";
    return;
  }
  begun = meeting.begun;
  if (meeting.lba != lba)
    return;                     /* the versions are of the next one */
  buf += sector_bytes;
  for (unsigned i = 0; i < 2; i++) {
    unsigned least = MAX (done, seen[i]);
    int version;

    if (meeting.writer == WRITES_WHOLE)
      version = check_stretch (buf, lba, 0, sector_bytes, least, begun);
    else
      version = check_stretch (buf, lba, i * half, (i + 1) * half, least,
                               begun);
    if (version > 0)
      seen[i] = (unsigned) version;
  }
  meeting.nr_seen++;
}

static void *
read_all (void *opaque)
{
  uint8_t *buf = malloc (3 * sector_bytes);
  unsigned seen[2] = { 0, 0 };
  uint64_t lba = 0;

  while (!meeting.is_over && !meeting.wrong) {
    if (meeting.lba != lba) {
      lba = meeting.lba;
      seen[0] = seen[1] = 0;
    }
    read_once (lba, seen, buf);
  }
  free (buf);
  return NULL;
}

/* Let them run a little; behind the last version, for one read at least. */
static void
wait_for_readers (bool is_last)
{
  unsigned nr = meeting.nr_seen;

  for (unsigned i = 0; (is_last || i < 20) && meeting.nr_seen == nr &&
       !meeting.wrong; i++)
    sched_yield ();
}

/* Both halves, the second one after the first: each is a version of its own. */
static int
write_version (uint64_t lba, uint8_t *buf, unsigned version)
{
  const uint32_t half = sector_bytes / 2;
  uint64_t offset = lba * sector_bytes;

  fill (buf, 0, sector_bytes, version);
  if (meeting.writer == WRITES_WHOLE || version == 1)
    return engine_pwrite (rig.engine, buf, sector_bytes, offset,
                          version % 5 ? 0 : DEV_FUA);
  if (engine_pwrite (rig.engine, buf, half, offset, 0) == -1)
    return -1;
  return engine_pwrite (rig.engine, buf + half, half, offset + half, 0);
}

static void
write_sector (uint64_t lba, uint8_t *buf)
{
  meeting.done = meeting.begun = 0;
  meeting.lba = lba;
  for (unsigned v = 1; v <= NR_VERSIONS && !meeting.wrong; v++) {
    if (v == NR_VERSIONS / 2)
      spoil (lba, meeting.how);
    meeting.begun = v;
    if (write_version (lba, buf, v) == -1) {
      meeting.wrong = "write failed";
      break;
    }
    meeting.done = v;
    wait_for_readers (v == NR_VERSIONS);
  }
}

START_TEST (readers_and_a_writer)
{
  pthread_t readers[NR_READERS];
  uint8_t *buf;

  meeting.state = all_states[_i % 4];
  meeting.writer = (enum writer) (_i / 4 % 2);
  /* Parts of what cannot be read cannot be written. */
  meeting.how = _i / 8 % 2 && meeting.writer == WRITES_WHOLE
    ? DEV_FAULT_BAD : DEV_FAULT_BAD_WRITE;
  /* So few slots that they go round. */
  begin (sector_sizes[_i / 16], 0, 0, 32);
  buf = malloc (sector_bytes);
  for (uint64_t i = 0; i < NR_MEETINGS; i++)
    make (2 + 3 * i, meeting.state);
  meeting.lba = 2;
  for (unsigned i = 0; i < NR_READERS; i++)
    ck_assert_int_eq (pthread_create (&readers[i], NULL, read_all, NULL), 0);
  for (uint64_t i = 0; i < NR_MEETINGS && !meeting.wrong; i++)
    write_sector (2 + 3 * i, buf);
  meeting.is_over = true;
  for (unsigned i = 0; i < NR_READERS; i++)
    pthread_join (readers[i], NULL);
  ck_assert_msg (meeting.wrong == NULL, "sector %d, version %u: %s",
                 (int) meeting.lba, meeting.begun, meeting.wrong);
  ck_assert_uint_ge (meeting.nr_seen, NR_MEETINGS);
  for (uint64_t i = 0; i < NR_MEETINGS; i++)
    expect_state (2 + 3 * i, SECTOR_REMAPPED);
  free (buf);
  end ();
}
END_TEST

static void
choose_seed (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");

  base_seed = given ? strtoull (given, NULL, 0)
    : (uint64_t) time (NULL) * 1000 + (uint64_t) getpid () % 1000;
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) base_seed);
  fflush (stdout);
}

static void
add_case (Suite *suite, const char *name, const TTest *test, int nr)
{
  TCase *tc = tcase_create (name);

  tcase_set_timeout (tc, 250);
  suite_add_tcase (suite, tc);
  tcase_add_loop_test (tc, test, 0, nr);
}

int
main (void)
{
  Suite *suite = suite_create ("engine: loss");
  SRunner *runner;
  int nr_failed;

  choose_seed ();
  add_case (suite, "mixed requests", mixed_requests, 10);
  add_case (suite, "pieces", pieces_do_not_heal, 4);
  add_case (suite, "odd sizes", odd_size, NR_ODD_SIZES * 8);
  add_case (suite, "readers and a writer", readers_and_a_writer, 32);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
