/* SPDX-License-Identifier: BSD-3-Clause */
/* losses: what was called lost of late, and may have to be looked at again.
 *
 * Purpose:    the last sectors that were clean and were called lost, with the
 *             slots that their records stand in, by time.  Bounded: of more,
 *             and of what nobody has asked for in time, the oldest are
 *             forgotten (and stay lost).  Pure.
 * Locking:    the caller's.
 */
#ifndef REMAP_LOSSES_H
#define REMAP_LOSSES_H

#include <stddef.h>

#include "sector.h"

#define LOSSES_MAX 16384

struct loss {
  lba_t lba;
  spare_t slot;                 /* of lba; those behind it follow */
  uint32_t nr_sectors;
  uint64_t when_ns;
};

/* A ring that grows.  All zero: empty. */
struct losses {
  struct loss *ring;
  size_t max, first, nr;
};

/* Add a loss; when_ns does not descend.  Neighbours of the last one join it.
 * Out of memory, it is not remembered.
 */
extern void losses_add (struct losses *l, const struct loss *loss);

/* Forget what is older than that. */
extern void losses_expire (struct losses *l, uint64_t before_ns);

/* Take the newest one out, if it is from since_ns or later. */
extern bool losses_take (struct losses *l, uint64_t since_ns,
                         struct loss *ret);

extern void losses_free (struct losses *l);

#endif /* REMAP_LOSSES_H */
