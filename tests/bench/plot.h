/* SPDX-License-Identifier: BSD-3-Clause */
/* plot: a diagram of an image, for people; by gnuplot. */
#ifndef REMAP_BENCH_PLOT_H
#define REMAP_BENCH_PLOT_H

#include "bench.h"
#include "options.h"

/* values[workload][subject]; a subject without any took no part.  Writes
 * bench-nbd-IMAGE.svg.
 */
extern void plot_image (const struct options *o, const struct image *image,
                        struct bench_series (*values)[SUBJECTS_MAX]);

#endif /* REMAP_BENCH_PLOT_H */
