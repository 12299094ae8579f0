/* SPDX-License-Identifier: BSD-3-Clause */
/* workload: what clients do, and a load generator that does it. */
#ifndef REMAP_BENCH_WORKLOAD_H
#define REMAP_BENCH_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "subject.h"

#define DEPTH_MAX 64
#define CONNECTIONS_MAX 16

struct workload {
  const char *name;
  uint32_t block_bytes;
  unsigned depth;               /* requests in flight, on each connection */
  unsigned nr_connections;
  unsigned read_percent;
  unsigned flush_every;         /* a flush after so many writes; 0: none */
  bool is_sequential;
};

/* The last one has no name. */
extern const struct workload workloads[];
extern const struct workload *workload_find (const char *name);

/* Requests a second as people name them for this workload: "requests/s" or
 * "MiB/s".
 */
extern const char *workload_unit (const struct workload *w);
extern double workload_value (const struct workload *w, double rate);
extern double workload_mib (const struct workload *w, double value);

struct load {
  const struct workload *workload;
  struct server *server;
  uint64_t offset_bytes, size_bytes;    /* the region of the disk */
  double warm_up_s, seconds;
};

/* Requests a second that were answered in `seconds` after the warm-up (or until
 * the first answer, where there was none), without flushes.  Each connection
 * has a thread.  An error of a request, or a server that is silent for long,
 * ends the program.
 */
extern double load_run (const struct load *load);

#endif /* REMAP_BENCH_WORKLOAD_H */
