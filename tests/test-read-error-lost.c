/* SPDX-License-Identifier: BSD-3-Clause */
/* A sector that cannot be read is lost: EIO, at first after no more than 1 +
 * retries touches, from then on without any.  Its neighbours are read.  Part
 * of it cannot be written, the whole of it can, and is good again then.  What
 * is lost is still known after a restart.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { NR_SECTORS = 16384, HEALED = 2003, LOST = 3000 };

static void
check_touches (struct t_disk *d, uint64_t lba, unsigned most)
{
  unsigned n = t_fault_touches (d->fault, "rwzt", lba);

  if (n > most)
    T_FAIL ("sector %llu was touched %u times, at most %u are allowed",
            (unsigned long long) lba, n, most);
}

/* The first reads: an error, few touches, good neighbours. */
static void
check_first_read (struct nbd_handle *h, struct t_disk *d, unsigned retries)
{
  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, 1992, 32), EIO);
  T_ASSERT (t_fault_touches (d->fault, "r", HEALED) > 0);
  check_touches (d, HEALED, 1 + retries);
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  check_touches (d, LOST, 1 + retries);
  t_nbd_expect (h, 1992, HEALED - 1992, 1);
  t_nbd_expect (h, HEALED + 1, 2024 - HEALED - 1, 1);
  T_ASSERT (t_ctl_count (d->store, "lost") == 2);
  T_ASSERT (t_ctl_status (d->store, "lost") == 2);
}

/* Known to be lost: no request touches it, nor changes what is there. */
static void
check_lost (struct nbd_handle *h, struct t_disk *d, uint64_t lba)
{
  char byte = 'x';

  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  T_ERRNO (t_nbd_touch (h, lba - 8, 16), EIO);
  T_ERRNO (t_nbd_write (h, &byte, 1, lba * T_SECTOR + 17), EIO);
  T_ERRNO (t_nbd_zero (h, 100, lba * T_SECTOR + 100), EIO);
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  check_touches (d, lba, 0);
  T_ASSERT (strcmp (t_ctl_state_of (d->store, lba), "lost") == 0);
}

/* Written whole, together with neighbours, it is good again. */
static void
check_healing (struct nbd_handle *h, struct t_disk *d)
{
  char old[T_SECTOR], part[100];

  t_fault_mark (d->fault);
  T_OK (t_nbd_put (h, HEALED - 3, 8, 2));
  t_nbd_expect (h, HEALED - 3, 8, 2);
  t_pattern_fill (part, sizeof part, HEALED * T_SECTOR + 200, 3);
  T_OK (t_nbd_write (h, part, sizeof part, HEALED * T_SECTOR + 200));
  T_OK (t_nbd_read (h, old, T_SECTOR, HEALED * T_SECTOR));
  t_pattern_check (old, 200, HEALED * T_SECTOR, 2, "before the part");
  t_pattern_check (old + 200, 100, HEALED * T_SECTOR + 200, 3, "the part");
  t_pattern_check (old + 300, T_SECTOR - 300, HEALED * T_SECTOR + 300, 2,
                   "behind the part");
  check_touches (d, HEALED, 0);
  t_image_check (d->image, HEALED, 1, 1);
  T_ASSERT (strcmp (t_ctl_state_of (d->store, HEALED), "remapped") == 0);
}

/* on-lost=zero: zeroes for the lost sector, data for the others. */
static void
check_zeroes_for_lost (struct t_server *s, struct t_disk *d)
{
  struct nbd_handle *h;

  t_server_restart_with (s, "%s on-lost=zero", t_disk_params (d));
  T_ASSERT (*t_read_file (s->log)); /* said loudly */
  t_fault_mark (d->fault);
  h = t_nbd_connect (s);
  t_nbd_expect (h, LOST - 4, 4, 1);
  t_nbd_expect (h, LOST, 1, 0);
  t_nbd_expect (h, LOST + 1, 4, 1);
  T_OK (t_nbd_touch (h, LOST - 4, 9));
  check_touches (d, LOST, 0);
  t_nbd_close (h);
  t_server_stop (s);
}

static void
test_retries (enum t_disk_kind kind, unsigned retries)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("both %d\nboth %d\n", HEALED, LOST),
  };
  struct t_disk *d = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  struct t_server *s = t_server_start ("%s retries=%u", t_disk_params (d),
                                       retries);
  struct nbd_handle *h = t_nbd_connect (s);

  check_first_read (h, d, retries);
  check_lost (h, d, HEALED);
  check_lost (h, d, LOST);
  check_healing (h, d);
  T_ASSERT (t_ctl_count (d->store, "lost") == 1);

  t_server_kill (s);
  t_nbd_close (h);
  t_server_restart (s);
  h = t_nbd_connect (s);
  check_lost (h, d, LOST);
  t_nbd_expect (h, HEALED - 3, 3, 2);
  t_nbd_expect (h, HEALED + 1, 4, 2);
  t_nbd_close (h);
  t_server_stop (s);

  check_zeroes_for_lost (s, d);
  t_ctl_check (d->store);
  t_disk_free (d);
}

static void
test (enum t_disk_kind kind)
{
  static const unsigned retries[] = { 1, 2, 5 };

  for (size_t i = 0; i < sizeof retries / sizeof retries[0]; i++) {
    t_part ("%s, retries=%u", t_disk_kind_name (kind), retries[i]);
    test_retries (kind, retries[i]);
  }
}

int
main (void)
{
  t_begin ("test-read-error-lost", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
