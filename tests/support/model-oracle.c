/* SPDX-License-Identifier: BSD-3-Clause */
/* model-oracle: what each byte of a disk may be, and which errors are right. */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model-oracle.h"
#include "t_base.h"
#include "t_image.h"

enum {
  MOST_WRITES = 60,             /* of one sector: bits of a mask */
  FLATTEN = 8,
  MOST_SECTOR_BYTES = 4096,
  TORN_BYTE = 0xdb,             /* as fault-plugin has it */
  PAGE_BYTES = 4096,            /* of a page cache */
};

#define NEVER_ENDED UINT64_MAX

struct model_write {
  struct model_write *next_flying;
  uint64_t first, end;          /* bytes of the disk */
  uint64_t started, ended;      /* ticks */
  uint8_t *bytes;               /* what it wrote, where gen does not tell */
  uint32_t gen;
  uint32_t refs;
  bool is_certain;              /* acknowledged */
  bool may_tear;                /* leaves garbage until it is */
};

struct sector {
  struct model_write **writes;  /* none: the first content of the disk */
  uint64_t good_since;          /* tick; 0: nobody has looked */
  uint64_t unreadable_to;       /* the last tick; NEVER_ENDED: is it now */
  uint16_t nr, max;
  bool was_bad;                 /* it may have a spare */
};

/* A fault with another error than EIO. */
struct errno_span {
  struct model_fault fault;
  uint64_t from, to;
};

struct model_oracle {
  struct model_traits traits;
  struct sector *sectors;
  uint64_t nr_sectors, nr_bad;
  struct model_write *base;
  struct model_write *flying;
  uint64_t tick;
  uint64_t *request_starts;     /* of those under way */
  size_t nr_under_way;
  struct model_fault *faults;
  size_t nr_faults;
  struct errno_span *spans;
  size_t nr_spans;
  uint64_t store_bad_to, burst_to;      /* as unreadable_to */
  bool flush_failed;            /* of this server */
  bool flush_ever_failed;       /* and so a write with FUA looked like one of a
                                   bad sector */
  uint8_t (*patterns)[MOST_SECTOR_BYTES];
};

static void *
must (void *p)
{
  if (p == NULL)
    T_FAIL ("out of memory");
  return p;
}

/*---- Writes and sectors ----*/

static struct model_write *
write_new (uint32_t gen, uint64_t first, uint64_t end, uint64_t started)
{
  struct model_write *w = must (calloc (1, sizeof *w));

  w->gen = gen;
  w->first = first;
  w->end = end;
  w->started = started;
  w->ended = NEVER_ENDED;
  w->refs = 1;
  return w;
}

static void
write_drop (struct model_write *w)
{
  if (--w->refs > 0)
    return;
  free (w->bytes);
  free (w);
}

/* Where a sector begins and ends. */
static uint64_t
begin_of (const struct model_oracle *o, const struct sector *s)
{
  return (uint64_t) (s - o->sectors) * o->traits.sector_bytes;
}

static uint64_t
end_of (const struct model_oracle *o, const struct sector *s)
{
  const uint64_t end = begin_of (o, s) + o->traits.sector_bytes;

  return end < o->traits.size ? end : o->traits.size;
}

static struct sector *
sector_at (const struct model_oracle *o, uint64_t offset)
{
  return &o->sectors[offset / o->traits.sector_bytes];
}

/* The sectors that these bytes touch: from sector_at (first) to before this. */
static struct sector *
sector_after (const struct model_oracle *o, uint64_t end)
{
  return &o->sectors[(end + o->traits.sector_bytes - 1) /
                     o->traits.sector_bytes];
}

static bool
covers (const struct model_write *w, uint64_t first, uint64_t end)
{
  return w->first <= first && w->end >= end;
}

static bool
is_whole (const struct model_oracle *o, const struct sector *s,
          const struct model_write *w)
{
  return covers (w, begin_of (o, s), end_of (o, s));
}

/* The bytes of this write from first to end, which it need not cover. */
static void
write_content (const struct model_write *w, uint64_t first, uint64_t end,
               uint8_t *ret)
{
  if (w->bytes)
    memcpy (ret, w->bytes + (first - w->first), end - first);
  else
    t_pattern_fill (ret, end - first, first, w->gen);
}

/* Has nothing of `older` been left by `newer`, where both are, for whoever
 * begins at this tick?
 */
static bool
hides (const struct model_write *newer, const struct model_write *older,
       uint64_t tick)
{
  return newer != older && newer->is_certain &&
    newer->started >= older->ended && newer->ended <= tick;
}

/* The first tick of the requests that are under way. */
static uint64_t
horizon (const struct model_oracle *o)
{
  uint64_t r = o->tick;

  for (size_t i = 0; i < o->nr_under_way; i++)
    if (o->request_starts[i] < r)
      r = o->request_starts[i];
  return r;
}

static bool
is_hidden (const struct model_oracle *o, const struct sector *s,
           const struct model_write *w, uint64_t tick)
{
  const uint64_t begin = begin_of (o, s), end = end_of (o, s);
  const uint64_t first = w->first > begin ? w->first : begin;
  const uint64_t last = w->end < end ? w->end : end;

  for (unsigned i = 0; i < s->nr; i++)
    if (hides (s->writes[i], w, tick) && covers (s->writes[i], first, last))
      return true;
  return false;
}

/* Forget what nobody can read any more. */
static void
prune (struct model_oracle *o, struct sector *s, uint64_t tick)
{
  struct model_write *kept[MOST_WRITES], *dropped[MOST_WRITES];
  unsigned nr_kept = 0, nr_dropped = 0;

  if (s->nr < 2)
    return;
  for (unsigned i = 0; i < s->nr; i++)
    if (is_hidden (o, s, s->writes[i], tick))
      dropped[nr_dropped++] = s->writes[i];
    else
      kept[nr_kept++] = s->writes[i];
  memcpy (s->writes, kept, nr_kept * sizeof kept[0]);
  s->nr = (uint16_t) nr_kept;
  for (unsigned i = 0; i < nr_dropped; i++)
    write_drop (dropped[i]);
}

/* A sector's own content, byte by byte. */
static void
make_literal (struct model_oracle *o, struct sector *s, const uint8_t *bytes,
              uint64_t started, uint64_t ended)
{
  const uint64_t begin = begin_of (o, s), end = end_of (o, s);
  struct model_write *w = write_new (0, begin, end, started);

  w->bytes = must (malloc (end - begin));
  memcpy (w->bytes, bytes, end - begin);
  w->ended = ended;
  w->is_certain = true;
  for (unsigned i = 0; i < s->nr; i++)
    write_drop (s->writes[i]);
  s->writes[0] = w;
  s->nr = 1;
}

/* Certain writes, one after the other, are one content. */
static void
flatten (struct model_oracle *o, struct sector *s, uint64_t tick)
{
  const uint64_t begin = begin_of (o, s), end = end_of (o, s);
  uint8_t bytes[MOST_SECTOR_BYTES];
  uint64_t whole_started = 0;

  if (!is_whole (o, s, s->writes[0]))
    return;
  for (unsigned i = 0; i < s->nr; i++)
    if (!s->writes[i]->is_certain || s->writes[i]->ended > tick ||
        (i > 0 && s->writes[i]->started < s->writes[i - 1]->ended))
      return;
  for (unsigned i = 0; i < s->nr; i++) {
    const struct model_write *w = s->writes[i];
    const uint64_t first = w->first > begin ? w->first : begin;
    const uint64_t last = w->end < end ? w->end : end;

    write_content (w, first, last, bytes + (first - begin));
    if (is_whole (o, s, w))
      whole_started = w->started;
  }
  make_literal (o, s, bytes, whole_started, s->writes[s->nr - 1]->ended);
}

static void
append (struct model_oracle *o, struct sector *s, struct model_write *w,
        uint64_t tick)
{
  if (s->nr == 0) {
    s->max = 2;
    s->writes = must (malloc (s->max * sizeof s->writes[0]));
    s->writes[s->nr++] = o->base;
    o->base->refs++;
  }
  prune (o, s, tick);
  if (s->nr >= FLATTEN)
    flatten (o, s, tick);
  if (s->nr == s->max) {
    if (s->nr == MOST_WRITES)
      T_FAIL ("the model: too many writes of one sector");
    s->max = 2 * s->max < MOST_WRITES ? 2 * s->max : MOST_WRITES;
    s->writes = must (realloc (s->writes, s->max * sizeof s->writes[0]));
  }
  s->writes[s->nr++] = w;
  w->refs++;
}

/*---- Faults ----*/

/* The bytes that fail together with these sectors. */
static void
fault_extent (const struct model_oracle *o, const struct model_fault *f,
              uint64_t *ret_first, uint64_t *ret_end)
{
  const uint64_t unit = o->traits.fails_as_one;
  const uint64_t last_page = o->traits.size / PAGE_BYTES * PAGE_BYTES;
  uint64_t first = f->first * T_SECTOR / unit * unit;
  uint64_t end = ((f->last + 1) * T_SECTOR + unit - 1) / unit * unit;

  if (end > last_page) {        /* the last page may go as one */
    first = first < last_page ? first : last_page;
    end = o->traits.size;
  }
  *ret_first = first < o->traits.size ? first : o->traits.size;
  *ret_end = end < o->traits.size ? end : o->traits.size;
}

static bool
fault_meets (const struct model_oracle *o, const struct model_fault *f,
             uint64_t first, uint64_t end)
{
  uint64_t fault_first, fault_end;
  const uint64_t unit = o->traits.sector_bytes;

  if (f->ops == FAULT_FLUSH)
    return false;
  fault_extent (o, f, &fault_first, &fault_end);
  first = first / unit * unit;
  end = (end + unit - 1) / unit * unit;
  return first < fault_end && end > fault_first;
}

static void
mark_sectors (struct model_oracle *o, const struct model_fault *f,
              uint64_t unreadable_to)
{
  uint64_t first, end;

  if (f->err != EIO || f->ops == FAULT_FLUSH)
    return;
  fault_extent (o, f, &first, &end);
  if (first >= end)
    return;
  for (struct sector *s = sector_at (o, first); s < sector_after (o, end);
       s++) {
    if (f->ops & FAULT_READ)
      s->unreadable_to = unreadable_to;
    o->nr_bad += !s->was_bad;
    s->was_bad = true;
  }
}

/* Errors that no request under way can have met are forgotten. */
static void
forget_spans (struct model_oracle *o)
{
  const uint64_t tick = horizon (o);
  size_t nr = 0;

  for (size_t i = 0; i < o->nr_spans; i++)
    if (o->spans[i].to >= tick)
      o->spans[nr++] = o->spans[i];
  o->nr_spans = nr;
}

static void
add_span (struct model_oracle *o, const struct model_fault *f)
{
  o->spans = must (realloc (o->spans, (o->nr_spans + 1) * sizeof *o->spans));
  o->spans[o->nr_spans++] = (struct errno_span) {
    .fault = *f, .from = o->tick, .to = NEVER_ENDED,
  };
}

static void
begin_fault (struct model_oracle *o, const struct model_fault *f)
{
  mark_sectors (o, f, NEVER_ENDED);
  if (f->err && f->err != EIO)
    add_span (o, f);
  if (f->ops == FAULT_FLUSH && f->err)
    o->flush_failed = o->flush_ever_failed = true;
  for (struct model_write *w = o->flying; f->torn && w != NULL;
       w = w->next_flying)
    w->may_tear |= fault_meets (o, f, w->first, w->end);
}

void
model_oracle_faults_appear (struct model_oracle *o,
                            const struct model_fault *faults, size_t nr)
{
  o->tick++;
  for (size_t i = 0; i < nr; i++)
    begin_fault (o, &faults[i]);
}

void
model_oracle_faults_are (struct model_oracle *o,
                         const struct model_fault *faults, size_t nr)
{
  o->tick++;
  for (size_t i = 0; i < o->nr_faults; i++)
    mark_sectors (o, &o->faults[i], o->tick);
  for (size_t i = 0; i < o->nr_spans; i++)
    if (o->spans[i].to == NEVER_ENDED)
      o->spans[i].to = o->tick;
  forget_spans (o);
  o->tick++;
  for (size_t i = 0; i < nr; i++)
    begin_fault (o, &faults[i]);
  free (o->faults);
  o->faults = must (malloc (nr * sizeof *faults + 1));
  memcpy (o->faults, faults, nr * sizeof *faults);
  o->nr_faults = nr;
}

void
model_oracle_store_faults (struct model_oracle *o, bool in_force)
{
  o->tick++;
  if (in_force || o->store_bad_to == NEVER_ENDED)
    o->store_bad_to = in_force ? NEVER_ENDED : o->tick;
}

void
model_oracle_burst (struct model_oracle *o, bool in_force)
{
  o->tick++;
  o->burst_to = in_force ? NEVER_ENDED : o->tick;
}

void
model_oracle_restarted (struct model_oracle *o)
{
  o->flush_failed = false;
  for (size_t i = 0; i < o->nr_faults; i++)
    o->flush_failed |= o->faults[i].ops == FAULT_FLUSH && o->faults[i].err;
}

/*---- Requests ----*/

/* Since when, for who began at this tick, the content of the sector is good for
 * certain.
 */
static uint64_t
certain_since (const struct model_oracle *o, const struct sector *s,
               uint64_t tick)
{
  uint64_t r = s->good_since;

  for (unsigned i = 0; i < s->nr; i++) {
    const struct model_write *w = s->writes[i];

    if (w->is_certain && w->ended <= tick && w->started > r &&
        is_whole (o, s, w))
      r = w->started;
  }
  return r;
}

/* May this sector have a spare? */
static bool
may_have_spare (const struct model_oracle *o, const struct sector *s)
{
  return s->was_bad || o->traits.has_deadline || o->flush_ever_failed;
}

static bool
sector_may_be_lost (const struct model_oracle *o, const struct sector *s,
                    uint64_t tick)
{
  const bool has_spare = may_have_spare (o, s);
  uint64_t since;

  if (s->unreadable_to == 0 && (o->store_bad_to == 0 || !has_spare))
    return false;
  since = certain_since (o, s, tick);
  return (s->unreadable_to && s->unreadable_to >= since) ||
    (has_spare && o->store_bad_to && o->store_bad_to >= since);
}

static bool
any_may_be_lost (const struct model_oracle *o, uint64_t first, uint64_t end,
                 uint64_t tick)
{
  for (struct sector *s = sector_at (o, first); s < sector_after (o, end); s++)
    if (sector_may_be_lost (o, s, tick))
      return true;
  return false;
}

bool
model_oracle_may_be_lost (struct model_oracle *o,
                          const struct model_request *r)
{
  return any_may_be_lost (o, r->offset, r->offset + r->count, r->started);
}

static bool
any_may_have_spare (const struct model_oracle *o, uint64_t first, uint64_t end)
{
  for (struct sector *s = sector_at (o, first); s < sector_after (o, end); s++)
    if (may_have_spare (o, s))
      return true;
  return false;
}

/* O2: the parts of sectors at both ends of a write. */
static bool
part_may_be_lost (const struct model_oracle *o, const struct model_request *r)
{
  const uint64_t end = r->offset + r->count;
  const uint32_t unit = o->traits.sector_bytes;

  if (r->op == MODEL_TRIM)
    return false;
  return (r->offset % unit != 0 &&
          sector_may_be_lost (o, sector_at (o, r->offset), r->started)) ||
    (end % unit != 0 && end != o->traits.size &&
     sector_may_be_lost (o, sector_at (o, end), r->started));
}

static bool
eio_is_right (const struct model_oracle *o, const struct model_request *r)
{
  if (o->burst_to && o->burst_to >= r->started)
    return true;
  if ((r->fua || r->op == MODEL_FLUSH) && o->flush_failed)
    return true;
  switch (r->op) {
  case MODEL_WRITE: case MODEL_ZERO: case MODEL_TRIM:
    return part_may_be_lost (o, r);
  case MODEL_READ: case MODEL_CACHE: case MODEL_STATUS:
    return o->traits.has_deadline ||
      any_may_be_lost (o, r->offset, r->offset + r->count, r->started);
  default:
    return false;
  }
}

/* O4. */
static bool
errno_was_in_force (const struct model_oracle *o,
                    const struct model_request *r, int err)
{
  static const unsigned ops[MODEL_NR_OPS] = {
    [MODEL_READ] = FAULT_READ, [MODEL_CACHE] = FAULT_READ,
    [MODEL_STATUS] = FAULT_READ,
    [MODEL_WRITE] = FAULT_READ | FAULT_WRITE,
    [MODEL_ZERO] = FAULT_READ | FAULT_WRITE | FAULT_TRIM,
    [MODEL_TRIM] = FAULT_READ | FAULT_WRITE | FAULT_TRIM,
  };

  for (size_t i = 0; i < o->nr_spans; i++) {
    const struct errno_span *s = &o->spans[i];

    if (s->fault.err == err && s->to >= r->started &&
        s->fault.ops & ops[r->op] &&
        fault_meets (o, &s->fault, r->offset, r->offset + r->count))
      return true;
  }
  return false;
}

static bool
error_is_right (const struct model_oracle *o, const struct model_request *r,
                int err)
{
  const bool changes = r->op == MODEL_WRITE || r->op == MODEL_ZERO ||
    r->op == MODEL_TRIM;

  if (r->op != MODEL_FLUSH && errno_was_in_force (o, r, err))
    return true;
  if (err == EIO)
    return eio_is_right (o, r);
  if (err == ENOTSUP)
    return r->op == MODEL_CACHE || (r->op == MODEL_ZERO && r->fast);
  /* O3.  Without spares nobody asks whether it is the disk. */
  return err == ENOSPC && changes &&
    (o->traits.few_spares || o->flush_ever_failed) &&
    ((o->burst_to && o->burst_to >= r->started) ||
     any_may_have_spare (o, r->offset, r->offset + r->count));
}

/* What a request changes: trim leaves parts of sectors as they are. */
static bool
changed_extent (const struct model_oracle *o, const struct model_request *r,
                uint64_t *ret_first, uint64_t *ret_end)
{
  const uint32_t unit = o->traits.sector_bytes;

  *ret_first = r->offset;
  *ret_end = r->offset + r->count;
  if (r->op == MODEL_TRIM) {
    *ret_first = (*ret_first + unit - 1) / unit * unit;
    if (*ret_end != o->traits.size)
      *ret_end = *ret_end / unit * unit;
  }
  return (r->op == MODEL_WRITE || r->op == MODEL_ZERO ||
          r->op == MODEL_TRIM) && *ret_first < *ret_end;
}

void
model_oracle_begin (struct model_oracle *o, struct model_request *r)
{
  uint64_t first, end, tick;

  r->started = ++o->tick;
  r->write = NULL;
  o->request_starts = must (realloc (o->request_starts,
                                     (o->nr_under_way + 1) *
                                     sizeof o->request_starts[0]));
  o->request_starts[o->nr_under_way++] = r->started;
  if (!changed_extent (o, r, &first, &end))
    return;
  r->write = write_new (r->op == MODEL_WRITE ? r->gen : 0, first, end,
                        r->started);
  for (size_t i = 0; i < o->nr_faults; i++)
    if (o->faults[i].torn)
      r->write->may_tear |= fault_meets (o, &o->faults[i], first, end);
  tick = horizon (o);
  for (struct sector *s = sector_at (o, first); s < sector_after (o, end); s++)
    append (o, s, r->write, tick);
  r->write->next_flying = o->flying;
  o->flying = r->write;
}

static void
end_write (struct model_oracle *o, struct model_request *r, int err)
{
  struct model_write **p = &o->flying;

  if (r->write == NULL)
    return;
  while (*p != r->write)
    p = &(*p)->next_flying;
  *p = r->write->next_flying;
  r->write->ended = o->tick;
  r->write->is_certain = err == 0 && r->op != MODEL_TRIM;
  write_drop (r->write);
  r->write = NULL;
}

/*---- What was read ----*/

/* One sector that is looked at. */
struct look {
  const struct model_oracle *o;
  const struct sector *s;
  uint64_t first, end;          /* bytes of the disk, in the sector */
  uint64_t tick;                /* when the read began */
  struct model_write *const *writes;
  unsigned nr;
  uint64_t hidden_by[MOST_WRITES];      /* masks of writes */
  uint64_t wholes;
  bool may_be_torn;
};

static void
look_at (struct look *l, const struct model_oracle *o, const struct sector *s,
         const struct model_request *r)
{
  const uint64_t begin = begin_of (o, s), end = end_of (o, s);

  *l = (struct look) {
    .o = o, .s = s, .tick = r->started,
    .first = r->offset > begin ? r->offset : begin,
    .end = r->offset + r->count < end ? r->offset + r->count : end,
    .writes = s->nr ? s->writes : &o->base, .nr = s->nr ? s->nr : 1,
  };
  for (unsigned i = 0; i < l->nr; i++) {
    const struct model_write *w = l->writes[i];

    for (unsigned j = 0; j < l->nr; j++)
      if (hides (l->writes[j], w, l->tick))
        l->hidden_by[i] |= UINT64_C (1) << j;
    if (is_whole (o, s, w))
      l->wholes |= UINT64_C (1) << i;
    if (w->may_tear && !(w->is_certain && w->ended <= l->tick))
      l->may_be_torn = true;
  }
}

/* The writes, as a mask, that may have left this byte. */
static uint64_t
may_be_of (const struct look *l, uint64_t offset)
{
  uint64_t there = 0, r = 0;

  for (unsigned i = 0; i < l->nr; i++)
    if (covers (l->writes[i], offset, offset + 1))
      there |= UINT64_C (1) << i;
  for (unsigned i = 0; i < l->nr; i++)
    if (there >> i & 1 && !(there & l->hidden_by[i]))
      r |= UINT64_C (1) << i;
  return r;
}

static bool
is_all (const uint8_t *p, size_t count, uint8_t byte)
{
  for (size_t i = 0; i < count; i++)
    if (p[i] != byte)
      return false;
  return true;
}

/* The usual case: one write, as a whole. */
static bool
is_of_one (const struct look *l, const uint8_t *data)
{
  uint8_t content[MOST_SECTOR_BYTES];

  for (unsigned i = l->nr; i-- > 0; ) {
    if (!covers (l->writes[i], l->first, l->end) || l->hidden_by[i])
      continue;
    write_content (l->writes[i], l->first, l->end, content);
    if (memcmp (content, data, l->end - l->first) == 0)
      return true;
  }
  return false;
}

/* The content of each write, at its place in the sector. */
static void
fill_patterns (const struct look *l)
{
  for (unsigned i = 0; i < l->nr; i++) {
    const struct model_write *w = l->writes[i];
    const uint64_t first = w->first > l->first ? w->first : l->first;
    const uint64_t end = w->end < l->end ? w->end : l->end;

    if (first < end)
      write_content (w, first, end, l->o->patterns[i] + (first - l->first));
  }
}

/* Rule O1.  *ret_bad: the first byte that nobody can have written, or
 * UINT64_MAX if each can be of somebody.
 */
static bool
is_of_several (const struct look *l, const uint8_t *data, uint64_t *ret_bad)
{
  const uint64_t torn = UINT64_C (1) << 63;
  uint64_t one = l->wholes | (l->may_be_torn ? torn : 0);

  fill_patterns (l);
  *ret_bad = UINT64_MAX;
  for (uint64_t at = l->first; at < l->end; at++) {
    uint64_t may = may_be_of (l, at), is = 0;

    for (unsigned i = 0; i < l->nr; i++)
      if (may >> i & 1 &&
          l->o->patterns[i][at - l->first] == data[at - l->first])
        is |= UINT64_C (1) << i;
    if (l->may_be_torn && data[at - l->first] == TORN_BYTE)
      is |= torn;
    if (is == 0) {
      *ret_bad = at;
      return false;
    }
    if (!(is & ~(l->wholes | torn)))    /* of no part that was written */
      one &= is;
  }
  return one != 0 || l->o->traits.may_mix ||
    l->end > l->o->traits.size / PAGE_BYTES * PAGE_BYTES;
}

/* For messages: the writes that may be there. */
static const char *
describe_writes (const struct look *l)
{
  char *text = t_str ("%s", "");

  for (unsigned i = 0; i < l->nr; i++) {
    const struct model_write *w = l->writes[i];
    const bool flying = w->ended == NEVER_ENDED;

    text = t_str ("%s\n    %s %llu-%llu, %s, ticks %llu-%s", text,
                  w->bytes ? "as read or composed," :
                  w->gen ? t_str ("write %u,", w->gen) : "zeroes,",
                  (unsigned long long) w->first, (unsigned long long) w->end,
                  flying ? "under way" : w->is_certain ? "certain"
                  : "undecided", (unsigned long long) w->started,
                  flying ? "" : t_str ("%llu", (unsigned long long) w->ended));
  }
  return text;
}

/* Whose is it?  For messages: any write that has this content here. */
static const char *
describe_data (const struct look *l, const uint8_t *data)
{
  const size_t count = l->end - l->first;

  if (count >= 4)
    for (uint32_t gen = 1; gen < 1u << 20; gen++)
      if (t_pattern_matches (data, count < T_SECTOR ? count : T_SECTOR,
                             l->first, gen, NULL))
        return t_str ("the content of write %u", gen);
  return t_pattern_describe (data, count < T_SECTOR ? count : T_SECTOR);
}

static const char *
wrong_data (const struct look *l, const uint8_t *data, uint64_t bad)
{
  return t_str ("sector %llu, bytes %llu-%llu (read begun at tick %llu): %s; "
                "it has %s, and may be of:%s",
                (unsigned long long) (l->s - l->o->sectors),
                (unsigned long long) l->first, (unsigned long long) l->end,
                (unsigned long long) l->tick, bad == UINT64_MAX
                ? "a mix of writes" : t_str ("byte %llu is of none",
                                             (unsigned long long) bad),
                describe_data (l, data), describe_writes (l));
}

static const char *
check_data (const struct model_oracle *o, const struct model_request *r,
            const uint8_t *data, bool is_extent)
{
  const uint64_t end = r->offset + r->count;

  for (struct sector *s = sector_at (o, r->offset);
       s < sector_after (o, end); s++) {
    struct look l;
    const uint8_t *p;
    uint64_t bad;

    look_at (&l, o, s, r);
    p = is_extent ? data : data + (l.first - r->offset);
    if (is_of_one (&l, p) || is_of_several (&l, p, &bad))
      continue;
    if (o->traits.lost_reads_zero && !is_extent &&
        is_all (p, l.end - l.first, 0) &&
        sector_may_be_lost (o, s, r->started))
      continue;
    return wrong_data (&l, p, bad);
  }
  return NULL;
}

const char *
model_oracle_zero_extent (struct model_oracle *o,
                          const struct model_request *r, uint64_t offset,
                          uint64_t count)
{
  static const uint8_t zeroes[MOST_SECTOR_BYTES];
  struct model_request part = *r;

  part.offset = offset;
  part.count = (uint32_t) count;
  return check_data (o, &part, zeroes, true);
}

static void
leave (struct model_oracle *o, const struct model_request *r)
{
  for (size_t i = 0; i < o->nr_under_way; i++)
    if (o->request_starts[i] == r->started) {
      o->request_starts[i] = o->request_starts[--o->nr_under_way];
      return;
    }
  T_FAIL ("the model: a request ended that had not begun");
}

const char *
model_oracle_end (struct model_oracle *o, struct model_request *r, int err,
                  const void *data)
{
  const char *why = NULL;

  o->tick++;
  if (err > 0 && !error_is_right (o, r, err))
    why = t_str ("%s, which nothing explains", strerrorname_np (err));
  if (err == 0 && r->op == MODEL_READ)
    why = check_data (o, r, data, false);
  end_write (o, r, err);
  leave (o, r);
  return why;
}

void
model_oracle_settle (struct model_oracle *o, const struct model_request *r,
                     const void *data)
{
  const uint8_t *p = data;

  if (o->traits.lost_reads_zero || r->offset % o->traits.sector_bytes)
    return;
  for (struct sector *s = sector_at (o, r->offset);
       s < sector_after (o, r->offset + r->count); s++) {
    s->good_since = r->started;
    if (s->nr > 1)
      make_literal (o, s, p + (begin_of (o, s) - r->offset), r->started,
                    o->tick);
  }
}

/*---- The rest ----*/

struct model_oracle *
model_oracle_new (const struct model_traits *traits)
{
  struct model_oracle *o = must (calloc (1, sizeof *o));

  o->traits = *traits;
  o->nr_sectors = (traits->size + traits->sector_bytes - 1) /
    traits->sector_bytes;
  o->sectors = must (calloc (o->nr_sectors, sizeof *o->sectors));
  o->patterns = must (malloc (MOST_WRITES * sizeof *o->patterns));
  o->base = write_new (traits->gen, 0, traits->size, 0);
  o->base->ended = 0;
  o->base->is_certain = true;
  return o;
}

void
model_oracle_free (struct model_oracle *o)
{
  for (uint64_t i = 0; i < o->nr_sectors; i++) {
    for (unsigned j = 0; j < o->sectors[i].nr; j++)
      write_drop (o->sectors[i].writes[j]);
    free (o->sectors[i].writes);
  }
  write_drop (o->base);
  free (o->sectors);
  free (o->request_starts);
  free (o->faults);
  free (o->spans);
  free (o->patterns);
  free (o);
}

void
model_oracle_set_traits (struct model_oracle *o, bool lost_reads_zero,
                         bool few_spares)
{
  o->traits.lost_reads_zero = lost_reads_zero;
  o->traits.few_spares = few_spares;
}

unsigned
model_oracle_crowd (const struct model_oracle *o, uint64_t offset,
                    uint64_t count)
{
  unsigned r = 0;

  for (struct sector *s = sector_at (o, offset);
       s < sector_after (o, offset + count); s++)
    r = s->nr > r ? s->nr : r;
  return r;
}

bool
model_oracle_was_bad (const struct model_oracle *o, uint64_t lba)
{
  return lba < o->nr_sectors && may_have_spare (o, &o->sectors[lba]);
}

uint64_t
model_oracle_nr_bad (const struct model_oracle *o)
{
  return o->nr_bad;
}
