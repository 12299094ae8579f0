/* SPDX-License-Identifier: BSD-3-Clause */
/* parts: what bench-nbd measures beside the matrix; a file for each. */
#ifndef REMAP_BENCH_PARTS_H
#define REMAP_BENCH_PARTS_H

#include "options.h"

/* tools.c: does the load generator tell the truth?  What fio, nbdcopy and
 * qemu-img bench say of the same server, which is the first subject.
 */
extern void tools_run (const struct options *o);

/* beside.c: clean regions with a million remaps elsewhere, to none; remapped
 * sectors, to clean ones.
 */
extern void beside_run (const struct options *o);

/* storm.c: 64 writes in flight, each meets a new bad sector. */
extern void storm_run (const struct options *o);

/* counts.c: system calls for a bad sector; wake-ups and memory when idle. */
extern void counts_run (const struct options *o);

#endif /* REMAP_BENCH_PARTS_H */
