/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "crash-sweep.h"
#include "engine-internal.h"
#include "error.h"
#include "store-internal.h"

enum way { KILL, KILL_IN_WRITE, CUT, CUT_TWICE, CUT_TO, NR_WAYS };

static const char *const way_names[NR_WAYS] = {
  "kill", "kill in a write", "power cut", "power cut while opening",
  "power cut",
};

struct ending {
  enum way way;
  uint64_t seed;
  uint64_t outcome, nr_backing_outcomes;        /* CUT_TO */
};

/* Every sector: is it allowed?  Then that is what it must stay. */
static void
check_all (struct crash_trial *t, struct crash_set *allowed, const char *when)
{
  uint8_t *buf = malloc (t->oracle.sector_bytes);

  for (unsigned i = 0; i < t->oracle.nr; i++)
    crash_set_only (&allowed[i],
                    crash_check_read (t, i, &allowed[i], when, buf));
  free (buf);
  if (crash_hash_of_rest (t) != t->oracle.rest_hash)
    crash_wrong (t, when, "a sector before sector %u has changed", t->first);
  engine_verify (t->rig.engine);
}

/* What became of sectors that were trimmed? */
static void
count_trims (const struct crash_trial *t, const struct crash_set *allowed)
{
  uint64_t zeroes = crash_hash_of_zeroes (t->oracle.sector_bytes);

  for (unsigned i = 0; i < t->oracle.nr; i++)
    if (t->oracle.trimmed[i] && allowed[i].hash[0] == zeroes)
      CRASH_COUNT (t, nr_trims_kept);
    else if (t->oracle.trimmed[i])
      CRASH_COUNT (t, nr_trims_lost);
}

/* How much of what was in flight the disk could carry out at all. */
static uint64_t
most_of_in_flight (struct dev_fault *d, uint32_t sector_bytes)
{
  uint64_t n = 0;

  while (n < crash_world.count &&
         !(dev_fault_how_bad (d, (crash_world.offset + n) / sector_bytes)
           & DEV_FAULT_BAD_WRITE))
    n += sector_bytes;
  return MIN (n, crash_world.count);
}

/* Carry out what was in flight: some of its sectors or all that is possible. */
static void
write_in_flight (struct crash_trial *t, const struct fault_rig *original,
                 bool all)
{
  bool in_store = crash_world.disk == original->store;
  struct dev_fault *d = in_store ? t->rig.store : t->rig.backing;
  uint32_t sector_bytes = in_store ? DEV_FAULT_ATOM_BYTES
    : t->oracle.sector_bytes;
  uint64_t n;

  if (crash_world.disk == NULL)
    return;
  n = most_of_in_flight (d, sector_bytes);
  if (!all && n < crash_world.count)
    n -= n % sector_bytes;
  if (!all)
    n = MIN (n, (uint64_t) sector_bytes
             * crash_pick (t, (unsigned) (n / sector_bytes) + 1));
  dev_fault_write_quietly (d, crash_world.data, n, crash_world.offset);
}

/* The power fails again while the store is opened. */
static void
stop_while_opening (struct crash_trial *t)
{
  struct crash_world was = crash_world;

  crash_world = (struct crash_world) { .stop_at = 1 + crash_pick (t, 12) };
  crash_let_stop (t);
  if (crash_try_open (t) == 0)
    fault_rig_kill (&t->rig);
  crash_let_live (t);
  crash_cut_both (t);
  free (crash_world.data);
  crash_world = was;
}

/* All goes on after it, up to another power cut. */
static void
live_on (struct crash_trial *t)
{
  struct crash_world was = crash_world;

  crash_world = (struct crash_world) { .stop_at = was.stop_at };
  ck_assert_int_eq (crash_flush (t), 0);
  crash_run (t, 12);
  fault_rig_kill (&t->rig);
  crash_cut_both (t);
  if (crash_open (t, "second life")) {
    CRASH_COUNT (t, nr_states);
    check_all (t, t->oracle.cut, "second life");
  }
  crash_world = was;
}

static void
end_world (struct crash_trial *t, const struct ending *e,
           const struct fault_rig *original)
{
  switch (e->way) {
  case KILL:
  case NR_WAYS:
    break;
  case KILL_IN_WRITE:
    write_in_flight (t, original, false);
    break;
  case CUT:
    crash_cut_both (t);
    break;
  case CUT_TWICE:
    crash_cut_both (t);
    stop_while_opening (t);
    break;
  case CUT_TO:
    dev_fault_cut_power_to (t->rig.backing,
                            e->outcome % e->nr_backing_outcomes);
    dev_fault_cut_power_to (t->rig.store, e->outcome / e->nr_backing_outcomes);
    break;
  }
}

static void
look_at_it (struct crash_trial *t, const struct ending *e)
{
  bool is_cut = e->way != KILL && e->way != KILL_IN_WRITE;
  struct crash_set *allowed = is_cut ? t->oracle.cut : t->oracle.killed;

  CRASH_COUNT (t, nr_states);
  if (!crash_open (t, way_names[e->way]))
    return;
  check_all (t, allowed, way_names[e->way]);
  if (is_cut)
    count_trims (t, allowed);
  fault_rig_kill (&t->rig);
  if (!crash_open (t, "opened again"))
    return;
  check_all (t, allowed, "opened again");
  if (is_cut)
    crash_sets_copy (t->oracle.killed, t->oracle.cut, t->oracle.nr);
  if (e->seed % 4 == 0)
    live_on (t);
}

/* Let a copy of what is left of the world end in one way, and look at it. */
static void
try_ending (const struct crash_trial *stopped, const struct fault_rig *original,
            const struct ending *e)
{
  struct crash_trial t;

  crash_trial_copy (&t, stopped);
  t.seed = e->seed;
  end_world (&t, e, original);
  look_at_it (&t, e);
  crash_trial_end (&t);
}

/* What was in flight, or some of its sectors, may be there after a cut. */
static void
try_cuts (const struct crash_trial *stopped, const struct crash_effort *effort,
          uint64_t *seed)
{
  uint64_t nr_backing, nr;
  struct crash_trial t;

  crash_trial_copy (&t, stopped);
  write_in_flight (&t, &stopped->rig, true);
  nr_backing = dev_fault_nr_outcomes (t.rig.backing);
  nr = crash_nr_outcomes (&t);
  if (nr <= effort->most_outcomes) {
    CRASH_COUNT (&t, nr_exhausted_stops);
    for (uint64_t i = 0; i < nr; i++)
      try_ending (&t, &stopped->rig, &(struct ending) {
                    CUT_TO, dev_fault_random (seed), i, nr_backing });
  }
  else
    for (unsigned i = 0; i < effort->nr_cuts; i++)
      try_ending (&t, &stopped->rig, &(struct ending) {
                    CUT, dev_fault_random (seed), 0, 0 });
  for (unsigned i = 0; i < effort->nr_double_cuts; i++)
    try_ending (&t, &stopped->rig, &(struct ending) {
                  CUT_TWICE, dev_fault_random (seed), 0, 0 });
  crash_trial_end (&t);
}

static void
try_states (const struct crash_trial *stopped,
            const struct crash_effort *effort)
{
  uint64_t seed = crash_seed ^ stopped->seed;

  CRASH_COUNT (stopped, nr_stops);
  try_ending (stopped, &stopped->rig, &(struct ending) {
                KILL, dev_fault_random (&seed), 0, 0 });
  if (crash_world.count > DEV_FAULT_ATOM_BYTES)
    try_ending (stopped, &stopped->rig, &(struct ending) {
                  KILL_IN_WRITE, dev_fault_random (&seed), 0, 0 });
  try_cuts (stopped, effort, &seed);
}

/* Opened anew, with a larger spare-size. */
static void
grow (struct crash_trial *t, const struct crash_life *life)
{
  if (life->is_killed)
    fault_rig_kill (&t->rig);
  else {
    crash_oracle_flush_begins (&t->oracle);
    fault_rig_close (&t->rig);
    crash_oracle_flush_ends (&t->oracle, crash_world.is_dead ? -1 : 0);
  }
  if (crash_world.is_dead)
    return;
  t->rig.spare_bytes = life->grow_to_bytes;
  if (crash_try_open (t) == -1 && !crash_world.is_dead)
    crash_wrong (t, "growing", "%s", last_error_text ());
}

static struct crash_seen
live (struct crash_trial *t, const struct crash_life *life)
{
  struct crash_seen seen = { .nr_enospc = 0 };
  const struct store *s;

  if (crash_try_open (t) == -1 && !crash_world.is_dead)
    crash_wrong (t, "first", "%s", last_error_text ());
  for (unsigned i = 0; i < life->nr_fills && !crash_world.is_dead; i++)
    seen.nr_enospc += crash_fill (t);
  if (!crash_world.is_dead)
    seen.nr_enospc += crash_run (t, life->nr_requests);
  if (!crash_world.is_dead && life->grow_to_bytes) {
    grow (t, life);
    if (!crash_world.is_dead)
      crash_fill (t);
  }
  if (!crash_world.is_dead)
    seen.nr_enospc += crash_run (t, life->nr_more_requests);
  if (!crash_world.is_dead) {
    s = t->rig.engine->store;
    seen.nr_filled = crash_world.nr_slot_bytes / t->oracle.sector_bytes;
    seen.nr_slots = spares_total (s->spares);
    seen.nr_ready = s->super.nr_ready;
  }
  fault_rig_kill (&t->rig);
  return seen;
}

struct crash_seen
crash_sweep (const struct crash_trial *start, const struct crash_life *life,
             const struct crash_effort *effort)
{
  struct crash_seen seen;
  unsigned nr_stops = 0;
  bool is_dead;

  for (unsigned n = 1; ; n += effort->step) {
    struct crash_trial t;

    crash_trial_copy (&t, start);
    crash_world_begin (n);
    crash_let_stop (&t);
    seen = live (&t, life);
    is_dead = crash_world.is_dead;
    if (is_dead) {
      nr_stops++;
      if (t.lie == CRASH_NO_LIE || crash_world.has_lied)
        try_states (&t, effort);
    }
    crash_trial_end (&t);
    if (!is_dead || (t.lie != CRASH_NO_LIE && crash_here.nr_wrong > 0))
      break;
  }
  if (start->lie == CRASH_NO_LIE)
    ck_assert_uint_ge (nr_stops, 3);
  crash_world_begin (0);
  return seen;
}
