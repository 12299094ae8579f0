/* SPDX-License-Identifier: BSD-3-Clause */
/* event: what the I/O threads tell the worker. */
#ifndef REMAP_EVENT_H
#define REMAP_EVENT_H

#include <stdint.h>

#include "sector.h"

enum event_kind {
  EVENT_READ_ERROR = 0,         /* medium error: sectors could not be read */
  EVENT_WRITE_ERROR,            /* medium error: sectors could not be written */
  EVENT_WEAK,                   /* read after all, but only after retries */
  EVENT_REMAPPED,               /* moved to a spare */
  EVENT_LOST,                   /* called lost */
  EVENT_HEALED,                 /* a lost sector was written whole */
  EVENT_SPARE_ERROR,            /* a spare was bad */
  EVENT_OTHER_ERROR,            /* not the medium: err says what */
};
#define NR_EVENT_KINDS (EVENT_OTHER_ERROR + 1)

struct event {
  lba_t lba;
  uint32_t nr_sectors;
  enum event_kind kind;
  int err;                      /* errno value, 0 if none */
  uint64_t when_ns;             /* CLOCK_MONOTONIC */
};

#endif /* REMAP_EVENT_H */
