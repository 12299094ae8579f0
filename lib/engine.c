/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "clock.h"
#include "engine-internal.h"
#include "error.h"
#include "log.h"

#define STEP_BYTES 4096

/* A failed zero is done again by writing zeroes, so many at a time. */
#define ZEROES_BYTES (1u << 20)

void
engine_post (struct engine *e, enum event_kind kind, lba_t lba,
             uint64_t nr_sectors, int err)
{
  struct event event = {
    .lba = lba, .nr_sectors = (uint32_t) nr_sectors, .kind = kind, .err = err,
  };
  int saved = errno;

  event.when_ns = clock_now_ns ();
  if (e->options.event)
    e->options.event (e->options.opaque, &event);
  errno = saved;
}

bool
engine_is_medium_error (struct engine *e, enum event_kind kind, lba_t lba,
                        uint64_t nr_sectors)
{
  int err = errno;
  enum breaker_op op = kind == EVENT_READ_ERROR ? BREAKER_READ : BREAKER_WRITE;
  bool is_medium = dev_error_is_medium (err);

  engine_post (e, is_medium ? kind : EVENT_OTHER_ERROR, lba, nr_sectors, err);
  log_message (LEVEL_DEBUG, "%s", last_error_text ());
  errno = err;
  return is_medium && !evidence_refuses (e->evidence, op);      /* E6 */
}

static int read_late (void *opaque, lba_t lba, uint64_t nr_bytes, uint8_t *buf,
                      bool *ret_is_data);
static int errno_of_late (void *opaque);
static void came_late (void *opaque, struct late_read *read);

/* What needs memory, but for the engine itself. */
static int
make_parts (struct engine *e)
{
  const uint64_t deadline_ms = e->options.deadline_ms;
  const struct late_reads_owner owner = {
    .read = read_late, .errno_of_late = errno_of_late,
    .came_late = came_late, .opaque = e,
    .name = e->backing->info.name,
  };

  e->ranges = ranges_new ();
  e->evidence = evidence_new (e->nr_sectors);
  if (e->ranges && deadline_ms > 0)
    e->late_reads = late_reads_new (deadline_ms, e->ranges, &owner);
  if (e->ranges && e->evidence && (e->late_reads || deadline_ms == 0))
    return 0;
  late_reads_free (e->late_reads);
  evidence_free (e->evidence);
  ranges_free (e->ranges);
  return -1;
}

static void
fill_in (struct engine *e, struct dev *backing, struct store *store,
         struct map *map, const struct engine_options *options)
{
  uint32_t sector_bytes = store_sector_bytes (store);
  uint32_t unit_bytes = MAX (backing->info.physical_bytes, sector_bytes);

  e->backing = backing;
  e->store = store;
  e->map = map;
  e->options = *options;
  e->size_bytes = backing->info.size_bytes;
  e->sector_bytes = sector_bytes;
  e->sector_shift = log2_of (sector_bytes);
  e->nr_sectors = div_round_up (e->size_bytes, sector_bytes);
  e->unit_sectors = unit_bytes >> e->sector_shift;
  e->step_sectors = MAX (unit_bytes, (uint32_t) STEP_BYTES) >> e->sector_shift;
}

struct engine *
engine_new (struct dev *backing, struct store *store, struct map *map,
            const struct engine_options *options)
{
  struct engine *e = calloc (1, sizeof *e);

  if (e) {
    fill_in (e, backing, store, map, options);
    if (make_parts (e) == 0)
      return e;
  }
  set_error (ENOMEM, "no memory for the engine");
  free (e);
  store_close (store);
  map_free (map);
  dev_close (backing);
  return NULL;
}

int
engine_start (struct engine *e)
{
  return store_set_owner (e->store);
}

void
engine_stop (struct engine *e)
{
  if (e == NULL)
    return;
  late_reads_free (e->late_reads);
  e->late_reads = NULL;
}

void
engine_free (struct engine *e)
{
  if (e == NULL)
    return;
  engine_stop (e);
  if (!e->backing->info.readonly && dev_flush (e->backing) == -1)
    log_message (LEVEL_ERROR, "%s", last_error_text ());
  store_close (e->store);
  map_free (e->map);
  ranges_free (e->ranges);
  evidence_free (e->evidence);
  dev_close (e->backing);
  free (e);
}

static int
check_bounds (const struct engine *e, uint64_t count, uint64_t offset)
{
  if (offset > e->size_bytes || count > e->size_bytes - offset)
    return set_error (EINVAL, "request of %llu bytes at %llu is outside the "
                      "disk of %llu", (unsigned long long) count,
                      (unsigned long long) offset,
                      (unsigned long long) e->size_bytes);
  return 0;
}

static int
check_writable (const struct engine *e, uint64_t count, uint64_t offset)
{
  if (e->backing->info.readonly)
    return set_error (EROFS, "%s is open read-only", e->backing->info.name);
  if (atomic_load_explicit (&e->failed, memory_order_relaxed))
    return set_error (EIO, "%s: no memory to note a remapped sector: nothing "
                      "is written until a restart", e->backing->info.name);
  return check_bounds (e, count, offset);
}

/* The sectors that a range of bytes touches. */
static struct span
span_of (const struct engine *e, uint64_t count, uint64_t offset)
{
  uint64_t first = offset >> e->sector_shift;
  uint64_t last = (offset + count - 1) >> e->sector_shift;

  return (struct span) { { first }, last - first + 1 };
}

/* Read. */

/* Bytes of a request that lie in a run of sectors. */
static size_t
part_in_run (const struct engine *e, const struct sector_run *run,
             size_t count, uint64_t offset)
{
  uint64_t end = (run->lba.n + run->nr_sectors) << e->sector_shift;

  return (size_t) MIN ((uint64_t) count, end - offset);
}

static int read_mixed (struct engine *e, uint8_t *buf, size_t count,
                       uint64_t offset);

static int
read_backing (struct engine *e, uint8_t *buf, size_t count, uint64_t offset)
{
  struct span s = span_of (e, count, offset);

  if (dev_pread (e->backing, buf, count, offset, 0) == 0) {
    evidence_note_good (e->evidence, s.lba);
    if (evidence_state (e->evidence) == BREAKER_OPEN)
      evidence_note_answer (e, BREAKER_READ);
    /* What was moved meanwhile may have been torn before. */
    return map_is_clean (e->map, s.lba, s.nr_sectors) ? 0
      : read_mixed (e, buf, count, offset);
  }
  if (!engine_is_medium_error (e, EVENT_READ_ERROR, s.lba, s.nr_sectors))
    return -1;
  return repair_read (e, buf, count, offset);
}

/* Whole sectors from spares. */
static int
read_spares (struct engine *e, const struct sector_run *run, uint32_t nr,
             uint8_t *buf)
{
  if (store_read (e->store, run->spare, run->lba, nr, buf) == 0)
    return 0;
  if (errno != EILSEQ && !dev_error_is_medium (errno))
    return -1;
  return repair_spare_read (e, run->lba, nr, buf);
}

/* count bytes at offset, which lie in a remapped run that begins in the sector
 * of offset.
 */
static int
read_remapped (struct engine *e, const struct sector_run *run, uint8_t *buf,
               size_t count, uint64_t offset)
{
  size_t skip = (size_t) (offset - lba_to_bytes (e, run->lba));
  uint32_t nr = (uint32_t) span_of (e, count, offset).nr_sectors;
  uint8_t *sectors;
  int r;

  if (skip == 0 && count == (size_t) nr << e->sector_shift)
    return read_spares (e, run, nr, buf);
  sectors = malloc ((size_t) nr << e->sector_shift);
  if (sectors == NULL)
    return set_error (ENOMEM, "no memory to read %u sectors", nr);
  r = read_spares (e, run, nr, sectors);
  if (r == 0)
    memcpy (buf, sectors + skip, count);
  free (sectors);
  return r;
}

int
engine_lost_error (lba_t lba)
{
  return set_error (EIO, "sector %llu is lost", (unsigned long long) lba.n);
}

static int
read_run (struct engine *e, const struct sector_run *run, uint8_t *buf,
          size_t count, uint64_t offset)
{
  switch (run->state) {
  case SECTOR_CLEAN:
    return read_backing (e, buf, count, offset);
  case SECTOR_REMAPPED:
    return read_remapped (e, run, buf, count, offset);
  case SECTOR_LOST:
    if (!e->options.lost_reads_zero)
      return engine_lost_error (run->lba);
    engine_note_made_up ();
    break;
  case SECTOR_ZEROED:
    break;
  }
  memset (buf, 0, count);
  return 0;
}

/* A lost sector fails the whole request: before the disk is touched for it. */
static int
check_not_lost (struct engine *e, struct span s)
{
  struct sector_run run;

  while (!e->options.lost_reads_zero && s.nr_sectors > 0) {
    map_next (e->map, s.lba, s.nr_sectors, &run);
    if (run.state == SECTOR_LOST)
      return engine_lost_error (run.lba);
    s.lba.n += run.nr_sectors;
    s.nr_sectors -= run.nr_sectors;
  }
  return 0;
}

static int
read_mixed (struct engine *e, uint8_t *buf, size_t count, uint64_t offset)
{
  if (check_not_lost (e, span_of (e, count, offset)) == -1)
    return -1;
  while (count > 0) {
    struct span s = span_of (e, count, offset);
    struct sector_run run;
    size_t n;

    map_next (e->map, s.lba, s.nr_sectors, &run);
    n = part_in_run (e, &run, count, offset);
    if (read_run (e, &run, buf, n, offset) == -1)
      return -1;
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

static int
read_sectors (struct engine *e, uint8_t *buf, size_t count, uint64_t offset)
{
  struct span s = span_of (e, count, offset);

  if (map_is_clean (e->map, s.lba, s.nr_sectors))
    return read_backing (e, buf, count, offset);
  return read_mixed (e, buf, count, offset);
}

/* With a deadline. */

/* Zeroes that this thread gave out in place of what is lost. */
static _Thread_local unsigned nr_made_up;

void
engine_note_made_up (void)
{
  nr_made_up++;
}

static int
read_late (void *opaque, lba_t lba, uint64_t nr_bytes, uint8_t *buf,
           bool *ret_is_data)
{
  struct engine *e = opaque;
  unsigned before = nr_made_up;
  uint64_t outages = dev_outages (e->backing);
  int r = read_sectors (e, buf, (size_t) nr_bytes, lba_to_bytes (e, lba));

  /* Of a sector that was only out of reach, nothing is to be kept. */
  *ret_is_data = nr_made_up == before && outages % 2 == 0 &&
    dev_outages (e->backing) == outages;
  return r;
}

static int
errno_of_late (void *opaque)
{
  struct engine *e = opaque;

  return dev_outages (e->backing) % 2 ? ESHUTDOWN : EIO;
}

static void
came_late (void *opaque, struct late_read *read)
{
  place_late (opaque, read);
}

bool
engine_has_clean (struct engine *e, struct span s)
{
  struct sector_run run;

  while (s.nr_sectors > 0) {
    map_next (e->map, s.lba, s.nr_sectors, &run);
    if (run.state == SECTOR_CLEAN)
      return true;
    s.lba.n += run.nr_sectors;
    s.nr_sectors -= run.nr_sectors;
  }
  return false;
}

/* As read_sectors, whose sectors are whole in a buffer of its own then.  1: it
 * is not to be done so.
 */
static int
read_in_time (struct engine *e, uint8_t *buf, size_t count, uint64_t offset)
{
  struct span s = span_of (e, count, offset);
  const struct late_reads_request request = {
    .lba = s.lba, .nr_sectors = s.nr_sectors,
    .nr_bytes = sectors_to_bytes (e, s.lba, s.nr_sectors),
    .skip = (size_t) (offset - lba_to_bytes (e, s.lba)), .count = count,
  };

  return engine_has_clean (e, s) ? late_reads_do (e->late_reads, &request, buf)
    : 1;
}

int
engine_pread (struct engine *e, void *buf, size_t count, uint64_t offset)
{
  int r = 1;

  if (check_bounds (e, count, offset) == -1)
    return -1;
  if (count == 0)
    return 0;
  if (e->late_reads)
    r = read_in_time (e, buf, count, offset);
  return r == 1 ? read_sectors (e, buf, count, offset) : r;
}

/* Write. */

/* Clean sectors, in place; 1: not all are clean.  nr_touches: how often the
 * request has touched them already.
 */
static int
write_clean (struct engine *e, lba_t lba, uint64_t nr_sectors,
             const uint8_t *buf, unsigned flags, unsigned nr_touches,
             bool *ret_used_store)
{
  struct range_slot *slot = ranges_enter (e->ranges, lba, nr_sectors);
  int r = 1, err;

  if (map_is_clean (e->map, lba, nr_sectors)) {
    engine_overtake_reads (e, lba, nr_sectors);
    r = dev_pwrite (e->backing, buf, sectors_to_bytes (e, lba, nr_sectors),
                    lba_to_bytes (e, lba), flags);
  }
  err = errno;
  ranges_leave (e->ranges, slot);
  errno = err;
  if (r == 0) {
    evidence_note_good (e->evidence, lba);
    if (evidence_state (e->evidence) != BREAKER_CLOSED)
      evidence_note_answer (e, BREAKER_WRITE);
  }
  if (r != -1)
    return r;
  if (!engine_is_medium_error (e, EVENT_WRITE_ERROR, lba, nr_sectors))
    return -1;
  return repair_write (e, lba, nr_sectors, buf, flags, nr_touches + 1,
                       ret_used_store);
}

int
engine_write_sectors (struct engine *e, lba_t lba, uint64_t nr_sectors,
                      const uint8_t *buf, unsigned flags, unsigned nr_touches,
                      bool *ret_used_store)
{
  int r = write_clean (e, lba, nr_sectors, buf, flags, nr_touches,
                       ret_used_store);

  if (r != 1)
    return r;
  while (nr_sectors > 0) {
    struct sector_run run;
    uint64_t n;

    map_next (e->map, lba, nr_sectors, &run);
    n = run.nr_sectors;
    if (run.state == SECTOR_CLEAN)
      r = write_clean (e, lba, n, buf, flags, nr_touches, ret_used_store);
    else {
      n = MIN (n, (uint64_t) STORE_RECORD_MAX);
      *ret_used_store = true;
      r = repair_rewrite (e, lba, (uint32_t) n, buf);
    }
    if (r == 1)
      continue;                 /* it has changed meanwhile: look again */
    if (r == -1)
      return -1;
    buf += n << e->sector_shift;
    lba.n += n;
    nr_sectors -= n;
  }
  return 0;
}

/* A request, cut into a part of a sector, whole sectors, a part of a sector.
 * A part that reaches the end of the disk is whole.
 */
struct cut {
  uint32_t head_bytes, tail_bytes;
  uint64_t whole_bytes;
};

static struct cut
cut_request (const struct engine *e, uint64_t count, uint64_t offset)
{
  uint32_t mask = e->sector_bytes - 1;
  uint64_t end = offset + count;
  struct cut c = { 0, 0, 0 };

  if (offset & mask)
    c.head_bytes = (uint32_t) MIN (count, e->sector_bytes - (offset & mask));
  if (end != e->size_bytes && count > c.head_bytes)
    c.tail_bytes = (uint32_t) (end & mask);
  c.whole_bytes = count - c.head_bytes - c.tail_bytes;
  return c;
}

/* all: the sectors of the request. */
static int
write_part (struct engine *e, struct span all, const uint8_t *buf,
            uint32_t count, uint64_t offset, unsigned flags,
            bool *ret_used_store)
{
  lba_t lba = { offset >> e->sector_shift };

  if (count == 0)
    return 0;
  return repair_write_part (e, all, lba,
                            (uint32_t) (offset - lba_to_bytes (e, lba)),
                            count, buf, flags, ret_used_store);
}

/* With FUA, what went to a spare must be durable as well. */
static int
finish (struct engine *e, unsigned flags, bool used_store)
{
  return flags & DEV_FUA && used_store ? store_flush (e->store) : 0;
}

static int
flush_backing (struct engine *e)
{
  if (e->backing->info.readonly || dev_flush (e->backing) == 0)
    return 0;
  if (!dev_flush_may_succeed (e->backing, errno) &&
      !atomic_exchange (&e->flush_failed, true))
    log_message (LEVEL_ERROR, "%s; flushes report an error until a restart",
                 last_error_text ());
  return -1;
}

/* The same for what was cleared natively, without FUA. */
static int
finish_clear (struct engine *e, unsigned flags, bool used_store)
{
  if (flags & DEV_FUA && flush_backing (e) == -1)
    return -1;
  return finish (e, flags, used_store);
}

int
engine_pwrite (struct engine *e, const void *vbuf, size_t count,
               uint64_t offset, unsigned flags)
{
  const uint8_t *buf = vbuf;
  bool used_store = false;
  struct span all;
  struct cut c;

  if (check_writable (e, count, offset) == -1)
    return -1;
  if (count == 0)
    return 0;
  all = span_of (e, count, offset);
  c = cut_request (e, count, offset);
  if (write_part (e, all, buf, c.head_bytes, offset, flags, &used_store) == -1)
    return -1;
  buf += c.head_bytes;
  offset += c.head_bytes;
  if (c.whole_bytes > 0) {
    struct span s = span_of (e, c.whole_bytes, offset);

    if (engine_write_sectors (e, s.lba, s.nr_sectors, buf, flags, 0,
                              &used_store) == -1)
      return -1;
  }
  buf += c.whole_bytes;
  offset += c.whole_bytes;
  if (write_part (e, all, buf, c.tail_bytes, offset, flags, &used_store) == -1)
    return -1;
  return finish (e, flags, used_store);
}

/* Zero and trim. */

typedef int clear_fn (struct dev *dev, uint64_t count, uint64_t offset,
                      unsigned flags);

/* Zero by writing.  failed: with this medium error the device could not do it,
 * which was the first touch.  Then what is not longer than one write is taken
 * apart at once.
 */
static int
write_zeroes (struct engine *e, lba_t lba, uint64_t nr_sectors, unsigned flags,
              int failed, bool *ret_used_store)
{
  uint64_t max = MAX (ZEROES_BYTES >> e->sector_shift, 1u);
  bool is_small = nr_sectors <= max - lba.n % max;
  bool at_once = failed && (is_small || e->options.retries < 2);
  uint8_t *zeroes = calloc (1, MAX (ZEROES_BYTES, e->sector_bytes));
  int r = 0;

  if (zeroes == NULL)
    return set_error (ENOMEM, "no memory to write zeroes");
  while (r == 0 && nr_sectors > 0) {
    /* Up to a multiple, so that no physical sector is cut in two. */
    uint64_t n = MIN (nr_sectors, max - lba.n % max);

    errno = is_small ? failed : 0;      /* it was no error of this piece */
    if (at_once)
      r = repair_write (e, lba, n, zeroes, flags, 1, ret_used_store);
    else
      r = engine_write_sectors (e, lba, n, zeroes, flags, failed ? 1 : 0,
                                ret_used_store);
    lba.n += n;
    nr_sectors -= n;
  }
  free (zeroes);
  return r;
}

/* Clear clean sectors, natively; 1: not all are clean. */
static int
clear_clean (struct engine *e, lba_t lba, uint64_t nr_sectors, clear_fn *clear,
             unsigned flags)
{
  struct range_slot *slot = ranges_enter (e->ranges, lba, nr_sectors);
  int r = 1, err;

  if (map_is_clean (e->map, lba, nr_sectors)) {
    engine_overtake_reads (e, lba, nr_sectors);
    r = clear (e->backing, sectors_to_bytes (e, lba, nr_sectors),
               lba_to_bytes (e, lba), flags);
  }
  err = errno;
  ranges_leave (e->ranges, slot);
  errno = err;
  return r;
}

/* A clean run.  What the device cannot do natively, zero does by writing, and
 * trim not at all; a medium error is met by writing in both cases.
 */
static int
clear_run (struct engine *e, lba_t lba, uint64_t nr_sectors, clear_fn *clear,
           unsigned flags, bool *ret_used_store)
{
  bool is_trim = clear == e->backing->ops->trim;
  int r = clear_clean (e, lba, nr_sectors, clear, flags), failed = 0;

  if (r != -1)
    return r;
  if (errno == EOPNOTSUPP) {
    if (is_trim)
      return 0;
    if (flags & DEV_FAST)
      return -1;
  }
  else {
    failed = errno;
    if (!engine_is_medium_error (e, EVENT_WRITE_ERROR, lba, nr_sectors))
      return -1;
  }
  return write_zeroes (e, lba, nr_sectors, 0, failed, ret_used_store);
}

static int
clear_sectors (struct engine *e, struct span s, clear_fn *clear,
               unsigned flags, bool *ret_used_store)
{
  while (s.nr_sectors > 0) {
    struct sector_run run;
    int r;

    map_next (e->map, s.lba, s.nr_sectors, &run);
    if (run.state == SECTOR_CLEAN) {
      r = clear_run (e, s.lba, run.nr_sectors, clear, flags, ret_used_store);
    }
    else {
      run.nr_sectors = MIN (run.nr_sectors, (uint64_t) STORE_RECORD_MAX);
      *ret_used_store = true;
      r = repair_zero (e, s.lba, (uint32_t) run.nr_sectors);
    }
    if (r == 1)
      continue;                 /* it has changed meanwhile: look again */
    if (r == -1)
      return -1;
    s.lba.n += run.nr_sectors;
    s.nr_sectors -= run.nr_sectors;
  }
  return 0;
}

int
engine_zero (struct engine *e, uint64_t count, uint64_t offset, unsigned flags)
{
  bool used_store = false;
  struct span all;
  struct cut c;

  if (check_writable (e, count, offset) == -1)
    return -1;
  if (count == 0)
    return 0;
  all = span_of (e, count, offset);
  c = cut_request (e, count, offset);
  if (c.whole_bytes > 0 &&
      clear_sectors (e, span_of (e, c.whole_bytes, offset + c.head_bytes),
                     e->backing->ops->zero, flags & ~DEV_FUA, &used_store) == -1)
    return -1;
  if (write_part (e, all, NULL, c.head_bytes, offset, 0,
                  &used_store) == -1 ||
      write_part (e, all, NULL, c.tail_bytes, offset + c.head_bytes + c.whole_bytes,
                  0, &used_store) == -1)
    return -1;
  return finish_clear (e, flags, used_store);
}

/* Parts of sectors stay as they are: nobody is promised that they go. */
int
engine_trim (struct engine *e, uint64_t count, uint64_t offset, unsigned flags)
{
  bool used_store = false;
  struct cut c;

  if (check_writable (e, count, offset) == -1)
    return -1;
  c = count > 0 ? cut_request (e, count, offset) : (struct cut) { 0, 0, 0 };
  if (c.whole_bytes > 0 &&
      clear_sectors (e, span_of (e, c.whole_bytes, offset + c.head_bytes),
                     e->backing->ops->trim, 0, &used_store) == -1)
    return -1;
  return finish_clear (e, flags, used_store);
}

/* Flush, cache, block status. */

/* Both are tried, whatever becomes of the first. */
int
engine_flush (struct engine *e)
{
  int r = store_flush (e->store);

  return flush_backing (e) == -1 ? -1 : r;
}

int
engine_cache (struct engine *e, uint64_t count, uint64_t offset)
{
  if (check_bounds (e, count, offset) == -1)
    return -1;
  if (count == 0 || !e->backing->info.can_cache)
    return 0;
  return dev_cache (e->backing, count, offset);
}

static int
run_extents (struct engine *e, const struct sector_run *run, uint64_t count,
             uint64_t offset, dev_extents_fn *fn, void *opaque)
{
  if (run->state == SECTOR_CLEAN && e->backing->info.can_extents)
    return dev_extents (e->backing, count, offset, fn, opaque);
  return fn (opaque, offset, count,
             run->state == SECTOR_ZEROED ? DEV_EXTENT_ZERO : 0);
}

int
engine_extents (struct engine *e, uint64_t count, uint64_t offset,
                dev_extents_fn *fn, void *opaque)
{
  if (check_bounds (e, count, offset) == -1)
    return -1;
  while (count > 0) {
    struct span s = span_of (e, count, offset);
    struct sector_run run;
    uint64_t n;

    map_next (e->map, s.lba, s.nr_sectors, &run);
    n = MIN (count, lba_to_bytes (e, run.lba)
             + (run.nr_sectors << e->sector_shift) - offset);
    if (run_extents (e, &run, n, offset, fn, opaque) != 0)
      return -1;
    count -= n;
    offset += n;
  }
  return 0;
}

/* Status. */

void
engine_get_status (struct engine *e, struct status *ret)
{
  const struct dev_info *info = &e->backing->info;

  store_get_status (e->store, ret);
  memcpy (ret->backing, info->name, sizeof ret->backing);
  ret->size_bytes = e->size_bytes;
  ret->sector_bytes = e->sector_bytes;
  ret->physical_bytes = e->unit_sectors << e->sector_shift;
  ret->nr_remapped = map_count (e->map, SECTOR_REMAPPED);
  ret->nr_lost = map_count (e->map, SECTOR_LOST);
  ret->nr_zeroed = map_count (e->map, SECTOR_ZEROED);
  ret->readonly = info->readonly;
  ret->direct = info->direct;
  ret->flush_failed |= atomic_load (&e->flush_failed);
  ret->store_failed |= atomic_load (&e->failed);
  ret->breaker = evidence_state (e->evidence);
}

int
engine_next_run (struct engine *e, lba_t from, struct sector_run *ret)
{
  return map_next_mapped (e->map, from, ret);
}

void
engine_verify (struct engine *e)
{
  map_verify (e->map);
  store_verify (e->store, e->map);
}
