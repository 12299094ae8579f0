/* SPDX-License-Identifier: BSD-3-Clause */
/* Flush and FUA make all durable, on the backing and in the store: after a
 * power cut that loses all that both disks had not flushed, it is there.  A
 * flush that failed is reported, and is not forgotten by flushing again.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"

enum { GOOD = 200, BAD = 1000 };

/* The disks of the test; all that is written stands here, too. */
static struct t_disk *disk, *store;
static uint32_t gen;

static int
put_fua (struct nbd_handle *h, uint64_t lba, unsigned nr, uint32_t g)
{
  char buf[16 * T_SECTOR];

  t_pattern_fill (buf, nr * T_SECTOR, lba * T_SECTOR, g);
  return t_nbd_write_fua (h, buf, nr * T_SECTOR, lba * T_SECTOR);
}

static void
restart_after_power_cut (struct t_server *s, struct nbd_handle *h)
{
  struct t_disk *const both[] = { disk, store };

  t_disk_cut_power (s, both, 2, 0);
  t_nbd_close (h);
  t_server_restart_with (s, "backing=%s spare=%s", disk->path, store->path);
}

/* Written with FUA, then the power is cut: it must be there. */
static void
check_fua (struct t_server *s, uint64_t lba, unsigned nr, const char *what)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("%s, FUA, %s", t_disk_kind_name (disk->kind), what);
  T_OK (put_fua (h, lba, nr, ++gen));
  restart_after_power_cut (s, h);
  h = t_nbd_connect (s);
  t_nbd_expect (h, lba, nr, gen);
  t_nbd_close (h);
}

static void
check_fua_zero (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("%s, FUA, zeroing", t_disk_kind_name (disk->kind));
  T_ASSERT (nbd_zero (h, 8 * T_SECTOR, (BAD - 4) * T_SECTOR,
                      LIBNBD_CMD_FLAG_FUA) == 0);
  restart_after_power_cut (s, h);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD - 4, 8, 0);
  t_nbd_close (h);
}

/* Flushed by one client, written by others; and what was not flushed is old
 * or new.
 */
static void
check_flush (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s), *other = t_nbd_connect (s);

  t_part ("%s, flush", t_disk_kind_name (disk->kind));
  gen++;
  T_OK (t_nbd_put (h, BAD - 16, 64, gen));
  T_OK (t_nbd_put (h, GOOD, 8, gen));
  T_OK (t_nbd_flush (other));
  T_OK (t_nbd_put (h, BAD, 1, gen + 1));
  T_OK (t_nbd_put (h, GOOD + 100, 8, gen + 1));
  restart_after_power_cut (s, h);
  t_nbd_close (other);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD - 16, 64, gen); /* nothing survived that need not */
  t_nbd_expect (h, GOOD, 8, gen);
  t_nbd_expect (h, GOOD + 100, 8, 1);
  t_nbd_close (h);
}

/* One flush of the store fails.  What it covered was written again. */
static void
check_mended_flush (struct t_server *s)
{
  struct t_disk *const disks[] = { disk, store };
  const char *faults = t_read_file (store->fault->faults);
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("%s, one flush of the store fails", t_disk_kind_name (disk->kind));
  t_fault_set (store->fault, "%sflush errno=EIO times=1\n", faults);
  T_OK (t_nbd_put (h, BAD, 1, 7));
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_server_has_said (s, "written again"));
  t_nbd_close (h);
  t_fault_set (store->fault, "%s", faults);
  t_disk_cut_power (s, disks, 2, 0);
  t_server_restart_with (s, "backing=%s spare=%s", disk->path, store->path);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD, 1, 7);
  t_nbd_close (h);
}

/* A flush of this medium fails (of the backing, once); the data may be gone
 * from then on.
 */
static void
check_failed_flush (struct t_server *s, struct t_disk *d, uint64_t lba)
{
  struct nbd_handle *h = t_nbd_connect (s);
  const char *faults = t_read_file (d->fault->faults);

  t_part ("%s, a flush of the %s fails", t_disk_kind_name (disk->kind),
          d == disk ? "backing" : "store");
  t_fault_set (d->fault, "%sflush errno=EIO%s\n", faults,
               d == disk ? " times=1" : "");
  T_OK (t_nbd_put (h, lba, 8, 7));
  T_ERRNO (t_nbd_flush (h), EIO);
  T_ERRNO (t_nbd_flush (h), EIO);
  T_OK (t_nbd_touch (h, lba, 8));
  t_nbd_close (h);
  t_fault_set (d->fault, "%s", faults);
  t_server_kill (s);
  t_server_restart (s);         /* and then all is well */
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, lba, 8, 9));
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d\n", BAD), .volatile_cache = true,
  };
  struct t_server *s;

  gen = 1;
  disk = t_disk_new (kind, 8 << 20, &options);
  store = t_store_on_failing_disk (disk, "");
  s = t_server_start ("backing=%s spare=%s", disk->path, store->path);

  check_fua (s, GOOD, 8, "good sectors");
  check_fua (s, BAD, 1, "a bad sector, first met");
  check_fua (s, BAD, 1, "a remapped sector");
  check_fua (s, BAD - 4, 8, "a remapped sector among good ones");
  check_fua_zero (s);
  check_fua (s, BAD - 4, 8, "a zeroed sector among good ones");
  check_flush (s);
  check_failed_flush (s, disk, GOOD);
  check_mended_flush (s);
  check_failed_flush (s, store, BAD);
  t_server_stop (s);
  t_ctl_check (store->path);
  t_disk_free (store);
  t_disk_free (disk);
}

int
main (void)
{
  t_begin ("test-flush-fua", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
