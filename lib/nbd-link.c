/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libnbd.h>

#include "checked.h"
#include "clock.h"
#include "error.h"
#include "lock.h"
#include "log.h"
#include "nbd-link.h"


#define CONNECTIONS_MAX 4
#define REQUEST_MAX (32u << 20)
#define BLOCK_MAX 65536
#define REPLAY_MAX 32           /* writes at a time */
#define ZEROES_BYTES (UINT64_C (1) << 20)
#define BREAKS_MAX 10           /* that one request may live through */

#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 3200
#define ATTEMPT_NS (5 * NS_PER_S)
#define FURTHER_NS NS_PER_S     /* for one more connection */
#define LATE_NS NS_PER_S        /* for requests that come when the time that
                                   others waited for is over */
#define TICK_NS NS_PER_S        /* look after the connection so often */

#define FAREWELL_NS (NS_PER_S / 2)      /* it closes then, or stays */
#define SLICE_NS (NS_PER_S / 20)

enum link_state {
  LINK_DOWN, LINK_CONNECTING, LINK_REPLAYING, LINK_UP, LINK_ENDING,
};

struct connection {
  struct nbd_handle *h;         /* NULL: none */
  int wake;                     /* eventfd: whoever polls shall look again */
  const void *driver;           /* request of the thread that polls; or NULL */
  unsigned polled;              /* directions it polls for */
  struct nbd_request *requests; /* under way */
  unsigned nr_requests;
  uint64_t life;                /* another one after each closing */
};

/* A write that is being sent again. */
struct replay_slot {
  struct replay_write *write;   /* NULL: free */
  struct nbd_request request;
};

struct nbd_link {
  char *uri;
  uint64_t timeout_ns, silence_ns;
  bool is_readonly;             /* nothing is going to be written */
  struct nbd_server server;     /* constant after opening */

  struct lock lock;             /* rank 48: all below */
  pthread_cond_t state_changed;
  enum link_state state;
  struct connection connections[CONNECTIONS_MAX];
  unsigned nr_max;              /* connections: more it does not take */
  unsigned nr_wanted;           /* of this attempt */
  unsigned nr_connected;        /* likewise */
  uint64_t generation;          /* grows with every break */
  bool was_up;                  /* ever: the server is known */
  bool is_led, is_loss_told, is_return_told;
  bool writes_all_again;        /* a replay: else only what is owed */
  bool is_proved;               /* it has answered a command since it is up */
  char why[256];                /* it is down */
  char told[256];               /* what was last said of a server that has
                                   changed */
  uint64_t give_up_ns;          /* requests that wait fail then */
  uint64_t next_attempt_ns, attempt_end_ns, down_since_ns;
  uint64_t ending_end_ns, idle_end_ns;
  unsigned pause_ms;
  struct nbd_link_counts counts;
  struct replay replay;
  struct replay_slot *slots;    /* NULL: no replay is under way */
  struct replay_write *replay_at;       /* the next of it */
  unsigned next_slot;
  struct replay_write *unwanted;        /* ranges to take out of it (N3) */
  bool has_forgotten;           /* what is not durable is not all in replay: */
  uint64_t forgotten_end;       /* not what is below */
  bool has_lost;
};

static bool
wait_until_locked (struct nbd_link *link, uint64_t until_ns)
{
  return lock_wait_until (&link->lock, &link->state_changed, until_ns);
}

/* libnbd's last error of this thread, without the name of its function. */
static const char *
libnbd_error (void)
{
  const char *text = nbd_get_error ();
  const char *colon = text ? strstr (text, ": ") : NULL;

  if (text == NULL)
    return "unknown error";
  return colon && strncmp (text, "nbd_", 4) == 0 ? colon + 2 : text;
}

/* Connections. */

static void
close_connection (struct connection *c)
{
  const uint64_t one = 1;

  if (c->h == NULL)
    return;
  nbd_close (c->h);
  c->h = NULL;
  c->driver = NULL;
  c->life++;
  if (write (c->wake, &one, sizeof one) != sizeof one)
    assert (errno == EAGAIN);   /* it is awake as it is */
}

/* With all that is under way on it (K1). */
static void
give_up_connection (struct connection *c)
{
  close_connection (c);
  while (c->requests) {
    struct nbd_request *r = c->requests;

    c->requests = r->next;
    r->is_done = r->is_broken = true;
    pthread_cond_signal (&r->changed);
  }
  c->nr_requests = 0;
}

/* The next attempt comes after a pause, longer than the one before. */
static void
put_off_locked (struct nbd_link *link)
{
  link->next_attempt_ns = clock_now_ns () + link->pause_ms * NS_PER_MS;
  link->pause_ms = MIN (2 * link->pause_ms, (unsigned) PAUSE_MAX_MS);
}

/* A link that was up is not any more. */
static void
note_break_locked (struct nbd_link *link, const char *why, bool is_silent)
{
  const uint64_t silence = is_silent ? link->silence_ns : 0;
  const uint64_t now = clock_now_ns ();

  link->counts.nr_breaks++;
  link->down_since_ns = now;
  link->give_up_ns = now + link->timeout_ns - MIN (silence, link->timeout_ns);
  link->next_attempt_ns = now;
  if (!link->is_proved)
    put_off_locked (link);
  link->is_loss_told = link->is_return_told = false;
  link->has_lost |= link->has_forgotten;
  link->has_forgotten = false;
  snprintf (link->why, sizeof link->why, "%s", why);
}

static void
break_locked (struct nbd_link *link, const char *why, bool is_silent)
{
  if (link->state == LINK_UP ||
      (link->state == LINK_REPLAYING && !link->writes_all_again))
    note_break_locked (link, why, is_silent);
  else if (link->state != LINK_ENDING)
    snprintf (link->why, sizeof link->why, "%s", why);
  link->state = LINK_DOWN;
  link->generation++;
  for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
    give_up_connection (&link->connections[i]);
  pthread_cond_broadcast (&link->state_changed);
}

static bool
is_idle_locked (const struct nbd_link *link)
{
  for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
    if (link->connections[i].requests)
      return false;
  return true;
}

/* One connection has broken.  What is under way on others is awaited: were it
 * thrown away and sent again, the server might carry out the first one still,
 * behind a newer write (K2).
 */
static void
lose_locked (struct nbd_link *link, struct connection *c, const char *why,
             bool is_silent)
{
  if (link->state != LINK_UP && link->state != LINK_ENDING) {
    break_locked (link, why, is_silent);
    return;
  }
  if (link->state == LINK_UP) {
    note_break_locked (link, why, is_silent);
    link->state = LINK_ENDING;
    link->ending_end_ns = clock_now_ns () + link->timeout_ns / 2;
  }
  give_up_connection (c);
  if (is_idle_locked (link))
    break_locked (link, why, is_silent);
  pthread_cond_broadcast (&link->state_changed);
}

/* It is answered, well or not. */
static void
finish_locked (struct nbd_link *link, struct nbd_request *r)
{
  const bool is_durable = r->flags & LIBNBD_CMD_FLAG_FUA;

  r->is_done = true;
  pthread_cond_signal (&r->changed);
  if (link->state != LINK_UP)
    pthread_cond_broadcast (&link->state_changed);
  if (r->err != 0)
    return;
  link->is_proved = true;
  link->pause_ms = PAUSE_FIRST_MS;
  if (r->copy)
    replay_add (&link->replay, r->copy, is_durable);
  r->copy = NULL;
  if (r->command == NBD_FLUSH) {
    replay_drop (&link->replay, r->replay_end);
    if (r->replay_end >= link->forgotten_end)
      link->has_forgotten = false;
  }
}

/* Errors that the server has no number for: they come from libnbd, which had to
 * say something.
 */
static bool
is_of_link (int err)
{
  return err == ENOTCONN || err == EPROTO;
}

/* Take what has been answered off the connection. */
static void
take_answers_locked (struct nbd_link *link, struct connection *c)
{
  struct nbd_request **p = &c->requests;

  while (*p) {
    struct nbd_request *r = *p;
    int completed;

    if (!r->is_answered) {
      p = &r->next;
      continue;
    }
    /* libnbd looks now whether a read got all of its bytes, and says EIO if it
     * did not.
     */
    completed = nbd_aio_command_completed (c->h, (uint64_t) r->cookie);
    if (is_of_link (r->err) || (completed != 1 && r->err == 0)) {
      lose_locked (link, c, "an answer that makes no sense", false);
      return;
    }
    *p = r->next;
    c->nr_requests--;
    finish_locked (link, r);
  }
}

/* After every call to libnbd.  Answers that came with the end of the connection
 * are not looked at: some of them are not the server's (K1).
 */
static void
settle_locked (struct nbd_link *link, struct connection *c)
{
  const int err = nbd_get_errno ();

  if (nbd_aio_is_closed (c->h))
    lose_locked (link, c, "the server has closed it", false);
  else if (nbd_aio_is_dead (c->h))
    lose_locked (link, c, libnbd_error (), err == ETIMEDOUT ||
                 err == EHOSTUNREACH || err == ENETUNREACH);
  else
    take_answers_locked (link, c);
}

/* Has the other end been silent for too long, on the level of TCP (K4)? */
static bool
is_silent (const struct nbd_link *link, int fd)
{
  struct tcp_info info = { .tcpi_probes = 0 };
  socklen_t size = sizeof info;

  return getsockopt (fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 &&
    info.tcpi_last_ack_recv * NS_PER_MS > link->silence_ns &&
    (info.tcpi_retransmits >= 2 || info.tcpi_probes >= 2);
}

/* Without lingering, the kernel forgets what it has not sent yet when a socket
 * is closed.  Otherwise it would go on sending, and when the network is back,
 * writes that were given up would arrive behind later ones (K6).
 */
static void
prepare_socket (const struct nbd_link *link, int fd)
{
  const struct linger none = { .l_onoff = 1, .l_linger = 0 };
  const int on = 1, between_s = (int) MAX (link->silence_ns / NS_PER_S / 3,
                                           UINT64_C (1));
  const int nr_probes = 127;    /* is_silent decides */

  if (setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == -1)
    return;                     /* no TCP */
  setsockopt (fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &between_s, sizeof between_s);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &nr_probes, sizeof nr_probes);
}

static short
poll_events (unsigned direction)
{
  return (short) ((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                  (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

static void
notify_locked (struct nbd_link *link, struct connection *c, short revents)
{
  unsigned direction = nbd_aio_get_direction (c->h);

  if (revents & (POLLIN | POLLHUP | POLLERR) &&
      direction & LIBNBD_AIO_DIRECTION_READ)
    nbd_aio_notify_read (c->h);
  else if (revents && direction & LIBNBD_AIO_DIRECTION_WRITE)
    nbd_aio_notify_write (c->h);
}

/* Wait until something happens on a connection, and deal with it.  me: the
 * caller's request, or anything that is its own.
 */
static void
drive_locked (struct nbd_link *link, struct connection *c, const void *me,
              uint64_t until_ns)
{
  const uint64_t life = c->life, now = clock_now_ns ();
  const int fd = nbd_aio_get_fd (c->h);
  struct pollfd fds[2] = {
    { .fd = fd, .events = poll_events (nbd_aio_get_direction (c->h)) },
    { .fd = c->wake, .events = POLLIN },
  };
  uint64_t wait_ns = MIN (until_ns > now ? until_ns - now : 0, TICK_NS), nr;
  int r;

  c->driver = me;
  c->polled = nbd_aio_get_direction (c->h);
  lock_release (&link->lock);
  r = poll (fds, 2, (int) ((wait_ns + NS_PER_MS - 1) / NS_PER_MS));
  lock_acquire (&link->lock);
  if (c->life != life)
    return;                     /* it is another connection now */
  c->driver = NULL;
  if (r > 0 && fds[1].revents && read (c->wake, &nr, sizeof nr) == -1)
    assert (errno == EAGAIN);
  if (r > 0 && fds[0].revents) {
    notify_locked (link, c, fds[0].revents);
    if (c->life == life)
      settle_locked (link, c);
  }
  else if (r == 0 && is_silent (link, fd))
    lose_locked (link, c, "the other end does not answer", true);
}

/* Requests. */

static int
answered (void *opaque, int *error)
{
  struct nbd_request *r = opaque;

  r->is_answered = true;
  r->err = *error;
  return 0;
}

static int
add_extents (void *opaque, const char *context, uint64_t offset,
             uint32_t *entries, size_t nr_entries, int *error)
{
  struct nbd_request *r = opaque;
  size_t nr = nr_entries / 2;

  (void) offset;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  if (r->nr_extents + nr > r->max_extents) {
    size_t max = r->nr_extents + nr;
    struct nbd_extent *bigger = realloc (r->extents, max * sizeof *bigger);

    if (bigger == NULL) {
      *error = ENOMEM;
      return -1;
    }
    r->extents = bigger;
    r->max_extents = max;
  }
  for (size_t i = 0; i < nr; i++)
    r->extents[r->nr_extents++] = (struct nbd_extent) {
      .nr_bytes = entries[2 * i], .type = entries[2 * i + 1],
    };
  return 0;
}

static int64_t
issue (struct nbd_handle *h, struct nbd_request *r)
{
  nbd_completion_callback done = { .callback = answered, .user_data = r };
  nbd_extent_callback extent = { .callback = add_extents, .user_data = r };

  switch (r->command) {
  case NBD_READ:
    return nbd_aio_pread (h, r->buf, (size_t) r->count, r->offset, done,
                          r->flags);
  case NBD_WRITE:
    return nbd_aio_pwrite (h, r->buf, (size_t) r->count, r->offset, done,
                           r->flags);
  case NBD_FLUSH:
    return nbd_aio_flush (h, done, r->flags);
  case NBD_ZERO:
    return nbd_aio_zero (h, r->count, r->offset, done, r->flags);
  case NBD_TRIM:
    return nbd_aio_trim (h, r->count, r->offset, done, r->flags);
  case NBD_CACHE:
    return nbd_aio_cache (h, r->count, r->offset, done, r->flags);
  case NBD_STATUS:
    break;
  }
  return nbd_aio_block_status (h, r->count, r->offset, extent, done, r->flags);
}

/* -1: libnbd would not take it, or there is no connection any more; then
 * is_broken tells so.
 */
static int
submit_locked (struct nbd_link *link, struct connection *c,
               struct nbd_request *r)
{
  const uint64_t one = 1;

  r->is_answered = r->is_done = r->is_broken = false;
  r->err = 0;
  r->nr_extents = 0;
  r->replay_end = link->replay.end;
  r->cookie = issue (c->h, r);
  if (r->cookie == -1) {
    r->err = nbd_get_errno () ? nbd_get_errno () : EINVAL;
    if (nbd_aio_is_ready (c->h) == 1 || nbd_aio_is_processing (c->h) == 1)
      return -1;
    settle_locked (link, c);
    r->is_done = r->is_broken = true;
    return -1;
  }
  r->next = c->requests;
  c->requests = r;
  c->nr_requests++;
  if (c->driver && nbd_aio_get_direction (c->h) & ~c->polled &&
      write (c->wake, &one, sizeof one) == -1)
    assert (errno == EAGAIN);
  settle_locked (link, c);
  return 0;
}

/* Until it is answered, or the connection is gone. */
static void
wait_for_locked (struct nbd_link *link, struct connection *c,
                 struct nbd_request *r)
{
  while (!r->is_done)
    if (c->driver)
      lock_wait (&link->lock, &r->changed);
    else
      drive_locked (link, c, r, UINT64_MAX);
  /* Somebody else has to drive now. */
  if (c->driver == NULL && c->requests)
    pthread_cond_signal (&c->requests->changed);
}

/* It has answered ESHUTDOWN: that is the farewell of a server that is being
 * stopped, if the connection ends now; else it is its answer to this request,
 * and none of the disk's (K1).
 */
static bool
is_leaving_locked (struct nbd_link *link, struct connection *c, uint64_t life)
{
  const uint64_t end_ns = clock_now_ns () + FAREWELL_NS;

  while (c->life == life && clock_now_ns () < end_ns)
    if (c->driver)
      wait_until_locked (link, MIN (end_ns, clock_now_ns () + SLICE_NS));
    else
      drive_locked (link, c, &end_ns, end_ns);
  if (c->life == life && c->driver == NULL && c->requests)
    pthread_cond_signal (&c->requests->changed);
  return c->life != life;
}

/* Connect. */

static void
prepare_handle (struct nbd_handle *h)
{
  nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION);
  nbd_set_uri_allow_local_file (h, true);       /* keys and certificates */
  /* A disk may end within a block. */
  nbd_set_strict_mode (h, nbd_get_strict_mode (h) &
                       ~(uint32_t) LIBNBD_STRICT_ALIGN);
}

/* An attempt has come to nothing. */
static void
attempt_failed_locked (struct nbd_link *link, const char *why)
{
  char text[sizeof link->why];

  snprintf (text, sizeof text, "%s", why);
  break_locked (link, text, false);
  log_message (LEVEL_DEBUG, "%s: attempt %u to connect: %s; the next one in %u "
               "ms", link->uri, link->counts.nr_attempts, text,
               link->pause_ms);
  put_off_locked (link);
}

/* The server takes no more connections than there are. */
static void
have_enough_locked (struct nbd_link *link)
{
  link->nr_wanted = link->nr_connected;
  if (!link->was_up)
    link->nr_max = link->nr_connected;
}

/* One more connection of this attempt.  Only the thread that leads is here, so
 * the lock may go while a name is looked up.
 */
static void
begin_connection_locked (struct nbd_link *link)
{
  struct nbd_handle *h = nbd_create ();
  int r = -1;

  lock_release (&link->lock);
  if (h) {
    prepare_handle (h);
    r = nbd_aio_connect_uri (h, link->uri);
  }
  lock_acquire (&link->lock);
  if (r == 0) {
    link->connections[link->nr_connected].h = h;
    return;
  }
  if (link->nr_connected == 0)
    attempt_failed_locked (link, libnbd_error ());
  else
    have_enough_locked (link);
  if (h)
    nbd_close (h);
}

static void
begin_attempt_locked (struct nbd_link *link)
{
  link->state = LINK_CONNECTING;
  link->writes_all_again = true;
  link->counts.nr_attempts++;
  link->nr_connected = 0;
  link->nr_wanted = link->nr_max;
  link->attempt_end_ns = clock_now_ns () + ATTEMPT_NS;
  begin_connection_locked (link);
}

static int
ask_server (struct nbd_handle *h, struct nbd_server *ret)
{
  int64_t size = nbd_get_size (h);
  int64_t min = nbd_get_block_size (h, LIBNBD_SIZE_MINIMUM);
  int64_t max = nbd_get_block_size (h, LIBNBD_SIZE_MAXIMUM);

  if (size == -1)
    return set_error (EINVAL, "%s", libnbd_error ());
  *ret = (struct nbd_server) {
    .size_bytes = (uint64_t) size,
    .min_bytes = min > 0 ? (uint32_t) min : 1,
    .max_bytes = max > 0 && max < REQUEST_MAX ? (uint32_t) max : REQUEST_MAX,
    .is_readonly = nbd_is_read_only (h) == 1,
    .is_rotational = nbd_is_rotational (h) == 1,
    .can_flush = nbd_can_flush (h) == 1,
    .can_fua = nbd_can_fua (h) == 1,
    .can_trim = nbd_can_trim (h) == 1,
    .can_zero = nbd_can_zero (h) == 1,
    .can_fast_zero = nbd_can_fast_zero (h) == 1,
    .can_cache = nbd_can_cache (h) == 1,
    .can_extents =
      nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1,
    .can_multi_conn = nbd_can_multi_conn (h) == 1,
  };
  if (!is_power_of_2 (ret->min_bytes) || ret->min_bytes > BLOCK_MAX)
    return set_error (EINVAL, "its smallest block has %u bytes: a power of two "
                      "up to %d is needed", ret->min_bytes, BLOCK_MAX);
  ret->max_bytes = (uint32_t) MAX (round_down (ret->max_bytes, ret->min_bytes),
                                   (uint64_t) ret->min_bytes);
  return 0;
}

/* K5.  What it can do more than before is no harm. */
static int
compare_server (const struct nbd_link *link, const struct nbd_server *is)
{
  const struct nbd_server *was = &link->server;

  if (is->size_bytes != was->size_bytes)
    return set_error (ESTALE, "it has %llu bytes now, and had %llu",
                      (unsigned long long) is->size_bytes,
                      (unsigned long long) was->size_bytes);
  if (is->min_bytes > was->min_bytes || is->max_bytes < was->max_bytes)
    return set_error (ESTALE, "its block sizes are others now (%u to %u bytes, "
                      "they were %u to %u)", is->min_bytes, is->max_bytes,
                      was->min_bytes, was->max_bytes);
  if (is->is_readonly && !was->is_readonly && !link->is_readonly)
    return set_error (ESTALE, "it is read-only now");
  if (was->can_cache > is->can_cache || was->can_extents > is->can_extents ||
      (!link->is_readonly &&
       (was->can_flush > is->can_flush || was->can_fua > is->can_fua ||
        was->can_trim > is->can_trim || was->can_zero > is->can_zero ||
        was->can_fast_zero > is->can_fast_zero)))
    return set_error (ESTALE, "it can do less now than before");
  return 0;
}

static void
check_server_locked (struct nbd_link *link, struct nbd_handle *h)
{
  struct nbd_server server;

  if (ask_server (h, &server) == -1 ||
      (link->was_up && compare_server (link, &server) == -1)) {
    if (link->was_up && strcmp (link->told, last_error_text ()) != 0)
      log_message (LEVEL_ERROR, "%s: another export than before (%s): not "
                   "connected", link->uri, last_error_text ());
    snprintf (link->told, sizeof link->told, "%s", last_error_text ());
    attempt_failed_locked (link, last_error_text ());
    return;
  }
  link->told[0] = '\0';
  if (!link->was_up)
    link->server = server;
  if (!server.can_multi_conn)
    link->nr_wanted = 1;        /* a flush speaks for its connection alone */
}

/* A connection is there. */
static void
end_connection_locked (struct nbd_link *link, struct nbd_handle *h)
{
  if (link->nr_connected == 0)
    check_server_locked (link, h);
  if (link->state == LINK_DOWN)
    return;
  prepare_socket (link, nbd_aio_get_fd (h));
  link->nr_connected++;
  link->attempt_end_ns = clock_now_ns () + FURTHER_NS;
  if (link->nr_connected < link->nr_wanted)
    begin_connection_locked (link);
  if (link->nr_connected >= link->nr_wanted)
    link->state = LINK_REPLAYING;
}

/* A connection will not be: without the first there is none, without others
 * there are fewer.
 */
static void
connection_failed_locked (struct nbd_link *link, const char *why)
{
  if (link->nr_connected == 0)
    attempt_failed_locked (link, why);
  else {
    close_connection (&link->connections[link->nr_connected]);
    have_enough_locked (link);
    link->state = LINK_REPLAYING;
  }
}

static void
connect_locked (struct nbd_link *link, uint64_t until_ns)
{
  struct connection *c = &link->connections[link->nr_connected];
  struct pollfd fd;
  uint64_t now = clock_now_ns ();
  uint64_t wait_ns;

  until_ns = MIN (until_ns, link->attempt_end_ns);
  wait_ns = until_ns > now ? until_ns - now : 0;
  fd = (struct pollfd) {
    .fd = nbd_aio_get_fd (c->h),
    .events = poll_events (nbd_aio_get_direction (c->h)),
  };
  lock_release (&link->lock);
  poll (&fd, 1, (int) ((wait_ns + NS_PER_MS - 1) / NS_PER_MS));
  lock_acquire (&link->lock);
  notify_locked (link, c, fd.revents);
  if (nbd_aio_is_ready (c->h) == 1)
    end_connection_locked (link, c->h);
  else if (nbd_aio_is_connecting (c->h) != 1)
    connection_failed_locked (link, libnbd_error ());
  else if (clock_now_ns () >= link->attempt_end_ns)
    connection_failed_locked (link, "no answer");
}

/* Write again (K3). */

static struct nbd_request
replay_request (const struct replay_write *w)
{
  return (struct nbd_request) {
    .command = w->bytes ? NBD_WRITE : NBD_ZERO,
    .buf = (void *) (uintptr_t) w->bytes, .offset = w->offset,
    .count = w->count, .flags = w->flags,
  };
}

/* Zeroing is not supported now: write zeroes.  An errno, or 0. */
static int
replay_zeroes (struct nbd_link *link, const struct replay_write *w)
{
  const uint64_t size = MIN ((uint64_t) link->server.max_bytes, ZEROES_BYTES);
  uint8_t *zeroes = calloc (1, (size_t) size);
  struct nbd_request r = { .command = NBD_WRITE, .buf = zeroes };
  uint64_t done = 0;

  pthread_cond_init (&r.changed, NULL);
  while (zeroes && done < w->count && r.err == 0 && !r.is_broken) {
    r.offset = w->offset + done;
    r.count = MIN (w->count - done, size);
    done += r.count;
    if (submit_locked (link, &link->connections[0], &r) == 0)
      wait_for_locked (link, &link->connections[0], &r);
  }
  pthread_cond_destroy (&r.changed);
  free (zeroes);
  return zeroes ? r.err : ENOMEM;
}

/* The first of them is told. */
static void
tell_owed (const struct nbd_link *link, const struct replay_write *w, int err)
{
  if (link->replay.nr_owed == 0)
    log_message (LEVEL_ERROR, "%s: %llu bytes at %llu, which were written "
                 "before the connection was lost, cannot be written again "
                 "(%s): flushes fail until they can; it is tried with each",
                 link->uri, (unsigned long long) w->count,
                 (unsigned long long) w->offset, errno_text (err));
}

/* Wait for the write in a slot, at most until until_ns.  Is the slot free, and
 * the link still there?
 */
static bool
end_replay_slot (struct nbd_link *link, struct replay_slot *slot,
                 uint64_t until_ns)
{
  struct replay_write *w = slot->write;
  const uint64_t generation = link->generation;
  struct connection *c = &link->connections[0];
  int err;

  if (w == NULL)
    return true;
  while (!slot->request.is_done && clock_now_ns () < until_ns)
    if (c->driver)
      lock_wait_until (&link->lock, &slot->request.changed, until_ns);
    else
      drive_locked (link, c, &slot->request, until_ns);
  if (!slot->request.is_done)
    return false;
  slot->write = NULL;
  pthread_cond_destroy (&slot->request.changed);
  if (slot->request.is_broken)
    return false;
  err = slot->request.err;
  if (err == EOPNOTSUPP && w->bytes == NULL)
    err = replay_zeroes (link, w);
  if (err == ESHUTDOWN && link->replay.nr_owed == 0 &&
      link->generation == generation)
    is_leaving_locked (link, c, c->life);
  if (link->generation != generation)
    return false;
  if (err == 0)
    replay_pay (&link->replay, w);
  else {
    tell_owed (link, w, err);
    replay_owe (&link->replay, w);
  }
  return true;
}

/* In any order (N1). */
static bool
replay_one (struct nbd_link *link, struct replay_write *w, uint64_t until_ns)
{
  struct replay_slot *slot = &link->slots[link->next_slot % REPLAY_MAX];

  if (!end_replay_slot (link, slot, until_ns))
    return false;
  link->next_slot++;
  slot->request = replay_request (w);
  lock_cond_init (&slot->request.changed);
  slot->write = w;
  if (submit_locked (link, &link->connections[0], &slot->request) == -1)
    slot->request.is_done = true;       /* err or is_broken says why */
  return true;
}

/* Nothing of it is under way any more. */
static void
free_slots (struct nbd_link *link)
{
  for (unsigned i = 0; link->slots && i < REPLAY_MAX; i++)
    if (link->slots[i].write)
      pthread_cond_destroy (&link->slots[i].request.changed);
  free (link->slots);
  link->slots = NULL;
}

/* What is to be forgotten, and what is not wanted.  Not while the link is down:
 * a replay may be walking through it (N3).
 */
static void
drop_forgotten_locked (struct nbd_link *link)
{
  if (link->state != LINK_UP)
    return;
  while (link->unwanted) {
    struct replay_write *w = link->unwanted;

    link->unwanted = w->next;
    w->next = NULL;
    replay_add (&link->replay, w, true);
  }
  if (link->has_forgotten)
    replay_drop (&link->replay, link->forgotten_end);
}

/* It is up, and what can be written is written. */
static void
be_up_locked (struct nbd_link *link)
{
  link->state = LINK_UP;
  drop_forgotten_locked (link);
  pthread_cond_broadcast (&link->state_changed);
}

/* What is owed may not meet newer writes to the same place: nothing else may be
 * under way.
 */
static bool
wait_until_idle_locked (struct nbd_link *link)
{
  const uint64_t generation = link->generation;

  while (!is_idle_locked (link) && link->generation == generation &&
         clock_now_ns () < link->idle_end_ns)
    wait_until_locked (link, link->idle_end_ns);
  return link->generation == generation && is_idle_locked (link);
}

/* Try again what is owed. */
static void
begin_to_pay_locked (struct nbd_link *link)
{
  link->state = LINK_REPLAYING;
  link->writes_all_again = false;
  link->idle_end_ns = clock_now_ns () + ATTEMPT_NS;
  link->give_up_ns = clock_now_ns () + link->timeout_ns;
}

/* False: not now. */
static bool
begin_replay_locked (struct nbd_link *link)
{
  if (!link->writes_all_again && !wait_until_idle_locked (link)) {
    if (link->state == LINK_REPLAYING)
      be_up_locked (link);
    return false;
  }
  link->slots = calloc (REPLAY_MAX, sizeof *link->slots);
  link->replay_at = link->replay.first;
  link->next_slot = 0;
  if (link->slots == NULL)
    attempt_failed_locked (link, "no memory");
  return link->slots != NULL;
}

/* Until all is written, the link breaks, or it is time to leave: false then. */
static bool
replay_all_locked (struct nbd_link *link, uint64_t until_ns)
{
  for (; link->replay_at; link->replay_at = link->replay_at->next)
    if ((link->writes_all_again || link->replay_at->is_owed) &&
        !replay_one (link, link->replay_at, until_ns))
      return false;
  for (unsigned i = 0; i < REPLAY_MAX; i++)
    if (!end_replay_slot (link, &link->slots[i], until_ns))
      return false;
  return true;
}

/* After a break the log is as it was, and all of it is written once more; else
 * what is owed.  The leader may leave at until_ns: what is under way goes on,
 * and the next one takes it from there.  (It is not sent again on another
 * connection: K4.)
 */
static void
replay_locked (struct nbd_link *link, uint64_t until_ns)
{
  const uint64_t generation = link->generation;
  bool is_done;

  if (link->slots == NULL && !begin_replay_locked (link))
    return;
  is_done = replay_all_locked (link, until_ns);
  if (link->generation == generation && !is_done) {
    snprintf (link->why, sizeof link->why, "the server has not answered yet to "
              "what is written again");
    return;
  }
  free_slots (link);
  if (link->generation != generation)
    attempt_failed_locked (link, link->why);
  else {
    link->is_proved = false;
    be_up_locked (link);
  }
}

/* Lead: bring the link up. */

static void
tell_locked (struct nbd_link *link, const char *text, const char *more)
{
  char message[sizeof link->why + 128];

  snprintf (message, sizeof message, "%s%s", text, more);
  lock_release (&link->lock);
  log_message (LEVEL_WARNING, "%s: %s", link->uri, message);
  lock_acquire (&link->lock);
}

static void
tell_loss_locked (struct nbd_link *link)
{
  if (!link->was_up || link->is_loss_told)
    return;
  link->is_loss_told = true;
  tell_locked (link, "the connection is lost, and will be made again: ",
               link->why);
}

static void
tell_return_locked (struct nbd_link *link)
{
  char seconds[64];
  uint64_t ms = (clock_now_ns () - link->down_since_ns) / NS_PER_MS;

  snprintf (seconds, sizeof seconds, "after %llu.%llu s",
            (unsigned long long) (ms / 1000),
            (unsigned long long) (ms % 1000 / 100));
  if (link->was_up)
    tell_locked (link, "the connection is back ", seconds);
}

static void
lead_step_locked (struct nbd_link *link, uint64_t until_ns)
{
  switch (link->state) {
  case LINK_DOWN:
    if (clock_now_ns () < link->next_attempt_ns)
      wait_until_locked (link, MIN (until_ns, link->next_attempt_ns));
    else
      begin_attempt_locked (link);
    break;
  case LINK_CONNECTING:
    connect_locked (link, until_ns);
    break;
  case LINK_REPLAYING:
    replay_locked (link, until_ns);
    break;
  case LINK_ENDING:
    if (is_idle_locked (link) || clock_now_ns () >= link->ending_end_ns)
      break_locked (link, link->why, false);
    else
      wait_until_locked (link, MIN (until_ns, link->ending_end_ns));
    break;
  case LINK_UP:
    break;
  }
}

/* Until it is up or it is time to give up; once: only the next attempt. */
static void
lead_locked (struct nbd_link *link, uint64_t until_ns, bool once)
{
  unsigned nr_attempts = link->counts.nr_attempts;

  link->is_led = true;
  tell_loss_locked (link);
  while (link->state != LINK_UP && clock_now_ns () < until_ns &&
         !(once && link->state == LINK_DOWN &&
           link->counts.nr_attempts != nr_attempts))
    lead_step_locked (link, until_ns);
  if (link->state == LINK_UP) {
    if (!link->is_return_told)
      tell_return_locked (link);
    link->is_return_told = true;
    link->was_up = true;
  }
  link->is_led = false;
  pthread_cond_broadcast (&link->state_changed);
}

/* Requests that come when all others have been given up wait for an attempt
 * that is due or under way, and for no other.
 */
static int
wait_until_up_locked (struct nbd_link *link)
{
  const uint64_t begin_ns = clock_now_ns ();
  const bool is_late = link->state != LINK_UP && begin_ns >= link->give_up_ns;

  while (link->state != LINK_UP) {
    uint64_t now = clock_now_ns ();
    uint64_t until_ns = is_late ? begin_ns + LATE_NS : link->give_up_ns;

    if (now >= until_ns || (is_late && link->state == LINK_DOWN &&
                            now < link->next_attempt_ns))
      return set_error (ESHUTDOWN, "%s: no connection: %s", link->uri,
                        link->why);
    if (link->is_led)
      wait_until_locked (link, until_ns);
    else
      lead_locked (link, until_ns, is_late);
  }
  return 0;
}

/* Run. */

static struct connection *
least_busy_locked (struct nbd_link *link)
{
  struct connection *best = &link->connections[0];

  for (unsigned i = 1; i < link->nr_connected; i++)
    if (link->connections[i].nr_requests < best->nr_requests)
      best = &link->connections[i];
  return best;
}

static const char *
name_of_command (enum nbd_command command)
{
  static const char *const names[] = {
    "read", "write", "flush", "zero", "trim", "cache", "block status",
  };

  return names[command];
}

/* The link is up: is a read answered with what is owed?  (A part of it may be:
 * then it becomes shorter.)
 */
static bool
is_read_owed_locked (const struct nbd_link *link, struct nbd_request *r)
{
  bool is_owed = false;

  if (r->command == NBD_READ)
    r->count = replay_owed (&link->replay, r->buf, r->count, r->offset,
                            &is_owed);
  return is_owed;
}

static int
run_locked (struct nbd_link *link, struct nbd_request *r)
{
  bool has_paid = false;

  for (unsigned nr_breaks = 0; nr_breaks < BREAKS_MAX; nr_breaks++) {
    struct connection *c;
    uint64_t life;

    if (wait_until_up_locked (link) == -1)
      return -1;
    if (is_read_owed_locked (link, r))
      return 0;
    if (r->command == NBD_FLUSH && link->replay.nr_owed > 0 && !has_paid) {
      has_paid = true;
      begin_to_pay_locked (link);
      continue;
    }
    c = least_busy_locked (link);
    life = c->life;
    if (submit_locked (link, c, r) == -1 && !r->is_broken)
      r->is_done = true;
    wait_for_locked (link, c, r);
    if (r->is_broken ||
        (r->err == ESHUTDOWN && is_leaving_locked (link, c, life)))
      continue;
    if (r->err == 0)
      return 0;
    return set_error (r->err, "%s: %s of %llu bytes at %llu: %s", link->uri,
                      name_of_command (r->command),
                      (unsigned long long) r->count,
                      (unsigned long long) r->offset, errno_text (r->err));
  }
  return set_error (ESHUTDOWN, "%s: the connection is lost again and again: %s",
                    link->uri, link->why);
}

int
nbd_link_run (struct nbd_link *link, struct nbd_request *r)
{
  int result;

  pthread_cond_init (&r->changed, NULL);
  lock_acquire (&link->lock);
  result = run_locked (link, r);
  lock_release (&link->lock);
  pthread_cond_destroy (&r->changed);
  replay_write_free (r->copy);
  r->copy = NULL;
  return result;
}

uint64_t
nbd_link_unflushed_bytes (struct nbd_link *link)
{
  LOCK_FOR_SCOPE (&link->lock);
  return link->replay.nr_bytes;
}

void
nbd_link_forget (struct nbd_link *link)
{
  LOCK_FOR_SCOPE (&link->lock);
  link->forgotten_end = link->replay.end;
  link->has_forgotten = true;
  drop_forgotten_locked (link);
}

bool
nbd_link_owes (struct nbd_link *link, uint64_t count, uint64_t offset)
{
  bool is_owed;

  LOCK_FOR_SCOPE (&link->lock);
  if (count == UINT64_MAX)
    return link->replay.nr_owed > 0;
  return replay_owed (&link->replay, NULL, count, offset, &is_owed) < count ||
    is_owed;
}

/* Without memory for it, it may be written again, which does no harm. */
void
nbd_link_forget_range (struct nbd_link *link, uint64_t count, uint64_t offset)
{
  struct replay_write *w = replay_write_new (NULL, count, offset, 0);

  if (w == NULL)
    return;
  LOCK_FOR_SCOPE (&link->lock);
  w->next = link->unwanted;
  link->unwanted = w;
  drop_forgotten_locked (link);
}

bool
nbd_link_has_lost (struct nbd_link *link)
{
  bool r;

  LOCK_FOR_SCOPE (&link->lock);
  r = link->has_lost;
  link->has_lost = false;
  return r;
}

const struct nbd_server *
nbd_link_server (const struct nbd_link *link)
{
  return &link->server;
}

struct nbd_link_counts
nbd_link_counts (struct nbd_link *link)
{
  LOCK_FOR_SCOPE (&link->lock);
  link->counts.nr_connections = link->state == LINK_UP ? link->nr_connected : 0;
  return link->counts;
}

/* Open and close. */

static struct nbd_link *
link_new (const char *uri, unsigned timeout_s, bool is_readonly)
{
  struct nbd_link *link = calloc (1, sizeof *link);

  if (link)
    link->uri = strdup (uri);
  if (link == NULL || link->uri == NULL) {
    free (link);
    set_error (ENOMEM, "no memory to open %s", uri);
    return NULL;
  }
  link->is_readonly = is_readonly;
  link->timeout_ns = timeout_s * NS_PER_S;
  link->silence_ns = MAX (link->timeout_ns / 2, NS_PER_S);
  link->pause_ms = PAUSE_FIRST_MS;
  link->nr_max = CONNECTIONS_MAX;
  lock_init (&link->lock, RANK_NBD_LINK);
  lock_cond_init (&link->state_changed);
  for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
    link->connections[i].wake = -1;
  return link;
}

struct nbd_link *
nbd_link_open (const char *uri, unsigned timeout_s, bool is_readonly)
{
  struct nbd_link *link = link_new (uri, timeout_s, is_readonly);

  if (link == NULL)
    return NULL;
  for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
    link->connections[i].wake = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->connections[i].wake == -1) {
      set_error (errno, "eventfd: %s", errno_text (errno));
      goto err;
    }
  }
  lock_acquire (&link->lock);
  lead_locked (link, clock_now_ns () + 2 * ATTEMPT_NS, true);
  lock_release (&link->lock);
  if (link->state == LINK_UP)
    return link;
  set_error (ENOTCONN, "cannot connect to %s: %s", uri, link->why);
 err:
  nbd_link_close (link);
  return NULL;
}

/* A connection that hears no more requests is worth a wait until end_ns. */
static void
take_leave (struct nbd_handle *h, uint64_t end_ns)
{
  uint64_t now;

  if (nbd_aio_is_ready (h) != 1 || nbd_aio_disconnect (h, 0) == -1)
    return;
  while ((now = clock_now_ns ()) < end_ns && nbd_aio_is_closed (h) != 1 &&
         nbd_aio_is_dead (h) != 1)
    if (nbd_poll (h, (int) ((end_ns - now) / NS_PER_MS)) != 1)
      break;
}

void
nbd_link_close (struct nbd_link *link)
{
  const uint64_t end_ns = clock_now_ns () + NS_PER_S;
  int saved = errno;

  if (link->replay.first)
    log_message (LEVEL_WARNING, "%s: closed without flush%s: up to %llu bytes "
                 "that were written may be lost", link->uri,
                 link->replay.nr_owed > 0 ? ", and some cannot be written" : "",
                 (unsigned long long) link->replay.nr_bytes);
  for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
    struct connection *c = &link->connections[i];

    if (c->h && link->state == LINK_UP)
      take_leave (c->h, end_ns);
    if (c->h)
      nbd_close (c->h);
    if (c->wake != -1)
      close (c->wake);
  }
  while (link->unwanted) {
    struct replay_write *w = link->unwanted;

    link->unwanted = w->next;
    replay_write_free (w);
  }
  free_slots (link);
  replay_clear (&link->replay);
  pthread_cond_destroy (&link->state_changed);
  lock_destroy (&link->lock);
  free (link->uri);
  free (link);
  errno = saved;
}
