/* SPDX-License-Identifier: BSD-3-Clause */
/* remap: the nbdkit plugin.  It translates, and decides nothing: nbdkit's
 * callbacks to libremap, and libremap's errors to what NBD can carry.
 */
#include <config.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "params.h"
#include "remap.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* -D remap.io=1: requests that went wrong, and what was done about them.
 * -D remap.request=1: every request.
 */
NBDKIT_DLL_PUBLIC int remap_debug_io = 0;
NBDKIT_DLL_PUBLIC int remap_debug_request = 0;

static struct remap_disk *disk;

/* Errors that NBD has a number for go as they are; nbdkit would turn others
 * into EINVAL, but they are failures of the disk.  The true one is in the text.
 */
static int
nbd_errno (int err)
{
  switch (err) {
  case EPERM: case EIO: case ENOMEM: case EINVAL: case ENOSPC:
  case EOVERFLOW: case EOPNOTSUPP: case ESHUTDOWN: case EROFS:
    return err;
  default:
    return EIO;
  }
}

static int
failed (void)
{
  int err = nbd_errno (remap_errno ());

  nbdkit_error ("%s", remap_error ());
  nbdkit_set_error (err);
  errno = err;
  return -1;
}

/* The same for what clients cause by the thousand on a bad disk: libremap logs
 * what matters, in measure.
 */
static int
request_failed (void)
{
  int err = nbd_errno (remap_errno ());

  if (remap_debug_io)
    nbdkit_debug ("%s", remap_error ());
  nbdkit_set_error (err);
  errno = err;
  return -1;
}

static int
answer (int r)
{
  return r == 0 ? 0 : request_failed ();
}

static void
log_message (int level, const char *message)
{
  if (level == REMAP_LOG_ERROR)
    nbdkit_error ("%s", message);
  else if (level == REMAP_LOG_WARNING)
    nbdkit_error ("warning: %s", message);
  else if (level == REMAP_LOG_INFO || remap_debug_io)
    nbdkit_debug ("%s", message);
}

static unsigned
remap_flags (uint32_t flags)
{
  return (flags & NBDKIT_FLAG_FUA ? REMAP_FLAG_FUA : 0) |
    (flags & NBDKIT_FLAG_MAY_TRIM ? REMAP_FLAG_MAY_TRIM : 0) |
    (flags & NBDKIT_FLAG_FAST_ZERO ? REMAP_FLAG_FAST : 0);
}

/* The server. */

static void
plugin_load (void)
{
  remap_set_log (log_message);
  params_load ();
}

static int
plugin_get_ready (void)
{
  disk = remap_open (&params);
  return disk ? 0 : failed ();
}

static int
plugin_after_fork (void)
{
  return remap_start (disk) == 0 ? 0 : failed ();
}

static void
plugin_cleanup (void)
{
  remap_close (disk);
  disk = NULL;
}

/* nbdkit skips .cleanup where it fails between .get_ready and serving. */
static void
plugin_unload (void)
{
  plugin_cleanup ();
  remap_set_log (NULL);
  params_unload ();
}

static void
plugin_dump (void)
{
  printf ("remap_version=%s\n", PACKAGE_VERSION);
  printf ("remap_store_version=1\n");
}

/* Connections: all share the disk. */

static void *
plugin_open (int readonly)
{
  (void) readonly;
  return disk;
}

static const char *
plugin_export_description (void *handle)
{
  return nbdkit_printf_intern ("%s, with bad sectors remapped",
                               remap_backing (handle));
}

static int64_t
plugin_get_size (void *handle)
{
  return (int64_t) remap_size (handle);
}

static int
plugin_block_size (void *handle, uint32_t *minimum, uint32_t *preferred,
                   uint32_t *maximum)
{
  *minimum = 1;
  *preferred = remap_physical_size (handle);
  *maximum = 32 << 20;
  return 0;
}

static int
plugin_can_write (void *handle)
{
  return !remap_is_readonly (handle);
}

static int
plugin_is_rotational (void *handle)
{
  return remap_is_rotational (handle);
}

static int
plugin_can_extents (void *handle)
{
  return remap_can_extents (handle);
}

static int
plugin_can_cache (void *handle)
{
  return remap_can_cache (handle) ? NBDKIT_CACHE_NATIVE : NBDKIT_CACHE_NONE;
}

static int
plugin_can_fua (void *handle)
{
  (void) handle;
  return NBDKIT_FUA_NATIVE;
}

/* A flush covers what any connection has written. */
static int
plugin_can_multi_conn (void *handle)
{
  (void) handle;
  return 1;
}

static int
plugin_yes (void *handle)
{
  (void) handle;
  return 1;
}

/* Requests. */

#define DEBUG_REQUEST(what, count, offset)                                    \
  do {                                                                        \
    if (remap_debug_request)                                                  \
      nbdkit_debug ("%s %llu bytes at %llu", what,                            \
                    (unsigned long long) (count),                             \
                    (unsigned long long) (offset));                           \
  } while (0)

static int
plugin_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
              uint32_t flags)
{
  (void) flags;
  DEBUG_REQUEST ("read", count, offset);
  return answer (remap_pread (handle, buf, count, offset));
}

static int
plugin_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
               uint32_t flags)
{
  DEBUG_REQUEST ("write", count, offset);
  return answer (remap_pwrite (handle, buf, count, offset,
                               remap_flags (flags)));
}

static int
plugin_flush (void *handle, uint32_t flags)
{
  (void) flags;
  DEBUG_REQUEST ("flush", 0, 0);
  return answer (remap_flush (handle));
}

static int
plugin_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  DEBUG_REQUEST ("zero", count, offset);
  return answer (remap_zero (handle, count, offset, remap_flags (flags)));
}

static int
plugin_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  DEBUG_REQUEST ("trim", count, offset);
  return answer (remap_trim (handle, count, offset, remap_flags (flags)));
}

static int
plugin_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  (void) flags;
  DEBUG_REQUEST ("cache", count, offset);
  return answer (remap_cache (handle, count, offset));
}

/* One extent is enough for a client that asks for one. */
struct extents_call {
  struct nbdkit_extents *extents;
  bool wants_one, has_enough;
};

static int
add_extent (void *opaque, uint64_t offset, uint64_t count, unsigned type)
{
  struct extents_call *call = opaque;
  uint32_t nbd_type = (type & REMAP_EXTENT_HOLE ? NBDKIT_EXTENT_HOLE : 0) |
    (type & REMAP_EXTENT_ZERO ? NBDKIT_EXTENT_ZERO : 0);

  if (nbdkit_add_extent (call->extents, offset, count, nbd_type) == -1)
    return -1;
  call->has_enough = call->wants_one;
  return call->has_enough;
}

static int
plugin_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                struct nbdkit_extents *extents)
{
  struct extents_call call = {
    .extents = extents, .wants_one = (flags & NBDKIT_FLAG_REQ_ONE) != 0,
  };
  int r;

  DEBUG_REQUEST ("extents", count, offset);
  r = remap_extents (handle, count, offset, add_extent, &call);
  return call.has_enough ? 0 : answer (r);
}

static struct nbdkit_plugin plugin = {
  .name = "remap",
  .longname = "nbdkit remap plugin",
  .version = PACKAGE_VERSION,
  .description = "Keeps a failing disk in service: bad sectors are remapped "
                 "the moment they are met.",
  .magic_config_key = "backing",
  .config_help = params_help,
  .load = plugin_load,
  .unload = plugin_unload,
  .dump_plugin = plugin_dump,
  .config = params_set,
  .config_complete = params_complete,
  .get_ready = plugin_get_ready,
  .after_fork = plugin_after_fork,
  .cleanup = plugin_cleanup,
  .open = plugin_open,
  .export_description = plugin_export_description,
  .get_size = plugin_get_size,
  .block_size = plugin_block_size,
  .can_write = plugin_can_write,
  .can_flush = plugin_yes,
  .is_rotational = plugin_is_rotational,
  .can_trim = plugin_yes,
  .can_zero = plugin_yes,
  .can_fast_zero = plugin_yes,
  .can_extents = plugin_can_extents,
  .can_cache = plugin_can_cache,
  .can_fua = plugin_can_fua,
  .can_multi_conn = plugin_can_multi_conn,
  .pread = plugin_pread,
  .pwrite = plugin_pwrite,
  .flush = plugin_flush,
  .zero = plugin_zero,
  .trim = plugin_trim,
  .extents = plugin_extents,
  .cache = plugin_cache,
};

NBDKIT_REGISTER_PLUGIN (plugin)
