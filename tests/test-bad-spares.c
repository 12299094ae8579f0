/* SPDX-License-Identifier: BSD-3-Clause */
/* Bad sectors in the store itself.  A spare that cannot be written is left
 * alone and another one is taken; one that cannot be read makes its sector
 * lost, and nothing else.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"

enum { FIRST = 1000, NR = 64 };

/* In which sector of the store is the content of this sector? */
static uint64_t
spare_of (struct t_disk *store, uint64_t lba, uint32_t gen)
{
  int64_t offset = t_image_find (store->image, lba, gen);

  if (offset == -1)
    T_FAIL ("the content of sector %llu is not in the store",
            (unsigned long long) lba);
  return offset / T_SECTOR;
}

/* Where the first spare is, many of those that may come next are bad. */
static void
check_bad_when_written (struct nbd_handle *h, struct t_disk *store)
{
  uint64_t first;

  T_OK (t_nbd_put (h, FIRST, 1, 2));
  first = spare_of (store, FIRST, 2);
  t_fault_set (store->fault, "both %llu\nboth %llu-%llu\n",
               (unsigned long long) first + 2,
               (unsigned long long) first + 8,
               (unsigned long long) first + 15);
  t_fault_mark (store->fault);
  for (unsigned i = 1; i < NR / 2; i++)
    T_OK (t_nbd_put (h, FIRST + i, 1, 2));
  T_OK (t_nbd_put (h, FIRST + NR / 2, NR / 2, 2));
  if (t_fault_failures (store->fault, "w") == 0)
    T_FAIL ("no bad spare was met: this test does not know where they are");
  t_nbd_expect (h, FIRST, NR, 2);
}

static void
check_all (struct t_server *s, const char *what)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, FIRST, NR, 2);
  T_ASSERT (t_ctl_count (what, "remapped") == NR);
  T_ASSERT (t_ctl_count (what, "lost") == 0);
  t_nbd_close (h);
}

/* A spare that was good turns unreadable. */
static void
check_bad_when_read (struct t_server *s, struct t_disk *store)
{
  struct nbd_handle *h = t_nbd_connect (s);
  const uint64_t lba = FIRST + 20;

  t_fault_set (store->fault, "both %llu\n",
               (unsigned long long) spare_of (store, lba, 2));
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  T_ERRNO (t_nbd_touch (h, FIRST, NR), EIO);
  t_nbd_expect (h, FIRST, 20, 2);
  t_nbd_expect (h, lba + 1, NR - 21, 2);
  t_fault_mark (store->fault);
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  T_ASSERT (t_fault_failures (store->fault, "r") == 0);
  T_ASSERT (strcmp (t_ctl_state_of (store->path, lba), "lost") == 0);
  t_nbd_close (h);
  t_server_kill (s);

  t_server_restart (s);
  h = t_nbd_connect (s);
  T_ERRNO (t_nbd_touch (h, lba, 1), EIO);
  T_OK (t_nbd_put (h, lba, 1, 2)); /* heals, in another spare */
  t_nbd_close (h);
  check_all (s, store->path);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("both %d-%d\n", FIRST, FIRST + NR - 1),
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_disk *store = t_store_on_failing_disk (d, "spare-size=256K");
  struct t_server *s = t_server_start ("backing=%s spare=%s", d->path,
                                       store->path);
  struct nbd_handle *h = t_nbd_connect (s);

  check_bad_when_written (h, store);
  t_nbd_close (h);
  check_all (s, store->path);
  t_server_kill (s);
  t_server_restart (s);
  check_all (s, store->path);
  check_bad_when_read (s, store);
  t_server_stop (s);
  t_ctl_check (store->path);
  t_disk_free (store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-bad-spares", 40);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
