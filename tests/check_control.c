/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

#define ARRAY_SIZE(a) (sizeof (a) / sizeof (a)[0])

/* A source that is made up: nr_runs runs of two sectors, at 10, 20, 30, ...,
 * remapped, lost without a spare, lost with one, and zeroed in turn.
 */
struct fake {
  struct status status;
  uint64_t nr_runs;
};

static void
fake_get_status (void *opaque, struct status *ret)
{
  struct fake *fake = opaque;

  *ret = fake->status;
}

static int
fake_next_run (void *opaque, lba_t from, struct sector_run *ret)
{
  struct fake *fake = opaque;
  uint64_t i = from.n <= 11 ? 1 : (from.n + 8) / 10;    /* ends at 10 i + 1 */

  if (i > fake->nr_runs)
    return -1;
  *ret = (struct sector_run) { .lba = { i * 10 }, .nr_sectors = 2 };
  switch (i % 4) {
  case 1: ret->state = SECTOR_REMAPPED; break;
  case 2: case 3: ret->state = SECTOR_LOST; break;
  case 0: ret->state = SECTOR_ZEROED; break;
  }
  ret->spare = i % 4 == 1 || i % 4 == 2 ? (spare_t) { (uint32_t) i }
    : SPARE_NONE;
  return 0;
}

static struct fake fake;
static const struct control_source source = {
  .get_status = fake_get_status, .next_run = fake_next_run, .opaque = &fake,
};

static void
setup (void)
{
  fake = (struct fake) {
    .status = {
      .backing = "disk.img", .store = "disk.img.remap", .identity = "wwn-1",
      .size_bytes = UINT64_C (1) << 40, .sector_bytes = 512,
      .physical_bytes = 4096, .nr_remapped = 1, .nr_lost = 2, .nr_zeroed = 3,
      .spares_total = 40, .spares_free = 30, .spares_bad = 4,
    },
    .nr_runs = 4,
  };
}

static void
make_live (void)
{
  struct status *s = &fake.status;

  s->is_live = true;
  s->direct = s->store_failed = true;
  s->pid = 1234;
  s->uptime_s = 99;
  s->now_ns = UINT64_C (30000000000);
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++)
    s->health.total[kind] = 100 + kind;
  s->health.nr_uncounted_details = 7;
  s->health.last_error = (struct event) {
    .lba = { 1000 }, .nr_sectors = 2, .kind = EVENT_WRITE_ERROR, .err = EIO,
    .when_ns = UINT64_C (25500000000),
  };
  s->health.nr_worst = 2;
  s->health.worst[0].lba.n = 4096;
  s->health.worst[0].nr_sectors = 1024;
  s->health.worst[0].nr_errors = 50;
  s->health.worst[1].lba.n = 8192;
  s->health.worst[1].nr_sectors = 17;
  s->health.worst[1].nr_errors = 1;
}

/* Every answer: one line, valid JSON, of the version, with either a result or
 * an error.  Returns NULL where there was none.
 */
static json_t *
answer_bytes (const char *line, size_t len)
{
  char *text = control_answer (&source, line, len);
  json_t *json;

  if (!text)
    return NULL;
  ck_assert_ptr_eq (strchr (text, '\n'), text + strlen (text) - 1);
  json = json_loads (text, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_ptr_nonnull (json);
  ck_assert_str_eq (json_string_value (json_object_get (json, "jsonrpc")),
                    "2.0");
  ck_assert_ptr_nonnull (json_object_get (json, "id"));
  ck_assert (!json_object_get (json, "result")
             != !json_object_get (json, "error"));
  ck_assert_uint_eq (json_object_size (json), 3);
  free (text);
  return json;
}

static json_t *
answer (const char *line)
{
  return answer_bytes (line, strlen (line));
}

static void
assert_json_eq (const json_t *json, const char *expected)
{
  json_t *other = json_loads (expected, JSON_DECODE_ANY, NULL);

  ck_assert_ptr_nonnull (other);
  if (!json_equal (json, other))
    ck_abort_msg ("%s\nis not\n%s", json_dumps (json, JSON_ENCODE_ANY),
                  expected);
  json_decref (other);
}

/* The result of a method whose parameters are params ("" for none). */
static json_t *
call (const char *method, const char *params)
{
  char line[1024];
  json_t *json, *result;

  snprintf (line, sizeof line,
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\"%s%s}", method,
            *params ? ",\"params\":" : "", params);
  json = answer (line);
  ck_assert_ptr_nonnull (json);
  result = json_incref (json_object_get (json, "result"));
  ck_assert_ptr_nonnull (result);
  json_decref (json);
  return result;
}

#define STORE_PART                                                            \
  "\"backing\":\"disk.img\",\"store\":\"disk.img.remap\","                    \
  "\"identity\":\"wwn-1\",\"size\":1099511627776,\"sector_size\":512,"        \
  "\"physical_sector_size\":4096,\"remapped\":1,\"lost\":2,\"zeroed\":3,"     \
  "\"spares_total\":40,\"spares_free\":30,\"spares_bad\":4"

START_TEST (status_of_a_store)
{
  json_t *result = call ("status", "");

  assert_json_eq (result, "{\"live\":false," STORE_PART "}");
  json_decref (result);
}
END_TEST

START_TEST (status_live)
{
  json_t *result;

  make_live ();
  result = call ("status", "{}");
  assert_json_eq (
    result,
    "{\"live\":true," STORE_PART ",\"pid\":1234,\"uptime_seconds\":99,"
    "\"readonly\":false,\"direct\":true,\"flush_failed\":false,"
    "\"store_failed\":true,\"breaker\":\"closed\","
    "\"errors\":{\"read\":100,\"write\":101,\"spare\":106,\"other\":107},"
    "\"weak\":102,\"events_without_details\":7,"
    "\"last_error\":{\"kind\":\"write_error\",\"lba\":1000,\"count\":2,"
    "\"errno\":5,\"error\":\"Input/output error\",\"age_seconds\":4},"
    "\"worst_regions\":[{\"lba\":4096,\"count\":1024,\"errors\":50},"
    "{\"lba\":8192,\"count\":17,\"errors\":1}]}");
  json_decref (result);
}
END_TEST

START_TEST (status_without_an_error)
{
  json_t *result;

  make_live ();
  memset (&fake.status.health, 0, sizeof fake.status.health);
  result = call ("status", "[]");
  ck_assert (json_is_null (json_object_get (result, "last_error")));
  assert_json_eq (json_object_get (result, "worst_regions"), "[]");
  json_decref (result);
}
END_TEST

/* An event may be posted between the clock and the snapshot. */
START_TEST (status_with_an_error_from_the_future)
{
  json_t *result, *last;

  make_live ();
  fake.status.now_ns = fake.status.health.last_error.when_ns - 1;
  result = call ("status", "");
  last = json_object_get (result, "last_error");
  ck_assert (json_is_object (last));
  ck_assert_ptr_null (json_object_get (last, "age_seconds"));
  json_decref (result);
}
END_TEST

/* Paths are bytes; an answer is UTF-8, of one line. */
START_TEST (status_with_strange_paths)
{
  json_t *result;

  strcpy (fake.status.backing, "a\xff" "b");
  strcpy (fake.status.store, "a\nb\"\\");
  strcpy (fake.status.identity, "Gl\xc3\xbc" "ck");
  result = call ("status", "");
  assert_json_eq (json_object_get (result, "backing"), "\"a?b\"");
  assert_json_eq (json_object_get (result, "store"), "\"a\\nb\\\"\\\\\"");
  assert_json_eq (json_object_get (result, "identity"), "\"Gl\xc3\xbc" "ck\"");
  json_decref (result);
}
END_TEST

#define RUN_1 "{\"lba\":10,\"count\":2,\"state\":\"remapped\",\"spare\":1}"
#define RUN_2 "{\"lba\":20,\"count\":2,\"state\":\"lost\",\"spare\":2}"
#define RUN_3 "{\"lba\":30,\"count\":2,\"state\":\"lost\",\"spare\":null}"
#define RUN_4 "{\"lba\":40,\"count\":2,\"state\":\"zeroed\",\"spare\":null}"

static const struct { const char *params, *sectors; int next; } lists[] = {
  { "", RUN_1 "," RUN_2 "," RUN_3 "," RUN_4, 0 },
  { "{}", RUN_1 "," RUN_2 "," RUN_3 "," RUN_4, 0 },
  { "{\"limit\":4}", RUN_1 "," RUN_2 "," RUN_3 "," RUN_4, 0 },
  { "{\"limit\":9223372036854775807}",
    RUN_1 "," RUN_2 "," RUN_3 "," RUN_4, 0 },
  { "{\"limit\":3}", RUN_1 "," RUN_2 "," RUN_3, 40 },
  { "{\"limit\":1}", RUN_1, 20 },
  { "{\"from\":20,\"limit\":1}", RUN_2, 30 },
  { "{\"from\":12,\"limit\":1}", RUN_2, 30 },
  { "{\"from\":30}", RUN_3 "," RUN_4, 0 },
  { "{\"from\":40,\"limit\":1}", RUN_4, 0 },
  { "{\"from\":42}", "", 0 },
  { "{\"from\":9223372036854775807}", "", 0 },
};

START_TEST (list_from_and_limit)
{
  json_t *result = call ("list", lists[_i].params);
  char expected[1024], next[32] = "";

  if (lists[_i].next)
    snprintf (next, sizeof next, ",\"next\":%d", lists[_i].next);
  snprintf (expected, sizeof expected,
            "{\"sector_size\":512,\"sectors\":[%s]%s}", lists[_i].sectors,
            next);
  assert_json_eq (result, expected);
  json_decref (result);
}
END_TEST

/* However much is asked for, an answer is bounded (C1), and goes on. */
START_TEST (list_of_many)
{
  json_t *result;
  uint64_t nr_runs = 0;
  json_int_t from = 0;

  fake.nr_runs = 3 * CONTROL_LIST_MAX + 1;
  for (unsigned pages = 1; ; pages++) {
    char params[64];
    json_t *next;

    snprintf (params, sizeof params, "{\"from\":%lld,\"limit\":1000000}",
              (long long) from);
    result = call ("list", params);
    nr_runs += json_array_size (json_object_get (result, "sectors"));
    next = json_object_get (result, "next");
    from = json_integer_value (next);
    json_decref (result);
    if (!next) {
      ck_assert_uint_eq (pages, 4);
      break;
    }
    ck_assert_uint_eq (nr_runs, pages * CONTROL_LIST_MAX);
  }
  ck_assert_uint_eq (nr_runs, fake.nr_runs);
}
END_TEST

START_TEST (list_of_none)
{
  json_t *result;

  fake.nr_runs = 0;
  result = call ("list", "");
  assert_json_eq (result, "{\"sector_size\":512,\"sectors\":[]}");
  json_decref (result);
}
END_TEST

/* C2: the id comes back as it was. */
static const char *const ids[] = {
  "0", "1", "-1", "9223372036854775807", "1.5", "1e300", "\"\"", "\"a\"",
  "\"\\n\\u0001\\\"\"", "\"\\u20ac\"", "null",
};

START_TEST (id_is_returned)
{
  char line[1024];
  json_t *json;

  snprintf (line, sizeof line,
            "{\"jsonrpc\":\"2.0\",\"method\":\"list\",\"id\":%s}", ids[_i]);
  json = answer (line);
  ck_assert_ptr_nonnull (json_object_get (json, "result"));
  assert_json_eq (json_object_get (json, "id"), ids[_i]);
  json_decref (json);

  snprintf (line, sizeof line,
            "{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":%s}", ids[_i]);
  json = answer (line);
  ck_assert_ptr_nonnull (json_object_get (json, "error"));
  assert_json_eq (json_object_get (json, "id"), ids[_i]);
  json_decref (json);
}
END_TEST

/* What is wrong with a line, and what is answered. */

#define V "\"jsonrpc\":\"2.0\","
#define REQUEST(params)                                                       \
  "{" V "\"id\":7,\"method\":\"list\",\"params\":" params "}"
#define STATUS(params)                                                        \
  "{" V "\"id\":7,\"method\":\"status\",\"params\":" params "}"

static const struct { const char *line; int code; const char *id; } bad[] = {
  { "", CONTROL_PARSE_ERROR, "null" },
  { "\n", CONTROL_PARSE_ERROR, "null" },
  { " \t\r\n", CONTROL_PARSE_ERROR, "null" },
  { "{", CONTROL_PARSE_ERROR, "null" },
  { "}", CONTROL_PARSE_ERROR, "null" },
  { "[", CONTROL_PARSE_ERROR, "null" },
  { "\"", CONTROL_PARSE_ERROR, "null" },
  { "GET / HTTP/1.0\r\n", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"method\":\"list\"} x", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"method\":\"list\"}{}", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"method\":\"list\",}", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"id\":8,\"method\":\"list\"}", CONTROL_PARSE_ERROR,
    "null" },
  { "{" V "\"id\":9223372036854775808,\"method\":\"list\"}",
    CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":1e999,\"method\":\"list\"}", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"method\":\"li\\u0000st\"}", CONTROL_PARSE_ERROR,
    "null" },
  { "{" V "\"id\":\"\xff\",\"method\":\"list\"}", CONTROL_PARSE_ERROR,
    "null" },
  { "{" V "\"id\":7,\"method\":\"\xc0\x80\"}", CONTROL_PARSE_ERROR, "null" },
  { "{" V "\"id\":7,\"method\":\"\\ud800\"}", CONTROL_PARSE_ERROR, "null" },

  { "1", CONTROL_INVALID_REQUEST, "null" },
  { "null", CONTROL_INVALID_REQUEST, "null" },
  { "\"list\"", CONTROL_INVALID_REQUEST, "null" },
  { "{}", CONTROL_INVALID_REQUEST, "null" },
  { "[]", CONTROL_INVALID_REQUEST, "null" },
  { "[" REQUEST ("{}") "]", CONTROL_INVALID_REQUEST, "null" },
  { "{\"id\":7,\"method\":\"list\"}", CONTROL_INVALID_REQUEST, "7" },
  { "{\"id\":7,\"method\":\"list\",\"jsonrpc\":2.0}", CONTROL_INVALID_REQUEST,
    "7" },
  { "{\"id\":7,\"method\":\"list\",\"jsonrpc\":\"1.0\"}",
    CONTROL_INVALID_REQUEST, "7" },
  { "{" V "\"id\":7}", CONTROL_INVALID_REQUEST, "7" },
  { "{" V "\"method\":1}", CONTROL_INVALID_REQUEST, "null" },
  { "{" V "\"id\":\"x\",\"method\":null}", CONTROL_INVALID_REQUEST, "\"x\"" },
  { "{" V "\"id\":7,\"method\":[\"list\"]}", CONTROL_INVALID_REQUEST, "7" },
  { "{" V "\"id\":true,\"method\":\"list\"}", CONTROL_INVALID_REQUEST,
    "null" },
  { "{" V "\"id\":{},\"method\":\"list\"}", CONTROL_INVALID_REQUEST, "null" },
  { "{" V "\"id\":[1],\"method\":\"list\"}", CONTROL_INVALID_REQUEST, "null" },
  { REQUEST ("1"), CONTROL_INVALID_REQUEST, "7" },
  { REQUEST ("null"), CONTROL_INVALID_REQUEST, "7" },
  { REQUEST ("\"from\""), CONTROL_INVALID_REQUEST, "7" },
  { "{" V "\"method\":\"list\",\"params\":1}", CONTROL_INVALID_REQUEST,
    "null" },

  { "{" V "\"id\":7,\"method\":\"\"}", CONTROL_METHOD_NOT_FOUND, "7" },
  { "{" V "\"id\":7,\"method\":\"List\"}", CONTROL_METHOD_NOT_FOUND, "7" },
  { "{" V "\"id\":7,\"method\":\"list \"}", CONTROL_METHOD_NOT_FOUND, "7" },
  { "{" V "\"id\":7,\"method\":\"rpc.list\"}", CONTROL_METHOD_NOT_FOUND,
    "7" },

  { REQUEST ("[0]"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"form\":0}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"from\":-1}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"from\":1.0}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"from\":\"1\"}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"from\":null}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"limit\":0}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"limit\":-5}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"limit\":true}"), CONTROL_INVALID_PARAMS, "7" },
  { REQUEST ("{\"from\":0,\"limit\":1,\"to\":2}"), CONTROL_INVALID_PARAMS,
    "7" },
  { STATUS ("{\"from\":0}"), CONTROL_INVALID_PARAMS, "7" },
  { STATUS ("[1]"), CONTROL_INVALID_PARAMS, "7" },
};

START_TEST (bad_line_is_answered)
{
  json_t *json = answer (bad[_i].line);
  json_t *error = json_object_get (json, "error");

  ck_assert_ptr_nonnull (error);
  ck_assert_int_eq (json_integer_value (json_object_get (error, "code")),
                    bad[_i].code);
  ck_assert_str_ne (json_string_value (json_object_get (error, "message")),
                    "");
  assert_json_eq (json_object_get (json, "id"), bad[_i].id);
  json_decref (json);
}
END_TEST

START_TEST (zero_byte_is_no_end)
{
  static const char line[] = REQUEST ("{}") "\0x";
  json_t *json = answer_bytes (line, sizeof line - 1);

  ck_assert_int_eq (json_integer_value (
                      json_object_get (json_object_get (json, "error"),
                                       "code")), CONTROL_PARSE_ERROR);
  json_decref (json);
}
END_TEST

static const char *const notifications[] = {
  "{" V "\"method\":\"list\"}",
  "{" V "\"method\":\"no such method\"}",
  "{" V "\"method\":\"list\",\"params\":{\"from\":-1}}",
  "{" V "\"method\":\"list\",\"params\":[1]}",
};

START_TEST (notification_is_not_answered)
{
  ck_assert_ptr_null (answer (notifications[_i]));
}
END_TEST

START_TEST (deep_nesting)
{
  static char line[65536];

  for (size_t len = 1; len < sizeof line; len = len * 2 + 1) {
    json_t *json;

    memset (line, '[', len);
    json = answer_bytes (line, len);
    ck_assert_ptr_nonnull (json_object_get (json, "error"));
    json_decref (json);
  }
}
END_TEST

/* Good requests with bytes changed, removed and doubled, by a fixed seed. */
START_TEST (mangled_requests)
{
  static const char good[] = REQUEST ("{\"from\":10,\"limit\":3}");
  unsigned seed = 20000;

  for (unsigned round = 0; round < 20000; round++) {
    char line[2 * sizeof good];
    size_t len = sizeof good - 1;

    memcpy (line, good, len);
    for (unsigned n = 1 + (unsigned) rand_r (&seed) % 4; n > 0; n--) {
      size_t at = (size_t) rand_r (&seed) % len;

      switch (rand_r (&seed) % 3) {
      case 0: line[at] = (char) rand_r (&seed); break;
      case 1: memmove (line + at, line + at + 1, --len - at); break;
      case 2: memmove (line + at + 1, line + at, len++ - at); break;
      }
    }
    if (!memchr (line, '\n', len))
      json_decref (answer_bytes (line, len));
  }
}
END_TEST

START_TEST (call_without_a_line)
{
  const char *message = NULL;
  int code = 0;
  json_t *result = control_call (&source, "list", NULL, &code, &message);

  ck_assert_ptr_nonnull (result);
  json_decref (result);
  ck_assert_ptr_null (control_call (&source, "x", NULL, &code, &message));
  ck_assert_int_eq (code, CONTROL_METHOD_NOT_FOUND);
  ck_assert_ptr_nonnull (message);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("control");
  TCase *tc = tcase_create ("methods");

  tcase_set_timeout (tc, 120);
  tcase_add_checked_fixture (tc, setup, NULL);
  tcase_add_test (tc, status_of_a_store);
  tcase_add_test (tc, status_live);
  tcase_add_test (tc, status_without_an_error);
  tcase_add_test (tc, status_with_an_error_from_the_future);
  tcase_add_test (tc, status_with_strange_paths);
  tcase_add_loop_test (tc, list_from_and_limit, 0, ARRAY_SIZE (lists));
  tcase_add_test (tc, list_of_many);
  tcase_add_test (tc, list_of_none);
  tcase_add_test (tc, call_without_a_line);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("protocol");
  tcase_set_timeout (tc, 120);
  tcase_add_checked_fixture (tc, setup, NULL);
  tcase_add_loop_test (tc, id_is_returned, 0, ARRAY_SIZE (ids));
  tcase_add_loop_test (tc, bad_line_is_answered, 0, ARRAY_SIZE (bad));
  tcase_add_test (tc, zero_byte_is_no_end);
  tcase_add_loop_test (tc, notification_is_not_answered, 0,
                       ARRAY_SIZE (notifications));
  tcase_add_test (tc, deep_nesting);
  tcase_add_test (tc, mangled_requests);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
