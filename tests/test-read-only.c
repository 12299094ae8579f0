/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit -r: nothing reaches the disk but reads; writes are refused; what is
 * lost is still recorded, so that no bad sector is touched again after a
 * restart; what was remapped before is read from its spare.
 */

#include <config.h>

#include <errno.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { REMAPPED = 40, LOST = 50, LOST_LATER = 60 };

/* Remap a sector while the disk may still be written. */
static void
remap_one (struct t_disk *d)
{
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, REMAPPED, 1, 2));
  t_nbd_close (h);
  t_server_stop (s);
}

static void
check_refused (struct nbd_handle *h)
{
  char buf[T_SECTOR] = "x";

  T_ASSERT (nbd_is_read_only (h) == 1);
  nbd_set_strict_mode (h, 0);   /* let the server refuse it */
  T_ERRNO (t_nbd_write (h, buf, sizeof buf, 0), EPERM);
  T_ERRNO (t_nbd_write (h, buf, sizeof buf, LOST * T_SECTOR), EPERM);
  T_ERRNO (t_nbd_zero (h, T_SECTOR, 0), EPERM);
  T_ERRNO (t_nbd_trim (h, T_SECTOR, 0), EPERM);
}

static void
check_reads (struct nbd_handle *h)
{
  t_nbd_expect (h, 0, REMAPPED, 1);
  t_nbd_expect (h, REMAPPED, 1, 2);
  t_nbd_expect (h, REMAPPED + 1, LOST - REMAPPED - 1, 1);
}

static void
check_lost (struct t_disk *d, struct nbd_handle *h, uint64_t lba)
{
  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  T_ERRNO (t_nbd_touch (h, lba - 2, 5), EIO);
  T_ASSERT (t_fault_touches (d->fault, "rwzt", lba) == 0);
  T_ASSERT (strcmp (t_ctl_state_of (d->store, lba), "lost") == 0);
}

/* The log of the disk itself, over both runs. */
static void
check_only_reads (struct t_disk *d)
{
  d->fault->mark = 0;
  T_ASSERT (t_fault_requests (d->fault, "r") > 0);
  T_ASSERT (t_fault_requests (d->fault, "wzt") == 0); /* a close flushes */
}

static void
use_read_only (struct t_disk *d, const char *before)
{
  struct t_server *s = t_server_start ("-r %s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  check_refused (h);
  check_reads (h);
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  check_lost (d, h, LOST);
  t_server_kill (s);
  t_nbd_close (h);

  t_server_restart (s);
  h = t_nbd_connect (s);
  check_lost (d, h, LOST);
  t_nbd_expect (h, LOST + 1, 8, 1);
  T_ERRNO (t_nbd_touch (h, LOST_LATER - 4, 8), EIO);
  check_lost (d, h, LOST_LATER);
  check_refused (h);
  t_nbd_close (h);
  t_server_stop (s);
  T_ASSERT (t_image_equal (before, d->image));
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("both %d\nread %d\nread %d\n", REMAPPED, LOST,
                               LOST_LATER),
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  char *before = t_path ("before-%d", kind);

  remap_one (d);
  t_image_copy (d->image, before);
  if (truncate (d->fault->log, 0) == -1)
    T_FAIL ("%s: %m", d->fault->log);
  use_read_only (d, before);
  check_only_reads (d);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-read-only", 30);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
