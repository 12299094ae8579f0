/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk that already has bad sectors, first and last among them, is served
 * from a clean start: writes succeed, read back, stand on the backing but for
 * the bad sectors, and are there after a restart.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { NR_SECTORS = 16384, LAST = NR_SECTORS - 1 };

static const uint64_t bad[] = { 0, 1, 1000, 1001, LAST };
#define NR_BAD (sizeof bad / sizeof bad[0])

/* What is written, so that each bad sector has good neighbours in the request;
 * and a request for each of them alone.
 */
static const struct { uint64_t lba, nr; } writes[] = {
  { 0, 8 }, { 960, 64 }, { LAST - 63, 64 }, { 1001, 1 }, { LAST, 1 },
};
#define NR_WRITES (sizeof writes / sizeof writes[0])

static bool
is_bad (uint64_t lba)
{
  for (size_t i = 0; i < NR_BAD; i++)
    if (bad[i] == lba)
      return true;
  return false;
}

static void
write_all (struct nbd_handle *h)
{
  for (size_t i = 0; i < NR_WRITES; i++)
    T_OK (t_nbd_put (h, writes[i].lba, writes[i].nr, 2));
}

/* All content, on a fresh connection. */
static void
check_content (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  T_ASSERT (nbd_get_size (h) == NR_SECTORS * T_SECTOR);
  for (size_t i = 0; i < NR_WRITES; i++)
    t_nbd_expect (h, writes[i].lba, writes[i].nr, 2);
  t_nbd_expect (h, 8, 960 - 8, 1); /* between the first two: untouched */
  t_nbd_close (h);
}

/* On the medium: new content everywhere but in the bad sectors. */
static void
check_image (const struct t_disk *d)
{
  for (size_t i = 0; i < NR_WRITES; i++)
    for (uint64_t lba = writes[i].lba; lba < writes[i].lba + writes[i].nr;
         lba++)
      t_image_check (d->image, lba, 1, is_bad (lba) ? 1 : 2);
  t_image_check (d->image, 8, 960 - 8, 1);
}

static void
check_list (const struct t_disk *d, const char *where)
{
  for (size_t i = 0; i < NR_BAD; i++)
    T_ASSERT (strcmp (t_ctl_state_of (where, bad[i]), "remapped") == 0);
  T_ASSERT (t_ctl_count (where, "remapped") == NR_BAD);
  T_ASSERT (t_ctl_count (where, "lost") == 0);
  T_ASSERT (d->fault != NULL);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1,
    .faults = t_str ("both 0\nboth 1\nboth 1000-1001\nboth %d\n", LAST),
  };
  struct t_disk *d = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  write_all (h);
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  check_content (s);
  check_image (d);
  check_list (d, d->store);

  t_server_stop (s);
  check_list (d, d->store);
  t_server_restart (s);
  check_content (s);
  t_server_kill (s);
  t_server_restart (s);
  check_content (s);
  t_server_stop (s);

  check_image (d);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-clean-start-bad-sectors", 30);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
