/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-link: the way to an NBD server, which may break and is mended.
 *
 * Purpose:    one or several connections to one export.  Any number of threads
 *             run commands on them; each waits until its own is answered, and
 *             while it waits does the work of the connection, so no thread is
 *             needed that would have to survive a fork.
 * Invariants: K1 A request ends with what the server answered to it, or with
 *                ESHUTDOWN: what happens to a connection never looks like the
 *                answer of a disk.
 *                (A server may answer ESHUTDOWN itself: if it leaves the
 *                connection open, that is its answer, and the link stays up.)
 *             K2 Where one connection breaks, no more is sent on the others;
 *                what is under way on them is waited for, up to half of the
 *                timeout.  Then all are given up, and what was not answered is
 *                sent again on new ones.
 *             K3 After a break nothing is sent before all that may not be
 *                durable has been written again: of each place
 *                what was answered last, and nothing older (N1).
 *                What the server refuses then is owed (N4): reads get it from
 *                here, and it is tried again after each break, and with each
 *                flush, when nothing else is under way.
 *             K4 A server that is slow is not one that is gone: a connection is
 *                given up when the other end does not answer on the level of
 *                TCP, but never because a command takes long.  For that would
 *                still be carried out some day, perhaps behind a later one.
 *             K5 After a break the export must be as it was: size, block
 *                sizes, what it can do (where it is only read: what concerns
 *                reading).
 *             K6 What was given up with a connection is sent no more.  (The
 *                server may carry out still what it has received.)
 * States:     DOWN -> CONNECTING -> REPLAYING -> UP -> ENDING (K2) -> DOWN;
 *             any -> DOWN.
 *             All of them but UP are led by one of the threads that wait
 *             (is_led); it sleeps between attempts, which come after growing
 *             pauses.  When its time is over it leaves, and another one goes on
 *             from there.  While nobody wants anything, nothing is done.
 * Locking:    the link's lock (rank 48), for all of it; it is not held in poll,
 *             nor while a name is looked up.
 */
#ifndef REMAP_NBD_LINK_H
#define REMAP_NBD_LINK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd-replay.h"

/* What a server says of an export. */
struct nbd_server {
  uint64_t size_bytes;
  uint32_t min_bytes;           /* of blocks; a power of two */
  uint32_t max_bytes;           /* of one read or write */
  bool is_readonly, is_rotational;
  bool can_flush, can_fua, can_trim, can_zero, can_fast_zero, can_cache,
    can_extents, can_multi_conn;
};

enum nbd_command {
  NBD_READ, NBD_WRITE, NBD_FLUSH, NBD_ZERO, NBD_TRIM, NBD_CACHE, NBD_STATUS,
};

struct nbd_extent {
  uint32_t nr_bytes, type;      /* as "base:allocation" has them */
};

struct nbd_request {
  enum nbd_command command;
  void *buf;                    /* read into, or write from; the caller's */
  uint64_t offset, count;       /* bytes; of NBD_READ: what has been read, which
                                   may be less: the link had some of it */
  uint32_t flags;               /* LIBNBD_CMD_FLAG_... */
  struct replay_write *copy;    /* of a write or zeroing: what nbd_link_run
                                   remembers; NULL: nothing */
  struct nbd_extent *extents;   /* of NBD_STATUS; the caller's, to free */
  size_t nr_extents, max_extents;

  /* The link's. */
  struct nbd_request *next;     /* on the same connection */
  pthread_cond_t changed;
  int64_t cookie;
  uint64_t replay_end;          /* of NBD_FLUSH: what it covers */
  int err;                      /* the server's */
  bool is_answered;             /* libnbd has called back */
  bool is_done, is_broken;      /* broken: the connection has gone instead */
};

struct nbd_link;

/* Connect, in one attempt.  uri: absolute (nbd-uri.h).  timeout_s: how long
 * requests wait for a connection that has broken.  is_readonly: nothing will
 * be written, so what the server takes does not matter (K5).  NULL with the
 * error set.
 */
extern struct nbd_link *nbd_link_open (const char *uri, unsigned timeout_s,
                                       bool is_readonly);

/* What the server said when it was met first. */
extern const struct nbd_server *nbd_link_server (const struct nbd_link *link);

/* Run one command; blocks until it is answered.  Errors: what the server
 * answered; ESHUTDOWN no connection; EINVAL, ENOMEM from libnbd.  It always
 * takes request->copy.
 */
extern int nbd_link_run (struct nbd_link *link, struct nbd_request *request);

/* Bytes of writes that are remembered; a flush that succeeds makes it 0. */
extern uint64_t nbd_link_unflushed_bytes (struct nbd_link *link);

/* Nothing that was written until now is to be remembered any longer: a flush
 * has failed for good.  Should the connection break, some of it may be lost.
 * While the link is down it is kept, and is written again when it is back (N3).
 */
extern void nbd_link_forget (struct nbd_link *link);

/* Have writes that were answered been lost since the last call?  They had been
 * forgotten when the connection broke.
 */
extern bool nbd_link_has_lost (struct nbd_link *link);

/* Is some of a range (of all: count UINT64_MAX) owed: it could not be written
 * again after a break (N4)?  Each flush tries it again.
 */
extern bool nbd_link_owes (struct nbd_link *link, uint64_t count,
                           uint64_t offset);

/* What was written to a range is not wanted any more. */
extern void nbd_link_forget_range (struct nbd_link *link, uint64_t count,
                                   uint64_t offset);

/* Take leave of the server, for at most a second, and free all. */
extern void nbd_link_close (struct nbd_link *link);

/* For the tests: how many connections there are, how often they have broken,
 * and how often it was tried to connect.
 */
struct nbd_link_counts {
  unsigned nr_connections, nr_breaks, nr_attempts;
};
extern struct nbd_link_counts nbd_link_counts (struct nbd_link *link);

#endif /* REMAP_NBD_LINK_H */
