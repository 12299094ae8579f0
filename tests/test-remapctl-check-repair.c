/* SPDX-License-Identifier: BSD-3-Clause */
/* remapctl check, and check --repair: what is damaged is found, what one copy
 * can mend is mended and then served, what nothing can mend is left as it is,
 * and the exit status says which.
 */

#include <config.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev.h"
#include "store-codec.h"
#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"
#include "t_wait.h"

enum { FIRST = 1000, NR = 40, LOST = 2000, SECTORS = 16384 };

/* A disk whose bad sectors have been written, but one, which is lost; and its
 * store, of which each part damages a copy.
 */
static struct t_disk *disk;
static char *original;

static void
make_original (void)
{
  const struct t_disk_options options = {
    .gen = 1,
    .faults = t_str ("both %d-%d\nboth %d\n", FIRST, FIRST + NR - 1, LOST),
  };
  struct t_server *s;
  struct nbd_handle *h;

  disk = t_disk_new (T_DISK_FUSE, SECTORS * T_SECTOR, &options);
  original = disk->store;
  s = t_server_start ("%s spare-size=1M", t_disk_params (disk));
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, FIRST, NR, 2));
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  if (t_fault_failures (disk->fault, "rw") == 0)
    T_FAIL ("no bad sector was met");
  t_nbd_close (h);
  t_server_stop (s);
}

static char *
new_copy (void)
{
  static unsigned counter;
  char *path = t_path ("copy-%u.remap", counter++);

  t_image_copy (original, path);
  return path;
}

/* remapctl check, with or without --repair, must end with this status and say
 * this.
 */
static void
expect (const char *options, const char *store, int status, const char *word)
{
  char *output, *error;
  int r = t_ctl_run (t_str ("check %s %s", options, store), &output, &error);

  if (r != status || strstr (output, word) == NULL ||
      (status & 8 ? *error == '\0' : *error != '\0'))
    T_FAIL ("remapctl check %s: exit status %d, expected %d and \"%s\": %s%s",
            options, r, status, word, output, error);
}

/* The same, and nothing may change. */
static void
expect_untouched (const char *options, const char *store, int status,
                  const char *word)
{
  char *before = t_path ("before");

  t_image_copy (store, before);
  expect (options, store, status, word);
  T_ASSERT (t_image_equal (before, store));
}

static const char *
verdict_of (const char *store)
{
  char *output;
  json_t *json;
  const char *r;

  t_ctl_run (t_str ("check --json %s", store), &output, NULL);
  json = json_loads (output, 0, NULL);
  if (json == NULL || !json_is_array (json_object_get (json, "problems")))
    T_FAIL ("remapctl check --json: %s", output);
  r = t_str ("%s", json_string_value (json_object_get (json, "verdict")));
  json_decref (json);
  return r;
}

/* A server with this store serves all that was written. */
static void
expect_served (const char *store)
{
  struct t_server *s = t_server_start ("backing=%s spare=%s", disk->path,
                                       store);
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, 0, FIRST, 1);
  t_nbd_expect (h, FIRST, NR, 2);
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  t_nbd_close (h);
  t_server_stop (s);
}

static void
test_one_copy (void)
{
  t_part ("one copy damaged");
  expect_untouched ("", original, 0, "is sound");
  expect_untouched ("--repair", original, 0, "is sound");
  for (unsigned i = 0; i < 6; i++) {
    char *store = new_copy ();
    spare_t slot = t_store_slot_of (store, FIRST + 3);

    t_store_flip (store, t_store_place (store, i / 2, i % 2, slot) + 17);
    expect_untouched ("", store, 4, i % 2 ? "second" : "first");
    T_ASSERT (strcmp (verdict_of (store), "repairable") == 0);
    expect ("--repair", store, 1, "1 problem repaired; the store is sound");
    T_ASSERT (strcmp (verdict_of (store), "sound") == 0);
    expect_untouched ("--repair", store, 0, "is sound");
    expect_served (store);
    unlink (store);
  }
}

static void
test_both_copies (void)
{
  t_part ("both copies damaged");
  for (unsigned i = 0; i < 3; i++) {
    char *store = new_copy ();
    spare_t slot = t_store_slot_of (store, FIRST + 3);
    uint64_t first = t_store_place (store, i, 0, slot);
    uint64_t second = t_store_place (store, i, 1, slot);

    t_store_flip (store, first + 17);
    t_store_flip (store, second + 17);
    expect_untouched ("", store, 4, "cannot be used");
    expect_untouched ("--repair", store, 4, "cannot be used");
    T_ASSERT (strcmp (verdict_of (store), "unusable") == 0);
    unlink (store);
  }
}

/* Rotted data is nothing that a repair could mend, or may hide. */
static void
test_data (void)
{
  char *store = new_copy ();
  struct store_super super = t_store_super (store);
  spare_t slot = t_store_slot_of (store, FIRST + 3);
  struct t_server *s;
  struct nbd_handle *h;

  t_part ("data damaged");
  t_store_flip (store, store_data_at (&super, slot) + 100);
  expect_untouched ("", store, 4, t_str ("sector %d is damaged", FIRST + 3));
  expect_untouched ("--repair", store, 4, "damaged for good");
  T_ASSERT (strcmp (verdict_of (store), "damaged") == 0);
  t_store_flip (store, t_store_place (store, T_STORE_SUPER, 0, slot) + 17);
  expect ("--repair", store, 5, "1 problem repaired; some of it is damaged");
  expect_untouched ("--repair", store, 4, "damaged for good");

  s = t_server_start ("backing=%s spare=%s", disk->path, store);
  h = t_nbd_connect (s);
  t_nbd_expect (h, FIRST, 3, 2);
  T_ERRNO (t_nbd_touch (h, FIRST + 3, 1), EIO);
  T_OK (t_nbd_put (h, FIRST + 3, 1, 2));        /* heals */
  t_nbd_close (h);
  t_server_stop (s);
  expect_untouched ("", store, 0, "is sound");
  expect_served (store);
}

/* What can be neither read nor written, of a store that a server has open, of
 * something else.
 */
static void
test_refusals (void)
{
  struct t_server *s = t_server_start ("%s", t_disk_params (disk));
  char *store = new_copy (), *text = t_path ("diary.txt"), *output, *error;

  t_part ("refusals");
  t_store_flip (original, t_store_place (original, T_STORE_COMMIT, 1,
                                         (spare_t) { 0 }) + 17);
  expect_untouched ("", original, 8, "");
  expect_untouched ("--repair", original, 8, "");
  t_ctl_run (t_str ("check --repair %s", original), &output, &error);
  if (strstr (error, t_str ("process %d", (int) s->pid)) == NULL)
    T_FAIL ("it does not say who has the store: %s", error);
  T_ASSERT (t_server_is_alive (s));
  t_server_stop (s);
  expect ("", original, 0, "is sound");

  t_write_file (text, "Dear diary,\n");
  expect_untouched ("--repair", text, 8, "");
  t_image_create (text, 1 << 20, 0);
  expect_untouched ("--repair", text, 8, "");
  expect ("--repair", t_path ("none"), 8, "");
  expect ("--repair", t_path ("."), 8, "");
  T_ASSERT (access (t_path ("none"), F_OK) == -1);
  if (truncate (store, 64 << 10) == -1)
    T_FAIL ("%m");
  expect_untouched ("--repair", store, 4, "cut off");

  T_ASSERT (t_ctl_run ("check --repair", &output, NULL) == 16);
  T_ASSERT (t_ctl_run (t_str ("check --csv --repair %s", store), &output,
                       NULL) == 16);
  T_ASSERT (t_ctl_run (t_str ("status --repair %s", store), &output,
                       NULL) == 1);
  unlink (store);
}

static void
test_read_only (void)
{
  const struct t_disk_options options = { .image = new_copy (),
                                          .read_only = true };
  struct t_disk *d;

  t_part ("a read-only device");
  if (!t_disk_can (T_DISK_LOOP))
    return;
  t_store_flip (options.image, t_store_place (options.image, T_STORE_SUPER, 1,
                                              (spare_t) { 0 }) + 17);
  d = t_disk_new (T_DISK_LOOP, 0, &options);
  expect ("", d->path, 4, "second superblock");
  expect_untouched ("--repair", d->path, 8, "");
  t_disk_free (d);
}

/* The note of a server that was killed says nothing of who has the store. */
static void
check_dead_owner (char *store, pid_t owner)
{
  struct dev *dev = dev_file_open (store, DEV_DIRECT_OFF, 0);
  char *output, *error;

  T_ASSERT (dev != NULL);
  T_ASSERT (t_ctl_run (t_str ("check --repair %s", store), &output, &error)
            == 8);
  if (strstr (error, "another process") == NULL ||
      strstr (error, t_str ("%d", (int) owner)) != NULL)
    T_FAIL ("server %d is dead: %s", (int) owner, error);
  dev_close (dev);
}

/* A record whose data never got to the medium is settled as by a start: it is
 * void, and stays so.
 */
static void
test_crash (void)
{
  struct t_server *s = t_server_start ("%s", t_disk_params (disk));
  struct nbd_handle *h = t_nbd_connect (s);
  struct store_super super;
  uint64_t place;
  pid_t pid;
  char *store;

  t_part ("a server that crashed");
  T_OK (t_nbd_touch (h, FIRST, NR));
  t_fault_set (disk->fault, "both %d-%d\nboth %d\nwrite 3000\n", FIRST,
               FIRST + NR - 1, LOST);
  T_OK (t_nbd_put (h, 3000, 1, 2));
  pid = s->pid;
  t_server_kill (s);
  t_nbd_close (h);
  store = new_copy ();
  check_dead_owner (store, pid);
  super = t_store_super (store);
  place = store_data_at (&super, t_store_slot_of (store, 3000));
  t_store_flip (store, place);
  expect_untouched ("", store, 0, "is sound");
  expect ("--repair", store, 0, "is sound");
  t_store_flip (store, place);
  T_ASSERT (*t_ctl_state_of (store, 3000) == '\0');
  expect_untouched ("--repair", store, 0, "is sound");
  expect_served (store);
}

/* Of every entry one copy is damaged. */
static char *
new_damaged_copy (void)
{
  char *store = new_copy ();
  struct store_super super = t_store_super (store);

  for (spare_t slot = { 0 }; slot.n < super.nr_ready; slot.n++)
    t_store_flip (store, store_entry_at (&super, slot, slot.n % 2) + 9);
  t_store_flip (store, t_store_place (store, T_STORE_COMMIT, 1,
                                      (spare_t) { 0 }) + 17);
  t_store_flip (store, 17);
  return store;
}

/* Start a program that will be killed: were that while it looks for leaks at its
 * end, LeakSanitizer would complain of the threads that are gone.
 */
static pid_t
spawn_to_be_killed (char *const argv[])
{
  const struct t_spawn how = { .stdout_to = "/dev/null" };
  const char *options = getenv ("ASAN_OPTIONS");
  char *saved = t_str ("%s", options ? options : "");
  pid_t pid;

  setenv ("ASAN_OPTIONS", t_str ("%s:detect_leaks=0", saved), 1);
  pid = t_spawn (argv, &how);
  if (options)
    setenv ("ASAN_OPTIONS", saved, 1);
  else
    unsetenv ("ASAN_OPTIONS");
  return pid;
}

/* A repair that is killed can be begun again. */
static void
test_kill (void)
{
  enum { NR_KILLS = 40 };
  char *store = new_damaged_copy (), *output;
  const uint64_t begun_ms = t_now_ms ();
  uint64_t all_ms;
  unsigned nr_killed = 0;

  t_part ("a repair that is killed");
  T_ASSERT (t_ctl_run (t_str ("check --repair %s", store), &output, NULL)
            == 1);
  all_ms = t_now_ms () - begun_ms + 1;
  unlink (store);
  for (unsigned i = 0; i < NR_KILLS; i++) {
    char *argv[] = {
      t_remapctl (), "check", "--repair",
      store = new_damaged_copy (), NULL
    };
    pid_t pid = spawn_to_be_killed (argv);

    usleep ((useconds_t) (all_ms * 1000 * i / NR_KILLS));       /* anywhere */
    kill (pid, SIGKILL);
    nr_killed += WIFSIGNALED (t_reap (pid, 10000));
    t_ctl_run (t_str ("check --repair %s", store), &output, NULL);
    expect_untouched ("", store, 0, "is sound");
    if (i % 10 == 0)
      expect_served (store);
    unlink (store);
  }
  if (nr_killed == 0)
    T_FAIL ("no repair was killed");
}

int
main (void)
{
  t_begin ("test-remapctl-check-repair", 60);
  if (!t_disk_can (T_DISK_FUSE))
    t_skip ("no nbdfuse");
  make_original ();
  test_one_copy ();
  test_both_copies ();
  test_data ();
  test_refusals ();
  test_read_only ();
  test_kill ();
  test_crash ();
  t_disk_free (disk);
  return t_end ();
}
