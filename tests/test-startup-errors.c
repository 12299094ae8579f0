/* SPDX-License-Identifier: BSD-3-Clause */
/* What cannot be served is refused before nbdkit goes to the background, with
 * a non-zero status and one line that says what is wrong and what to do; and
 * nothing that was there is changed.
 */

#include <config.h>

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_base.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_server.h"

/* The line must name what it is about. */
static void
check_line (const char *line, const char *const *names)
{
  for (; *names != NULL; names++)
    if (strcasestr (line, *names) == NULL)
      T_FAIL ("the line does not name \"%s\": %s", *names, line);
}

#define REFUSED(names, ...)                                             \
  check_line (t_server_refusal (__VA_ARGS__),                           \
              (const char *const []) { T_NAMES names, NULL })
#define T_NAMES(...) __VA_ARGS__

/* Each of these parameters must be refused, beside a good backing. */
static const struct { const char *param, *name; } wrong[] = {
  { "retries=-1", "retries" },
  { "retries=", "retries" },
  { "retries=many", "retries" },
  { "retries=2x", "retries" },
  { "retries=99999999999999999999", "retries" },
  { "deadline=0", "deadline" },
  { "deadline=3601", "deadline" },
  { "deadline=-5", "deadline" },
  { "deadline=1.5", "deadline" },
  { "deadline=10s", "deadline" },
  { "deadline=never", "deadline" },
  { "deadline=", "deadline" },
  { "on-lost=ignore", "on-lost" },
  { "on-lost=", "on-lost" },
  { "direct=maybe", "direct" },
  { "adopt=perhaps", "adopt" },
  { "new-store=2much", "new-store" },
  { "spare-size=lots", "spare-size" },
  { "spare-size=-64K", "spare-size" },
  { "spare-size=0", "spare-size" },
  { "spare-size=1K", "spare-size" },
  { "spare-size=1000000T", "spare-size" },
  { "control=/nonexistent-dir/socket", "/nonexistent-dir" },
  { "spare=/nonexistent-dir/store", "/nonexistent-dir" },
  { "spare=/", "directory" },
  { "spare=", "spare" },
  { "nonsense=1", "nonsense" },
};
#define NR_WRONG (sizeof wrong / sizeof wrong[0])

static void
test_parameters (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);

  t_part ("parameters");
  for (size_t i = 0; i < NR_WRONG; i++) {
    REFUSED ((wrong[i].name), "backing=%s %s", d->path, wrong[i].param);
    if (access (d->store, F_OK) == 0)
      T_FAIL ("%s was refused, but has left a store", wrong[i].param);
  }
  REFUSED (("unknown"), "backing=%s sparesize=64K", d->path);
  t_disk_free (d);
}

static void
test_backing (void)
{
  char *dir = t_path ("dir"), *fifo = t_path ("fifo");

  t_part ("backing");
  mkdir (dir, 0700);
  mkfifo (fifo, 0600);
  REFUSED (("backing"), "%s", "retries=1");
  REFUSED (("No such file", "none"), "backing=%s", t_path ("none"));
  REFUSED (("No such file"), "backing=%s", t_path ("no/dir/at/all"));
  REFUSED (("directory"), "backing=%s", dir);
  REFUSED (("fifo"), "backing=%s", fifo);
  REFUSED (("/dev/null"), "%s", "backing=/dev/null");
  T_ASSERT (access (t_path ("none"), F_OK) == -1);
  T_ASSERT (access (t_path ("none.remap"), F_OK) == -1);
}

/* A file that is no store stays as it is. */
static void
check_no_store (struct t_disk *d, const char *path)
{
  char *before = t_path ("before");

  t_image_copy (path, before);
  REFUSED ((path), "backing=%s spare=%s", d->path, path);
  REFUSED ((path), "backing=%s spare=%s adopt=yes", d->path, path);
  T_ASSERT (t_image_equal (before, path));
}

static void
test_no_store (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);
  char *text = t_path ("diary.txt"), *zeroes = t_path ("zeroes");

  t_part ("a file that is no store");
  t_write_file (text, "Dear diary,\n");
  t_image_create (zeroes, 8 << 20, 0);
  check_no_store (d, text);
  check_no_store (d, zeroes);
  REFUSED (("store"), "backing=%s spare=%s", d->path, d->path);
  t_disk_free (d);
}

static void
test_locked (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);
  struct t_disk *other = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);
  struct t_server *s = t_server_start ("backing=%s", d->path);
  char *pid = t_str ("%d", s->pid);

  t_part ("in use");
  REFUSED ((pid), "backing=%s", d->path);
  REFUSED ((d->path), "backing=%s spare=%s", d->path, t_path ("elsewhere"));
  REFUSED ((d->store), "backing=%s spare=%s", other->path, d->store);
  T_ASSERT (t_server_is_alive (s));
  t_server_kill (s);
  t_server_restart (s);         /* a dead server holds nothing */
  t_server_stop (s);
  t_disk_free (other);
  t_disk_free (d);
}

static void
test_size (void)
{
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);
  struct t_server *s = t_server_start ("backing=%s spare-size=1M", d->path);

  t_part ("a smaller store");
  t_server_stop (s);
  REFUSED (("spare-size"), "backing=%s spare-size=512K", d->path);
  t_server_restart_with (s, "backing=%s", d->path);
  t_server_stop (s);
  t_server_restart_with (s, "backing=%s spare-size=2M", d->path);
  t_server_stop (s);
  REFUSED (("spare-size"), "backing=%s spare-size=1M", d->path);
  t_disk_free (d);
}

static void
test_nbd (void)
{
  char *nobody = t_str ("nbd+unix:///?socket=%s", t_path ("nobody"));
  char *store = t_path ("nbd-store");
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, 8 << 20, NULL);

  t_part ("NBD");
  REFUSED ((nobody, "No such file"), "backing=%s spare=%s", nobody, store);
  REFUSED (("nbd://127.0.0.1:1", "refused"),
           "backing=nbd://127.0.0.1:1 spare=%s", store);
  REFUSED ((nobody, "No such file"), "backing=%s spare=%s", d->path, nobody);
  REFUSED (("http", "nbd://"), "backing=http://localhost/ spare=%s", store);
  REFUSED (("http", "nbd://"), "backing=%s spare=http://localhost/", d->path);
  REFUSED (("socket"), "backing=nbd+unix:/// spare=%s", store);
  REFUSED (("timeout"), "backing=%s timeout=0", d->path);
  REFUSED (("timeout"), "backing=%s timeout=soon", d->path);
  T_ASSERT (access (store, F_OK) == -1);
  t_disk_free (d);
}

/* A backing that is there, but no store is named. */
static void
test_nbd_without_store (void)
{
  char *image = t_path ("exported");
  struct t_fault *f;

  t_part ("NBD without a store");
  t_image_create (image, 8 << 20, 1);
  f = t_fault_start (image, "", false);
  REFUSED ((f->uri, "spare="), "backing=%s direct=off", f->uri);
  t_fault_stop (f);
}

/* direct=on where direct I/O cannot be had. */
static void
test_direct (void)
{
  t_part ("direct=on");
  if (access ("/proc/version", R_OK) == -1) {
    t_skip_part ("/proc is missing");
    return;
  }
  /* A file of procfs: it has no direct I/O on any kernel. */
  REFUSED (("/proc/version"), "-r backing=/proc/version direct=on spare=%s",
           t_path ("direct-store"));
}

int
main (void)
{
  t_begin ("test-startup-errors", 40);
  test_parameters ();
  test_backing ();
  test_no_store ();
  test_locked ();
  test_size ();
  test_direct ();
  test_nbd ();
  test_nbd_without_store ();
  return t_end ();
}
