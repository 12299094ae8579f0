/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "plot.h"
#include "process.h"

static FILE *
create (const char *path)
{
  FILE *f = fopen (path, "we");

  if (f == NULL)
    bench_fail ("%s: %s", path, strerror (errno));
  return f;
}

static void
finish (FILE *f, const char *path)
{
  if (ferror (f) || fclose (f) == EOF)
    bench_fail ("%s: %s", path, strerror (errno));
}

static bool
took_part (unsigned i, struct bench_series (*values)[SUBJECTS_MAX])
{
  return values[0][i].nr > 0;
}

/* A line a workload: its name, then of each subject median and quartiles. */
static void
write_values (const struct options *o, const char *path,
              struct bench_series (*values)[SUBJECTS_MAX])
{
  static const double quantiles[] = { 0.5, 0.25, 0.75 };
  FILE *f = create (path);

  for (unsigned w = 0; w < o->nr_workloads; w++) {
    fprintf (f, "%s", o->workloads[w]->name);
    for (unsigned i = 0; i < o->nr_subjects; i++)
      for (unsigned q = 0; q < 3 && took_part (i, values); q++)
        fprintf (f, " %.6g", workload_mib (
          o->workloads[w], bench_quantile (&values[w][i], quantiles[q])));
    fputc ('\n', f);
  }
  finish (f, path);
}

/* Apart from each other, light or dark. */
static const char *const colours[] = {
  "#d62728", "#ff9896", "#1f77b4", "#aec7e8", "#7f7f7f", "#2ca02c", "#98df8a",
  "#006d2c", "#bcbd22", "#9467bd", "#8c564b", "#e377c2",
};
#define NR_COLOURS (sizeof colours / sizeof colours[0])

static void
write_series (const struct options *o, FILE *f, const char *values_path,
              struct bench_series (*values)[SUBJECTS_MAX])
{
  unsigned column = 2;

  for (unsigned i = 0; i < o->nr_subjects; i++) {
    if (!took_part (i, values))
      continue;
    fprintf (f, "%s '%s' using %u:%u:%u:xtic(1) title '%s' "
             "linecolor rgb '%s'", column == 2 ? "plot" : ", \\\n    ",
             values_path, column, column + 1, column + 2,
             o->subjects[i]->name, colours[i % NR_COLOURS]);
    column += 3;
  }
  fputc ('\n', f);
}

static void
write_script (const struct options *o, const struct image *image,
              const char *path, const char *values_path,
              struct bench_series (*values)[SUBJECTS_MAX])
{
  unsigned width = 300 + 14 * o->nr_workloads * (o->nr_subjects + 2);
  FILE *f = create (path);

  fprintf (f,
           "set terminal svg size %u,640 dynamic background '#ffffff'\n"
           "set output 'bench-nbd-%s.svg'\n"
           "set title 'NBD servers, image: %s (medians and quartiles of %u "
           "rounds)' noenhanced\n"
           "set style data histograms\n"
           "set style histogram errorbars gap 2 linewidth 1\n"
           "set style fill solid 0.8\n"
           "set logscale y\n"
           "set ylabel 'MiB/s'\n"
           "set grid ytics\n"
           "set xtics rotate by -30 noenhanced\n"
           "set key outside noenhanced\n", width < 700 ? 700 : width,
           image->name, image->name, o->rounds);
  write_series (o, f, values_path, values);
  finish (f, path);
}

void
plot_image (const struct options *o, const struct image *image,
            struct bench_series (*values)[SUBJECTS_MAX])
{
  char values_path[4200], script[4200];
  const struct process_value names[] = { { "script", script }, { NULL, NULL } };

  snprintf (values_path, sizeof values_path, "%s/values", image->dir);
  snprintf (script, sizeof script, "%s/script", image->dir);
  write_values (o, values_path, values);
  write_script (o, image, script, values_path, values);
  free (process_output (process_words ("gnuplot {script}", names)));
  printf ("\nAs a plot: bench-nbd-%s.svg\n", image->name);
}
