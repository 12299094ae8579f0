/* SPDX-License-Identifier: BSD-3-Clause */
/* The store is an export of an NBD server: made where the export is blank,
 * found again, kept whole when the connection breaks and the server forgets what it
 * had not flushed; and while it cannot be reached nothing is lost for it.
 */

#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { BAD = 1000, NR_BAD = 512, UNREADABLE = 5000 };

static struct t_fault *
start_export (uint64_t size, uint32_t gen, const struct t_fault_options *o)
{
  static unsigned counter;
  char *image = t_path ("image-%u", counter++);

  t_image_create (image, size, gen);
  return t_fault_start_with (image, o);
}

static struct t_fault *
start_disk (void)
{
  return start_export (8 << 20, 1, &(struct t_fault_options) {
                         .faults = t_str ("write %d-%d\nread %d\n", BAD,
                                          BAD + NR_BAD - 1, UNREADABLE),
                         .volatile_cache = true });
}

static const struct t_fault_options any = { .volatile_cache = true };

static char *
params_for (const struct t_fault *disk, const struct t_fault *store,
            const char *more)
{
  return t_str ("backing=%s spare=%s control=%s %s", disk->uri, store->uri,
                t_path ("ctl"), more);
}

static void
expect (struct t_server *s, uint64_t lba, uint64_t nr, uint32_t gen)
{
  struct nbd_handle *h = t_nbd_connect (s);

  t_nbd_expect (h, lba, nr, gen);
  t_nbd_close (h);
}

static void
check_line (const char *line, const char *name)
{
  if (strstr (line, name) == NULL)
    T_FAIL ("the line does not name \"%s\": %s", name, line);
}

static void
test_made_and_found (const struct t_fault_options *options)
{
  struct t_fault *disk = start_disk ();
  struct t_fault *store = start_export (16 << 20, 0, options);
  char *params = params_for (disk, store, ""), *output, *said;
  struct t_server *s = t_server_start ("%s", params);
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("made and found again %s", options->nbdkit ? options->nbdkit : "");
  T_OK (t_nbd_put (h, BAD - 8, 64, 2));
  T_ERRNO (t_nbd_touch (h, UNREADABLE, 1), EIO);
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_ctl_count (t_path ("ctl"), "remapped") == 56);
  t_nbd_close (h);
  t_server_kill (s);
  t_fault_kill (store);
  t_fault_lose_cache (store, 0);
  t_fault_restart (store);
  t_server_restart (s);
  T_ASSERT (t_server_has_said (s, "not closed in good order"));
  expect (s, BAD - 8, 64, 2);
  t_server_stop (s);
  t_server_restart (s);
  T_ASSERT (!t_server_has_said (s, "not closed in good order"));
  expect (s, BAD - 8, 64, 2);
  t_server_stop (s);
  T_ASSERT (t_ctl_count (store->uri, "remapped") == 56);
  T_ASSERT (t_ctl_count (store->uri, "lost") == 1);
  t_ctl_check (store->uri);
  T_ASSERT (t_ctl ("dump", store->uri, &output) == 0);
  T_ASSERT (strstr (output, "nbd") != NULL);
  T_ASSERT (t_ctl_run (t_str ("check --repair %s", store->uri), &output,
                       &said) != 0);
  check_line (said, "the next start");
  t_fault_stop (disk);
  t_fault_stop (store);
}

static void
test_refused (void)
{
  struct t_fault *disk = start_disk ();
  struct t_fault *full = start_export (16 << 20, 1, &any);
  struct t_fault *small = start_export (64 << 10, 0, &any);
  struct t_fault *read_only =
    start_export (16 << 20, 0, &(struct t_fault_options) { .nbdkit = "-r" });

  t_part ("refused");
  check_line (t_server_refusal ("%s", params_for (disk, full, "direct=off")),
              "no store");
  t_image_check (full->image, 0, 32768, 1);
  check_line (t_server_refusal ("%s", params_for (disk, small, "direct=off")),
              "larger device");
  check_line (t_server_refusal ("%s", params_for (disk, read_only,
                                                  "direct=off")),
              "read-only");
  check_line (t_server_refusal ("%s", params_for (disk, disk, "direct=off")),
              "the disk itself");
  t_fault_stop (read_only);
  t_fault_stop (small);
  t_fault_stop (full);
  t_fault_stop (disk);
}

/* One server at a time has an export, as its disk or as its store. */

static void
make_state_directory (void)
{
  char *dir = t_str ("%s", REMAP_STATEDIR);

  for (char *p = strchr (dir + 1, '/'); p; p = strchr (p + 1, '/')) {
    *p = '\0';
    mkdir (dir, 0755);
    *p = '/';
  }
  mkdir (dir, 0755);
}

static void
check_holder (const char *line, const struct t_fault *f, const struct t_server *s)
{
  check_line (line, f->uri);
  check_line (line, t_str ("in use by process %d:", (int) s->pid));
}

static unsigned
nr_locks_of_test (void)
{
  DIR *dir = opendir (REMAP_STATEDIR);
  const char *test = t_path ("%s", "");
  const struct dirent *entry;
  unsigned nr = 0;

  while (dir && (entry = readdir (dir)) != NULL)
    nr += strstr (entry->d_name, ".lock") != NULL &&
      strstr (t_read_file (t_str ("%s/%s", REMAP_STATEDIR, entry->d_name)),
              test) != NULL;
  if (dir)
    closedir (dir);
  return nr;
}

static void
test_second_server (void)
{
  struct t_fault *disk = start_disk (), *other = start_disk ();
  struct t_fault *store = start_export (16 << 20, 0, &any);
  struct t_fault *spare = start_export (16 << 20, 0, &any);
  struct t_server *first, *next;
  unsigned nr_before;

  t_part ("a second server");
  make_state_directory ();
  if (access (REMAP_STATEDIR, W_OK) == -1) {
    t_skip_part ("%s cannot be written", REMAP_STATEDIR);
    return;
  }
  nr_before = nr_locks_of_test ();
  first = t_server_start ("%s", params_for (disk, store, ""));
  T_ASSERT (nr_locks_of_test () == nr_before + 2);
  check_holder (t_server_refusal ("backing=%s spare=%s direct=on", other->uri,
                                  store->uri), store, first);
  check_holder (t_server_refusal ("backing=%s spare=%s direct=on", disk->uri,
                                  spare->uri), disk, first);
  check_holder (t_server_refusal ("backing=%s spare=%s direct=on", store->uri,
                                  spare->uri), store, first);
  check_holder (t_server_refusal ("-r backing=%s spare=%s", disk->uri,
                                  t_path ("none")), disk, first);
  expect (first, 0, 8, 1);
  t_server_kill (first);
  next = t_server_start ("%s", params_for (disk, store, ""));
  expect (next, 0, 8, 1);
  check_holder (t_server_refusal ("backing=%s spare=%s direct=on", other->uri,
                                  store->uri), store, next);
  t_server_stop (next);
  T_ASSERT (nr_locks_of_test () == nr_before);
  t_fault_stop (spare);
  t_fault_stop (store);
  t_fault_stop (other);
  t_fault_stop (disk);
}

/* A password in a URI, which is wrong there, is shown to nobody. */
static void
test_passwords (void)
{
  static const char *const commands[] = {
    "status", "list", "check", "check --repair", "dump",
  };
  static const char *const uris[] = {
    "nbd://u:secret@localhost:1/x", "nbd+unix://u:secret@/x?socket=/none",
    "nbd://u:se/cret@localhost/x",
  };
  char *output, *said;

  t_part ("passwords");
  for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
    for (size_t k = 0; k < sizeof commands / sizeof commands[0]; k++) {
      T_ASSERT (t_ctl_run (t_str ("%s %s", commands[k], uris[i]), &output,
                           &said) != 0);
      check_line (said, "NBD URI");
      T_ASSERT (!strstr (said, "cret") && !strstr (output, "cret"));
    }
    said = t_server_refusal ("backing=%s spare=%s", uris[i], t_path ("none"));
    T_ASSERT (strstr (said, "NBD URI") && !strstr (said, "cret"));
    t_image_create (t_path ("disk"), 1 << 20, 1);
    said = t_server_refusal ("backing=%s spare=%s", t_path ("disk"), uris[i]);
    T_ASSERT (strstr (said, "NBD URI") && !strstr (said, "cret"));
  }
}

/* Sectors are remapped, again and again, while the store's server is killed. */

static atomic_bool enough;
static atomic_uint nr_done;
static uint32_t gens[NR_BAD];

static void *
rewrite (void *arg)
{
  struct nbd_handle *h = t_nbd_connect (arg);
  unsigned seed = 1;

  while (!enough) {
    unsigned at = rand_r (&seed) % NR_BAD, nr = 1 + rand_r (&seed) % 8;
    uint32_t gen = 2 + rand_r (&seed) % 100000;

    if (nr > NR_BAD - at)
      nr = NR_BAD - at;
    T_OK (t_nbd_put (h, BAD + at, nr, gen));
    for (unsigned i = 0; i < nr; i++)
      gens[at + i] = gen;
    if (rand_r (&seed) % 16 == 0)
      T_OK (t_nbd_flush (h));
    nr_done++;
  }
  t_nbd_close (h);
  return NULL;
}

static bool
is_done (void *target)
{
  return nr_done >= *(unsigned *) target;
}

static void
wait_for_more (unsigned nr)
{
  unsigned target = nr_done + nr;

  t_wait_until (is_done, &target, 30000, "requests to be answered");
}

static void
check_rewritten (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);

  for (unsigned i = 0; i < NR_BAD; i++)
    t_nbd_expect (h, BAD + i, 1, gens[i]);
  t_nbd_close (h);
}

static void
test_load (void)
{
  struct t_fault *disk = start_disk ();
  struct t_fault *store = start_export (16 << 20, 0, &any);
  char *params = params_for (disk, store, "");
  struct t_server *s = t_server_start ("%s", params);
  pthread_t thread;

  t_part ("under load");
  for (unsigned i = 0; i < NR_BAD; i++)
    gens[i] = 1;
  T_ASSERT (pthread_create (&thread, NULL, rewrite, s) == 0);
  for (unsigned round = 0; round < 8; round++) {
    wait_for_more (40);
    if (round == 3)
      kill (store->pid, SIGTERM);
    t_fault_kill (store);
    t_fault_lose_cache (store, round % 2);
    t_fault_restart (store);
  }
  wait_for_more (40);
  enough = true;
  pthread_join (thread, NULL);
  check_rewritten (s);
  T_ASSERT (t_server_has_said (s, "is lost"));
  T_ASSERT (t_ctl_count (t_path ("ctl"), "lost") == 0);
  T_ASSERT (t_ctl_status (t_path ("ctl"), "spares_bad") == 0);
  t_server_kill (s);            /* kill -9 loses nothing */
  t_server_restart (s);
  check_rewritten (s);
  t_server_stop (s);
  t_ctl_check (store->uri);
  t_fault_stop (store);
  t_fault_stop (disk);
}

/* It cannot be reached for longer than timeout=. */

static bool
flushes (void *h)
{
  return t_nbd_flush (h) == 0;
}

static void
test_unreachable (void)
{
  struct t_fault *disk = start_disk ();
  struct t_fault *store = start_export (16 << 20, 0, &any);
  char *params = params_for (disk, store, "timeout=1"), *status;
  struct t_server *s = t_server_start ("%s", params);
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("longer than timeout=");
  T_OK (t_nbd_put (h, BAD, 8, 2));
  t_fault_kill (store);
  t_fault_lose_cache (store, 0);
  T_ERRNO (t_nbd_touch (h, BAD, 1), ESHUTDOWN);
  T_ERRNO (t_nbd_put (h, BAD + 100, 8, 2), ESHUTDOWN);
  T_ERRNO (t_nbd_flush (h), ESHUTDOWN);
  T_ERRNO (t_nbd_put (h, BAD, 8, 3), ESHUTDOWN);
  T_ERRNO (t_nbd_touch (h, UNREADABLE, 1), EIO);        /* is not recorded */
  T_OK (t_nbd_put (h, 100, 8, 2));      /* what needs no spare works on */
  t_nbd_expect (h, BAD + 200, 8, 1);

  t_part ("it is back");
  t_fault_restart (store);
  t_wait_until (flushes, h, 20000, "a flush to succeed");
  t_nbd_expect (h, BAD, 8, 2);
  t_nbd_expect (h, BAD + 100, 8, 1);    /* it has not been written */
  T_OK (t_nbd_put (h, BAD + 100, 8, 4));
  T_ERRNO (t_nbd_touch (h, UNREADABLE, 1), EIO);
  T_OK (t_nbd_put (h, UNREADABLE, 1, 4));
  t_nbd_expect (h, UNREADABLE, 1, 4);
  T_OK (t_nbd_flush (h));
  status = t_str ("%s", t_path ("ctl"));
  T_ASSERT (t_ctl_count (status, "lost") == 0);
  T_ASSERT (t_ctl_status (status, "spares_bad") == 0);
  T_ASSERT (!t_server_has_said (s, "until a restart"));
  t_nbd_close (h);
  t_server_kill (s);
  t_fault_kill (store);
  t_fault_lose_cache (store, 0);
  t_fault_restart (store);
  t_server_restart (s);
  expect (s, BAD, 8, 2);
  expect (s, BAD + 100, 8, 4);
  expect (s, UNREADABLE, 1, 4);
  t_server_stop (s);
  t_ctl_check (store->uri);
  t_fault_stop (store);
  t_fault_stop (disk);
}

/* It goes away when one copy of a record is written, and the other is not. */

static void *
put_halfway (void *arg)
{
  struct nbd_handle *h = t_nbd_connect (arg);

  T_ERRNO (t_nbd_put (h, BAD + 100, 8, 2), ESHUTDOWN);
  t_nbd_close (h);
  return NULL;
}

static bool
is_writing (void *store)
{
  return t_fault_requests (store, "d") > 0;
}

static void
test_halfway (void)
{
  struct t_fault *disk = start_disk ();
  struct t_fault *store = start_export (16 << 20, 0, &any);
  char *params = params_for (disk, store, "timeout=1");
  struct t_server *s = t_server_start ("%s", params);
  struct nbd_handle *h = t_nbd_connect (s);
  pthread_t thread;

  t_part ("in the middle of a record");
  T_OK (t_nbd_put (h, BAD, 8, 2));
  t_fault_mark (store);
  t_fault_set (store, "write 2048-32767 delay-ms=100000 errno=0");
  T_ASSERT (pthread_create (&thread, NULL, put_halfway, s) == 0);
  t_wait_until (is_writing, store, 20000, "the second copy to be written");
  t_fault_kill (store);
  pthread_join (thread, NULL);
  t_fault_set (store, "%s", "");
  t_fault_restart (store);
  T_ASSERT (t_server_has_said (s, "until a restart"));
  t_wait_until (flushes, h, 20000, "a flush to succeed");
  T_ERRNO (t_nbd_touch (h, BAD + 100, 8), EIO);
  T_ERRNO (t_nbd_put (h, BAD + 200, 8, 2), EIO);
  T_OK (t_nbd_put (h, 100, 8, 2));
  t_nbd_expect (h, BAD, 8, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD, 8, 2);
  t_nbd_expect (h, BAD + 100, 8, 2);
  t_nbd_expect (h, BAD + 200, 8, 1);
  T_OK (t_nbd_put (h, BAD + 200, 8, 3));
  t_nbd_expect (h, BAD + 200, 8, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (store->uri);
  t_fault_stop (store);
  t_fault_stop (disk);
}

int
main (void)
{
  t_begin ("test-nbd-store", 60);
  test_made_and_found (&any);
  test_made_and_found (&(struct t_fault_options) {
      .volatile_cache = true, .nbdkit = "--filter=blocksize-policy",
      .params = "blocksize-minimum=4096 blocksize-preferred=4096 "
        "blocksize-maximum=64K blocksize-error-policy=error" });
  test_refused ();
  test_second_server ();
  test_passwords ();
  test_load ();
  test_unreachable ();
  test_halfway ();
  return t_end ();
}
