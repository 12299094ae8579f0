/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "bench.h"
#include "workload.h"

#define SILENCE_MS 30000        /* this is no slow server any more */

struct connection;

/* A request in flight, or to be sent. */
struct slot {
  struct connection *connection;
  uint8_t *buf;
  bool is_counted;              /* it is no flush */
};

struct connection {
  const struct load *load;
  struct nbd_handle *nbd;
  pthread_t thread;
  pthread_barrier_t *start;
  struct slot slots[DEPTH_MAX], *idle[DEPTH_MAX];
  unsigned nr_idle;
  uint64_t random, nr_writes;
  uint64_t begin, nr_blocks, at;        /* blocks: its part of the region */
  double from_s, until_s;
  uint64_t nr_answered;         /* in that time */
  int err;
};

/* The server has ended, or why not. */
static void __attribute__ ((noreturn))
fail (const struct load *load, const char *why)
{
  process_check (&load->server->process);
  process_fail (&load->server->process, "%s: %s", load->workload->name, why);
}

static uint64_t
random_number (struct connection *c)
{
  c->random ^= c->random >> 12;
  c->random ^= c->random << 25;
  c->random ^= c->random >> 27;
  return c->random * UINT64_C (0x2545f4914f6cdd1d);
}

/* If none came in time, the time is until the first one. */
static void
count_answer (struct connection *c, double now)
{
  if (now < c->until_s)
    c->nr_answered++;
  else if (c->nr_answered == 0) {
    c->nr_answered = 1;
    c->until_s = now;
  }
}

/* Called by libnbd when the answer is there; it may not call libnbd. */
static int
answered (void *opaque, int *error)
{
  struct slot *slot = opaque;
  struct connection *c = slot->connection;
  double now = bench_now_s ();

  if (*error)
    c->err = *error;
  else if (slot->is_counted && now >= c->from_s)
    count_answer (c, now);
  c->idle[c->nr_idle++] = slot;
  return 1;                     /* libnbd may forget it */
}

static uint64_t
next_offset (struct connection *c)
{
  const struct load *load = c->load;
  uint64_t block = load->workload->is_sequential ? c->at++ % c->nr_blocks
    : random_number (c) % c->nr_blocks;

  return load->offset_bytes + (c->begin + block) * load->workload->block_bytes;
}

/* After the writes that they belong to, before the next one. */
static bool
is_time_to_flush (struct connection *c)
{
  unsigned every = c->load->workload->flush_every;

  if (every == 0 || c->nr_writes < every)
    return false;
  c->nr_writes = 0;
  return true;
}

static void
send_request (struct connection *c, struct slot *slot)
{
  const struct workload *w = c->load->workload;
  nbd_completion_callback done = { .callback = answered, .user_data = slot };
  int64_t r;

  slot->is_counted = true;
  if (is_time_to_flush (c)) {
    slot->is_counted = false;
    r = nbd_aio_flush (c->nbd, done, 0);
  }
  else if (w->read_percent == 100 ||
           random_number (c) % 100 < w->read_percent)
    r = nbd_aio_pread (c->nbd, slot->buf, w->block_bytes, next_offset (c),
                       done, 0);
  else {
    c->nr_writes++;
    r = nbd_aio_pwrite (c->nbd, slot->buf, w->block_bytes, next_offset (c),
                        done, 0);
  }
  if (r == -1)
    fail (c->load, nbd_get_error ());
}

/* At least one more answer. */
static void
await_answer (struct connection *c)
{
  unsigned before = c->nr_idle;

  while (c->nr_idle == before) {
    int r = nbd_poll (c->nbd, SILENCE_MS);

    if (r == -1)
      fail (c->load, nbd_get_error ());
    if (r == 0)
      fail (c->load, "the server is silent");
  }
  if (c->err)
    fail (c->load, strerror (c->err));
}

static void *
keep_busy (void *opaque)
{
  struct connection *c = opaque;
  unsigned depth = c->load->workload->depth;

  pthread_barrier_wait (c->start);
  c->from_s = bench_now_s () + c->load->warm_up_s;
  c->until_s = c->from_s + c->load->seconds;
  do {
    while (c->nr_idle > 0)
      send_request (c, c->idle[--c->nr_idle]);
    await_answer (c);
  } while (bench_now_s () < c->until_s || c->nr_answered == 0);
  while (c->nr_idle < depth)
    await_answer (c);
  return NULL;
}

/* ------------------------------------------------------------- all of it -- */

static void
make_slots (struct connection *c)
{
  const struct workload *w = c->load->workload;

  for (unsigned i = 0; i < w->depth; i++) {
    struct slot *slot = &c->slots[i];

    slot->connection = c;
    slot->buf = aligned_alloc (4096, w->block_bytes);
    if (slot->buf == NULL)
      bench_fail ("no memory");
    for (uint32_t k = 0; k < w->block_bytes; k++)
      slot->buf[k] = (uint8_t) random_number (c);
    c->idle[c->nr_idle++] = slot;
  }
}

static void
connect_to (struct connection *c)
{
  const struct load *load = c->load;
  int64_t size;

  c->nbd = nbd_create ();
  if (c->nbd == NULL || nbd_connect_uri (c->nbd, load->server->uri) == -1 ||
      (size = nbd_get_size (c->nbd)) == -1)
    fail (load, nbd_get_error ());
  if ((uint64_t) size < load->offset_bytes + load->size_bytes)
    fail (load, "the disk that is served is too small");
  if (load->workload->flush_every && nbd_can_flush (c->nbd) != 1)
    fail (load, "it cannot flush");
}

static void
begin_connection (struct connection *c, unsigned number)
{
  const struct workload *w = c->load->workload;
  uint64_t nr_blocks = c->load->size_bytes / w->block_bytes;

  c->random = UINT64_C (0x9e3779b97f4a7c15) * (number + 1);
  c->begin = 0;
  c->nr_blocks = nr_blocks;
  if (w->is_sequential) {
    c->nr_blocks = nr_blocks / w->nr_connections;
    c->begin = number * c->nr_blocks;
  }
  if (c->nr_blocks == 0)
    fail (c->load, "the disk is too small");
  connect_to (c);
  make_slots (c);
}

static void
end_connection (struct connection *c)
{
  if (nbd_shutdown (c->nbd, 0) == -1)
    fail (c->load, nbd_get_error ());
  nbd_close (c->nbd);
  for (unsigned i = 0; i < c->load->workload->depth; i++)
    free (c->slots[i].buf);
}

double
load_run (const struct load *load)
{
  unsigned nr = load->workload->nr_connections;
  struct connection *c = calloc (nr, sizeof *c);
  pthread_barrier_t start;
  double rate = 0;

  if (c == NULL)
    bench_fail ("no memory");
  pthread_barrier_init (&start, NULL, nr);
  for (unsigned i = 0; i < nr; i++) {
    c[i].load = load;
    c[i].start = &start;
    begin_connection (&c[i], i);
  }
  for (unsigned i = 0; i < nr; i++)
    if (pthread_create (&c[i].thread, NULL, keep_busy, &c[i]) != 0)
      bench_fail ("no more threads");
  for (unsigned i = 0; i < nr; i++) {
    pthread_join (c[i].thread, NULL);
    rate += (double) c[i].nr_answered / (c[i].until_s - c[i].from_s);
    end_connection (&c[i]);
  }
  pthread_barrier_destroy (&start);
  free (c);
  return rate;
}
