/* SPDX-License-Identifier: BSD-3-Clause */
/* deadline=: the client of a read that the disk sits on gets EIO, other requests
 * go on, and the data is in spares once it has come: the slow place is not
 * touched again, not after a kill either.  What was written meanwhile stands.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_nbd.h"
#include "t_wait.h"

/* 4 KiB, the page of a cache, so that the kernel below reads them as one. */
enum { SLOW = 2000, NR = 8, WRITTEN = SLOW + 2, ELSEWHERE = 4000 };

enum { LIMIT_MS = 60000 };

/* The disk sits on reads for longer than the deadline of 1 second, and than it
 * takes to look at what goes on meanwhile.
 */
static unsigned
slow_ms (void)
{
  return 2500 + 1500 * t_scale ();
}

static bool
read_has_ended (void *fault)
{
  return t_fault_requests (fault, "d") > 0 &&
    t_fault_touches (fault, "r", SLOW) > 0;
}

static bool
is_kept (void *store)
{
  return strcmp (t_ctl_state_of (store, SLOW), "remapped") == 0;
}

/* The slow read, until its client has an error. */
static void
read_slowly (struct nbd_handle *h, struct t_disk *d)
{
  uint64_t begun_ms = t_now_ms (), took_ms;

  t_fault_set (d->fault, "read %d-%d errno=0 delay-ms=%u times=1\n", SLOW,
               SLOW + NR - 1, slow_ms ());
  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, SLOW, NR), EIO);
  took_ms = t_now_ms () - begun_ms;
  T_ASSERT (took_ms >= 1000);
  if (t_fault_touches (d->fault, "r", SLOW) > 0)
    T_FAIL ("the disk had answered: this test shows nothing (%d ms)",
            (int) took_ms);
}

/* While the disk sits on it. */
static void
do_other_things (struct nbd_handle *h, struct t_disk *d)
{
  t_nbd_expect (h, ELSEWHERE, 16, 1);
  t_nbd_expect (h, SLOW - 8, 8, 1);
  T_OK (t_nbd_put (h, ELSEWHERE, 8, 2));
  T_OK (t_nbd_put (h, WRITTEN, 1, 2));
  t_nbd_expect (h, WRITTEN, 1, 2);
  T_OK (t_nbd_flush (h));
  T_ERRNO (t_nbd_touch (h, SLOW + 4, 1), EIO);
  if (t_fault_touches (d->fault, "r", SLOW + 4) > 0)
    T_FAIL ("the disk had answered: this test shows nothing");
}

static void
check_content (struct nbd_handle *h)
{
  t_nbd_expect (h, SLOW, 2, 1);
  t_nbd_expect (h, WRITTEN, 1, 2);
  t_nbd_expect (h, SLOW + 3, NR - 3, 1);
  t_nbd_expect (h, ELSEWHERE, 8, 2);
  t_nbd_expect (h, ELSEWHERE + 8, 8, 1);
}

/* From spares, but for what has been written in place. */
static void
check_kept (struct nbd_handle *h, struct t_disk *d)
{
  t_fault_set (d->fault, "%s", "");
  t_fault_mark (d->fault);
  check_content (h);
  for (uint64_t lba = SLOW; lba < SLOW + NR; lba++)
    if (lba != WRITTEN && t_fault_touches (d->fault, "r", lba) > 0)
      T_FAIL ("sector %d was touched again", (int) lba);
  T_ASSERT (t_ctl_count (d->store, "remapped") == NR - 1);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1, .connections = 16 };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s deadline=1", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  read_slowly (h, d);
  T_ASSERT (t_server_has_said (s, "no answer for 1 seconds"));
  do_other_things (h, d);
  t_wait_until (read_has_ended, d->fault, LIMIT_MS, "the slow read");
  t_wait_until (is_kept, d->store, LIMIT_MS, "the data in spares");
  check_kept (h, d);

  t_server_kill (s);
  t_nbd_close (h);
  t_server_restart (s);
  h = t_nbd_connect (s);
  check_kept (h, d);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

/* An error comes in the end: lost, as always.  The server is told to stop
 * before, and waits for it.
 */
static void
test_error (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1, .connections = 16 };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s deadline=1 retries=0",
                                       t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  t_fault_set (d->fault, "read %d delay-ms=%u\n", SLOW,
               1500 + 500 * t_scale ());
  T_ERRNO (t_nbd_touch (h, SLOW, 1), EIO);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
  t_nbd_close (h);
  t_server_stop (s);
  T_ASSERT (t_server_has_said (s, "waiting for 1 reads"));
  T_ASSERT (strcmp (t_ctl_state_of (d->store, SLOW), "lost") == 0);
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, SLOW, 1), EIO);
  T_ASSERT (t_fault_touches (d->fault, "r", SLOW) == 0);
  t_nbd_expect (h, SLOW + 8, 8, 1);
  t_nbd_close (h);
  t_server_stop (s);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-deadline", 120);
  t_disk_each (t_disk_failing_kinds, test);
  t_disk_each (t_disk_failing_kinds, test_error);
  return t_end ();
}
