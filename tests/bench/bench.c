/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "bench.h"

static struct {
  const char *name, *prefix;
  json_t *root, *results;
  char file[4096];
  pid_t owner;                  /* of the file: not the children */
  bool has_columns;             /* what they are has been printed */
} bench;

void
bench_fail (const char *fmt, ...)
{
  va_list args;

  fflush (stdout);
  fprintf (stderr, "bench-%s: ", bench.name);
  va_start (args, fmt);
  vfprintf (stderr, fmt, args);
  va_end (args);
  fputc ('\n', stderr);
  exit (EXIT_FAILURE);
}

double
bench_now_s (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

double
bench_cpu_s (void)
{
  struct timespec t;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* Numbers. */

void
bench_add (struct bench_series *s, double value)
{
  if (s->nr == BENCH_ROUNDS_MAX)
    bench_fail ("more than %d rounds", BENCH_ROUNDS_MAX);
  s->values[s->nr++] = value;
}

static int
compare_doubles (const void *va, const void *vb)
{
  double a = *(const double *) va, b = *(const double *) vb;

  return a < b ? -1 : a > b;
}

double
bench_quantile (const struct bench_series *s, double q)
{
  double sorted[BENCH_ROUNDS_MAX], at = q * (s->nr - 1);
  unsigned i = (unsigned) at;

  if (s->nr == 0)
    bench_fail ("a series without a value");
  memcpy (sorted, s->values, s->nr * sizeof sorted[0]);
  qsort (sorted, s->nr, sizeof sorted[0], compare_doubles);
  if (i + 1 >= s->nr)
    return sorted[s->nr - 1];
  return sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]);
}

double
bench_fdatasync_rate (int fd, double seconds)
{
  static const char zeroes[512];
  double begin = bench_now_s ();
  unsigned nr = 0;

  do {
    if (pwrite (fd, zeroes, sizeof zeroes, 0) != sizeof zeroes ||
        fdatasync (fd) == -1)
      bench_fail ("fdatasync: %s", strerror (errno));
    nr++;
  } while (bench_now_s () - begin < seconds);
  return nr / (bench_now_s () - begin);
}

/* The table. */

/* What text has behind the colon of the first line that begins with key. */
static bool
find_line (const char *path, const char *key, char *ret, size_t ret_bytes)
{
  FILE *f = fopen (path, "re");
  char line[1024];
  bool found = false;

  while (f && !found && fgets (line, sizeof line, f)) {
    char *colon = strchr (line, ':');

    found = strncmp (line, key, strlen (key)) == 0 && colon;
    if (found) {
      colon += 1 + strspn (colon + 1, " \t");
      snprintf (ret, ret_bytes, "%.*s", (int) strcspn (colon, "\n"), colon);
    }
  }
  if (f)
    fclose (f);
  return found;
}

static void
describe_machine (void)
{
  char cpu[256] = "unknown CPU", system[512];
  long nr_cpus = sysconf (_SC_NPROCESSORS_ONLN);
  struct utsname u;

  find_line ("/proc/cpuinfo", "model name", cpu, sizeof cpu);
  uname (&u);
  snprintf (system, sizeof system, "%s %s %s", u.sysname, u.release,
            u.machine);
#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif
  printf ("bench-%s: %s, %ld x %s, %s, %s\n", bench.name, u.nodename, nr_cpus,
          cpu, system, COMPILER);
  json_object_set_new (bench.root, "machine", json_string (u.nodename));
  json_object_set_new (bench.root, "cpu", json_string (cpu));
  json_object_set_new (bench.root, "nr_cpus", json_integer (nr_cpus));
  json_object_set_new (bench.root, "kernel", json_string (system));
  json_object_set_new (bench.root, "compiler", json_string (COMPILER));
}

static void
remove_file (void)
{
  if (bench.file[0] && getpid () == bench.owner)
    unlink (bench.file);
}

void
bench_name (const char *name)
{
  bench.name = name;
}

void
bench_begin (const char *name)
{
  bench_name (name);
  bench.prefix = "";
  bench.root = json_object ();
  bench.results = json_array ();
  bench.owner = getpid ();
  atexit (remove_file);
  setvbuf (stdout, NULL, _IOLBF, 0);
  json_object_set_new (bench.root, "bench", json_string (name));
  json_object_set_new (bench.root, "version", json_string (PACKAGE_VERSION));
  describe_machine ();
}

void
bench_describe (const char *key, const char *text)
{
  printf ("bench-%s: %s: %s\n", bench.name, key, text);
  json_object_set_new (bench.root, key, json_string (text));
}

static void
print_columns (void)
{
  bench.has_columns = true;
  printf ("%-44s %10s %10s %10s  %s\n", "", "median", "quartile", "quartile",
          "rounds");
}

void
bench_end (void)
{
  char path[256];

  json_object_set_new (bench.root, "results", bench.results);
  snprintf (path, sizeof path, "bench-%s.json", bench.name);
  if (json_dump_file (bench.root, path, JSON_INDENT (2)) == -1)
    bench_fail ("cannot write %s", path);
  json_decref (bench.root);
  printf ("\nAs JSON: %s\n", path);
}

void
bench_heading (const char *prefix, const char *fmt, ...)
{
  va_list args;

  bench.prefix = prefix;
  if (!bench.has_columns)
    print_columns ();
  putchar ('\n');
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
}

/* Four digits that count. */
static void
print_number (double v)
{
  int decimals = v >= 1000 || v == (double) (long long) v ? 0
    : v >= 100 ? 1 : v >= 10 ? 2 : v >= 1 ? 3 : 4;

  printf (" %10.*f", decimals, v);
}

void
bench_report (const char *key, const char *unit, const struct bench_series *s)
{
  char name[256], label[256];
  json_t *values = json_array ();

  snprintf (name, sizeof name, "%s%s", bench.prefix, key);
  for (unsigned i = 0; i < s->nr; i++)
    json_array_append_new (values, json_real (s->values[i]));
  json_array_append_new (bench.results, json_pack (
    "{s:s, s:s, s:f, s:f, s:f, s:o}", "key", name, "unit", unit, "median",
    bench_quantile (s, 0.5), "quartile_1", bench_quantile (s, 0.25),
    "quartile_3", bench_quantile (s, 0.75), "values", values));

  snprintf (label, sizeof label, "%s, %s", key, unit);
  printf ("  %-42s", label);
  print_number (bench_quantile (s, 0.5));
  if (s->nr > 1) {
    print_number (bench_quantile (s, 0.25));
    print_number (bench_quantile (s, 0.75));
    printf ("  %6u", s->nr);
  }
  putchar ('\n');
}

void
bench_report_value (const char *key, const char *unit, double value)
{
  struct bench_series s = { .values = { value }, .nr = 1 };

  bench_report (key, unit, &s);
}

void
bench_report_ratio (const char *key, const struct bench_series *a,
                    const struct bench_series *b)
{
  struct bench_series s = { .nr = 0 };

  if (a->nr != b->nr)
    bench_fail ("a ratio of %u rounds to %u", a->nr, b->nr);
  for (unsigned i = 0; i < a->nr; i++)
    bench_add (&s, a->values[i] / b->values[i]);
  bench_report (key, "ratio", &s);
}

/* Files, processes, memory. */

const char *
bench_file (void)
{
  const char *dir = getenv ("TMPDIR");

  remove_file ();
  snprintf (bench.file, sizeof bench.file, "%s/bench-%s.%d",
            dir && dir[0] ? dir : ".", bench.name, (int) bench.owner);
  unlink (bench.file);
  return bench.file;
}

void *
bench_shared (size_t nr_bytes)
{
  void *p = mmap (NULL, nr_bytes, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  if (p == MAP_FAILED)
    bench_fail ("no memory");
  return p;
}

void
bench_in_child (void (*fn) (void *opaque), void *opaque)
{
  pid_t pid;
  int status;

  fflush (stdout);
  pid = fork ();
  if (pid == -1)
    bench_fail ("cannot fork");
  if (pid == 0) {
    fn (opaque);
    fflush (stdout);
    _exit (EXIT_SUCCESS);
  }
  while (waitpid (pid, &status, 0) == -1)
    if (errno != EINTR)
      bench_fail ("cannot wait for a child");
  if (!WIFEXITED (status) || WEXITSTATUS (status) != 0)
    bench_fail ("a part of it has failed");
}

double
bench_status_number (const char *path, const char *key)
{
  char text[64];

  if (!find_line (path, key, text, sizeof text))
    bench_fail ("%s has no %s", path, key);
  return strtod (text, NULL);
}

double
bench_resident (void)
{
  return bench_status_number ("/proc/self/status", "VmRSS") * 1024;
}

double
bench_peak (void)
{
  return bench_status_number ("/proc/self/status", "VmHWM") * 1024;
}

void
bench_reset_peak (void)
{
  FILE *f = fopen ("/proc/self/clear_refs", "we");

  if (f == NULL || fputs ("5", f) == EOF || fclose (f) == EOF)
    bench_fail ("/proc/self/clear_refs cannot be written");
}
