/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

void
print_text (const char *text)
{
  for (; *text; text++)
    putchar ((unsigned char) *text < ' ' || *text == 0x7f ? '?' : *text);
}

json_t *
text_to_json (const char *text)
{
  json_t *json = json_string (text);
  char *ascii;

  if (json)
    return json;
  ascii = strdup (text);
  for (char *p = ascii; p && *p; p++)
    if ((unsigned char) *p >= 0x80)
      *p = '?';
  json = json_string (ascii);
  free (ascii);
  return json;
}

void
print_json (const json_t *json)
{
  json_dumpf (json, stdout, JSON_INDENT (2));
  putchar ('\n');
}

static json_int_t
get_number (const json_t *object, const char *key)
{
  return json_integer_value (json_object_get (object, key));
}

static const char *
get_text (const json_t *object, const char *key)
{
  const char *text = json_string_value (json_object_get (object, key));

  return text ? text : "";
}

/* "1.5 MiB".  buf holds any of them. */
#define SIZE_TEXT_BYTES 32

static const char *
size_to_text (json_int_t bytes, char buf[static SIZE_TEXT_BYTES])
{
  static const char *const units[] = {
    "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"
  };
  double value = (double) bytes;
  unsigned unit = 0;

  for (; value >= 1024; value /= 1024)
    unit++;
  snprintf (buf, SIZE_TEXT_BYTES, value == (double) (json_int_t) value
            ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return buf;
}

/* "2 days 3 hours": the two largest units are enough. */
#define TIME_TEXT_BYTES 64

static const char *
time_to_text (json_int_t seconds, char buf[static TIME_TEXT_BYTES])
{
  static const struct { const char *name; json_int_t seconds; } units[] = {
    { "day", 86400 }, { "hour", 3600 }, { "minute", 60 }, { "second", 1 },
  };
  unsigned u = 0, len;
  json_int_t n;

  while (u < 3 && seconds < units[u].seconds)
    u++;
  n = seconds / units[u].seconds;
  len = (unsigned) snprintf (buf, TIME_TEXT_BYTES,
                             "%" JSON_INTEGER_FORMAT " %s%s", n, units[u].name,
                             n == 1 ? "" : "s");
  if (u == 3)
    return buf;
  n = seconds % units[u].seconds / units[u + 1].seconds;
  if (n > 0)
    snprintf (buf + len, TIME_TEXT_BYTES - len,
              " %" JSON_INTEGER_FORMAT " %s%s", n, units[u + 1].name,
              n == 1 ? "" : "s");
  return buf;
}

static void
print_label (const char *label)
{
  printf ("  %-10s ", label);
}

static const char *
plural (json_int_t n)
{
  return n == 1 ? "" : "s";
}

/* The first line, which may be all that somebody reads. */
static void
print_verdict (const char *disk, const json_t *status)
{
  json_int_t remapped = get_number (status, "remapped");
  json_int_t zeroed = get_number (status, "zeroed");

  print_text (disk);
  printf (": %" JSON_INTEGER_FORMAT " sector%s remapped, ",
          remapped, plural (remapped));
  if (zeroed > 0)
    printf ("%" JSON_INTEGER_FORMAT " zeroed, ", zeroed);
  printf ("%" JSON_INTEGER_FORMAT " lost; %" JSON_INTEGER_FORMAT " of %"
          JSON_INTEGER_FORMAT " spares left\n",
          get_number (status, "lost"), get_number (status, "spares_free"),
          get_number (status, "spares_total"));
}

/* What somebody should do something about. */
static void
print_warnings (const json_t *status)
{
  json_int_t total = get_number (status, "spares_total");
  json_int_t left = get_number (status, "spares_free");

  const char *breaker =
    json_string_value (json_object_get (status, "breaker"));

  if (breaker && strcmp (breaker, "open") == 0)
    puts ("  WARNING: the disk does not answer; nothing is remapped or called"
          " lost until it does");
  if (breaker && strcmp (breaker, "read-only") == 0)
    puts ("  WARNING: the disk takes no writes any more; nothing is remapped"
          " until it does");
  if (json_is_true (json_object_get (status, "store_failed")))
    puts ("  WARNING: the store has failed; no sector can be remapped any"
          " more");
  if (json_is_true (json_object_get (status, "flush_failed")))
    puts ("  WARNING: a flush has failed; what was written since the last"
          " good one may be lost");
  if (left == 0)
    puts ("  WARNING: no spare is left; the next bad sector fails"
          " (see spare-size= in nbdkit-remap-plugin(1))");
  else if (left < total / 10)
    puts ("  WARNING: few spares are left"
          " (see spare-size= in nbdkit-remap-plugin(1))");
  if (get_number (status, "lost") > 0)
    puts ("  Lost sectors read as errors until they are written"
          " (remapctl list shows them).");
}

static void
print_disk (const json_t *status)
{
  json_int_t sector = get_number (status, "sector_size");
  json_int_t physical = get_number (status, "physical_sector_size");
  char size[SIZE_TEXT_BYTES];

  print_label ("Disk");
  print_text (get_text (status, "backing"));
  printf (", %s, sectors of %" JSON_INTEGER_FORMAT,
          size_to_text (get_number (status, "size"), size), sector);
  if (physical != sector)
    printf (" (on the medium %" JSON_INTEGER_FORMAT ")", physical);
  fputs (" bytes\n", stdout);
  if (*get_text (status, "identity")) {
    print_label ("Identity");
    print_text (get_text (status, "identity"));
    putchar ('\n');
  }
  print_label ("Store");
  print_text (get_text (status, "store"));
  putchar ('\n');
}

static void
print_server (const json_t *status)
{
  char uptime[TIME_TEXT_BYTES];

  print_label ("Server");
  if (json_is_true (json_object_get (status, "live")))
    printf ("process %" JSON_INTEGER_FORMAT ", for %s, %s, %s I/O\n",
            get_number (status, "pid"),
            time_to_text (get_number (status, "uptime_seconds"), uptime),
            json_is_true (json_object_get (status, "readonly"))
            ? "read-only" : "read-write",
            json_is_true (json_object_get (status, "direct"))
            ? "direct" : "buffered");
  else
    puts ("none is running; this is what the store knows");
}

/* Rounded down, so that only what is whole is 100 %. */
static void
print_spares (const json_t *status)
{
  json_int_t total = get_number (status, "spares_total");
  json_int_t left = get_number (status, "spares_free");
  json_int_t tenths = total > 0
    ? (json_int_t) ((double) left * 1000 / (double) total) : 0;
  char size[SIZE_TEXT_BYTES];

  print_label ("Spares");
  printf ("%" JSON_INTEGER_FORMAT " of %" JSON_INTEGER_FORMAT
          " left (%" JSON_INTEGER_FORMAT ".%" JSON_INTEGER_FORMAT " %%, %s), %"
          JSON_INTEGER_FORMAT " bad\n", left, total, tenths / 10, tenths % 10,
          size_to_text (left * get_number (status, "sector_size"), size),
          get_number (status, "spares_bad"));
}

static void
print_last_error (const json_t *error)
{
  char age[TIME_TEXT_BYTES];
  json_int_t count = get_number (error, "count");

  if (!json_is_object (error))
    return;
  print_label ("Last error");
  for (const char *p = get_text (error, "kind"); *p; p++)
    putchar (*p == '_' ? ' ' : *p);
  printf (" at sector %" JSON_INTEGER_FORMAT, get_number (error, "lba"));
  if (count > 1)
    printf ("-%" JSON_INTEGER_FORMAT, get_number (error, "lba") + count - 1);
  if (get_number (error, "errno") != 0) {
    fputs (": ", stdout);
    print_text (get_text (error, "error"));
  }
  if (json_object_get (error, "age_seconds"))
    printf (", %s ago", time_to_text (get_number (error, "age_seconds"), age));
  putchar ('\n');
}

static void
print_worst (const json_t *regions)
{
  const char *label = "Worst";

  for (size_t i = 0; i < json_array_size (regions); i++) {
    const json_t *region = json_array_get (regions, i);
    json_int_t lba = get_number (region, "lba");
    json_int_t count = get_number (region, "count");
    json_int_t errors = get_number (region, "errors");

    print_label (label);
    printf ("sectors %" JSON_INTEGER_FORMAT "-%" JSON_INTEGER_FORMAT ": %"
            JSON_INTEGER_FORMAT " error%s\n", lba,
            count > 0 ? lba + count - 1 : lba, errors, plural (errors));
    label = "";
  }
}

static void
print_errors (const json_t *status)
{
  const json_t *errors = json_object_get (status, "errors");

  if (!errors)
    return;
  print_label ("Errors");
  printf ("%" JSON_INTEGER_FORMAT " reading, %" JSON_INTEGER_FORMAT
          " writing, %" JSON_INTEGER_FORMAT " of spares, %"
          JSON_INTEGER_FORMAT " others; %" JSON_INTEGER_FORMAT " weak\n",
          get_number (errors, "read"), get_number (errors, "write"),
          get_number (errors, "spare"), get_number (errors, "other"),
          get_number (status, "weak"));
  print_last_error (json_object_get (status, "last_error"));
  print_worst (json_object_get (status, "worst_regions"));
}

void
print_status (const char *disk, const json_t *status)
{
  print_verdict (disk, status);
  print_warnings (status);
  putchar ('\n');
  print_disk (status);
  print_server (status);
  print_spares (status);
  print_errors (status);
}

void
list_begin (struct list_printer *printer, const json_t *page)
{
  switch (printer->format) {
  case LIST_JSON:
    printf ("{\n  \"sector_size\": %" JSON_INTEGER_FORMAT
            ",\n  \"sectors\": [", get_number (page, "sector_size"));
    break;
  case LIST_CSV:
    puts ("lba,count,state,spare");
    break;
  case LIST_TEXT:
    break;
  }
}

static void
print_run_json (const json_t *run, bool is_first)
{
  fputs (is_first ? "\n    " : ",\n    ", stdout);
  json_dumpf (run, stdout, 0);
}

static void
print_run_csv (const json_t *run)
{
  printf ("%" JSON_INTEGER_FORMAT ",%" JSON_INTEGER_FORMAT ",%s,",
          get_number (run, "lba"), get_number (run, "count"),
          get_text (run, "state"));
  if (json_is_integer (json_object_get (run, "spare")))
    printf ("%" JSON_INTEGER_FORMAT, get_number (run, "spare"));
  putchar ('\n');
}

/* "7", "7-9". */
static void
print_range (json_int_t first, json_int_t count, int width)
{
  char range[64];

  if (count > 1)
    snprintf (range, sizeof range, "%" JSON_INTEGER_FORMAT "-%"
              JSON_INTEGER_FORMAT, first, first + count - 1);
  else
    snprintf (range, sizeof range, "%" JSON_INTEGER_FORMAT, first);
  printf ("%-*s", width, range);
}

static void
print_run_text (const json_t *run, bool is_first)
{
  json_int_t count = get_number (run, "count");

  if (is_first)
    puts ("sector                count  state     spare");
  print_range (get_number (run, "lba"), count, 20);
  printf (" %6" JSON_INTEGER_FORMAT "  %-8s  ", count,
          get_text (run, "state"));
  if (json_is_integer (json_object_get (run, "spare")))
    print_range (get_number (run, "spare"), count, 0);
  else
    putchar ('-');
  putchar ('\n');
}

void
list_page (struct list_printer *printer, const json_t *page)
{
  const json_t *runs = json_object_get (page, "sectors");

  for (size_t i = 0; i < json_array_size (runs); i++) {
    const json_t *run = json_array_get (runs, i);
    bool is_first = printer->nr_runs++ == 0;

    switch (printer->format) {
    case LIST_JSON: print_run_json (run, is_first); break;
    case LIST_CSV: print_run_csv (run); break;
    case LIST_TEXT: print_run_text (run, is_first); break;
    }
  }
}

void
list_end (struct list_printer *printer)
{
  if (printer->format == LIST_JSON)
    puts (printer->nr_runs > 0 ? "\n  ]\n}" : "]\n}");
  else if (printer->format == LIST_TEXT && printer->nr_runs == 0)
    puts ("No sector is remapped or lost.");
}
