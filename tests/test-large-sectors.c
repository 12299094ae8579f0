/* SPDX-License-Identifier: BSD-3-Clause */
/* A device with sectors of 4096 bytes: these are what is remapped and listed,
 * and smaller writes change only their part of one.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum {
  BIG = 4096, RATIO = BIG / T_SECTOR,
  REMAPPED = 125, LOST = 200,   /* sectors of the device */
};

static void
check_list (const char *where)
{
  json_t *list = t_ctl_json ("list", where);

  T_ASSERT (json_integer_value (json_object_get (list, "sector_size"))
            == BIG);
  json_decref (list);
  T_ASSERT (t_ctl_count (where, "remapped") == 1);
  T_ASSERT (t_ctl_count (where, "lost") == 1);
  T_ASSERT (strcmp (t_ctl_state_of (where, REMAPPED), "remapped") == 0);
  T_ASSERT (strcmp (t_ctl_state_of (where, LOST), "lost") == 0);
}

static void
check_content (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, (REMAPPED - 2) * RATIO, 2 * RATIO, 2);
  t_nbd_expect (h, REMAPPED * RATIO, 3, 2);
  t_nbd_expect (h, REMAPPED * RATIO + 3, 1, 3);
  t_nbd_expect (h, REMAPPED * RATIO + 4, 2 * RATIO - 4, 2);
  T_ERRNO (t_nbd_touch (h, LOST * RATIO + 7, 1), EIO);
  t_nbd_expect (h, LOST * RATIO - 3, 3, 1);
  t_nbd_expect (h, (LOST + 1) * RATIO, 3, 1);
  t_nbd_close (h);
}

/* Each write of T_SECTOR bytes is one of a part of a sector. */
static void
write_parts (struct nbd_handle *h)
{
  T_OK (t_nbd_put (h, REMAPPED * RATIO + 3, 1, 3));
  T_ERRNO (t_nbd_touch (h, LOST * RATIO, 1), EIO);
  T_ERRNO (t_nbd_put (h, LOST * RATIO + 1, 1, 3), EIO);
  T_ERRNO (t_nbd_put (h, LOST * RATIO - 1, RATIO, 3), EIO);
  T_OK (t_nbd_put (h, LOST * RATIO - 3, 3, 1));
}

int
main (void)
{
  const struct t_disk_options options = {
    .gen = 1, .sector_bytes = BIG,
    .faults = t_str ("both %d\nread %d\n", REMAPPED * RATIO + 5,
                     LOST * RATIO + 2),
  };
  struct t_disk *d;
  struct t_server *s;
  struct nbd_handle *h;

  t_begin ("test-large-sectors", 20);
  if (!t_disk_can (T_DISK_LOOP))
    t_skip ("no loop device, no sectors of 4096 bytes");
  d = t_disk_new (T_DISK_LOOP, 8 << 20, &options);
  s = t_server_start ("%s", t_disk_params (d));
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, (REMAPPED - 2) * RATIO, 5 * RATIO, 2));
  write_parts (h);
  t_nbd_close (h);
  check_content (s);
  check_list (d->store);
  t_server_kill (s);
  t_server_restart (s);
  check_content (s);
  t_server_stop (s);
  check_list (d->store);
  t_ctl_check (d->store);
  t_disk_free (d);
  return t_end ();
}
