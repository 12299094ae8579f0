/* SPDX-License-Identifier: BSD-3-Clause */
/* Only medium errors remap: any other error goes to the client as it is, no
 * sector is remapped or lost, and all is well again when the error is gone.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

static const struct { const char *name; int err; } errors[] = {
  { "ENOSPC", ENOSPC }, { "EPERM", EPERM }, { "ENOMEM", ENOMEM },
  { "ESHUTDOWN", ESHUTDOWN },
};

static void
test_error (struct nbd_handle *h, struct t_disk *d, const char *name, int err)
{
  char byte = 'x';

  t_fault_set (d->fault, "both 300-310 errno=%s", name);
  T_ERRNO (t_nbd_put (h, 300, 8, 2), err);
  T_ERRNO (t_nbd_put (h, 256, 128, 2), err);
  T_ERRNO (t_nbd_touch (h, 305, 1), err);
  T_ERRNO (t_nbd_touch (h, 256, 128), err);
  T_ERRNO (t_nbd_write (h, &byte, 1, 300 * T_SECTOR + 3), err);
  T_ERRNO (t_nbd_zero (h, 8 * T_SECTOR, 300 * T_SECTOR), err);
  t_nbd_expect (h, 100, 8, 1);
  T_ASSERT (t_ctl_count (d->store, "remapped") == 0);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);

  t_fault_set (d->fault, "%s", "");
  T_OK (t_nbd_put (h, 256, 128, 1));
  t_nbd_expect (h, 256, 128, 1);
  t_image_check (d->image, 256, 128, 1);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1 };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    t_part ("%s, %s", t_disk_kind_name (kind), errors[i].name);
    test_error (h, d, errors[i].name, errors[i].err);
  }
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-other-error-remaps-nothing", 30);
  /* A loop device turns most errors into EIO: only the file shows them. */
  t_disk_each (t_disk_fuse_only, test);
  return t_end ();
}
