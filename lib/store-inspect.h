/* SPDX-License-Identifier: BSD-3-Clause */
/* store-inspect: look at a store that no server uses, without changing it. */
#ifndef REMAP_STORE_INSPECT_H
#define REMAP_STORE_INSPECT_H

#include "sector.h"
#include "status.h"
#include "store-load.h"

struct store_view;

/* NULL with the error set: ENOENT, EBUSY (a server has it), EUCLEAN, EINVAL
 * (no store).
 */
extern struct store_view *store_view_open (const char *path);
extern void store_view_close (struct store_view *view);
extern void store_view_get_status (const struct store_view *view,
                                   struct status *ret);
/* As control_source.next_run. */
extern int store_view_next_run (const struct store_view *view, lba_t from,
                                struct sector_run *ret);

#endif /* REMAP_STORE_INSPECT_H */
