/* SPDX-License-Identifier: BSD-3-Clause */
/* model-client: several connections with several requests each under way. */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "model-client.h"
#include "t_base.h"
#include "t_nbd.h"
#include "t_wait.h"

enum {
  MOST_CONNECTIONS = 16, MOST_DEPTH = 16,
  PATIENCE_MS = 60000,          /* without any answer: it hangs */
};

/* A request under way. */
struct slot {
  struct model_request request;
  uint8_t *buffer;
  struct model_extent *extents;
  size_t nr_extents;
  bool is_used, has_ended;
  int err;
};

struct connection {
  struct nbd_handle *h;
  struct slot slots[MOST_DEPTH];
};

struct model_client {
  struct connection connections[MOST_CONNECTIONS];
  unsigned nr_connections, depth, nr_under_way;
  model_answer_fn *answered;
  void *opaque;
  bool is_cut_off;
};

struct model_client *
model_client_new (const struct t_server *s, unsigned nr_connections,
                  unsigned depth, model_answer_fn *answered, void *opaque)
{
  struct model_client *c = calloc (1, sizeof *c);

  if (c == NULL)
    T_FAIL ("out of memory");
  c->nr_connections = nr_connections < MOST_CONNECTIONS ? nr_connections
    : MOST_CONNECTIONS;
  c->depth = depth < MOST_DEPTH ? depth : MOST_DEPTH;
  c->answered = answered;
  c->opaque = opaque;
  for (unsigned i = 0; i < c->nr_connections; i++)
    c->connections[i].h = t_nbd_connect (s);
  return c;
}

void
model_client_free (struct model_client *c)
{
  if (c->nr_under_way > 0)
    T_FAIL ("%u requests are still under way", c->nr_under_way);
  for (unsigned i = 0; i < c->nr_connections; i++)
    t_nbd_close (c->connections[i].h);
  free (c);
}

bool
model_client_can (const struct model_client *c, const struct model_request *r)
{
  struct nbd_handle *h = c->connections[0].h;

  switch (r->op) {
  case MODEL_CACHE:
    return nbd_can_cache (h) == 1;
  case MODEL_STATUS:
    return nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  case MODEL_READ:
    return !r->whole_reply || nbd_can_df (h) == 1;
  case MODEL_ZERO:
    return !r->fast || nbd_can_fast_zero (h) == 1;
  default:
    return true;
  }
}

static struct slot *
free_slot (const struct model_client *c, unsigned i)
{
  const struct connection *n = &c->connections[i];

  for (unsigned j = 0; j < c->depth; j++)
    if (!n->slots[j].is_used)
      return (struct slot *) &n->slots[j];
  return NULL;
}

bool
model_client_has_room (const struct model_client *c, unsigned i)
{
  return free_slot (c, i) != NULL;
}

/*---- What libnbd calls ----*/

static int
on_end (void *opaque, int *error)
{
  struct slot *s = opaque;

  s->has_ended = true;
  s->err = *error;
  return 1;                     /* libnbd shall forget it */
}

static int
on_chunk (void *opaque, const void *data, size_t count, uint64_t offset,
          unsigned status, int *error)
{
  (void) opaque;
  (void) data;
  (void) count;
  (void) offset;
  (void) status;
  (void) error;
  return 0;                     /* the data is in the buffer already */
}

static int
on_extents (void *opaque, const char *context, uint64_t offset,
            uint32_t *entries, size_t nr, int *error)
{
  struct slot *s = opaque;

  (void) error;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  s->extents = realloc (s->extents, (s->nr_extents + nr / 2 + 1) *
                        sizeof *s->extents);
  if (s->extents == NULL)
    T_FAIL ("out of memory");
  for (size_t i = 0; i + 1 < nr; i += 2) {
    s->extents[s->nr_extents++] = (struct model_extent) {
      .offset = offset, .count = entries[i],
      .is_zero = (entries[i + 1] & LIBNBD_STATE_ZERO) != 0,
    };
    offset += entries[i];
  }
  return 0;
}

/*---- Sending ----*/

static int64_t
send_slot (struct nbd_handle *h, struct slot *s)
{
  const struct model_request *r = &s->request;
  const nbd_completion_callback end = { .callback = on_end, .user_data = s };
  const nbd_chunk_callback chunk = { .callback = on_chunk };
  const nbd_extent_callback extents = {
    .callback = on_extents, .user_data = s,
  };
  const uint32_t fua = r->fua ? LIBNBD_CMD_FLAG_FUA : 0;

  switch (r->op) {
  case MODEL_READ:
    if (r->whole_reply)
      return nbd_aio_pread_structured (h, s->buffer, r->count, r->offset,
                                       chunk, end, LIBNBD_CMD_FLAG_DF);
    return nbd_aio_pread (h, s->buffer, r->count, r->offset, end, 0);
  case MODEL_WRITE:
    return nbd_aio_pwrite (h, s->buffer, r->count, r->offset, end, fua);
  case MODEL_ZERO:
    return nbd_aio_zero (h, r->count, r->offset, end, fua |
                         (r->fast ? LIBNBD_CMD_FLAG_FAST_ZERO : 0) |
                         (r->no_hole ? LIBNBD_CMD_FLAG_NO_HOLE : 0));
  case MODEL_TRIM:
    return nbd_aio_trim (h, r->count, r->offset, end, fua);
  case MODEL_FLUSH:
    return nbd_aio_flush (h, end, 0);
  case MODEL_CACHE:
    return nbd_aio_cache (h, r->count, r->offset, end, 0);
  default:
    return nbd_aio_block_status (h, r->count, r->offset, extents, end, 0);
  }
}

void
model_client_send (struct model_client *c, unsigned i,
                   const struct model_request *r, const void *data_to_write)
{
  struct slot *s = free_slot (c, i);

  *s = (struct slot) { .request = *r, .is_used = true };
  if (r->op == MODEL_READ || r->op == MODEL_WRITE) {
    s->buffer = malloc (r->count);
    if (s->buffer == NULL)
      T_FAIL ("out of memory");
    if (r->op == MODEL_WRITE)
      memcpy (s->buffer, data_to_write, r->count);
    else
      memset (s->buffer, 0xee, r->count);
  }
  c->nr_under_way++;
  if (send_slot (c->connections[i].h, s) == -1)
    T_FAIL ("sending a request: %s", nbd_get_error ());
}

/*---- Answers ----*/

static const char *
describe_under_way (const struct model_client *c)
{
  static const char *const names[] = {
    "read", "write", "zero", "trim", "flush", "cache", "status",
  };
  char *text = t_str ("%s", "");

  for (unsigned i = 0; i < c->nr_connections; i++)
    for (unsigned j = 0; j < c->depth; j++) {
      const struct slot *s = &c->connections[i].slots[j];

      if (s->is_used)
        text = t_str ("%s\n    %s of %u bytes at %llu", text,
                      names[s->request.op], s->request.count,
                      (unsigned long long) s->request.offset);
    }
  return text;
}

/* Hand out what has ended.  A connection that breaks while the server lives is
 * a failure of the server.
 */
static unsigned
hand_out (struct model_client *c)
{
  unsigned nr = 0;

  for (unsigned i = 0; i < c->nr_connections; i++)
    for (unsigned j = 0; j < c->depth; j++) {
      struct slot *s = &c->connections[i].slots[j];
      struct model_answer a = {
        .request = s->request, .err = s->err, .data = s->buffer,
        .extents = s->extents, .nr_extents = s->nr_extents,
      };

      if (!s->is_used || !s->has_ended)
        continue;
      if (a.err == ENOTCONN && !c->is_cut_off)
        T_FAIL ("the server closed a connection");
      if (a.err == ENOTCONN)
        a.err = MODEL_CUT_OFF;
      s->is_used = false;
      c->nr_under_way--;
      nr++;
      c->answered (c->opaque, &a);
      free (s->buffer);
      free (s->extents);
    }
  return nr;
}

/* One turn of poll; false after timeout_ms without an event. */
static bool
turn (struct model_client *c, int timeout_ms)
{
  struct pollfd fds[MOST_CONNECTIONS];
  int nr;

  for (unsigned i = 0; i < c->nr_connections; i++) {
    struct nbd_handle *h = c->connections[i].h;
    const unsigned direction = nbd_aio_get_direction (h);

    fds[i] = (struct pollfd) {
      .fd = nbd_aio_is_dead (h) || nbd_aio_is_closed (h) ? -1
        : nbd_aio_get_fd (h),
      .events = (short) ((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                         (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT
                          : 0)),
    };
  }
  nr = poll (fds, c->nr_connections, timeout_ms);
  if (nr == -1 && errno != EINTR)
    T_FAIL ("poll: %m");
  for (unsigned i = 0; nr > 0 && i < c->nr_connections; i++) {
    struct nbd_handle *h = c->connections[i].h;

    /* An error is found by reading, after what was there before it. */
    if (fds[i].revents & (POLLIN | POLLHUP | POLLERR) &&
        nbd_aio_get_direction (h) & LIBNBD_AIO_DIRECTION_READ)
      nbd_aio_notify_read (h);
    else if (fds[i].revents & (POLLOUT | POLLHUP | POLLERR))
      nbd_aio_notify_write (h);
  }
  return nr > 0;
}

void
model_client_wait (struct model_client *c)
{
  const uint64_t deadline = t_now_ms () + PATIENCE_MS * t_scale ();

  while (c->nr_under_way > 0 && hand_out (c) == 0) {
    turn (c, 1000);
    if (t_now_ms () > deadline)
      T_FAIL ("no answer for %u s; under way are:%s",
              PATIENCE_MS / 1000 * t_scale (), describe_under_way (c));
  }
}

void
model_client_look (struct model_client *c)
{
  turn (c, 0);
  hand_out (c);
}

void
model_client_drain (struct model_client *c)
{
  while (c->nr_under_way > 0)
    model_client_wait (c);
}

void
model_client_cut_off (struct model_client *c)
{
  c->is_cut_off = true;
  while (c->nr_under_way > 0) {
    hand_out (c);
    if (c->nr_under_way > 0)
      turn (c, 1000);
  }
}

unsigned
model_client_nr_under_way (const struct model_client *c)
{
  return c->nr_under_way;
}
