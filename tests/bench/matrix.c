/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "matrix.h"
#include "plot.h"
#include "target.h"

/* Of one image. */
static struct bench_series values[WORKLOADS_MAX][SUBJECTS_MAX];

static bool
takes_part (const struct subject *s, const struct image *image)
{
  return image->takes_direct || !s->needs_direct;
}

/* A server of its own for each measurement, so that subjects take turns within
 * seconds, and none finds anything that another one left.
 */
static double
measure (const struct options *o, const struct workload *w,
         const struct subject *s, struct image *image)
{
  struct server server;
  double rate;

  image_settle (image, s->is_cached);
  server_start (&server, s, image);
  rate = options_load (o, w, &server, 0, image->size_bytes);
  server_stop (&server);
  return workload_value (w, rate);
}

/* ----------------------------------------------------------- reporting -- */

static const struct bench_series *
find_series (const struct options *o, const struct bench_series *row,
             const char *name)
{
  for (unsigned i = 0; i < o->nr_subjects; i++)
    if (row[i].nr > 0 && strcmp (o->subjects[i]->name, name) == 0)
      return &row[i];
  return NULL;
}

static const struct bench_series *
best_qemu (const struct options *o, const struct bench_series *row,
           const char **ret_name)
{
  const struct bench_series *best = NULL;

  for (unsigned i = 0; i < o->nr_subjects; i++) {
    if (row[i].nr == 0 || !o->subjects[i]->needs_direct ||
        (best && bench_quantile (&row[i], 0.5) <= bench_quantile (best, 0.5)))
      continue;
    best = &row[i];
    *ret_name = o->subjects[i]->name;
  }
  return best;
}

static void
report_ratio (const char *name, const struct bench_series *a,
              const char *other, const struct bench_series *b)
{
  char key[128];

  if (a == NULL || b == NULL)
    return;
  snprintf (key, sizeof key, "%s / %s", name, other);
  bench_report_ratio (key, a, b);
}

/* Of all that take part, to the first: what two subjects are to each other. */
static void
report_ratios_to_first (const struct options *o,
                        const struct bench_series *row)
{
  for (unsigned i = 1; i < o->nr_subjects; i++)
    if (row[0].nr > 0 && row[i].nr > 0)
      report_ratio (o->subjects[i]->name, &row[i], o->subjects[0]->name,
                    &row[0]);
}

static void
report_ratios (const struct options *o, const struct bench_series *row,
               const char *where)
{
  const struct bench_series *ours = find_series (o, row, "remap");
  const struct bench_series *buffered = find_series (o, row, "remap-buffered");
  const struct bench_series *file = find_series (o, row, "file");
  const char *qemu_name = NULL;
  const struct bench_series *qemu = best_qemu (o, row, &qemu_name);

  report_ratio ("remap", ours, qemu_name, qemu);
  report_ratio ("remap-buffered", buffered, "file", file);
  report_ratio ("remap", ours, "null", find_series (o, row, "null"));
  if (ours && qemu)
    target_note_ratio (TARGET_DIRECT, where, ours, qemu);
  if (buffered && file)
    target_note_ratio (TARGET_BUFFERED, where, buffered, file);
  if (!(ours && qemu) && !(buffered && file))
    report_ratios_to_first (o, row);
}

static void
report_workload (const struct options *o, const struct workload *w,
                 const struct image *image, const struct bench_series *row)
{
  char prefix[256], where[128];

  snprintf (where, sizeof where, "%s, %s", image->name, w->name);
  snprintf (prefix, sizeof prefix, "%s/%s/", image->name, w->name);
  bench_heading (prefix, "%s, %s", image->name, w->name);
  for (unsigned i = 0; i < o->nr_subjects; i++)
    if (row[i].nr > 0)
      bench_report (o->subjects[i]->name, workload_unit (w), &row[i]);
  report_ratios (o, row, where);
}

/* ------------------------------------------------------------- all of it -- */

static void
run_workload (const struct options *o, const struct workload *w,
              struct image *image, struct bench_series *row)
{
  for (unsigned round = 0; round < o->rounds; round++)
    for (unsigned i = 0; i < o->nr_subjects; i++)
      if (takes_part (o->subjects[i], image))
        bench_add (&row[i], measure (o, w, o->subjects[i], image));
  report_workload (o, w, image, row);
}

/* A hole in the numbers that the kernel made; everybody has to know it. */
static void
say_no_direct (const struct image *image)
{
  char key[64];

  snprintf (key, sizeof key, "image %s", image->name);
  bench_describe (key, "this kernel has no direct I/O on it: remap falls back "
                  "to buffered I/O, qemu-nbd --cache=none is left out");
}

static void
run_image (const struct options *o, enum image_kind kind)
{
  struct image image;

  image_make (&image, kind, o->size_bytes);
  if (!image.takes_direct)
    say_no_direct (&image);
  memset (values, 0, sizeof values);
  for (unsigned w = 0; w < o->nr_workloads; w++)
    run_workload (o, o->workloads[w], &image, values[w]);
  plot_image (o, &image, values);
  image_remove (&image);
}

void
matrix_run (const struct options *o)
{
  for (unsigned i = 0; i < NR_IMAGE_KINDS; i++)
    if (o->has_image[i])
      run_image (o, (enum image_kind) i);
}
