/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-client.h"
#include "control.h"
#include "error.h"

/* No server sends more in one answer: about 100 bytes a run. */
#define MAX_ANSWER_BYTES (CONTROL_LIST_MAX * 1024)

struct control_client {
  int fd;
  struct sockaddr_un addr;      /* sun_path also for messages */
  json_int_t last_id;
};

static int64_t
now_ms (void)
{
  return (int64_t) (clock_now_ns () / NS_PER_MS);
}

static int
fail_no_answer (const struct control_client *client)
{
  return set_error (EBUSY, "%s: the server does not answer within %d seconds",
                    client->addr.sun_path, CONTROL_CLIENT_TIMEOUT_MS / 1000);
}

static int
fail_errno (const struct control_client *client)
{
  return set_error (errno, "%s: %s", client->addr.sun_path, errno_text (errno));
}

/* A server that takes nobody on has its backlog full; connect waits then, as
 * long as the socket's timeout for sending is.
 */
static int
client_connect (struct control_client *client)
{
  struct timeval timeout = { .tv_sec = CONTROL_CLIENT_TIMEOUT_MS / 1000 };

  client->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client->fd == -1)
    return fail_errno (client);
  if (setsockopt (client->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout,
                  sizeof timeout) == -1)
    return fail_errno (client);
  if (connect (client->fd, (struct sockaddr *) &client->addr,
               sizeof client->addr) == -1)
    return errno == EAGAIN ? fail_no_answer (client) : fail_errno (client);
  return 0;
}

struct control_client *
control_client_open (const char *path)
{
  struct control_client *client;

  if (strlen (path) >= sizeof client->addr.sun_path) {
    set_error (ENAMETOOLONG, "%s: too long for the path of a socket", path);
    return NULL;
  }
  client = calloc (1, sizeof *client);
  if (!client) {
    set_error (ENOMEM, "control client: no memory");
    return NULL;
  }
  client->addr.sun_family = AF_UNIX;
  strcpy (client->addr.sun_path, path);
  client->fd = -1;
  if (client_connect (client) == -1) {
    control_client_close (client);
    return NULL;
  }
  return client;
}

void
control_client_close (struct control_client *client)
{
  if (!client)
    return;
  cleanup_close (&client->fd);
  free (client);
}

static int
wait_ready (struct control_client *client, short events, int64_t deadline_ms)
{
  struct pollfd pfd = { .fd = client->fd, .events = events };
  int64_t left_ms = deadline_ms - now_ms ();
  int r = left_ms > 0 ? poll (&pfd, 1, (int) left_ms) : 0;

  if (r == 0)
    return fail_no_answer (client);
  return r == 1 || errno == EINTR ? 0 : fail_errno (client);
}

/* The server may have said why it hangs up before we have said all. */
static int
send_line (struct control_client *client, const char *line, size_t len,
           int64_t deadline_ms)
{
  while (len > 0) {
    ssize_t r;

    if (wait_ready (client, POLLOUT, deadline_ms) == -1)
      return -1;
    r = send (client->fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r == -1 && errno == EPIPE)
      return 0;
    if (r == -1 && errno != EAGAIN && errno != EINTR)
      return fail_errno (client);
    if (r > 0) {
      line += r;
      len -= (size_t) r;
    }
  }
  return 0;
}

struct buffer {
  char *bytes;
  size_t len, size;
};

static int
make_room (struct control_client *client, struct buffer *buffer)
{
  char *bigger;

  if (buffer->len < buffer->size)
    return 0;
  if (buffer->size >= MAX_ANSWER_BYTES)
    return set_error (EPROTO, "%s: the answer is too long",
                      client->addr.sun_path);
  bigger = realloc (buffer->bytes, buffer->size + 65536);
  if (!bigger)
    return set_error (ENOMEM, "control client: no memory");
  buffer->bytes = bigger;
  buffer->size += 65536;
  return 0;
}

/* Receive until the buffer ends with a newline. */
static int
receive_line (struct control_client *client, struct buffer *buffer,
              int64_t deadline_ms)
{
  for (;;) {
    ssize_t r;

    if (make_room (client, buffer) == -1
        || wait_ready (client, POLLIN, deadline_ms) == -1)
      return -1;
    r = recv (client->fd, buffer->bytes + buffer->len,
              buffer->size - buffer->len, MSG_DONTWAIT);
    if (r == -1 && (errno == EAGAIN || errno == EINTR))
      continue;
    if (r == -1 && errno != ECONNRESET)
      return fail_errno (client);
    if (r <= 0)
      return set_error (ECONNRESET, "%s: the server hung up",
                        client->addr.sun_path);
    buffer->len += (size_t) r;
    if (buffer->bytes[buffer->len - 1] == '\n')
      return 0;
  }
}

static json_t *
exchange (struct control_client *client, const char *line)
{
  int64_t deadline_ms = now_ms () + CONTROL_CLIENT_TIMEOUT_MS;
  struct buffer buffer = { .bytes = NULL };
  json_t *answer = NULL;

  if (send_line (client, line, strlen (line), deadline_ms) == 0
      && receive_line (client, &buffer, deadline_ms) == 0) {
    answer = json_loadb (buffer.bytes, buffer.len, JSON_REJECT_DUPLICATES,
                         NULL);
    if (!answer)
      set_error (EPROTO, "%s: the answer is not valid JSON",
                 client->addr.sun_path);
  }
  free (buffer.bytes);
  return answer;
}

static char *
make_request (struct control_client *client, const char *method,
              const json_t *params)
{
  json_t *request = json_pack ("{s:s, s:I, s:s}", "jsonrpc", "2.0",
                               "id", ++client->last_id, "method", method);
  char *text = NULL, *line = NULL;

  if (request
      && (!params
          || json_object_set_new (request, "params",
                                  json_deep_copy (params)) == 0))
    text = json_dumps (request, JSON_COMPACT);
  if (!text || asprintf (&line, "%s\n", text) == -1) {
    set_error (ENOMEM, "control client: no memory");
    line = NULL;
  }
  free (text);
  json_decref (request);
  return line;
}

/* What a server says that does not give a result. */
static void
take_error (struct control_client *client, const json_t *error)
{
  json_int_t code = json_integer_value (json_object_get (error, "code"));
  const char *message = json_string_value (json_object_get (error,
                                                            "message"));
  int err = EPROTO;

  switch (code) {
  case CONTROL_DENIED: err = EACCES; break;
  case CONTROL_INTERNAL_ERROR: err = ENOMEM; break;
  case CONTROL_METHOD_NOT_FOUND:
  case CONTROL_INVALID_REQUEST:
  case CONTROL_INVALID_PARAMS: err = EINVAL; break;
  }
  set_error (err, "%s: %s", client->addr.sun_path,
             message ? message : "an answer that makes no sense");
}

json_t *
control_client_call (struct control_client *client, const char *method,
                     const json_t *params)
{
  CLEANUP_FREE char *line = make_request (client, method, params);
  json_t *answer = line ? exchange (client, line) : NULL;
  json_t *result = json_object_get (answer, "result");
  json_t *id = json_object_get (answer, "id");

  if (answer && result && json_is_integer (id)
      && json_integer_value (id) == client->last_id)
    json_incref (result);
  else {
    if (answer)
      take_error (client, json_object_get (answer, "error"));
    result = NULL;
  }
  json_decref (answer);
  return result;
}
