/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>

#include "dev.h"
#include "error.h"
#include "nbd-uri.h"

void
dev_init (struct dev *dev, const struct dev_ops *ops)
{
  dev->ops = ops;
  dev->flush_error = 0;
  dev->keeps_unflushed = dev->owes = false;
  lock_init (&dev->flush_lock, RANK_DEV_FLUSH);
}

static int
flush_locked (struct dev *dev)
{
  int r;

  dev->owes = false;
  r = dev->ops->flush (dev);
  if (r == 0)
    dev->flush_error = 0;
  else if (!dev->keeps_unflushed || (errno != ESHUTDOWN && !dev->owes))
    dev->flush_error = errno;
  return r;
}

int
dev_flush (struct dev *dev)
{
  LOCK_FOR_SCOPE (&dev->flush_lock);
  if (dev->flush_error)
    return set_error (dev->flush_error, "%s: an earlier flush has failed: what "
                      "was written before may not be durable",
                      dev->info.name);
  return flush_locked (dev);
}

bool
dev_flush_has_failed (struct dev *dev)
{
  LOCK_FOR_SCOPE (&dev->flush_lock);
  return dev->flush_error != 0;
}

bool
dev_flush_may_succeed (struct dev *dev, int err)
{
  LOCK_FOR_SCOPE (&dev->flush_lock);
  return dev->keeps_unflushed && (err == ESHUTDOWN || dev->owes) &&
    dev->flush_error == 0;
}

int
dev_flush_again (struct dev *dev)
{
  LOCK_FOR_SCOPE (&dev->flush_lock);
  return flush_locked (dev);
}

struct dev *
dev_open (const char *name, enum dev_direct direct, unsigned flags,
          unsigned timeout_s)
{
  if (nbd_uri_is_one (name))
    return dev_nbd_open (name, flags |
                         (direct == DEV_DIRECT_ON ? DEV_OPEN_THROUGH : 0),
                         timeout_s);
  return dev_file_open (name, direct, flags);
}

int
dev_forget_cache (struct dev *dev)
{
  return dev->info.kind == DEV_NBD ? dev_flush (dev)
    : dev_file_forget_cache (dev);
}

void
dev_close (struct dev *dev)
{
  int saved = errno;

  if (dev == NULL)
    return;
  lock_destroy (&dev->flush_lock);
  dev->ops->close (dev);
  errno = saved;
}
