/* SPDX-License-Identifier: BSD-3-Clause */
/* Zeroing and trimming, over good, bad, remapped and lost sectors: they read
 * as zeroes, also after a restart; what is beside them is not changed; and
 * what is written over them later is there.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

/* The sectors that are used, and those among them that are zeroed whole. */
enum {
  FIRST = 96, NR = 64,
  ZERO_FIRST = 104, ZERO_NR = 32,
  REMAPPED = 110, LOST = 120, UNWRITABLE = 130,
  PARTLY = 150,                 /* bad, and zeroed in part */
};

static const char faults[] =
  "both 110\nboth 120\nwrite 130\nwrite 150\n";

typedef int zero_fn (struct nbd_handle *h, uint64_t count, uint64_t offset);

static void
check_zeroed (struct t_server *s, uint32_t gen)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, FIRST, ZERO_FIRST - FIRST, gen);
  t_nbd_expect (h, ZERO_FIRST, ZERO_NR, 0);
  t_nbd_expect (h, ZERO_FIRST + ZERO_NR,
                FIRST + NR - ZERO_FIRST - ZERO_NR, gen);
  t_nbd_expect (h, FIRST + NR, 64, 1);
  t_nbd_check_zero_extents (h);
  t_nbd_close (h);
}

/* Zero the range in which all states are, and see it after restarts. */
static void
check_range (struct t_disk *d, struct t_server *s, zero_fn *zero,
             uint32_t gen)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_fault_mark (d->fault);
  T_OK (zero (h, ZERO_NR * T_SECTOR, ZERO_FIRST * T_SECTOR));
  T_ASSERT (t_fault_touches (d->fault, "rwzt", REMAPPED) == 0);
  T_ASSERT (t_fault_touches (d->fault, "rwzt", LOST) == 0);
  t_nbd_close (h);
  check_zeroed (s, gen);
  t_server_kill (s);
  t_server_restart (s);
  check_zeroed (s, gen);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
}

/* Bytes in the middle of sectors, whole sectors between them. */
static void
check_parts (struct nbd_handle *h, uint32_t gen)
{
  const uint64_t from = PARTLY * T_SECTOR - 300, to = PARTLY * T_SECTOR + 200;
  char buf[4 * T_SECTOR];
  const uint64_t base = (PARTLY - 2) * T_SECTOR;

  T_OK (t_nbd_put (h, PARTLY - 2, 4, gen));
  T_OK (t_nbd_zero (h, to - from, from));
  T_OK (t_nbd_read (h, buf, sizeof buf, base));
  t_pattern_check (buf, from - base, base, gen, "before the zeroes");
  t_pattern_check (buf + (from - base), to - from, from, 0, "the zeroes");
  t_pattern_check (buf + (to - base), sizeof buf - (to - base), to, gen,
                   "behind the zeroes");
  T_OK (t_nbd_put (h, PARTLY - 2, 4, gen));
}

/* All states: written, but LOST, which is met as lost. */
static void
prepare (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  T_OK (t_nbd_put (h, FIRST, LOST - FIRST, 2));
  T_OK (t_nbd_put (h, LOST + 1, UNWRITABLE - LOST - 1, 2));
  T_OK (t_nbd_put (h, UNWRITABLE + 1, FIRST + NR - UNWRITABLE - 1, 2));
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  check_parts (h, 2);
  t_nbd_close (h);
}

/* Written over again, whole: nothing of the zeroes is left. */
static void
check_rewrite (struct t_server *s, uint32_t gen)
{
  struct nbd_handle *h = t_nbd_connect (s);
  char byte;

  T_OK (t_nbd_put (h, FIRST, NR, gen));
  t_nbd_expect (h, FIRST, NR, gen);
  t_nbd_check_zero_extents (h);
  T_OK (t_nbd_zero (h, T_SECTOR, REMAPPED * T_SECTOR));
  t_pattern_fill (&byte, 1, REMAPPED * T_SECTOR + 99, gen);
  T_OK (t_nbd_write (h, &byte, 1, REMAPPED * T_SECTOR + 99));
  T_OK (t_nbd_read (h, &byte, 1, REMAPPED * T_SECTOR + 99));
  t_pattern_check (&byte, 1, REMAPPED * T_SECTOR + 99, gen,
                   "one byte into a zeroed sector");
  T_OK (t_nbd_read (h, &byte, 1, REMAPPED * T_SECTOR + 98));
  T_ASSERT (byte == 0);
  T_OK (t_nbd_put (h, FIRST, NR, gen));
  t_nbd_close (h);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1, .faults = faults };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));

  prepare (s);
  check_range (d, s, t_nbd_zero, 2);
  t_image_check (d->image, ZERO_FIRST, REMAPPED - ZERO_FIRST, 0);
  t_image_check (d->image, REMAPPED, 1, 1);
  check_rewrite (s, 3);
  check_range (d, s, t_nbd_trim, 3);
  check_rewrite (s, 4);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-zero-trim", 30);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
