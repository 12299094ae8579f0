/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <ev.h>

#include "cleanup.h"
#include "control-socket.h"
#include "error.h"
#include "log.h"

/* How long to accept nobody when there are no file descriptors left. */
#define PAUSE_SECONDS 1.

enum client_state {
  CLIENT_OPEN,                  /* more requests may come */
  CLIENT_EOF,                   /* no more; what is here is still answered */
  CLIENT_CLOSING,               /* gone as soon as its answer is sent */
};

struct client {
  struct client *next, **link;  /* link: what points here */
  struct control_socket *cs;
  ev_io io;
  int fd;
  enum client_state state;
  uint64_t heard_at;            /* on the clock of the control socket */
  char *answer;                 /* NULL: none is under way */
  size_t answer_bytes, sent_bytes;
  size_t input_bytes;
  char input[CONTROL_MAX_LINE_BYTES];
};

struct control_socket {
  struct control_source source;
  int fd, dir_fd;
  char path[sizeof ((struct sockaddr_un *) NULL)->sun_path];
  char name[sizeof ((struct sockaddr_un *) NULL)->sun_path];    /* in dir_fd */
  dev_t dev;                    /* the socket, as a file */
  ino_t ino;

  ev_io io;
  ev_timer pause;
  struct client *clients;
  unsigned nr_clients;
  uint64_t clock;               /* counts whenever a client is heard of */
};

/* The server may change its directory later: remember where the name is. */
static int
open_directory (struct control_socket *cs, const char *path)
{
  char dir[sizeof cs->path], base[sizeof cs->path];

  if (strlen (path) >= sizeof cs->path)
    return set_error (ENAMETOOLONG,
                      "control socket %s: a socket's path has at most %zu"
                      " bytes; name another with control=PATH,"
                      " or none with control=off",
                      path, sizeof cs->path - 1);
  strcpy (cs->path, path);
  strcpy (dir, path);
  strcpy (base, path);
  strcpy (cs->name, basename (base));
  cs->dir_fd = open (dirname (dir), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (cs->dir_fd == -1)
    return set_error (errno, "control socket %s: %s", path, errno_text (errno));
  return 0;
}

static bool
somebody_answers (const struct control_socket *cs)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool answers;

  strcpy (addr.sun_path, cs->path);
  answers = fd != -1 &&
    (connect (fd, (struct sockaddr *) &addr, sizeof addr) == 0
     || errno == EAGAIN);       /* its queue is full */
  cleanup_close (&fd);
  return answers;
}

static int
remove_stale (struct control_socket *cs)
{
  struct stat st;

  if (fstatat (cs->dir_fd, cs->name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
    if (errno == ENOENT)
      return 0;
  }
  else if (!S_ISSOCK (st.st_mode))
    return set_error (EEXIST, "control socket %s: something else is there,"
                      " which is no socket", cs->path);
  else if (somebody_answers (cs))
    return set_error (EADDRINUSE, "control socket %s: another server answers"
                      " there: name another place with control=", cs->path);
  else if (unlinkat (cs->dir_fd, cs->name, 0) == 0)
    return 0;
  return set_error (errno, "control socket %s: %s", cs->path,
                    errno_text (errno));
}

/* On Linux a socket file is born with the mode of the socket's own inode, so
 * there is no moment at which others could connect.
 */
static int
bind_and_listen (struct control_socket *cs)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  struct stat st;

  strcpy (addr.sun_path, cs->path);
  cs->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (cs->fd == -1
      || fchmod (cs->fd, 0600) == -1
      || bind (cs->fd, (struct sockaddr *) &addr, sizeof addr) == -1
      || fstatat (cs->dir_fd, cs->name, &st, AT_SYMLINK_NOFOLLOW) == -1)
    goto err;
  cs->dev = st.st_dev;          /* from here on it is ours to unlink */
  cs->ino = st.st_ino;
  if (listen (cs->fd, CONTROL_MAX_CLIENTS) == -1)
    goto err;
  return 0;

 err:
  return set_error (errno, "control socket %s: %s", cs->path,
                    errno_text (errno));
}

struct control_socket *
control_socket_new (const char *path, const struct control_source *source)
{
  struct control_socket *cs = calloc (1, sizeof *cs);

  if (!cs) {
    set_error (ENOMEM, "control socket: no memory");
    return NULL;
  }
  cs->source = *source;
  cs->fd = cs->dir_fd = -1;
  if (open_directory (cs, path) == -1
      || remove_stale (cs) == -1
      || bind_and_listen (cs) == -1) {
    control_socket_free (cs);
    return NULL;
  }
  return cs;
}

/* Unlinks the name only while it is that of our own socket. */
void
control_socket_free (struct control_socket *cs)
{
  struct stat st;

  if (!cs)
    return;
  if (cs->ino != 0
      && fstatat (cs->dir_fd, cs->name, &st, AT_SYMLINK_NOFOLLOW) == 0
      && st.st_dev == cs->dev && st.st_ino == cs->ino)
    unlinkat (cs->dir_fd, cs->name, 0);
  cleanup_close (&cs->fd);
  cleanup_close (&cs->dir_fd);
  free (cs);
}

static void
client_free (struct client *client, struct ev_loop *loop)
{
  struct control_socket *cs = client->cs;

  ev_io_stop (loop, &client->io);
  *client->link = client->next;
  if (client->next)
    client->next->link = client->link;
  cs->nr_clients--;
  close (client->fd);
  free (client->answer);
  free (client);
}

/* Returns false if the client is to be freed; so do the functions below. */
static bool
client_send (struct client *client)
{
  ssize_t r = send (client->fd, client->answer + client->sent_bytes,
                    client->answer_bytes - client->sent_bytes,
                    MSG_NOSIGNAL | MSG_DONTWAIT);

  if (r == -1)
    return errno == EAGAIN || errno == EINTR;
  client->sent_bytes += (size_t) r;
  if (client->sent_bytes < client->answer_bytes)
    return true;
  free (client->answer);
  client->answer = NULL;
  return client->state != CLIENT_CLOSING;
}

static bool
client_receive (struct client *client)
{
  ssize_t r = recv (client->fd, client->input + client->input_bytes,
                    sizeof client->input - client->input_bytes, MSG_DONTWAIT);

  if (r == -1)
    return errno == EAGAIN || errno == EINTR;
  if (r == 0)
    client->state = CLIENT_EOF;
  client->input_bytes += (size_t) r;
  client->heard_at = ++client->cs->clock;
  return true;
}

/* Length of the first line that can be answered; 0: none.  What a client sent
 * last is a line, even if it did not end it.
 */
static size_t
client_line_bytes (const struct client *client)
{
  const char *end = memchr (client->input, '\n', client->input_bytes);

  if (end)
    return (size_t) (end - client->input) + 1;
  return client->state == CLIENT_EOF ? client->input_bytes : 0;
}

/* Answer the first line that is here, if there is one. */
static bool
client_answer (struct client *client)
{
  size_t line_bytes = client_line_bytes (client);

  if (line_bytes > 0) {
    client->answer = control_answer (&client->cs->source, client->input,
                                     line_bytes);
    client->input_bytes -= line_bytes;
    memmove (client->input, client->input + line_bytes, client->input_bytes);
  }
  else if (client->input_bytes == sizeof client->input) {
    client->answer = control_error_line (CONTROL_INVALID_REQUEST,
                                         "this line is too long");
    client->state = CLIENT_CLOSING;
    if (!client->answer)
      return false;
  }
  if (!client->answer)
    return true;
  client->answer_bytes = strlen (client->answer);
  client->sent_bytes = 0;
  return client_send (client);
}

/* Wait for what comes next.  A further line that is here already waits for the
 * next round of the loop (K1).
 */
static bool
client_wait (struct client *client, struct ev_loop *loop)
{
  int events;

  if (client->answer || client_line_bytes (client) > 0)
    events = EV_WRITE;
  else if (client->state == CLIENT_OPEN)
    events = EV_READ;
  else
    return false;
  if ((client->io.events & (EV_READ | EV_WRITE)) != events) {
    ev_io_stop (loop, &client->io);
    ev_io_set (&client->io, client->fd, events);
    ev_io_start (loop, &client->io);
  }
  return true;
}

static void
on_client (struct ev_loop *loop, ev_io *io, int revents)
{
  struct client *client = io->data;
  bool stays = true;

  if (client->answer)
    stays = client_send (client);
  else if (revents & EV_READ)
    stays = client_receive (client);
  if (stays && !client->answer)
    stays = client_answer (client);
  if (!stays || !client_wait (client, loop))
    client_free (client, loop);
}

/* K4 */
static void
make_room (struct control_socket *cs, struct ev_loop *loop)
{
  struct client *silent = cs->clients;

  if (cs->nr_clients < CONTROL_MAX_CLIENTS)
    return;
  for (struct client *c = cs->clients; c; c = c->next)
    if (c->heard_at < silent->heard_at)
      silent = c;
  client_free (silent, loop);
}

static void
client_new (struct control_socket *cs, struct ev_loop *loop, int fd)
{
  struct client *client = calloc (1, sizeof *client);

  if (!client) {
    close (fd);
    return;
  }
  make_room (cs, loop);
  client->next = cs->clients;
  client->link = &cs->clients;
  client->cs = cs;
  client->fd = fd;
  client->heard_at = ++cs->clock;
  if (client->next)
    client->next->link = &client->next;
  cs->clients = client;
  cs->nr_clients++;

  ev_io_init (&client->io, on_client, fd, EV_READ);
  client->io.data = client;
  ev_io_start (loop, &client->io);
}

/* K3 */
static bool
peer_is_allowed (int fd)
{
  struct ucred peer;
  socklen_t len = sizeof peer;

  return getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0
    && (peer.uid == 0 || peer.uid == geteuid ());
}

static void
turn_away (int fd)
{
  CLEANUP_FREE char *line =
    control_error_line (CONTROL_DENIED,
                        "only root and the user of the server may ask");

  if (line)
    (void) !send (fd, line, strlen (line), MSG_NOSIGNAL | MSG_DONTWAIT);
  close (fd);
}

static void
on_connection (struct ev_loop *loop, ev_io *io, int revents)
{
  struct control_socket *cs = io->data;
  int fd = accept4 (cs->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

  if (fd == -1) {
    if (errno == EMFILE || errno == ENFILE
        || errno == ENOBUFS || errno == ENOMEM) {
      log_message (LEVEL_WARNING, "control socket %s: %s", cs->path,
                   errno_text (errno));
      ev_io_stop (loop, &cs->io);
      ev_timer_set (&cs->pause, PAUSE_SECONDS, 0.);
      ev_timer_start (loop, &cs->pause);
    }
    return;
  }
  if (peer_is_allowed (fd))
    client_new (cs, loop, fd);
  else
    turn_away (fd);
}

static void
on_pause_end (struct ev_loop *loop, ev_timer *timer, int revents)
{
  struct control_socket *cs = timer->data;

  ev_io_start (loop, &cs->io);
}

static void
attach (void *opaque, struct ev_loop *loop)
{
  struct control_socket *cs = opaque;

  ev_init (&cs->pause, on_pause_end);
  cs->pause.data = cs;
  ev_io_init (&cs->io, on_connection, cs->fd, EV_READ);
  cs->io.data = cs;
  ev_io_start (loop, &cs->io);
}

static void
detach (void *opaque, struct ev_loop *loop)
{
  struct control_socket *cs = opaque;

  ev_io_stop (loop, &cs->io);
  ev_timer_stop (loop, &cs->pause);
  while (cs->clients)
    client_free (cs->clients, loop);
}

struct worker_guest
control_socket_guest (struct control_socket *cs)
{
  return (struct worker_guest) {
    .attach = attach, .detach = detach, .opaque = cs,
  };
}
