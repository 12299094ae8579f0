/* SPDX-License-Identifier: BSD-3-Clause */
/* status: what is known of a disk at one moment; printed by control.c.
 *
 * The first part comes from the store or, live, from counters that need no
 * lock (engine_get_status); the second from the worker's snapshot, and is
 * there only if is_live.
 */
#ifndef REMAP_STATUS_H
#define REMAP_STATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "breaker.h"
#include "health.h"

struct status {
  char backing[256], store[256], identity[128];
  uint64_t size_bytes;
  uint32_t sector_bytes, physical_bytes;
  uint64_t nr_remapped, nr_lost, nr_zeroed;     /* sectors */
  uint64_t spares_total, spares_free, spares_bad;
  bool is_live;
  /* Live only: */
  bool readonly, direct, flush_failed, store_failed;
  enum breaker_state breaker;
  int pid;
  uint64_t uptime_s;
  uint64_t now_ns;              /* CLOCK_MONOTONIC, as event.when_ns */
  struct health_snapshot health;
};

#endif /* REMAP_STATUS_H */
