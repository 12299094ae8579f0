/* SPDX-License-Identifier: BSD-3-Clause */
/* gate: calls of a dev-fault are stopped halfway, as by a disk that sits on
 * them.
 *
 * Locking:    any thread, but gate_close only where no call is under way.
 */
#ifndef REMAP_GATE_H
#define REMAP_GATE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dev-fault.h"

struct gate {
  struct dev_fault *disk;
  unsigned kinds;               /* of calls (DEV_FAULT_PREAD, ...) */
  bool is_done;                 /* stopped after they were carried out, else
                                   before */
  uint64_t first_byte, end_byte;        /* that touch these bytes */
  unsigned nth;                 /* the first one to be stopped: 1, 2, ... */
  unsigned nr_to_stop;

  /* gate.c's: */
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool is_open;
  unsigned nr_met, nr_inside;   /* nr_inside: stopped now */
};

/* From now on.  It is the hook of the disk. */
extern void gate_close (struct gate *gate);

/* Wait until so many calls stand before it. */
extern void gate_wait (struct gate *gate, unsigned nr);

/* Let all go on, and stop no other. */
extern void gate_open (struct gate *gate);

/* A read or write of a rig, on a thread of its own. */
struct gate_client {
  struct fault_rig *rig;
  uint64_t lba, nr, version;
  bool writes;
  int (*fn) (void);             /* or this */
  int r, err;                   /* how it ended */
  pthread_t thread;
};
extern void gate_client_start (struct gate_client *client);
extern void gate_client_join (struct gate_client *client);

#endif /* REMAP_GATE_H */
