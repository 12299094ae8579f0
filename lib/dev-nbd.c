/* SPDX-License-Identifier: BSD-3-Clause */
/* dev-nbd: an export of an NBD server.
 *
 * Purpose:    requests of any size at any byte, over a link (nbd-link.h) whose
 *             server has smallest and largest blocks.
 * Flushes:    what is not durable is remembered (at most UNFLUSHED_BYTES, then
 *             a write flushes first) and written again where the connection
 *             breaks.  So a flush that fails for want of a connection has lost
 *             nothing, and another one may succeed; nor has one that fails
 *             because something is owed.  What the server fails stays failed
 *             (dev_flush).
 * Locking:    parts (rank 44) around the read and the write of a block of which
 *             a part is written.  Whoever writes it whole is the only one who
 *             writes it.
 */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "checked.h"
#include "cleanup.h"
#include "dev.h"
#include "error.h"
#include "log.h"
#include "nbd-link.h"
#include "nbd-uri.h"

#define SECTOR_MIN 512
#define UNFLUSHED_BYTES (UINT64_C (64) << 20)

/* Of requests without data: what 32 bits hold, in whole blocks of any size. */
#define COUNT_MAX (UINT64_C (0xffffffff) & ~UINT64_C (0xffff))

/* Of what is written again: that it is done matters, not how fast. */
#define NOT_REMEMBERED \
  ((uint32_t) LIBNBD_CMD_FLAG_FUA | (uint32_t) LIBNBD_CMD_FLAG_FAST_ZERO)

struct dev_nbd {
  struct dev dev;
  struct nbd_link *link;
  const struct nbd_server *server;
  bool writes_through;          /* with FUA, whether asked for or not */
  struct lock parts;            /* rank 44 */
};

static struct dev_nbd *
dev_nbd_of (struct dev *dev)
{
  return (struct dev_nbd *) dev;
}

/* In whole blocks, or up to the end of the disk? */
static bool
is_whole (const struct dev_nbd *d, uint64_t count, uint64_t offset)
{
  return is_aligned (offset, d->server->min_bytes) &&
    (is_aligned (count, d->server->min_bytes) ||
     offset + count == d->server->size_bytes);
}

/* The blocks that a range touches, as far as they are there. */
static void
round_out (const struct dev_nbd *d, uint64_t *count, uint64_t *offset)
{
  uint64_t end = MIN (round_up (*offset + *count, d->server->min_bytes),
                      d->server->size_bytes);

  *offset = round_down (*offset, d->server->min_bytes);
  *count = end - *offset;
}

/* Read. */

static int
read_whole (struct dev_nbd *d, uint8_t *buf, uint64_t count, uint64_t offset)
{
  while (count > 0) {
    uint64_t n = MIN (count, (uint64_t) d->server->max_bytes);
    struct nbd_request r = {
      .command = NBD_READ, .buf = buf, .count = n, .offset = offset,
    };

    if (nbd_link_run (d->link, &r) == -1)
      return -1;
    buf += r.count;
    count -= r.count;
    offset += r.count;
  }
  return 0;
}

static int
export_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
              unsigned flags)
{
  struct dev_nbd *d = dev_nbd_of (dev);
  uint64_t begin = offset, n = count;
  CLEANUP_FREE uint8_t *bounce = NULL;

  (void) flags;
  if (is_whole (d, count, offset))
    return read_whole (d, buf, count, offset);
  round_out (d, &n, &begin);
  bounce = malloc (n);
  if (bounce == NULL)
    return set_error (ENOMEM, "%s: no memory to read %llu bytes",
                      dev->info.name, (unsigned long long) n);
  if (read_whole (d, bounce, n, begin) == -1)
    return -1;
  memcpy (buf, bounce + (offset - begin), count);
  return 0;
}

/* Write. */

/* No more may be remembered than that.  -1: no connection; where the server
 * fails the flush, that is told by every later one, and nothing is remembered
 * any longer.
 */
static int
make_room (struct dev_nbd *d, uint64_t count)
{
  if (nbd_link_unflushed_bytes (d->link) + count <= UNFLUSHED_BYTES ||
      dev_flush (&d->dev) == 0)
    return 0;
  if (errno == ESHUTDOWN)
    return -1;
  if (dev_flush_may_succeed (&d->dev, errno))
    return 0;                   /* what is not owed is durable now */
  nbd_link_forget (d->link);
  return 0;
}

static bool
has_fua (const struct dev_nbd *d, unsigned flags)
{
  return d->server->can_fua && (flags & DEV_FUA || d->writes_through);
}

/* A write or zeroing that is not longer than the server allows. */
static int
change (struct dev_nbd *d, enum nbd_command command, const uint8_t *buf,
        uint64_t count, uint64_t offset, uint32_t flags)
{
  struct nbd_request r = {
    .command = command, .buf = (void *) (uintptr_t) buf, .count = count,
    .offset = offset, .flags = flags,
  };

  if (d->server->can_flush) {
    if (make_room (d, command == NBD_WRITE ? count : 0) == -1)
      return -1;
    r.copy = replay_write_new (command == NBD_WRITE ? buf : NULL, count,
                               offset, flags & ~NOT_REMEMBERED);
    if (r.copy == NULL)
      return set_error (ENOMEM, "%s: no memory to write %llu bytes",
                        d->dev.info.name, (unsigned long long) count);
  }
  return nbd_link_run (d->link, &r);
}

/* FUA of a server that has none. */
static int
finish (struct dev_nbd *d, unsigned flags)
{
  bool wanted = flags & DEV_FUA || d->writes_through;

  return wanted && !d->server->can_fua ? dev_flush (&d->dev) : 0;
}

static int
write_whole (struct dev_nbd *d, const uint8_t *buf, uint64_t count,
             uint64_t offset, unsigned flags)
{
  uint32_t nbd_flags = has_fua (d, flags) ? LIBNBD_CMD_FLAG_FUA : 0;

  while (count > 0) {
    uint64_t n = MIN (count, (uint64_t) d->server->max_bytes);

    if (change (d, NBD_WRITE, buf, n, offset, nbd_flags) == -1)
      return -1;
    buf += n;
    count -= n;
    offset += n;
  }
  return 0;
}

/* Parts of blocks: the first and the last are read before. */
static int
write_parts_locked (struct dev_nbd *d, const uint8_t *buf, uint64_t count,
                    uint64_t offset, unsigned flags)
{
  uint64_t begin = offset, n = count;
  uint64_t first, last;
  CLEANUP_FREE uint8_t *bounce = NULL;

  round_out (d, &n, &begin);
  bounce = malloc (n);
  if (bounce == NULL)
    return set_error (ENOMEM, "%s: no memory to write %llu bytes",
                      d->dev.info.name, (unsigned long long) n);
  first = MIN (n, (uint64_t) d->server->min_bytes);
  last = round_down (n - 1, d->server->min_bytes);
  if (read_whole (d, bounce, first, begin) == -1 ||
      (last > 0 && read_whole (d, bounce + last, n - last, begin + last) == -1))
    return -1;
  memcpy (bounce + (offset - begin), buf, count);
  return write_whole (d, bounce, n, begin, flags);
}

static int
export_pwrite (struct dev *dev, const void *buf, size_t count,
               uint64_t offset, unsigned flags)
{
  struct dev_nbd *d = dev_nbd_of (dev);
  int r;

  if (is_whole (d, count, offset))
    r = write_whole (d, buf, count, offset, flags);
  else {
    LOCK_FOR_SCOPE (&d->parts);
    r = write_parts_locked (d, buf, count, offset, flags);
  }
  return r == 0 ? finish (d, flags) : -1;
}

/* Flush. */

static int
export_flush (struct dev *dev)
{
  struct dev_nbd *d = dev_nbd_of (dev);
  struct nbd_request r = { .command = NBD_FLUSH };

  if (!d->server->can_flush)
    return 0;
  if (nbd_link_run (d->link, &r) == -1)
    return -1;
  if (nbd_link_has_lost (d->link))
    return set_error (EIO, "%s: flush: some of what was written before the "
                      "connection was lost is lost", dev->info.name);
  dev->owes = nbd_link_owes (d->link, UINT64_MAX, 0);
  if (dev->owes)
    return set_error (EIO, "%s: flush: some of what was written before the "
                      "connection was lost cannot be written again yet",
                      dev->info.name);
  return 0;
}

/* Zero, trim, cache. */

static int
not_supported (const struct dev *dev, const char *what)
{
  return set_error (EOPNOTSUPP, "%s: %s: not supported", dev->info.name, what);
}

static int
export_zero (struct dev *dev, uint64_t count, uint64_t offset,
             unsigned flags)
{
  struct dev_nbd *d = dev_nbd_of (dev);
  uint32_t nbd_flags = (has_fua (d, 0) ? LIBNBD_CMD_FLAG_FUA : 0) |
    (flags & DEV_MAY_TRIM ? 0 : LIBNBD_CMD_FLAG_NO_HOLE) |
    (flags & DEV_FAST ? LIBNBD_CMD_FLAG_FAST_ZERO : 0);

  if (!d->server->can_zero ||
      (flags & DEV_FAST && !d->server->can_fast_zero) ||
      !is_whole (d, count, offset))
    return not_supported (dev, "zero");
  while (count > 0) {
    uint64_t n = MIN (count, COUNT_MAX);

    if (change (d, NBD_ZERO, NULL, n, offset, nbd_flags) == -1)
      return -1;
    count -= n;
    offset += n;
  }
  return finish (d, 0);
}

/* A trim is not remembered: nobody is promised what is there then. */
static int
export_trim (struct dev *dev, uint64_t count, uint64_t offset,
             unsigned flags)
{
  struct dev_nbd *d = dev_nbd_of (dev);

  (void) flags;
  if (!d->server->can_trim || !is_whole (d, count, offset))
    return not_supported (dev, "trim");
  while (count > 0) {
    uint64_t n = MIN (count, COUNT_MAX);
    struct nbd_request r = {
      .command = NBD_TRIM, .count = n, .offset = offset,
    };

    if (nbd_link_run (d->link, &r) == -1)
      return -1;
    count -= n;
    offset += n;
  }
  return 0;
}

static int
export_cache (struct dev *dev, uint64_t count, uint64_t offset)
{
  struct dev_nbd *d = dev_nbd_of (dev);

  if (!d->server->can_cache)
    return not_supported (dev, "cache");
  round_out (d, &count, &offset);
  while (count > 0) {
    uint64_t n = MIN (count, COUNT_MAX);
    struct nbd_request r = {
      .command = NBD_CACHE, .count = n, .offset = offset,
    };

    if (nbd_link_run (d->link, &r) == -1)
      return -1;
    count -= n;
    offset += n;
  }
  return 0;
}

/* Block status. */

/* Tell fn of what the server said, from *offset up to end. */
static int
tell_extents (const struct nbd_request *r, uint64_t *offset, uint64_t end,
              dev_extents_fn *fn, void *opaque)
{
  uint64_t at = r->offset;

  for (size_t i = 0; i < r->nr_extents && *offset < end; i++) {
    uint64_t stop = MIN (at + r->extents[i].nr_bytes, end);
    uint32_t type = r->extents[i].type;

    at += r->extents[i].nr_bytes;
    if (stop <= *offset)
      continue;                 /* before what was asked for */
    if (fn (opaque, *offset, stop - *offset,
            (type & LIBNBD_STATE_HOLE ? DEV_EXTENT_HOLE : 0) |
            (type & LIBNBD_STATE_ZERO ? DEV_EXTENT_ZERO : 0)) != 0)
      return -1;
    *offset = stop;
  }
  return 0;
}

static int
export_extents (struct dev *dev, uint64_t count, uint64_t offset,
                dev_extents_fn *fn, void *opaque)
{
  struct dev_nbd *d = dev_nbd_of (dev);
  const uint64_t end = offset + count;

  if (!d->server->can_extents)
    return not_supported (dev, "block status");
  while (offset < end) {
    const uint64_t before = offset;
    struct nbd_request r = {
      .command = NBD_STATUS, .offset = offset, .count = end - offset,
    };
    int result;

    if (nbd_link_owes (d->link, count, end - count))
      return fn (opaque, offset, end - offset, 0) == 0 ? 0 : -1;
    round_out (d, &r.count, &r.offset);
    r.count = MIN (r.count, COUNT_MAX);
    result = nbd_link_run (d->link, &r);
    if (result == 0 && nbd_link_owes (d->link, count, end - count)) {
      free (r.extents);         /* it may have been sent again */
      continue;
    }
    if (result == 0)
      result = tell_extents (&r, &offset, end, fn, opaque);
    free (r.extents);
    if (result == -1)
      return -1;
    if (offset == before)
      return set_error (EPROTO, "%s: an answer that makes no sense to block "
                        "status at %llu", dev->info.name,
                        (unsigned long long) offset);
  }
  return 0;
}

static void
export_forget_range (struct dev *dev, uint64_t count, uint64_t offset)
{
  nbd_link_forget_range (dev_nbd_of (dev)->link, count, offset);
}

static int
export_resize (struct dev *dev, uint64_t size_bytes)
{
  (void) size_bytes;
  return set_error (EOPNOTSUPP, "%s: an NBD export cannot be resized",
                    dev->info.name);
}

static void
export_close (struct dev *dev)
{
  struct dev_nbd *d = dev_nbd_of (dev);

  if (d->link)
    nbd_link_close (d->link);
  lock_destroy (&d->parts);
  free (d);
}

static uint64_t
export_outages (struct dev *dev)
{
  struct nbd_link_counts counts = nbd_link_counts (dev_nbd_of (dev)->link);

  return 2 * (uint64_t) counts.nr_breaks + (counts.nr_connections == 0);
}

static const struct dev_ops export_ops = {
  .pread = export_pread,
  .pwrite = export_pwrite,
  .flush = export_flush,
  .zero = export_zero,
  .trim = export_trim,
  .extents = export_extents,
  .cache = export_cache,
  .forget_range = export_forget_range,
  .resize = export_resize,
  .outages = export_outages,
  .close = export_close,
};

/* Open. */

static int
describe (struct dev_nbd *d, unsigned flags)
{
  struct dev_info *info = &d->dev.info;
  const struct nbd_server *server = d->server;
  bool readonly = flags & DEV_OPEN_READONLY;

  if (server->is_readonly && !readonly)
    return set_error (EROFS, "%s is read-only", info->name);
  d->writes_through = !readonly && (flags & DEV_OPEN_THROUGH ||
                                    (server->can_fua && !server->can_flush));
  if (flags & DEV_OPEN_THROUGH && !server->can_fua && !server->can_flush)
    return set_error (EINVAL, "%s: its server has neither FUA nor flush: use "
                      "direct=auto or direct=off", info->name);
  if (!readonly && !server->can_fua && !server->can_flush)
    log_message (LEVEL_WARNING, "%s: its server has no flush: what is written "
                 "may be lost with its power", info->name);
  info->kind = DEV_NBD;
  info->size_bytes = server->size_bytes;
  info->sector_bytes = info->physical_bytes =
    MAX (server->min_bytes, (uint32_t) SECTOR_MIN);
  info->readonly = readonly;
  info->direct = d->writes_through;
  info->rotational = server->is_rotational;
  info->can_zero = !readonly && server->can_zero;
  info->can_trim = !readonly && server->can_trim;
  info->can_extents = server->can_extents;
  info->can_cache = server->can_cache;
  d->dev.keeps_unflushed = true;
  return 0;
}

struct dev *
dev_nbd_open (const char *uri, unsigned flags, unsigned timeout_s)
{
  CLEANUP_FREE char *absolute = nbd_uri_absolute (uri);
  struct dev_nbd *d = absolute ? calloc (1, sizeof *d) : NULL;

  if (d == NULL) {
    if (absolute)
      set_error (ENOMEM, "no memory to open %s", uri);
    return NULL;
  }
  if (strlen (absolute) >= sizeof d->dev.info.name) {
    free (d);
    set_error (ENAMETOOLONG, "%s: an NBD URI has at most %zu bytes", absolute,
               sizeof ((struct dev *) NULL)->info.name - 1);
    return NULL;
  }
  dev_init (&d->dev, &export_ops);
  lock_init (&d->parts, RANK_DEV_PARTS);
  snprintf (d->dev.info.name, sizeof d->dev.info.name, "%s", absolute);
  d->link = nbd_link_open (absolute, timeout_s, flags & DEV_OPEN_READONLY);
  if (d->link) {
    d->server = nbd_link_server (d->link);
    if (describe (d, flags) == 0)
      return &d->dev;
  }
  dev_close (&d->dev);
  return NULL;
}

struct nbd_link *
dev_nbd_link (struct dev *dev)
{
  return dev_nbd_of (dev)->link;
}
