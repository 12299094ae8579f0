/* SPDX-License-Identifier: BSD-3-Clause */
/* model-client: several connections with several requests each under way.
 *
 * Purpose:  sends requests and hands back each with its end, in the order in
 *           which they ended.  It judges nothing.
 * Design:   one thread, libnbd's asynchronous calls, poll.  A connection is
 *           chosen by the number of the request, not by who is idle, so that
 *           the requests of each connection depend on the seed alone.
 * Locking:  none: of one thread.
 */

#ifndef REMAP_MODEL_CLIENT_H
#define REMAP_MODEL_CLIENT_H

#include "model-oracle.h"
#include "t_server.h"

struct model_client;

/* What block status said of these bytes. */
struct model_extent {
  uint64_t offset, count;
  bool is_zero;
};

/* A request that has ended: err as for model_oracle_end. */
struct model_answer {
  struct model_request request;
  int err;
  const void *data;
  const struct model_extent *extents;
  size_t nr_extents;
};

typedef void model_answer_fn (void *opaque, struct model_answer *answer);

struct model_client *model_client_new (const struct t_server *s,
                                       unsigned nr_connections,
                                       unsigned depth,
                                       model_answer_fn *answered,
                                       void *opaque);

/* Disconnects; nothing may be under way. */
void model_client_free (struct model_client *c);

/* Can this be asked of the server at all? */
bool model_client_can (const struct model_client *c,
                       const struct model_request *r);

/* Is there room for one more request on this connection? */
bool model_client_has_room (const struct model_client *c, unsigned i);

/* Send it on this connection.  */
void model_client_send (struct model_client *c, unsigned i,
                        const struct model_request *r,
                        const void *data_to_write);

/* Wait for answers, and hand them out; fails the test after a long time
 * without any.
 */
void model_client_wait (struct model_client *c);

/* Take what is there already. */
void model_client_look (struct model_client *c);

/* Wait for all of them. */
void model_client_drain (struct model_client *c);

/* The server was killed and is gone.  What it had answered is handed out, then
 * the rest as cut off.
 */
void model_client_cut_off (struct model_client *c);

unsigned model_client_nr_under_way (const struct model_client *c);

#endif /* REMAP_MODEL_CLIENT_H */
