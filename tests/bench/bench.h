/* SPDX-License-Identifier: BSD-3-Clause */
/* bench: what programs that measure share: rounds, medians and quartiles, a
 * table for people, JSON for programs.
 *
 * A program measures a thing in rounds, adds each round's value to a series,
 * and reports the series under a key.  What cannot be done ends the program:
 * numbers with a hole in them are worse than none.
 */
#ifndef REMAP_BENCH_H
#define REMAP_BENCH_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_ROUNDS_MAX 64

/* The values of a thing, one a round. */
struct bench_series {
  double values[BENCH_ROUNDS_MAX];
  unsigned nr;
};

/* Before bench_begin: the name that messages have. */
extern void bench_name (const char *name);

/* Name the program and the machine; bench_end writes bench-NAME.json into the
 * current directory.
 */
extern void bench_begin (const char *name);
extern void bench_end (void);

/* A line about what is measured, before the table; in JSON beside it. */
extern void bench_describe (const char *key, const char *text);

/* A heading in the table; in JSON the keys below it begin with `prefix`. */
extern void bench_heading (const char *prefix, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));

/* Seconds since some moment. */
extern double bench_now_s (void);

/* Seconds that the CPUs have worked for this process: another process that is
 * busy makes them little longer.
 */
extern double bench_cpu_s (void);

extern void bench_add (struct bench_series *s, double value);

/* q: 0.5 is the median, 0.25 and 0.75 are the quartiles. */
extern double bench_quantile (const struct bench_series *s, double q);

/* A line of the table. */
extern void bench_report (const char *key, const char *unit,
                          const struct bench_series *s);
extern void bench_report_value (const char *key, const char *unit,
                                double value);

/* a / b, round by round: noise that slows both cancels out. */
extern void bench_report_ratio (const char *key, const struct bench_series *a,
                                const struct bench_series *b);

/* The name of a file of this program in $TMPDIR, or in the current directory;
 * it is not there, and is removed at the end.
 */
extern const char *bench_file (void);

/* Memory that children share with their parent; zero, and never freed. */
extern void *bench_shared (size_t nr_bytes);

/* Run fn in a process of its own, so that it finds no memory of another round;
 * its results go to memory of bench_shared.
 */
extern void bench_in_child (void (*fn) (void *opaque), void *opaque);

/* What a disk can do: times a second that 512 bytes of this file are written in
 * place and made durable.
 */
extern double bench_fdatasync_rate (int fd, double seconds);

/* The number behind "KEY:" in a file of /proc. */
extern double bench_status_number (const char *path, const char *key);

/* Bytes in memory now, and the most since bench_reset_peak. */
extern double bench_resident (void);
extern double bench_peak (void);
extern void bench_reset_peak (void);

/* Say why, and end the program. */
extern void bench_fail (const char *fmt, ...)
  __attribute__ ((format (printf, 1, 2), noreturn));

#endif /* REMAP_BENCH_H */
