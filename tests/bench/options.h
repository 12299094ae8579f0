/* SPDX-License-Identifier: BSD-3-Clause */
/* options: what the command line of bench-nbd asks for. */
#ifndef REMAP_BENCH_OPTIONS_H
#define REMAP_BENCH_OPTIONS_H

#include <stdbool.h>

#include "image.h"
#include "subject.h"
#include "workload.h"

#define WORKLOADS_MAX 32

enum part {
  PART_MATRIX,                  /* every subject does everything */
  PART_TOOLS,                   /* what other load generators say */
  PART_REMAPS,                  /* where there are remaps, and beside them */
  PART_STORM,                   /* many bad sectors at once */
  PART_COUNTS,                  /* system calls, wake-ups, memory */
  NR_PARTS
};

struct options {
  unsigned rounds;
  double seconds, warm_up_s;    /* of each measurement */
  uint64_t size_bytes;          /* of the images */
  bool is_quick;
  const struct subject *subjects[SUBJECTS_MAX];
  const struct workload *workloads[WORKLOADS_MAX];
  unsigned nr_subjects, nr_workloads;
  bool has_image[NR_IMAGE_KINDS], has_part[NR_PARTS];
};

/* Ends the program where it does not understand, and after --help. */
extern void options_parse (struct options *o, int argc, char *argv[]);

/* One measurement: requests a second. */
extern double options_load (const struct options *o, const struct workload *w,
                            struct server *server, uint64_t offset_bytes,
                            uint64_t size_bytes);

/* Rounds, seconds and sizes, as a line and into JSON. */
extern void options_describe (const struct options *o);

/* How long it takes, in seconds, roughly. */
extern double options_duration (const struct options *o);

#endif /* REMAP_BENCH_OPTIONS_H */
