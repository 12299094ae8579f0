/* SPDX-License-Identifier: BSD-3-Clause */
/* A read of a remapped sector is slow.  While it is under way the sector is
 * written again, into another spare, and its old spare is given to another
 * sector: the reader gets the sector's old or new content, not the other's.
 */

#include <config.h>

#include <pthread.h>
#include <stdatomic.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"
#include "t_wait.h"

enum { READ = 1000, OTHERS = 1001, NR_OTHERS = 8, SLOW_MS = 700 };

struct reader {
  pthread_t thread;
  struct t_server *server;
  atomic_bool is_done;
  uint32_t gen;                 /* what it has read */
};

static void *
reader_main (void *arg)
{
  struct reader *r = arg;
  struct nbd_handle *h = t_nbd_connect (r->server);
  char buf[T_SECTOR];

  T_OK (t_nbd_read (h, buf, sizeof buf, READ * T_SECTOR));
  if (!t_pattern_generation (buf, READ, &r->gen))
    T_FAIL ("sector %d was read as %s", READ,
            t_pattern_describe (buf, T_SECTOR));
  t_nbd_close (h);
  r->is_done = true;
  return NULL;
}

static bool
read_is_delayed (void *fault)
{
  return t_fault_requests (fault, "d") > 0;
}

/* Begin a read that the spare at this place of the store holds up. */
static void
begin_slow_read (struct reader *r, struct t_disk *store, int64_t place)
{
  t_fault_set (store->fault, "read %d errno=0 delay-ms=%u times=1\n",
               (int) (place / T_SECTOR), SLOW_MS * t_scale ());
  t_fault_mark (store->fault);
  if (pthread_create (&r->thread, NULL, reader_main, r))
    T_FAIL ("pthread_create");
  t_wait_until (read_is_delayed, store->fault, 5000, "the slow read");
}

/* Write other sectors until one of them has this spare: in few requests, or
 * one of them would be in line behind the slow one.
 */
static void
reuse_spare (struct nbd_handle *h, struct t_disk *store, int64_t place)
{
  char buf[T_SECTOR];

  for (unsigned i = 0; i < NR_OTHERS; i++) {
    if (i == 0)
      T_OK (t_nbd_flush (h));   /* the spare becomes free */
    T_OK (t_nbd_put (h, OTHERS + i, 1, 4));
    t_image_read (store->image, buf, sizeof buf, place);
    if (!t_pattern_matches (buf, sizeof buf, READ * T_SECTOR, 2, NULL))
      return;
  }
  T_FAIL ("the spare was not used again: this test shows nothing");
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .gen = 1, .connections = 32,
    .faults = t_str ("write %d-%d\n", READ, OTHERS + NR_OTHERS - 1),
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_disk *store = t_store_on_failing_disk (d, "spare-size=16K");
  struct t_server *s = t_server_start ("backing=%s spare=%s", d->path,
                                       store->path);
  struct nbd_handle *h = t_nbd_connect (s);
  struct reader reader = { .server = s };
  int64_t place;

  T_OK (t_nbd_put (h, READ, 1, 2));
  place = t_image_find (store->image, READ, 2);
  T_ASSERT (place >= 0);
  begin_slow_read (&reader, store, place);
  T_OK (t_nbd_put (h, READ, 1, 3));
  reuse_spare (h, store, place);
  if (reader.is_done)
    T_FAIL ("the read was not slow enough: this test shows nothing");
  pthread_join (reader.thread, NULL);
  T_ASSERT (reader.gen == 2 || reader.gen == 3);
  t_nbd_expect (h, READ, 1, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (store->path);
  t_disk_free (store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-read-of-reused-spare", 30);
  t_disk_each (t_disk_fuse_only, test);
  return t_end ();
}
