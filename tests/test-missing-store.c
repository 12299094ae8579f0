/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk that has a store is not served without it, nor with another one: what
 * was remapped would read as it was before.  The store of another disk is
 * refused, both are named, and nothing is changed; adopt=yes and new-store=yes
 * overrule.
 */

#include <config.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum { BAD = 1000, NR_BAD = 8 };

/* The refusal must name all of these (the list ends with NULL). */
static void
check_names (const char *line, const char *const *names)
{
  for (; *names != NULL; names++)
    if (strstr (line, *names) == NULL)
      T_FAIL ("the line does not name \"%s\": %s", *names, line);
}
#define REFUSED(params, ...)                                            \
  check_names (t_server_refusal ("%s", params),                         \
               (const char *const []) { __VA_ARGS__, NULL })

static void
serve (struct t_server *s, const char *params)
{
  t_server_restart_with (s, "%s", params);
  t_server_stop (s);
}

/* Files. */

static bool
can_bear_marks (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 1 << 20, NULL);
  struct t_server *s = t_server_start ("backing=%s", d->path);
  bool can = !t_server_has_said (s, "no extended attributes");

  t_server_stop (s);
  t_disk_free (d);
  if (!can)
    t_skip_part ("extended attributes in the directory of the tests");
  return can;
}

static void
test_file (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 4 << 20,
                                 &(struct t_disk_options) { .gen = 1 });
  char *away = t_path ("away"), *other = t_path ("other");
  char *plain = t_str ("backing=%s", d->path);
  struct t_server *s;

  t_part ("the store of a file is missing");
  if (!can_bear_marks ())
    return;
  s = t_server_start ("%s", plain);
  t_server_stop (s);
  T_ASSERT (rename (d->store, away) == 0);
  REFUSED (plain, d->path, d->store, "new-store=yes", "spare=");
  REFUSED (t_str ("-r %s", plain), d->path, d->store, "new-store=yes");
  REFUSED (t_str ("%s adopt=yes", plain), d->store, "new-store=yes");
  REFUSED (t_str ("%s spare=%s", plain, other), d->store, other);
  T_ASSERT (access (d->store, F_OK) == -1);
  T_ASSERT (access (other, F_OK) == -1);

  t_part ("it is elsewhere");
  serve (s, t_str ("%s spare=%s", plain, away));
  T_ASSERT (t_ctl_status (d->path, "spares_total") > 0);        /* found */
  REFUSED (plain, away);
  T_ASSERT (rename (away, d->store) == 0);
  serve (s, plain);

  t_part ("another store");
  T_ASSERT (rename (d->store, away) == 0);
  t_server_restart_with (s, "%s new-store=yes", plain);
  T_ASSERT (t_server_has_said (s, "given up"));
  t_server_stop (s);
  serve (s, plain);
  serve (s, t_str ("%s new-store=yes", plain));  /* it is there: no matter */
  serve (s, plain);
  REFUSED (t_str ("%s spare=%s", plain, away), d->path, d->store, away,
           "adopt=yes");
  serve (s, t_str ("%s spare=%s adopt=yes", plain, away));
  REFUSED (plain, d->path, d->store, away);
  serve (s, t_str ("%s spare=%s", plain, away));
  t_disk_free (d);
}

#define ATTRIBUTE "user.nbdkit-remap.store"

/* new-store=yes is cut off when the store is made and the disk not marked. */
static void
test_interrupted (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 4 << 20,
                                 &(struct t_disk_options) { .gen = 1 });
  char *plain = t_str ("backing=%s", d->path), mark[1024];
  struct t_server *s = t_server_start ("%s", plain);
  ssize_t n;

  t_part ("an interrupted new-store=yes");
  t_server_stop (s);
  n = getxattr (d->path, ATTRIBUTE, mark, sizeof mark);
  if (n > 0) {
    T_ASSERT (unlink (d->store) == 0);
    serve (s, t_str ("%s new-store=yes", plain));
    T_ASSERT (setxattr (d->path, ATTRIBUTE, mark, n, 0) == 0);
    REFUSED (plain, d->path, d->store, "stood where", "adopt=yes");
    serve (s, t_str ("%s new-store=yes", plain));
    serve (s, plain);

    T_ASSERT (setxattr (d->path, ATTRIBUTE, "?", 1, 0) == 0);
    REFUSED (plain, d->path, "damaged", "adopt=yes");
    serve (s, t_str ("%s adopt=yes", plain));
    serve (s, plain);
  }
  t_disk_free (d);
}

/* Another file gets the name of the disk while that is served: it is not the
 * one to bear its mark.
 */
static void
test_swapped (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 4 << 20,
                                 &(struct t_disk_options) { .gen = 1 });
  struct t_disk *other = t_disk_new (T_DISK_PLAIN, 4 << 20,
                                     &(struct t_disk_options) { .gen = 1 });
  char *away = t_path ("swapped");
  struct t_server *s = t_server_start ("backing=%s", other->path);
  char *output;

  t_part ("files are swapped");
  t_server_stop (s);
  s = t_server_start ("backing=%s", d->path);
  T_ASSERT (rename (d->path, away) == 0);
  T_ASSERT (rename (other->path, d->path) == 0);
  t_server_stop (s);
  serve (s, t_str ("backing=%s spare=%s", away, d->store));
  serve (s, t_str ("backing=%s spare=%s", d->path, other->store));

  t_part ("a store is replaced by another disk's");
  T_ASSERT (rename (other->store, d->store) == 0);
  T_ASSERT (t_ctl ("status", away, &output) != 0);
  t_disk_free (other);
  t_disk_free (d);
}

static void
copy_with_attributes (const char *from, const char *to)
{
  char *argv[] = { "cp", "-a", (char *) from, (char *) to, NULL };

  T_ASSERT (t_run (argv, NULL) == 0);
}

/* A copy has neither the inode nor, as a rule, the mark of the original. */
static void
test_copies (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 4 << 20,
                                 &(struct t_disk_options) { .gen = 1 });
  char *copy = t_path ("copy"), *copy_store = t_str ("%s.remap", copy);
  char *before = t_path ("before");
  char *moved = t_path ("moved");
  struct t_server *s = t_server_start ("backing=%s", d->path);

  t_server_stop (s);
  t_part ("a copied disk");
  t_image_copy (d->path, copy);
  t_image_copy (d->store, copy_store);
  t_image_copy (d->store, before);
  REFUSED (t_str ("backing=%s", copy), copy, d->path, "inode", "adopt=yes");
  T_ASSERT (t_image_equal (copy_store, before));
  serve (s, t_str ("backing=%s adopt=yes", copy));
  serve (s, t_str ("backing=%s", copy));

  t_part ("a replaced disk");
  T_ASSERT (rename (copy, d->path) == 0);
  REFUSED (t_str ("backing=%s spare=%s", d->path, d->store), d->path,
           "adopt=yes");

  t_part ("a renamed disk");
  T_ASSERT (rename (d->path, moved) == 0);
  serve (s, t_str ("backing=%s spare=%s", moved, copy_store));

  t_part ("a copy with its attributes, but no store");
  copy_with_attributes (moved, copy);
  unlink (copy_store);
  REFUSED (t_str ("backing=%s", copy), copy, copy_store, "new-store=yes");

  t_part ("another size");
  T_ASSERT (truncate (moved, 5 << 20) == 0);
  REFUSED (t_str ("backing=%s spare=%s", moved, before), moved, "4194304",
           "5242880", "adopt=yes");
  t_disk_free (d);
}

/* Devices: a loop device has no serial number, but where sysfs says so it has;
 * and it is said in a mount namespace of this test's own.
 */

static char *
make_private (void)
{
  char *dir = t_str ("%s", REMAP_STATEDIR), *made = NULL;

  for (char *p = strchr (dir + 1, '/'); ; p = strchr (p + 1, '/')) {
    if (p)
      *p = '\0';
    if (mkdir (dir, 0755) == 0 && made == NULL)
      made = t_str ("%s", dir);
    if (p == NULL)
      break;
    *p = '/';
  }
  T_ASSERT (mount ("state", dir, "tmpfs", 0, NULL) == 0);
  t_janitor_mount (dir);
  return made;
}

static void
give_serial (const char *device, const char *serial)
{
  struct stat st;
  char *folder, *fake = t_path ("sysfs");

  T_ASSERT (stat (device, &st) == 0);
  folder = t_str ("/sys/dev/block/%u:%u", (unsigned) (st.st_rdev >> 8) & 0xfff,
                  (unsigned) st.st_rdev & 0xff);
  mkdir (fake, 0700);
  t_write_file (t_str ("%s/serial", fake), serial);
  folder = realpath (folder, NULL);
  T_ASSERT (folder != NULL);
  T_ASSERT (mount (fake, folder, NULL, MS_BIND, NULL) == 0);
  t_janitor_mount (folder);
  free (folder);
}

static void
expect (struct t_server *s, uint32_t gen)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, BAD, NR_BAD, gen);
  t_nbd_close (h);
  t_server_stop (s);
}

static void
put_and_stop (struct t_server *s, uint64_t lba, uint64_t nr)
{
  struct nbd_handle *h = t_nbd_connect (s);

  T_OK (t_nbd_put (h, lba, nr, 2));
  t_nbd_close (h);
  t_server_stop (s);
}

static void
test_device (void)
{
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("write %d-%d\n", BAD, BAD + NR_BAD - 1),
  };
  struct t_disk *d = t_disk_new (T_DISK_LOOP, 8 << 20, &options);
  const char *store = REMAP_STATEDIR "/serial-FAKE-7";
  char *away = t_path ("away-7"), *plain = t_str ("backing=%s", d->path);
  char *old = t_path ("old-7");
  struct t_server *s;

  t_part ("the store of a device is missing");
  give_serial (d->path, "FAKE-7\n");
  s = t_server_start ("%s", plain);
  put_and_stop (s, BAD, NR_BAD / 2);
  copy_with_attributes (store, old);
  t_server_restart (s);
  put_and_stop (s, BAD + NR_BAD / 2, NR_BAD / 2);
  T_ASSERT (t_ctl_count (d->path, "remapped") == NR_BAD);
  REFUSED (t_str ("%s spare=%s", plain, old), d->path, old, "old copy",
           "adopt=yes");
  copy_with_attributes (store, away);
  T_ASSERT (unlink (store) == 0);
  REFUSED (plain, d->path, store, "new-store=yes");
  REFUSED (t_str ("%s spare=%s", plain, t_path ("nowhere")), d->path, store);

  t_part ("it is elsewhere");
  t_server_restart_with (s, "%s spare=%s", plain, away);
  expect (s, 2);
  T_ASSERT (t_ctl_count (d->path, "remapped") == NR_BAD);

  t_part ("it is given up");
  t_server_restart_with (s, "%s new-store=yes", plain);
  T_ASSERT (t_server_has_said (s, "given up"));
  expect (s, 1);                /* what stood there before */
  REFUSED (t_str ("%s spare=%s", plain, away), d->path, store, away);

  t_part ("another serial number");
  give_serial (d->path, "FAKE-8\n");
  REFUSED (t_str ("%s spare=%s", plain, away), "FAKE-7", "FAKE-8", "adopt=yes");
  serve (s, t_str ("%s", plain));       /* another disk: it has none yet */
  T_ASSERT (access (REMAP_STATEDIR "/serial-FAKE-8", F_OK) == 0);
  t_disk_free (d);
}

static void
test_devices (void)
{
  char *made;

  t_part ("devices");
  if (!t_disk_can (T_DISK_LOOP))
    return;
  made = make_private ();
  test_device ();
  T_ASSERT (umount2 (REMAP_STATEDIR, 0) == 0);
  if (made)
    for (char *dir = t_str ("%s", REMAP_STATEDIR); strlen (dir) >= strlen (made);
         *strrchr (dir, '/') = '\0')
      rmdir (dir);
}

int
main (void)
{
  if (geteuid () == 0 &&
      (unshare (CLONE_NEWNS) == -1 ||
       mount ("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == -1))
    t_skip ("mount namespaces");
  t_begin ("test-missing-store", 60);
  test_file ();
  test_interrupted ();
  test_swapped ();
  test_copies ();
  test_devices ();
  return t_end ();
}
