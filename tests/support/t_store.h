/* SPDX-License-Identifier: BSD-3-Clause */
/* t_store: a store that itself stands on a failing disk.
 *
 * Purpose: for tests of what happens when spares are bad and when the store
 *   cannot be flushed.  The store is made in a plain file, by a first short
 *   run of the server, and then served from there by a fault server.
 */

#ifndef REMAP_T_STORE_H
#define REMAP_T_STORE_H

#include "t_disk.h"

/* params: further parameters of the first run ("spare-size=64K"), or "".  The
 * disk that is returned is good as spare=; so far without faults, and with the
 * options of the backing.
 */
struct t_disk *t_store_on_failing_disk (const struct t_disk *backing,
                                        const char *params);

#endif /* REMAP_T_STORE_H */
