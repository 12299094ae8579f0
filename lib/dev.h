/* SPDX-License-Identifier: BSD-3-Clause */
/* dev: what a backing or a store can do.
 *
 * Purpose:    one interface over files, block devices, exports of NBD servers,
 *             and (in the tests) a device that fails.  EINTR, short transfers and the alignment of
 *             buffers for direct I/O end here.
 * Errors:     0, or -1 with errno and the thread's error text set.  A failed
 *             transfer says nothing of how much was done.
 * Locking:    every operation may be called from any number of threads.
 */
#ifndef REMAP_DEV_H
#define REMAP_DEV_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lock.h"

/* Flags of pwrite, zero and trim. */
#define DEV_FUA (1u << 0)       /* durable before the call returns */
#define DEV_MAY_TRIM (1u << 1)  /* zero: a hole will do */
#define DEV_FAST (1u << 2)      /* zero: fail with EOPNOTSUPP rather than be
                                   as slow as writing */
#define DEV_BUFFERED (1u << 3)  /* pread, pwrite: through the page cache, at
                                   any byte (metadata of a store) */
#define DEV_UNCACHED (1u << 4)  /* pread: from the medium, not from the page
                                   cache, where that can be had */

enum dev_kind { DEV_FILE = 1, DEV_BLOCK = 2, DEV_NBD = 3 };

struct dev_info {
  uint64_t size_bytes;
  uint32_t sector_bytes;        /* smallest unit that fails and is written */
  uint32_t physical_bytes;      /* >= sector_bytes: what fails as one */
  enum dev_kind kind;
  bool readonly;
  bool direct;                  /* pwrite reports the medium's own answer */
  bool rotational;
  bool can_zero, can_trim, can_extents, can_cache;
  char name[256];               /* for messages */
};

/* A stretch of the device, told in ascending order.  Not 0: enough. */
#define DEV_EXTENT_HOLE (1u << 0)
#define DEV_EXTENT_ZERO (1u << 1)
typedef int dev_extents_fn (void *opaque, uint64_t offset_bytes,
                            uint64_t nr_bytes, unsigned type);

struct dev;

struct dev_ops {
  int (*pread) (struct dev *dev, void *buf, size_t count, uint64_t offset,
                unsigned flags);
  /* Without DEV_BUFFERED offset and count are whole sectors, or end where
   * the device ends.
   */
  int (*pwrite) (struct dev *dev, const void *buf, size_t count,
                 uint64_t offset, unsigned flags);
  int (*flush) (struct dev *dev);       /* through dev_flush */
  /* zero and trim know nothing of DEV_FUA, and fail with EOPNOTSUPP where the device cannot; nothing is
   * changed then.
   */
  int (*zero) (struct dev *dev, uint64_t count, uint64_t offset,
               unsigned flags);
  int (*trim) (struct dev *dev, uint64_t count, uint64_t offset,
               unsigned flags);
  int (*extents) (struct dev *dev, uint64_t count, uint64_t offset,
                  dev_extents_fn *fn, void *opaque);
  int (*cache) (struct dev *dev, uint64_t count, uint64_t offset);
  /* Make the device size_bytes long; EOPNOTSUPP where it cannot grow. */
  int (*resize) (struct dev *dev, uint64_t size_bytes);
  /* A number that is another one whenever the way to the device was cut, and odd
   * while it is; NULL: that does not happen.
   */
  uint64_t (*outages) (struct dev *dev);
  /* What was written to a range is not wanted any more: it is read from
   * elsewhere.  NULL: that does not matter.
   */
  void (*forget_range) (struct dev *dev, uint64_t count, uint64_t offset);
  void (*close) (struct dev *dev);
};

struct dev {
  const struct dev_ops *ops;
  struct dev_info info;
  bool keeps_unflushed;         /* a flush that fails with ESHUTDOWN, or while
                                   it owes something, has lost nothing: another
                                   one may succeed */
  struct lock flush_lock;       /* rank 45: */
  bool owes;                    /* ops->flush sets it */
  int flush_error;              /* of the first flush that failed, or 0 */
};

/* For whoever implements a dev. */
extern void dev_init (struct dev *dev, const struct dev_ops *ops);

/* Make durable all that was written before.  Once it has failed it fails for
 * ever: the kernel tells of lost writes once, and takes them for written then.
 * One at a time, so that nobody hears "durable" while another is being told
 * that something is lost.
 * Errors: ESHUTDOWN of an NBD server that cannot be reached, and EIO of one that
 * does not take again what it has lost (keeps_unflushed), are none of these.
 */
extern int dev_flush (struct dev *dev);

/* Has a flush failed (and none again succeeded), so that every one fails? */
extern bool dev_flush_has_failed (struct dev *dev);

/* A flush has just failed with this error: was it for want of a connection, or
 * because something is owed, and nothing is lost?
 */
extern bool dev_flush_may_succeed (struct dev *dev, int err);

/* The same after a flush that has failed, for a caller that has written again
 * all that was written since the last good one: the failure is forgotten.
 */
extern int dev_flush_again (struct dev *dev);

enum dev_error_class {
  DEV_ERROR_MEDIUM,             /* this spot is bad: the only reason to remap */
  DEV_ERROR_OTHER,              /* the way to the device, or its resources */
};

/* Contract, section 1: EIO, ENODATA (MEDIUM ERROR in the block layer) and
 * EILSEQ (protection information, dm-integrity) speak of the spot.
 */
static inline enum dev_error_class
dev_error_class (int err)
{
  return err == EIO || err == ENODATA || err == EILSEQ
    ? DEV_ERROR_MEDIUM : DEV_ERROR_OTHER;
}

static inline bool
dev_error_is_medium (int err)
{
  return dev_error_class (err) == DEV_ERROR_MEDIUM;
}

static inline int
dev_pread (struct dev *dev, void *buf, size_t count, uint64_t offset,
           unsigned flags)
{
  return dev->ops->pread (dev, buf, count, offset, flags);
}

static inline int
dev_pwrite (struct dev *dev, const void *buf, size_t count, uint64_t offset,
            unsigned flags)
{
  return dev->ops->pwrite (dev, buf, count, offset, flags);
}

static inline int
dev_extents (struct dev *dev, uint64_t count, uint64_t offset,
             dev_extents_fn *fn, void *opaque)
{
  return dev->ops->extents (dev, count, offset, fn, opaque);
}

static inline int
dev_cache (struct dev *dev, uint64_t count, uint64_t offset)
{
  return dev->ops->cache (dev, count, offset);
}

static inline uint64_t
dev_outages (struct dev *dev)
{
  return dev->ops->outages ? dev->ops->outages (dev) : 0;
}

static inline int
dev_resize (struct dev *dev, uint64_t size_bytes)
{
  return dev->ops->resize (dev, size_bytes);
}

static inline void
dev_forget_range (struct dev *dev, uint64_t count, uint64_t offset)
{
  if (dev->ops->forget_range)
    dev->ops->forget_range (dev, count, offset);
}

extern void dev_close (struct dev *dev);

enum dev_direct { DEV_DIRECT_AUTO, DEV_DIRECT_ON, DEV_DIRECT_OFF };

#define DEV_OPEN_READONLY (1u << 0)
#define DEV_OPEN_NO_LOCK (1u << 1)      /* only look: claim nothing */
#define DEV_OPEN_THROUGH (1u << 2)      /* NBD: each write is durable when it is
                                   answered, so that its errors show */

/* Open a regular file or a block device, and claim it: a file with an OFD lock
 * (shared if read-only), a block device with O_EXCL.  Returns NULL with the
 * error set, EBUSY where somebody else has it.  dev-file.c.
 */
extern struct dev *dev_file_open (const char *path, enum dev_direct direct,
                                  unsigned flags);

/* Make all durable and forget what the page cache has: what is read next is
 * what the medium has.  After a failed flush the two may differ.
 */
extern int dev_file_forget_cache (struct dev *dev);

/* The same for any dev; an NBD server keeps its caches. */
extern int dev_forget_cache (struct dev *dev);

/* The file descriptor of a dev of dev-file.c, for identification. */
extern int dev_file_fd (const struct dev *dev);

/* Connect to an export of an NBD server; nothing claims it.  Where the
 * connection breaks, requests wait timeout_s (at least 1) seconds for another
 * one, and then fail with ESHUTDOWN.  EROFS: it is read-only.  dev-nbd.c.
 */
extern struct dev *dev_nbd_open (const char *uri, unsigned flags,
                                 unsigned timeout_s);

/* The connections of a dev of dev-nbd.c; for the tests. */
struct nbd_link;
extern struct nbd_link *dev_nbd_link (struct dev *dev);

#define DEV_TIMEOUT_S 30        /* where nobody says another */

/* Either of them, by its name. */
extern struct dev *dev_open (const char *name, enum dev_direct direct,
                             unsigned flags, unsigned timeout_s);

#endif /* REMAP_DEV_H */
