/* SPDX-License-Identifier: BSD-3-Clause */
/* Several connections write at odd bytes of the same sectors, some of them
 * bad, at the same time: no write beside another one is lost.  And a disk that
 * ends in the middle of a sector is served to its last byte.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum {
  NR_CLIENTS = 6,
  FIRST = 96, NR_SECTORS = 40,  /* where they write */
  BYTES = NR_SECTORS * T_SECTOR,
  ROUNDS = 25,
  ODD = 777,                    /* bytes beyond the last whole MiB */
};

/* The bytes are cut into cells of odd lengths; cell i is of client i modulo
 * their number, and of nobody else.
 */
static unsigned cell_start[BYTES], nr_cells;

struct client {
  pthread_t thread;
  struct t_server *server;
  unsigned id, seed;
  char *expected;               /* shared: each client its own bytes */
};

static void
cut_into_cells (void)
{
  unsigned seed = 7, start = 0;

  for (nr_cells = 0; start < BYTES; nr_cells++) {
    cell_start[nr_cells] = start;
    start += 5 + rand_r (&seed) % 180;
  }
  cell_start[nr_cells] = BYTES;
}

/* Write each own cell, and see that the one before still is as it was. */
static void
write_cells (struct client *c, struct nbd_handle *h)
{
  char got[256];

  for (unsigned i = c->id; i < nr_cells; i += NR_CLIENTS) {
    const unsigned start = cell_start[i], n = cell_start[i + 1] - start;
    char *own = c->expected + start;

    for (unsigned j = 0; j < n; j++)
      own[j] = (char) rand_r (&c->seed);
    T_OK (t_nbd_write (h, own, n, FIRST * T_SECTOR + start));
    T_OK (t_nbd_read (h, got, n, FIRST * T_SECTOR + start));
    if (memcmp (got, own, n) != 0)
      T_FAIL ("client %u: bytes %u to %u do not read as written", c->id,
              start, start + n - 1);
  }
}

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  for (unsigned i = 0; i < ROUNDS; i++)
    write_cells (c, h);
  t_nbd_close (h);
  return NULL;
}

static void
run_clients (struct t_server *s, char *expected)
{
  struct client clients[NR_CLIENTS];

  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) {
      .server = s, .id = i, .seed = 100 + i, .expected = expected,
    };
    if (pthread_create (&clients[i].thread, NULL, client_main, &clients[i]))
      T_FAIL ("pthread_create");
  }
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
}

static void
check_cells (struct t_server *s, const char *expected)
{
  struct nbd_handle *h = t_nbd_connect (s);
  char *got = malloc (BYTES);

  if (got == NULL)
    T_FAIL ("out of memory");
  T_OK (t_nbd_read (h, got, BYTES, FIRST * T_SECTOR));
  for (unsigned i = 0; i < BYTES; i++)
    if (got[i] != expected[i])
      T_FAIL ("byte %u of sector %u is not what was written", i % T_SECTOR,
              FIRST + i / T_SECTOR);
  t_nbd_expect (h, 0, FIRST, 1);
  t_nbd_expect (h, FIRST + NR_SECTORS, 100, 1);
  free (got);
  t_nbd_close (h);
}

static void
test_concurrent (enum t_disk_kind kind)
{
  /* Readable but not writable, so that half of each change must be read from
   * the disk; 120 neither, and so written whole first.
   */
  const struct t_disk_options options = {
    .gen = 1,
    .faults = kind == T_DISK_PLAIN ? NULL
      : "write 100\nwrite 107-109\nboth 120\nwrite 135\n",
  };
  struct t_disk *d = t_disk_new (kind, 1 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);
  char *expected = malloc (BYTES);

  if (expected == NULL)
    T_FAIL ("out of memory");
  T_OK (t_nbd_put (h, 120, 1, 1));
  t_nbd_close (h);
  run_clients (s, expected);
  check_cells (s, expected);
  if (kind != T_DISK_PLAIN)
    T_ASSERT (t_ctl_count (d->store, "remapped") == 6);
  t_server_kill (s);
  t_server_restart (s);
  check_cells (s, expected);
  t_server_stop (s);
  t_ctl_check (d->store);
  free (expected);
  t_disk_free (d);
}

/* Write and read the end of a disk of odd size; nothing beyond it. */
static void
use_odd_end (struct nbd_handle *h, uint64_t size)
{
  char got[ODD], want[ODD];

  t_pattern_fill (want, ODD, size - ODD, 2);
  T_OK (t_nbd_write (h, want, ODD, size - ODD));
  t_pattern_fill (want + ODD - 1, 1, size - 1, 3);
  T_OK (t_nbd_write (h, want + ODD - 1, 1, size - 1));
  T_OK (t_nbd_read (h, got, ODD, size - ODD));
  T_ASSERT (memcmp (got, want, ODD) == 0);
  nbd_set_strict_mode (h, 0);   /* let the server refuse it */
  T_ASSERT (t_nbd_write (h, want, 2, size - 1) != 0);
  T_ASSERT (t_nbd_read (h, got, 2, size - 1) != 0);
}

static void
check_odd_end (struct t_server *s, uint64_t size)
{
  struct nbd_handle *h = t_nbd_connect (s);
  char got[ODD];

  T_ASSERT ((uint64_t) nbd_get_size (h) == size);
  T_OK (t_nbd_read (h, got, ODD, size - ODD));
  t_pattern_check (got, ODD - 1, size - ODD, 2, "before the last byte");
  t_pattern_check (got + ODD - 1, 1, size - 1, 3, "the last byte");
  T_OK (t_nbd_read (h, got, 1, size - 1));
  t_pattern_check (got, 1, size - 1, 3, "the last byte alone");
  t_nbd_close (h);
}

static void
test_odd_size (enum t_disk_kind kind, const char *faults)
{
  const uint64_t size = (1 << 20) + ODD;
  const struct t_disk_options options = { .gen = 1, .faults = faults };
  struct t_disk *d = t_disk_new (kind, size, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);

  T_ASSERT ((uint64_t) nbd_get_size (h) == size);
  use_odd_end (h, size);
  t_nbd_close (h);
  check_odd_end (s, size);
  t_server_kill (s);
  t_server_restart (s);
  check_odd_end (s, size);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

static void
test_odd_end (enum t_disk_kind kind)
{
  if (kind == T_DISK_LOOP)      /* has whole sectors only */
    return;
  t_part ("odd size, %s", t_disk_kind_name (kind));
  test_odd_size (kind, NULL);
  if (kind == T_DISK_PLAIN)
    return;
  t_part ("odd size, bad last sector");
  test_odd_size (kind, "write 2049\n");
  t_part ("odd size, unreadable last sector");
  test_odd_size (kind, "both 2048-2049\n");
}

int
main (void)
{
  t_begin ("test-unaligned-concurrent", 60);
  cut_into_cells ();
  t_disk_each (t_disk_all_kinds, test_concurrent);
  t_disk_each (t_disk_all_kinds, test_odd_end);
  return t_end ();
}
