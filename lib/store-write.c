/* SPDX-License-Identifier: BSD-3-Clause */
/* store-write: write what a store has of metadata: entries, superblocks and
 * commit sectors, each in two copies.
 *
 * Invariants: S4 (store.h): a copy that could not be written joins the stale
 *             blocks, and its other copy has been written.
 * Locking:    the commit mutex, for all of it, but while the store is opened.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checked.h"
#include "error.h"
#include "store-internal.h"

/* A block that cannot be read cannot be changed in part, by the page cache as
 * little as by the disk; written as a whole it may well be good again.  `from` is
 * the other copy, which has all that counts; where that cannot be had, or `to`
 * not be written, `to` is stale from now on.
 */
int
store_mend_block (struct store *s, uint64_t from, uint64_t to)
{
  void *block;
  int r, err;

  from = round_down (from, STORE_BLOCK);
  to = round_down (to, STORE_BLOCK);
  if (store_has_bad_block (s, to, STORE_BLOCK))
    return 0;
  if (store_has_bad_block (s, from, STORE_BLOCK))
    return set_error (EIO, "store %s: neither of its blocks at %llu and %llu "
                      "can be written", s->path, (unsigned long long) from,
                      (unsigned long long) to);
  if (posix_memalign (&block, STORE_BLOCK, STORE_BLOCK) != 0)
    return set_error (ENOMEM, "no memory to mend store %s", s->path);
  r = dev_pread (s->dev, block, STORE_BLOCK, from, DEV_BUFFERED);
  if (r == 0)
    r = dev_pwrite (s->dev, block, STORE_BLOCK, to, 0);
  err = errno;
  free (block);
  errno = err;
  return r == -1 && dev_error_is_medium (err)
    ? store_note_bad_block (s, to, from) : r;
}

/* A stretch that is to be written to both copies, which lie alike in their
 * blocks.
 */
struct span {
  const uint8_t *buf;
  size_t nr_bytes;
  uint64_t offset[2];
  unsigned nr_blocks;
};
#define SPAN_BLOCKS_MAX (STORE_SPAN_MAX / STORE_BLOCK + 2)

/* The part of a span in its nth block. */
static size_t
part_of (const struct span *p, unsigned n, size_t *ret_begin)
{
  size_t skip = p->offset[0] % STORE_BLOCK;
  size_t begin = n == 0 ? 0 : n * STORE_BLOCK - skip;
  size_t end = MIN (p->nr_bytes, (n + 1) * STORE_BLOCK - skip);

  *ret_begin = begin;
  return end - begin;
}

/* Write a copy; which blocks could not be written?  -1: not the medium. */
static int
write_copy (struct store *s, const struct span *p, unsigned copy,
            bool ret_failed[SPAN_BLOCKS_MAX])
{
  uint64_t offset = p->offset[copy];

  memset (ret_failed, 0, SPAN_BLOCKS_MAX * sizeof *ret_failed);
  if (!store_has_bad_block (s, offset, p->nr_bytes)) {
    if (dev_pwrite (s->dev, p->buf, p->nr_bytes, offset, DEV_BUFFERED) == 0)
      return 0;
    if (!dev_error_is_medium (errno))
      return -1;
  }
  for (unsigned n = 0; n < p->nr_blocks; n++) {
    size_t begin, count = part_of (p, n, &begin);

    ret_failed[n] = store_has_bad_block (s, offset + begin, count) ||
      dev_pwrite (s->dev, p->buf + begin, count, offset + begin,
                  DEV_BUFFERED) == -1;
    if (ret_failed[n] && !store_has_bad_block (s, offset + begin, count) &&
        !dev_error_is_medium (errno))
      return -1;
  }
  return 0;
}

/* Write the same bytes to the places of both copies.  Where one of them is bad,
 * the other has to do: it is noted that the bad one is stale.
 */
static int
write_copies (struct store *s, const void *buf, size_t nr_bytes,
              const uint64_t offset[2])
{
  const uint64_t skip = offset[0] % STORE_BLOCK;
  const struct span p = {
    .buf = buf, .nr_bytes = nr_bytes, .offset = { offset[0], offset[1] },
    .nr_blocks = (unsigned) div_round_up (skip + nr_bytes, STORE_BLOCK),
  };
  bool failed[2][SPAN_BLOCKS_MAX];

  assert (p.nr_blocks <= SPAN_BLOCKS_MAX && offset[1] % STORE_BLOCK == skip);
  for (unsigned copy = 0; copy < 2; copy++)     /* S4 */
    if (write_copy (s, &p, copy, failed[copy]) == -1)
      return -1;
  for (unsigned n = 0; n < p.nr_blocks; n++) {
    uint64_t block[2] = {
      offset[0] - skip + n * STORE_BLOCK, offset[1] - skip + n * STORE_BLOCK,
    };
    unsigned bad = failed[0][n] ? 0 : 1;

    if (failed[0][n] && failed[1][n])
      return set_error (EIO, "store %s: neither copy of its table can be "
                        "written at %llu and %llu", s->path,
                        (unsigned long long) block[0],
                        (unsigned long long) block[1]);
    if (failed[bad][n] && store_mend_block (s, block[!bad], block[bad]) == -1)
      return -1;
  }
  return 0;
}

static int
write_entries_in_section (struct store *s, spare_t first, uint32_t nr,
                          const struct store_entry *e)
{
  uint64_t begin = store_entry_at (&s->super, first, 0), span_bytes;
  uint8_t buf[STORE_SPAN_MAX];

  assert (nr > 0 && nr <= STORE_RECORD_MAX);
  span_bytes = store_entry_at (&s->super, (spare_t) { first.n + nr - 1 }, 0)
    + ENTRY_BYTES - begin;
  memset (buf, 0, span_bytes);
  for (uint32_t i = 0; i < nr; i++) {
    spare_t slot = { first.n + i };

    store_entry_encode (&e[i], s->super.uuid, slot,
                        buf + (store_entry_at (&s->super, slot, 0) - begin));
  }
  store_note_unflushed (s, first, nr, e, true);
  return write_copies (s, buf, span_bytes, (const uint64_t []) {
                         begin, store_entry_at (&s->super, first, 1) });
}

int
store_write_entries (struct store *s, spare_t first, uint32_t nr,
                     const struct store_entry *e)
{
  while (nr > 0) {
    uint32_t n = store_in_section (&s->super, first,
                                   MIN (nr, (uint32_t) STORE_RECORD_MAX));

    if (write_entries_in_section (s, first, n, e) == -1)
      return -1;
    first.n += n;
    e += n;
    nr -= n;
  }
  return 0;
}

int
store_write_entry_copy (struct store *s, spare_t slot, unsigned copy,
                        const struct store_entry *e)
{
  uint8_t bytes[ENTRY_BYTES];

  store_entry_encode (e, s->super.uuid, slot, bytes);
  store_note_unflushed (s, slot, 1, e, false);
  return dev_pwrite (s->dev, bytes, sizeof bytes,
                     store_entry_at (&s->super, slot, copy), DEV_BUFFERED);
}

int
store_flush_dev (struct store *s)
{
  return dev_flush (s->dev) == 0 ? 0 : store_write_again (s);
}

/* Not through the page cache, so that a bad place shows at once. */
static int
write_super_copy (struct store *s, unsigned copy)
{
  uint64_t offset = store_super_at (&s->super, copy);
  uint8_t block[STORE_BLOCK];

  store_super_encode (&s->super, copy, block);
  if (dev_pwrite (s->dev, block, sizeof block, offset, 0) == -1)
    return -1;
  if (dev_flush (s->dev) == 0)
    return 0;
  /* That may have lost it; nobody else writes it again. */
  if (store_write_again (s) == -1 ||
      dev_pwrite (s->dev, block, sizeof block, offset, 0) == -1)
    return -1;
  return dev_flush (s->dev);
}

int
store_write_super (struct store *s, unsigned first_copy)
{
  const uint64_t at[2] = {
    store_super_at (&s->super, 0), store_super_at (&s->super, 1),
  };
  int r[2];

  s->super.generation++;
  r[first_copy] = write_super_copy (s, first_copy);
  if (r[first_copy] == -1 && !dev_error_is_medium (errno))
    return -1;
  r[!first_copy] = write_super_copy (s, !first_copy);
  if (r[!first_copy] == -1 &&
      (r[first_copy] == -1 || !dev_error_is_medium (errno)))
    return -1;
  /* One of them has done it all. */
  for (unsigned copy = 0; copy < 2; copy++)
    if (r[copy] == 0)
      store_forget_bad_block (s, at[copy]);
  for (unsigned copy = 0; copy < 2; copy++)
    if (r[copy] == -1 &&
        (store_note_bad_block (s, at[copy], at[!copy]) == -1 ||
         store_write_commit (s) == -1 || store_flush_dev (s) == -1))
      return -1;
  return 0;
}

int
store_write_commit (struct store *s)
{
  uint8_t sector[COMMIT_BYTES];

  s->commit_record.time_s = (uint64_t) time (NULL);
  s->commit_record.count++;
  store_commit_encode (&s->commit_record, sector);
  return write_copies (s, sector, sizeof sector, (const uint64_t []) {
                         store_commit_at (&s->super, 0),
                         store_commit_at (&s->super, 1) });
}

int
store_make_ready (struct store *s, uint64_t nr_ready)
{
  const uint64_t before = s->super.nr_ready;
  struct store_entry e[STORE_RECORD_MAX];

  for (size_t i = 0; i < STORE_RECORD_MAX; i++)
    e[i] = (struct store_entry) { .state = ENTRY_FREE };
  for (uint64_t slot = before; slot < nr_ready; slot += STORE_RECORD_MAX)
    if (store_write_entries (s, (spare_t) { (uint32_t) slot },
                             (uint32_t) MIN (nr_ready - slot,
                                             (uint64_t) STORE_RECORD_MAX),
                             e) == -1)
      return -1;
  /* A slot counts as ready only when its entry is durable: so an entry that
   * is not there is damage, and not one that was never written.
   */
  if (store_flush_dev (s) == -1)
    return -1;
  store_flushed_until (s, store_unflushed_end (s));
  s->super.nr_ready = nr_ready;
  if (store_write_super (s, 1) == 0)
    return 0;
  s->super.nr_ready = before;
  return -1;
}
