/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "dev-fault.h"
#include "engine-internal.h"
#include "error.h"

#define ATOM DEV_FAULT_ATOM_BYTES
#define NR_KINDS 8
#define TEAR_BYTES 64

/* What a mistake in a test, or in the code under test, ends with. */
#define CHECK(cond)                                                           \
  ((cond) ? (void) 0 : give_up (__FILE__, __LINE__, #cond))

static void
give_up (const char *file, int line, const char *what)
{
  fprintf (stderr, "%s:%d: not true: %s\n", file, line, what);
  abort ();
}

/* What fails as one. */
struct unit {
  unsigned how_bad;
  unsigned nr_failures;         /* left until it is mended; 0: for ever */
  int err;
};

/* A content of an atom that is not durable. */
struct change {
  uint64_t number;              /* counts changes */
  uint64_t atom;
  bool given_up;                /* a flush failed: never made durable */
  uint8_t data[ATOM];
};

struct rule {
  unsigned kinds;               /* 0: none */
  unsigned nth;
  bool for_ever;
  int err;
};

struct dev_fault {
  struct dev_fault_options options;     /* constant but for size_bytes */
  pthread_mutex_t mutex;
  /* Under mutex: */
  uint8_t *content;             /* what a read sees */
  uint8_t *durable;             /* is_volatile */
  uint64_t durable_bytes;
  bool *holes;                  /* of sectors */
  struct unit *units;
  unsigned *touches;            /* of sectors */
  struct change *changes;
  size_t nr_changes, max_changes;
  uint64_t next_number;
  struct rule rule;
  unsigned nr_calls[NR_KINDS];
  dev_fault_hook_fn *hook;
  void *hook_opaque;
};

struct handle {
  struct dev dev;
  struct dev_fault *disk;
};

static void
lock_disk (struct dev_fault *d)
{
  pthread_mutex_lock (&d->mutex);
}

static void
unlock_disk (struct dev_fault *d)
{
  pthread_mutex_unlock (&d->mutex);
}

static void *
must_have (void *ptr)
{
  CHECK (ptr != NULL);
  return ptr;
}

/* Random numbers and patterns. */

uint64_t
dev_fault_random (uint64_t *seed)
{
  uint64_t z = *seed += UINT64_C (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

void
dev_fault_pattern (void *buf, size_t count, uint64_t sector, uint64_t version)
{
  uint64_t seed = sector * 1000003 + version, word[2] = { sector, version };
  uint8_t *p = buf;

  for (size_t i = 0; i < count; i += 8) {
    uint64_t v = i < sizeof word ? word[i / 8] : dev_fault_random (&seed);

    memcpy (p + i, &v, MIN (count - i, sizeof v));
  }
}

/* Make, and make as large as is wanted. */

static uint64_t
nr_sectors (const struct dev_fault *d)
{
  return div_round_up (d->options.size_bytes, d->options.sector_bytes);
}

static uint64_t
nr_units (const struct dev_fault *d)
{
  return div_round_up (d->options.size_bytes, d->options.physical_bytes);
}

/* One element more than is needed: nothing here has size 0. */
static void *
make_longer (void *ptr, uint64_t old_nr, uint64_t new_nr, size_t bytes)
{
  uint8_t *p = must_have (realloc (ptr, (new_nr + 1) * bytes));

  if (new_nr > old_nr || ptr == NULL)
    memset (p + old_nr * bytes, 0, (new_nr + 1 - old_nr) * bytes);
  return p;
}

static void
set_size (struct dev_fault *d, uint64_t new_bytes)
{
  uint64_t old_bytes = d->options.size_bytes;
  uint64_t old_sectors = nr_sectors (d), old_units = nr_units (d);

  d->options.size_bytes = new_bytes;
  d->touches = make_longer (d->touches, old_sectors, nr_sectors (d),
                            sizeof d->touches[0]);
  d->holes = make_longer (d->holes, old_sectors, nr_sectors (d),
                          sizeof d->holes[0]);
  for (uint64_t i = old_sectors; i < nr_sectors (d); i++)
    d->holes[i] = true;
  d->units = make_longer (d->units, old_units, nr_units (d),
                          sizeof d->units[0]);
  /* Atoms may reach behind the end. */
  old_bytes = round_up (old_bytes, ATOM);
  new_bytes = round_up (new_bytes, ATOM);
  d->content = make_longer (d->content, old_bytes, new_bytes, 1);
  if (d->options.is_volatile)
    d->durable = make_longer (d->durable, old_bytes, new_bytes, 1);
}

struct dev_fault *
dev_fault_new (const struct dev_fault_options *o)
{
  struct dev_fault *d = must_have (calloc (1, sizeof *d));

  CHECK (!o->tears || !o->is_volatile);
  d->options = *o;
  if (o->sector_bytes == 0)
    d->options.sector_bytes = 512;
  if (o->physical_bytes == 0)
    d->options.physical_bytes = d->options.sector_bytes;
  if (o->kind == 0)
    d->options.kind = DEV_FILE;
  d->options.size_bytes = 0;
  set_size (d, o->size_bytes);
  d->durable_bytes = o->size_bytes;
  memset (d->holes, 0, nr_sectors (d) * sizeof d->holes[0]);
  pthread_mutex_init (&d->mutex, NULL);
  return d;
}

void
dev_fault_free (struct dev_fault *d)
{
  if (d == NULL)
    return;
  pthread_mutex_destroy (&d->mutex);
  free (d->content);
  free (d->durable);
  free (d->holes);
  free (d->units);
  free (d->touches);
  free (d->changes);
  free (d);
}

struct dev_fault *
dev_fault_clone (struct dev_fault *d)
{
  struct dev_fault *c = dev_fault_new (&d->options);

  lock_disk (d);
  memcpy (c->content, d->content, round_up (d->options.size_bytes, ATOM));
  memcpy (c->holes, d->holes, nr_sectors (d) * sizeof d->holes[0]);
  memcpy (c->units, d->units, nr_units (d) * sizeof d->units[0]);
  if (d->options.is_volatile)
    memcpy (c->durable, d->durable, round_up (d->options.size_bytes, ATOM));
  c->durable_bytes = d->durable_bytes;
  c->nr_changes = c->max_changes = d->nr_changes;
  c->next_number = d->next_number;
  c->changes = must_have (malloc (d->nr_changes * sizeof d->changes[0] + 1));
  if (d->nr_changes > 0)
    memcpy (c->changes, d->changes, d->nr_changes * sizeof d->changes[0]);
  unlock_disk (d);
  return c;
}

uint64_t
dev_fault_size (struct dev_fault *d)
{
  uint64_t size_bytes;

  lock_disk (d);
  size_bytes = d->options.size_bytes;
  unlock_disk (d);
  return size_bytes;
}

/* Bad sectors. */

/* The units of sectors, as [*ret_first, *ret_end). */
static void
units_of (const struct dev_fault *d, uint64_t count, uint64_t offset,
          uint64_t *ret_first, uint64_t *ret_end)
{
  CHECK (offset + count <= round_up (d->options.size_bytes,
                                     d->options.sector_bytes));
  *ret_first = offset / d->options.physical_bytes;
  *ret_end = div_round_up (offset + count, d->options.physical_bytes);
}

void
dev_fault_spoil (struct dev_fault *d, uint64_t sector, uint64_t nr,
                 unsigned how, unsigned nr_failures, int err)
{
  uint64_t i, end;

  lock_disk (d);
  units_of (d, nr * d->options.sector_bytes, sector * d->options.sector_bytes,
            &i, &end);
  for (; i < end; i++)
    d->units[i] = (struct unit) { how, nr_failures, err ? err : EIO };
  unlock_disk (d);
}

void
dev_fault_mend (struct dev_fault *d, uint64_t sector, uint64_t nr)
{
  dev_fault_spoil (d, sector, nr, 0, 0, 0);
}

unsigned
dev_fault_how_bad (struct dev_fault *d, uint64_t sector)
{
  unsigned how_bad;
  uint64_t i, end;

  lock_disk (d);
  units_of (d, 1, sector * d->options.sector_bytes, &i, &end);
  how_bad = d->units[i].how_bad;
  unlock_disk (d);
  return how_bad;
}

/* A call met a bad unit: count it.  Returns its errno. */
static int
unit_fails (struct unit *u)
{
  int err = u->err;

  if (u->nr_failures > 0 && --u->nr_failures == 0)
    u->how_bad = 0;
  return err;
}

/* Does this range cover all of the unit, as far as the disk goes? */
static bool
is_whole_unit (const struct dev_fault *d, uint64_t unit, uint64_t count,
               uint64_t offset)
{
  uint64_t begin = unit * d->options.physical_bytes;
  uint64_t end = MIN (begin + d->options.physical_bytes, d->options.size_bytes);

  return offset <= begin && offset + count >= end;
}

static int
check_readable (struct dev_fault *d, uint64_t count, uint64_t offset)
{
  uint64_t i, end;
  int err = 0;

  units_of (d, count, offset, &i, &end);
  for (; i < end; i++)
    if (d->units[i].how_bad & DEV_FAULT_BAD_READ) {
      int e = unit_fails (&d->units[i]);

      err = err ? err : e;
    }
  return err;
}

/* Returns an errno; *ret_count is how much is written all the same. */
static int
check_writable (struct dev_fault *d, uint64_t count, uint64_t offset,
                uint64_t *ret_count)
{
  uint64_t i, end;
  int err = 0;

  *ret_count = count;
  units_of (d, count, offset, &i, &end);
  for (; i < end; i++) {
    struct unit *u = &d->units[i];
    bool is_whole = is_whole_unit (d, i, count, offset);

    if (u->how_bad & DEV_FAULT_BAD_WRITE ||
        (u->how_bad & DEV_FAULT_BAD_READ && !is_whole)) {
      uint64_t begin = i * d->options.physical_bytes;

      if (err == 0)
        *ret_count = begin > offset ? begin - offset : 0;
      err = err ? err : u->err;
      unit_fails (u);
    }
    else if (err == 0)
      u->how_bad = 0;           /* rewritten */
  }
  return err;
}

unsigned
dev_fault_touches (struct dev_fault *d, uint64_t sector)
{
  unsigned n;

  lock_disk (d);
  CHECK (sector < nr_sectors (d));
  n = d->touches[sector];
  unlock_disk (d);
  return n;
}

void
dev_fault_forget_touches (struct dev_fault *d)
{
  lock_disk (d);
  memset (d->touches, 0, nr_sectors (d) * sizeof d->touches[0]);
  unlock_disk (d);
}

/* Changes that are not durable. */

static void
note_change (struct dev_fault *d, uint64_t atom)
{
  struct change *c;

  if (d->nr_changes == d->max_changes) {
    d->max_changes = d->max_changes * 2 + 64;
    d->changes = must_have (realloc (d->changes,
                                     d->max_changes * sizeof d->changes[0]));
  }
  c = &d->changes[d->nr_changes++];
  *c = (struct change) { .number = d->next_number, .atom = atom };
  memcpy (c->data, d->content + atom * ATOM, ATOM);
}

/* The content of a range has changed. */
static void
note_changes (struct dev_fault *d, uint64_t count, uint64_t offset)
{
  if (!d->options.is_volatile || count == 0)
    return;
  d->next_number++;
  for (uint64_t i = offset / ATOM; i <= (offset + count - 1) / ATOM; i++)
    note_change (d, i);
}

/* This very content is durable: what came before no longer counts. */
static void
forget_changes (struct dev_fault *d, uint64_t count, uint64_t offset)
{
  uint64_t first = offset / ATOM, end = div_round_up (offset + count, ATOM);
  size_t n = 0;

  if (!d->options.is_volatile || count == 0)
    return;
  for (size_t i = 0; i < d->nr_changes; i++)
    if (d->changes[i].atom < first || d->changes[i].atom >= end)
      d->changes[n++] = d->changes[i];
  d->nr_changes = n;
  memcpy (d->durable + first * ATOM, d->content + first * ATOM,
          (end - first) * ATOM);
}

/* Does a later change that is made durable as well replace changes[i]?  Then
 * an earlier one that was given up is gone.
 */
static bool
is_replaced (const struct dev_fault *d, size_t i, uint64_t up_to)
{
  for (size_t k = i + 1; k < d->nr_changes; k++)
    if (d->changes[k].atom == d->changes[i].atom && !d->changes[k].given_up &&
        d->changes[k].number <= up_to)
      return true;
  return false;
}

/* A flush that began when up_to was the last change has succeeded. */
static void
make_durable (struct dev_fault *d, uint64_t up_to, uint64_t size_bytes)
{
  size_t n = 0;

  for (size_t i = 0; i < d->nr_changes; i++) {
    struct change *c = &d->changes[i];
    bool stays = c->number > up_to ||
      (c->given_up && !is_replaced (d, i, up_to));

    if (!stays && !c->given_up)
      memcpy (d->durable + c->atom * ATOM, c->data, ATOM);
    if (stays)
      d->changes[n++] = *c;
  }
  d->nr_changes = n;
  d->durable_bytes = size_bytes;
}

static void
give_up_changes (struct dev_fault *d, uint64_t up_to)
{
  for (size_t i = 0; i < d->nr_changes; i++)
    if (d->changes[i].number <= up_to)
      d->changes[i].given_up = true;
}

/* Ways in which a power cut can go. */
enum cut { CUT_SOME, CUT_TIME, CUT_ALL_BUT_ONE, CUT_NONE_BUT_ONE, NR_CUTS };

struct cut_plan {
  enum cut cut;
  uint64_t time, sector, number, seed;
};

/* The sector that is written whole or not at all. */
static uint64_t
sector_of (const struct dev_fault *d, const struct change *c)
{
  return c->atom * ATOM / d->options.sector_bytes;
}

static bool
is_kept (const struct dev_fault *d, const struct cut_plan *p,
         const struct change *c)
{
  uint64_t seed = p->seed + c->number * 1000003 + sector_of (d, c);
  uint64_t coin = dev_fault_random (&seed) >> 32;

  switch (p->cut) {
  case CUT_SOME: return coin % 2 == 0;
  case CUT_TIME: return (c->number <= p->time) == (coin % 8 != 0);
  case CUT_ALL_BUT_ONE: return sector_of (d, c) != p->sector;
  case CUT_NONE_BUT_ONE: return c->number == p->number;
  case NR_CUTS: break;
  }
  return false;
}

static struct cut_plan
plan_cut (const struct dev_fault *d, uint64_t seed)
{
  struct cut_plan p = { .seed = seed };
  const struct change *c;

  p.cut = dev_fault_random (&p.seed) % NR_CUTS;
  if (d->nr_changes == 0)
    return p;
  c = &d->changes[dev_fault_random (&p.seed) % d->nr_changes];
  p.time = p.number = c->number;
  p.sector = sector_of (d, c);
  return p;
}

/* What was kept is in durable: it is all that there is now. */
static void
end_cut (struct dev_fault *d, bool keeps_size)
{
  d->nr_changes = 0;
  if (keeps_size)
    d->durable_bytes = d->options.size_bytes;
  set_size (d, d->durable_bytes);
  memcpy (d->content, d->durable, round_up (d->durable_bytes, ATOM));
}

void
dev_fault_cut_power (struct dev_fault *d, uint64_t seed)
{
  struct cut_plan p;
  bool keeps_size;

  CHECK (d->options.is_volatile);
  lock_disk (d);
  p = plan_cut (d, seed);
  keeps_size = seed != 0 && dev_fault_random (&p.seed) % 2 == 0;
  for (size_t i = 0; seed != 0 && i < d->nr_changes; i++)
    if (is_kept (d, &p, &d->changes[i]))
      memcpy (d->durable + d->changes[i].atom * ATOM, d->changes[i].data,
              ATOM);
  end_cut (d, keeps_size);
  unlock_disk (d);
}

/* All outcomes of a power cut, counted: a number whose digits are what becomes
 * of the size and of each sector; digit 0 is what is durable.
 */

static int
compare_changes (const void *va, const void *vb)
{
  const struct change *a = *(struct change *const *) va;
  const struct change *b = *(struct change *const *) vb;

  if (a->atom != b->atom)
    return a->atom < b->atom ? -1 : 1;
  return a->number < b->number ? -1 : a->number > b->number;
}

static struct change **
sort_changes (struct dev_fault *d)
{
  struct change **sorted =
    must_have (malloc ((d->nr_changes + 1) * sizeof sorted[0]));

  for (size_t i = 0; i < d->nr_changes; i++)
    sorted[i] = &d->changes[i];
  qsort (sorted, d->nr_changes, sizeof sorted[0], compare_changes);
  return sorted;
}

/* The changes of one sector, which begin at sorted[i]. */
struct sector_changes {
  size_t nr;
  unsigned nr_contents;         /* one for each call that changed it */
};

static struct sector_changes
changes_of_sector (struct dev_fault *d, struct change **sorted, size_t i)
{
  uint64_t sector = sector_of (d, sorted[i]), atom = sorted[i]->atom;
  struct sector_changes r = { 0, 0 };

  for (; i < d->nr_changes && sector_of (d, sorted[i]) == sector; i++) {
    /* All of it changes at once, so its first atom tells how often. */
    r.nr_contents += sorted[i]->atom == atom;
    r.nr++;
  }
  CHECK (r.nr % r.nr_contents == 0);
  return r;
}

static bool
size_may_be_lost (const struct dev_fault *d)
{
  return d->durable_bytes != d->options.size_bytes;
}

uint64_t
dev_fault_nr_outcomes (struct dev_fault *d)
{
  struct change **sorted;
  uint64_t n;

  CHECK (d->options.is_volatile);
  lock_disk (d);
  sorted = sort_changes (d);
  n = size_may_be_lost (d) ? 2 : 1;
  for (size_t i = 0; i < d->nr_changes; ) {
    struct sector_changes s = changes_of_sector (d, sorted, i);

    if (__builtin_mul_overflow (n, (uint64_t) s.nr_contents + 1, &n)) {
      n = UINT64_MAX;
      break;
    }
    i += s.nr;
  }
  free (sorted);
  unlock_disk (d);
  return n;
}

static unsigned
next_digit (uint64_t *number, unsigned base)
{
  unsigned digit = (unsigned) (*number % base);

  *number /= base;
  return digit;
}

void
dev_fault_cut_power_to (struct dev_fault *d, uint64_t nth)
{
  struct change **sorted;
  bool keeps_size;

  CHECK (d->options.is_volatile);
  lock_disk (d);
  sorted = sort_changes (d);
  keeps_size = size_may_be_lost (d) && next_digit (&nth, 2);
  for (size_t i = 0; i < d->nr_changes; ) {
    struct sector_changes s = changes_of_sector (d, sorted, i);
    unsigned content = next_digit (&nth, s.nr_contents + 1);

    for (size_t k = 0; content > 0 && k < s.nr; k += s.nr_contents) {
      const struct change *c = sorted[i + k + content - 1];

      memcpy (d->durable + c->atom * ATOM, c->data, ATOM);
    }
    i += s.nr;
  }
  CHECK (nth == 0);
  end_cut (d, keeps_size);
  free (sorted);
  unlock_disk (d);
}

/* Content. */

void
dev_fault_peek (struct dev_fault *d, void *buf, size_t count, uint64_t offset)
{
  lock_disk (d);
  CHECK (offset + count <= d->options.size_bytes);
  memcpy (buf, d->content + offset, count);
  unlock_disk (d);
}

/* buf NULL: zeroes. */
static void
change_locked (struct dev_fault *d, const void *buf, uint64_t count,
               uint64_t offset, bool is_hole)
{
  uint32_t sector_bytes = d->options.sector_bytes;

  CHECK (offset + count <= d->options.size_bytes);
  if (count == 0)
    return;
  if (buf)
    memcpy (d->content + offset, buf, count);
  else
    memset (d->content + offset, 0, count);
  for (uint64_t i = offset / sector_bytes;
       i <= (offset + count - 1) / sector_bytes; i++)
    d->holes[i] = is_hole;
  note_changes (d, count, offset);
}

void
dev_fault_write_quietly (struct dev_fault *d, const void *buf, size_t count,
                         uint64_t offset)
{
  lock_disk (d);
  change_locked (d, buf, count, offset, false);
  unlock_disk (d);
}

void
dev_fault_poke (struct dev_fault *d, const void *buf, size_t count,
                uint64_t offset)
{
  lock_disk (d);
  change_locked (d, buf, count, offset, false);
  forget_changes (d, count, offset);
  unlock_disk (d);
}

/* Calls. */

void
dev_fault_set_hook (struct dev_fault *d, dev_fault_hook_fn *fn, void *opaque)
{
  lock_disk (d);
  d->hook = fn;
  d->hook_opaque = opaque;
  unlock_disk (d);
}

void
dev_fault_fail_calls (struct dev_fault *d, unsigned kinds, unsigned nth,
                      bool for_ever, int err)
{
  lock_disk (d);
  d->rule = (struct rule) { kinds, nth, for_ever, err ? err : EIO };
  unlock_disk (d);
}

void
dev_fault_heal_calls (struct dev_fault *d)
{
  dev_fault_fail_calls (d, 0, 0, false, 0);
}

unsigned
dev_fault_calls (struct dev_fault *d, unsigned kinds)
{
  unsigned n = 0;

  lock_disk (d);
  for (unsigned i = 0; i < NR_KINDS; i++)
    if (kinds & 1u << i)
      n += d->nr_calls[i];
  unlock_disk (d);
  return n;
}

/* Returns an errno if a rule says that this call fails. */
static int
apply_rule_locked (struct dev_fault *d, enum dev_fault_kind kind)
{
  struct rule *r = &d->rule;

  if (!(r->kinds & kind))
    return 0;
  if (r->nth > 1) {
    r->nth--;
    return 0;
  }
  if (!r->for_ever)
    r->kinds = 0;
  return r->err;
}

static void
count_call_locked (struct dev_fault *d, const struct dev_fault_call *c)
{
  uint32_t sector_bytes = d->options.sector_bytes;

  d->nr_calls[log2_of (c->kind)]++;
  if (c->kind & (DEV_FAULT_FLUSH | DEV_FAULT_RESIZE) || c->count == 0)
    return;
  CHECK (c->offset + c->count <= d->options.size_bytes);
  if (c->kind & (DEV_FAULT_EXTENTS | DEV_FAULT_CACHE))
    return;
  for (uint64_t i = c->offset / sector_bytes;
       i <= (c->offset + c->count - 1) / sector_bytes; i++)
    d->touches[i]++;
}

static void
check_alignment (const struct dev_fault *d, const struct dev_fault_call *c)
{
  uint64_t end = c->offset + c->count;

  CHECK (!d->options.readonly);
  if (c->flags & DEV_BUFFERED)
    return;
  CHECK (c->offset % d->options.sector_bytes == 0);
  CHECK (end % d->options.sector_bytes == 0 || end == d->options.size_bytes);
}

/* A call as it is carried out: what it needs, and its result. */
struct work {
  struct dev *dev;
  struct dev_fault_call call;
  void *buf;                    /* of a read */
  dev_extents_fn *fn;           /* of block status */
  void *fn_opaque;
  uint64_t last_change, size_bytes;     /* when it began */
};

typedef int work_fn (struct dev_fault *d, struct work *w);

static int
run (struct work *w, work_fn *carry_out)
{
  struct dev_fault *d = ((struct handle *) w->dev)->disk;
  struct dev_fault_call *c = &w->call;
  dev_fault_hook_fn *hook;
  void *opaque;

  c->disk = d;
  lock_disk (d);
  count_call_locked (d, c);
  c->err = apply_rule_locked (d, c->kind);
  hook = d->hook;
  opaque = d->hook_opaque;
  w->last_change = d->next_number;
  w->size_bytes = d->options.size_bytes;
  unlock_disk (d);

  if (hook && c->err == 0)
    c->err = hook (opaque, c, false);
  if (c->err == 0)
    c->err = carry_out (d, w);
  else if (c->err == DEV_FAULT_SWALLOW)
    c->err = 0;
  else if (c->kind == DEV_FAULT_FLUSH && c->err != ENODEV) {
    lock_disk (d);
    give_up_changes (d, w->last_change);
    unlock_disk (d);
  }
  if (hook)
    hook (opaque, c, true);
  return c->err == 0 ? 0
    : set_error (c->err, "%s: call %d of %llu bytes at %llu: %s",
                 w->dev->info.name, (int) c->kind,
                 (unsigned long long) c->count,
                 (unsigned long long) c->offset, strerror (c->err));
}

/* Copy in pieces, so that others may come between. */
static void
read_torn (struct dev_fault *d, struct work *w)
{
  for (uint64_t done = 0; done < w->call.count; done += TEAR_BYTES) {
    uint64_t n = MIN (w->call.count - done, (uint64_t) TEAR_BYTES);

    dev_fault_peek (d, (uint8_t *) w->buf + done, n, w->call.offset + done);
    sched_yield ();
  }
}

static int
do_read (struct dev_fault *d, struct work *w)
{
  int err;

  lock_disk (d);
  err = check_readable (d, w->call.count, w->call.offset);
  if (err == 0 && !d->options.tears)
    memcpy (w->buf, d->content + w->call.offset, w->call.count);
  unlock_disk (d);
  if (err)
    memset (w->buf, 0xdb, w->call.count);
  else if (d->options.tears)
    read_torn (d, w);
  return err;
}

static void
write_torn (struct dev_fault *d, struct work *w, uint64_t count)
{
  const uint8_t *data = w->call.data;

  for (uint64_t done = 0; done < count; done += TEAR_BYTES) {
    dev_fault_write_quietly (d, data + done,
                             MIN (count - done, (uint64_t) TEAR_BYTES),
                             w->call.offset + done);
    sched_yield ();
  }
}

/* Write, zero and trim. */
static int
do_change (struct dev_fault *d, struct work *w)
{
  struct dev_fault_call *c = &w->call;
  uint64_t n;
  int err;

  check_alignment (d, c);
  if ((c->kind == DEV_FAULT_ZERO && d->options.cannot_zero) ||
      (c->kind == DEV_FAULT_TRIM && d->options.cannot_trim))
    return EOPNOTSUPP;
  lock_disk (d);
  err = check_writable (d, c->count, c->offset, &n);
  if (!d->options.tears || c->data == NULL) {
    change_locked (d, c->data, n, c->offset, c->kind == DEV_FAULT_TRIM ||
                   (c->kind == DEV_FAULT_ZERO && c->flags & DEV_MAY_TRIM));
    if (err == 0 && c->flags & DEV_FUA)
      forget_changes (d, c->count, c->offset);
  }
  unlock_disk (d);
  if (d->options.tears && c->data)
    write_torn (d, w, n);
  return err;
}

static int
do_flush (struct dev_fault *d, struct work *w)
{
  lock_disk (d);
  if (d->options.is_volatile)
    make_durable (d, w->last_change, w->size_bytes);
  unlock_disk (d);
  return 0;
}

static bool
is_hole (struct dev_fault *d, uint64_t offset)
{
  bool r;

  lock_disk (d);
  r = d->holes[offset / d->options.sector_bytes];
  unlock_disk (d);
  return r;
}

static int
do_extents (struct dev_fault *d, struct work *w)
{
  uint64_t offset = w->call.offset, end = offset + w->call.count;

  while (offset < end) {
    bool hole = is_hole (d, offset);
    uint64_t stop = offset;

    while (stop < end && is_hole (d, stop) == hole)
      stop = round_down (stop, d->options.sector_bytes)
        + d->options.sector_bytes;
    stop = MIN (stop, end);
    if (w->fn (w->fn_opaque, offset, stop - offset,
               hole ? DEV_EXTENT_HOLE | DEV_EXTENT_ZERO : 0) != 0)
      return ECANCELED;
    offset = stop;
  }
  return 0;
}

static int
do_nothing (struct dev_fault *d, struct work *w)
{
  return 0;
}

static int
do_resize (struct dev_fault *d, struct work *w)
{
  if (d->options.kind != DEV_FILE)
    return EOPNOTSUPP;
  lock_disk (d);
  CHECK (w->call.count >= d->options.size_bytes);
  set_size (d, w->call.count);
  w->dev->info.size_bytes = w->call.count;
  unlock_disk (d);
  return 0;
}

/* The operations. */

static int
fault_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
             unsigned flags)
{
  return run (&(struct work) {
                .dev = dev, .buf = buf,
                .call = { .kind = DEV_FAULT_PREAD, .count = count,
                          .offset = offset, .flags = flags } }, do_read);
}

static int
fault_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
              unsigned flags)
{
  return run (&(struct work) {
                .dev = dev,
                .call = { .kind = DEV_FAULT_PWRITE, .count = count,
                          .offset = offset, .flags = flags,
                          .data = buf } }, do_change);
}

static int
fault_flush (struct dev *dev)
{
  return run (&(struct work) {
                .dev = dev, .call = { .kind = DEV_FAULT_FLUSH } }, do_flush);
}

static int
fault_zero (struct dev *dev, uint64_t count, uint64_t offset, unsigned flags)
{
  return run (&(struct work) {
                .dev = dev,
                .call = { .kind = DEV_FAULT_ZERO, .count = count,
                          .offset = offset, .flags = flags } }, do_change);
}

static int
fault_trim (struct dev *dev, uint64_t count, uint64_t offset, unsigned flags)
{
  return run (&(struct work) {
                .dev = dev,
                .call = { .kind = DEV_FAULT_TRIM, .count = count,
                          .offset = offset, .flags = flags } }, do_change);
}

static int
fault_extents (struct dev *dev, uint64_t count, uint64_t offset,
               dev_extents_fn *fn, void *opaque)
{
  return run (&(struct work) {
                .dev = dev, .fn = fn, .fn_opaque = opaque,
                .call = { .kind = DEV_FAULT_EXTENTS, .count = count,
                          .offset = offset } }, do_extents);
}

static int
fault_cache (struct dev *dev, uint64_t count, uint64_t offset)
{
  return run (&(struct work) {
                .dev = dev,
                .call = { .kind = DEV_FAULT_CACHE, .count = count,
                          .offset = offset } }, do_nothing);
}

static int
fault_resize (struct dev *dev, uint64_t size_bytes)
{
  return run (&(struct work) {
                .dev = dev, .call = { .kind = DEV_FAULT_RESIZE,
                                      .count = size_bytes } }, do_resize);
}

static void
fault_close (struct dev *dev)
{
  free (dev);
}

static const struct dev_ops fault_ops = {
  .pread = fault_pread, .pwrite = fault_pwrite, .flush = fault_flush,
  .zero = fault_zero, .trim = fault_trim, .extents = fault_extents,
  .cache = fault_cache, .resize = fault_resize, .close = fault_close,
};

struct dev *
dev_fault_open (struct dev_fault *d)
{
  struct handle *h = must_have (calloc (1, sizeof *h));

  *h = (struct handle) {
    .disk = d,
    .dev = {
      .info = {
        .size_bytes = dev_fault_size (d),
        .sector_bytes = d->options.sector_bytes,
        .physical_bytes = d->options.physical_bytes,
        .kind = d->options.kind,
        .readonly = d->options.readonly,
        .direct = true,
        .can_zero = !d->options.cannot_zero,
        .can_trim = !d->options.cannot_trim,
        .can_extents = true,
        .can_cache = true,
        .name = "fault",
      },
    },
  };
  dev_init (&h->dev, &fault_ops);
  return &h->dev;
}

/* The rig. */

void
fault_rig_init (struct fault_rig *rig, const struct dev_fault_options *backing,
                const struct dev_fault_options *store)
{
  uint32_t sector_bytes = backing->sector_bytes ? backing->sector_bytes : 512;
  uint8_t *sector = must_have (malloc (sector_bytes));

  *rig = (struct fault_rig) {
    .backing = dev_fault_new (backing), .store = dev_fault_new (store),
    .options = { .retries = 2 },
  };
  for (uint64_t i = 0; i < nr_sectors (rig->backing); i++) {
    uint64_t rest = backing->size_bytes - i * sector_bytes;

    dev_fault_pattern (sector, sector_bytes, i, 0);
    dev_fault_poke (rig->backing, sector, MIN (rest, (uint64_t) sector_bytes),
                    i * sector_bytes);
  }
  free (sector);
}

int
fault_rig_open (struct fault_rig *rig)
{
  struct dev *backing = dev_fault_open (rig->backing);
  struct identity identity = {
    .kind = backing->info.kind, .size_bytes = backing->info.size_bytes,
    .sector_bytes = backing->info.sector_bytes, .path = "backing",
  };
  struct store_options options = {
    .path = "store", .backing = &identity, .spare_bytes = rig->spare_bytes,
  };
  struct store *store;
  struct map *map;

  store = store_open_dev (dev_fault_open (rig->store), &options, &map);
  if (store == NULL) {
    dev_close (backing);
    return -1;
  }
  rig->engine = engine_new (backing, store, map, &rig->options);
  return rig->engine ? 0 : -1;
}

void
fault_rig_close (struct fault_rig *rig)
{
  engine_free (rig->engine);
  rig->engine = NULL;
}

/* As engine_free, but that nothing more is written. */
void
fault_rig_kill (struct fault_rig *rig)
{
  struct engine *e = rig->engine;

  if (e == NULL)
    return;
  engine_stop (e);
  store_abandon (e->store);
  map_free (e->map);
  ranges_free (e->ranges);
  evidence_free (e->evidence);
  dev_close (e->backing);
  free (e);
  rig->engine = NULL;
}

void
fault_rig_free (struct fault_rig *rig)
{
  fault_rig_kill (rig);
  dev_fault_free (rig->backing);
  dev_fault_free (rig->store);
  rig->backing = rig->store = NULL;
}

/* Patterns of sectors, to free; *ret_bytes up to the end of the disk. */
static uint8_t *
make_patterns (struct fault_rig *rig, uint64_t lba, uint64_t nr,
               uint64_t version, size_t *ret_bytes)
{
  uint32_t sector_bytes = rig->engine->sector_bytes;
  uint64_t rest = rig->engine->size_bytes - lba * sector_bytes;
  uint8_t *buf = must_have (malloc (nr * sector_bytes));

  for (uint64_t i = 0; i < nr; i++)
    dev_fault_pattern (buf + i * sector_bytes, sector_bytes, lba + i, version);
  *ret_bytes = MIN (nr * sector_bytes, rest);
  return buf;
}

int
fault_rig_write (struct fault_rig *rig, uint64_t lba, uint64_t nr,
                 uint64_t version, unsigned flags)
{
  size_t count;
  uint8_t *buf = make_patterns (rig, lba, nr, version, &count);
  int r = engine_pwrite (rig->engine, buf, count,
                         lba * rig->engine->sector_bytes, flags);

  free (buf);
  return r;
}

int
fault_rig_read (struct fault_rig *rig, uint64_t lba, uint64_t nr,
                uint64_t version)
{
  size_t count;
  uint8_t *wanted = make_patterns (rig, lba, nr, version, &count);
  uint8_t *is = must_have (malloc (count));
  int r = engine_pread (rig->engine, is, count,
                        lba * rig->engine->sector_bytes);

  if (r == 0)
    r = memcmp (is, wanted, count) != 0;
  free (is);
  free (wanted);
  return r;
}

enum sector_state
fault_rig_state (struct fault_rig *rig, uint64_t lba)
{
  struct sector_run run;

  if (engine_next_run (rig->engine, (lba_t) { lba }, &run) == -1 ||
      run.lba.n > lba)
    return SECTOR_CLEAN;
  return run.state;
}
