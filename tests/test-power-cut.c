/* SPDX-License-Identifier: BSD-3-Clause */
/* Power cuts under load: of what the backing and the store had not flushed,
 * each write is lost, there, or there in part.  Whatever was acknowledged
 * before a completed flush, or written with FUA, is there; every sector reads
 * as what it held at the last flush or as something written since.
 *
 * REMAP_TEST_SEED repeats a run as far as that can be repeated.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"
#include "t_wait.h"

enum {
  NR_CLIENTS = 3, OWN = 128,    /* each client's sectors */
  FIRST = 1024,
  ROUNDS = 8, MOST = 16,        /* sectors in a request */
};

/* Generations only grow, so that a range says what may be there. */
struct client {
  pthread_t thread;
  struct t_server *server;
  uint64_t first;               /* lba */
  unsigned seed;
  uint32_t gen;
  uint32_t safe[OWN];           /* no older one may be there */
  uint32_t done[OWN];           /* acknowledged */
  uint32_t tried[OWN];          /* the newest that may be there */
};

static struct client clients[NR_CLIENTS];
static atomic_uint nr_done;
static atomic_bool cut;

/* False when the server is gone. */
static bool
went_well (int err, const char *what)
{
  if (err && !cut)
    T_FAIL ("%s: %s", what, strerrorname_np (err));
  return err == 0;
}

static bool
write_some (struct client *c, struct nbd_handle *h)
{
  const unsigned nr = 1 + rand_r (&c->seed) % MOST;
  const unsigned at = rand_r (&c->seed) % (OWN - nr + 1);
  const bool fua = rand_r (&c->seed) % 8 == 0;
  char buf[MOST * T_SECTOR];
  const uint64_t offset = (c->first + at) * T_SECTOR;

  c->gen++;
  for (unsigned i = at; i < at + nr; i++)
    c->tried[i] = c->gen;
  t_pattern_fill (buf, nr * T_SECTOR, offset, c->gen);
  if (!went_well (fua ? t_nbd_write_fua (h, buf, nr * T_SECTOR, offset)
                  : t_nbd_write (h, buf, nr * T_SECTOR, offset), "write"))
    return false;
  for (unsigned i = at; i < at + nr; i++) {
    c->done[i] = c->gen;
    if (fua)
      c->safe[i] = c->gen;
  }
  nr_done++;
  return true;
}

static bool
flush (struct client *c, struct nbd_handle *h)
{
  if (!went_well (t_nbd_flush (h), "flush"))
    return false;
  for (unsigned i = 0; i < OWN; i++)
    c->safe[i] = c->done[i];
  return true;
}

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);
  bool alive = true;

  while (alive)
    alive = rand_r (&c->seed) % 12 == 0 ? flush (c, h) : write_some (c, h);
  t_nbd_close (h);
  return NULL;
}

static bool
enough_is_done (void *target)
{
  return nr_done >= *(unsigned *) target;
}

static void
check_sector (struct client *c, unsigned i, const char *sector)
{
  uint32_t gen;

  if (!t_pattern_generation (sector, c->first + i, &gen) ||
      gen < c->safe[i] || gen > c->tried[i])
    T_FAIL ("sector %llu must have a generation from %u to %u, it has %s",
            (unsigned long long) c->first + i, c->safe[i], c->tried[i],
            t_pattern_describe (sector, T_SECTOR));
}

/* And then flush: what is there now must stay. */
static void
check_clients (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);
  char buf[OWN * T_SECTOR];

  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    struct client *c = &clients[i];

    T_OK (t_nbd_read (h, buf, sizeof buf, c->first * T_SECTOR));
    for (unsigned j = 0; j < OWN; j++) {
      check_sector (c, j, buf + j * T_SECTOR);
      t_pattern_generation (buf + j * T_SECTOR, c->first + j, &c->safe[j]);
      c->done[j] = c->tried[j] = c->safe[j];
    }
  }
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
}

/* All sectors written once and flushed; the disk is good so far. */
static void
prepare (struct t_server *s, unsigned seed)
{
  struct nbd_handle *h = t_nbd_connect (s);

  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) {
      .server = s, .first = FIRST + i * OWN, .seed = seed + i, .gen = 1,
    };
    for (unsigned j = 0; j < OWN; j++)
      clients[i].safe[j] = clients[i].done[j] = clients[i].tried[j] = 1;
    T_OK (t_nbd_put (h, clients[i].first, OWN, 1));
  }
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
}

/* A third of the sectors turns bad, some more in each round. */
static void
spoil (struct t_disk *d, unsigned *seed)
{
  const char *faults = t_read_file (d->fault->faults);

  for (unsigned i = 0; i < OWN * NR_CLIENTS / ROUNDS / 3; i++)
    faults = t_str ("%swrite %u\n", faults,
                    FIRST + rand_r (seed) % (NR_CLIENTS * OWN));
  t_fault_set (d->fault, "%s", faults);
}

static void
run_round (struct t_server *s, struct t_disk *const both[2], unsigned *seed)
{
  unsigned target = 20 + rand_r (seed) % 150;

  nr_done = 0;
  cut = false;
  spoil (both[0], seed);
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    if (pthread_create (&clients[i].thread, NULL, client_main, &clients[i]))
      T_FAIL ("pthread_create");
  t_wait_until (enough_is_done, &target, 20000, "writes to be done");
  cut = true;
  t_disk_cut_power (s, both, 2, 1 + rand_r (seed));
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
  t_server_restart_with (s, "backing=%s spare=%s", both[0]->path,
                         both[1]->path);
  check_clients (s);
}

static void
test (enum t_disk_kind kind)
{
  const struct t_disk_options options = { .volatile_cache = true };
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) atoi (given) : (unsigned) t_now_ms ();
  struct t_disk *both[2];
  struct t_server *s;

  t_note ("REMAP_TEST_SEED=%u", seed);
  both[0] = t_disk_new (kind, 8 << 20, &options);
  both[1] = t_store_on_failing_disk (both[0], "spare-size=256K");
  s = t_server_start ("backing=%s spare=%s", both[0]->path, both[1]->path);
  prepare (s, seed);
  for (unsigned round = 0; round < ROUNDS; round++)
    run_round (s, both, &seed);
  T_ASSERT (t_ctl_count (both[1]->path, "remapped") > 10);
  T_ASSERT (t_ctl_count (both[1]->path, "lost") == 0);
  t_server_stop (s);
  t_ctl_check (both[1]->path);
  t_disk_free (both[1]);
  t_disk_free (both[0]);
}

int
main (void)
{
  t_begin ("test-power-cut", 60);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
