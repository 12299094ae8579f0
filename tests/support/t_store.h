/* SPDX-License-Identifier: BSD-3-Clause */
/* t_store: a store that itself stands on a failing disk.
 *
 * Purpose: for tests of what happens when spares are bad and when the store
 *   cannot be flushed.  The store is made in a plain file, by a first short
 *   run of the server, and then served from there by a fault server.  Also,
 *   for those that damage one: where in the file of a store things are.
 */

#ifndef REMAP_T_STORE_H
#define REMAP_T_STORE_H

#include "store-load.h"
#include "t_disk.h"

/* params: further parameters of the first run ("spare-size=64K"), or "".  The
 * disk that is returned is good as spare=; so far without faults, and with the
 * options of the backing.
 */
struct t_disk *t_store_on_failing_disk (const struct t_disk *backing,
                                        const char *params);

/* The first superblock of a store, which must be good. */
struct store_super t_store_super (const char *path);

/* The slot with the data of this sector, by the first copy of its table. */
spare_t t_store_slot_of (const char *path, uint64_t lba);

/* Where each copy of these is in a store. */
enum t_store_part { T_STORE_SUPER, T_STORE_COMMIT, T_STORE_ENTRY };
uint64_t t_store_place (const char *path, enum t_store_part part,
                        unsigned copy, spare_t slot);

/* Change a byte of a file. */
void t_store_flip (const char *path, uint64_t offset);

#endif /* REMAP_T_STORE_H */
