/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "identity.h"
#include "nbd-uri.h"

/* Read a short text file below the sysfs folder of a block device; false where
 * it is missing or empty.  Whatever a file name does not bear becomes '_'.
 */
static bool
read_attribute (const char *folder, const char *name, char *ret, size_t size)
{
  char path[PATH_MAX];
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;

  if (snprintf (path, sizeof path, "%s/%s", folder, name) >= (int) sizeof path)
    return false;
  fd = open (path, O_RDONLY | O_CLOEXEC);
  n = fd == -1 ? -1 : read (fd, ret, size - 1);
  while (n > 0 && isspace ((unsigned char) ret[n - 1]))
    n--;
  if (n <= 0)
    return false;
  ret[n] = '\0';
  for (char *p = ret; *p; p++)
    if (!isalnum ((unsigned char) *p) && strchr (".-", *p) == NULL)
      *p = '_';
  return true;
}

/* Where drivers put the WWN and the serial number, the better ones first. */
static const struct { const char *prefix, *attribute; } sources[] = {
  { "wwn-", "wwid" },                   /* NVMe */
  { "wwn-", "device/wwid" },            /* SCSI, SATA */
  { "serial-", "serial" },              /* virtio */
  { "serial-", "device/serial" },       /* NVMe, MMC */
};

bool
identity_id_of_folder (const char *folder, char *ret, size_t size)
{
  char disk[PATH_MAX], partition[16] = "", text[96];

  read_attribute (folder, "partition", partition, sizeof partition);
  snprintf (disk, sizeof disk, "%s%s", folder, partition[0] ? "/.." : "");
  for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
    if (read_attribute (disk, sources[i].attribute, text, sizeof text)) {
      snprintf (ret, size, "%s%s%s%s", sources[i].prefix, text,
                partition[0] ? "-part" : "", partition);
      return true;
    }
  return false;
}

static bool
find_device_id (dev_t device, char *ret, size_t size)
{
  char folder[64];

  snprintf (folder, sizeof folder, "/sys/dev/block/%u:%u", major (device),
            minor (device));
  return identity_id_of_folder (folder, ret, size);
}

bool
identity_id_of_path (const char *path, char *ret, size_t size)
{
  struct stat st;

  if (nbd_uri_is_one (path)) {
    CLEANUP_FREE char *uri = nbd_uri_absolute (path);

    if (uri)
      nbd_uri_id (uri, ret, size);
    return uri && ret[0];
  }
  return stat (path, &st) == 0 && S_ISBLK (st.st_mode) &&
    find_device_id (st.st_rdev, ret, size);
}

/* File systems whose inodes keep their numbers. */
static bool
has_lasting_inodes (int fd)
{
  static const uint32_t magic[] = {
    EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC,
    TMPFS_MAGIC, 0xca451a4e /* bcachefs */, 0x2fc12fc1 /* ZFS */,
  };
  struct statfs fs;

  for (size_t i = 0; fstatfs (fd, &fs) == 0 &&
         i < sizeof magic / sizeof magic[0]; i++)
    if ((uint32_t) fs.f_type == magic[i])
      return true;
  return false;
}

static void
find_birth (int fd, struct identity *ret)
{
  struct statx sx;

  if (!has_lasting_inodes (fd) ||
      statx (fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx) == -1 ||
      (sx.stx_mask & STATX_BTIME) == 0 || sx.stx_btime.tv_sec < 0)
    return;
  ret->inode = sx.stx_ino;
  ret->born_s = (uint64_t) sx.stx_btime.tv_sec;
  ret->born_ns = sx.stx_btime.tv_nsec;
}

void
identity_of_dev (const struct dev *dev, const char *path, struct identity *ret)
{
  struct stat st;

  memset (ret, 0, sizeof *ret);
  ret->kind = dev->info.kind;
  ret->size_bytes = dev->info.size_bytes;
  ret->sector_bytes = dev->info.sector_bytes;
  snprintf (ret->path, sizeof ret->path, "%s", path);
  if (ret->kind == DEV_BLOCK && fstat (dev_file_fd (dev), &st) == 0)
    find_device_id (st.st_rdev, ret->id, sizeof ret->id);
  if (ret->kind == DEV_NBD)
    nbd_uri_id (dev->info.name, ret->id, sizeof ret->id);
  if (ret->kind == DEV_FILE)
    find_birth (dev_file_fd (dev), ret);
}

char *
identity_default_store (const char *backing)
{
  char *store = NULL, id[128] = "";
  struct stat st;

  if (nbd_uri_is_one (backing)) {
    set_error (EINVAL, "%s: an NBD export has no place for its store: name one "
               "with spare=", backing);
    return NULL;
  }
  if (stat (backing, &st) == -1) {
    set_error (errno, "cannot open %s: %s", backing, errno_text (errno));
    return NULL;
  }
  if (S_ISBLK (st.st_mode)) {
    if (!find_device_id (st.st_rdev, id, sizeof id)) {
      set_error (EINVAL, "%s has neither WWN nor serial number to name its "
                 "store after: name one with spare=", backing);
      return NULL;
    }
    if (asprintf (&store, "%s/%s", REMAP_STATEDIR, id) == -1)
      store = NULL;
  }
  else if (asprintf (&store, "%s.remap", backing) == -1)
    store = NULL;
  if (store == NULL)
    set_error (ENOMEM, "no memory");
  return store;
}
