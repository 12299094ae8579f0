/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checked.h"
#include "cleanup.h"
#include "error.h"
#include "store-claims.h"

#define HUGE_PAGE_BYTES (2u << 20)

int
claims_grow (void *array, size_t nr, size_t *max, size_t element_bytes)
{
  void **p = array, *bigger;
  size_t new_max;

  if (nr < *max)
    return 0;
  new_max = *max ? *max * 2 : 64;
  bigger = realloc (*p, new_max * element_bytes);
  if (bigger == NULL)
    return set_error (ENOMEM, "no memory to read the store");
  *p = bigger;
  *max = new_max;
  return 0;
}

void *
claims_alloc (size_t nr, size_t element_bytes)
{
  size_t nr_bytes;
  void *p;

  if (MUL_OVERFLOWS (nr, element_bytes, &nr_bytes))
    return NULL;
  if (nr_bytes < 2 * HUGE_PAGE_BYTES)
    return malloc (MAX (nr_bytes, (size_t) 1));
  if (posix_memalign (&p, HUGE_PAGE_BYTES, nr_bytes) != 0)
    return NULL;
  madvise (p, nr_bytes, MADV_HUGEPAGE);         /* a hint */
  return p;
}

/* Bytes for each claim, in an array that claims_reuse may hand on. */
static size_t
bytes_for_each (const struct claims *c)
{
  return MAX (sizeof c->claims[0], c->reuse_bytes);
}

void *
claims_reuse (struct claims *c, size_t nr, size_t element_bytes)
{
  void *p = c->used;

  c->used = NULL;
  if (p && nr <= c->used_bytes / element_bytes)
    return p;
  free (p);
  return claims_alloc (nr, element_bytes);
}

void
claims_expect (struct claims *c, size_t nr, size_t reuse_bytes)
{
  assert (c->claims == NULL);
  c->reuse_bytes = reuse_bytes;
  c->claims = claims_alloc (nr, bytes_for_each (c));
  c->max = c->claims ? nr : 0;
  c->room_bytes = c->max * bytes_for_each (c);
}

int
claims_add (struct claims *c, lba_t lba, uint64_t seq, spare_t slot,
            enum sector_state state, enum sector_cause cause)
{
  if (c->nr == c->max) {
    if (claims_grow (&c->claims, c->nr, &c->max, sizeof c->claims[0]) == -1)
      return -1;
    c->room_bytes = c->max * sizeof c->claims[0];
  }
  c->claims[c->nr++] = (struct claim) {
    .lba = lba.n & LBA_MAX, .is_spare_error = cause == CAUSE_SPARE_ERROR,
    .seq_high = (seq & CLAIM_SEQ_MAX) >> 32, .seq_low = (uint32_t) seq,
    .slot = slot.n & SPARES_MAX, .state = state & 3,
  };
  return 0;
}

int
claims_add_data (struct claims *c, spare_t slot, uint32_t crc)
{
  if (claims_grow (&c->data, c->nr_data, &c->max_data,
                   sizeof c->data[0]) == -1)
    return -1;
  c->data[c->nr_data++] = (struct claim_data) { slot.n, crc };
  return 0;
}

uint32_t
claims_data_crc (const struct claims *c, spare_t slot)
{
  size_t low = 0, high = c->nr_data;

  while (low < high) {
    size_t mid = low + (high - low) / 2;

    if (c->data[mid].slot < slot.n)
      low = mid + 1;
    else
      high = mid;
  }
  assert (low < c->nr_data && c->data[low].slot == slot.n);     /* C1 */
  return c->data[low].crc;
}

void
claims_free (struct claims *c)
{
  free (c->claims);
  free (c->data);
  free (c->used);
  memset (c, 0, sizeof *c);
}

/* Sort.  By sector with one stable pass for each digit, the lowest first; the
 * few claims to one sector are brought into order thereafter.
 */

#define DIGIT_BITS_MAX 12
#define DIGIT_VALUES (1u << DIGIT_BITS_MAX)

static int
compare_claims (const void *va, const void *vb)
{
  const struct claim *a = va, *b = vb;

  if (a->lba != b->lba)
    return a->lba < b->lba ? -1 : 1;
  if (claim_seq (a) != claim_seq (b))
    return claim_seq (a) > claim_seq (b) ? -1 : 1;      /* the newest first */
  return a->slot < b->slot ? -1 : a->slot > b->slot;
}

/* Move all claims to `to`, ordered by one digit of their sector. */
static void
sort_by_digit (const struct claim *from, size_t nr, unsigned shift,
               unsigned mask, struct claim *to)
{
  size_t next[DIGIT_VALUES] = { 0 }, sum = 0;

  for (size_t i = 0; i < nr; i++)
    next[from[i].lba >> shift & mask]++;
  for (unsigned v = 0; v <= mask; v++) {
    size_t n = next[v];

    next[v] = sum;
    sum += n;
  }
  for (size_t i = 0; i < nr; i++)
    to[next[from[i].lba >> shift & mask]++] = from[i];
}

/* Sort by sector; slots, which ascended before, do so for each sector. */
static int
sort_by_sector (struct claims *c, unsigned nr_bits)
{
  unsigned nr_digits = (unsigned) div_round_up (nr_bits, DIGIT_BITS_MAX);
  unsigned digit_bits = (unsigned) div_round_up (nr_bits, nr_digits);
  unsigned mask = (1u << digit_bits) - 1;
  struct claim *other = claims_alloc (c->nr, bytes_for_each (c));
  size_t other_bytes = c->nr * bytes_for_each (c);

  if (other == NULL)
    return set_error (ENOMEM, "no memory to read the store");
  for (unsigned shift = 0; shift < nr_bits; shift += digit_bits) {
    struct claim *from = c->claims;
    size_t from_bytes = c->room_bytes;

    sort_by_digit (from, c->nr, shift, mask, other);
    c->claims = other;
    c->room_bytes = other_bytes;
    other = from;
    other_bytes = from_bytes;
  }
  c->max = c->nr;
  c->used = other;
  c->used_bytes = other_bytes;
  return 0;
}

static void
sort_each_sector (struct claims *c)
{
  size_t nr;

  for (size_t i = 0; i < c->nr; i += nr) {
    for (nr = 1; i + nr < c->nr && c->claims[i + nr].lba == c->claims[i].lba;
         nr++)
      ;
    if (nr > 1)
      qsort (&c->claims[i], nr, sizeof c->claims[0], compare_claims);
  }
}

int
claims_sort (struct claims *c)
{
  uint64_t all_bits = 0;
  bool is_sorted = true;

  for (size_t i = 0; i < c->nr; i++) {
    all_bits |= c->claims[i].lba;
    is_sorted = is_sorted &&
      (i == 0 || c->claims[i - 1].lba <= c->claims[i].lba);
  }
  if (!is_sorted &&
      sort_by_sector (c, 64 - (unsigned) __builtin_clzll (all_bits)) == -1)
    return -1;
  sort_each_sector (c);
  return 0;
}
