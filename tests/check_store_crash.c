/* SPDX-License-Identifier: BSD-3-Clause */
/* The world stops before its nth write or flush, for n = 1, 2, ...: by kill -9
 * (all earlier writes are there), in the middle of that write, or by power cuts
 * (what was not flushed is there or not, as a seed says).  Then all sectors
 * must read as the contract, section 5, allows.
 *
 * REMAP_TEST_SEED=N repeats a run.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"

static uint64_t base_seed;

/* Where the world stops. */

static struct world {
  unsigned nr_calls, stop_at;   /* 0: never */
  bool is_dead;
  struct dev_fault *disk;       /* what was in flight, if it was a write: */
  uint64_t offset;
  size_t count;
  uint8_t *data;
} world;

static void
begin_world (unsigned stop_at)
{
  free (world.data);
  world = (struct world) { .stop_at = stop_at };
}

static void
keep_in_flight (const struct dev_fault_call *call)
{
  if (call->kind != DEV_FAULT_PWRITE)
    return;
  world.disk = call->disk;
  world.offset = call->offset;
  world.count = call->count;
  world.data = malloc (call->count);
  memcpy (world.data, call->data, call->count);
}

/* What sectors may read as: hashes of contents, or LOST. */

#define LOST UINT64_C (0)
#define SET_MAX 128

struct set {
  unsigned nr;
  uint64_t hash[SET_MAX];
};

struct oracle {
  uint32_t sector_bytes;
  unsigned nr_sectors;
  struct set *killed;           /* after a kill: the last acknowledged one, or
                                   more where a request failed */
  struct set *cut;              /* after a power cut: the last flushed one or
                                   any later one */
};

static uint64_t
hash_of (const void *buf, size_t count)
{
  const uint8_t *p = buf;
  uint64_t h = UINT64_C (0xcbf29ce484222325);

  for (size_t i = 0; i < count; i += 8) {
    uint64_t word;

    memcpy (&word, p + i, 8);
    h = (h ^ word) * UINT64_C (0x100000001b3);
    h ^= h >> 29;
  }
  return h == LOST ? 1 : h;
}

static bool
set_has (const struct set *s, uint64_t hash)
{
  for (unsigned i = 0; i < s->nr; i++)
    if (s->hash[i] == hash)
      return true;
  return false;
}

static void
set_add (struct set *s, uint64_t hash)
{
  if (set_has (s, hash))
    return;
  ck_assert_uint_lt (s->nr, SET_MAX);
  s->hash[s->nr++] = hash;
}

static void
set_only (struct set *s, uint64_t hash)
{
  s->nr = 1;
  s->hash[0] = hash;
}

static void
oracle_init (struct oracle *o, unsigned nr_sectors, uint32_t sector_bytes)
{
  o->nr_sectors = nr_sectors;
  o->sector_bytes = sector_bytes;
  o->killed = calloc (nr_sectors, sizeof o->killed[0]);
  o->cut = calloc (nr_sectors, sizeof o->cut[0]);
}

static void
oracle_free (struct oracle *o)
{
  free (o->killed);
  free (o->cut);
}

static void
oracle_copy (struct oracle *to, const struct oracle *from)
{
  oracle_init (to, from->nr_sectors, from->sector_bytes);
  memcpy (to->killed, from->killed, to->nr_sectors * sizeof to->killed[0]);
  memcpy (to->cut, from->cut, to->nr_sectors * sizeof to->cut[0]);
}

/* A write of this content was acknowledged (r 0), or may have happened. */
static void
oracle_wrote (struct oracle *o, unsigned lba, uint64_t hash, int r, bool fua)
{
  set_add (&o->cut[lba], hash);
  if (r != 0)
    set_add (&o->killed[lba], hash);
  else {
    set_only (&o->killed[lba], hash);
    if (fua)
      set_only (&o->cut[lba], hash);
  }
}

static void
oracle_flushed (struct oracle *o)
{
  memcpy (o->cut, o->killed, o->nr_sectors * sizeof o->cut[0]);
}

/* The workload. */

struct trial {
  struct fault_rig rig;
  struct oracle oracle;
  uint64_t seed;
  unsigned first, nr;           /* the sectors that it works on */
  unsigned version;
  unsigned nr_between;
  bool flushes_between;         /* as another client would: see stop_world */
};

/* Before data goes to its slot another client's flush may complete.  It covers
 * records that have been made, so this one must not have been (S1).
 */
static void
flush_between (struct trial *t, const struct dev_fault_call *call)
{
  if (call->kind != DEV_FAULT_PWRITE || call->flags & DEV_BUFFERED ||
      call->disk != t->rig.store || !t->flushes_between || t->nr_between++ % 3)
    return;
  if (engine_flush (t->rig.engine) == 0)
    oracle_flushed (&t->oracle);
}

static int
stop_world (void *opaque, const struct dev_fault_call *call, bool is_done)
{
  if (is_done)
    return 0;
  if (!world.is_dead)
    flush_between (opaque, call);
  if (world.is_dead)
    return ENODEV;
  if (call->kind & (DEV_FAULT_CHANGES | DEV_FAULT_FLUSH) &&
      ++world.nr_calls == world.stop_at) {
    world.is_dead = true;
    keep_in_flight (call);
    return ENODEV;
  }
  return 0;
}

static void
let_stop (struct trial *t)
{
  dev_fault_set_hook (t->rig.backing, stop_world, t);
  dev_fault_set_hook (t->rig.store, stop_world, t);
}

#define RUN_MAX 6u

static unsigned
pick (struct trial *t, unsigned below)
{
  return (unsigned) (dev_fault_random (&t->seed) % below);
}

static void
pick_run (struct trial *t, unsigned *ret_lba, unsigned *ret_nr)
{
  *ret_lba = t->first + pick (t, t->nr);
  *ret_nr = 1 + pick (t, MIN (RUN_MAX, t->first + t->nr - *ret_lba));
}

static void
do_write (struct trial *t)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  uint8_t *buf = malloc (RUN_MAX * sector_bytes);
  bool fua = pick (t, 8) == 0;
  unsigned lba, nr;
  int r;

  pick_run (t, &lba, &nr);
  t->version++;
  for (unsigned i = 0; i < nr; i++)
    dev_fault_pattern (buf + i * sector_bytes, sector_bytes, lba + i,
                       t->version);
  r = engine_pwrite (t->rig.engine, buf, (size_t) nr * sector_bytes,
                     (uint64_t) lba * sector_bytes, fua ? DEV_FUA : 0);
  for (unsigned i = 0; i < nr; i++)
    oracle_wrote (&t->oracle, lba + i,
                  hash_of (buf + i * sector_bytes, sector_bytes), r, fua);
  free (buf);
}

static void
do_zero (struct trial *t)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  uint8_t *zeroes = calloc (1, sector_bytes);
  bool fua = pick (t, 8) == 0;
  unsigned flags = (fua ? DEV_FUA : 0) | (pick (t, 2) ? DEV_MAY_TRIM : 0);
  unsigned lba, nr;
  int r;

  pick_run (t, &lba, &nr);
  r = (pick (t, 4) ? engine_zero : engine_trim)
    (t->rig.engine, (uint64_t) nr * sector_bytes,
     (uint64_t) lba * sector_bytes, flags);
  for (unsigned i = 0; i < nr; i++)
    oracle_wrote (&t->oracle, lba + i, hash_of (zeroes, sector_bytes), r, fua);
  free (zeroes);
}

/* Returns LOST or the hash of what is read, which must be in the set. */
static uint64_t
read_and_check (struct trial *t, unsigned lba, const struct set *allowed,
                const char *when, uint8_t *buf)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  uint64_t hash = LOST, word[2] = { 0 };

  if (engine_pread (t->rig.engine, buf, sector_bytes,
                    (uint64_t) lba * sector_bytes) == 0) {
    hash = hash_of (buf, sector_bytes);
    memcpy (word, buf, sizeof word);
  }
  else if (errno != EIO)
    ck_abort_msg ("%s: sector %u: %s", when, lba, last_error_text ());
  if (!set_has (allowed, hash))
    ck_abort_msg ("seed %llu, stop at %u, %s: sector %u reads as %s "
                  "(sector %llu, version %llu)",
                  (unsigned long long) base_seed, world.stop_at, when, lba,
                  hash == LOST ? "lost" : "something wrong",
                  (unsigned long long) word[0], (unsigned long long) word[1]);
  return hash;
}

/* While the world stands, what is read is what was acknowledged. */
static void
do_read (struct trial *t)
{
  unsigned lba = t->first + pick (t, t->nr);
  uint8_t *buf = malloc (t->oracle.sector_bytes);
  int r = engine_pread (t->rig.engine, buf, t->oracle.sector_bytes,
                        (uint64_t) lba * t->oracle.sector_bytes);

  if (!world.is_dead && (r == 0 || errno == EIO))
    set_only (&t->oracle.killed[lba],
              read_and_check (t, lba, &t->oracle.killed[lba], "running", buf));
  free (buf);
}

/* A part of a sector, if it is known what the whole will be then. */
static void
do_write_part (struct trial *t)
{
  uint32_t sector_bytes = t->oracle.sector_bytes;
  unsigned lba = t->first + pick (t, t->nr);
  unsigned skip = 8 * pick (t, sector_bytes / 8);
  unsigned n = MIN (8 * (1 + pick (t, 9)), sector_bytes - skip);
  struct set *killed = &t->oracle.killed[lba];
  uint8_t *buf = malloc (sector_bytes);
  uint64_t was;
  int r;

  r = engine_pread (t->rig.engine, buf, sector_bytes,
                    (uint64_t) lba * sector_bytes);
  if (r == 0) {
    was = hash_of (buf, sector_bytes);
    ck_assert (set_has (killed, was));
    set_only (killed, was);
    dev_fault_pattern (buf + skip, n, lba, ++t->version);
    r = engine_pwrite (t->rig.engine, buf + skip, n,
                       (uint64_t) lba * sector_bytes + skip, 0);
    oracle_wrote (&t->oracle, lba, hash_of (buf, sector_bytes), r, false);
  }
  else if (!world.is_dead && errno == EIO && set_has (killed, LOST))
    set_only (killed, LOST);
  free (buf);
}

static void
do_flush (struct trial *t)
{
  if (engine_flush (t->rig.engine) == 0)
    oracle_flushed (&t->oracle);
}

static void
run_workload (struct trial *t, unsigned nr_requests)
{
  for (unsigned i = 0; i < nr_requests && !world.is_dead; i++) {
    unsigned what = pick (t, 100);

    if (what < 55)
      do_write (t);
    else if (what < 67)
      do_zero (t);
    else if (what < 77)
      do_read (t);
    else if (what < 87)
      do_write_part (t);
    else
      do_flush (t);
  }
  if (!world.is_dead)
    engine_verify (t->rig.engine);
}

/* After the stop. */

enum way { KILL, KILL_IN_WRITE, CUT, CUT_TWICE, NR_WAYS };

static void
open_rig (struct trial *t, const char *when)
{
  ck_assert_msg (fault_rig_open (&t->rig) == 0,
                 "seed %llu, stop at %u, %s: %s",
                 (unsigned long long) base_seed, world.stop_at, when,
                 last_error_text ());
}

/* Every sector: is it allowed?  Then that is what it must stay. */
static void
check_all (struct trial *t, struct set *allowed, const char *when)
{
  uint8_t *buf = malloc (t->oracle.sector_bytes);

  for (unsigned lba = 0; lba < t->oracle.nr_sectors; lba++)
    set_only (&allowed[lba],
              read_and_check (t, lba, &allowed[lba], when, buf));
  free (buf);
  engine_verify (t->rig.engine);
}

static void
cut_both (struct trial *t)
{
  dev_fault_cut_power (t->rig.backing, dev_fault_random (&t->seed));
  dev_fault_cut_power (t->rig.store, dev_fault_random (&t->seed));
}

/* Some of the sectors of the write that was under way. */
static void
write_half (struct trial *t, const struct fault_rig *original)
{
  bool in_store = world.disk == original->store;
  struct dev_fault *d = in_store ? t->rig.store : t->rig.backing;
  uint32_t sector_bytes = in_store ? DEV_FAULT_ATOM_BYTES
    : t->oracle.sector_bytes;
  unsigned nr_sectors = (unsigned) (world.count / sector_bytes);

  if (world.data)
    dev_fault_write_quietly (d, world.data, (size_t) sector_bytes
                             * pick (t, nr_sectors + 1), world.offset);
}

/* The power fails again while the store is opened. */
static void
stop_while_opening (struct trial *t)
{
  struct world was = world;

  world = (struct world) { .stop_at = 1 + pick (t, 12) };
  let_stop (t);
  if (fault_rig_open (&t->rig) == 0)
    fault_rig_kill (&t->rig);
  dev_fault_set_hook (t->rig.store, NULL, NULL);
  dev_fault_set_hook (t->rig.backing, NULL, NULL);
  cut_both (t);
  free (world.data);
  world = was;
}

/* All goes on after it, up to another power cut. */
static void
live_on (struct trial *t)
{
  struct world was = world;

  world = (struct world) { .stop_at = was.stop_at };
  ck_assert_int_eq (engine_flush (t->rig.engine), 0);
  oracle_flushed (&t->oracle);
  run_workload (t, 12);
  fault_rig_kill (&t->rig);
  cut_both (t);
  open_rig (t, "second life");
  check_all (t, t->oracle.cut, "second life");
  world = was;
}

static const char *const way_names[NR_WAYS] = {
  "kill", "kill in a write", "power cut", "power cut while opening",
};

/* Let a copy of what is left of the world end in one way, and look at it. */
static void
check_way (const struct trial *stopped, enum way way, uint64_t seed)
{
  struct trial t = *stopped;
  bool is_cut = way == CUT || way == CUT_TWICE;
  struct set *allowed;

  oracle_copy (&t.oracle, &stopped->oracle);
  t.rig.backing = dev_fault_clone (stopped->rig.backing);
  t.rig.store = dev_fault_clone (stopped->rig.store);
  t.rig.engine = NULL;
  t.seed = seed;
  allowed = is_cut ? t.oracle.cut : t.oracle.killed;

  if (way == KILL_IN_WRITE)
    write_half (&t, &stopped->rig);
  if (is_cut)
    cut_both (&t);
  if (way == CUT_TWICE)
    stop_while_opening (&t);
  open_rig (&t, way_names[way]);
  check_all (&t, allowed, way_names[way]);
  fault_rig_kill (&t.rig);
  open_rig (&t, "opened again");
  check_all (&t, allowed, "opened again");
  memcpy (t.oracle.killed, allowed, t.oracle.nr_sectors * sizeof allowed[0]);
  if (seed % 4 == 0)
    live_on (&t);
  fault_rig_free (&t.rig);
  oracle_free (&t.oracle);
}

/* Copies of the trial run from its beginning to stop after stop. */
static void
sweep (const struct trial *start, unsigned nr_requests, unsigned step,
       unsigned nr_cuts)
{
  unsigned nr_stops = 0;

  for (unsigned n = 1; ; n += step) {
    struct trial t = *start;
    uint64_t seed = base_seed + n;

    oracle_copy (&t.oracle, &start->oracle);
    t.rig.backing = dev_fault_clone (start->rig.backing);
    t.rig.store = dev_fault_clone (start->rig.store);
    begin_world (n);
    let_stop (&t);
    if (fault_rig_open (&t.rig) == 0)
      run_workload (&t, nr_requests);
    fault_rig_kill (&t.rig);
    if (world.is_dead) {
      nr_stops++;
      check_way (&t, KILL, dev_fault_random (&seed));
      check_way (&t, KILL_IN_WRITE, dev_fault_random (&seed));
      for (unsigned i = 0; i < nr_cuts; i++)
        check_way (&t, i % 2 ? CUT_TWICE : CUT, dev_fault_random (&seed));
    }
    fault_rig_free (&t.rig);
    oracle_free (&t.oracle);
    if (!world.is_dead)
      break;
  }
  printf ("stopped at %u calls\n", nr_stops);
  ck_assert_uint_ge (nr_stops, 3);
  begin_world (0);
}

/* Under valgrind and the like everything takes so much longer. */
static unsigned
slowness (void)
{
  const char *valgrind = getenv ("REMAP_TEST_VALGRIND");
  const char *sanitizer = getenv ("REMAP_SANITIZER");

  if (valgrind && *valgrind)
    return 11;
  return sanitizer && *sanitizer ? 3 : 1;
}

/* The beginnings. */

static void
begin_trial (struct trial *t, unsigned nr_sectors, uint32_t sector_bytes,
             unsigned nr_spares)
{
  uint8_t *buf = malloc (sector_bytes);

  memset (t, 0, sizeof *t);
  fault_rig_init (&t->rig,
                  &(struct dev_fault_options) {
                    .size_bytes = (uint64_t) nr_sectors * sector_bytes,
                    .sector_bytes = sector_bytes, .is_volatile = true },
                  &(struct dev_fault_options) { .is_volatile = true });
  t->rig.spare_bytes = (uint64_t) nr_spares * sector_bytes;
  t->rig.options.retries = 0;
  oracle_init (&t->oracle, nr_sectors, sector_bytes);
  for (unsigned i = 0; i < nr_sectors; i++) {
    dev_fault_pattern (buf, sector_bytes, i, 0);
    set_only (&t->oracle.killed[i], hash_of (buf, sector_bytes));
  }
  t->nr = nr_sectors;
  free (buf);
}

static void
spoil (struct trial *t, unsigned lba, unsigned nr, unsigned how)
{
  dev_fault_spoil (t->rig.backing, lba, nr, how, 0, 0);
  for (unsigned i = lba; how & DEV_FAULT_BAD_READ && i < lba + nr; i++)
    if (how & DEV_FAULT_BAD_WRITE)
      set_only (&t->oracle.killed[i], LOST);
    else
      set_add (&t->oracle.killed[i], LOST);
}

/* The store is there, all is durable. */
static void
settle_open (struct trial *t)
{
  ck_assert_int_eq (engine_flush (t->rig.engine), 0);
  fault_rig_close (&t->rig);
  oracle_flushed (&t->oracle);
}

static void
settle (struct trial *t)
{
  open_rig (t, "first");
  settle_open (t);
}

static void
end_trial (struct trial *t)
{
  fault_rig_free (&t->rig);
  oracle_free (&t->oracle);
}

static const uint32_t sector_sizes[] = { 512, 512, 4096 };

/* More bad sectors than spares: slots go round, and some writes fail. */
START_TEST (small_store)
{
  struct trial t;

  begin_trial (&t, 56, sector_sizes[_i], 32);
  spoil (&t, 0, 24, DEV_FAULT_BAD_WRITE);
  spoil (&t, 24, 8, DEV_FAULT_BAD);
  spoil (&t, 32, 4, DEV_FAULT_BAD_READ);
  t.flushes_between = _i == 1;
  t.seed = base_seed + (unsigned) _i;
  settle (&t);
  sweep (&t, 60, slowness (), 4);
  end_trial (&t);
}
END_TEST

/* Fewer sectors than spares, rewritten all the time, hardly ever flushed. */
START_TEST (few_sectors_rewritten)
{
  struct trial t;

  begin_trial (&t, 8, 512, 32);
  spoil (&t, 0, 7, DEV_FAULT_BAD_WRITE);
  spoil (&t, 7, 1, DEV_FAULT_BAD);
  t.flushes_between = _i == 1;
  t.seed = base_seed + (unsigned) _i;
  settle (&t);
  sweep (&t, 60, slowness (), 4);
  end_trial (&t);
}
END_TEST

#define READY_AT_FIRST 4096

/* The store runs out of slots that are ready. */
START_TEST (readiness_grows)
{
  const unsigned nr_used = READY_AT_FIRST - 8, nr_sectors = nr_used + 40;
  uint8_t *buf = calloc (nr_used, 512);
  struct trial t;

  begin_trial (&t, nr_sectors, 512, nr_sectors + 100);
  spoil (&t, 0, nr_sectors, DEV_FAULT_BAD_WRITE);
  open_rig (&t, "first");
  ck_assert_int_eq (engine_pwrite (t.rig.engine, buf, (size_t) nr_used * 512,
                                   0, 0), 0);
  fault_rig_close (&t.rig);
  for (unsigned i = 0; i < nr_used; i++)
    set_only (&t.oracle.killed[i], hash_of (buf, 512));
  t.first = nr_used - 10;
  t.nr = 50;
  t.seed = base_seed;
  settle (&t);
  sweep (&t, 18, slowness () > 3 ? 17 : 2 * slowness (), 2);
  end_trial (&t);
  free (buf);
}
END_TEST

/* Opened with a larger spare-size, as file and as device. */
START_TEST (store_grows)
{
  struct trial t;

  begin_trial (&t, 56, 512, 32);
  if (_i == 1) {
    dev_fault_free (t.rig.store);
    t.rig.store = dev_fault_new (&(struct dev_fault_options) {
                                   .size_bytes = 256 << 10,
                                   .kind = DEV_BLOCK, .is_volatile = true });
  }
  spoil (&t, 0, 40, DEV_FAULT_BAD_WRITE);
  spoil (&t, 40, 4, DEV_FAULT_BAD);
  t.seed = base_seed;
  open_rig (&t, "first");
  oracle_flushed (&t.oracle);
  run_workload (&t, 60);
  settle_open (&t);
  t.rig.spare_bytes = 64 * 512;
  sweep (&t, 6, 1, 6);
  end_trial (&t);
}
END_TEST

static void
flip (struct dev_fault *d, uint64_t offset)
{
  uint8_t byte;

  dev_fault_peek (d, &byte, 1, offset);
  byte ^= 1;
  dev_fault_poke (d, &byte, 1, offset);
}

/* A copy of superblock or commit sector is damaged, and the world stops while
 * it is repaired: the good copy must not be put at risk.
 */
START_TEST (repair_is_stopped)
{
  struct trial t;
  uint64_t end;

  begin_trial (&t, 56, 512, 32);
  spoil (&t, 0, 40, DEV_FAULT_BAD_WRITE);
  t.seed = base_seed;
  open_rig (&t, "first");
  oracle_flushed (&t.oracle);
  run_workload (&t, 20);
  settle_open (&t);
  end = dev_fault_size (t.rig.store);
  flip (t.rig.store, (const uint64_t[]) { 100, end - 4000, 4100,
                                          end - 8100 }[_i]);
  sweep (&t, 0, 1, 40);
  end_trial (&t);
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

int
main (void)
{
  Suite *suite = suite_create ("store crash");
  TCase *tc = tcase_create ("sweep");
  SRunner *runner;
  int nr_failed;

  choose_seed ();
  tcase_set_timeout (tc, 280);
  tcase_add_loop_test (tc, small_store, 0, 3);
  tcase_add_loop_test (tc, few_sectors_rewritten, 0, 2);
  tcase_add_test (tc, readiness_grows);
  tcase_add_loop_test (tc, store_grows, 0, 2);
  tcase_add_loop_test (tc, repair_is_stopped, 0, 4);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
