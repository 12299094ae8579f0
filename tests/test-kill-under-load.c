/* SPDX-License-Identifier: BSD-3-Clause */
/* Killed under load (kill -9), again and again: every write that a client was
 * told succeeded is there after the restart; of a write that was under way
 * each sector is old or new.
 *
 * Sectors turn bad while the load runs.  REMAP_TEST_SEED repeats a run as far
 * as that can be repeated.
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
  NR_CLIENTS = 4, OWN = 256,    /* each client's sectors */
  FIRST = 1024,                 /* the first client's first sector */
  NR_SECTORS = 16384,
  ROUNDS = 6, MOST = 16,        /* sectors in a request */
};

struct client {
  pthread_t thread;
  struct t_server *server;
  uint64_t first;               /* lba */
  unsigned seed;
  uint32_t gen;
  uint32_t done[OWN], tried[OWN]; /* generations */
};

static struct client clients[NR_CLIENTS];
static atomic_uint nr_done;
static atomic_bool killed;

/* Write once; returns false when the server is gone. */
static bool
write_some (struct client *c, struct nbd_handle *h)
{
  const unsigned nr = 1 + rand_r (&c->seed) % MOST;
  const unsigned at = rand_r (&c->seed) % (OWN - nr + 1);
  char buf[MOST * T_SECTOR];
  int err;

  c->gen++;
  for (unsigned i = at; i < at + nr; i++)
    c->tried[i] = c->gen;
  t_pattern_fill (buf, nr * T_SECTOR, (c->first + at) * T_SECTOR, c->gen);
  err = c->gen % 16 == 0
    ? t_nbd_write_fua (h, buf, nr * T_SECTOR, (c->first + at) * T_SECTOR)
    : t_nbd_write (h, buf, nr * T_SECTOR, (c->first + at) * T_SECTOR);
  if (err && killed)
    return false;
  if (err)
    T_FAIL ("writing %u sectors at %llu: %s", nr,
            (unsigned long long) c->first + at, strerrorname_np (err));
  for (unsigned i = at; i < at + nr; i++)
    c->done[i] = c->gen;
  nr_done++;
  return true;
}

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  while (write_some (c, h))
    continue;
  t_nbd_close (h);
  return NULL;
}

static bool
enough_is_done (void *target)
{
  return nr_done >= *(unsigned *) target;
}

/* What is on the disk now is what must stay until it is written again. */
static void
check_client (struct client *c, struct nbd_handle *h)
{
  char buf[OWN * T_SECTOR];
  uint32_t gen;

  T_OK (t_nbd_read (h, buf, sizeof buf, c->first * T_SECTOR));
  for (unsigned i = 0; i < OWN; i++) {
    const char *sector = buf + i * T_SECTOR;
    const uint64_t lba = c->first + i;

    if (!t_pattern_generation (sector, lba, &gen) ||
        (gen != c->done[i] && gen != c->tried[i]))
      T_FAIL ("sector %llu: generation %u was acknowledged, %u tried, it has "
              "%s", (unsigned long long) lba, c->done[i], c->tried[i],
              t_pattern_describe (sector, T_SECTOR));
    c->done[i] = c->tried[i] = gen;
  }
}

static void
check_clients (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  for (unsigned i = 0; i < NR_CLIENTS; i++)
    check_client (&clients[i], h);
  t_nbd_close (h);
}

/* More and more sectors can no longer be written. */
static const char *
faults_of_round (unsigned round, unsigned *seed)
{
  static char *faults = NULL;

  if (round == 0)
    faults = t_str ("%s", "both 1100-1103\nboth 1500\n");
  for (unsigned i = 0; i < 30; i++)
    faults = t_str ("%swrite %u\n", faults,
                    FIRST + rand_r (seed) % (NR_CLIENTS * OWN));
  return faults;
}

static void
run_round (struct t_disk *d, struct t_server *s, unsigned round,
           unsigned *seed)
{
  unsigned target = 150 + rand_r (seed) % 300;

  nr_done = 0;
  killed = false;
  t_fault_set (d->fault, "%s", faults_of_round (round, seed));
  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i].server = s;
    if (pthread_create (&clients[i].thread, NULL, client_main, &clients[i]))
      T_FAIL ("pthread_create");
  }
  t_wait_until (enough_is_done, &target, 20000, "writes to be done");
  killed = true;
  t_server_kill (s);
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
  t_server_restart (s);
  check_clients (s);
}

/* All sectors written once, so that those that cannot be read have content. */
static void
prepare (struct t_server *s, unsigned seed)
{
  struct nbd_handle *h = t_nbd_connect (s);

  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) {
      .first = FIRST + i * OWN, .seed = seed + i, .gen = 1,
    };
    for (unsigned j = 0; j < OWN; j++)
      clients[i].done[j] = clients[i].tried[j] = 1;
    T_OK (t_nbd_put (h, clients[i].first, OWN, 1));
  }
  t_nbd_close (h);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = {
    .faults = "both 1100-1103\nboth 1500\n",
  };
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) atoi (given) : (unsigned) t_now_ms ();
  struct t_disk *d = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));

  t_note ("REMAP_TEST_SEED=%u", seed);
  prepare (s, seed);
  for (unsigned round = 0; round < ROUNDS; round++)
    run_round (d, s, round, &seed);
  T_ASSERT (t_ctl_count (d->store, "remapped") > 20);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-kill-under-load", 60);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
