/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "identity.h"

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

static void
find_device_id (dev_t device, char *ret, size_t size)
{
  char folder[64], disk[80], partition[16] = "", text[96];

  snprintf (folder, sizeof folder, "/sys/dev/block/%u:%u", major (device),
            minor (device));
  snprintf (disk, sizeof disk, "%s", folder);
  if (read_attribute (folder, "partition", partition, sizeof partition))
    snprintf (disk, sizeof disk, "%s/..", folder);
  for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
    if (read_attribute (disk, sources[i].attribute, text, sizeof text)) {
      snprintf (ret, size, "%s%s%s%s", sources[i].prefix, text,
                partition[0] ? "-part" : "", partition);
      return;
    }
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
}

char *
identity_default_store (const char *backing)
{
  char *store = NULL, id[128] = "";
  struct stat st;

  if (stat (backing, &st) == -1) {
    set_error (errno, "cannot open %s: %s", backing, errno_text (errno));
    return NULL;
  }
  if (S_ISBLK (st.st_mode)) {
    find_device_id (st.st_rdev, id, sizeof id);
    if (id[0] == '\0') {
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
