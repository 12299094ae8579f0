/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "options.h"

static const char *const part_names[NR_PARTS] = {
  "matrix", "tools", "remaps", "storm", "counts",
};

/* ----------------------------------------------------------------- help -- */

static void
print_list (const char *what, const char *(*nth) (unsigned n), unsigned nr)
{
  printf ("\n%s:", what);
  for (unsigned i = 0, column = 80; i < nr; i++) {
    const char *name = nth (i);

    if (column + strlen (name) > 76)
      column = (unsigned) printf ("\n   ") - 1;
    column += (unsigned) printf (" %s", name);
  }
  putchar ('\n');
}

static const char *
nth_subject (unsigned n)
{
  return subjects_known[n].name;
}

static const char *
nth_image (unsigned n)
{
  return image_kind_name ((enum image_kind) n);
}

static const char *
nth_workload (unsigned n)
{
  return workloads[n].name;
}

static const char *
nth_part (unsigned n)
{
  return part_names[n];
}

static unsigned
count (const char *(*nth) (unsigned n))
{
  unsigned n = 0;

  while (nth (n))
    n++;
  return n;
}

static void
print_help (void)
{
  puts (
    "usage: bench-nbd [OPTION]...\n"
    "\n"
    "Compares NBD servers: prints medians, quartiles and ratios, and writes\n"
    "bench-nbd.json and bench-nbd-IMAGE.svg into the current directory.\n"
    "\n"
    "  --subjects=NAME,...   these servers, taking turns in this order\n"
    "  --subject=NAME=COMMAND  and this one; COMMAND has words with spaces\n"
    "                        between, and {socket}, {image}, {store}, {size}\n"
    "                        (bytes), {plugin} (the one that was built)\n"
    "  --images=NAME,...     on these disks\n"
    "  --workloads=NAME,...  this is done to them; read-* stands for all that\n"
    "                        begin so\n"
    "  --parts=NAME,...      these parts alone; matrix compares servers\n"
    "  --rounds=N            so often (default: 5)\n"
    "  --seconds=S           so long each time (default: 1)\n"
    "  --size=MIB            size of the disks (default: 512)\n"
    "  --quick               3 rounds of 0.1 seconds, on small disks: to see\n"
    "                        that it works\n"
    "\n"
    "Two servers in 20 seconds:\n"
    "  bench-nbd --parts=matrix --subjects=remap,qemu-native \\\n"
    "    --images=memory --workloads='read-4k-d1*' --seconds=0.3");
  print_list ("Subjects", nth_subject, count (nth_subject));
  print_list ("Images", nth_image, NR_IMAGE_KINDS);
  print_list ("Workloads", nth_workload, count (nth_workload));
  print_list ("Parts", nth_part, NR_PARTS);
}

/* --------------------------------------------------------------- values -- */

static double
number (const char *option, const char *text, double min, double max)
{
  char *end;
  double v;

  errno = 0;
  v = strtod (text, &end);
  if (errno || end == text || *end || !(v >= min && v <= max))
    bench_fail ("--%s=%s: a number from %g to %g", option, text, min, max);
  return v;
}

/* fn for each of the words, which have commas between them. */
static void
for_each (struct options *o, const char *text,
          void (*fn) (struct options *o, const char *word))
{
  char *words = strdup (text), *save = NULL;

  if (words == NULL)
    bench_fail ("no memory");
  for (char *word = strtok_r (words, ",", &save); word;
       word = strtok_r (NULL, ",", &save))
    fn (o, word);
  free (words);
}

static void
append_subject (struct options *o, const struct subject *s)
{
  if (o->nr_subjects == SUBJECTS_MAX)
    bench_fail ("more than %d subjects", SUBJECTS_MAX);
  for (unsigned i = 0; i < o->nr_subjects; i++)
    if (strcmp (o->subjects[i]->name, s->name) == 0)
      bench_fail ("the subject %s is there twice", s->name);
  o->subjects[o->nr_subjects++] = s;
}

static void
add_subject (struct options *o, const char *name)
{
  const struct subject *s = subject_find (name);

  if (s == NULL)
    bench_fail ("--subjects: there is no %s; see --help", name);
  append_subject (o, s);
}

static bool
matches (const char *name, const char *pattern)
{
  size_t n = strlen (pattern);

  return n > 0 && pattern[n - 1] == '*' ? strncmp (name, pattern, n - 1) == 0
    : strcmp (name, pattern) == 0;
}

static void
add_workload (struct options *o, const char *pattern)
{
  unsigned before = o->nr_workloads;

  for (const struct workload *w = workloads; w->name; w++)
    if (matches (w->name, pattern)) {
      if (o->nr_workloads == WORKLOADS_MAX)
        bench_fail ("more than %d workloads", WORKLOADS_MAX);
      o->workloads[o->nr_workloads++] = w;
    }
  if (o->nr_workloads == before)
    bench_fail ("--workloads: there is no %s; see --help", pattern);
}

static unsigned
find (const char *option, const char *word, const char *(*nth) (unsigned n),
      unsigned nr)
{
  for (unsigned i = 0; i < nr; i++)
    if (strcmp (nth (i), word) == 0)
      return i;
  bench_fail ("--%s: there is no %s; see --help", option, word);
}

static void
add_image (struct options *o, const char *word)
{
  o->has_image[find ("images", word, nth_image, NR_IMAGE_KINDS)] = true;
}

static void
add_part (struct options *o, const char *word)
{
  o->has_part[find ("parts", word, nth_part, NR_PARTS)] = true;
}

/* -------------------------------------------------------------- parsing -- */

enum { OPT_HELP, OPT_SUBJECTS, OPT_SUBJECT, OPT_IMAGES, OPT_WORKLOADS,
       OPT_PARTS, OPT_ROUNDS, OPT_SECONDS, OPT_SIZE, OPT_QUICK };

static const struct option long_options[] = {
  { "help", no_argument, NULL, OPT_HELP },
  { "subjects", required_argument, NULL, OPT_SUBJECTS },
  { "subject", required_argument, NULL, OPT_SUBJECT },
  { "images", required_argument, NULL, OPT_IMAGES },
  { "workloads", required_argument, NULL, OPT_WORKLOADS },
  { "parts", required_argument, NULL, OPT_PARTS },
  { "rounds", required_argument, NULL, OPT_ROUNDS },
  { "seconds", required_argument, NULL, OPT_SECONDS },
  { "size", required_argument, NULL, OPT_SIZE },
  { "quick", no_argument, NULL, OPT_QUICK },
  { NULL, 0, NULL, 0 },
};

static void
be_quick (struct options *o)
{
  o->is_quick = true;
  o->rounds = 3;
  o->seconds = 0.1;
  o->size_bytes = UINT64_C (64) << 20;
}

static void
set_option (struct options *o, int opt, const char *value)
{
  switch (opt) {
  case OPT_HELP: print_help (); exit (EXIT_SUCCESS);
  case OPT_SUBJECTS: for_each (o, value, add_subject); break;
  case OPT_SUBJECT: append_subject (o, subject_of_command (value)); break;
  case OPT_IMAGES: for_each (o, value, add_image); break;
  case OPT_WORKLOADS: for_each (o, value, add_workload); break;
  case OPT_PARTS: for_each (o, value, add_part); break;
  case OPT_ROUNDS:
    o->rounds = (unsigned) number ("rounds", value, 1, BENCH_ROUNDS_MAX);
    break;
  case OPT_SECONDS: o->seconds = number ("seconds", value, 0.01, 600); break;
  case OPT_SIZE:
    o->size_bytes = (uint64_t) number ("size", value, 32, 1 << 20) << 20;
    break;
  case OPT_QUICK: be_quick (o); break;
  default: bench_fail ("see bench-nbd --help");
  }
}

static bool
has_any (const bool *has, unsigned nr)
{
  for (unsigned i = 0; i < nr; i++)
    if (has[i])
      return true;
  return false;
}

/* What was not named is all. */
static void
set_defaults (struct options *o)
{
  if (o->nr_subjects == 0)
    for (const struct subject *s = subjects_known; s->name; s++)
      append_subject (o, s);
  if (o->nr_workloads == 0)
    add_workload (o, "*");
  if (!has_any (o->has_image, NR_IMAGE_KINDS))
    memset (o->has_image, true, sizeof o->has_image);
  if (!has_any (o->has_part, NR_PARTS))
    memset (o->has_part, true, sizeof o->has_part);
}

void
options_parse (struct options *o, int argc, char *argv[])
{
  const char *quick = getenv ("REMAP_BENCH_QUICK");
  int opt;

  *o = (struct options) {
    .rounds = 5, .seconds = 1, .size_bytes = UINT64_C (512) << 20,
  };
  if (quick && quick[0] && strcmp (quick, "0") != 0)
    be_quick (o);
  while ((opt = getopt_long (argc, argv, "", long_options, NULL)) != -1)
    set_option (o, opt, optarg);
  if (optind < argc)
    bench_fail ("%s: see bench-nbd --help", argv[optind]);
  set_defaults (o);
  o->warm_up_s = o->seconds < 1 ? o->seconds / 4 : 0.25;
}

/* ------------------------------------------------------------ measuring -- */

double
options_load (const struct options *o, const struct workload *w,
              struct server *server, uint64_t offset_bytes,
              uint64_t size_bytes)
{
  return load_run (&(struct load) {
    .workload = w, .server = server, .offset_bytes = offset_bytes,
    .size_bytes = size_bytes, .warm_up_s = o->warm_up_s,
    .seconds = o->seconds,
  });
}

void
options_describe (const struct options *o)
{
  char text[128];

  snprintf (text, sizeof text, "%u, of %g s after %g s to warm up, on images "
            "of %llu MiB", o->rounds, o->seconds, o->warm_up_s,
            (unsigned long long) o->size_bytes >> 20);
  bench_describe ("rounds", text);
}

double
options_duration (const struct options *o)
{
  double start_s = 0.15;        /* of a server, and to settle the disk */
  unsigned nr_images = 0;

  if (!o->has_part[PART_MATRIX])
    return 0;
  for (unsigned i = 0; i < NR_IMAGE_KINDS; i++)
    nr_images += o->has_image[i];
  return nr_images * o->nr_workloads * o->nr_subjects * o->rounds
    * (o->seconds + o->warm_up_s + start_s);
}
