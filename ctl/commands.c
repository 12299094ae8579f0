/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <remap.h>

#include "commands.h"
#include "output.h"

/* Runs to ask for at a time: a list may have millions, which are printed as
 * they come, and a store is opened once for each page.
 */
#define PAGE_RUNS 262144

static void
print_error (const char *message)
{
  fflush (stdout);
  fprintf (stderr, "remapctl: %s\n", message);
}

/* Returns NULL, with the error printed. */
static json_t *
query (const char *disk, const char *method, const char *params)
{
  char *text = NULL;
  json_t *json;

  if (remap_query (disk, method, params, &text) == -1) {
    print_error (remap_error ());
    return NULL;
  }
  json = json_loads (text, 0, NULL);
  if (!json)
    print_error ("the answer is no JSON, or too long for the memory");
  free (text);
  return json;
}

int
command_status (const struct options *options)
{
  json_t *status = query (options->disk, "status", NULL);

  if (!status)
    return STATUS_ERROR;
  if (options->json)
    print_json (status);
  else
    print_status (options->disk, status);
  json_decref (status);
  return STATUS_OK;
}

static json_t *
query_page (const char *disk, json_int_t from)
{
  char params[80];

  snprintf (params, sizeof params,
            "{\"from\":%" JSON_INTEGER_FORMAT ",\"limit\":%d}", from,
            PAGE_RUNS);
  return query (disk, "list", params);
}

int
command_list (const struct options *options)
{
  struct list_printer printer = {
    .format = options->json ? LIST_JSON : options->csv ? LIST_CSV : LIST_TEXT,
  };
  json_t *page = query_page (options->disk, 0);

  if (!page)
    return STATUS_ERROR;
  list_begin (&printer, page);
  while (page) {
    json_t *next = json_object_get (page, "next");
    json_int_t from = json_integer_value (next);
    bool more = next != NULL;

    list_page (&printer, page);
    json_decref (page);
    page = NULL;
    if (more && !(page = query_page (options->disk, from)))
      return STATUS_ERROR;
  }
  list_end (&printer);
  return STATUS_OK;
}

/* What check found so far; problems is NULL where they are printed at once. */
struct findings {
  json_t *problems;
};

static void
note_problem (void *opaque, int damage, const char *problem)
{
  struct findings *findings = opaque;

  if (findings->problems)
    json_array_append_new (findings->problems,
                           json_pack ("{s:i, s:o}", "damage", damage,
                                      "problem", text_to_json (problem)));
  else {
    print_text (problem);
    putchar ('\n');
  }
}

/* By damage. */
static const struct verdict {
  const char *word, *sentence;
} verdicts[] = {
  [REMAP_DAMAGE_NONE] = { "sound", "the store is sound" },
  [REMAP_DAMAGE_REPAIRABLE] = { "repairable",
    "one copy is damaged, the other one serves: --repair mends it, or the next"
    " start of a server" },
  [REMAP_DAMAGE_LASTING] = { "damaged",
    "some of it is damaged for good; the store can be used" },
  [REMAP_DAMAGE_FATAL] = { "unusable", "the store cannot be used" },
};

static const char *
verdict_sentence (int damage, bool was_repaired)
{
  return was_repaired && damage == REMAP_DAMAGE_REPAIRABLE
    ? "one copy stays damaged, the other one serves: move the store to a better"
      " place"
    : verdicts[damage].sentence;
}

/* nr_repaired: NULL where nothing was to be repaired. */
static void
print_verdict (const char *store, int damage, const json_t *problems,
               const uint64_t *nr_repaired)
{
  if (problems) {
    json_t *json = json_pack ("{s:o, s:s, s:O}", "store", text_to_json (store),
                              "verdict", verdicts[damage].word,
                              "problems", problems);
    if (nr_repaired)
      json_object_set_new (json, "repaired",
                           json_integer ((json_int_t) *nr_repaired));
    print_json (json);
    json_decref (json);
    return;
  }
  print_text (store);
  fputs (": ", stdout);
  if (nr_repaired && *nr_repaired > 0)
    printf ("%" PRIu64 " problem%s repaired; ", *nr_repaired,
            *nr_repaired == 1 ? "" : "s");
  puts (verdict_sentence (damage, nr_repaired != NULL));
}

int
command_check (const struct options *options)
{
  struct findings findings = { options->json ? json_array () : NULL };
  uint64_t nr_repaired = 0;
  int damage, status = CHECK_ERROR;

  damage = options->repair
    ? remap_repair (options->disk, note_problem, &findings, &nr_repaired)
    : remap_check (options->disk, note_problem, &findings);
  if (damage == -1)
    print_error (remap_error ());
  else {
    print_verdict (options->disk, damage, findings.problems,
                   options->repair ? &nr_repaired : NULL);
    status = (nr_repaired > 0 ? CHECK_REPAIRED : CHECK_SOUND)
      | (damage > REMAP_DAMAGE_NONE ? CHECK_DAMAGED : CHECK_SOUND);
  }
  json_decref (findings.problems);
  return status;
}

/* Nothing in a line does harm to a terminal: the library has seen to that. */
static void
print_line (void *opaque, const char *line)
{
  (void) opaque;
  puts (line);
}

int
command_dump (const struct options *options)
{
  if (remap_dump (options->disk,
                  options->json ? REMAP_DUMP_JSON : REMAP_DUMP_TEXT,
                  print_line, NULL) == 0)
    return CHECK_SOUND;
  print_error (remap_error ());
  return CHECK_ERROR;
}
