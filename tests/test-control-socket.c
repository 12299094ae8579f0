/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket against clients of all sorts: those that speak JSON-RPC,
 * those that talk nonsense, never finish, never read, vanish, or are somebody
 * else.  Whatever they do, the next client is answered and I/O goes on.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { NOBODY = 65534 };

static char *control;

/*---- I/O that goes on all the while ----*/

static atomic_bool io_must_end;
static atomic_uint nr_io;

static bool
io_goes_on (void *before)
{
  return nr_io > *(unsigned *) before;
}

static void *
io_main (void *arg)
{
  struct nbd_handle *h = t_nbd_connect (arg);

  while (!io_must_end) {
    const uint64_t lba = nr_io % 1000 * 8;

    T_OK (t_nbd_put (h, lba, 8, 2));
    t_nbd_expect (h, lba, 8, 2);
    nr_io++;
  }
  t_nbd_close (h);
  return NULL;
}

static void
check_io_goes_on (void)
{
  unsigned before = nr_io;

  t_wait_until (io_goes_on, &before, 5000, "I/O to go on");
}

/*---- Clients ----*/

static int
connect_control (void)
{
  int fd = t_control_connect (control);

  if (fd == -1)
    T_FAIL ("%s: %m", control);
  return fd;
}

static void
send_line (int fd, const char *line)
{
  t_control_send (fd, line, strlen (line));
  t_control_send (fd, "\n", 1);
}

/* A well-behaved client gets its answer. */
static void
check_lives (void)
{
  int fd = connect_control ();
  json_t *answer;

  send_line (fd, "{\"jsonrpc\":\"2.0\",\"id\":42,\"method\":\"status\"}");
  answer = t_control_answer (fd);
  T_ASSERT (json_integer_value (json_object_get (answer, "id")) == 42);
  T_ASSERT (json_is_object (json_object_get (answer, "result")));
  T_ASSERT (json_object_get (answer, "error") == NULL);
  json_decref (answer);
  close (fd);
}

/* The next answer is an error with this code. */
static void
expect_error (int fd, int code, const char *line)
{
  json_t *answer = t_control_answer (fd);
  json_t *error = json_object_get (answer, "error");

  if (json_integer_value (json_object_get (error, "code")) != code ||
      !json_is_string (json_object_get (error, "message")) ||
      json_object_get (answer, "id") == NULL ||
      json_object_get (answer, "result") != NULL)
    T_FAIL ("%s: expected error %d, got %s", line, code,
            json_dumps (answer, 0));
  json_decref (answer);
}

static const struct { const char *line; int code; } wrong[] = {
  { "", -32700 },
  { "hello?", -32700 },
  { "{\"jsonrpc\":\"2.0\",", -32700 },
  { "\xff\xfe\x01", -32700 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"} x", -32700 },
  { "1", -32600 },
  { "null", -32600 },
  { "[]", -32600 },
  { "{}", -32600 },
  { "{\"id\":1,\"method\":\"status\"}", -32600 },
  { "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"status\"}", -32600 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1}", -32600 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", -32600 },
  { "{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"status\"}", -32600 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"format-disk\"}", -32601 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}", -32601 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\","
    "\"params\":{\"from\":-1}}", -32602 },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\","
    "\"params\":{\"from\":\"x\"}}", -32602 },
};
#define NR_WRONG (sizeof wrong / sizeof wrong[0])

/* One connection survives all of it. */
static void
test_wrong_lines (void)
{
  int fd = connect_control ();

  t_part ("wrong lines");
  for (size_t i = 0; i < NR_WRONG; i++) {
    send_line (fd, wrong[i].line);
    expect_error (fd, wrong[i].code, wrong[i].line);
  }
  close (fd);
  check_lives ();
}

/* Requests that come in pieces; one among them wants no answer. */
static void
test_pieces (void)
{
  static const char text[] =
    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"status\"}\n"
    "{\"jsonrpc\":\"2.0\",\"method\":\"status\"}\n"
    "{\"jsonrpc\":\"2.0\",\"id\":\"b\",\"method\":\"list\"}\n";
  int fd = connect_control ();
  json_t *answer;

  t_part ("lines in pieces");
  for (size_t i = 0; i < sizeof text - 1; i++) {
    t_control_send (fd, text + i, 1);
    if (i % 16 == 0)
      check_lives ();           /* while the line is incomplete */
  }
  for (const char *id = "a"; id != NULL; id = *id == 'a' ? "b" : NULL) {
    answer = t_control_answer (fd);
    T_ASSERT (strcmp (json_string_value (json_object_get (answer, "id")), id)
              == 0);
    json_decref (answer);
  }
  close (fd);
}

/* A client that sends its request and closes its end still is answered, even
 * if it did not end the line.
 */
static void
test_half_closed (void)
{
  static const char *const ends[] = { "\n", "" };

  t_part ("half-closed");
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
    const char *request = t_str (
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}%s", ends[i]);
    int fd = connect_control ();

    t_control_send (fd, request, strlen (request));
    shutdown (fd, SHUT_WR);
    json_decref (t_control_answer (fd));
    T_ASSERT (t_control_line (fd, 5000) == NULL); /* and then closed */
    close (fd);
    check_lives ();
  }
}

/* Kilobytes of resident memory. */
static long
memory_of (pid_t pid)
{
  const char *status = t_read_file (t_str ("/proc/%d/status", pid));
  const char *rss = strstr (status, "VmRSS:");

  return rss ? atol (rss + 6) : 0;
}

/* Sanitizers and valgrind have their own ideas of memory. */
static void
check_memory (const struct t_server *s, long before, long most)
{
  const long now = memory_of (s->pid);

  if (t_scale () <= 2 && now - before > most)
    T_FAIL ("the server has grown from %ld to %ld kB", before, now);
}

/* A line without end: an error or the end of the connection, and no memory
 * for it.
 */
static void
test_huge_line (struct t_server *s)
{
  static char block[1 << 16];
  int fd = connect_control ();
  const long before = memory_of (s->pid);
  struct timeval limit = { .tv_sec = 5 };

  t_part ("a huge line");
  memset (block, 'x', sizeof block);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  for (unsigned i = 0; i < 64 << 4; i++) /* 64 MiB */
    if (send (fd, block, sizeof block, MSG_NOSIGNAL) == -1)
      break;
  check_lives ();
  check_memory (s, before, 16 << 10);
  close (fd);
  check_lives ();
}

/* Clients that ask and ask, and never read an answer; they vanish then. */
static void
test_never_reading (struct t_server *s)
{
  enum { NR = 20, REQUESTS = 20000 };
  static const char request[] =
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n";
  const long before = memory_of (s->pid);
  int fds[NR];

  t_part ("clients that never read");
  for (unsigned i = 0; i < NR; i++) {
    fds[i] = connect_control ();
    for (unsigned j = 0; j < REQUESTS; j++)
      if (send (fds[i], request, sizeof request - 1,
                MSG_NOSIGNAL | MSG_DONTWAIT) == -1)
        break;
  }
  check_lives ();
  check_io_goes_on ();
  check_memory (s, before, 64 << 10);
  for (unsigned i = 0; i < NR; i++)
    close (fds[i]);
  check_lives ();
}

/* Many idle clients do not keep the next one out for ever: where there is a
 * limit, those who come when it is reached are served when others go.
 */
static void
test_many_clients (void)
{
  enum { NR = 300 };
  int fds[NR];

  t_part ("many clients");
  for (unsigned i = 0; i < NR; i++)
    fds[i] = t_control_connect (control);
  for (unsigned i = 0; i < NR; i++)
    if (fds[i] != -1)
      close (fds[i]);
  check_lives ();
}

/* What a client of another uid gets, run as a process of that uid: 0 an
 * answer with a result, 1 turned away, 2 could not connect.
 */
static int
ask_as_nobody (void)
{
  int status, fd;
  char *line;
  pid_t pid = fork ();

  if (pid == -1)
    T_FAIL ("fork: %m");
  if (pid == 0) {
    if (setgid (NOBODY) == -1 || setuid (NOBODY) == -1)
      _exit (3);
    fd = t_control_connect (control);
    if (fd == -1)
      _exit (2);
    send_line (fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}");
    line = t_control_line (fd, 5000);
    _exit (line != NULL && strstr (line, "\"result\"") ? 0 : 1);
  }
  if (waitpid (pid, &status, 0) != pid || !WIFEXITED (status))
    T_FAIL ("the client of another uid crashed");
  return WEXITSTATUS (status);
}

static void
test_other_user (void)
{
  struct stat st;

  t_part ("another user");
  T_ASSERT (stat (control, &st) == 0 && S_ISSOCK (st.st_mode));
  T_ASSERT ((st.st_mode & 0777) == 0600);
  if (geteuid () != 0) {
    t_skip_part ("to become another user one must be root");
    return;
  }
  T_ASSERT (ask_as_nobody () == 2);
  T_ASSERT (chmod (control, 0666) == 0);
  T_ASSERT (ask_as_nobody () == 1);
  T_ASSERT (chmod (control, 0600) == 0);
  check_lives ();
}

static void
test_results (const struct t_disk *d, const struct t_server *s)
{
  char *text;

  t_part ("results");
  T_ASSERT (t_ctl_status (control, "pid") == s->pid);
  T_ASSERT (t_ctl_status (d->path, "pid") == s->pid);
  T_ASSERT (t_ctl_status (d->store, "remapped") == 0);
  T_ASSERT (t_ctl_count (control, "remapped") == 0);
  T_ASSERT (t_ctl ("status", d->path, &text) == 0 && strstr (text, d->path));
  T_ASSERT (t_ctl ("list", d->path, &text) == 0);
  T_ASSERT (t_ctl ("status", t_path ("none"), &text) != 0);
  T_ASSERT (t_ctl ("frobnicate", d->path, &text) != 0);
}

static void
use_badly (struct t_disk *d, struct t_server *s)
{
  pthread_t io;

  if (pthread_create (&io, NULL, io_main, s))
    T_FAIL ("pthread_create");
  test_results (d, s);
  test_wrong_lines ();
  test_pieces ();
  test_half_closed ();
  test_huge_line (s);
  test_never_reading (s);
  test_many_clients ();
  test_other_user ();
  io_must_end = true;
  pthread_join (io, NULL);
}

int
main (void)
{
  const struct t_disk_options options = { .gen = 1 };
  struct t_disk *d;
  struct t_server *s;

  t_begin ("test-control-socket", 40);
  d = t_disk_new (T_DISK_PLAIN, 8 << 20, &options);
  control = t_str ("%s.ctl", d->store);
  s = t_server_start ("%s", t_disk_params (d));
  use_badly (d, s);

  t_part ("restarts");
  t_server_kill (s);            /* leaves its socket behind */
  t_server_restart (s);
  check_lives ();
  t_server_stop (s);
  T_ASSERT (access (control, F_OK) == -1);
  t_server_restart_with (s, "%s control=off", t_disk_params (d));
  T_ASSERT (access (control, F_OK) == -1);
  t_server_stop (s);
  control = t_path ("own.ctl");
  t_server_restart_with (s, "%s control=%s", t_disk_params (d), control);
  check_lives ();
  t_server_stop (s);
  t_disk_free (d);
  return t_end ();
}
