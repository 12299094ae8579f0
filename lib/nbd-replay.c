/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-replay.h"

struct replay_write *
replay_write_new (const void *data, uint64_t count, uint64_t offset,
                  uint32_t flags)
{
  const size_t nr_data = data ? (size_t) count : 0;
  struct replay_write *w = malloc (sizeof *w + nr_data);

  if (w == NULL)
    return NULL;
  *w = (struct replay_write) {
    .offset = offset, .count = count, .flags = flags, .is_zero = data == NULL,
  };
  if (data)
    memcpy (w->data, data, nr_data);
  return w;
}

static uint64_t
bytes_of (const struct replay_write *w)
{
  return sizeof *w + (w->is_zero ? 0 : w->count);
}

void
replay_add (struct replay *r, struct replay_write *w, bool is_durable)
{
  if (is_durable && r->first == NULL) {         /* N2 */
    free (w);
    return;
  }
  w->number = r->end++;
  w->next = NULL;
  if (r->last)
    r->last->next = w;
  else
    r->first = w;
  r->last = w;
  r->nr_bytes += bytes_of (w);
}

void
replay_drop (struct replay *r, uint64_t end)
{
  while (r->first && r->first->number < end) {
    struct replay_write *w = r->first;

    r->first = w->next;
    r->nr_bytes -= bytes_of (w);
    free (w);
  }
  if (r->first == NULL)
    r->last = NULL;
}

bool
replay_overlap (const struct replay_write *a, const struct replay_write *b)
{
  return a->offset < b->offset + b->count && b->offset < a->offset + a->count;
}

void
replay_verify (const struct replay *r)
{
  const struct replay_write *last = NULL;
  uint64_t nr_bytes = 0;

  for (const struct replay_write *w = r->first; w; w = w->next) {
    assert (w->number < r->end && (last == NULL || last->number < w->number));
    nr_bytes += bytes_of (w);
    last = w;
  }
  assert (last == r->last && nr_bytes == r->nr_bytes);
}
