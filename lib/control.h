/* SPDX-License-Identifier: BSD-3-Clause */
/* control: the control protocol, JSON-RPC 2.0 (jsonrpc.org, 2013), one
 * message a line.  Pure: no I/O, no thread, no clock.
 *
 * Invariants: C1 Whatever the line, at most one line is answered; it is valid
 *                JSON and no longer than one result.
 *             C2 A request with an id is answered with that id; a notification
 *                is not answered; what is neither is answered with id null.
 * Not done:   batches (arrays of requests) are refused with -32600: one could
 *             ask for any number of results in one line.
 */
#ifndef REMAP_CONTROL_H
#define REMAP_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "sector.h"
#include "status.h"

/* Most runs that one answer of "list" holds; clients ask on from "next". */
#define CONTROL_LIST_MAX 4096

/* Error codes.  The first five are those of JSON-RPC. */
#define CONTROL_PARSE_ERROR (-32700)
#define CONTROL_INVALID_REQUEST (-32600)
#define CONTROL_METHOD_NOT_FOUND (-32601)
#define CONTROL_INVALID_PARAMS (-32602)
#define CONTROL_INTERNAL_ERROR (-32603)
#define CONTROL_DENIED (-32000)         /* the peer is another user */

/* Where the answers come from: a live engine or a store that was read. */
struct control_source {
  void (*get_status) (void *opaque, struct status *ret);
  /* The first run at or after from that is not clean; 0: found, -1: none.
   * Where from is inside a run, the rest of that run or the whole of it.
   */
  int (*next_run) (void *opaque, lba_t from, struct sector_run *ret);
  void *opaque;
};

/* Run one method.  Returns the result (a new reference), or NULL and *ret_code
 * (a JSON-RPC error code) and *ret_message (a constant).  params may be NULL.
 *
 *   status   no parameters
 *   list     from: LBA to begin at (0); limit: number of runs
 *            (CONTROL_LIST_MAX, which is also the most); the result has
 *            "next", where to go on from, unless it ends at the last run
 */
extern json_t *control_call (const struct control_source *source,
                             const char *method, const json_t *params,
                             int *ret_code, const char **ret_message);

/* Answer one line of a client.  Returns a line with its newline, to free; or
 * NULL where there is nothing to answer (a notification) or no memory.
 */
extern char *control_answer (const struct control_source *source,
                             const char *line, size_t len);

/* The answer to what is no request, as control_answer returns it. */
extern char *control_error_line (int code, const char *message);

#endif /* REMAP_CONTROL_H */
