/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checked.h"
#include "crash-world.h"
#include "engine-internal.h"
#include "error.h"
#include "store-format.h"
#include "store-internal.h"

struct crash_tally crash_here, *crash_all;
uint64_t crash_seed;

void
crash_begin (uint64_t seed)
{
  crash_seed = seed;
  crash_all = mmap (NULL, sizeof *crash_all, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (crash_all == MAP_FAILED) {
    perror ("mmap");
    exit (1);
  }
}

/* Where the world stops. */

struct crash_world crash_world;

void
crash_world_begin (unsigned stop_at)
{
  free (crash_world.data);
  crash_world = (struct crash_world) { .stop_at = stop_at };
}

static void
keep_in_flight (const struct dev_fault_call *call)
{
  if (!(call->kind & (DEV_FAULT_PWRITE | DEV_FAULT_ZERO | DEV_FAULT_TRIM)))
    return;
  crash_world.disk = call->disk;
  crash_world.offset = call->offset;
  crash_world.count = call->count;
  if (call->data) {
    crash_world.data = malloc (call->count);
    memcpy (crash_world.data, call->data, call->count);
  }
}

void
crash_wrong (const struct crash_trial *t, const char *when, const char *fmt,
             ...)
{
  char text[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  CRASH_COUNT (t, nr_wrong);
  if (t->lie == CRASH_NO_LIE)
    ck_abort_msg ("REMAP_TEST_SEED=%llu, stop at %u, state %u, %s: %s",
                  (unsigned long long) crash_seed, crash_world.stop_at,
                  crash_here.nr_states, when, text);
}

/* The requests. */

unsigned
crash_pick (struct crash_trial *t, unsigned below)
{
  return (unsigned) (dev_fault_random (&t->seed) % below);
}

/* A run of sectors, counted from the first one of the trial. */
struct sectors {
  unsigned i, nr;
  uint64_t offset, nr_bytes;    /* on the disk */
};

static struct sectors
some_sectors (const struct crash_trial *t, unsigned i, unsigned nr)
{
  uint64_t sector_bytes = t->oracle.sector_bytes;

  return (struct sectors) {
    i, nr, (t->first + i) * sector_bytes, nr * sector_bytes,
  };
}

static struct sectors
pick_sectors (struct crash_trial *t)
{
  unsigned i = crash_pick (t, t->oracle.nr);

  return some_sectors (t, i, 1 + crash_pick (t, MIN (t->run_max,
                                               t->oracle.nr - i)));
}

/* Returns 0 or errno. */
static int
write_sectors (struct crash_trial *t, const struct sectors *s, bool fua)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  uint8_t *buf = malloc (s->nr_bytes);
  int err;

  t->version++;
  for (unsigned k = 0; k < s->nr; k++)
    dev_fault_pattern (buf + k * sector_bytes, sector_bytes,
                       t->first + s->i + k, t->version);
  err = engine_pwrite (t->rig.engine, buf, s->nr_bytes, s->offset,
                       fua ? DEV_FUA : 0) == 0 ? 0 : errno;
  for (unsigned k = 0; k < s->nr; k++)
    crash_oracle_wrote (&t->oracle, s->i + k,
                  crash_hash (buf + k * sector_bytes, sector_bytes), err, fua);
  free (buf);
  return err;
}

static int
do_write (struct crash_trial *t)
{
  bool fua = crash_pick (t, 8) == 0;
  struct sectors s = pick_sectors (t);

  return write_sectors (t, &s, fua);
}

static int
do_zero (struct crash_trial *t)
{
  bool fua = crash_pick (t, 8) == 0, is_trim = crash_pick (t, 4) == 0;
  unsigned flags = (fua ? DEV_FUA : 0) | (crash_pick (t, 2) ? DEV_MAY_TRIM : 0);
  struct sectors s = pick_sectors (t);
  uint64_t hash = crash_hash_of_zeroes (t->oracle.sector_bytes);
  int err = (is_trim ? engine_trim : engine_zero)
    (t->rig.engine, s.nr_bytes, s.offset, flags) == 0 ? 0 : errno;

  for (unsigned k = 0; k < s.nr; k++) {
    crash_oracle_wrote (&t->oracle, s.i + k, hash, err, fua);
    t->oracle.trimmed[s.i + k] = err == 0 && is_trim && !fua;
  }
  return err;
}

/* Returns CRASH_LOST or the hash of what is read, which must be in the set. */
uint64_t
crash_check_read (struct crash_trial *t, unsigned i,
                const struct crash_set *allowed, const char *when,
                uint8_t *buf)
{
  struct sectors s = some_sectors (t, i, 1);
  uint64_t hash = CRASH_LOST, word[2] = { 0 };

  if (engine_pread (t->rig.engine, buf, s.nr_bytes, s.offset) == 0) {
    hash = crash_hash (buf, s.nr_bytes);
    memcpy (word, buf, sizeof word);
  }
  else if (errno != EIO)
    crash_wrong (t, when, "sector %u: %s", t->first + i, last_error_text ());
  if (!crash_set_has (allowed, hash))
    crash_wrong (t, when, "sector %u reads as %s (sector %llu, version %llu)",
           t->first + i, hash == CRASH_LOST ? "lost" : "something wrong",
           (unsigned long long) word[0], (unsigned long long) word[1]);
  return hash;
}

/* While the world stands, what is read is what was acknowledged. */
static int
do_read (struct crash_trial *t)
{
  unsigned i = crash_pick (t, t->oracle.nr);
  struct sectors s = some_sectors (t, i, 1);
  uint8_t *buf = malloc (s.nr_bytes);
  int r = engine_pread (t->rig.engine, buf, s.nr_bytes, s.offset);

  if (!crash_world.is_dead && (r == 0 || errno == EIO))
    crash_oracle_read (&t->oracle, i,
                       crash_check_read (t, i, &t->oracle.killed[i], "running",
                                         buf));
  free (buf);
  return 0;
}

/* A part of a sector, if it is known what the whole will be then. */
static int
do_write_part (struct crash_trial *t)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  unsigned i = crash_pick (t, t->oracle.nr);
  unsigned skip = 8 * crash_pick (t, sector_bytes / 8);
  unsigned n = MIN (8 * (1 + crash_pick (t, 9)), sector_bytes - skip);
  struct sectors s = some_sectors (t, i, 1);
  struct crash_set *killed = &t->oracle.killed[i];
  uint8_t *buf = malloc (sector_bytes);
  int err = 0;

  if (engine_pread (t->rig.engine, buf, s.nr_bytes, s.offset) == 0) {
    uint64_t was = crash_hash (buf, sector_bytes);

    if (!crash_set_has (killed, was))
      crash_wrong (t, "running", "sector %u reads as something wrong",
                   t->first + i);
    crash_oracle_read (&t->oracle, i, was);
    dev_fault_pattern (buf + skip, n, t->first + i, ++t->version);
    err = engine_pwrite (t->rig.engine, buf + skip, n, s.offset + skip, 0) == 0
      ? 0 : errno;
    crash_oracle_wrote (&t->oracle, i, crash_hash (buf, sector_bytes), err,
                        false);
  }
  else if (!crash_world.is_dead && errno == EIO &&
           crash_set_has (killed, CRASH_LOST))
    crash_oracle_read (&t->oracle, i, CRASH_LOST);
  free (buf);
  return err;
}

/* A good sector fails for a moment, is called lost, and is then read after all:
 * that is forgotten for good.
 */
static int
do_forget (struct crash_trial *t)
{
  unsigned i = crash_pick (t, t->oracle.nr);
  struct sectors s = some_sectors (t, i, 1);
  struct crash_set *killed = &t->oracle.killed[i], *cut = &t->oracle.cut[i];
  uint8_t *buf = malloc (t->oracle.sector_bytes);
  struct engine *e = t->rig.engine;
  lba_t lba = { t->first + i };
  struct sector_run run;
  bool is_lost;

  map_next (e->map, lba, 1, &run);
  if (run.state == SECTOR_CLEAN && t->oracle.sector_bytes == e->sector_bytes &&
      dev_fault_how_bad (t->rig.backing, lba.n) == 0 &&
      !crash_set_has (killed, CRASH_LOST) && !crash_set_has (cut, CRASH_LOST)) {
    dev_fault_spoil (t->rig.backing, lba.n, 1, DEV_FAULT_BAD_READ, 0, 0);
    crash_set_add (killed, CRASH_LOST);
    crash_set_add (cut, CRASH_LOST);
    engine_pread (e, buf, s.nr_bytes, s.offset);
    dev_fault_mend (t->rig.backing, lba.n, 1);
    map_next (e->map, lba, 1, &run);
    is_lost = run.state == SECTOR_LOST;
    if (is_lost && run.spare.n != SPARE_NONE.n &&
        place_forget (e, lba, run.spare, 1) == 0)
      is_lost = false;
    t->oracle.lost_unrecorded[i] = is_lost && run.spare.n == SPARE_NONE.n;
    if (!is_lost) {
      crash_set_remove (killed, CRASH_LOST);
      crash_set_remove (cut, CRASH_LOST);
    }
  }
  free (buf);
  return 0;
}

int
crash_flush (struct crash_trial *t)
{
  int r;

  crash_oracle_flush_begins (&t->oracle);
  t->is_in_flush = true;
  r = engine_flush (t->rig.engine);
  t->is_in_flush = false;
  crash_oracle_flush_ends (&t->oracle, r);
  return r == 0 ? 0 : errno;
}

/* In how many ways a power cut now could leave both disks. */
uint64_t
crash_nr_outcomes (const struct crash_trial *t)
{
  uint64_t n;

  return __builtin_mul_overflow (dev_fault_nr_outcomes (t->rig.backing),
                                 dev_fault_nr_outcomes (t->rig.store), &n)
    ? UINT64_MAX : n;
}

/* Returns 0 or errno. */
static int
do_something (struct crash_trial *t)
{
  unsigned what;

  if (crash_pick (t, 100) < t->flush_percent ||
      (t->flush_above && crash_nr_outcomes (t) > t->flush_above))
    return crash_flush (t);
  what = crash_pick (t, 100);
  return (what < 60 ? do_write : what < 74 ? do_zero : what < 85 ? do_read
          : what < 90 ? do_forget : do_write_part) (t);
}

/* Returns how many requests found no spare. */
unsigned
crash_run (struct crash_trial *t, unsigned nr_requests)
{
  unsigned nr_enospc = 0;

  for (unsigned i = 0; i < nr_requests && !crash_world.is_dead; i++)
    nr_enospc += do_something (t) == ENOSPC;
  if (!crash_world.is_dead)
    engine_verify (t->rig.engine);
  return nr_enospc;
}

/* Write each sector once. */
unsigned
crash_fill (struct crash_trial *t)
{
  unsigned nr_enospc = 0;

  for (unsigned i = 0; i < t->oracle.nr && !crash_world.is_dead; ) {
    struct sectors s = some_sectors (t, i, MIN (t->run_max,
                                                t->oracle.nr - i));

    nr_enospc += write_sectors (t, &s, false) == ENOSPC;
    i += s.nr;
  }
  return nr_enospc;
}

/* Other clients, who come between. */

/* Before data goes to its slot another client's flush may complete.  It covers
 * records that have been made, so this one must not have been (S1).
 */
static void
flush_between (struct crash_trial *t, const struct dev_fault_call *call)
{
  if (call->kind != DEV_FAULT_PWRITE || call->flags & DEV_BUFFERED ||
      call->disk != t->rig.store || !t->flushes_between || t->is_in_flush ||
      t->nr_slot_writes++ % 3)
    return;
  crash_flush (t);
}

/* So many slots that the write needs no flush, which it would wait for. */
static bool
has_room (const struct crash_trial *t)
{
  const struct store *s = t->rig.engine->store;
  uint32_t nr_total = spares_total (s->spares);

  return spares_ready (s->spares) == nr_total &&
    nr_total - spares_taken (s->spares) > s->nr_kept + CRASH_RUN_MAX;
}

static void *
write_in_thread (void *opaque)
{
  struct crash_trial *t = opaque;
  struct sectors s = pick_sectors (t);

  write_sectors (t, &s, false);
  return NULL;
}

/* While the store is being flushed another client's write may complete.  That
 * flush does not cover it (S3), and no slot may be used again for it before the
 * flush is done (S2).
 */
static void
write_between (struct crash_trial *t, const struct dev_fault_call *call)
{
  pthread_t thread;

  if (call->kind != DEV_FAULT_FLUSH || call->disk != t->rig.store ||
      !t->writes_between || !t->is_in_flush || !has_room (t))
    return;
  ck_assert_int_eq (pthread_create (&thread, NULL, write_in_thread, t), 0);
  ck_assert_int_eq (pthread_join (thread, NULL), 0);
}

/* What a disk that lies goes by: the kind of the store's last write. */

static enum crash_write
kind_of_write (const struct dev_fault_call *call)
{
  const uint8_t *data = call->data;
  uint64_t size_bytes = dev_fault_size (call->disk);

  if (call->count == STORE_BLOCK &&
      memcmp (data, STORE_MAGIC, STORE_MAGIC_BYTES) == 0)
    return CRASH_WRITE_SUPER;
  if (!(call->flags & DEV_BUFFERED))
    return CRASH_WRITE_OTHER;
  if (call->offset == COMMIT_A_OFFSET ||
      call->offset == size_bytes - STORE_TAIL_BYTES)
    return CRASH_WRITE_COMMIT;
  return data[ENTRY_STATE] == ENTRY_FREE ? CRASH_WRITE_FREE_ENTRIES
    : CRASH_WRITE_OTHER;
}

static bool
is_swallowed (struct crash_trial *t, const struct dev_fault_call *call)
{
  bool is_store = call->disk == t->rig.store;

  if (is_store && call->kind == DEV_FAULT_PWRITE)
    t->last_write = kind_of_write (call);
  if (call->kind != DEV_FAULT_FLUSH)
    return false;
  switch (t->lie) {
  case CRASH_NO_LIE:
    return false;
  case CRASH_LIE_BACKING:
    return !is_store;
  case CRASH_LIE_RECORDS:
    return is_store && !t->is_opening && t->last_write == CRASH_WRITE_OTHER;
  case CRASH_LIE_FREE_ENTRIES:
    return is_store && !t->is_opening &&
      t->last_write == CRASH_WRITE_FREE_ENTRIES;
  case CRASH_LIE_FIRST_SUPER:
    return is_store && t->last_write == CRASH_WRITE_SUPER;
  case CRASH_LIE_REPAIR:
    return is_store && t->is_opening && t->last_write != CRASH_WRITE_SUPER &&
      t->last_write != CRASH_WRITE_COMMIT;
  }
  return false;
}

/* What is written back to the good sectors is what stands there: it shall not
 * make a power cut have more outcomes.
 */
static void
settle_guard (const struct crash_trial *t, const struct dev_fault_call *call)
{
  if (call->disk == t->rig.backing && call->kind == DEV_FAULT_PWRITE &&
      call->err == 0 && call->offset >= t->end_bytes)
    dev_fault_poke (call->disk, call->data, call->count, call->offset);
}

static int
stop_world (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  struct crash_trial *t = opaque;

  if (is_done) {
    settle_guard (t, call);
    return 0;
  }
  if (!crash_world.is_dead) {
    flush_between (t, call);
    write_between (t, call);
  }
  if (crash_world.is_dead)
    return ENODEV;
  if (call->kind & (DEV_FAULT_CHANGES | DEV_FAULT_FLUSH) &&
      ++crash_world.nr_calls == crash_world.stop_at) {
    crash_world.is_dead = true;
    keep_in_flight (call);
    return ENODEV;
  }
  if (call->kind == DEV_FAULT_PWRITE && call->disk == t->rig.store &&
      !(call->flags & DEV_BUFFERED))
    crash_world.nr_slot_bytes += call->count;
  if (is_swallowed (t, call)) {
    crash_world.has_lied = true;
    return DEV_FAULT_SWALLOW;
  }
  if (call->kind == DEV_FAULT_FLUSH && t->lie != CRASH_LIE_BACKING &&
      call->disk == t->rig.store)
    crash_world.has_lied = false;
  return 0;
}

void
crash_let_stop (struct crash_trial *t)
{
  dev_fault_set_hook (t->rig.backing, stop_world, t);
  dev_fault_set_hook (t->rig.store, stop_world, t);
}

void
crash_let_live (struct crash_trial *t)
{
  dev_fault_set_hook (t->rig.backing, NULL, NULL);
  dev_fault_set_hook (t->rig.store, NULL, NULL);
}

/* Trials. */

/* At the end of the disk there are some that are always good: else it would
 * count as dead.
 */
#define GUARD_SECTORS(nr_sectors) (32 + (nr_sectors) / 4)

void
crash_trial_begin (struct crash_trial *t, unsigned nr_sectors, unsigned first,
                   uint32_t sector_bytes, unsigned nr_spares)
{
  uint8_t *buf = malloc (sector_bytes);

  memset (t, 0, sizeof *t);
  t->end_bytes = (uint64_t) nr_sectors * sector_bytes;
  fault_rig_init (&t->rig,
                  &(struct dev_fault_options) {
                    .size_bytes = t->end_bytes +
                      (uint64_t) GUARD_SECTORS (nr_sectors) * sector_bytes,
                    .sector_bytes = sector_bytes, .is_volatile = true },
                  &(struct dev_fault_options) { .is_volatile = true });
  t->rig.spare_bytes = (uint64_t) nr_spares * sector_bytes;
  t->rig.options.retries = 0;
  t->first = first;
  t->run_max = CRASH_RUN_MAX;
  t->flush_percent = 13;
  t->seed = crash_seed;
  crash_oracle_init (&t->oracle, nr_sectors - first, sector_bytes);
  for (unsigned i = 0; i < t->oracle.nr; i++) {
    dev_fault_pattern (buf, sector_bytes, first + i, 0);
    crash_set_only (&t->oracle.killed[i], crash_hash (buf, sector_bytes));
  }
  free (buf);
}

void
crash_trial_end (struct crash_trial *t)
{
  fault_rig_free (&t->rig);
  crash_oracle_free (&t->oracle);
}

void
crash_trial_copy (struct crash_trial *to, const struct crash_trial *from)
{
  *to = *from;
  crash_oracle_copy (&to->oracle, &from->oracle);
  to->rig.backing = dev_fault_clone (from->rig.backing);
  to->rig.store = dev_fault_clone (from->rig.store);
  to->rig.engine = NULL;
}

void
crash_spoil (struct crash_trial *t, unsigned lba, unsigned nr, unsigned how)
{
  dev_fault_spoil (t->rig.backing, lba, nr, how, 0, 0);
  for (unsigned i = lba - t->first; how & DEV_FAULT_BAD_READ && nr > 0;
       i++, nr--)
    if (how & DEV_FAULT_BAD_WRITE)
      crash_set_only (&t->oracle.killed[i], CRASH_LOST);
    else
      crash_set_add (&t->oracle.killed[i], CRASH_LOST);
}

int
crash_try_open (struct crash_trial *t)
{
  int r;

  t->is_opening = true;
  t->last_write = CRASH_WRITE_OTHER;
  r = fault_rig_open (&t->rig);
  crash_oracle_opened (&t->oracle);
  t->is_opening = false;
  t->last_write = CRASH_WRITE_OTHER;
  return r;
}

bool
crash_open (struct crash_trial *t, const char *when)
{
  if (crash_try_open (t) == 0)
    return true;
  crash_wrong (t, when, "%s", last_error_text ());
  return false;
}

uint64_t
crash_hash_of_rest (struct crash_trial *t)
{
  size_t nr_bytes = (size_t) t->first * t->oracle.sector_bytes;
  uint8_t *buf = malloc (nr_bytes + 1);
  uint64_t hash = engine_pread (t->rig.engine, buf, nr_bytes, 0) == 0
    ? crash_hash (buf, nr_bytes) : CRASH_LOST;

  free (buf);
  return hash;
}

void
crash_settle (struct crash_trial *t)
{
  ck_assert_int_eq (crash_flush (t), 0);
  t->oracle.rest_hash = crash_hash_of_rest (t);
  ck_assert_uint_ne (t->oracle.rest_hash, CRASH_LOST);
  fault_rig_close (&t->rig);
}

void
crash_cut_both (struct crash_trial *t)
{
  dev_fault_cut_power (t->rig.backing, dev_fault_random (&t->seed));
  dev_fault_cut_power (t->rig.store, dev_fault_random (&t->seed));
}

void
crash_cut (struct crash_trial *t)
{
  fault_rig_kill (&t->rig);
  crash_cut_both (t);
  crash_sets_copy (t->oracle.killed, t->oracle.cut, t->oracle.nr);
}
