/* SPDX-License-Identifier: BSD-3-Clause */
/* identity: what tells one disk from another.
 *
 * An export of an NBD server has its place: host and port, or socket, and name.
 * A block device has a WWN or a serial number.  A file has its inode: a copy of
 * it, or a file that was put in its place, has another one, or one that was
 * made at another time.  (Not so a copy of the whole file system below; nor
 * does anybody notice new content written into the same file.)  Some file
 * systems number their inodes anew at every mount (FUSE, FAT, overlayfs), or do
 * not tell when they were made (NFS): there a file is known by its size alone.
 */
#ifndef REMAP_IDENTITY_H
#define REMAP_IDENTITY_H

#include "dev.h"

struct identity {
  enum dev_kind kind;
  uint64_t size_bytes;
  uint32_t sector_bytes;
  char id[128];                 /* device: "wwn-..." or "serial-...", with
                                   "-partN" behind; NBD: "nbd-..."; "": it has
                                   none */
  uint64_t inode;               /* file: 0 if its birth is not known */
  uint64_t born_s;              /* seconds since 1970, and nanoseconds */
  uint32_t born_ns;
  char path[256];               /* as the user gave it; for messages */
};

/* What is known of an open device. */
extern void identity_of_dev (const struct dev *dev, const char *path,
                             struct identity *ret);

/* The id of a device from its folder in sysfs, with the number of the partition,
 * if it is one; false where it has none.
 */
extern bool identity_id_of_folder (const char *folder, char *ret, size_t size);

/* The id of the device or NBD export at path; false where it has none, or is
 * neither.
 */
extern bool identity_id_of_path (const char *path, char *ret, size_t size);

/* Where the store of a disk is by default: DISK.remap beside a file; in the
 * state directory, under its id, for a device.  To free.  NULL with the error
 * set: a device without an id, no such path, an NBD export.
 */
extern char *identity_default_store (const char *backing);

#endif /* REMAP_IDENTITY_H */
