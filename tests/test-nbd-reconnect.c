/* SPDX-License-Identifier: BSD-3-Clause */
/* The NBD server that has the disk is killed and started again, under load, and
 * each time has forgotten all that it had not flushed: nothing is remapped, or
 * called lost; what was written is there.  While it is away, requests wait, and
 * fail with ESHUTDOWN when timeout= is over.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { NR_CLIENTS = 4, OWN = 256, ROUNDS = 6, SIZE = 8 << 20 };

static struct t_fault *
start_export (void)
{
  const struct t_fault_options options = { .volatile_cache = true };
  static unsigned counter;
  char *image = t_path ("image-%u", counter++);

  t_image_create (image, SIZE, 1);
  return t_fault_start_with (image, &options);
}

static struct t_server *
serve (const struct t_fault *f, const char *more)
{
  static unsigned counter;
  const unsigned n = counter++;

  return t_server_start ("backing=%s spare=%s control=%s %s", f->uri,
                         t_path ("store-%u", n), t_path ("ctl-%u", n), more);
}

static unsigned
count_said (const struct t_server *s, const char *text)
{
  unsigned nr = 0;

  for (const char *p = t_read_file (s->log); (p = strstr (p, text)); p++)
    nr++;
  return nr;
}

/* Nothing was remapped, lost or marked. */
static void
check_clean (const struct t_server *s)
{
  char *control = strstr (t_str ("%s", s->params), "control=") + 8;

  control[strcspn (control, " ")] = '\0';
  T_ASSERT (t_ctl_count (control, "remapped") == 0);
  T_ASSERT (t_ctl_count (control, "lost") == 0);
  T_ASSERT (t_ctl_status (control, "errors.read") == 0);
  T_ASSERT (t_ctl_status (control, "errors.write") == 0);
}

/* Under load. */

struct client {
  pthread_t thread;
  struct t_server *server;
  uint64_t first;
  unsigned seed;
  uint32_t gens[OWN];
};

static atomic_bool enough;
static atomic_uint nr_done;

static void
write_some (struct client *c, struct nbd_handle *h)
{
  unsigned at = rand_r (&c->seed) % OWN;
  unsigned nr = 1 + rand_r (&c->seed) % (OWN - at < 16 ? OWN - at : 16);
  uint32_t gen = 2 + rand_r (&c->seed) % 100000;
  char buf[16 * T_SECTOR];

  t_pattern_fill (buf, nr * T_SECTOR, (c->first + at) * T_SECTOR, gen);
  if (rand_r (&c->seed) % 8 == 0)
    T_OK (t_nbd_write_fua (h, buf, nr * T_SECTOR,
                           (c->first + at) * T_SECTOR));
  else
    T_OK (t_nbd_write (h, buf, nr * T_SECTOR, (c->first + at) * T_SECTOR));
  for (unsigned i = 0; i < nr; i++)
    c->gens[at + i] = gen;
}

static void
zero_some (struct client *c, struct nbd_handle *h)
{
  unsigned at = rand_r (&c->seed) % (OWN - 8);

  T_OK (t_nbd_zero (h, 8 * T_SECTOR, (c->first + at) * T_SECTOR));
  memset (c->gens + at, 0, 8 * sizeof c->gens[0]);
}

static void
check_all (struct client *c, struct nbd_handle *h)
{
  char buf[OWN * T_SECTOR];

  T_OK (t_nbd_read (h, buf, sizeof buf, c->first * T_SECTOR));
  for (unsigned i = 0; i < OWN; i++)
    t_pattern_check (buf + i * T_SECTOR, T_SECTOR, (c->first + i) * T_SECTOR,
                     c->gens[i], "what was written last");
}

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  while (!enough) {
    unsigned n = rand_r (&c->seed) % 32;

    if (n == 0)
      T_OK (t_nbd_flush (h));
    else if (n < 3)
      zero_some (c, h);
    else if (n < 10)
      check_all (c, h);
    else
      write_some (c, h);
    nr_done++;
  }
  check_all (c, h);
  t_nbd_close (h);
  return NULL;
}

static bool
is_done (void *target)
{
  return nr_done >= *(unsigned *) target;
}

static void
wait_for_more (unsigned nr)
{
  unsigned target = nr_done + nr;

  t_wait_until (is_done, &target, 30000, "requests to be answered");
}

static void
check_image (const struct client *clients, const char *image)
{
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    for (unsigned j = 0; j < OWN; j++)
      t_image_check (image, clients[i].first + j, 1, clients[i].gens[j]);
}

static void
test_load (const char *more)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) atoi (given) : (unsigned) t_now_ms ();
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, more);
  struct client clients[NR_CLIENTS];
  struct nbd_handle *h;

  t_part ("under load %s", more);
  t_note ("REMAP_TEST_SEED=%u", seed);
  enough = false;
  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) {
      .server = s, .first = 1000 + i * OWN, .seed = seed + i,
    };
    for (unsigned j = 0; j < OWN; j++)
      clients[i].gens[j] = 1;
    T_ASSERT (pthread_create (&clients[i].thread, NULL, client_main,
                              &clients[i]) == 0);
  }
  for (unsigned round = 0; round < ROUNDS; round++) {
    wait_for_more (100);
    if (round == 1)             /* it says farewell, and ESHUTDOWN */
      kill (f->pid, SIGTERM);
    t_fault_kill (f);
    t_fault_lose_cache (f, round % 2 ? seed : 0);
    t_fault_restart (f);
  }
  wait_for_more (100);
  enough = true;
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
  T_ASSERT (count_said (s, "is lost") >= ROUNDS);
  T_ASSERT (count_said (s, "is lost") == count_said (s, "is back"));
  check_clean (s);

  /* A flush makes it durable; and so is what comes behind it with direct=on. */
  h = t_nbd_connect (s);
  T_OK (t_nbd_flush (h));
  T_OK (t_nbd_put (h, 0, 8, 7));
  t_nbd_close (h);
  t_server_kill (s);
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  check_image (clients, f->image);
  t_image_check (f->image, 0, 8, strcmp (more, "direct=on") == 0 ? 7 : 1);
  t_fault_restart (f);
  t_fault_stop (f);
}

/* Longer than timeout=. */

static bool
reads_again (void *h)
{
  return t_nbd_touch (h, 100, 8) == 0;
}

static void
test_timeout (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=1 -v -D remap.io=1");
  struct nbd_handle *h = t_nbd_connect (s);
  uint64_t begin;

  t_part ("longer than timeout=");
  T_OK (t_nbd_put (h, 100, 8, 2));
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  begin = t_now_ms ();
  T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
  T_ASSERT (t_now_ms () - begin >= 900);
  T_ERRNO (t_nbd_put (h, 300, 8, 2), ESHUTDOWN);
  T_ERRNO (t_nbd_flush (h), ESHUTDOWN);
  T_ERRNO (t_nbd_zero (h, 4096, 1 << 20), ESHUTDOWN);

  t_part ("growing pauses");
  T_ASSERT (count_said (s, "in 100 ms") == 1);
  T_ASSERT (count_said (s, "in 200 ms") == 1);
  T_ASSERT (count_said (s, "in 400 ms") == 1);
  T_ASSERT (count_said (s, "the connection is lost") == 1);

  /* The flush that failed had nothing to answer for. */
  t_part ("it is back");
  t_fault_restart (f);
  t_wait_until (reads_again, h, 20000, "the connection to be back");
  T_ASSERT (count_said (s, "the connection is back") == 1);
  t_nbd_expect (h, 100, 8, 2);
  T_OK (t_nbd_flush (h));
  t_image_check (f->image, 100, 8, 2);
  check_clean (s);

  t_part ("another export");
  T_OK (t_nbd_put (h, 100, 8, 3));
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  T_ASSERT (truncate (f->image, SIZE / 2) == 0);
  t_fault_restart (f);
  T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
  T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
  T_ASSERT (count_said (s, "another export than before") == 1);
  t_image_check (f->image, 100, 8, 2);  /* nothing was written to it */
  t_fault_kill (f);
  T_ASSERT (truncate (f->image, SIZE) == 0);
  t_fault_restart (f);
  t_wait_until (reads_again, h, 20000, "the connection to be back");
  t_nbd_expect (h, 100, 8, 3);
  T_OK (t_nbd_flush (h));

  t_part ("the server is stopped meanwhile");
  T_OK (t_nbd_put (h, 100, 8, 4));
  t_fault_kill (f);
  t_nbd_close (h);
  begin = t_now_ms ();
  t_server_stop (s);
  T_ASSERT (t_now_ms () - begin < 10000 * t_scale ());
  t_fault_restart (f);
  t_fault_stop (f);
}

/* What was written cannot be written again. */
static void
test_lost_writes (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("writes that are lost");
  T_OK (t_nbd_put (h, 100, 8, 2));
  T_OK (t_nbd_put (h, 200, 8, 2));
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_fault_set (f, "write 104\n");
  t_fault_restart (f);
  t_nbd_expect (h, 200, 8, 2);
  T_ASSERT (t_server_has_said (s, "cannot be written again"));
  T_ERRNO (t_nbd_flush (h), EIO);
  T_ERRNO (t_nbd_flush (h), EIO);
  t_nbd_expect (h, 100, 8, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* A server that answers ESHUTDOWN and goes on: that is its answer, which remaps
 * nothing, and all else works on.
 */
static void
test_shutdown (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=2");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("ESHUTDOWN");
  t_fault_set (f, "read 100 errno=ESHUTDOWN times=1\n"
               "write 200 errno=ESHUTDOWN times=1\n");
  T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
  t_nbd_expect (h, 100, 8, 1);
  T_ERRNO (t_nbd_put (h, 200, 8, 2), ESHUTDOWN);
  T_OK (t_nbd_put (h, 200, 8, 2));
  t_nbd_expect (h, 200, 8, 2);
  t_fault_set (f, "read 100 errno=ESHUTDOWN\n");
  T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
  t_nbd_expect (h, 200, 8, 2);
  T_ASSERT (count_said (s, "is lost") == 0);
  check_clean (s);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* Served read-only, it may be read-only now. */
static void
test_readonly (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=5 -r");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("read-only");
  T_OK (t_nbd_touch (h, 100, 8));
  t_fault_kill (f);
  f->options.nbdkit = "-r";
  t_fault_restart (f);
  t_nbd_expect (h, 100, 8, 1);
  T_ASSERT (count_said (s, "another export") == 0);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* More than can be remembered is flushed. */
static void
test_much (void)
{
  const uint64_t size = 80 << 20, step = 4 << 20;
  const struct t_fault_options options = { .volatile_cache = false };
  char *image = t_path ("large");
  struct t_fault *f;
  struct t_server *s;
  struct nbd_handle *h;

  t_part ("more than is remembered");
  t_image_create (image, 1 << 20, 0);
  T_ASSERT (truncate (image, (off_t) size) == 0);
  f = t_fault_start_with (image, &options);
  s = serve (f, "");
  h = t_nbd_connect (s);
  t_fault_mark (f);
  for (uint64_t at = 0; at < size; at += step)
    T_OK (t_nbd_put (h, at / T_SECTOR, step / T_SECTOR, 2));
  T_ASSERT (t_fault_requests (f, "f") == 1);
  t_fault_mark (f);
  t_fault_kill (f);
  t_fault_restart (f);
  t_nbd_expect (h, 0, 8, 2);
  T_ASSERT (t_fault_requests (f, "w") >= 4);
  T_ASSERT (t_fault_requests (f, "w") <= 5);
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

static bool
is_read (void *fault)
{
  return t_fault_touches (fault, "r", 0) > 0 &&
    t_fault_touches (fault, "r", 1000) > 0;
}

/* Reads that come late because the server was away say nothing of the disk. */
static void
test_deadline (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=60 deadline=1");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("deadline=");
  t_nbd_expect (h, 500, 8, 1);
  t_fault_mark (f);
  t_fault_kill (f);
  T_ERRNO (t_nbd_touch (h, 0, 8), ESHUTDOWN);
  T_ERRNO (t_nbd_touch (h, 1000, 8), ESHUTDOWN);
  t_fault_restart (f);
  t_wait_until (is_read, f, 60000, "the late reads");
  t_nbd_expect (h, 0, 2000, 1);
  check_clean (s);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

int
main (void)
{
  t_begin ("test-nbd-reconnect", 120);
  test_load ("");
  test_load ("direct=on");
  test_timeout ();
  test_lost_writes ();
  test_shutdown ();
  test_readonly ();
  test_much ();
  test_deadline ();
  return t_end ();
}
