/* SPDX-License-Identifier: BSD-3-Clause */
/* Unit test of control-socket, with real clients on a real worker; and of
 * their other end, control-client and the part of query that asks servers.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control-client.h"
#include "control-socket.h"
#include "error.h"
#include "remap.h"

#define NR_RUNS 10000           /* 3 pages */

static char dir[128], path[192];

static void
fake_get_status (void *opaque, struct status *ret)
{
  *ret = (struct status) {
    .backing = "fake", .sector_bytes = 512, .is_live = true, .pid = 99,
  };
}

static int
fake_next_run (void *opaque, lba_t from, struct sector_run *ret)
{
  if (from.n >= 2 * NR_RUNS)
    return -1;
  *ret = (struct sector_run) {
    .lba = { (from.n + 1) & ~UINT64_C (1) }, .nr_sectors = 1,
    .state = SECTOR_REMAPPED, .spare = { (uint32_t) from.n },
  };
  return ret->lba.n < 2 * NR_RUNS ? 0 : -1;
}

static const struct control_source source = {
  .get_status = fake_get_status, .next_run = fake_next_run,
};

/* Each test case has a directory; it is removed whatever its tests did. */

static void
make_dir (void)
{
  const char *tmp = getenv ("TMPDIR");

  snprintf (dir, sizeof dir, "%s/check-control-XXXXXX",
            tmp && strlen (tmp) < 64 ? tmp : "/tmp");
  ck_assert_ptr_nonnull (mkdtemp (dir));
  snprintf (path, sizeof path, "%s/disk.ctl", dir);
}

static void
remove_dir (void)
{
  static const char *const names[] = { "disk.ctl", "other", "link" };
  char name[256];

  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf (name, sizeof name, "%s/%s", dir, names[i]);
    unlink (name);
  }
  rmdir (dir);
}

static struct control_socket *cs;
static struct worker *worker;

static void
start_server (void)
{
  struct worker_guest guest;

  cs = control_socket_new (path, &source);
  if (!cs)
    ck_abort_msg ("%s", last_error_text ());
  guest = control_socket_guest (cs);
  worker = worker_new (1000, &guest);
  ck_assert_int_eq (worker_start (worker), 0);
}

static void
stop_server (void)
{
  worker_free (worker);
  control_socket_free (cs);
}

/* A client. */

static int
try_connect (const char *where)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  ck_assert_int_ge (fd, 0);
  strcpy (addr.sun_path, where);
  if (connect (fd, (struct sockaddr *) &addr, sizeof addr) == -1) {
    int err = errno;

    close (fd);
    errno = err;
    return -1;
  }
  return fd;
}

static int
connect_client (void)
{
  int fd = try_connect (path);

  ck_assert_int_ge (fd, 0);
  return fd;
}

static void
send_bytes (int fd, const char *bytes, size_t len)
{
  while (len > 0) {
    ssize_t r = send (fd, bytes, len, MSG_NOSIGNAL);

    ck_assert_int_gt (r, 0);
    bytes += r;
    len -= (size_t) r;
  }
}

static void
send_text (int fd, const char *text)
{
  send_bytes (fd, text, strlen (text));
}

/* The next line, without its newline; NULL where the server closed.  The
 * timeout of the test ends this where nothing comes.
 */
static char *
receive_line (int fd)
{
  char *line = NULL;
  size_t size = 0;
  FILE *fp = open_memstream (&line, &size);
  ssize_t r;
  char c;

  while ((r = recv (fd, &c, 1, 0)) == 1 && c != '\n')
    putc (c, fp);
  fclose (fp);
  if (r == 1)
    return line;
  ck_assert_uint_eq (size, 0);          /* no half of a line */
  free (line);
  return NULL;
}

static json_t *
receive_json (int fd)
{
  char *line = receive_line (fd);
  json_t *json;

  ck_assert_ptr_nonnull (line);
  json = json_loads (line, 0, NULL);
  ck_assert_ptr_nonnull (json);
  free (line);
  return json;
}

static void
expect_result (int fd, json_int_t id)
{
  json_t *json = receive_json (fd);

  ck_assert_ptr_nonnull (json_object_get (json, "result"));
  ck_assert_int_eq (json_integer_value (json_object_get (json, "id")), id);
  json_decref (json);
}

static void
expect_error (int fd, json_int_t code)
{
  json_t *json = receive_json (fd);

  ck_assert_int_eq (json_integer_value (
                      json_object_get (json_object_get (json, "error"),
                                       "code")), code);
  json_decref (json);
}

static void
expect_end (int fd)
{
  ck_assert_ptr_null (receive_line (fd));
}

#define REQUEST(method, id)                                                   \
  "{\"jsonrpc\":\"2.0\",\"method\":\"" method "\",\"id\":" #id "}"

/* The server is well: it answers a client that behaves. */
static void
expect_service (void)
{
  int fd = connect_client ();

  send_text (fd, REQUEST ("status", 42) "\n");
  expect_result (fd, 42);
  close (fd);
}

/* The socket as a file. */

START_TEST (mode_and_unlink)
{
  struct stat st;
  mode_t before = umask (0);

  cs = control_socket_new (path, &source);
  ck_assert_uint_eq (umask (before), 0);
  ck_assert_ptr_nonnull (cs);
  ck_assert_int_eq (lstat (path, &st), 0);
  ck_assert (S_ISSOCK (st.st_mode));
  ck_assert_uint_eq (st.st_mode & 07777, 0600);
  control_socket_free (cs);
  ck_assert_int_eq (lstat (path, &st), -1);
}
END_TEST

START_TEST (unlinked_from_another_directory)
{
  struct stat st;

  ck_assert_int_eq (chdir (dir), 0);
  cs = control_socket_new ("disk.ctl", &source);
  ck_assert_ptr_nonnull (cs);
  ck_assert_int_eq (chdir ("/"), 0);
  control_socket_free (cs);
  ck_assert_int_eq (lstat (path, &st), -1);
}
END_TEST

START_TEST (successor_is_not_unlinked)
{
  struct control_socket *second;
  struct stat st;

  cs = control_socket_new (path, &source);
  /* While somebody answers there the place is taken. */
  ck_assert_ptr_null (control_socket_new (path, &source));
  ck_assert_int_eq (last_error_errno (), EADDRINUSE);
  ck_assert_int_eq (unlink (path), 0);
  second = control_socket_new (path, &source);
  ck_assert_ptr_nonnull (second);
  control_socket_free (cs);
  ck_assert_int_eq (lstat (path, &st), 0);
  control_socket_free (second);
  ck_assert_int_eq (lstat (path, &st), -1);
}
END_TEST

/* As after a kill -9. */
START_TEST (stale_socket_is_replaced)
{
  pid_t pid = fork ();
  int status;

  if (pid == 0) {
    cs = control_socket_new (path, &source);
    _exit (cs ? 0 : 1);
  }
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_int_eq (status, 0);
  ck_assert_int_eq (try_connect (path), -1);
  ck_assert_int_eq (errno, ECONNREFUSED);

  start_server ();
  expect_service ();
  stop_server ();
}
END_TEST

static void
expect_refused (const char *where, int err, const char *part)
{
  ck_assert_ptr_null (control_socket_new (where, &source));
  ck_assert_int_eq (last_error_errno (), err);
  if (!strstr (last_error_text (), part))
    ck_abort_msg ("no \"%s\" in: %s", part, last_error_text ());
}

START_TEST (what_is_no_socket_is_refused)
{
  char other[256], text[16] = "";
  int fd;

  fd = open (path, O_CREAT | O_EXCL | O_RDWR, 0644);
  ck_assert_int_eq (write (fd, "precious", 8), 8);
  expect_refused (path, EEXIST, path);
  ck_assert_int_eq (pread (fd, text, 8, 0), 8);
  ck_assert_str_eq (text, "precious");
  close (fd);
  ck_assert_int_eq (access (path, F_OK), 0);
  unlink (path);

  /* Not even a link to a socket. */
  snprintf (other, sizeof other, "%s/other", dir);
  cs = control_socket_new (other, &source);
  ck_assert_int_eq (symlink ("other", path), 0);
  expect_refused (path, EEXIST, "no socket");
  ck_assert_int_eq (access (other, F_OK), 0);
  control_socket_free (cs);
  unlink (path);
}
END_TEST

START_TEST (bad_paths_are_refused)
{
  char longest[256], name[256];
  size_t max = sizeof ((struct sockaddr_un *) NULL)->sun_path - 1;

  snprintf (name, sizeof name, "%s/no/disk.ctl", dir);
  expect_refused (name, ENOENT, name);
  expect_refused ("", EEXIST, "no socket");
  expect_refused (dir, EEXIST, "no socket");

  memset (longest, 'x', sizeof longest);
  memcpy (longest, dir, strlen (dir));
  longest[strlen (dir)] = '/';
  longest[max + 1] = '\0';
  expect_refused (longest, ENAMETOOLONG, "control=PATH");
  longest[max] = '\0';
  cs = control_socket_new (longest, &source);
  ck_assert_ptr_nonnull (cs);
  control_socket_free (cs);
}
END_TEST

/* Clients that behave, each in its way. */

START_TEST (requests_in_one_piece_and_many)
{
  static const char request[] = REQUEST ("status", 2) "\n";
  int fd = connect_client ();

  send_text (fd, REQUEST ("status", 1) "\n");
  expect_result (fd, 1);
  for (size_t i = 0; i < sizeof request - 1; i++)
    send_bytes (fd, request + i, 1);
  expect_result (fd, 2);

  send_text (fd, REQUEST ("status", 3) "\n" REQUEST ("list", 4) "\r\n"
             "{\"jsonrpc\":\"2.0\",\"method\":\"status\"}\n"    /* no answer */
             "garbage\n" REQUEST ("status", 5) "\n" REQUEST ("status", 6));
  expect_result (fd, 3);
  expect_result (fd, 4);
  expect_error (fd, CONTROL_PARSE_ERROR);
  expect_result (fd, 5);
  send_text (fd, "\n");
  expect_result (fd, 6);
  close (fd);
}
END_TEST

START_TEST (half_closed)
{
  int fd = connect_client ();

  send_text (fd, REQUEST ("list", 1) "\n" REQUEST ("list", 2) "\n"
             REQUEST ("status", 3));
  shutdown (fd, SHUT_WR);
  expect_result (fd, 1);
  expect_result (fd, 2);
  expect_result (fd, 3);        /* the last line needs no end */
  expect_end (fd);
  close (fd);

  fd = connect_client ();
  shutdown (fd, SHUT_WR);
  expect_end (fd);
  close (fd);
}
END_TEST

START_TEST (connected_before_the_worker_starts)
{
  struct worker_guest guest;
  int fd;

  cs = control_socket_new (path, &source);
  guest = control_socket_guest (cs);
  worker = worker_new (1000, &guest);
  fd = connect_client ();
  send_text (fd, REQUEST ("status", 1) "\n");
  ck_assert_int_eq (worker_start (worker), 0);
  expect_result (fd, 1);
  stop_server ();
  expect_end (fd);
  close (fd);
}
END_TEST

START_TEST (longest_line)
{
  static char line[CONTROL_MAX_LINE_BYTES];
  int fd = connect_client ();

  memset (line, ' ', sizeof line);
  memcpy (line, REQUEST ("status", 1), strlen (REQUEST ("status", 1)));
  line[sizeof line - 1] = '\n';
  for (unsigned i = 0; i < 3; i++) {
    send_bytes (fd, line, sizeof line);
    expect_result (fd, 1);
  }
  line[sizeof line - 1] = ' ';          /* now it is longer */
  send_bytes (fd, line, sizeof line);
  expect_error (fd, CONTROL_INVALID_REQUEST);
  expect_end (fd);
  close (fd);
}
END_TEST

/* Clients that do not. */

START_TEST (gone_before_the_answer)
{
  for (unsigned i = 0; i < 200; i++) {
    int fd = connect_client ();

    send_text (fd, REQUEST ("list", 1) "\n" REQUEST ("list", 2) "\n");
    if (i % 2) {
      struct pollfd pfd = { .fd = fd, .events = POLLIN };

      poll (&pfd, 1, -1);       /* it is on its way */
    }
    close (fd);
  }
  expect_service ();
}
END_TEST

/* K2: it asks and asks, and reads no answer.  Sooner or later the server stops
 * reading, so the client can send no more; what the server has of it is one
 * line and one answer.
 */
static size_t
flood (int fd)
{
  static const char request[] = REQUEST ("list", 1) "\n";
  struct pollfd pfd = { .fd = fd, .events = POLLOUT };
  size_t sent = 0;

  while (poll (&pfd, 1, 1000) == 1) {
    ssize_t r = send (fd, request, sizeof request - 1,
                      MSG_NOSIGNAL | MSG_DONTWAIT);

    if (r > 0)
      sent += (size_t) r;
    if (sent > 16 * 1024 * 1024)
      break;
  }
  return sent;
}

START_TEST (asks_but_does_not_read)
{
  int fds[3];

  for (unsigned i = 0; i < 3; i++) {
    fds[i] = connect_client ();
    ck_assert_uint_lt (flood (fds[i]), 4 * 1024 * 1024);
    expect_service ();
  }
  for (unsigned i = 0; i < 10; i++)     /* it may still change its mind */
    expect_result (fds[0], 1);
  for (unsigned i = 0; i < 3; i++)
    close (fds[i]);
  expect_service ();
}
END_TEST

/* K4 */
START_TEST (too_many_clients)
{
  int fds[CONTROL_MAX_CLIENTS + 10];

  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS + 10; i++) {
    fds[i] = connect_client ();
    send_text (fds[i], REQUEST ("status", 1) "\n");
    expect_result (fds[i], 1);
    if (i >= 5) {               /* the first five are not silent */
      send_text (fds[i % 5], REQUEST ("status", 2) "\n");
      expect_result (fds[i % 5], 2);
    }
  }
  expect_service ();
  for (unsigned i = 0; i < 5; i++) {
    send_text (fds[i], REQUEST ("status", 3) "\n");
    expect_result (fds[i], 3);
  }
  for (unsigned i = 5; i < 5 + 10; i++)
    expect_end (fds[i]);
  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS + 10; i++)
    close (fds[i]);
}
END_TEST

/* K3 */
START_TEST (another_user_is_turned_away)
{
  int status;
  pid_t pid;

  if (geteuid () != 0)          /* only root can be two users */
    return;
  /* As if the mode did not keep them out. */
  ck_assert_int_eq (chmod (dir, 0755), 0);
  ck_assert_int_eq (chmod (path, 0666), 0);
  pid = fork ();
  if (pid == 0) {
    int fd;

    if (setuid (65534) == -1 || (fd = try_connect (path)) == -1)
      _exit (1);
    send (fd, REQUEST ("status", 1) "\n", sizeof REQUEST ("status", 1),
          MSG_NOSIGNAL);
    expect_error (fd, CONTROL_DENIED);
    expect_end (fd);
    _exit (0);
  }
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_int_eq (status, 0);
  expect_service ();
}
END_TEST

START_TEST (random_bytes)
{
  unsigned seed = 4711;

  for (unsigned round = 0; round < 100; round++) {
    int fd = connect_client ();
    char bytes[4096];
    char *line;

    for (size_t i = 0; i < sizeof bytes; i++)
      bytes[i] = (char) rand_r (&seed);
    send_bytes (fd, bytes, 1 + (size_t) rand_r (&seed) % sizeof bytes);
    shutdown (fd, SHUT_WR);
    while ((line = receive_line (fd)) != NULL) {
      json_t *json = json_loads (line, 0, NULL);

      ck_assert_ptr_nonnull (json_object_get (json, "error"));
      json_decref (json);
      free (line);
    }
    close (fd);
  }
  expect_service ();
}
END_TEST

/* The server of this test has no file descriptor left for a while. */
START_TEST (no_file_descriptors)
{
  struct rlimit limit, tight;
  int fds[2];

  if (getenv ("REMAP_TEST_VALGRIND"))   /* it closes what is over the limit */
    return;
  fds[0] = connect_client ();   /* taken on */
  send_text (fds[0], REQUEST ("status", 1) "\n");
  expect_result (fds[0], 1);

  getrlimit (RLIMIT_NOFILE, &limit);
  tight = limit;
  fds[1] = socket (AF_UNIX, SOCK_STREAM, 0);
  tight.rlim_cur = (rlim_t) fds[1] + 1;
  for (int fd; (fd = dup (0)) >= 0 && fd < fds[1]; )
    ;                           /* fill the holes */
  setrlimit (RLIMIT_NOFILE, &tight);
  {
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    strcpy (addr.sun_path, path);
    ck_assert_int_eq (connect (fds[1], (struct sockaddr *) &addr,
                               sizeof addr), 0);
  }
  send_text (fds[0], REQUEST ("status", 2) "\n");       /* goes on */
  expect_result (fds[0], 2);
  setrlimit (RLIMIT_NOFILE, &limit);
  send_text (fds[1], REQUEST ("status", 3) "\n");       /* taken on again */
  expect_result (fds[1], 3);
}
END_TEST

/* The other end. */

static json_t *
query (const char *method, const char *params)
{
  char *text = NULL;
  json_t *json;

  if (remap_query (path, method, params, &text) == -1)
    ck_abort_msg ("%s", last_error_text ());
  json = json_loads (text, 0, NULL);
  ck_assert_ptr_nonnull (json);
  free (text);
  return json;
}

/* Runs stand at 0, 2, 4, ... */
static void
expect_list (const char *params, size_t nr_runs, json_int_t first,
             json_int_t next)
{
  json_t *json = query ("list", params);
  json_t *sectors = json_object_get (json, "sectors"), *run;
  size_t i;

  ck_assert_uint_eq (json_array_size (sectors), nr_runs);
  json_array_foreach (sectors, i, run)
    if (json_integer_value (json_object_get (run, "lba"))
        != first + 2 * (json_int_t) i)
      ck_abort_msg ("run %zu is wrong", i);
  ck_assert_int_eq (json_integer_value (json_object_get (json, "next")), next);
  ck_assert_int_eq (json_object_get (json, "next") != NULL, next != 0);
  ck_assert_int_eq (json_integer_value (
                      json_object_get (json, "sector_size")), 512);
  json_decref (json);
}

START_TEST (query_asks_the_server)
{
  json_t *json = query ("status", NULL);

  ck_assert (json_is_true (json_object_get (json, "live")));
  ck_assert_str_eq (json_string_value (json_object_get (json, "backing")),
                    "fake");
  json_decref (json);

  expect_list (NULL, NR_RUNS, 0, 0);
  expect_list ("{}", NR_RUNS, 0, 0);
  expect_list ("{\"from\":1000}", NR_RUNS - 500, 1000, 0);
  expect_list ("{\"limit\":3}", 3, 0, 6);
  expect_list ("{\"from\":6,\"limit\":5000}", 5000, 6, 10006);
  expect_list ("{\"limit\":10000}", NR_RUNS, 0, 0);
  expect_list ("{\"limit\":4096}", 4096, 0, 8192);
  expect_list ("{\"from\":20000}", 0, 0, 0);
}
END_TEST

static void
expect_query_error (const char *where, const char *method, const char *params,
                    int err)
{
  char *text = (char *) "untouched";

  ck_assert_int_eq (remap_query (where, method, params, &text), -1);
  ck_assert_int_eq (last_error_errno (), err);
  ck_assert_str_eq (text, "untouched");
  ck_assert_str_ne (last_error_text (), "");
}

START_TEST (query_passes_errors_on)
{
  expect_query_error (path, "none", NULL, EINVAL);
  expect_query_error (path, "list", "{\"limit\":0}", EINVAL);
  expect_query_error (path, "list", "{\"limit\":\"x\"}", EINVAL);
  expect_query_error (path, "list", "{\"from\":-1}", EINVAL);
  expect_query_error (path, "status", "{\"from\":1}", EINVAL);
  expect_query_error (path, "list", "[]", EINVAL);
  expect_query_error (path, "list", "{", EINVAL);
  expect_query_error (NULL, "list", NULL, EINVAL);
  expect_query_error (path, NULL, NULL, EINVAL);
  expect_service ();
}
END_TEST

START_TEST (query_of_nothing)
{
  char name[256];

  snprintf (name, sizeof name, "%s/none", dir);
  expect_query_error (name, "status", NULL, ENOENT);

  /* A socket that nobody listens on, beside no store. */
  start_server ();
  snprintf (name, sizeof name, "%s/other", dir);
  ck_assert_int_eq (link (path, name), 0);
  stop_server ();
  expect_query_error (name, "status", NULL, ENOENT);
  ck_assert_int_eq (rename (name, path), 0);
  expect_query_error (path, "status", NULL, ENOENT);
  unlink (path);
}
END_TEST

/* A worker that hangs still has its socket. */
START_TEST (query_of_a_server_that_hangs)
{
  struct timespec before, after;

  start_server ();
  worker_hang (worker);
  clock_gettime (CLOCK_MONOTONIC, &before);
  expect_query_error (path, "status", NULL, EBUSY);
  clock_gettime (CLOCK_MONOTONIC, &after);
  ck_assert_int_ge (after.tv_sec - before.tv_sec, 4);
  ck_assert_ptr_nonnull (strstr (last_error_text (), path));
  worker_resume (worker);
  expect_service ();
  stop_server ();
}
END_TEST

/* Servers that are none: each answers one request with something. */

static const struct { const char *answer; int err; } strange[] = {
  { "", ECONNRESET },
  { "{", ECONNRESET },
  { "\n", EPROTO },
  { "hello\n", EPROTO },
  { "[]\n", EPROTO },
  { "{}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":7}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000}}\n", EACCES },
  { "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"sectors\":[]}}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[]}\n", EPROTO },
  /* This list would never end. */
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"sectors\":[1],"
    "\"next\":0}}\n", EPROTO },
  { "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"sectors\":[],"
    "\"next\":9}}\n", EPROTO },
};

struct strange_server {
  pthread_t thread;
  int fd;
  const char *answer;
};

static void *
answer_strangely (void *opaque)
{
  struct strange_server *server = opaque;
  int fd = accept (server->fd, NULL, NULL);
  char byte;

  while (recv (fd, &byte, 1, 0) == 1 && byte != '\n')
    ;
  send (fd, server->answer, strlen (server->answer), MSG_NOSIGNAL);
  close (fd);
  return NULL;
}

static int
listen_on_path (int backlog)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  strcpy (addr.sun_path, path);
  unlink (path);
  ck_assert_int_eq (bind (fd, (struct sockaddr *) &addr, sizeof addr), 0);
  ck_assert_int_eq (listen (fd, backlog), 0);
  return fd;
}

START_TEST (strange_answers)
{
  struct strange_server server = {
    .fd = listen_on_path (1), .answer = strange[_i].answer,
  };

  ck_assert_int_eq (pthread_create (&server.thread, NULL, answer_strangely,
                                    &server), 0);
  expect_query_error (path, "list", NULL, strange[_i].err);
  pthread_join (server.thread, NULL);
  close (server.fd);
}
END_TEST

/* A server so stopped that it does not even accept. */
START_TEST (full_backlog)
{
  int fd = listen_on_path (0), waiting = connect_client ();

  expect_query_error (path, "status", NULL, EBUSY);
  close (waiting);
  close (fd);
}
END_TEST

static void
add_server_fixture (TCase *tc)
{
  tcase_set_timeout (tc, 120);
  tcase_add_unchecked_fixture (tc, make_dir, remove_dir);
  tcase_add_checked_fixture (tc, start_server, stop_server);
}

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("control-socket");
  TCase *tc = tcase_create ("file");

  tcase_set_timeout (tc, 120);
  tcase_add_unchecked_fixture (tc, make_dir, remove_dir);
  tcase_add_test (tc, mode_and_unlink);
  tcase_add_test (tc, unlinked_from_another_directory);
  tcase_add_test (tc, successor_is_not_unlinked);
  tcase_add_test (tc, stale_socket_is_replaced);
  tcase_add_test (tc, what_is_no_socket_is_refused);
  tcase_add_test (tc, bad_paths_are_refused);
  tcase_add_test (tc, connected_before_the_worker_starts);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("clients");
  add_server_fixture (tc);
  tcase_add_test (tc, requests_in_one_piece_and_many);
  tcase_add_test (tc, half_closed);
  tcase_add_test (tc, longest_line);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("hostile clients");
  add_server_fixture (tc);
  tcase_add_test (tc, gone_before_the_answer);
  tcase_add_test (tc, asks_but_does_not_read);
  tcase_add_test (tc, too_many_clients);
  tcase_add_test (tc, another_user_is_turned_away);
  tcase_add_test (tc, random_bytes);
  tcase_add_test (tc, no_file_descriptors);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("query");
  add_server_fixture (tc);
  tcase_add_test (tc, query_asks_the_server);
  tcase_add_test (tc, query_passes_errors_on);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("query without a server");
  tcase_set_timeout (tc, 120);
  tcase_add_unchecked_fixture (tc, make_dir, remove_dir);
  tcase_add_test (tc, query_of_nothing);
  tcase_add_test (tc, query_of_a_server_that_hangs);
  tcase_add_test (tc, full_backlog);
  tcase_add_loop_test (tc, strange_answers, 0,
                       sizeof strange / sizeof strange[0]);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
