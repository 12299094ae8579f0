/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleanup.h"
#include "dev.h"
#include "error.h"
#include "mark.h"

#define ATTRIBUTE "user.nbdkit-remap.store"
#define UUID_DIGITS (2 * STORE_UUID_BYTES)
#define TEXT_MAX 1024

static void
format_text (const struct mark *mark, char text[TEXT_MAX])
{
  for (unsigned i = 0; i < STORE_UUID_BYTES; i++)
    snprintf (text + 2 * i, 3, "%02x", mark->uuid[i]);
  snprintf (text + UUID_DIGITS, TEXT_MAX - UUID_DIGITS, " %llu %s\n",
            (unsigned long long) mark->seq, mark->store);
}

/* "NUMBER PATH", without the end of the line. */
static bool
parse_rest (const char *text, struct mark *ret)
{
  char *end;

  errno = 0;
  ret->seq = strtoull (text, &end, 10);
  return isdigit ((unsigned char) text[0]) && errno == 0 && *end == ' ' &&
    snprintf (ret->store, sizeof ret->store, "%s", end + 1)
    < (int) sizeof ret->store;
}

/* text has n bytes and room for one more. */
static int
parse_text (const char *disk, char *text, size_t n, struct mark *ret)
{
  char *end;

  text[n] = '\0';
  end = strchr (text, '\n');
  if (end)
    *end = '\0';
  if (end == NULL || strspn (text, "0123456789abcdef") != UUID_DIGITS ||
      text[UUID_DIGITS] != ' ' || !parse_rest (text + UUID_DIGITS + 1, ret))
    return set_error (EUCLEAN, "%s: what it bears of its store is damaged: "
                      "give the store with spare=, and new-store=yes or "
                      "adopt=yes to overrule", disk);
  for (unsigned i = 0; i < STORE_UUID_BYTES; i++)
    sscanf (text + 2 * i, "%2hhx", &ret->uuid[i]);
  return 1;
}

/* Files. */

static int
read_attribute (int fd, const char *disk, struct mark *ret)
{
  CLEANUP_FREE char *text = malloc (XATTR_SIZE_MAX + 1);
  ssize_t n;

  if (text == NULL)
    return set_error (ENOMEM, "no memory");
  n = fgetxattr (fd, ATTRIBUTE, text, XATTR_SIZE_MAX);
  if (n >= 0)
    return parse_text (disk, text, (size_t) n, ret);
  if (errno == ENODATA || errno == ENOTSUP || errno == ENOSYS ||
      errno == EPERM)           /* EPERM: no file */
    return 0;
  return set_error (errno, "%s: what it bears of its store cannot be read (%s): "
                    "give the store with spare=, and adopt=yes to overrule",
                    disk, errno_text (errno));
}

static int
write_attribute (int fd, const char *disk, const struct mark *mark)
{
  char text[TEXT_MAX];

  format_text (mark, text);
  if (fsetxattr (fd, ATTRIBUTE, text, strlen (text), 0) == 0 &&
      fsync (fd) == 0)
    return 0;
  if (errno == ENOTSUP || errno == ENOSYS)
    return set_error (EOPNOTSUPP, "%s: its file system has no extended "
                      "attributes", disk);
  return set_error (errno, "%s: cannot be marked: %s", disk,
                    errno_text (errno));
}

/* Devices. */

static int
note_path (const char *dir, const char *id, char path[PATH_MAX])
{
  if (snprintf (path, PATH_MAX, "%s/%s.disk", dir, id) >= PATH_MAX)
    return set_error (ENAMETOOLONG, "%s: the name is too long", dir);
  return 0;
}

int
mark_read_note (const char *dir, const char *id, struct mark *ret)
{
  char path[PATH_MAX], text[TEXT_MAX];
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;

  if (note_path (dir, id, path) == -1)
    return -1;
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd == -1 && (errno == ENOENT || errno == ENOTDIR))
    return 0;
  n = fd == -1 ? -1 : read (fd, text, sizeof text - 1);
  if (n == -1)
    return set_error (errno, "%s, which tells the store of the disk, cannot be "
                      "read (%s): give the store with spare=, and adopt=yes to "
                      "overrule", path, errno_text (errno));
  return parse_text (path, text, (size_t) n, ret);
}

static int
write_file (int fd, const char *text)
{
  size_t n = strlen (text);

  if (fd == -1 || write (fd, text, n) != (ssize_t) n)
    return -1;
  return fsync (fd);
}

/* Under another name first, so that no crash leaves half of it. */
int
mark_write_note (const char *dir, const char *id, const struct mark *mark)
{
  char path[PATH_MAX], temporary[PATH_MAX + 8], text[TEXT_MAX];
  CLEANUP_CLOSE int fd = -1, dir_fd = -1;

  if (note_path (dir, id, path) == -1)
    return -1;
  snprintf (temporary, sizeof temporary, "%s.new", path);
  format_text (mark, text);
  if (mkdir (dir, 0755) == -1 && errno != EEXIST)
    return set_error (errno, "cannot make %s: %s", dir, errno_text (errno));
  fd = open (temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (write_file (fd, text) == -1 || rename (temporary, path) == -1)
    return set_error (errno, "cannot write %s: %s", path, errno_text (errno));
  dir_fd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir_fd == -1 || fsync (dir_fd) == -1)
    return set_error (errno, "%s: %s", dir, errno_text (errno));
  return 0;
}

/* Both. */

int
mark_read (const struct dev *dev, const struct identity *disk,
           struct mark *ret)
{
  if (disk->kind == DEV_FILE)
    return read_attribute (dev_file_fd (dev), disk->path, ret);
  return disk->id[0] ? mark_read_note (REMAP_STATEDIR, disk->id, ret) : 0;
}

int
mark_write (const struct dev *dev, const struct identity *disk,
            const struct mark *mark)
{
  if (disk->kind == DEV_FILE)
    return write_attribute (dev_file_fd (dev), disk->path, mark);
  if (disk->id[0] == '\0')
    return set_error (EOPNOTSUPP, "%s has neither WWN nor serial number",
                      disk->path);
  return mark_write_note (REMAP_STATEDIR, disk->id, mark);
}

int
mark_read_path (const char *path, struct mark *ret)
{
  CLEANUP_CLOSE int fd = -1;
  char id[128];
  struct stat st;

  if (identity_id_of_path (path, id, sizeof id))
    return mark_read_note (REMAP_STATEDIR, id, ret);
  if (stat (path, &st) == -1)
    return set_error (errno, "%s: %s", path, errno_text (errno));
  if (!S_ISREG (st.st_mode))
    return 0;
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd == -1)
    return set_error (errno, "%s: %s", path, errno_text (errno));
  return read_attribute (fd, path, ret);
}
