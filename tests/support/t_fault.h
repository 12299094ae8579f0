/* SPDX-License-Identifier: BSD-3-Clause */
/* t_fault: a server that plays a failing disk (support/fault-plugin.c).
 *
 * Purpose: starts it, changes its faults, and reads its log of what reached
 *   it.  Most tests use it through t_disk.
 */

#ifndef REMAP_T_FAULT_H
#define REMAP_T_FAULT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct t_fault_options {
  const char *faults;           /* text of the control file to begin with */
  bool volatile_cache;          /* a power cut loses what was not flushed */
  const char *before;           /* words before "nbdkit" */
  const char *nbdkit;           /* options of nbdkit */
  const char *params;           /* of the plugin and of filters */
  const char *address;          /* of TCP; NULL: a Unix socket */
  unsigned port;
};

struct t_fault {
  struct t_fault_options options;
  char *uri;                    /* for libnbd and for remap */
  char *socket;
  char *image;
  char *faults;                 /* the control file */
  char *log;
  char *journal;                /* NULL: the disk has no volatile cache */
  pid_t pid;
  long mark;                    /* where in the log counting begins */
};

/* One line of the log: see fault-plugin.c. */
struct t_fault_request {
  char op;                      /* r, w, z, t, f; d */
  uint64_t offset, count;
  bool failed, fua;
};

/* Serve the image.  faults: text of the control file to begin with, or NULL.
 * volatile_cache: a power cut loses what was not flushed.
 */
struct t_fault *t_fault_start (const char *image, const char *faults,
                               bool volatile_cache);
struct t_fault *t_fault_start_with (const char *image,
                                    const struct t_fault_options *options);
void t_fault_stop (struct t_fault *f);

/* kill -9; start it again, with the same faults, at the same place.  Between
 * them, what was not flushed may be lost as in a power cut.
 */
void t_fault_kill (struct t_fault *f);
void t_fault_lose_cache (struct t_fault *f, unsigned seed);
void t_fault_restart (struct t_fault *f);

/* Stop answering; and then die.  The image is as a power cut may leave it: of
 * each write since the last flush, seed decides whether it is lost, there, or
 * there in part (whole sectors).  Seed 0 loses all of them.
 */
void t_fault_freeze (struct t_fault *f);
void t_fault_cut_power (struct t_fault *f, unsigned seed);

/* Have these faults, instead of all before, for every request that begins
 * after this call.  "" is a disk as good as new.
 */
void t_fault_set (struct t_fault *f, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));

/* Count from here on. */
void t_fault_mark (struct t_fault *f);

/* Call visit for every request since the mark, in the order of completion. */
void t_fault_visit (struct t_fault *f,
                    void (*visit) (const struct t_fault_request *r, void *arg),
                    void *arg);

/* How many requests of these kinds (a string of op letters) touched this
 * sector of 512 bytes since the mark?
 */
unsigned t_fault_touches (struct t_fault *f, const char *ops, uint64_t lba);

/* How many of these kinds were there, anywhere; how many of them failed? */
unsigned t_fault_requests (struct t_fault *f, const char *ops);
unsigned t_fault_failures (struct t_fault *f, const char *ops);

#endif /* REMAP_T_FAULT_H */
