/* SPDX-License-Identifier: BSD-3-Clause */
/* store-claims: what the entries of a store claim, "this slot stands in for
 * that sector", by the million.
 *
 * Purpose:    keep a claim in 16 bytes, and bring all claims to a sector
 *             together, the newest first.
 * Invariants: C1 The checksum of a slot's data is kept where it was asked for
 *                (a claim that no flush covers), and nowhere else.
 */
#ifndef REMAP_STORE_CLAIMS_H
#define REMAP_STORE_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sector.h"

/* With larger sequence numbers no claim counts: the store is refused. */
#define CLAIM_SEQ_MAX ((UINT64_C (1) << 47) - 1)

struct claim {
  uint64_t lba : 48;
  uint64_t is_spare_error : 1;  /* CAUSE_SPARE_ERROR led to it */
  uint64_t seq_high : 15;
  uint32_t seq_low;
  uint32_t slot : SPARE_BITS;
  uint32_t state : 2;           /* enum sector_state */
};

_Static_assert (sizeof (struct claim) == 16, "a claim takes 16 bytes");

struct claim_data {
  uint32_t slot, crc;
};

/* All zero: empty. */
struct claims {
  struct claim *claims;
  size_t nr, max, room_bytes;   /* of claims */
  struct claim_data *data;      /* by ascending slot */
  size_t nr_data, max_data;
  void *used;                   /* memory that the sort needed */
  size_t used_bytes, reuse_bytes;
};

static inline uint64_t
claim_seq (const struct claim *c)
{
  return (uint64_t) c->seq_high << 32 | c->seq_low;
}

/* Make room for one more element of an array of nr.  -1: no memory. */
extern int claims_grow (void *array, size_t nr, size_t *max,
                        size_t element_bytes);

/* Room for nr elements at once, with few page faults where they are many; to
 * free.  What is not touched takes no memory.  NULL: there is none.
 */
extern void *claims_alloc (size_t nr, size_t element_bytes);

/* At most so many will come: nothing need be moved then; and claims_reuse will
 * be asked for so many bytes for each.  Only a hint.
 */
extern void claims_expect (struct claims *c, size_t nr, size_t reuse_bytes);

/* Slots ascend from call to call. */
extern int claims_add (struct claims *c, lba_t lba, uint64_t seq, spare_t slot,
                       enum sector_state state, enum sector_cause cause);

/* Keep the checksum of the data in a slot, which ascends from call to call. */
extern int claims_add_data (struct claims *c, spare_t slot, uint32_t crc);

/* The checksum that was kept for a slot. */
extern uint32_t claims_data_crc (const struct claims *c, spare_t slot);

/* By ascending sector, then by descending sequence number, then by slot. */
extern int claims_sort (struct claims *c);

/* As claims_alloc, in the memory that the sort needed where that is enough: it
 * has its pages.
 */
extern void *claims_reuse (struct claims *c, size_t nr, size_t element_bytes);

extern void claims_free (struct claims *c);

#endif /* REMAP_STORE_CLAIMS_H */
