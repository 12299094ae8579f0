/* SPDX-License-Identifier: BSD-3-Clause */
/* store-check: verify a store that no server uses, and have it repaired.
 *
 * Purpose:    beyond what a load finds: the data of every remapped sector, and
 *             every field that has to be zero.
 * Invariants: a check writes nothing.  A repair writes what store_repair does,
 *             and believes nothing of it before it has verified all again.
 */
#ifndef REMAP_STORE_CHECK_H
#define REMAP_STORE_CHECK_H

#include "dev.h"
#include "store-load.h"

/* fn is told every problem, but for STORE_NORMAL.  Returns the worst of them
 * (enum store_damage), or -1 with the error set: EBUSY (a server has it),
 * EEXIST (no store), and others.
 */
extern int store_check (const char *path, store_problem_fn *fn, void *opaque);

/* The same; then mend what can be mended, and verify it again.  fn is told what
 * was found at first, and of that once more what is there still.  Returns the
 * worst that is left; *ret_nr_repaired problems are gone.
 * Errors:    as above; EUCLEAN a later version's store; others of writing.
 */
extern int store_check_and_repair (const char *path, store_problem_fn *fn,
                                   void *opaque, uint64_t *ret_nr_repaired);

/* Both, on a dev that is open already and stays so; ret_nr_repaired NULL: do
 * not repair.  forget_cache, before each reading, may be NULL.
 */
extern int store_check_dev (struct dev *dev, const char *path,
                            int (*forget_cache) (struct dev *dev),
                            store_problem_fn *fn, void *opaque,
                            uint64_t *ret_nr_repaired);

#endif /* REMAP_STORE_CHECK_H */
