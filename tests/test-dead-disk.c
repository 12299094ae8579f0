/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk that answers EIO to everything, takes no writes any more, or fails for
 * a while, is not a disk full of bad sectors: no spare is given out, clients get
 * the error, and all goes on when it is back.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { NR_SECTORS = 16384, NR_CLIENTS = 4, OWN = NR_SECTORS / NR_CLIENTS };

static struct t_disk *disk;

static void
set_dead (bool is_dead)
{
  t_fault_set (disk->fault, "%s", is_dead ? t_str ("all 0-%d", NR_SECTORS - 1)
               : "");
}

static bool
breaker_is (void *state)
{
  json_t *status = t_ctl_json ("status", disk->store);
  const char *is = json_string_value (json_object_get (status, "breaker"));
  bool r = is && strcmp (is, state) == 0;

  json_decref (status);
  return r;
}

static bool
nothing_is_lost (void *unused)
{
  (void) unused;
  return t_ctl_count (disk->store, "lost") == 0;
}

static void
wait_for_breaker (const char *state)
{
  t_wait_until (breaker_is, (void *) (uintptr_t) state, 20000, state);
}

static void
expect_unused_store (void)
{
  T_ASSERT (t_ctl_count (disk->store, "remapped") == 0);
  T_ASSERT (t_ctl_count (disk->store, "lost") == 0);
  T_ASSERT (t_ctl_status (disk->store, "spares_free") ==
            t_ctl_status (disk->store, "spares_total"));
}

/* Requests of every kind and size fail. */
static void
expect_dead (struct nbd_handle *h)
{
  char byte = 'x';

  for (unsigned i = 0; i < 100; i++) {
    uint64_t lba = (i * 163) % (NR_SECTORS - 2048);

    T_ERRNO (t_nbd_touch (h, lba, i % 10 == 0 ? 2048 : 1 + i % 9), EIO);
    T_ERRNO (t_nbd_put (h, lba, i % 10 == 0 ? 2048 : 1 + i % 9, 2), EIO);
  }
  T_ERRNO (t_nbd_write (h, &byte, 1, 777), EIO);
  T_ERRNO (t_nbd_zero (h, 4 << 20, 0), EIO);
}

static void
test_dead (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("%s, dead", t_disk_kind_name (disk->kind));
  t_nbd_expect (h, 100, 800, 1);
  set_dead (true);
  expect_dead (h);
  wait_for_breaker ("open");
  expect_unused_store ();
  T_ASSERT (t_server_has_said (s, "does not answer"));

  /* A server that is started then has nothing to go by. */
  t_server_kill (s);
  t_nbd_close (h);
  t_server_restart (s);
  h = t_nbd_connect (s);
  expect_dead (h);
  expect_unused_store ();

  set_dead (false);
  wait_for_breaker ("closed");
  T_ASSERT (t_server_has_said (s, "answers again"));
  t_nbd_expect (h, 0, NR_SECTORS, 1);
  T_OK (t_nbd_put (h, 5000, 3000, 2));
  t_nbd_expect (h, 5000, 3000, 2);
  T_OK (t_nbd_put (h, 5000, 3000, 1));
  expect_unused_store ();
  t_nbd_close (h);
}

static void
test_read_only (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("%s, read-only", t_disk_kind_name (disk->kind));
  t_fault_set (disk->fault, "both 200-207");
  T_OK (t_nbd_put (h, 200, 8, 1));
  T_ASSERT (t_ctl_count (disk->store, "remapped") == 8);

  t_fault_set (disk->fault, "write 0-%d\ntrim 0-%d", NR_SECTORS - 1,
               NR_SECTORS - 1);
  for (unsigned i = 0; i < 100; i++)
    T_ERRNO (t_nbd_put (h, 1000 + 100 * i, 1 + i % 20, 2), EIO);
  T_ERRNO (t_nbd_zero (h, 4 << 20, 1 << 20), EIO);
  wait_for_breaker ("read-only");
  T_ASSERT (t_ctl_count (disk->store, "remapped") == 8);
  t_nbd_expect (h, 0, NR_SECTORS, 1);
  T_OK (t_nbd_put (h, 200, 8, 1));      /* to their spares */

  t_fault_set (disk->fault, "%s", "");
  wait_for_breaker ("closed");
  T_OK (t_nbd_put (h, 1000, 3000, 1));
  t_nbd_expect (h, 0, NR_SECTORS, 1);
  T_ASSERT (t_ctl_count (disk->store, "remapped") == 8);
  t_nbd_close (h);
}

/* The disk dies and comes back under load. */

static atomic_bool has_enough;

struct client {
  pthread_t thread;
  struct t_server *server;
  uint64_t first;
  unsigned nr_done, nr_failed;
};

/* Whatever it writes is what stands there. */
static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  for (unsigned i = 0; !has_enough; i++) {
    uint64_t lba = c->first + (i * 331) % (OWN - 64);
    unsigned nr = 1 + i % 64;
    int err = i % 3 ? t_nbd_touch (h, lba, nr) : t_nbd_put (h, lba, nr, 1);

    if (err != 0)
      T_ASSERT (err == EIO);
    c->nr_done += err == 0;
    c->nr_failed += err != 0;
  }
  t_nbd_close (h);
  return NULL;
}

static void
test_under_load (struct t_server *s)
{
  struct client clients[NR_CLIENTS];
  unsigned nr_failed = 0;

  t_part ("%s, under load", t_disk_kind_name (disk->kind));
  has_enough = false;
  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) { .server = s, .first = i * OWN };
    T_ASSERT (pthread_create (&clients[i].thread, NULL, client_main,
                              &clients[i]) == 0);
  }
  for (unsigned i = 0; i < 3; i++) {
    set_dead (true);
    wait_for_breaker ("open");
    set_dead (false);
    wait_for_breaker ("closed");
  }
  has_enough = true;
  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    pthread_join (clients[i].thread, NULL);
    T_ASSERT (clients[i].nr_done > 0);
    nr_failed += clients[i].nr_failed;
  }
  T_ASSERT (nr_failed > 0);
  t_wait_until (nothing_is_lost, NULL, 20000, "nothing is lost");
  /* One place each time, if it died while that was written back. */
  T_ASSERT (t_ctl_count (disk->store, "remapped") <= 8 + 3 * 8);
}

/* Each sector fails as often as it is tried: lost, by the hundred; and then all
 * of them can be read.
 */
static void
test_burst (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);
  uint64_t nr_lost;

  t_part ("%s, burst", t_disk_kind_name (disk->kind));
  t_fault_set (disk->fault, "read 8000-8399 times=3");
  for (unsigned i = 0; i < 400; i += 8)
    t_nbd_touch (h, 8000 + i, 8);
  nr_lost = t_ctl_count (disk->store, "lost");
  T_ASSERT (nr_lost > 64);
  t_wait_until (nothing_is_lost, NULL, 20000, "nothing is lost");
  t_fault_set (disk->fault, "%s", "");
  t_nbd_expect (h, 0, NR_SECTORS, 1);
  t_nbd_close (h);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .gen = 1 };
  struct nbd_handle *h;
  struct t_server *s;

  disk = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  s = t_server_start ("%s", t_disk_params (disk));
  test_dead (s);
  test_read_only (s);
  test_under_load (s);
  test_burst (s);
  t_server_stop (s);
  t_ctl_check (disk->store);
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, 0, NR_SECTORS, 1);
  T_ASSERT (t_ctl_count (disk->store, "lost") == 0);
  t_nbd_close (h);
  t_server_stop (s);
  t_disk_free (disk);
}

int
main (void)
{
  t_begin ("test-dead-disk", 120);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
