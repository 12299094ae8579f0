/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "workload.h"

#define K 1024
#define M (1024 * 1024)

const struct workload workloads[] = {
  /* name               bytes  depth conns reads flush sequential */
  { "read-4k-d1-c1",     4 * K,   1, 1, 100, 0, false },
  { "read-4k-d16-c1",    4 * K,  16, 1, 100, 0, false },
  { "read-4k-d1-c4",     4 * K,   1, 4, 100, 0, false },
  { "read-4k-d16-c4",    4 * K,  16, 4, 100, 0, false },
  { "write-4k-d1-c1",    4 * K,   1, 1,   0, 0, false },
  { "write-4k-d16-c1",   4 * K,  16, 1,   0, 0, false },
  { "write-4k-d1-c4",    4 * K,   1, 4,   0, 0, false },
  { "write-4k-d16-c4",   4 * K,  16, 4,   0, 0, false },
  { "mixed-4k-d16-c1",   4 * K,  16, 1,  70, 0, false },
  { "flush-4k-d1-c1",    4 * K,   1, 1,   0, 8, false },
  { "seqread-128k",    128 * K,   4, 1, 100, 0, true },
  { "seqread-1m",            M,   4, 1, 100, 0, true },
  { "seqwrite-128k",   128 * K,   4, 1,   0, 0, true },
  { "seqwrite-1m",           M,   4, 1,   0, 0, true },
  { .name = NULL },
};

const struct workload *
workload_find (const char *name)
{
  for (const struct workload *w = workloads; w->name; w++)
    if (strcmp (w->name, name) == 0)
      return w;
  return NULL;
}

const char *
workload_unit (const struct workload *w)
{
  return w->is_sequential ? "MiB/s" : "requests/s";
}

double
workload_value (const struct workload *w, double rate)
{
  return w->is_sequential ? rate * w->block_bytes / M : rate;
}

double
workload_mib (const struct workload *w, double value)
{
  return w->is_sequential ? value : value * w->block_bytes / M;
}
