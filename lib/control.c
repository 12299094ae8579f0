/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "cleanup.h"
#include "control.h"
#include "error.h"

static void
cleanup_json (json_t **json)
{
  json_decref (*json);
}

#define CLEANUP_JSON __attribute__ ((cleanup (cleanup_json)))

/* Paths are bytes, JSON is UTF-8: what is not shows as question marks. */
static json_t *
json_text (const char *bytes)
{
  json_t *text = json_string (bytes);
  CLEANUP_FREE char *ascii = NULL;

  if (text)
    return text;
  ascii = strdup (bytes);
  if (!ascii)
    return NULL;
  for (char *p = ascii; *p; p++)
    if ((unsigned char) *p >= 0x80)
      *p = '?';
  return json_string (ascii);
}

static json_t *
last_error_to_json (const struct status *status)
{
  const struct event *event = &status->health.last_error;
  uint64_t age_ns = status->now_ns - event->when_ns;
  json_t *json;

  if (event->when_ns == 0)
    return json_null ();
  json = json_pack ("{s:s, s:I, s:I, s:I, s:o}",
                    "kind", event_kind_to_string (event->kind),
                    "lba", (json_int_t) event->lba.n,
                    "count", (json_int_t) event->nr_sectors,
                    "errno", (json_int_t) event->err,
                    "error", json_text (errno_text (event->err)));
  if (json && status->now_ns >= event->when_ns)
    json_object_set_new (json, "age_seconds",
                         json_integer ((json_int_t) (age_ns / 1000000000)));
  return json;
}

static json_t *
worst_to_json (const struct health_snapshot *health)
{
  json_t *array = json_array ();

  for (unsigned i = 0; i < health->nr_worst; i++)
    if (json_array_append_new (
          array, json_pack ("{s:I, s:I, s:I}",
                            "lba", (json_int_t) health->worst[i].lba.n,
                            "count",
                            (json_int_t) health->worst[i].nr_sectors,
                            "errors",
                            (json_int_t) health->worst[i].nr_errors)) == -1) {
      json_decref (array);
      return NULL;
    }
  return array;
}

static json_t *
store_part_to_json (const struct status *status)
{
  return json_pack (
    "{s:b, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
    "live", status->is_live,
    "backing", json_text (status->backing),
    "store", json_text (status->store),
    "identity", json_text (status->identity),
    "size", (json_int_t) status->size_bytes,
    "sector_size", (json_int_t) status->sector_bytes,
    "physical_sector_size", (json_int_t) status->physical_bytes,
    "remapped", (json_int_t) status->nr_remapped,
    "lost", (json_int_t) status->nr_lost,
    "zeroed", (json_int_t) status->nr_zeroed,
    "spares_total", (json_int_t) status->spares_total,
    "spares_free", (json_int_t) status->spares_free,
    "spares_bad", (json_int_t) status->spares_bad);
}

static json_t *
live_part_to_json (const struct status *status)
{
  const struct health_snapshot *health = &status->health;

  return json_pack (
    "{s:i, s:I, s:b, s:b, s:b, s:b, s:s, s:{s:I, s:I, s:I, s:I}, s:I, s:I, s:o,"
    " s:o}",
    "pid", status->pid,
    "uptime_seconds", (json_int_t) status->uptime_s,
    "readonly", status->readonly,
    "direct", status->direct,
    "flush_failed", status->flush_failed,
    "store_failed", status->store_failed,
    "breaker", breaker_state_to_string (status->breaker),
    "errors",
    "read", (json_int_t) health->total[EVENT_READ_ERROR],
    "write", (json_int_t) health->total[EVENT_WRITE_ERROR],
    "spare", (json_int_t) health->total[EVENT_SPARE_ERROR],
    "other", (json_int_t) health->total[EVENT_OTHER_ERROR],
    "weak", (json_int_t) health->total[EVENT_WEAK],
    "events_without_details", (json_int_t) health->nr_uncounted_details,
    "last_error", last_error_to_json (status),
    "worst_regions", worst_to_json (health));
}

/* A method returns its result or NULL.  *ret_code and *ret_message come set
 * for the case that memory is short.
 */
typedef json_t *method_fn (const struct control_source *source,
                           const json_t *params, int *ret_code,
                           const char **ret_message);

static json_t *
call_status (const struct control_source *source, const json_t *params,
             int *ret_code, const char **ret_message)
{
  struct status status = { .is_live = false };
  json_t *result, *live = NULL;

  if (json_object_size (params) > 0) {
    *ret_code = CONTROL_INVALID_PARAMS;
    *ret_message = "status takes no parameters";
    return NULL;
  }
  source->get_status (source->opaque, &status);
  result = store_part_to_json (&status);
  if (status.is_live)
    live = live_part_to_json (&status);
  if (result && status.is_live
      && (!live || json_object_update (result, live) == -1)) {
    json_decref (result);
    result = NULL;
  }
  json_decref (live);
  return result;
}

/* Returns a message, NULL where the parameters are good. */
static const char *
parse_list_params (const json_t *params, lba_t *ret_from, uint64_t *ret_limit)
{
  const char *key;
  json_t *value;

  /* jansson iterates over what it may change, so it takes no const. */
  json_object_foreach ((json_t *) (uintptr_t) params, key, value) {
    json_int_t n = json_integer_value (value);

    if (strcmp (key, "from") == 0) {
      if (!json_is_integer (value) || n < 0)
        return "from: an LBA is wanted, an integer that is not negative";
      ret_from->n = (uint64_t) n;
    }
    else if (strcmp (key, "limit") == 0) {
      if (!json_is_integer (value) || n < 1)
        return "limit: a positive integer is wanted";
      *ret_limit = (uint64_t) n;
    }
    else
      return "list takes the parameters from and limit";
  }
  return NULL;
}

static json_t *
run_to_json (const struct sector_run *run)
{
  return json_pack ("{s:I, s:I, s:s, s:o}",
                    "lba", (json_int_t) run->lba.n,
                    "count", (json_int_t) run->nr_sectors,
                    "state", sector_state_to_string (run->state),
                    "spare", run->spare.n == SPARE_NONE.n
                    ? json_null () : json_integer (run->spare.n));
}

/* Append up to limit runs.  Returns 1 if there are more, at *from; 0 if not; -1
 * where memory is short.
 */
static int
append_runs (const struct control_source *source, uint64_t limit,
             json_t *sectors, lba_t *from)
{
  struct sector_run run;

  while (source->next_run (source->opaque, *from, &run) == 0) {
    if (run.lba.n > from->n)
      *from = run.lba;
    if (limit-- == 0)
      return 1;
    if (json_array_append_new (sectors, run_to_json (&run)) == -1)
      return -1;
    from->n = run.lba.n + run.nr_sectors;
  }
  return 0;
}

static json_t *
call_list (const struct control_source *source, const json_t *params,
           int *ret_code, const char **ret_message)
{
  struct status status = { .is_live = false };
  lba_t from = { 0 };
  uint64_t limit = CONTROL_LIST_MAX;
  const char *wrong = parse_list_params (params, &from, &limit);
  CLEANUP_JSON json_t *result = NULL;
  json_t *sectors;
  int more;

  if (wrong) {
    *ret_code = CONTROL_INVALID_PARAMS;
    *ret_message = wrong;
    return NULL;
  }
  source->get_status (source->opaque, &status);
  result = json_pack ("{s:I, s:[]}",
                      "sector_size", (json_int_t) status.sector_bytes,
                      "sectors");
  sectors = json_object_get (result, "sectors");
  if (!sectors)
    return NULL;
  more = append_runs (source, MIN (limit, (uint64_t) CONTROL_LIST_MAX),
                      sectors, &from);
  if (more == -1
      || (more && json_object_set_new (result, "next", json_integer (
            (json_int_t) from.n)) == -1))
    return NULL;
  return json_incref (result);
}

static const struct {
  const char *name;
  method_fn *fn;
} methods[] = {
  { "list", call_list },
  { "status", call_status },
};

static method_fn *
find_method (const char *name)
{
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
    if (strcmp (name, methods[i].name) == 0)
      return methods[i].fn;
  return NULL;
}

json_t *
control_call (const struct control_source *source, const char *method,
              const json_t *params, int *ret_code, const char **ret_message)
{
  method_fn *fn = find_method (method);

  if (!fn) {
    *ret_code = CONTROL_METHOD_NOT_FOUND;
    *ret_message = "no such method; there are list and status";
    return NULL;
  }
  if (json_array_size (params) > 0) {   /* an empty one says nothing */
    *ret_code = CONTROL_INVALID_PARAMS;
    *ret_message = "parameters go by name, in an object";
    return NULL;
  }
  *ret_code = CONTROL_INTERNAL_ERROR;
  *ret_message = "no memory";
  return fn (source, params, ret_code, ret_message);
}

static char *
json_to_line (const json_t *json)
{
  char *text = json ? json_dumps (json, JSON_COMPACT) : NULL;
  char *line = NULL;
  size_t len;

  if (!text)
    return NULL;
  len = strlen (text);
  line = realloc (text, len + 2);
  if (!line) {
    free (text);
    return NULL;
  }
  line[len] = '\n';
  line[len + 1] = '\0';
  return line;
}

/* id: NULL if it is not known. */
static char *
error_to_line (json_t *id, int code, const char *message)
{
  CLEANUP_JSON json_t *answer =
    json_pack ("{s:s, s:{s:i, s:s}, s:o}", "jsonrpc", "2.0",
               "error", "code", code, "message", message,
               "id", id ? json_incref (id) : json_null ());

  return json_to_line (answer);
}

char *
control_error_line (int code, const char *message)
{
  return error_to_line (NULL, code, message);
}

/* Returns what is wrong with the request, NULL if nothing is. */
static const char *
validate_request (const json_t *request)
{
  const json_t *id = json_object_get (request, "id");
  const json_t *params = json_object_get (request, "params");
  const char *version = json_string_value (json_object_get (request,
                                                            "jsonrpc"));

  if (json_is_array (request))
    return "batches are not supported; send one request a line";
  if (!json_is_object (request))
    return "a request is an object";
  if (id && !json_is_string (id) && !json_is_number (id) && !json_is_null (id))
    return "id is a string, a number or null";
  if (!version || strcmp (version, "2.0") != 0)
    return "jsonrpc must be \"2.0\"";
  if (!json_is_string (json_object_get (request, "method")))
    return "method must be a string";
  if (params && !json_is_object (params) && !json_is_array (params))
    return "params must be an object";
  return NULL;
}

/* The id to answer an invalid request with; NULL if it has none. */
static json_t *
id_of_invalid (const json_t *request)
{
  json_t *id = json_object_get (request, "id");

  return json_is_string (id) || json_is_number (id) ? id : NULL;
}

/* The answer to a valid request. */
static char *
answer_request (const struct control_source *source, const json_t *request)
{
  json_t *id = json_object_get (request, "id");
  const char *message = NULL;
  int code = 0;
  CLEANUP_JSON json_t *result = NULL;
  CLEANUP_JSON json_t *answer = NULL;

  if (!id)                      /* C2; no method does anything but answer */
    return NULL;
  result = control_call (source,
                         json_string_value (json_object_get (request,
                                                             "method")),
                         json_object_get (request, "params"),
                         &code, &message);
  if (!result)
    return error_to_line (id, code, message);
  answer = json_pack ("{s:s, s:O, s:O}", "jsonrpc", "2.0", "result", result,
                      "id", id);
  return json_to_line (answer);
}

char *
control_answer (const struct control_source *source, const char *line,
                size_t len)
{
  CLEANUP_JSON json_t *request =
    json_loadb (line, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
  const char *wrong;

  if (!request)
    return control_error_line (CONTROL_PARSE_ERROR, "this is not valid JSON");
  wrong = validate_request (request);
  if (wrong)
    return error_to_line (id_of_invalid (request), CONTROL_INVALID_REQUEST,
                          wrong);
  return answer_request (source, request);
}
