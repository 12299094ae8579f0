/* SPDX-License-Identifier: BSD-3-Clause */
/* identity: what tells one disk from another. */
#ifndef REMAP_IDENTITY_H
#define REMAP_IDENTITY_H

#include "dev.h"

struct identity {
  enum dev_kind kind;
  uint64_t size_bytes;
  uint32_t sector_bytes;
  char id[128];                 /* device: "wwn-..." or "serial-...", with
                                   "-partN" behind; "": it has none */
  char path[256];               /* as the user gave it; for messages */
};

/* What is known of an open device. */
extern void identity_of_dev (const struct dev *dev, const char *path,
                             struct identity *ret);

/* Where the store of a disk is by default: DISK.remap beside a file; in the
 * state directory, under its id, for a device.  To free.  NULL with the error
 * set: a device without an id, no such path.
 */
extern char *identity_default_store (const char *backing);

#endif /* REMAP_IDENTITY_H */
