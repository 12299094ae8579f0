/* SPDX-License-Identifier: BSD-3-Clause */
/* What tells disks from another (identity.h), and what they bear (mark.h). */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "dev.h"
#include "error.h"
#include "identity.h"
#include "mark.h"

/* A folder of this test's own, emptied and removed after it. */
static char dir[64];

static void
make_dir (void)
{
  snprintf (dir, sizeof dir, "identity.XXXXXX");
  ck_assert_ptr_nonnull (mkdtemp (dir));
}

static void
remove_dir (void)
{
  char command[128];

  snprintf (command, sizeof command, "rm -rf %s", dir);
  ck_assert_int_eq (system (command), 0);
}

static const char *
in_dir (const char *name)
{
  static char path[4][160];
  static unsigned n;
  char *p = path[n++ % 4];

  snprintf (p, sizeof path[0], "%s/%s", dir, name);
  return p;
}

static void
put (const char *name, const char *text)
{
  FILE *fp = fopen (in_dir (name), "w");

  ck_assert_ptr_nonnull (fp);
  fputs (text, fp);
  fclose (fp);
}

/* As sysfs has it: the folder of a disk, in it "device" and its partitions. */
static void
make_disk (void)
{
  mkdir (in_dir ("sda"), 0700);
  mkdir (in_dir ("sda/device"), 0700);
  mkdir (in_dir ("sda/sda3"), 0700);
  put ("sda/sda3/partition", "3\n");
}

static void
expect_id (const char *folder, const char *id)
{
  char is[128] = "";

  ck_assert_int_eq (identity_id_of_folder (in_dir (folder), is, sizeof is),
                    id[0] != '\0');
  ck_assert_str_eq (is, id);
}

START_TEST (ids_of_devices)
{
  make_disk ();
  expect_id ("sda", "");
  expect_id ("sda/sda3", "");
  put ("sda/device/serial", "S2RBNX0H\n");
  expect_id ("sda", "serial-S2RBNX0H");
  put ("sda/serial", "  \n");           /* says nothing */
  expect_id ("sda", "serial-S2RBNX0H");
  put ("sda/serial", "QM 00/01 \n");
  expect_id ("sda", "serial-QM_00_01");
  put ("sda/device/wwid", "naa.5000c500a1b2c3d4\n");
  expect_id ("sda", "wwn-naa.5000c500a1b2c3d4");
  expect_id ("sda/sda3", "wwn-naa.5000c500a1b2c3d4-part3");
  put ("sda/wwid", "eui.0025385b71b0a4d1\n");
  expect_id ("sda", "wwn-eui.0025385b71b0a4d1");
}
END_TEST

static struct identity
identify (const char *name)
{
  struct dev *dev = dev_file_open (in_dir (name), DEV_DIRECT_OFF,
                                   DEV_OPEN_READONLY);
  struct identity ret;

  ck_assert_ptr_nonnull (dev);
  identity_of_dev (dev, in_dir (name), &ret);
  dev_close (dev);
  return ret;
}

static bool
is_same (const struct identity *a, const struct identity *b)
{
  return a->inode == b->inode && a->born_s == b->born_s &&
    a->born_ns == b->born_ns;
}

START_TEST (files_are_known_by_their_inode)
{
  struct identity a, b;

  put ("disk", "content");
  a = identify ("disk");
  ck_assert_int_eq (a.kind, DEV_FILE);
  ck_assert_uint_eq (a.size_bytes, 7);
  ck_assert_str_eq (a.id, "");
  if (a.inode == 0)
    return;                     /* this file system does not tell */
  put ("copy", "content");
  b = identify ("copy");
  ck_assert (!is_same (&a, &b));
  ck_assert_int_eq (rename (in_dir ("disk"), in_dir ("moved")), 0);
  b = identify ("moved");
  ck_assert (is_same (&a, &b));

  /* The number of an inode may be used again. */
  for (unsigned i = 0; i < 8; i++) {
    ck_assert_int_eq (unlink (in_dir ("moved")), 0);
    put ("moved", "content");
    b = identify ("moved");
    ck_assert (!is_same (&a, &b));
  }
}
END_TEST

static const struct mark example = {
  .uuid = { 0, 1, 2, 3, 4, 5, 6, 7, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee,
            0xff },
  .seq = 281474976710655,
  .store = "/var/lib/nbdkit-remap/a store",
};
static const char example_text[] =
  "0001020304050607"
  "8899aabbccddeeff"
  " 281474976710655 /var/lib/nbdkit-remap/a store\n";

static void
expect_example (const struct mark *m)
{
  ck_assert_mem_eq (m->uuid, example.uuid, sizeof m->uuid);
  ck_assert_uint_eq (m->seq, example.seq);
  ck_assert_str_eq (m->store, example.store);
}

START_TEST (notes_of_devices)
{
  char text[128] = "";
  struct mark m;
  FILE *fp;

  ck_assert_int_eq (mark_read_note (in_dir ("state"), "wwn-1", &m), 0);
  ck_assert_int_eq (mark_write_note (in_dir ("state"), "wwn-1", &example), 0);
  ck_assert_int_eq (mark_read_note (in_dir ("state"), "wwn-1", &m), 1);
  expect_example (&m);
  ck_assert_int_eq (mark_read_note (in_dir ("state"), "wwn-2", &m), 0);

  fp = fopen (in_dir ("state/wwn-1.disk"), "r");
  ck_assert_ptr_nonnull (fp);
  ck_assert_ptr_nonnull (fgets (text, sizeof text, fp));
  fclose (fp);
  ck_assert_str_eq (text, example_text);
  ck_assert_int_eq (access (in_dir ("state/wwn-1.disk.new"), F_OK), -1);

  /* Replaced, not added to. */
  m.store[4] = '\0';
  ck_assert_int_eq (mark_write_note (in_dir ("state"), "wwn-1", &m), 0);
  ck_assert_int_eq (mark_read_note (in_dir ("state"), "wwn-1", &m), 1);
  ck_assert_str_eq (m.store, "/var");
}
END_TEST

START_TEST (notes_that_cannot_be_written)
{
  put ("state", "a file");
  ck_assert_int_eq (mark_write_note (in_dir ("state"), "x", &example), -1);
  ck_assert_ptr_nonnull (strstr (last_error_text (), "state"));
}
END_TEST

/* Texts that are no marks. */
static const char *const damaged[] = {
  "", "\n", "00010203040506078899aabbccddeeff\n",
  "00010203040506078899aabbccddeef 1 /path\n",
  "00010203040506078899aabbccddeeff0 1 /path\n",
  "0001020304050607-899aabbccddeeff 1 /path\n",
  "00010203040506078899aabbccddeeff 1 /path without an end",
  "00010203040506078899aabbccddeeff /path\n",
  "00010203040506078899aabbccddeeff 12\n",
  "00010203040506078899aabbccddeeff -1 /path\n",
  "00010203040506078899aabbccddeeff 18446744073709551616 /path\n",
};

START_TEST (damaged_notes)
{
  struct mark m;

  mkdir (in_dir ("state"), 0700);
  put ("state/x.disk", damaged[_i]);
  ck_assert_int_eq (mark_read_note (in_dir ("state"), "x", &m), -1);
  ck_assert_int_eq (errno, EUCLEAN);
}
END_TEST

START_TEST (note_with_a_long_path)
{
  char text[700];
  struct mark m;

  mkdir (in_dir ("state"), 0700);
  for (size_t len = 254; len < 600; len++) {
    snprintf (text, sizeof text, "%.33s7 %0*d\n", example_text, (int) len, 0);
    put ("state/x.disk", text);
    ck_assert_int_eq (mark_read_note (in_dir ("state"), "x", &m),
                      len < sizeof m.store ? 1 : -1);
  }
}
END_TEST

/* Later versions may have more to say. */
START_TEST (note_of_a_later_version)
{
  char text[200];
  struct mark m;

  mkdir (in_dir ("state"), 0700);
  snprintf (text, sizeof text, "%smore\n", example_text);
  put ("state/x.disk", text);
  ck_assert_int_eq (mark_read_note (in_dir ("state"), "x", &m), 1);
  expect_example (&m);
}
END_TEST

/* Open a disk, and read or write its mark. */
static int
use_mark (const char *path, struct mark *ret, const struct mark *mark)
{
  struct dev *dev = dev_file_open (path, DEV_DIRECT_OFF, DEV_OPEN_READONLY);
  struct identity identity;
  int r, err;

  if (dev == NULL)
    return -1;
  identity_of_dev (dev, path, &identity);
  r = mark ? mark_write (dev, &identity, mark)
    : mark_read (dev, &identity, ret);
  err = errno;
  dev_close (dev);
  errno = err;
  return r;
}

static int
read_mark (const char *path, struct mark *ret)
{
  int r = use_mark (path, ret, NULL), err = errno;

  ck_assert_int_eq (mark_read_path (path, ret), r);
  errno = err;
  return r;
}

static int
write_mark (const char *path, const struct mark *mark)
{
  return use_mark (path, NULL, mark);
}

START_TEST (marks_of_files)
{
  char text[1500] = "";
  struct mark m;

  put ("disk", "content");
  ck_assert_int_eq (read_mark (in_dir ("disk"), &m), 0);
  if (write_mark (in_dir ("disk"), &example) == -1 && errno == EOPNOTSUPP)
    return;                     /* this file system has no attributes */
  ck_assert_int_eq (read_mark (in_dir ("disk"), &m), 1);
  expect_example (&m);
  ck_assert_int_eq (getxattr (in_dir ("disk"), "user.nbdkit-remap.store", text,
                              sizeof text), sizeof example_text - 1);
  ck_assert_str_eq (text, example_text);
  ck_assert_int_eq (setxattr (in_dir ("disk"), "user.nbdkit-remap.store", "?",
                              1, 0), 0);
  ck_assert_int_eq (read_mark (in_dir ("disk"), &m), -1);
  ck_assert_int_eq (errno, EUCLEAN);
  ck_assert_int_eq (write_mark (in_dir ("disk"), &example), 0);
  ck_assert_int_eq (read_mark (in_dir ("disk"), &m), 1);

  /* Later versions may have more to say. */
  memset (text, 'x', sizeof text);
  memcpy (text, example_text, sizeof example_text - 1);
  ck_assert_int_eq (setxattr (in_dir ("disk"), "user.nbdkit-remap.store", text,
                              sizeof text, 0), 0);
  ck_assert_int_eq (read_mark (in_dir ("disk"), &m), 1);
  expect_example (&m);
}
END_TEST

START_TEST (no_such_disk)
{
  struct mark m;

  ck_assert_int_eq (read_mark (in_dir ("none"), &m), -1);
  ck_assert_int_eq (errno, ENOENT);
  ck_assert_int_eq (write_mark (in_dir ("none"), &example), -1);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("identity");
  TCase *tc = tcase_create ("identity and mark");
  SRunner *runner;
  int nr_failed;

  tcase_add_checked_fixture (tc, make_dir, remove_dir);
  tcase_add_test (tc, ids_of_devices);
  tcase_add_test (tc, files_are_known_by_their_inode);
  tcase_add_test (tc, notes_of_devices);
  tcase_add_test (tc, notes_that_cannot_be_written);
  tcase_add_loop_test (tc, damaged_notes, 0,
                       (int) (sizeof damaged / sizeof damaged[0]));
  tcase_add_test (tc, note_with_a_long_path);
  tcase_add_test (tc, note_of_a_later_version);
  tcase_add_test (tc, marks_of_files);
  tcase_add_test (tc, no_such_disk);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
