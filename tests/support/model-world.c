/* SPDX-License-Identifier: BSD-3-Clause */
/* model-world: a disk, its store, its server and its faults, all by a seed. */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model-world.h"
#include "t_base.h"
#include "t_image.h"
#include "t_store.h"

enum {
  MIB = 1 << 20, PAGE_BYTES = 4096,
  MANY_SPARES = 8192, MOST_BAD = 3000,  /* sectors, where spares are many */
};

/*---- Dice ----*/

static uint64_t
next (struct model_random *r)
{
  uint64_t x = r->state += UINT64_C (0x9e3779b97f4a7c15);

  x = (x ^ (x >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C (0x94d049bb133111eb);
  return x ^ (x >> 31);
}

uint64_t
model_random_below (struct model_random *r, uint64_t n)
{
  return next (r) % n;
}

bool
model_random_percent (struct model_random *r, unsigned percent)
{
  return next (r) % 100 < percent;
}

/* A number from a to b, both possible. */
static uint64_t
between (struct model_random *r, uint64_t a, uint64_t b)
{
  return a + next (r) % (b - a + 1);
}

/*---- Its kind ----*/

/* The kinds that there must be take turns; the rest is by dice. */
static void
choose_kind (struct model_world *w, bool has_loops, struct model_random *r)
{
  const unsigned turn = w->seed % 6;

  w->kind = has_loops && (turn == 1 || turn == 4) ? T_DISK_LOOP : T_DISK_FUSE;
  w->traits.sector_bytes = w->kind == T_DISK_LOOP &&
    model_random_percent (r, 35) ? 4096 : T_SECTOR;
  w->physical_bytes = turn == 2 || model_random_percent (r, 15) ? 4096
    : T_SECTOR;
  w->traits.few_spares = turn == 2 || turn == 5 ||
    model_random_percent (r, 15);
  w->store_fails = turn == 3;
  w->traits.lost_reads_zero = model_random_percent (r, 12);
  /* Not of a device: there a trim that a kill cuts off drops what is in the
   * page cache, and what comes up is older than it.
   */
  w->direct_off = w->kind == T_DISK_FUSE && !w->store_fails &&
    model_random_percent (r, 15);
  /* With a page cache a write that fails is lost, and a flush tells: none may.
   */
  if (w->direct_off)
    w->physical_bytes = T_SECTOR;
  w->flush_fails = model_random_percent (r, 12);
  w->traits.has_deadline = turn == 0 && model_random_percent (r, 50);
  w->retries = (unsigned) model_random_below (r, 4);
  w->traits.gen = model_random_percent (r, 80) ? 1 : 0;
}

static void
choose_size (struct model_world *w, struct model_random *r)
{
  uint64_t size = between (r, 8, 40) * MIB;

  if (w->seed % 6 == 5 || model_random_percent (r, 30))
    size += w->kind == T_DISK_FUSE ? between (r, 1, 3 * PAGE_BYTES)
      : between (r, 1, 20) * w->traits.sector_bytes;
  w->traits.size = size;
  w->traits.fails_as_one = w->physical_bytes;
  if (w->traits.fails_as_one < w->traits.sector_bytes || w->direct_off)
    w->traits.fails_as_one = w->direct_off ? PAGE_BYTES
      : w->traits.sector_bytes;
  w->traits.may_mix = w->direct_off;
  w->nr_spares = w->traits.few_spares ? between (r, 32, 160) : MANY_SPARES;
}

/* The beginning, the end, an edge, and some elsewhere. */
static void
choose_zones (struct model_world *w, struct model_random *r)
{
  w->zone_bytes = 96 * w->traits.sector_bytes;
  w->zones[0] = 0;
  w->zones[1] = w->traits.size - w->zone_bytes;
  w->zones[2] = between (r, 1, 6) * MIB - w->zone_bytes / 2;
  for (unsigned i = 3; i < MODEL_NR_ZONES; i++)
    w->zones[i] = between (r, 0, w->traits.size - w->zone_bytes) /
      w->traits.sector_bytes * w->traits.sector_bytes;
}

const char *
model_world_describe (const struct model_world *w)
{
  return t_str ("%s of %llu bytes, sectors of %u, physical %u, %llu spares%s%s"
                "%s%s%s, retries=%u, %u connections of depth %u, %u sessions "
                "of %u requests",
                t_disk_kind_name (w->kind), (unsigned long long)
                w->traits.size, w->traits.sector_bytes, w->physical_bytes,
                (unsigned long long) w->nr_spares,
                w->store_fails ? ", some bad" : "",
                w->traits.lost_reads_zero ? ", on-lost=zero" : "",
                w->direct_off ? ", direct=off" : "",
                w->flush_fails ? ", flushes fail" : "",
                w->traits.has_deadline ? ", deadline=1" : "", w->retries,
                w->nr_connections, w->depth, w->nr_sessions,
                w->steps_per_session);
}

/*---- The server ----*/

static const char *
server_params (const struct model_world *w)
{
  return t_str ("backing=%s spare=%s spare-size=%llu retries=%u on-lost=%s "
                "direct=%s deadline=%s", w->disk->path, w->store_path,
                (unsigned long long) (w->nr_spares * w->traits.sector_bytes),
                w->retries, w->traits.lost_reads_zero ? "zero" : "error",
                w->direct_off ? "off" : "auto",
                w->traits.has_deadline ? "1" : "off");
}

void
model_world_restart (struct model_world *w)
{
  struct model_random *r = &w->ends;

  if (w->traits.few_spares && !w->store_fails && model_random_percent (r, 30))
    w->nr_spares += w->nr_spares / 2;
  if (model_random_percent (r, 30))
    w->retries = (unsigned) model_random_below (r, 4);
  if (model_random_percent (r, 15))
    w->traits.lost_reads_zero = !w->traits.lost_reads_zero;
  model_oracle_set_traits (w->oracle, w->traits.lost_reads_zero,
                           w->traits.few_spares);
  model_oracle_restarted (w->oracle);
  t_server_restart_with (w->server, "%s", server_params (w));
}

static void
make_store (struct model_world *w)
{
  w->store_path = w->disk->store;
  if (!w->store_fails)
    return;
  w->store = t_store_on_failing_disk (w->disk, t_str (
    "spare-size=%llu",
    (unsigned long long) (w->nr_spares * w->traits.sector_bytes)));
  w->store_path = w->store->path;
  w->store_data = t_store_super (w->store->image).sections[0].data;
}

struct model_world *
model_world_new (uint64_t seed, bool has_loops, unsigned connections)
{
  struct model_world *w = calloc (1, sizeof *w);
  struct model_random r = { seed * 5 };

  if (w == NULL)
    T_FAIL ("out of memory");
  w->seed = seed;
  w->requests.state = next (&r);
  w->fault_dice.state = next (&r);
  w->ends.state = next (&r);
  choose_kind (w, has_loops, &r);
  choose_size (w, &r);
  choose_zones (w, &r);
  w->gen = 1;
  w->nr_connections = connections ? connections
    : (unsigned) between (&r, 4, 8);
  w->depth = connections == 1 ? 1 : (unsigned) between (&r, 2, 6);
  w->nr_sessions = (unsigned) between (&r, 2, 5);
  w->steps_per_session = (unsigned) between (&r, 150, 900);
  w->fault_every = (unsigned) between (&r, 5, 40);

  const struct t_disk_options options = {
    .gen = w->traits.gen, .sector_bytes = w->traits.sector_bytes,
    .physical_bytes = w->physical_bytes, .connections = 8,
  };
  w->disk = t_disk_new (w->kind, w->traits.size, &options);
  make_store (w);
  w->oracle = model_oracle_new (&w->traits);
  w->server = t_server_start ("%s", server_params (w));
  return w;
}

/* Files that hold much, now and not at the end: there can be many worlds. */
void
model_world_free (struct model_world *w)
{
  const char *files[] = {
    w->disk->image, w->disk->fault->log, w->disk->store,
    w->store ? w->store->image : NULL, w->store ? w->store->fault->log : NULL,
  };

  if (w->store)
    t_disk_free (w->store);
  t_disk_free (w->disk);
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
    if (files[i])
      unlink (files[i]);
  model_oracle_free (w->oracle);
  free (w);
}

/*---- Faults ----*/

static const char *
describe_ops (unsigned ops)
{
  return ops == FAULT_FLUSH ? "flush" : ops == FAULT_READ ? "read"
    : ops == FAULT_WRITE ? "write" : ops == FAULT_TRIM ? "trim"
    : ops & FAULT_TRIM ? "all" : "both";
}

static char *
describe_fault (const struct model_fault *f)
{
  return t_str ("%s%s errno=%s%s%s%s%s", describe_ops (f->ops),
                f->ops == FAULT_FLUSH ? "" :
                t_str (" %llu-%llu", (unsigned long long) f->first,
                       (unsigned long long) f->last),
                f->err ? strerrorname_np (f->err) : "0",
                f->times ? t_str (" times=%u", f->times) : "",
                f->delay_ms ? t_str (" delay-ms=%u", f->delay_ms) : "",
                f->until_write ? " until-write" : "", f->torn ? " torn" : "");
}

static const char *
describe_faults (const struct model_fault *faults, size_t nr)
{
  char *text = t_str ("%s", "");

  for (size_t i = 0; i < nr; i++)
    text = t_str ("%s%s\n", text, describe_fault (&faults[i]));
  return text;
}

const char *
model_world_describe_faults (const struct model_world *w)
{
  return t_str ("%s%s", describe_faults (w->faults, w->nr_faults),
                w->nr_store_faults
                ? t_str ("of the store:\n%s",
                         describe_faults (w->store_faults,
                                          w->nr_store_faults)) : "");
}

/* What appears is told to the oracle before it can be met, what vanishes
 * after: so it is told of both when there are both.
 */
static void
set_faults (struct model_world *w)
{
  struct model_fault told[MODEL_MOST_FAULTS];

  for (size_t i = 0; i < w->nr_faults; i++) {
    told[i] = w->faults[i];
    /* This is what a loop device makes of the others. */
    if (w->kind == T_DISK_LOOP && told[i].err)
      told[i].err = EIO;
  }
  model_oracle_faults_appear (w->oracle, told, w->nr_faults);
  t_fault_set (w->disk->fault, "%s",
               describe_faults (w->faults, w->nr_faults));
  model_oracle_faults_are (w->oracle, told, w->nr_faults);
}

static void
set_store_faults (struct model_world *w)
{
  bool can_read = true;

  for (size_t i = 0; i < w->nr_store_faults; i++)
    if (w->store_faults[i].ops & FAULT_READ)
      can_read = false;
  if (!can_read)
    model_oracle_store_faults (w->oracle, true);
  t_fault_set (w->store->fault, "%s",
               describe_faults (w->store_faults, w->nr_store_faults));
  if (can_read)
    model_oracle_store_faults (w->oracle, false);
}

/* Where, in sectors of 512 bytes. */
static void
place_fault (struct model_world *w, struct model_fault *f)
{
  struct model_random *r = &w->fault_dice;
  const uint64_t nr = (w->traits.size + T_SECTOR - 1) / T_SECTOR;
  const unsigned shape = (unsigned) model_random_below (r, 100);
  uint64_t run = shape < 50 ? 1 : shape < 80 ? between (r, 2, 16)
    : shape < 90 ? between (r, 17, 64) : 8;

  if (model_random_percent (r, 80))
    f->first = (w->zones[model_random_below (r, MODEL_NR_ZONES)] +
                model_random_below (r, w->zone_bytes)) / T_SECTOR;
  else
    f->first = model_random_below (r, nr);
  if (shape >= 90)
    f->first = f->first / 8 * 8;
  f->last = f->first + run - 1 < nr ? f->first + run - 1 : nr - 1;
}

static int
choose_errno (struct model_world *w, const struct model_fault *f)
{
  static const int through_files[] = { ENOSPC, EPERM, ENOMEM, ESHUTDOWN };
  static const int through_loops[] = { EPERM, ESHUTDOWN };
  struct model_random *r = &w->fault_dice;

  /* A page cache makes EIO of any. */
  if (model_random_percent (r, 82) || w->direct_off ||
      (f->last + 1) * T_SECTOR > w->traits.size / PAGE_BYTES * PAGE_BYTES)
    return EIO;
  return w->kind == T_DISK_LOOP ? through_loops[model_random_below (r, 2)]
    : through_files[model_random_below (r, 4)];
}

/* The disk sits on reads of a place for longer than the deadline. */
static struct model_fault
late_fault (struct model_world *w)
{
  struct model_random *r = &w->fault_dice;
  struct model_fault f = {
    .ops = FAULT_READ, .delay_ms = (unsigned) between (r, 1100, 1900),
    .times = (unsigned) between (r, 1, 2),
  };

  place_fault (w, &f);
  if (f.last > f.first + 3)
    f.last = f.first + 3;
  return f;
}

static struct model_fault
new_fault (struct model_world *w)
{
  static const unsigned ops[] = {
    FAULT_READ, FAULT_READ, FAULT_READ, FAULT_READ, FAULT_WRITE, FAULT_WRITE,
    FAULT_WRITE, FAULT_WRITE, FAULT_WRITE, FAULT_READ | FAULT_WRITE,
    FAULT_READ | FAULT_WRITE, FAULT_READ | FAULT_WRITE | FAULT_TRIM,
    FAULT_TRIM,
  };
  struct model_random *r = &w->fault_dice;
  struct model_fault f = { .err = EIO };

  if (w->traits.has_deadline && model_random_percent (r, 25))
    return late_fault (w);
  if (w->flush_fails && model_random_percent (r, 4)) {
    f.ops = FAULT_FLUSH;
    return f;
  }
  f.ops = w->direct_off ? FAULT_READ
    : ops[model_random_below (r, sizeof ops / sizeof ops[0])];
  place_fault (w, &f);
  f.err = choose_errno (w, &f);
  if (model_random_percent (r, 15))
    f.times = (unsigned) between (r, 1, 3);
  if (f.ops & FAULT_READ && model_random_percent (r, 12))
    f.until_write = true;
  if (model_random_percent (r, 8)) {
    f.delay_ms = (unsigned) between (r, 1, 15);
    if (model_random_percent (r, 50))
      f.err = 0;
  }
  f.torn = f.err == EIO && f.ops & FAULT_WRITE &&
    w->traits.sector_bytes == T_SECTOR && model_random_percent (r, 12);
  return f;
}

static void
drop_one (struct model_fault *faults, size_t *nr, struct model_random *r)
{
  const size_t i = model_random_below (r, *nr);

  faults[i] = faults[--*nr];
}

static void
change_store_faults (struct model_world *w)
{
  struct model_random *r = &w->fault_dice;

  if (w->nr_store_faults > 0 && model_random_percent (r, 40))
    drop_one (w->store_faults, &w->nr_store_faults, r);
  else if (w->nr_store_faults < 6) {
    static const unsigned ops[] = {
      FAULT_WRITE, FAULT_WRITE, FAULT_READ, FAULT_READ | FAULT_WRITE,
    };
    /* Where a spare cannot be read, much is right: so not in every world. */
    const bool only_writes = w->seed / 6 % 2;
    const uint64_t most = model_random_percent (r, 60) ? 100 : 400;
    struct model_fault f = {
      .ops = only_writes ? FAULT_WRITE : ops[model_random_below (r, 4)],
      .err = EIO,
    };

    f.first = w->store_data / T_SECTOR +
      model_random_below (r, w->nr_spares < most ? w->nr_spares : most);
    f.last = f.first + model_random_below (r, 8);
    w->store_faults[w->nr_store_faults++] = f;
    w->nr_faults_made++;
  }
  set_store_faults (w);
}

void
model_world_change_faults (struct model_world *w)
{
  struct model_random *r = &w->fault_dice;
  const bool has_room = w->traits.few_spares ||
    model_oracle_nr_bad (w->oracle) < MOST_BAD;

  if (w->store && model_random_percent (r, 30)) {
    change_store_faults (w);
    return;
  }
  if (model_random_percent (r, 4))
    w->nr_faults = 0;
  else if (w->nr_faults == MODEL_MOST_FAULTS || !has_room ||
           (w->nr_faults > 0 && model_random_percent (r, 45))) {
    if (w->nr_faults > 0)
      drop_one (w->faults, &w->nr_faults, r);
  }
  else {
    w->faults[w->nr_faults++] = new_fault (w);
    w->nr_faults_made++;
  }
  set_faults (w);
}

void
model_world_clear_faults (struct model_world *w)
{
  w->nr_faults = 0;
  set_faults (w);
  w->nr_store_faults = 0;
  if (w->store)
    set_store_faults (w);
}

void
model_world_calm_faults (struct model_world *w)
{
  size_t nr = 0;

  for (size_t i = 0; i < w->nr_faults; i++)
    if (w->faults[i].err == EIO && w->faults[i].delay_ms == 0 &&
        w->faults[i].ops != FAULT_FLUSH)
      w->faults[nr++] = w->faults[i];
  w->nr_faults = nr;
  set_faults (w);
}

void
model_world_fail_disk (struct model_world *w, unsigned ops)
{
  const struct model_fault whole = {
    .ops = ops, .last = w->traits.size / T_SECTOR, .err = EIO,
  };

  t_fault_set (w->disk->fault, "%s",
               ops ? describe_faults (&whole, 1) : "");
}

/*---- Requests ----*/

static uint32_t
choose_count (struct model_random *r)
{
  const unsigned dice = (unsigned) model_random_below (r, 1000);

  if (dice < 130)
    return 1;
  if (dice < 330)
    return (uint32_t) between (r, 1, 600);
  if (dice < 600)
    return (uint32_t) between (r, 1, 8) * T_SECTOR;
  if (dice < 750)
    return (uint32_t) between (r, 1, 16) * PAGE_BYTES;
  if (dice < 880)
    return (uint32_t) between (r, 1, 64 << 10);
  if (dice < 960)
    return (uint32_t) between (r, 1, 512) * T_SECTOR;
  if (dice < 990)
    return (uint32_t) between (r, MIB - 2000, MIB + 2000);
  return (uint32_t) between (r, 1, 4 * MIB);
}

static uint64_t
choose_offset (struct model_world *w)
{
  struct model_random *r = &w->requests;
  const uint64_t size = w->traits.size;
  uint64_t offset = model_random_percent (r, 75)
    ? w->zones[model_random_below (r, MODEL_NR_ZONES)] +
      model_random_below (r, w->zone_bytes)
    : model_random_below (r, size);
  const unsigned dice = (unsigned) model_random_below (r, 100);

  if (dice < 40)
    return offset / T_SECTOR * T_SECTOR;
  if (dice < 55)
    return offset / PAGE_BYTES * PAGE_BYTES;
  if (dice < 60)
    return offset / MIB * MIB;
  return offset;
}

static enum model_op
choose_op (struct model_random *r)
{
  const unsigned dice = (unsigned) model_random_below (r, 100);

  return dice < 40 ? MODEL_READ : dice < 74 ? MODEL_WRITE
    : dice < 83 ? MODEL_ZERO : dice < 89 ? MODEL_TRIM
    : dice < 93 ? MODEL_FLUSH : dice < 95 ? MODEL_CACHE : MODEL_STATUS;
}

/* Where there are many undecided writes, one of whole sectors decides. */
static void
thin_out (struct model_world *w, struct model_request *r)
{
  const uint32_t unit = w->traits.sector_bytes;
  const unsigned crowd = model_oracle_crowd (w->oracle, r->offset, r->count);
  uint64_t end = (r->offset + r->count + unit - 1) / unit * unit;
  const bool writes = crowd < MODEL_CROWD_MOST && r->op == MODEL_WRITE;

  if (crowd < MODEL_CROWD_MANY)
    return;
  r->op = writes ? MODEL_WRITE : MODEL_READ;
  r->fua &= writes;
  r->fast = r->no_hole = false;
  if (!writes)
    return;
  r->offset = r->offset / unit * unit;
  end = end < w->traits.size ? end : w->traits.size;
  r->count = (uint32_t) (end - r->offset);
}

void
model_world_next_request (struct model_world *w, struct model_request *r)
{
  struct model_random *dice = &w->requests;
  const bool one = model_random_percent (dice, 12);
  const bool two = model_random_percent (dice, 30);

  *r = (struct model_request) {
    .op = choose_op (dice), .offset = choose_offset (w),
    .count = choose_count (dice), .gen = ++w->gen,
  };
  if (r->count > w->traits.size - r->offset)
    r->count = (uint32_t) (w->traits.size - r->offset);
  switch (r->op) {
  case MODEL_ZERO:
    r->fast = !one && two;
    r->no_hole = one && two;
    r->fua = one;
    break;
  case MODEL_WRITE: case MODEL_TRIM:
    r->fua = one;
    break;
  case MODEL_READ:
    r->whole_reply = one;
    return;
  case MODEL_FLUSH:
    r->offset = r->count = 0;
    return;
  default:
    return;
  }
  thin_out (w, r);
}
