/* SPDX-License-Identifier: BSD-3-Clause */
/* store-rewrite: write again what a failed flush may have lost.
 *
 * Purpose:    entries go through the page cache, so a bad place below them shows
 *             at a flush, and the kernel tells of it once and then takes what
 *             it could not write for written.  So the store remembers what it
 *             has written since the last good flush, and after a failed one
 *             writes all of that again: entries in whole blocks, straight to
 *             the medium, with the data that they speak of.  Of two copies one
 *             has to succeed; a block that cannot be written is not tried
 *             again.
 * Invariants: a flush that has failed is forgotten only when all that it
 *             covered has been written again, and flushed (S5).
 * Locking:    the commit mutex, for all of it.  (Not while the store is opened,
 *             when there is one thread.)
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "crc32c.h"
#include "error.h"
#include "log.h"
#include "store-internal.h"

/* More than this is not remembered (3 MiB): a flush that fails then stays
 * failed.
 */
#define UNFLUSHED_MAX 65536

#define ENTRIES_PER_BLOCK (STORE_BLOCK / TABLE_SECTOR_BYTES * ENTRIES_PER_SECTOR)
#define ATTEMPTS 3

/* What was written since the last good flush. */

static bool
make_room_for (struct unflushed *u, size_t nr)
{
  size_t max = u->max ? u->max : 256;
  struct unflushed_entry *bigger;

  if (u->nr + nr > UNFLUSHED_MAX)
    return false;
  while (max < u->nr + nr)
    max *= 2;
  if (max == u->max)
    return true;
  bigger = realloc (u->entries, max * sizeof *bigger);
  if (bigger == NULL)
    return false;
  u->entries = bigger;
  u->max = max;
  return true;
}

void
store_note_unflushed (struct store *s, spare_t first, uint32_t nr,
                      const struct store_entry *e, bool is_new)
{
  struct unflushed *u = &s->unflushed;

  if (!make_room_for (u, nr)) {
    u->first += u->nr + nr;     /* a gap */
    u->nr = 0;
    return;
  }
  for (uint32_t i = 0; i < nr; i++)
    u->entries[u->nr++] = (struct unflushed_entry) {
      .slot = { first.n + i }, .is_new = is_new, .entry = e[i],
    };
}

uint64_t
store_unflushed_end (const struct store *s)
{
  return s->unflushed.first + s->unflushed.nr;
}

void
store_flushed_until (struct store *s, uint64_t end)
{
  struct unflushed *u = &s->unflushed;
  size_t nr;

  u->nr_durable = MAX (u->nr_durable, end);
  if (end <= u->first)
    return;
  nr = (size_t) (end - u->first);
  assert (nr <= u->nr);
  u->nr -= nr;
  u->first = end;
  memmove (u->entries, u->entries + nr, u->nr * sizeof u->entries[0]);
}

/* Blocks that cannot be written. */

static bool
is_bad_block (const struct store *s, uint64_t offset)
{
  for (size_t i = 0; i < s->bad_blocks.nr; i++)
    if (s->bad_blocks.offsets[i] == offset)
      return true;
  return false;
}

bool
store_has_bad_block (const struct store *s, uint64_t offset, uint64_t nr_bytes)
{
  uint64_t end = offset + nr_bytes;

  if (s->bad_blocks.nr == 0)
    return false;
  for (offset = round_down (offset, STORE_BLOCK); offset < end;
       offset += STORE_BLOCK)
    if (is_bad_block (s, offset))
      return true;
  return false;
}

int
store_note_bad_block (struct store *s, uint64_t offset, uint64_t other)
{
  struct store_commit *c = &s->commit_record;
  struct bad_blocks *b = &s->bad_blocks;
  /* The other one is on the list while a start repairs it: it has all that
   * counts, but not yet durably.  store_renew_stale comes when it has.
   */
  bool is_listed = store_commit_has_stale (c, offset) ||
    store_commit_has_stale (c, other);

  offset = round_down (offset, STORE_BLOCK);
  if (is_bad_block (s, offset))
    return 0;
  assert (!is_bad_block (s, round_down (other, STORE_BLOCK)));
  if (b->nr == STORE_STALE_MAX || offset / STORE_BLOCK > UINT32_MAX ||
      (!is_listed && c->nr_stale == STORE_STALE_MAX))
    return set_error (EOVERFLOW, "store %s: too many blocks of its table cannot be "
                      "written", s->path);
  b->offsets[b->nr++] = offset;
  if (!is_listed)
    c->stale[c->nr_stale++] = (uint32_t) (offset / STORE_BLOCK);
  atomic_store (&s->has_new_stale, true);
  log_message (LEVEL_WARNING, "store %s: its block at %llu cannot be written: "
               "what stands there has one copy from now on; move the store to a "
               "better place", s->path, (unsigned long long) offset);
  return 0;
}

void
store_forget_bad_block (struct store *s, uint64_t offset)
{
  struct store_commit *c = &s->commit_record;
  struct bad_blocks *b = &s->bad_blocks;

  for (unsigned i = 0; i < b->nr; i++)
    if (b->offsets[i] == offset)
      b->offsets[i--] = b->offsets[--b->nr];
  for (unsigned i = 0; i < c->nr_stale; i++)
    if (c->stale[i] == offset / STORE_BLOCK)
      c->stale[i--] = c->stale[--c->nr_stale];
}

void
store_renew_stale (struct store *s)
{
  s->commit_record.nr_stale = s->bad_blocks.nr;
  for (unsigned i = 0; i < s->bad_blocks.nr; i++)
    s->commit_record.stale[i] =
      (uint32_t) (s->bad_blocks.offsets[i] / STORE_BLOCK);
}

/* Write a block to the places of its two copies; one will do. */
static int
write_block_copies (struct store *s, const void *block, const uint64_t at[2])
{
  bool is_written[2] = { false, false };

  for (unsigned copy = 0; copy < 2; copy++) {
    if (is_bad_block (s, at[copy]))
      continue;
    is_written[copy] = dev_pwrite (s->dev, block, STORE_BLOCK, at[copy],
                                   0) == 0;
    if (!is_written[copy] && !dev_error_is_medium (errno))
      return -1;
  }
  if (!is_written[0] && !is_written[1])
    return set_error (EIO, "store %s: neither the block at %llu nor the one at "
                      "%llu can be written", s->path,
                      (unsigned long long) at[0], (unsigned long long) at[1]);
  for (unsigned copy = 0; copy < 2; copy++)
    if (!is_written[copy] &&
        store_note_bad_block (s, at[copy], at[!copy]) == -1)
      return -1;
  return 0;
}

/* Tables. */

/* A block of a table: its slots, where its copies are, and what they hold. */
struct table_block {
  uint64_t first_slot;
  unsigned nr_slots;
  uint64_t at[2];
  bool is_read[2][STORE_BLOCK / TABLE_SECTOR_BYTES];    /* its sectors */
  uint8_t *bytes[2];            /* STORE_BLOCK each */
};

/* What is stale is as good as unreadable. */
static void
read_copy (struct store *s, struct table_block *b, unsigned copy)
{
  bool is_stale = is_bad_block (s, b->at[copy]) ||
    store_commit_has_stale (&s->commit_record, b->at[copy]);
  bool is_read = !is_stale && dev_pread (s->dev, b->bytes[copy], STORE_BLOCK,
                                         b->at[copy], 0) == 0;

  for (unsigned i = 0; i < STORE_BLOCK / TABLE_SECTOR_BYTES; i++) {
    uint8_t *sector = b->bytes[copy] + i * TABLE_SECTOR_BYTES;

    b->is_read[copy][i] = is_read ||
      (!is_stale && dev_pread (s->dev, sector, TABLE_SECTOR_BYTES,
                               b->at[copy] + i * TABLE_SECTOR_BYTES, 0) == 0);
    if (!b->is_read[copy][i])
      memset (sector, 0, TABLE_SECTOR_BYTES);
  }
}

static void
read_block (struct store *s, spare_t slot, struct table_block *b)
{
  const struct store_section *section = store_section_of (&s->super, slot);
  uint64_t number = (slot.n - section->first_slot) / ENTRIES_PER_BLOCK;
  uint64_t skip = number * ENTRIES_PER_BLOCK;

  b->first_slot = section->first_slot + skip;
  b->nr_slots = (unsigned) MIN (section->nr_slots - skip,
                                (uint64_t) ENTRIES_PER_BLOCK);
  b->at[0] = section->table_a + number * STORE_BLOCK;
  b->at[1] = section->table_b + number * STORE_BLOCK;
  for (unsigned copy = 0; copy < 2; copy++)
    read_copy (s, b, copy);
}

/* The better of the two copies of an entry, -1: there is none. */
static int
better_copy (const struct store *s, const struct table_block *b, unsigned i)
{
  spare_t slot = { (uint32_t) (b->first_slot + i) };
  struct store_entry e[2];
  int best = -1;

  for (int copy = 0; copy < 2; copy++)
    if (b->is_read[copy][i / ENTRIES_PER_SECTOR] &&
        store_entry_decode (b->bytes[copy] + store_entry_offset (i),
                            s->super.uuid, slot, &e[copy]) == NULL &&
        (best == -1 || e[copy].seq > e[best].seq))
      best = copy;
  return best;
}

/* Put together what the block shall hold, in bytes[0]: the better copies, and
 * on top what was written lately, of which the last counts.
 */
static int
compose_block (struct store *s, struct table_block *b,
               const struct unflushed_entry *const *lately, size_t nr)
{
  bool is_new[ENTRIES_PER_BLOCK] = { false };

  for (size_t i = 0; i < nr; i++)
    is_new[lately[i]->slot.n - b->first_slot] = true;
  for (unsigned i = 0; i < b->nr_slots; i++) {
    int best = better_copy (s, b, i);

    if (best == -1 && !is_new[i] && b->first_slot + i < s->super.nr_ready)
      return set_error (EIO, "store %s: both copies of the entry of slot %llu "
                        "are damaged", s->path,
                        (unsigned long long) (b->first_slot + i));
    if (best == 1)
      memcpy (b->bytes[0] + store_entry_offset (i),
              b->bytes[1] + store_entry_offset (i), ENTRY_BYTES);
  }
  for (size_t i = 0; i < nr; i++)
    store_entry_encode (&lately[i]->entry, s->super.uuid, lately[i]->slot,
                        b->bytes[0] + store_entry_offset
                        (lately[i]->slot.n - b->first_slot));
  return 0;
}

/* By slot, what was written later behind what was written earlier. */
static int
compare_entries (const void *va, const void *vb)
{
  const struct unflushed_entry *const *a = va, *const *b = vb;

  if ((*a)->slot.n != (*b)->slot.n)
    return (*a)->slot.n < (*b)->slot.n ? -1 : 1;
  return *a < *b ? -1 : *a > *b;
}

static int
write_tables (struct store *s, const struct unflushed_entry **sorted, size_t nr,
              uint8_t *blocks)
{
  struct table_block b = { .bytes = { blocks, blocks + STORE_BLOCK } };
  size_t i, n;

  for (i = 0; i < nr; i += n) {
    read_block (s, sorted[i]->slot, &b);
    for (n = 1; i + n < nr &&
           sorted[i + n]->slot.n < b.first_slot + b.nr_slots; n++)
      ;
    if (compose_block (s, &b, sorted + i, n) == -1 ||
        write_block_copies (s, b.bytes[0], b.at) == -1)
      return -1;
  }
  return 0;
}

static int
write_commit (struct store *s, uint8_t *block)
{
  memset (block, 0, STORE_BLOCK);
  s->commit_record.count++;
  store_commit_encode (&s->commit_record, block);
  return write_block_copies (s, block, (const uint64_t []) {
                               store_commit_at (&s->super, 0),
                               store_commit_at (&s->super, 1) });
}

/* Data: a slot still holds what its entry says, but perhaps not for long. */

#define DATA_BYTES (1u << 20)

/* Has a later record taken the sector elsewhere? */
static bool
is_superseded (const struct store *s, const struct store_entry *e)
{
  for (size_t i = 0; i < s->unflushed.nr; i++) {
    const struct store_entry *other = &s->unflushed.entries[i].entry;

    if (other->lba.n == e->lba.n && other->seq > e->seq &&
        other->state >= ENTRY_REMAPPED && other->state <= ENTRY_ZEROED)
      return true;
  }
  return false;
}

static int
check_slots (struct store *s, const struct unflushed_entry *const *u, size_t nr,
             const uint8_t *data)
{
  uint32_t n = s->super.sector_bytes;

  for (size_t i = 0; i < nr; i++)
    if (crc32c (0, data + i * n, n) != u[i]->entry.data_crc &&
        !is_superseded (s, &u[i]->entry))
      return set_error (EIO, "store %s: slot %u has lost the data of sector "
                        "%llu", s->path, u[i]->slot.n,
                        (unsigned long long) u[i]->entry.lba.n);
  return 0;
}

/* Neighbouring slots.  What cannot be read, or has rotted, may be given up where
 * it no longer counts; else it must be there.
 */
static int
write_slots (struct store *s, const struct unflushed_entry *const *u, size_t nr,
             uint8_t *data)
{
  size_t nr_bytes = nr * s->super.sector_bytes;
  uint64_t at = store_data_at (&s->super, u[0]->slot);
  int r;

  if (dev_pread (s->dev, data, nr_bytes, at, 0) == 0)
    return check_slots (s, u, nr, data) == -1 ? -1
      : dev_pwrite (s->dev, data, nr_bytes, at, 0);
  if (!dev_error_is_medium (errno))
    return -1;
  if (nr == 1)
    return is_superseded (s, &u[0]->entry) ? 0 : -1;
  r = write_slots (s, u, nr / 2, data);
  return r == -1 ? -1 : write_slots (s, u + nr / 2, nr - nr / 2, data);
}

/* sorted: by slot, the last one of each counts. */
static int
write_data (struct store *s, const struct unflushed_entry **sorted, size_t nr,
            uint8_t *data)
{
  const size_t most = DATA_BYTES / s->super.sector_bytes;
  size_t nr_last = 0, n;

  for (size_t i = 0; i < nr; i++)
    if ((i + 1 == nr || sorted[i + 1]->slot.n != sorted[i]->slot.n) &&
        sorted[i]->is_new && sorted[i]->entry.state == ENTRY_REMAPPED)
      sorted[nr_last++] = sorted[i];
  for (size_t i = 0; i < nr_last; i += n) {
    size_t end = i + store_in_section (&s->super, sorted[i]->slot,
                                       (uint32_t) MIN (most, nr_last - i));

    for (n = 1; i + n < end &&
           sorted[i + n]->slot.n == sorted[i]->slot.n + n; n++)
      ;
    if (write_slots (s, sorted + i, n, data) == -1)
      return -1;
  }
  return 0;
}

static int
write_all (struct store *s)
{
  const struct unflushed *u = &s->unflushed;
  CLEANUP_FREE const struct unflushed_entry **sorted =
    calloc (u->nr + 1, sizeof *sorted);
  CLEANUP_FREE void *buf = NULL;

  if (sorted == NULL || posix_memalign (&buf, STORE_BLOCK, DATA_BYTES) != 0)
    return set_error (ENOMEM, "no memory to write store %s again", s->path);
  for (size_t i = 0; i < u->nr; i++)
    sorted[i] = &u->entries[i];
  qsort (sorted, u->nr, sizeof *sorted, compare_entries);
  if (write_tables (s, sorted, u->nr, buf) == -1 ||
      write_data (s, sorted, u->nr, buf) == -1)         /* cuts sorted down */
    return -1;
  return write_commit (s, buf);
}

/* What is in slots in hand, whose record is not made, may be lost as well. */
static void
note_suspects (struct store *s)
{
  LOCK_FOR_SCOPE (&s->map_lock);
  if (s->nr_in_hand > 0)
    atomic_store (&s->has_suspects, true);
}

/* The kernel may tell of the places that failed once more, so all is done up to
 * three times.
 */
int
store_write_again (struct store *s)
{
  const int err = errno;
  int r = -1;

  if (dev_flush_may_succeed (s->dev, err))
    return -1;                  /* nothing is lost */
  if (s->unflushed.first > s->unflushed.nr_durable)
    return -1;                  /* too much to remember */
  note_suspects (s);
  for (unsigned i = 0; r == -1 && i < ATTEMPTS; i++) {
    if (write_all (s) == -1)
      return -1;
    r = dev_flush_again (s->dev);
    if (r == -1)
      note_suspects (s);
  }
  if (r == -1)
    return -1;
  log_message (LEVEL_WARNING, "store %s: a flush failed (%s); all that it may "
               "have lost was written again", s->path, errno_text (err));
  store_flushed_until (s, store_unflushed_end (s));
  return 0;
}
