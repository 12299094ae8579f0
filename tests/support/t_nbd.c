/* SPDX-License-Identifier: BSD-3-Clause */
/* t_nbd: a client of the server under test, in a few words. */

#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "t_image.h"
#include "t_nbd.h"

struct nbd_handle *
t_nbd_connect (const struct t_server *s)
{
  struct nbd_handle *h = nbd_create ();

  if (h == NULL || nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION)
      == -1 || nbd_connect_unix (h, s->socket) == -1)
    T_FAIL ("%s", nbd_get_error ());
  return h;
}

void
t_nbd_close (struct nbd_handle *h)
{
  if (nbd_aio_is_ready (h) == 1)
    nbd_shutdown (h, 0);
  nbd_close (h);
}

/* The errno of the last call, where it failed.  A connection that was lost
 * has none.
 */
static int
result (int r)
{
  if (r != -1)
    return 0;
  return nbd_get_errno () ? nbd_get_errno () : ENOTCONN;
}

int
t_nbd_read (struct nbd_handle *h, void *buf, size_t count, uint64_t offset)
{
  return result (nbd_pread (h, buf, count, offset, 0));
}

int
t_nbd_write (struct nbd_handle *h, const void *buf, size_t count,
             uint64_t offset)
{
  return result (nbd_pwrite (h, buf, count, offset, 0));
}

int
t_nbd_write_fua (struct nbd_handle *h, const void *buf, size_t count,
                 uint64_t offset)
{
  return result (nbd_pwrite (h, buf, count, offset, LIBNBD_CMD_FLAG_FUA));
}

int
t_nbd_zero (struct nbd_handle *h, uint64_t count, uint64_t offset)
{
  return result (nbd_zero (h, count, offset, 0));
}

int
t_nbd_trim (struct nbd_handle *h, uint64_t count, uint64_t offset)
{
  return result (nbd_trim (h, count, offset, 0));
}

int
t_nbd_flush (struct nbd_handle *h)
{
  return result (nbd_flush (h, 0));
}

static void *
alloc_or_fail (size_t count)
{
  void *r = malloc (count + 1);

  if (r == NULL)
    T_FAIL ("out of memory");
  return r;
}

int
t_nbd_put (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors,
           uint32_t gen)
{
  const size_t count = nr_sectors * T_SECTOR;
  char *buf = alloc_or_fail (count);
  int r;

  t_pattern_fill (buf, count, lba * T_SECTOR, gen);
  r = t_nbd_write (h, buf, count, lba * T_SECTOR);
  free (buf);
  return r;
}

int
t_nbd_touch (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors)
{
  char *buf = alloc_or_fail (nr_sectors * T_SECTOR);
  int r = t_nbd_read (h, buf, nr_sectors * T_SECTOR, lba * T_SECTOR);

  free (buf);
  return r;
}

void
t_nbd_expect (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors,
              uint32_t gen)
{
  const size_t count = nr_sectors * T_SECTOR;
  char *buf = alloc_or_fail (count);
  int err = t_nbd_read (h, buf, count, lba * T_SECTOR);

  if (err)
    T_FAIL ("cannot read %llu sectors at %llu: %s",
            (unsigned long long) nr_sectors, (unsigned long long) lba,
            strerrorname_np (err));
  t_pattern_check (buf, count, lba * T_SECTOR, gen, "read through nbd");
  free (buf);
}

/* The first extent of an answer. */
struct extent {
  uint64_t length;
  uint32_t flags;
};

static int
take_first_extent (void *user_data, const char *context, uint64_t offset,
                   uint32_t *entries, size_t nr_entries, int *error)
{
  struct extent *e = user_data;

  (void) offset;
  (void) error;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
      nr_entries >= 2 && e->length == 0)
    *e = (struct extent) { .length = entries[0], .flags = entries[1] };
  return 0;
}

static struct extent
extent_at (struct nbd_handle *h, uint64_t offset)
{
  const uint64_t size = nbd_get_size (h);
  const uint64_t most = 32 << 20;
  struct extent e = { 0 };
  nbd_extent_callback cb = { .callback = take_first_extent, .user_data = &e };
  uint64_t count = size - offset < most ? size - offset : most;

  if (nbd_block_status (h, count, offset, cb, 0) == -1)
    T_FAIL ("block status at %llu: %s", (unsigned long long) offset,
            nbd_get_error ());
  if (e.length == 0)
    T_FAIL ("block status at %llu: no progress", (unsigned long long) offset);
  return e;
}

uint32_t
t_nbd_status_of (struct nbd_handle *h, uint64_t offset)
{
  return extent_at (h, offset).flags;
}

static void
expect_zeroes (struct nbd_handle *h, uint64_t offset, uint64_t count)
{
  static const size_t step = 1 << 20;
  char *buf = alloc_or_fail (step);

  while (count > 0) {
    size_t n = count < step ? count : step;

    T_OK (t_nbd_read (h, buf, n, offset));
    t_pattern_check (buf, n, offset, 0, "called zero by block status");
    offset += n;
    count -= n;
  }
  free (buf);
}

uint64_t
t_nbd_check_zero_extents (struct nbd_handle *h)
{
  const uint64_t size = nbd_get_size (h);
  uint64_t offset = 0, zero_bytes = 0;

  while (offset < size) {
    struct extent e = extent_at (h, offset);

    if (e.length > size - offset)
      e.length = size - offset;
    if (e.flags & LIBNBD_STATE_ZERO) {
      expect_zeroes (h, offset, e.length);
      zero_bytes += e.length;
    }
    offset += e.length;
  }
  return zero_bytes;
}
