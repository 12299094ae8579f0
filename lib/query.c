/* SPDX-License-Identifier: BSD-3-Clause */
/* query: what remap.h tells about a disk that this process does not serve:
 * remap_query asks its server where one runs, else looks into the store;
 * remap_check verifies a store, remap_repair mends it, remap_dump prints it.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-client.h"
#include "control.h"
#include "error.h"
#include "identity.h"
#include "mark.h"
#include "nbd-uri.h"
#include "remap.h"
#include "store-check.h"
#include "store-dump.h"
#include "store-inspect.h"
#include "store-load.h"

#define SOCKET_SUFFIX ".ctl"

/* Whom to ask: one of the two. */
struct target {
  struct control_client *client;
  struct store_view *view;
};

static void
target_close (struct target *target)
{
  control_client_close (target->client);
  if (target->view)
    store_view_close (target->view);
}

/* Returns 1: connected; 0: no server there; -1: one that does not answer. */
static int
try_server (struct target *target, const char *path)
{
  target->client = control_client_open (path);
  if (target->client)
    return 1;
  return last_error_errno () == EBUSY ? -1 : 0;
}

static int
open_store (struct target *target, const char *store)
{
  CLEANUP_FREE char *path = NULL;
  int r;

  if (asprintf (&path, "%s" SOCKET_SUFFIX, store) == -1) {
    path = NULL;
    return set_error (ENOMEM, "query: no memory");
  }
  r = try_server (target, path);
  if (r != 0)
    return r == 1 ? 0 : -1;
  target->view = store_view_open (store);
  if (target->view)
    return 0;
  if (last_error_errno () != EBUSY)
    return -1;
  return set_error (EBUSY, "%s is in use, but no server answers at %s: give"
                    " the store or the control socket it was started with"
                    " (spare=, control=)", store, path);
}

/* A socket that nobody listens on was left behind by a server that was killed;
 * it stands beside the store it was made for.
 */
static int
open_socket (struct target *target, const char *path)
{
  CLEANUP_FREE char *store = NULL;
  size_t len = strlen (path), suffix_len = strlen (SOCKET_SUFFIX);

  if (try_server (target, path) == 1)
    return 0;
  if (last_error_errno () != ECONNREFUSED)
    return -1;
  if (len <= suffix_len || strcmp (path + len - suffix_len, SOCKET_SUFFIX) != 0)
    return set_error (ENOENT, "%s: no server listens on this socket", path);
  store = strndup (path, len - suffix_len);
  if (!store)
    return set_error (ENOMEM, "query: no memory");
  return open_store (target, store);
}

static bool
is_there (const char *store)
{
  return nbd_uri_is_one (store) || access (store, F_OK) == 0;
}

/* Where the store of a disk is: the disk may say so itself.  To free.  NULL with
 * ESTALE: what is there now is another one.
 */
static char *
find_store (const char *disk)
{
  uint8_t uuid[STORE_UUID_BYTES];
  struct mark mark;

  if (mark_read_path (disk, &mark) != 1 || !is_there (mark.store))
    return identity_default_store (disk);
  if (store_uuid (mark.store, uuid) == 0 &&
      memcmp (uuid, mark.uuid, sizeof uuid) != 0) {
    set_error (ESTALE, "%s was last served with the store %s, and what is there "
               "now is another one: give its own", disk, mark.store);
    return NULL;
  }
  return strdup (mark.store);
}

/* disk is a store, or it has one somewhere.  The latter comes first: a disk that
 * has a store need not be read, which may be slow or fail.
 */
static int
open_store_or_backing (struct target *target, const char *disk)
{
  CLEANUP_FREE char *store = find_store (disk);

  if (store == NULL && last_error_errno () == ESTALE)
    return -1;
  if (store && is_there (store))
    return open_store (target, store);
  if (open_store (target, disk) == 0)
    return 0;
  if (last_error_errno () != EINVAL && last_error_errno () != EEXIST)
    return -1;
  return set_error (ENOENT, "%s is no store, and has none at %s: give the"
                    " store or the control socket of the server", disk,
                    store ? store : "a place of its own");
}

static int
target_open (struct target *target, const char *disk)
{
  struct stat st;

  if (stat (disk, &st) == 0 && S_ISSOCK (st.st_mode))
    return open_socket (target, disk);
  return open_store_or_backing (target, disk);
}

static void
get_view_status (void *opaque, struct status *ret)
{
  store_view_get_status (opaque, ret);
}

static int
next_view_run (void *opaque, lba_t from, struct sector_run *ret)
{
  return store_view_next_run (opaque, from, ret);
}

/* Returns a new reference, or NULL with the error set. */
static json_t *
target_ask (struct target *target, const char *method, const json_t *params)
{
  const struct control_source source = {
    .get_status = get_view_status,
    .next_run = next_view_run,
    .opaque = target->view,
  };
  const char *message = NULL;
  int code = 0;
  json_t *result;

  if (target->client)
    return control_client_call (target->client, method, params);
  result = control_call (&source, method, params, &code, &message);
  if (!result)
    set_error (code == CONTROL_INTERNAL_ERROR ? ENOMEM : EINVAL,
               "%s: %s", method, message);
  return result;
}

/* A list that goes over any number of pages. */
struct list {
  FILE *stream;                 /* the JSON text so far, up to the last run */
  json_t *params;               /* of the next page */
  json_int_t from;
  json_int_t left;              /* runs still wanted; < 0: all of them */
  bool begun, has_runs;
};

static int
add_page (struct list *list, json_t *page)
{
  json_t *sectors = json_object_get (page, "sectors");
  json_t *next = json_object_get (page, "next");
  size_t nr_runs = json_array_size (sectors);

  if (!json_is_array (sectors)
      || (next && (nr_runs == 0 || json_integer_value (next) <= list->from)))
    return set_error (EPROTO, "list: an answer that makes no sense");
  if (!list->begun)
    fprintf (list->stream, "{\"sector_size\":%" JSON_INTEGER_FORMAT
             ",\"sectors\":[",
             json_integer_value (json_object_get (page, "sector_size")));
  list->begun = true;
  if (nr_runs > 0) {
    if (list->has_runs)
      fputc (',', list->stream);
    if (json_dumpf (sectors, list->stream, JSON_COMPACT | JSON_EMBED) == -1)
      return set_error (ENOMEM, "list: no memory");
    list->has_runs = true;
  }
  if (list->left >= 0)
    list->left -= (json_int_t) nr_runs;
  if (next)
    list->from = json_integer_value (next);
  return next != NULL;
}

/* Returns 1 if there is another page, 0 if not, -1 with the error set. */
static int
ask_page (struct target *target, struct list *list)
{
  json_t *page = target_ask (target, "list", list->params);
  int more = page ? add_page (list, page) : -1;

  json_decref (page);
  if (more == -1)
    return -1;
  if (!more) {
    fputs ("]}", list->stream);
    return 0;
  }
  if (list->left == 0) {
    fprintf (list->stream, "],\"next\":%" JSON_INTEGER_FORMAT "}", list->from);
    return 0;
  }
  if (json_object_set_new (list->params, "from",
                           json_integer (list->from)) == -1
      || (list->left > 0
          && json_object_set_new (list->params, "limit",
                                  json_integer (list->left)) == -1))
    return set_error (ENOMEM, "list: no memory");
  return 1;
}

static int
write_list (struct target *target, json_t *params, FILE *stream)
{
  const json_t *limit = json_object_get (params, "limit");
  struct list list = { .stream = stream, .params = params, .left = -1 };
  int more;

  if (json_is_integer (limit))
    list.left = json_integer_value (limit);
  list.from = json_integer_value (json_object_get (params, "from"));
  do
    more = ask_page (target, &list);
  while (more == 1);
  return more;
}

static int
write_result (struct target *target, const char *method, json_t *params,
              FILE *stream)
{
  json_t *result;
  int r;

  if (strcmp (method, "list") == 0)
    return write_list (target, params, stream);
  result = target_ask (target, method, params);
  if (!result)
    return -1;
  r = json_dumpf (result, stream, JSON_COMPACT);
  json_decref (result);
  return r == -1 ? set_error (EPROTO, "%s: an answer that makes no sense",
                              method) : 0;
}

static int
ask (const char *disk, const char *method, json_t *params, char **ret_json)
{
  struct target target = { .client = NULL };
  CLEANUP_FREE char *text = NULL;
  size_t size;
  FILE *stream;
  int r;

  if (target_open (&target, disk) == -1)
    return -1;
  stream = open_memstream (&text, &size);
  r = stream ? write_result (&target, method, params, stream)
             : set_error (ENOMEM, "query: no memory");
  target_close (&target);
  if (stream && fclose (stream) == EOF && r == 0)
    r = set_error (ENOMEM, "query: no memory");
  if (r == 0) {
    *ret_json = text;
    text = NULL;
  }
  return r;
}

int
remap_query (const char *disk, const char *method, const char *params,
             char **ret_json)
{
  json_t *json;
  int r;

  if (!disk || !method || !ret_json)
    return set_error (EINVAL, "remap_query: an argument is missing");
  if (nbd_uri_check_secrets (disk) == -1)
    return -1;
  json = params ? json_loads (params, JSON_REJECT_DUPLICATES, NULL)
                : json_object ();
  if (json_is_object (json))
    r = ask (disk, method, json, ret_json);
  else
    r = set_error (EINVAL, "remap_query: the parameters are no JSON object");
  json_decref (json);
  return r;
}

_Static_assert (REMAP_DAMAGE_NONE == (int) STORE_NORMAL &&
                REMAP_DAMAGE_REPAIRABLE == (int) STORE_REPAIRABLE &&
                REMAP_DAMAGE_LASTING == (int) STORE_LASTING &&
                REMAP_DAMAGE_FATAL == (int) STORE_FATAL,
                "remap.h numbers damage as store-load.h does");

int
remap_check (const char *store,
             void (*fn) (void *opaque, int damage, const char *problem),
             void *opaque)
{
  if (!store || !fn)
    return set_error (EINVAL, "remap_check: an argument is missing");
  if (nbd_uri_check_secrets (store) == -1)
    return -1;
  return store_check (store, fn, opaque);
}

int
remap_repair (const char *store,
              void (*fn) (void *opaque, int damage, const char *problem),
              void *opaque, uint64_t *ret_nr_repaired)
{
  if (!store || !fn || !ret_nr_repaired)
    return set_error (EINVAL, "remap_repair: an argument is missing");
  if (nbd_uri_check_secrets (store) == -1)
    return -1;
  return store_check_and_repair (store, fn, opaque, ret_nr_repaired);
}

int
remap_dump (const char *store, enum remap_dump_format format,
            void (*fn) (void *opaque, const char *line), void *opaque)
{
  if (!store || !fn)
    return set_error (EINVAL, "remap_dump: an argument is missing");
  if (nbd_uri_check_secrets (store) == -1)
    return -1;
  if (format != REMAP_DUMP_TEXT && format != REMAP_DUMP_JSON)
    return set_error (EINVAL, "remap_dump: no such format");
  return store_dump (store, format == REMAP_DUMP_JSON, fn, opaque);
}
