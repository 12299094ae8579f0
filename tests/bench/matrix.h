/* SPDX-License-Identifier: BSD-3-Clause */
/* matrix: each workload, on each image, by each subject in turn. */
#ifndef REMAP_BENCH_MATRIX_H
#define REMAP_BENCH_MATRIX_H

#include "options.h"

extern void matrix_run (const struct options *o);

#endif /* REMAP_BENCH_MATRIX_H */
