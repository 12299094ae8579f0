/* SPDX-License-Identifier: BSD-3-Clause */
/* store-dump: print all that is in a store, for a bug report.
 *
 * Purpose:    to show what is there, and not what it should be: also of a store
 *             that is damaged, that no load would take, or that changes while
 *             it is read.  No data of sectors is shown.
 * Invariants: takes no lock, writes nothing; needs the same memory for every
 *             store; believes no field before it has looked at it.
 */
#ifndef REMAP_STORE_DUMP_H
#define REMAP_STORE_DUMP_H

#include <stdbool.h>

typedef void store_dump_fn (void *opaque, const char *line);

/* fn is told line after line, of text or of one JSON object.
 * Errors:    EEXIST it is no store; others of opening it.
 */
extern int store_dump (const char *path, bool json, store_dump_fn *fn,
                       void *opaque);

#endif /* REMAP_STORE_DUMP_H */
