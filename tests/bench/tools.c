/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "bench.h"
#include "parts.h"

/* A tool, and the workload that is the same for the load generator. */
struct tool {
  const char *name;
  struct workload workload;
  /* generator_rate: how many requests a second may be expected; for those
   * that have no clock.
   */
  double (*run) (const struct tool *tool, const struct options *o,
                 const char *uri, double generator_rate);
};

/* ------------------------------------------------------------ the tools -- */

static double
run_fio (const struct tool *tool, const struct options *o, const char *uri,
         double generator_rate)
{
  const struct workload *w = &tool->workload;
  bool is_read = w->read_percent == 100;
  char depth[16], size[32], runtime[32], warm_up[32], *text;
  const struct process_value names[] = {
    { "rw", is_read ? "randread" : "randwrite" }, { "uri", uri },
    { "depth", depth }, { "size", size }, { "runtime", runtime },
    { "warm_up", warm_up }, { NULL, NULL },
  };
  json_t *json;
  double rate;

  snprintf (depth, sizeof depth, "%u", w->depth);
  snprintf (size, sizeof size, "%llu", (unsigned long long) o->size_bytes);
  snprintf (runtime, sizeof runtime, "%.0fms", o->seconds * 1000);
  snprintf (warm_up, sizeof warm_up, "%.0fms", o->warm_up_s * 1000);
  text = process_output (process_words (
    "fio --name=bench --ioengine=nbd --uri={uri} --rw={rw} --bs=4k "
    "--iodepth={depth} --size={size} --time_based --runtime={runtime} "
    "--ramp_time={warm_up} --norandommap --output-format=json", names));
  json = json_loads (text + strcspn (text, "{"), JSON_DISABLE_EOF_CHECK, NULL);
  rate = json_number_value (json_object_get (json_object_get (json_array_get (
    json_object_get (json, "jobs"), 0), is_read ? "read" : "write"), "iops"));
  if (rate <= 0)
    bench_fail ("fio says: %s", text);
  json_decref (json);
  free (text);
  return rate;
}

/* The disk once, to nowhere.  It has no clock; its start is in the time. */
static double
run_nbdcopy (const struct tool *tool, const struct options *o, const char *uri,
             double generator_rate)
{
  const struct process_value names[] = { { "uri", uri }, { NULL, NULL } };
  double begin = bench_now_s ();

  free (process_output (process_words (
    "nbdcopy --no-extents --connections=1 --threads=1 --requests=16 "
    "--request-size=262144 {uri} null:", names)));
  return (double) o->size_bytes / tool->workload.block_bytes
    / (bench_now_s () - begin);
}

/* As many requests as the generator would make. */
static double
run_qemu_img (const struct tool *tool, const struct options *o,
              const char *uri, double generator_rate)
{
  const struct workload *w = &tool->workload;
  unsigned nr = (unsigned) (generator_rate * o->seconds) + 1;
  char number[16], depth[16], *text;
  const struct process_value names[] = {
    { "uri", uri }, { "number", number }, { "depth", depth },
    { "write", w->read_percent == 0 ? "-w" : "-q" }, { NULL, NULL },
  };
  const char *at;
  double seconds;

  snprintf (number, sizeof number, "%u", nr);
  snprintf (depth, sizeof depth, "%u", w->depth);
  text = process_output (process_words (
    "qemu-img bench -f raw -t none -c {number} -d {depth} -s 4096 {write} "
    "{uri}", names));
  at = strstr (text, "completed in ");
  seconds = at ? strtod (at + strlen ("completed in "), NULL) : 0;
  if (seconds <= 0)
    bench_fail ("qemu-img bench says: %s", text);
  free (text);
  return nr / seconds;
}

/* name, block, depth, connections, read %, flush, sequential */
static const struct tool tools[] = {
  { "fio", { "read-4k-d16", 4096, 16, 1, 100, 0, false }, run_fio },
  { "fio", { "write-4k-d16", 4096, 16, 1, 0, 0, false }, run_fio },
  { "fio", { "read-4k-d1", 4096, 1, 1, 100, 0, false }, run_fio },
  { "nbdcopy", { "seqread-256k-d16", 262144, 16, 1, 100, 0, true },
    run_nbdcopy },
  { "qemu-img bench", { "seqread-4k-d16", 4096, 16, 1, 100, 0, true },
    run_qemu_img },
  { "qemu-img bench", { "seqwrite-4k-d16", 4096, 16, 1, 0, 0, true },
    run_qemu_img },
};

/* ------------------------------------------------------------ comparing -- */

static void
compare (const struct tool *tool, const struct options *o,
         struct server *server)
{
  const struct workload *w = &tool->workload;
  struct bench_series theirs = { .nr = 0 }, ours = theirs;
  char prefix[128];

  for (unsigned round = 0; round < o->rounds; round++) {
    double rate = options_load (o, w, server, 0, o->size_bytes);

    bench_add (&ours, workload_value (w, rate));
    bench_add (&theirs, workload_value (w, tool->run (tool, o, server->uri,
                                                      rate)));
  }
  snprintf (prefix, sizeof prefix, "tools/%s/", w->name);
  bench_heading (prefix, "%s: what %s says of %s", w->name, tool->name,
                 server->process.name);
  bench_report (tool->name, workload_unit (w), &theirs);
  bench_report ("this load generator", workload_unit (w), &ours);
  bench_report_ratio ("the generator / the tool", &ours, &theirs);
}

void
tools_run (const struct options *o)
{
  const struct subject *subject = o->subjects[0];
  struct server server;
  struct image image;

  image_make (&image, o->has_image[IMAGE_MEMORY] ? IMAGE_MEMORY : IMAGE_DISK,
              o->size_bytes);
  image_settle (&image, subject->is_cached);
  server_start (&server, subject, &image);
  for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++)
    compare (&tools[i], o, &server);
  server_stop (&server);
  image_remove (&image);
}
