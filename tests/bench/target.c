/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdbool.h>
#include <stdio.h>

#include "bench.h"
#include "target.h"

static const struct {
  const char *key, *unit, *to_reach;
  double limit;
  bool is_most;                 /* else it is the least */
} targets[NR_TARGETS] = {
  [TARGET_DIRECT] = { "clean path, direct", "ratio",
                      "to the best qemu-nbd --cache=none", 1.00, false },
  [TARGET_BUFFERED] = { "clean path, buffered", "ratio", "to nbdkit file",
                        0.97, false },
  [TARGET_ELSEWHERE] = { "clean regions, 1,000,000 remaps", "ratio",
                         "to none", 0.98, false },
  [TARGET_REMAPPED] = { "4k on remapped sectors", "ratio",
                        "to the clean path", 0.90, false },
  [TARGET_STORM] = { "error storm, 64 in flight", "ratio",
                     "to single fdatasyncs", 20, false },
  [TARGET_TOUCHES] = { "touches of a bad sector", "requests", "", 3, true },
  [TARGET_CALLS] = { "1 MiB, a bad sector in it", "calls",
                     "more than needed", 3, true },
  [TARGET_LOOKUP_CLEAN] = { "lookup in a clean region", "ns", "", 5, true },
  [TARGET_LOOKUP_1M] = { "lookup among 1,000,000 remaps", "ns", "", 100,
                         true },
  [TARGET_LOOKUP_10M] = { "lookup among 10,000,000 remaps", "ns", "", 200,
                          true },
  [TARGET_MEMORY] = { "memory, 1,000,000 random remaps", "bytes a remap", "",
                      12, true },
  [TARGET_RUN] = { "memory, a run of 10,000 sectors", "ratio",
                   "to that of 1 sector", 1, true },
  [TARGET_START_1M] = { "start with 1,000,000 remaps", "s", "", 0.1, true },
  [TARGET_START_10M] = { "start with 10,000,000 remaps", "s", "", 1, true },
  [TARGET_WAKEUPS] = { "idle server, wake-ups", "a second", "", 1, true },
  [TARGET_RESIDENT] = { "idle server, resident", "MiB", "", 20, true },
};

static struct {
  bool has_value;
  double value;
  char where[256];
} worst[NR_TARGETS];

void
target_note (enum target target, const char *where, double value)
{
  bool is_worse = targets[target].is_most ? value > worst[target].value
    : value < worst[target].value;

  if (worst[target].has_value && !is_worse)
    return;
  worst[target].has_value = true;
  worst[target].value = value;
  snprintf (worst[target].where, sizeof worst[target].where, "%s", where);
}

void
target_note_ratio (enum target target, const char *where,
                   const struct bench_series *a, const struct bench_series *b)
{
  target_note (target, where,
               bench_quantile (a, 0.5) / bench_quantile (b, 0.5));
}

static void
report (enum target target)
{
  bool is_met = targets[target].is_most
    ? worst[target].value <= targets[target].limit
    : worst[target].value >= targets[target].limit;

  bench_report_value (targets[target].key, targets[target].unit,
                      worst[target].value);
  printf ("      %s %g %s%s: %s%s%s\n",
          targets[target].is_most ? "at most" : "at least",
          targets[target].limit, targets[target].unit,
          targets[target].to_reach[0] ? " " : "",
          is_met ? "reached" : "NOT reached",
          worst[target].where[0] ? ", worst: " : "",
          worst[target].where);
}

static bool
has_any (void)
{
  for (unsigned i = 0; i < NR_TARGETS; i++)
    if (worst[i].has_value)
      return true;
  return false;
}

void
targets_report (void)
{
  if (!has_any ())
    return;
  bench_heading ("targets/", "To reach, and the worst that was measured "
                 "(ratios of medians)");
  for (unsigned i = 0; i < NR_TARGETS; i++)
    if (worst[i].has_value)
      report ((enum target) i);
}
