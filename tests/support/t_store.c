/* SPDX-License-Identifier: BSD-3-Clause */
/* t_store: a store that itself stands on a failing disk. */

#include <config.h>

#include "t_base.h"
#include "t_server.h"
#include "t_store.h"

struct t_disk *
t_store_on_failing_disk (const struct t_disk *backing, const char *params)
{
  static unsigned counter;
  const struct t_disk_options options = {
    .image = t_path ("store-image-%u", counter++),
    .volatile_cache = backing->options.volatile_cache,
    .connections = backing->options.connections,
  };
  struct t_server *s = t_server_start ("backing=%s spare=%s control=off %s",
                                       backing->path, options.image, params);

  t_server_stop (s);
  return t_disk_new (T_DISK_FUSE, 0, &options);
}
