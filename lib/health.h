/* SPDX-License-Identifier: BSD-3-Clause */
/* health: error counters by kind and region of the disk.
 *
 * Purpose:    what the worker knows of the disk; pure, no clock, no thread.
 * Invariants: H1 The counters of all regions of one kind add up to the total
 *                of that kind.  (health_verify)
 * Locking:    the caller holds the health mutex (worker.c).
 */
#ifndef REMAP_HEALTH_H
#define REMAP_HEALTH_H

#include <stddef.h>
#include <stdint.h>

#include "event.h"

/* The disk is divided into this many regions of equal size (the last may be
 * smaller), so that counters cost the same for any disk.
 */
#define HEALTH_NR_REGIONS 1024

struct health_region {
  uint64_t count[NR_EVENT_KINDS];
};

struct health {
  uint64_t nr_sectors;                  /* these two never change */
  uint64_t sectors_per_region;
  uint64_t total[NR_EVENT_KINDS];       /* events, not sectors */
  uint64_t nr_uncounted_details;        /* events whose details did not fit
                                           into the queue; they are counted */
  struct event last_error;              /* kind of an error; when_ns 0: none */
  struct health_region region[HEALTH_NR_REGIONS];
};

#define HEALTH_NR_WORST 8

/* What is published for everybody else to read. */
struct health_snapshot {
  uint64_t total[NR_EVENT_KINDS];
  uint64_t nr_uncounted_details;
  struct event last_error;
  unsigned nr_worst;                    /* regions with most medium errors,
                                           worst first */
  struct {
    lba_t lba;
    uint64_t nr_sectors;
    uint64_t nr_errors;
  } worst[HEALTH_NR_WORST];
};

extern void health_init (struct health *h, uint64_t nr_sectors);
/* Reads only what never changes: needs no lock. */
extern unsigned health_region_of (const struct health *h, lba_t lba);
extern void health_note (struct health *h, const struct event *event);

/* count events of that kind in that region, of which nothing else is known
 * (the queue was full).
 */
extern void health_note_count (struct health *h, unsigned region,
                               enum event_kind kind, uint64_t count);
extern void health_get_snapshot (const struct health *h,
                                 struct health_snapshot *ret);
extern void health_verify (const struct health *h);

extern const char *event_kind_to_string (enum event_kind kind);

#endif /* REMAP_HEALTH_H */
