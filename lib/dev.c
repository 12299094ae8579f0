/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>

#include "dev.h"
#include "error.h"

void
dev_init (struct dev *dev, const struct dev_ops *ops)
{
  dev->ops = ops;
  dev->flush_error = 0;
  lock_init (&dev->flush_lock, RANK_DEV_FLUSH);
}

static int
flush_locked (struct dev *dev)
{
  int r = dev->ops->flush (dev);

  dev->flush_error = r == -1 ? errno : 0;
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

int
dev_flush_again (struct dev *dev)
{
  LOCK_FOR_SCOPE (&dev->flush_lock);
  return flush_locked (dev);
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
