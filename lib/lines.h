/* SPDX-License-Identifier: BSD-3-Clause */
/* lines: text for people, or the same as JSON, a line at a time.
 *
 * Purpose:    members of objects and elements of arrays, in constant memory.
 *             Behind a line of JSON stands a comma if another one follows, so
 *             each is kept until that is known.  Bytes of any kind come out so
 *             that they harm neither a terminal nor JSON.
 * Use:        groups and members in their order; lines_put_kept at the end.  A
 *             line of another kind is composed between lines_new and
 *             lines_done.
 */
#ifndef REMAP_LINES_H
#define REMAP_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Told each line, without its end. */
typedef void lines_fn (void *opaque, const char *line);

#define LINE_BYTES 2048
#define LINES_TEXT_MAX 256      /* shown of a text; escaped it fits a line */

struct line {
  size_t nr_bytes;
  char text[LINE_BYTES];
};

struct lines {
  bool json;                    /* set by the user, as the next two */
  lines_fn *fn;
  void *opaque;
  unsigned depth;
  bool has_kept;
  struct line kept, next;
};

/* bracket: of JSON, '{' or '['.  name NULL: an element; of text, nothing. */
extern void lines_begin (struct lines *w, const char *name, char bracket);
extern void lines_end (struct lines *w, char bracket);

extern void lines_number (struct lines *w, const char *name, uint64_t n);
extern void lines_bool (struct lines *w, const char *name, bool value);
extern void lines_text (struct lines *w, const char *name, const char *text);
extern void lines_bytes (struct lines *w, const char *name, const char *bytes,
                         size_t max);
extern void lines_hex (struct lines *w, const char *name, const uint8_t *bytes,
                       size_t nr);
extern void lines_time (struct lines *w, const char *name, uint64_t time_s);

/* What is wrong, for the eye. */
extern void lines_problem (struct lines *w, const char *problem);

extern struct line *lines_new (struct lines *w);
extern void lines_done (struct lines *w);
extern void line_clear (struct line *line);
extern void line_append (struct line *line, const char *fmt, ...)
  __attribute__ ((format (printf, 2, 3)));
extern void line_append_number (struct line *line, uint64_t n);
extern void line_append_time (struct line *line, uint64_t time_s, bool json);

/* Put out the line that is kept, with this behind it. */
extern void lines_put_kept (struct lines *w, const char *end);

#endif /* REMAP_LINES_H */
