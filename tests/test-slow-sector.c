/* SPDX-License-Identifier: BSD-3-Clause */
/* A bad sector that the disk sits on, whenever it is touched, holds up nobody:
 * while its reader waits, others read and write, beside it too, have sectors
 * remapped and lost, and flush.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { SLOW = 2004, BAD = 3000, NR_BAD = 4, ELSEWHERE = 4000 };

/* How long the disk sits on each touch. */
enum { SLOW_MS = 5000 };

struct reader {
  pthread_t thread;
  struct t_server *server;
  int err;
};

static void *
reader_main (void *arg)
{
  struct reader *r = arg;
  struct nbd_handle *h = t_nbd_connect (r->server);

  r->err = t_nbd_touch (h, SLOW, 1);
  t_nbd_close (h);
  return NULL;
}

/* The disk has begun to sit on the nth touch. */
struct touch {
  struct t_fault *fault;
  unsigned nth;
};

static bool
is_touched (void *arg)
{
  const struct touch *t = arg;

  return t_fault_requests (t->fault, "d") >= t->nth;
}

/* round: other sectors and generations each time. */
static void
do_other_things (struct nbd_handle *h, unsigned round)
{
  uint64_t bad = BAD + 2 * round;

  t_nbd_expect (h, ELSEWHERE + 100, 16, 1);
  T_OK (t_nbd_put (h, ELSEWHERE, 8, 2 + round));
  t_nbd_expect (h, ELSEWHERE, 8, 2 + round);
  T_OK (t_nbd_put (h, SLOW - 8, 8, 2 + round));
  T_OK (t_nbd_put (h, SLOW + 1, 8, 2 + round));
  t_nbd_expect (h, SLOW - 8, 8, 2 + round);
  T_OK (t_nbd_put (h, bad, 1, 2));
  t_nbd_expect (h, bad, 1, 2);
  T_ERRNO (t_nbd_touch (h, bad + 1, 1), EIO);
  T_OK (t_nbd_flush (h));
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1, .connections = 16 };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s retries=2", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);
  struct reader reader = { .server = s };
  struct touch touch = { .fault = d->fault };

  t_fault_set (d->fault, "read %d delay-ms=%u\nboth %d-%d\n", SLOW,
               SLOW_MS * t_scale (), BAD, BAD + NR_BAD - 1);
  t_fault_mark (d->fault);
  if (pthread_create (&reader.thread, NULL, reader_main, &reader))
    T_FAIL ("pthread_create");
  /* In the first touch the request is under way, in the second the sector is
   * alone with its thread.
   */
  for (touch.nth = 1; touch.nth <= 2; touch.nth++) {
    t_wait_until (is_touched, &touch, 4 * SLOW_MS, "the slow read");
    do_other_things (h, touch.nth - 1);
    if (t_fault_touches (d->fault, "r", SLOW) >= touch.nth)
      T_FAIL ("the disk had answered: others were held up, or this machine is "
              "slow");
  }
  pthread_join (reader.thread, NULL);
  T_ASSERT (reader.err == EIO);
  T_ASSERT (strcmp (t_ctl_state_of (d->store, SLOW), "lost") == 0);
  T_ASSERT (t_ctl_count (d->store, "remapped") == 2);
  T_ASSERT (t_ctl_count (d->store, "lost") == 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-slow-sector", 120);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
