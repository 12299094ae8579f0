/* SPDX-License-Identifier: BSD-3-Clause */
/* control-socket: the server's end of the control socket, on the worker's
 * loop.
 *
 * Invariants: K1 Whatever clients do or leave undone, the loop waits for none
 *                of them: reads and writes do not block, and each client gets
 *                at most one request answered before the others have a turn.
 *             K2 What a client can make the server hold is bounded: one line
 *                that is coming in and one answer that is going out.  Nothing
 *                is read from a client that has not taken its answer.
 *             K3 Only the server's own user and root are listened to.
 *             K4 A new client always gets in: where there are too many, the
 *                one that has been silent longest has to go.
 * Locking:    control_socket_new is called before the fork, _free when the
 *             worker is gone; all between happens on the worker's thread.
 */
#ifndef REMAP_CONTROL_SOCKET_H
#define REMAP_CONTROL_SOCKET_H

#include "control.h"
#include "worker.h"

#define CONTROL_MAX_CLIENTS 64
#define CONTROL_MAX_LINE_BYTES 65536

struct control_socket;

/* Bind and listen, mode 0600.  A socket that was left behind is replaced (the
 * caller holds the lock of the store, so nobody serves there); a path that is
 * no socket is refused.  source is copied.  NULL with the error set.
 */
extern struct control_socket *
control_socket_new (const char *path, const struct control_source *source);
extern void control_socket_free (struct control_socket *cs); /* unlinks */

/* To be handed to worker_new. */
extern struct worker_guest control_socket_guest (struct control_socket *cs);

#endif /* REMAP_CONTROL_SOCKET_H */
