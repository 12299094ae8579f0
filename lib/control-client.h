/* SPDX-License-Identifier: BSD-3-Clause */
/* control-client: the client's end of the control socket.
 *
 * Locking:    none; a client is used by one thread at a time.
 */
#ifndef REMAP_CONTROL_CLIENT_H
#define REMAP_CONTROL_CLIENT_H

#include <jansson.h>

/* How long to wait for a server that does not answer. */
#define CONTROL_CLIENT_TIMEOUT_MS 5000

struct control_client;

/* Connect.  NULL with the error set: ENOENT, ECONNREFUSED (nobody listens),
 * ENAMETOOLONG, EACCES, EBUSY (somebody listens, but does not take us on), ...
 */
extern struct control_client *control_client_open (const char *path);
extern void control_client_close (struct control_client *client);

/* Call a method; params may be NULL.  Returns its result (a new reference), or
 * NULL with the error set: EBUSY no answer in time; ECONNRESET the server went
 * away; EINVAL it does not like the request; EPROTO it makes no sense; EACCES
 * it does not talk to this user.
 */
extern json_t *control_client_call (struct control_client *client,
                                    const char *method,
                                    const json_t *params);

#endif /* REMAP_CONTROL_CLIENT_H */
