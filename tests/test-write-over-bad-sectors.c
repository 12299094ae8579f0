/* SPDX-License-Identifier: BSD-3-Clause */
/* The promise in one test: a clean 64 MiB disk with the bad sectors 1000 and
 * 1001.  A write of sectors 960 to 1023 succeeds and reads back; all sectors
 * but the two stand on the backing itself; remapctl lists the two; after
 * kill -9 and restart all is there.
 */

#include <config.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

/* Bad for writing only, so that a read that went to the disk in spite of the
 * remap would get old content, and no error would tell.
 */
static const char *const faults[] = { "both 1000-1001", "write 1000-1001" };

static void
check_list (const char *where)
{
  T_ASSERT (t_ctl_count (where, "remapped") == 2);
  T_ASSERT (t_ctl_count (where, "lost") == 0);
  T_ASSERT (strcmp (t_ctl_state_of (where, 1000), "remapped") == 0);
  T_ASSERT (strcmp (t_ctl_state_of (where, 1001), "remapped") == 0);
}

static void
check_image (const struct t_disk *d)
{
  t_image_check (d->image, 0, 960, 1);
  t_image_check (d->image, 960, 40, 2);
  t_image_check (d->image, 1000, 2, 1);
  t_image_check (d->image, 1002, 22, 2);
  t_image_check (d->image, 1024, 131072 - 1024, 1);
}

static void
test_faults (enum t_disk_kind kind, const char *fault)
{
  const struct t_disk_options options = { .gen = 1, .faults = fault };
  struct t_disk *d = t_disk_new (kind, 64 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, 960, 64, 2));
  t_nbd_expect (h, 960, 64, 2);
  check_image (d);
  check_list (d->kind == T_DISK_LOOP ? d->store : d->path);
  T_ASSERT (t_ctl_status (d->store, "pid") == s->pid);

  t_server_kill (s);
  t_nbd_close (h);
  check_list (d->store);        /* of the store alone */
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, 0, 960, 1);
  t_nbd_expect (h, 960, 64, 2);
  t_nbd_expect (h, 1024, 4096, 1);
  t_nbd_close (h);
  check_list (d->store);
  t_server_stop (s);
  check_image (d);
  t_ctl_check (d->store);
  t_disk_free (d);
}

static void
test (enum t_disk_kind kind)
{
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    t_part ("%s, %s", t_disk_kind_name (kind), faults[i]);
    test_faults (kind, faults[i]);
  }
}

int
main (void)
{
  t_begin ("test-write-over-bad-sectors", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
