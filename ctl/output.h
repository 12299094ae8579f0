/* SPDX-License-Identifier: BSD-3-Clause */
/* output: how remapctl shows what remap_query returned. */
#ifndef REMAPCTL_OUTPUT_H
#define REMAPCTL_OUTPUT_H

#include <jansson.h>

/* A status, for a person.  disk: as the user named it. */
extern void print_status (const char *disk, const json_t *status);

enum list_format { LIST_TEXT, LIST_CSV, LIST_JSON };

/* A list comes in any number of pages. */
struct list_printer {
  enum list_format format;
  size_t nr_runs;               /* printed so far */
};

extern void list_begin (struct list_printer *printer, const json_t *page);
extern void list_page (struct list_printer *printer, const json_t *page);
extern void list_end (struct list_printer *printer);

/* A whole JSON value, and a newline. */
extern void print_json (const json_t *json);

/* A JSON string; question marks stand for what is no UTF-8. */
extern json_t *text_to_json (const char *text);

/* To stdout; control characters, which could play tricks on a terminal, show
 * as question marks.
 */
extern void print_text (const char *text);

#endif /* REMAPCTL_OUTPUT_H */
