/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "checked.h"
#include "error.h"
#include "spares.h"

#define WORD_BITS 64

struct spares {
  uint32_t nr_slots;
  _Atomic uint32_t nr_ready, nr_taken;
  uint32_t lowest_free;         /* no slot below is free */
  uint64_t words[];             /* bit set: taken */
};

struct spares *
spares_new (uint32_t nr_slots)
{
  size_t nr_words = div_round_up (nr_slots, WORD_BITS);
  struct spares *s = calloc (1, sizeof *s + nr_words * sizeof s->words[0]);

  if (s == NULL) {
    set_error (ENOMEM, "no memory for %u spares", nr_slots);
    return NULL;
  }
  s->nr_slots = nr_slots;
  return s;
}

void
spares_free (struct spares *s)
{
  free (s);
}

static bool
is_taken (const struct spares *s, uint32_t slot)
{
  return (s->words[slot / WORD_BITS] >> (slot % WORD_BITS)) & 1;
}

static void
flip (struct spares *s, uint32_t slot)
{
  s->words[slot / WORD_BITS] ^= UINT64_C (1) << (slot % WORD_BITS);
}

void
spares_set_ready (struct spares *s, uint32_t nr_ready)
{
  assert (nr_ready <= s->nr_slots);
  atomic_store (&s->nr_ready, nr_ready);
}

uint32_t
spares_ready (const struct spares *s)
{
  return atomic_load (&s->nr_ready);
}

/* The lowest free slot at or after `from` and below nr_ready; nr_ready: none. */
static uint32_t
find_free (const struct spares *s, uint32_t from)
{
  uint32_t nr_ready = spares_ready (s);

  while (from < nr_ready) {
    uint64_t free_bits = ~s->words[from / WORD_BITS] >> (from % WORD_BITS);

    if (free_bits)
      return MIN (from + (uint32_t) __builtin_ctzll (free_bits), nr_ready);
    from = (uint32_t) round_down (from, WORD_BITS) + WORD_BITS;
  }
  return nr_ready;
}

uint32_t
spares_take (struct spares *s, uint32_t nr, spare_t *ret_first)
{
  uint32_t nr_ready = spares_ready (s), first, n = 0;

  first = find_free (s, s->lowest_free);
  while (n < nr && first + n < nr_ready && !is_taken (s, first + n))
    flip (s, first + n++);
  s->lowest_free = first + n;
  atomic_fetch_add (&s->nr_taken, n);
  if (n > 0)
    ret_first->n = first;
  return n;
}

/* For whoever changes it there is no other: the caller holds a mutex. */
static void
add_taken (struct spares *s, uint32_t nr)
{
  atomic_store_explicit (&s->nr_taken, nr + atomic_load_explicit (
                           &s->nr_taken, memory_order_relaxed),
                         memory_order_relaxed);
}

void
spares_take_at (struct spares *s, spare_t first, uint32_t nr)
{
  for (uint32_t i = 0; i < nr; i++) {
    assert (!is_taken (s, first.n + i));        /* P1 */
    flip (s, first.n + i);
  }
  add_taken (s, nr);
}

void
spares_give (struct spares *s, spare_t first, uint32_t nr)
{
  for (uint32_t i = 0; i < nr; i++) {
    assert (is_taken (s, first.n + i));
    flip (s, first.n + i);
  }
  s->lowest_free = MIN (s->lowest_free, first.n);
  atomic_fetch_sub (&s->nr_taken, nr);
}

uint32_t
spares_total (const struct spares *s)
{
  return s->nr_slots;
}

uint32_t
spares_taken (const struct spares *s)
{
  return atomic_load (&s->nr_taken);
}

void
spares_verify (const struct spares *s)
{
  uint32_t n = 0;

  for (uint32_t i = 0; i < s->nr_slots; i++) {
    n += is_taken (s, i);
    assert (is_taken (s, i) || i >= s->lowest_free);
  }
  assert (n == spares_taken (s));               /* P2 */
}
