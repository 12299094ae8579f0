/* SPDX-License-Identifier: BSD-3-Clause */
/* Thousands of bad sectors spread over the disk, met by eight connections at
 * the same time: every one is remapped and counted, none twice, all data is
 * there, and the server answers "remapctl status" all the while.
 */

#include <config.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum {
  NR_CLIENTS = 8,
  NR_SECTORS = 65536, EVERY = 32, NR_BAD = NR_SECTORS / EVERY,
  OWN = NR_SECTORS / NR_CLIENTS, AT_ONCE = 64,
};

struct client {
  pthread_t thread;
  struct t_server *server;
  uint64_t first;
};

static pthread_barrier_t all_ready;
static atomic_uint nr_running;

/* All clients begin at the same time. */
static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  pthread_barrier_wait (&all_ready);
  for (unsigned i = 0; i < OWN; i += AT_ONCE)
    T_OK (t_nbd_put (h, c->first + i, AT_ONCE, 2));
  t_nbd_close (h);
  nr_running--;
  return NULL;
}

static char *
many_faults (void)
{
  char *r = malloc (NR_BAD * 20);
  size_t n = 0;

  if (r == NULL)
    T_FAIL ("out of memory");
  for (unsigned i = 0; i < NR_BAD; i++)
    n += sprintf (r + n, "write %u\n", i * EVERY + 7);
  return r;
}

/* While the clients run: is there always an answer, and soon? */
static unsigned
ask_until_done (const char *where)
{
  unsigned nr_answers = 0;

  do {
    const uint64_t start = t_now_ms ();

    T_ASSERT (t_ctl_status (where, "remapped") <= NR_BAD);
    T_ASSERT (t_now_ms () - start < 2000 * t_scale ());
    nr_answers++;
  } while (nr_running > 0);
  return nr_answers;
}

static void
run_clients (struct t_server *s, const char *store)
{
  struct client clients[NR_CLIENTS];

  nr_running = NR_CLIENTS;
  pthread_barrier_init (&all_ready, NULL, NR_CLIENTS + 1);
  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) { .server = s, .first = i * OWN };
    if (pthread_create (&clients[i].thread, NULL, client_main, &clients[i]))
      T_FAIL ("pthread_create");
  }
  pthread_barrier_wait (&all_ready);
  T_ASSERT (ask_until_done (store) > 0);
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
  pthread_barrier_destroy (&all_ready);
}

/* Every request that the disk failed is counted; none twice. */
static bool
all_are_counted (void *arg)
{
  struct t_disk *d = arg;
  const int64_t counted = t_ctl_status (d->store, "errors.write");

  if (d->kind == T_DISK_FUSE)
    return counted == t_fault_failures (d->fault, "w");
  return counted >= NR_BAD;     /* the kernel cuts and joins requests */
}

static void
check_all (struct t_server *s, struct t_disk *d)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, 0, NR_SECTORS, 2);
  t_nbd_close (h);
  T_ASSERT (t_ctl_status (d->store, "remapped") == NR_BAD);
  T_ASSERT (t_ctl_status (d->store, "lost") == 0);
  T_ASSERT (t_ctl_count (d->store, "remapped") == NR_BAD);
}

static void
test (enum t_disk_kind kind)
{
  char *faults = many_faults ();
  const struct t_disk_options options = { .gen = 1, .faults = faults };
  struct t_disk *d = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));

  run_clients (s, d->store);
  check_all (s, d);
  t_wait_until (all_are_counted, d, 5000, "all errors to be counted");
  t_server_kill (s);
  t_server_restart (s);
  check_all (s, d);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
  free (faults);
}

int
main (void)
{
  t_begin ("test-many-errors", 60);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
