/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "clock.h"
#include "error.h"
#include "late-reads.h"
#include "lock.h"
#include "log.h"
#include "thread.h"


/* Threads that have nothing to do and stay; more of them end. */
#define IDLE_MAX 16

#define BUFFER_ALIGNMENT 4096

struct late_read {
  /* Constant: */
  lba_t lba;
  uint64_t nr_sectors, nr_bytes, begun_ns;
  uint8_t *buf;                 /* the reader's until is_done */
  pthread_cond_t done;

  /* Under the mutex: */
  struct late_read *prev, *next;        /* registered */
  struct late_read *next_queued;
  bool is_done, is_late;
  bool is_data;                 /* it may be kept, as far as it is known */
  int err;
  char error_text[256];
  uint8_t *marks;               /* of each sector */
};

struct reader {
  struct late_reads *l;
  pthread_t thread;             /* set by itself */
  struct reader *next;
};

struct late_reads {
  /* Constant: */
  struct late_reads_owner owner;
  struct ranges *ranges;
  uint64_t deadline_ms;

  /* Changed under the mutex; asked without, by who has nothing to mark. */
  _Atomic unsigned nr_registered;

  struct lock mutex;            /* a leaf */
  /* Under mutex: */
  struct late_read *registered;
  struct late_read *queue, **queue_end;
  unsigned nr_queued, nr_idle, nr_threads;
  unsigned nr_late;
  uint64_t late_bytes;
  bool stopping;
  struct reader *ended;         /* threads to be joined */
  pthread_cond_t work;          /* for idle threads */
  pthread_cond_t changed;       /* a late read, or a thread, has ended */
};

struct late_reads *
late_reads_new (uint64_t deadline_ms, struct ranges *ranges,
                const struct late_reads_owner *owner)
{
  struct late_reads *l = calloc (1, sizeof *l);

  if (l == NULL) {
    set_error (ENOMEM, "no memory for reads with a deadline");
    return NULL;
  }
  l->owner = *owner;
  l->ranges = ranges;
  l->deadline_ms = deadline_ms;
  l->queue_end = &l->queue;
  lock_init (&l->mutex, RANK_LEAF);
  lock_cond_init (&l->work);
  lock_cond_init (&l->changed);
  return l;
}

/* One read. */

static void
read_free (struct late_read *read)
{
  pthread_cond_destroy (&read->done);
  free (read->marks);
  free (read->buf);
  free (read);
}

static struct late_read *
read_new (const struct late_reads_request *request)
{
  struct late_read *read = calloc (1, sizeof *read);

  if (read == NULL)
    return NULL;
  lock_cond_init (&read->done);
  read->lba = request->lba;
  read->nr_sectors = request->nr_sectors;
  read->nr_bytes = request->nr_bytes;
  read->begun_ns = clock_now_ns ();
  read->marks = calloc (1, request->nr_sectors);
  read->buf = aligned_alloc (BUFFER_ALIGNMENT,
                             round_up (request->nr_bytes, BUFFER_ALIGNMENT));
  if (read->marks && read->buf)
    return read;
  read_free (read);
  return NULL;
}

lba_t
late_read_lba (const struct late_read *read)
{
  return read->lba;
}

uint64_t
late_read_nr_sectors (const struct late_read *read)
{
  return read->nr_sectors;
}

const uint8_t *
late_read_data (const struct late_read *read)
{
  return read->buf;
}

unsigned
late_read_took_s (const struct late_read *read)
{
  return (unsigned) ((clock_now_ns () - read->begun_ns) / NS_PER_S);
}

/* The sectors that a read has in common with a range, counted from the read's
 * first one: [*ret_first, *ret_end).  false: none.
 */
static bool
in_common (const struct late_read *read, lba_t lba, uint64_t nr_sectors,
           uint64_t *ret_first, uint64_t *ret_end)
{
  uint64_t first = MAX (read->lba.n, lba.n);
  uint64_t end = MIN (read->lba.n + read->nr_sectors, lba.n + nr_sectors);

  if (first >= end)
    return false;
  *ret_first = first - read->lba.n;
  *ret_end = end - read->lba.n;
  return true;
}

/* Marks. */

void
late_reads_overtake (struct late_reads *l, lba_t lba, uint64_t nr_sectors)
{
  uint64_t first, end;

  /* Either this load sees the read, or the read, which looks into ranges after
   * it was counted, sees the caller there (D3).
   */
  if (atomic_load (&l->nr_registered) == 0)
    return;
  LOCK_FOR_SCOPE (&l->mutex);
  for (struct late_read *read = l->registered; read; read = read->next)
    if (in_common (read, lba, nr_sectors, &first, &end))
      memset (read->marks + first, 1, end - first);
}

uint64_t
late_read_next (struct late_reads *l, const struct late_read *read, lba_t lba,
                uint64_t nr_sectors, bool *ret_is_overtaken)
{
  const uint8_t *marks = read->marks + (lba.n - read->lba.n);
  uint64_t n = 1;

  LOCK_FOR_SCOPE (&l->mutex);
  while (n < nr_sectors && marks[n] == marks[0])
    n++;
  *ret_is_overtaken = marks[0];
  return n;
}

/* The registry. */

static void
register_locked (struct late_reads *l, struct late_read *read)
{
  read->next = l->registered;
  if (read->next)
    read->next->prev = read;
  l->registered = read;
  atomic_fetch_add (&l->nr_registered, 1);
}

static void
unregister_locked (struct late_reads *l, struct late_read *read)
{
  if (read->prev)
    read->prev->next = read->next;
  else
    l->registered = read->next;
  if (read->next)
    read->next->prev = read->prev;
  atomic_fetch_sub (&l->nr_registered, 1);
}

/* Is a read late for a sector that this one wants, and still of use? */
static bool
meets_late_locked (const struct late_reads *l, const struct late_read *read)
{
  uint64_t first, end;

  if (l->nr_late == 0)
    return false;
  for (const struct late_read *r = l->registered; r; r = r->next)
    if (r->is_late &&
        in_common (r, read->lba, read->nr_sectors, &first, &end) &&
        memchr (r->marks + first, 0, end - first))
      return true;
  return false;
}

static bool
has_room_locked (const struct late_reads *l, const struct late_read *read)
{
  return l->nr_late == 0 ||
    (l->nr_late < LATE_READS_MAX &&
     l->late_bytes + read->nr_bytes <= LATE_READS_BYTES_MAX);
}

static int
not_in_time (const struct late_reads *l)
{
  int err = l->owner.errno_of_late ? l->owner.errno_of_late (l->owner.opaque)
    : EIO;

  return set_error (err, "no answer from %s for %g seconds", l->owner.name,
                    (double) l->deadline_ms / 1000);
}

/* Register a read as soon as it may begin (D6). */
static int
begin (struct late_reads *l, struct late_read *read, uint64_t due_ns)
{
  LOCK_FOR_SCOPE (&l->mutex);
  while (!has_room_locked (l, read) || meets_late_locked (l, read))
    if (!lock_wait_until (&l->mutex, &l->changed, due_ns))
      return not_in_time (l);
  register_locked (l, read);
  return 0;
}

/* Threads. */

static struct late_read *
take_from_queue_locked (struct late_reads *l)
{
  struct late_read *read = l->queue;

  if (read) {
    l->queue = read->next_queued;
    if (l->queue == NULL)
      l->queue_end = &l->queue;
    l->nr_queued--;
  }
  return read;
}

/* Whoever wanted it has gone. */
static void
end_late (struct late_reads *l, struct late_read *read)
{
  if (read->err == 0)
    l->owner.came_late (l->owner.opaque, read);
  else
    log_limited (LEVEL_WARNING, "sectors %llu to %llu of %s: the late read has "
                 "failed after %u seconds: %s",
                 (unsigned long long) read->lba.n,
                 (unsigned long long) (read->lba.n + read->nr_sectors - 1),
                 l->owner.name, late_read_took_s (read), read->error_text);
  {
    LOCK_FOR_SCOPE (&l->mutex);
    unregister_locked (l, read);
    l->nr_late--;
    l->late_bytes -= read->nr_bytes;
    pthread_cond_broadcast (&l->changed);
  }
  read_free (read);
}

static void
run (struct late_reads *l, struct late_read *read)
{
  bool is_data = true, is_late;
  int r = l->owner.read (l->owner.opaque, read->lba, read->nr_bytes, read->buf,
                         &is_data);
  int err = r == -1 ? errno : 0;

  {
    LOCK_FOR_SCOPE (&l->mutex);
    read->err = err;
    if (err)
      snprintf (read->error_text, sizeof read->error_text, "%s",
                last_error_text ());
    if (!is_data)
      memset (read->marks, 1, read->nr_sectors);
    read->is_done = true;
    is_late = read->is_late;
    if (!is_late) {
      unregister_locked (l, read);
      pthread_cond_signal (&read->done);
    }
  }
  if (is_late)
    end_late (l, read);         /* else it is the waiter's now */
}

/* The next read, or NULL: this thread shall end. */
static struct late_read *
next_read (struct late_reads *l)
{
  LOCK_FOR_SCOPE (&l->mutex);
  while (l->queue == NULL) {
    if (l->stopping || l->nr_idle >= IDLE_MAX)
      return NULL;
    l->nr_idle++;
    lock_wait (&l->mutex, &l->work);
    l->nr_idle--;
  }
  return take_from_queue_locked (l);
}

static void *
reader_main (void *opaque)
{
  struct reader *reader = opaque;
  struct late_reads *l = reader->l;
  struct late_read *read;

  reader->thread = pthread_self ();
  pthread_setname_np (reader->thread, "remap-read");
  while ((read = next_read (l)))
    run (l, read);

  LOCK_FOR_SCOPE (&l->mutex);
  reader->next = l->ended;
  l->ended = reader;
  l->nr_threads--;
  pthread_cond_broadcast (&l->changed);
  return NULL;
}

static void
join_ended (struct late_reads *l)
{
  struct reader *ended, *next;

  {
    LOCK_FOR_SCOPE (&l->mutex);
    ended = l->ended;
    l->ended = NULL;
  }
  for (; ended; ended = next) {
    next = ended->next;
    pthread_join (ended->thread, NULL);
    free (ended);
  }
}

/* One more thread; it has been counted. */
static int
add_thread (struct late_reads *l)
{
  struct reader *reader = calloc (1, sizeof *reader);
  pthread_t thread;             /* it tells itself which one it is */

  join_ended (l);
  if (reader) {
    reader->l = l;
    if (thread_start (&thread, reader_main, reader) == 0)
      return 0;
    free (reader);
  }
  LOCK_FOR_SCOPE (&l->mutex);
  l->nr_threads--;
  return -1;
}

/* Queue a read; returns whether a thread has to be added for it. */
static bool
enqueue (struct late_reads *l, struct late_read *read)
{
  LOCK_FOR_SCOPE (&l->mutex);
  *l->queue_end = read;
  l->queue_end = &read->next_queued;
  l->nr_queued++;
  if (l->nr_queued <= l->nr_idle) {
    pthread_cond_signal (&l->work);
    return false;
  }
  l->nr_threads++;
  return true;
}

/* Take a read out of the queue, if no thread has it. */
static bool
withdraw (struct late_reads *l, struct late_read *read)
{
  LOCK_FOR_SCOPE (&l->mutex);
  for (struct late_read **p = &l->queue; *p; p = &(*p)->next_queued)
    if (*p == read) {
      *p = read->next_queued;
      if (*p == NULL)
        l->queue_end = p;
      l->nr_queued--;
      unregister_locked (l, read);
      return true;
    }
  return false;
}

/* Wait for a read.  0: it is done; -1: it is late, and the thread's. */
static int
await (struct late_reads *l, struct late_read *read, uint64_t due_ns)
{
  uint64_t first = read->lba.n, last = first + read->nr_sectors - 1;

  {
    LOCK_FOR_SCOPE (&l->mutex);
    while (!read->is_done)
      if (!lock_wait_until (&l->mutex, &read->done, due_ns))
        break;
    if (read->is_done)
      return 0;
    read->is_late = true;
    l->nr_late++;
    l->late_bytes += read->nr_bytes;
  }
  log_limited (LEVEL_WARNING, "sectors %llu to %llu of %s: no answer for %g "
               "seconds; the client gets an error, the read goes on",
               (unsigned long long) first, (unsigned long long) last,
               l->owner.name, (double) l->deadline_ms / 1000);
  return not_in_time (l);
}

int
late_reads_do (struct late_reads *l, const struct late_reads_request *request,
               void *buf)
{
  struct late_read *read = read_new (request);
  uint64_t due_ns;
  int err;

  if (read == NULL)
    return 1;
  due_ns = read->begun_ns + l->deadline_ms * NS_PER_MS;
  if (begin (l, read, due_ns) == -1) {
    err = errno;
    read_free (read);
    errno = err;
    return -1;
  }
  if (ranges_is_busy (l->ranges, read->lba, read->nr_sectors)) {        /* D3 */
    LOCK_FOR_SCOPE (&l->mutex);
    memset (read->marks, 1, read->nr_sectors);
  }
  if (enqueue (l, read) && add_thread (l) == -1 && withdraw (l, read)) {
    read_free (read);
    return 1;
  }
  if (await (l, read, due_ns) == -1)
    return -1;
  err = read->err;
  if (err)
    set_error (err, "%s", read->error_text);
  else
    memcpy (buf, read->buf + request->skip, request->count);    /* D5 */
  read_free (read);
  if (err)
    errno = err;
  return err ? -1 : 0;
}

void
late_reads_free (struct late_reads *l)
{
  unsigned nr_late;

  if (l == NULL)
    return;
  nr_late = late_reads_count (l);
  if (nr_late > 0)
    log_message (LEVEL_WARNING, "%s: waiting for %u reads that it sits on",
                 l->owner.name, nr_late);
  {
    LOCK_FOR_SCOPE (&l->mutex);
    l->stopping = true;
    pthread_cond_broadcast (&l->work);
    while (l->nr_threads > 0)
      lock_wait (&l->mutex, &l->changed);
  }
  join_ended (l);
  assert (l->registered == NULL && l->nr_late == 0 && l->late_bytes == 0);
  pthread_cond_destroy (&l->work);
  pthread_cond_destroy (&l->changed);
  lock_destroy (&l->mutex);
  free (l);
}

unsigned
late_reads_count (struct late_reads *l)
{
  LOCK_FOR_SCOPE (&l->mutex);
  return l->nr_late;
}
