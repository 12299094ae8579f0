/* SPDX-License-Identifier: BSD-3-Clause */
/* spares: which slots of the store are taken.
 *
 * Purpose:    one bit a slot; pure.  The lowest free slots are given out first,
 *             so that a sparse store stays small.
 * Invariants: P1 A slot is given out to one taker at a time.
 *             P2 nr_taken is the number of bits set.  (spares_verify)
 * Locking:    the caller holds the map mutex; spares_count_* any thread.
 */
#ifndef REMAP_SPARES_H
#define REMAP_SPARES_H

#include <stdint.h>

#include "sector.h"

struct spares;

/* Slots 0 .. nr_slots - 1, all free. */
extern struct spares *spares_new (uint32_t nr_slots);
extern void spares_free (struct spares *s);

/* Only slots below nr_ready are given out. */
extern void spares_set_ready (struct spares *s, uint32_t nr_ready);
extern uint32_t spares_ready (const struct spares *s);

/* Take the lowest free slot and up to nr - 1 neighbours behind it.  Returns how
 * many, 0 if no ready slot is free.
 */
extern uint32_t spares_take (struct spares *s, uint32_t nr, spare_t *ret_first);

/* Take these very slots, which are free (a store that is opened). */
extern void spares_take_at (struct spares *s, spare_t first, uint32_t nr);
extern void spares_give (struct spares *s, spare_t first, uint32_t nr);

extern uint32_t spares_total (const struct spares *s);
extern uint32_t spares_taken (const struct spares *s);
extern void spares_verify (const struct spares *s);

#endif /* REMAP_SPARES_H */
