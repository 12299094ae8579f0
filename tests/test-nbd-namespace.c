/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk is at the other end of a network, which is cut under load: with a
 * link that goes down, and silently.  Nothing is remapped for it; when the link
 * is back all goes on, and what was written is there.  A disk that is slow is
 * no link that is cut.
 *
 * This test has a network namespace of its own, and the NBD server another.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { NR_CLIENTS = 4, OWN = 64, PORT = 10809 };

#define HERE "192.0.2.1"
#define THERE "192.0.2.2"

static pid_t holder;            /* of the other namespace */

static int
run (const char *words)
{
  char *argv[30], *save = NULL;
  size_t n = 0;

  for (char *word = strtok_r (t_str ("%s", words), " ", &save); word;
       word = strtok_r (NULL, " ", &save))
    argv[n++] = word;
  argv[n] = NULL;
  return t_run (argv, &(struct t_spawn) { .stdin_from = NULL });
}

static void
must (const char *words)
{
  if (run (words) != 0)
    T_FAIL ("it failed: %s", words);
}

static const char *
in_there (void)
{
  return t_str ("nsenter --net=/proc/%d/ns/net", (int) holder);
}

static char *
namespace_of (const char *process)
{
  char link[100];
  ssize_t n = readlink (t_str ("/proc/%s/ns/net", process), link,
                        sizeof link - 1);

  link[n > 0 ? n : 0] = '\0';
  return t_str ("%s", link);
}

static bool
is_elsewhere (void *arg)
{
  (void) arg;
  return strcmp (namespace_of (t_str ("%d", (int) holder)),
                 namespace_of ("self")) != 0;
}

static void
make_network (void)
{
  char *const argv[] = { "unshare", "--net", "sleep", "3600", NULL };

  holder = t_spawn (argv, &(struct t_spawn) { .stdin_from = NULL });
  t_wait_until (is_elsewhere, NULL, 10000, "a second namespace");
  if (run (t_str ("ip link add here type veth peer name there netns %d",
                  (int) holder)) != 0)
    t_skip ("veth devices (of the kernel) are missing");
  must ("ip addr add " HERE "/24 dev here");
  must ("ip link set here up");
  must (t_str ("%s ip addr add " THERE "/24 dev there", in_there ()));
  must (t_str ("%s ip link set there up", in_there ()));
}

/* Ways to cut it. */

static void
link_down (void)
{
  must ("ip link set here down");
}

static void
link_up (void)
{
  must ("ip link set here up");
}

/* The other end keeps its carrier and its hardware address, and drops all that
 * comes: it has no such address any more.
 */
static char *
hardware_address (void)
{
  int status;
  char *const argv[] = {
    "nsenter", t_str ("--net=/proc/%d/ns/net", (int) holder), "ip", "-br",
    "link", "show", "dev", "there", NULL,
  };
  char *text = t_run_output (argv, &status), *address = t_path ("none");

  for (char *p = strtok (t_str ("%s", text), " \n"); p;
       p = strtok (NULL, " \n"))
    if (strlen (p) == 17 && p[2] == ':')
      address = p;
  return address;
}

static void
go_silent (void)
{
  must (t_str ("ip neigh replace " THERE " lladdr %s dev here nud permanent",
               hardware_address ()));
  must (t_str ("%s ip addr del " THERE "/24 dev there", in_there ()));
}

static void
speak_again (void)
{
  must (t_str ("%s ip addr add " THERE "/24 dev there", in_there ()));
}

static const struct way {
  const char *name;
  void (*cut) (void), (*restore) (void);
} ways[] = {
  { "the link goes down", link_down, link_up },
  { "packets are dropped", go_silent, speak_again },
};

/* Servers. */

static struct t_fault *
start_export (void)
{
  static unsigned counter;
  const struct t_fault_options options = {
    .volatile_cache = true, .before = in_there (), .address = THERE,
    .port = PORT + counter,
  };
  char *image = t_path ("image-%u", counter++);

  t_image_create (image, 8 << 20, 1);
  return t_fault_start_with (image, &options);
}

/* It may have connections of which it has not heard that they are gone, and
 * would wait for them.
 */
static void
end_export (struct t_fault *f)
{
  t_fault_kill (f);
  free (f);
}

static bool
answers (void *arg)
{
  const struct t_fault *f = arg;
  struct nbd_handle *h = nbd_create ();
  bool r = nbd_connect_uri (h, f->uri) == 0;

  nbd_close (h);
  return r;
}

static struct t_server *
serve (const struct t_fault *f, const char *more)
{
  static unsigned counter;

  t_wait_until (answers, (void *) (uintptr_t) f, 20000, "the network");
  return t_server_start ("backing=%s spare=%s control=%s %s", f->uri,
                         t_path ("store-%u", counter++), t_path ("ctl"), more);
}

static unsigned
count_said (const struct t_server *s, const char *text)
{
  unsigned nr = 0;

  for (const char *p = t_read_file (s->log); (p = strstr (p, text)); p++)
    nr++;
  return nr;
}

static void
check_clean (void)
{
  T_ASSERT (t_ctl_count (t_path ("ctl"), "remapped") == 0);
  T_ASSERT (t_ctl_count (t_path ("ctl"), "lost") == 0);
  T_ASSERT (t_ctl_status (t_path ("ctl"), "errors.read") == 0);
  T_ASSERT (t_ctl_status (t_path ("ctl"), "errors.write") == 0);
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

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct nbd_handle *h = t_nbd_connect (c->server);

  for (uint32_t gen = 2; !enough; gen++) {
    unsigned at = rand_r (&c->seed) % OWN;

    T_OK (t_nbd_put (h, c->first + at, 1, gen));
    c->gens[at] = gen;
    at = rand_r (&c->seed) % OWN;
    t_nbd_expect (h, c->first + at, 1, c->gens[at]);
    if (gen % 100 == 0)
      T_OK (t_nbd_flush (h));
    nr_done++;
  }
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

struct saying {
  struct t_server *server;
  const char *text;
  unsigned nr;
};

static bool
is_said (void *arg)
{
  struct saying *w = arg;

  return count_said (w->server, w->text) >= w->nr;
}

static void
wait_for (struct t_server *s, const char *text, unsigned nr)
{
  struct saying w = { s, text, nr };

  t_wait_until (is_said, &w, 30000, text);
}

static void
cut_and_restore (struct t_server *s, const struct way *way, unsigned nr)
{
  t_part ("%s, under load", way->name);
  wait_for_more (200);
  way->cut ();
  wait_for (s, "the connection is lost", nr);
  way->restore ();
  wait_for (s, "the connection is back", nr);
  wait_for_more (100);
}

/* Sockets that were closed and still have something to send (FIN_WAIT1): what
 * arrives of them arrives late.
 */
static bool
nothing_is_left_to_send (void *arg)
{
  (void) arg;
  return strstr (t_read_file ("/proc/self/net/tcp"), ":2A39 04 ") == NULL;
}

static void
test_load (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=20");
  struct client clients[NR_CLIENTS];
  struct nbd_handle *h;

  for (unsigned i = 0; i < NR_CLIENTS; i++) {
    clients[i] = (struct client) {
      .server = s, .first = 1000 + i * OWN, .seed = i,
    };
    for (unsigned j = 0; j < OWN; j++)
      clients[i].gens[j] = 1;
    T_ASSERT (pthread_create (&clients[i].thread, NULL, client_main,
                              &clients[i]) == 0);
  }
  for (unsigned i = 0; i < 2; i++)
    cut_and_restore (s, &ways[i], i + 1);
  enough = true;
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    pthread_join (clients[i].thread, NULL);
  t_wait_until (nothing_is_left_to_send, NULL, 60000, "what is sent late");
  check_clean ();
  h = t_nbd_connect (s);
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  t_server_stop (s);
  for (unsigned i = 0; i < NR_CLIENTS; i++)
    for (unsigned j = 0; j < OWN; j++)
      t_image_check (f->image, clients[i].first + j, 1, clients[i].gens[j]);
  end_export (f);
}

/* For longer than timeout=. */

static bool
reads_again (void *h)
{
  return t_nbd_touch (h, 100, 8) == 0;
}

static void
test_timeout (void)
{
  struct t_fault *f = start_export ();
  struct t_server *s = serve (f, "timeout=2");
  struct nbd_handle *h = t_nbd_connect (s);

  for (unsigned i = 0; i < 2; i++) {
    uint64_t begin = t_now_ms ();

    t_part ("%s for longer than timeout=", ways[i].name);
    T_OK (t_nbd_put (h, 100, 8, 2 + i));
    ways[i].cut ();
    T_ERRNO (t_nbd_touch (h, 100, 8), ESHUTDOWN);
    T_ASSERT (t_now_ms () - begin < 8000 * t_scale ());
    T_ERRNO (t_nbd_put (h, 200, 8, 2 + i), ESHUTDOWN);
    ways[i].restore ();
    t_wait_until (reads_again, h, 30000, "the connection to be back");
    t_nbd_expect (h, 100, 8, 2 + i);
    T_OK (t_nbd_flush (h));
    t_image_check (f->image, 100, 8, 2 + i);
    check_clean ();
  }

  t_part ("a slow disk");
  t_fault_set (f, "all 300 delay-ms=5000 errno=0\n");
  t_nbd_expect (h, 300, 1, 1);
  T_OK (t_nbd_put (h, 300, 1, 2));
  T_ASSERT (count_said (s, "the connection is lost") == 2);
  t_nbd_close (h);
  t_server_stop (s);
  end_export (f);
}

int
main (void)
{
  if (geteuid () == 0 && unshare (CLONE_NEWNET) == -1)
    t_skip ("network namespaces");
  t_begin ("test-nbd-namespace", 150);
  if (geteuid () != 0)
    t_skip ("root, for network namespaces");
  t_need_tool ("ip");
  t_need_tool ("nsenter");
  make_network ();
  test_load ();
  test_timeout ();
  return t_end ();
}
