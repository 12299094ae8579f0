/* SPDX-License-Identifier: BSD-3-Clause */
/* target: what the server has to reach, and the worst that was measured.
 *
 * A ratio is of medians, over all rounds of one run.
 */
#ifndef REMAP_BENCH_TARGET_H
#define REMAP_BENCH_TARGET_H

#include "bench.h"

enum target {
  TARGET_DIRECT,                /* clean path, direct I/O, to qemu-nbd */
  TARGET_BUFFERED,              /* clean path, buffered, to nbdkit file */
  TARGET_ELSEWHERE,             /* clean regions, remaps elsewhere */
  TARGET_REMAPPED,              /* 4k on remapped sectors, to the clean path */
  TARGET_STORM,                 /* to single fdatasyncs */
  TARGET_TOUCHES,               /* of a bad sector */
  TARGET_CALLS,                 /* system calls more than needed */
  TARGET_LOOKUP_CLEAN,          /* a clean region */
  TARGET_LOOKUP_1M,             /* a remapped sector, among so many */
  TARGET_LOOKUP_10M,
  TARGET_MEMORY,                /* of a remap */
  TARGET_RUN,                   /* of a long run, to a remap */
  TARGET_START_1M,
  TARGET_START_10M,
  TARGET_WAKEUPS,
  TARGET_RESIDENT,
  NR_TARGETS
};

/* A value of it; `where` says of what. */
extern void target_note (enum target target, const char *where, double value);
extern void target_note_ratio (enum target target, const char *where,
                               const struct bench_series *a,
                               const struct bench_series *b);

/* A table of all that have a value. */
extern void targets_report (void);

#endif /* REMAP_BENCH_TARGET_H */
