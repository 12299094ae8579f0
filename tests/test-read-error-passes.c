/* SPDX-License-Identifier: BSD-3-Clause */
/* A sector that can be read at a second or third attempt: the client gets its
 * data and no error, nothing is lost, and the server has noted that the sector
 * is weak.
 */

#include <config.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

struct count {
  const char *store;
  int64_t at_least;
};

/* The worker counts soon after the client has its answer. */
static bool
weak_are_counted (void *arg)
{
  struct count *c = arg;

  return t_ctl_status (c->store, "weak") >= c->at_least;
}

static void
read_weak (struct nbd_handle *h, struct t_disk *d, uint64_t lba, uint64_t nr,
           unsigned failures)
{
  const uint64_t weak = lba + nr / 2;

  t_fault_set (d->fault, "read %llu times=%u", (unsigned long long) weak,
               failures);
  t_fault_mark (d->fault);
  t_nbd_expect (h, lba, nr, 1);
  T_ASSERT (t_fault_failures (d->fault, "r") > 0);
  T_ASSERT (t_fault_touches (d->fault, "r", weak) <= 3); /* 1 + retries */
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1 };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);
  struct count weak = { d->store, 5 };

  read_weak (h, d, 500, 1, 1);
  read_weak (h, d, 600, 1, 2);
  read_weak (h, d, 700, 8, 1);
  read_weak (h, d, 800, 8, 2);
  read_weak (h, d, 900, 64, 2);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
  t_wait_until (weak_are_counted, &weak, 5000, "5 weak sectors in status");
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-read-error-passes", 30);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
