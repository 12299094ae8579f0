/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "checked.h"
#include "lines.h"

void
line_append (struct line *line, const char *fmt, ...)
{
  size_t room = sizeof line->text - line->nr_bytes;
  va_list args;
  int n;

  va_start (args, fmt);
  n = vsnprintf (line->text + line->nr_bytes, room, fmt, args);
  va_end (args);
  if (n > 0)
    line->nr_bytes += MIN ((size_t) n, room - 1);
}

void
line_clear (struct line *line)
{
  line->nr_bytes = 0;
  line->text[0] = '\0';
}

void
lines_put_kept (struct lines *w, const char *end)
{
  if (!w->has_kept)
    return;
  line_append (&w->kept, "%s", end);
  w->fn (w->opaque, w->kept.text);
  w->has_kept = false;
}

/* A line is composed in w->next ... */
struct line *
lines_new (struct lines *w)
{
  line_clear (&w->next);
  return &w->next;
}

/* ... and ends here. */
void
lines_done (struct lines *w)
{
  lines_put_kept (w, w->json ? "," : "");
  line_clear (&w->kept);
  line_append (&w->kept, "%*s%s", (int) w->depth * 2, "", w->next.text);
  w->has_kept = true;
}

/* bracket: of JSON.  name NULL: all of it, which only JSON puts in brackets. */
void
lines_begin (struct lines *w, const char *name, char bracket)
{
  struct line *line = lines_new (w);

  if (!w->json && name == NULL)
    return;
  if (!w->json)
    line_append (line, "%s:", name);
  else if (name)
    line_append (line, "\"%s\": %c", name, bracket);
  else
    line_append (line, "%c", bracket);
  lines_done (w);
  lines_put_kept (w, "");
  w->depth++;
}

void
lines_end (struct lines *w, char bracket)
{
  lines_put_kept (w, "");
  if (w->depth > 0)
    w->depth--;
  line_append (lines_new (w), "%c", bracket);
  if (w->json)
    lines_done (w);
}

/* JSON's integers have 63 bits for most who read them. */
void
line_append_number (struct line *line, uint64_t n)
{
  line_append (line, n > INT64_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, n);
}

void
lines_number (struct lines *w, const char *name, uint64_t n)
{
  struct line *line = lines_new (w);

  line_append (line, w->json ? "\"%s\": " : "%s: ", name);
  if (w->json)
    line_append_number (line, n);
  else
    line_append (line, "%" PRIu64, n);
  lines_done (w);
}

void
lines_bool (struct lines *w, const char *name, bool value)
{
  struct line *line = lines_new (w);

  line_append (line, w->json ? "\"%s\": %s" : "%s: %s", name,
               w->json ? (value ? "true" : "false") : (value ? "yes" : "no"));
  lines_done (w);
}

/* Bytes of whatever kind, so that they harm neither a terminal nor JSON. */
static void
line_append_bytes (struct line *line, const char *bytes, size_t max, bool json)
{
  for (size_t i = 0; i < max && bytes[i] != '\0'; i++) {
    unsigned char c = (unsigned char) bytes[i];

    if (c < ' ' || c >= 0x7f)
      line_append (line, json ? "\\\\x%02x" : "\\x%02x", c);
    else if (c == '\\')
      line_append (line, json ? "\\\\\\\\" : "\\\\");
    else
      line_append (line, c == '"' && json ? "\\%c" : "%c", c);
  }
}

void
lines_bytes (struct lines *w, const char *name, const char *bytes, size_t max)
{
  struct line *line = lines_new (w);

  line_append (line, w->json ? "\"%s\": \"" : "%s: ", name);
  line_append_bytes (line, bytes, max, w->json);
  line_append (line, w->json ? "\"" : "");
  lines_done (w);
}

void
lines_text (struct lines *w, const char *name, const char *text)
{
  lines_bytes (w, name, text, LINES_TEXT_MAX);
}

/* What is wrong, for the eye. */
void
lines_problem (struct lines *w, const char *problem)
{
  lines_text (w, w->json ? "problem" : "PROBLEM", problem);
}

/* JSON: the seconds.  Text: as people read it. */
void
line_append_time (struct line *line, uint64_t time_s, bool json)
{
  time_t t = (time_t) time_s;
  struct tm tm;
  char text[32];

  if (json)
    line_append_number (line, time_s);
  else if (time_s == 0 || time_s > INT64_C (253402300799) ||
           gmtime_r (&t, &tm) == NULL ||
           strftime (text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
    line_append (line, "%" PRIu64, time_s);
  else
    line_append (line, "%s", text);
}

void
lines_time (struct lines *w, const char *name, uint64_t time_s)
{
  struct line *line = lines_new (w);

  line_append (line, w->json ? "\"%s\": " : "%s: ", name);
  line_append_time (line, time_s, w->json);
  lines_done (w);
}

void
lines_hex (struct lines *w, const char *name, const uint8_t *bytes, size_t nr)
{
  struct line *line = lines_new (w);

  line_append (line, w->json ? "\"%s\": \"" : "%s: ", name);
  for (size_t i = 0; i < nr; i++)
    line_append (line, "%02x", bytes[i]);
  line_append (line, w->json ? "\"" : "");
  lines_done (w);
}
