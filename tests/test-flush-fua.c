/* SPDX-License-Identifier: BSD-3-Clause */
/* Flush and FUA make all durable, on the backing and in the store: what is
 * below both of them logs the order of writes and flushes.  A flush that
 * failed is reported, and is not forgotten by flushing again.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"

enum { GOOD = 200, BAD = 1000 };

static uint64_t store_bytes;     /* the size of the store */

/* What of a medium's writes no flush has made durable. */
struct durable {
  unsigned nr_writes, nr_unsafe;
};

/* What the commit sectors say of a flush can only be written after it, and
 * becomes durable with the next one: until then a start proves by checksums
 * what the flush had made durable (remap-store(5)).
 */
static bool
is_commit_sector (const struct t_fault_request *r)
{
  return r->offset == 4096 || r->offset == store_bytes - 8192;
}

static void
follow (const struct t_fault_request *r, void *arg)
{
  struct durable *state = arg;

  if (r->failed || is_commit_sector (r))
    return;
  if (strchr ("wzt", r->op)) {
    state->nr_writes++;
    if (!r->fua)
      state->nr_unsafe++;
  }
  if (r->op == 'f')
    state->nr_unsafe = 0;
}

/* Since the mark there were writes (or not), and all are durable. */
static void
check_durable (struct t_disk *d, bool written, const char *what)
{
  struct durable state = { 0 };

  t_fault_visit (d->fault, follow, &state);
  if (written && state.nr_writes == 0)
    T_FAIL ("%s: nothing was written", what);
  if (state.nr_unsafe)
    T_FAIL ("%s: %u writes are not durable", what, state.nr_unsafe);
}

static void
mark (struct t_disk *d, struct t_disk *store)
{
  t_fault_mark (d->fault);
  t_fault_mark (store->fault);
}

static int
put_fua (struct nbd_handle *h, uint64_t lba, unsigned nr, uint32_t gen)
{
  char buf[16 * T_SECTOR];

  t_pattern_fill (buf, nr * T_SECTOR, lba * T_SECTOR, gen);
  return t_nbd_write_fua (h, buf, nr * T_SECTOR, lba * T_SECTOR);
}

static void
check_fua (struct nbd_handle *h, struct t_disk *d, struct t_disk *store)
{
  mark (d, store);
  T_OK (put_fua (h, GOOD, 8, 2));
  check_durable (d, true, "FUA, good sectors");
  for (uint32_t gen = 2; gen < 5; gen++) { /* first met, then remapped */
    mark (d, store);
    T_OK (put_fua (h, BAD, 1, gen));
    check_durable (store, true, "FUA, a bad sector");
    mark (d, store);
    T_OK (put_fua (h, BAD - 4, 8, gen));
    check_durable (d, true, "FUA, good sectors beside a bad one");
    check_durable (store, true, "FUA, a bad sector among good ones");
  }
  mark (d, store);
  T_ASSERT (nbd_zero (h, T_SECTOR, BAD * T_SECTOR, LIBNBD_CMD_FLAG_FUA) == 0);
  check_durable (store, true, "FUA, zeroing a remapped sector");
}

static void
check_flush (struct nbd_handle *h, struct t_disk *d, struct t_disk *store)
{
  mark (d, store);
  T_OK (t_nbd_put (h, BAD - 16, 64, 6));
  T_OK (t_nbd_put (h, GOOD, 8, 6));
  T_OK (t_nbd_flush (h));
  check_durable (d, true, "flush, backing");
  check_durable (store, true, "flush, store");
}

/* A flush of this medium fails once; the data may be gone from then on. */
static void
check_failed_flush (struct t_server *s, struct t_disk *d, uint64_t lba)
{
  struct nbd_handle *h = t_nbd_connect (s);
  const char *faults = t_read_file (d->fault->faults);

  t_fault_set (d->fault, "%sflush errno=EIO times=1\n", faults);
  T_OK (t_nbd_put (h, lba, 8, 7));
  T_ERRNO (t_nbd_flush (h), EIO);
  T_ERRNO (t_nbd_flush (h), EIO);
  /* FUA speaks of its own write alone: on the backing it may well be durable;
   * in the store its record stands among those that may not be.
   */
  if (lba == BAD)
    T_ASSERT (put_fua (h, lba, 1, 8) != 0);
  T_OK (t_nbd_touch (h, lba, 8));
  t_nbd_close (h);
  t_fault_set (d->fault, "%s", faults);
}

static struct t_server *
start (struct t_disk *d, struct t_disk *store)
{
  return t_server_start ("backing=%s spare=%s", d->path, store->path);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d\n", BAD),
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_disk *store = t_store_on_failing_disk (d, "");
  struct t_server *s = start (d, store);
  struct nbd_handle *h = t_nbd_connect (s);

  store_bytes = store->size;
  check_fua (h, d, store);
  check_flush (h, d, store);
  t_nbd_close (h);
  check_failed_flush (s, d, GOOD);
  t_server_kill (s);
  t_server_restart (s);
  check_failed_flush (s, store, BAD);
  t_server_kill (s);
  t_server_restart (s);         /* and then all is well */
  h = t_nbd_connect (s);
  check_flush (h, d, store);
  t_nbd_expect (h, BAD - 16, 64, 6);
  t_nbd_close (h);
  t_server_stop (s);
  t_disk_free (store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-flush-fua", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
