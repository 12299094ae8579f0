/* SPDX-License-Identifier: BSD-3-Clause */
/* model-world: a disk, its store, its server and its faults, all by a seed.
 *
 * Purpose:  what kind of a disk it is, how large, with which faults, what is
 *           asked of it and how its server ends: each is a function of the seed
 *           and of how often it was asked for.
 * Faults:   each change of the faults below is told to the oracle.
 * Locking:  none: of one thread.
 */

#ifndef REMAP_MODEL_WORLD_H
#define REMAP_MODEL_WORLD_H

#include "model-oracle.h"
#include "t_disk.h"
#include "t_server.h"

enum { MODEL_MOST_FAULTS = 14, MODEL_NR_ZONES = 5 };

/* splitmix64 */
struct model_random {
  uint64_t state;
};

/* A number below n. */
uint64_t model_random_below (struct model_random *r, uint64_t n);
bool model_random_percent (struct model_random *r, unsigned percent);

struct model_world {
  uint64_t seed;
  /* One for each, so that time, which decides how far one gets, does not
   * change what another does.
   */
  struct model_random requests, fault_dice, ends;
  enum t_disk_kind kind;
  struct model_traits traits;
  unsigned physical_bytes, retries;
  uint64_t nr_spares;
  bool direct_off, store_fails, flush_fails;
  unsigned nr_connections, depth, nr_sessions, steps_per_session;
  unsigned fault_every;         /* steps from one change to the next */
  uint64_t zones[MODEL_NR_ZONES], zone_bytes;   /* where much happens */
  uint32_t gen;                 /* of the latest write */

  struct t_disk *disk, *store;  /* store: NULL if it does not fail */
  const char *store_path;
  struct t_server *server;
  struct model_oracle *oracle;
  struct model_fault faults[MODEL_MOST_FAULTS];
  size_t nr_faults;
  struct model_fault store_faults[MODEL_MOST_FAULTS];
  size_t nr_store_faults;
  uint64_t store_data;          /* byte offset of the first spare */

  uint64_t nr_faults_made;
};

/* kinds: which can be had.  connections: 0, or how many instead of some. */
struct model_world *model_world_new (uint64_t seed, bool has_loops,
                                     unsigned connections);

/* The server must have been stopped. */
void model_world_free (struct model_world *w);

/* Its kind, in words. */
const char *model_world_describe (const struct model_world *w);

/* A fault appears, or some vanish. */
void model_world_change_faults (struct model_world *w);

/* None is left; or none but those of the medium. */
void model_world_clear_faults (struct model_world *w);
void model_world_calm_faults (struct model_world *w);

/* The whole disk fails so (FAULT_...), or 0: does not.  There must be no other
 * faults, and the oracle is not told.
 */
void model_world_fail_disk (struct model_world *w, unsigned ops);

/* The faults in force, for messages. */
const char *model_world_describe_faults (const struct model_world *w);

/* The next request. */
void model_world_next_request (struct model_world *w,
                               struct model_request *r);

/* Start the server again, with other parameters at times. */
void model_world_restart (struct model_world *w);

#endif /* REMAP_MODEL_WORLD_H */
