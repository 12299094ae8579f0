/* SPDX-License-Identifier: BSD-3-Clause */
/* bench-nbd: what the server costs, beside other NBD servers.
 *
 * bench-nbd --help lists subjects, images, workloads and parts.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "guard.h"
#include "matrix.h"
#include "options.h"
#include "parts.h"
#include "target.h"

/* Before anything is measured: what is missing would end it in the middle. */
static void
check_tools (const struct options *o)
{
  static const struct {
    const char *program, *package;
    enum part part;
  } needed[] = {
    { "gnuplot", "gnuplot-nox", PART_MATRIX },
    { "fio", "fio", PART_TOOLS },
    { "nbdcopy", "libnbd-bin", PART_TOOLS },
    { "qemu-img", "qemu-utils", PART_TOOLS },
    { "nbdkit", "nbdkit", PART_TOOLS },
    { "nbdkit", "nbdkit", PART_REMAPS },
    { "nbdkit", "nbdkit", PART_COUNTS },
    { "nbdfuse", "libnbd-bin", PART_COUNTS },
    { "fusermount3", "fuse3", PART_COUNTS },
    { "strace", "strace", PART_COUNTS },
  };

  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
    if (o->has_part[needed[i].part])
      process_need (needed[i].program, needed[i].package);
}

static int
run (int argc, char *argv[])
{
  static void (*const parts[NR_PARTS]) (const struct options *o) = {
    matrix_run, tools_run, beside_run, storm_run, counts_run,
  };
  struct options o;
  double seconds;

  bench_name ("nbd");
  options_parse (&o, argc, argv);
  check_tools (&o);
  bench_begin ("nbd");
  options_describe (&o);
  subjects_describe (o.subjects, o.has_part[PART_MATRIX] ? o.nr_subjects
                     : o.has_part[PART_TOOLS] ? 1 : 0);
  seconds = options_duration (&o);
  if (seconds > 60)
    printf ("bench-nbd: about %.0f minutes\n", seconds / 60 + 1);
  for (unsigned i = 0; i < NR_PARTS; i++)
    if (o.has_part[i])
      parts[i] (&o);
  targets_report ();
  bench_end ();
  return EXIT_SUCCESS;
}

int
main (int argc, char *argv[])
{
  return guard_run (run, argc, argv);
}
