/* SPDX-License-Identifier: BSD-3-Clause */
/* A line of any bytes on the control socket: it gets one line of JSON with its
 * id, or nothing.
 */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "fuzz/fuzz.h"

#define MUST(cond)                                                            \
  ((cond) ? (void) 0 : give_up (__LINE__, #cond))

/* Lost sectors at 1, 11, 21, ... */
#define NR_RUNS 10000

static _Noreturn void
give_up (int line, const char *what)
{
  fprintf (stderr, "fuzz_control.c:%d: not true: %s\n", line, what);
  abort ();
}

static void
get_status (void *opaque, struct status *ret)
{
  memset (ret, 0, sizeof *ret);
  ret->size_bytes = UINT64_C (1) << 40;
  ret->sector_bytes = ret->physical_bytes = 512;
  ret->nr_lost = NR_RUNS;
}

static int
next_run (void *opaque, lba_t from, struct sector_run *ret)
{
  uint64_t n = from.n <= 1 ? 0 : (from.n - 1 + 9) / 10;

  if (n >= NR_RUNS)
    return -1;
  *ret = (struct sector_run) {
    .lba = { 1 + n * 10 }, .nr_sectors = 1, .state = SECTOR_LOST,
    .spare = { (uint32_t) n },
  };
  return 0;
}

/* C1, C2: one line, which is a response. */
static void
verify_answer (const char *answer)
{
  size_t len = strlen (answer);
  json_t *json;

  MUST (len > 0 && strchr (answer, '\n') == answer + len - 1);
  json = json_loads (answer, JSON_REJECT_DUPLICATES, NULL);
  MUST (json_is_object (json));
  MUST (strcmp (json_string_value (json_object_get (json, "jsonrpc")),
                "2.0") == 0);
  MUST (json_object_get (json, "id") != NULL);
  MUST ((json_object_get (json, "result") != NULL)
        != (json_object_get (json, "error") != NULL));
  json_decref (json);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  const struct control_source source = {
    .get_status = get_status, .next_run = next_run,
  };
  char *answer;

  if (memchr (data, '\n', size) != NULL)
    return 0;                   /* whoever reads lines ends them there */
  answer = control_answer (&source, (const char *) data, size);
  if (answer)
    verify_answer (answer);
  free (answer);
  return 0;
}
