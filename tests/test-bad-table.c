/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of the store meets bad sectors on its own disk, which show only
 * when the kernel writes its page cache: flushes succeed all the same, and what
 * they covered is there after kill -9 and after a power cut.
 */

#include <config.h>

#include <errno.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { FIRST = 1000, NR = 60, TABLE = 8192 / T_SECTOR };

/* A blank disk, which becomes a store. */
static struct t_disk *
new_store (void)
{
  const struct t_disk_options options = { .volatile_cache = true };

  return t_disk_new (T_DISK_LOOP, 4 << 20, &options);
}

static void
check_all (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, FIRST, NR / 2, 3);
  t_nbd_expect (h, FIRST + NR / 2, NR / 2, 2);
  t_nbd_close (h);
}

static void
test (const char *faults)
{
  const struct t_disk_options options = {
    .gen = 1, .volatile_cache = true,
    .faults = t_str ("write %d-%d\n", FIRST, FIRST + NR - 1),
  };
  struct t_disk *d = t_disk_new (T_DISK_LOOP, 8 << 20, &options);
  struct t_disk *store = new_store ();
  struct t_disk *const both[] = { d, store };
  struct t_server *s = t_server_start ("backing=%s spare=%s spare-size=1M",
                                       d->path, store->path);
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, FIRST, NR, 2));
  T_OK (t_nbd_flush (h));
  t_fault_set (store->fault, "%s", faults);
  t_fault_mark (store->fault);
  for (unsigned i = 0; i < NR / 2; i++)
    T_OK (t_nbd_put (h, FIRST + i, 1, 3));
  T_OK (t_nbd_flush (h));
  if (t_fault_failures (store->fault, "w") == 0)
    T_FAIL ("the table is not where this test thinks it is");
  T_ASSERT (t_server_has_said (s, "cannot be written"));
  t_nbd_close (h);
  check_all (s);

  t_disk_cut_power (s, both, 2, 0);
  t_server_restart_with (s, "backing=%s spare=%s", d->path, store->path);
  check_all (s);
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, FIRST, NR / 2, 3));
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  t_server_kill (s);
  t_server_restart (s);
  check_all (s);
  t_server_stop (s);
  t_disk_free (store);
  t_disk_free (d);
}

/* Both copies, and the spares: then nothing is called durable any more. */
static void
test_both_copies (void)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d-%d\n", FIRST, FIRST + NR - 1),
  };
  struct t_disk *d = t_disk_new (T_DISK_FUSE, 8 << 20, &options);
  struct t_disk *store = new_store ();
  struct t_server *s = t_server_start ("backing=%s spare=%s spare-size=1M",
                                       d->path, store->path);
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, FIRST, NR, 2));
  T_OK (t_nbd_flush (h));
  t_fault_set (store->fault, "write 0-8191\n");
  T_ERRNO (t_nbd_put (h, FIRST, 1, 3), EIO);
  T_ERRNO (t_nbd_flush (h), EIO);
  T_ERRNO (t_nbd_flush (h), EIO);
  t_nbd_expect (h, FIRST, NR, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_disk_free (store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-bad-table", 60);
  if (t_disk_can (T_DISK_LOOP)) {
    t_part ("one sector of the table");
    test (t_str ("write %d\n", TABLE));
    t_part ("a block of the table, and it cannot be read either");
    test (t_str ("both %d-%d\n", TABLE, TABLE + 7));
    t_part ("the commit sector");
    test (t_str ("write 8\nboth %d\n", TABLE + 3));
    t_part ("all of the store");
    test_both_copies ();
  }
  return t_end ();
}
