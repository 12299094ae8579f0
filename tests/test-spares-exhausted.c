/* SPDX-License-Identifier: BSD-3-Clause */
/* No spare is left: a write that needs one gets ENOSPC, a read of a lost
 * sector still EIO, and all else works on: good sectors, remapped sectors
 * (also to be written again, any number of times), restarts.  The log says it.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum {
  BAD_FIRST = 1000, BAD_NR = 100,
  UNREADABLE = 2000,            /* met as the last */
  MOST = 32,                    /* 16 KiB of spares */
};

/* Write bad sectors until there are no more spares; returns how many. */
static unsigned
use_up_spares (struct nbd_handle *h)
{
  unsigned n = 0;
  int err = 0;

  while (n < BAD_NR && (err = t_nbd_put (h, BAD_FIRST + n, 1, 2)) == 0)
    n++;
  T_ERRNO (err, ENOSPC);
  T_ASSERT (n >= MOST / 2 && n <= MOST);
  return n;
}

static void
check_exhausted (struct nbd_handle *h, unsigned n, uint32_t gen)
{
  /* Needs a spare. */
  T_ERRNO (t_nbd_put (h, BAD_FIRST + n, 1, 3), ENOSPC);
  T_ERRNO (t_nbd_put (h, BAD_FIRST + n - 4, 8, gen), ENOSPC);
  T_ERRNO (t_nbd_touch (h, UNREADABLE, 1), EIO);
  T_ERRNO (t_nbd_touch (h, UNREADABLE - 4, 8), EIO);
  t_nbd_expect (h, UNREADABLE - 4, 4, 1);

  /* Does not: old content of what could not be written, good sectors. */
  t_nbd_expect (h, BAD_FIRST + n, 1, 1);
  T_OK (t_nbd_put (h, 100, 16, gen));
  t_nbd_expect (h, 100, 16, gen);
  T_OK (t_nbd_flush (h));
}

/* More often than there are spares. */
static void
rewrite_remapped (struct nbd_handle *h, unsigned n, uint32_t gen)
{
  for (unsigned i = 0; i < 3 * MOST; i++)
    T_OK (t_nbd_put (h, BAD_FIRST + i % n, 1, gen));
  T_OK (t_nbd_put (h, BAD_FIRST, n, gen));
  t_nbd_expect (h, BAD_FIRST, n, gen);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d-%d\nread %d\n", BAD_FIRST,
                               BAD_FIRST + BAD_NR - 1, UNREADABLE),
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s spare-size=16K",
                                       t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);
  unsigned n = use_up_spares (h);

  T_ASSERT (t_server_has_said (s, "spare"));
  check_exhausted (h, n, 4);
  rewrite_remapped (h, n, 4);
  check_exhausted (h, n, 4);
  t_server_kill (s);
  t_nbd_close (h);

  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD_FIRST, n, 4);
  rewrite_remapped (h, n, 5);
  check_exhausted (h, n, 5);
  T_ASSERT (t_ctl_count (d->store, "remapped") == n);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);

  /* A larger store: what could not be written can be. */
  t_server_restart_with (s, "%s spare-size=64K", t_disk_params (d));
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD_FIRST, n, 5);
  T_OK (t_nbd_put (h, BAD_FIRST + n, 8, 6));
  t_nbd_expect (h, BAD_FIRST + n, 8, 6);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-spares-exhausted", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
