/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk is an export of another NBD server: its bad sectors are remapped,
 * its block sizes, flags and holes are honoured, and several connections are
 * used where it allows them.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { BAD = 1000, NR_BAD = 4, UNREADABLE = 3000 };

static char *
new_image (uint64_t size, uint32_t gen)
{
  static unsigned counter;
  char *image = t_path ("image-%u", counter++);

  t_image_create (image, size, gen);
  return image;
}

static struct t_server *
serve (const struct t_fault *f, const char *more)
{
  static unsigned counter;
  const unsigned n = counter++;

  return t_server_start ("backing=%s spare=%s control=%s %s", f->uri,
                         t_path ("store-%u", n), t_path ("ctl-%u", n), more);
}

static char *
control_of (const struct t_server *s)
{
  char *begin = strstr (t_str ("%s", s->params), "control=") + 8;

  begin[strcspn (begin, " ")] = '\0';
  return begin;
}

static void
test_bad_sectors (void)
{
  const struct t_fault_options options = {
    .faults = t_str ("both %d-%d\nread %d until-write\n", BAD,
                     BAD + NR_BAD - 1, UNREADABLE),
    .volatile_cache = true,
  };
  char *image = new_image (8 << 20, 1);
  struct t_fault *f = t_fault_start_with (image, &options);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("bad sectors");
  t_nbd_expect (h, 0, BAD, 1);
  T_OK (t_nbd_put (h, BAD - 16, 64, 2));
  t_nbd_expect (h, BAD - 16, 64, 2);
  T_ERRNO (t_nbd_touch (h, UNREADABLE - 1, 3), EIO);
  t_nbd_expect (h, UNREADABLE + 1, 1, 1);
  T_ASSERT (t_ctl_count (control_of (s), "remapped") == NR_BAD);
  T_ASSERT (t_ctl_count (control_of (s), "lost") == 1);
  t_image_check (image, BAD - 16, 16, 2);
  T_ASSERT (t_nbd_write (h, "odd", 3, 12345) == 0);
  t_nbd_close (h);

  t_part ("after kill -9");
  t_server_kill (s);
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, BAD - 16, 64, 2);
  T_ERRNO (t_nbd_touch (h, UNREADABLE, 1), EIO);
  T_OK (t_nbd_put (h, UNREADABLE, 1, 3));
  t_nbd_expect (h, UNREADABLE, 1, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* A note tells which store the export has. */
/* The server makes the last folder of the state directory alone. */
static void
make_parents (const char *path)
{
  for (const char *p = strchr (path + 1, '/'); p; p = strchr (p + 1, '/'))
    mkdir (t_str ("%.*s", (int) (p - path), path), 0755);
}

static void
test_note (void)
{
  const struct t_fault_options options = { .faults = "write 7\n" };
  struct t_fault *f = t_fault_start_with (new_image (8 << 20, 1), &options);
  char *store = t_path ("noted"), *line;
  struct t_server *s;
  struct nbd_handle *h;

  t_part ("its store is known");
  make_parents (REMAP_STATEDIR);
  s = t_server_start ("backing=%s spare=%s direct=off", f->uri, store);
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, 7, 1, 2));
  t_nbd_close (h);
  if (t_server_has_said (s, "will not be noticed")) {
    t_skip_part ("a state directory that can be written");
    t_server_stop (s);
  }
  else {
    T_ASSERT (t_ctl_count (f->uri, "remapped") == 1);   /* asks the server */
    t_server_stop (s);
    T_ASSERT (t_ctl_count (f->uri, "remapped") == 1);   /* asks the store */
    T_ASSERT (unlink (store) == 0);
    line = t_server_refusal ("backing=%s spare=%s direct=off", f->uri, store);
    T_ASSERT (strstr (line, f->uri) && strstr (line, "new-store=yes"));
    line = t_server_refusal ("backing=%s spare=%s direct=off", f->uri,
                             t_path ("other"));
    T_ASSERT (strstr (line, store) != NULL);
  }
  t_fault_stop (f);
}

/* What has to be durable at the server. */
static void
test_durable (void)
{
  const struct t_fault_options options = { .volatile_cache = true };
  char *image = new_image (8 << 20, 1), buf[8 * T_SECTOR];
  struct t_fault *f = t_fault_start_with (image, &options);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("FUA, flush, zero, trim");
  t_pattern_fill (buf, sizeof buf, 100 * T_SECTOR, 2);
  t_fault_mark (f);
  T_OK (t_nbd_put (h, 200, 8, 2));
  T_ASSERT (t_fault_requests (f, "f") == 0);
  T_OK (t_nbd_write_fua (h, buf, sizeof buf, 100 * T_SECTOR));
  T_OK (t_nbd_zero (h, 64 * T_SECTOR, 300 * T_SECTOR));
  T_OK (t_nbd_trim (h, 64 * T_SECTOR, 400 * T_SECTOR));
  T_ASSERT (t_fault_requests (f, "z") == 1);
  T_ASSERT (t_fault_requests (f, "t") == 1);
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_fault_requests (f, "f") >= 1);
  T_OK (t_nbd_put (h, 500, 8, 2));
  t_server_kill (s);
  t_nbd_close (h);
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_image_check (image, 100, 8, 2);
  t_image_check (image, 200, 8, 2);
  t_image_check (image, 300, 64, 0);
  t_image_check (image, 500, 8, 1);     /* nobody asked for more */
  t_fault_restart (f);

  t_part ("direct=on");
  t_server_restart_with (s, "%s direct=on", s->params);
  T_ASSERT (!t_server_has_said (s, "direct=on makes"));
  h = t_nbd_connect (s);
  T_OK (t_nbd_put (h, 600, 8, 2));
  t_server_kill (s);
  t_nbd_close (h);
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_image_check (image, 600, 8, 2);
  t_fault_restart (f);
  t_fault_stop (f);
}

/* The server refuses what does not fit its blocks. */
static void
test_block_sizes (void)
{
  const struct t_fault_options options = {
    .faults = t_str ("both %d\n", BAD),
    .nbdkit = "--filter=blocksize-policy",
    .params = "blocksize-minimum=4096 blocksize-preferred=4096 "
      "blocksize-maximum=64K blocksize-error-policy=error",
  };
  char *image = new_image (8 << 20, 1), buf[3000];
  struct t_fault *f = t_fault_start_with (image, &options);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("block sizes");
  T_ASSERT (t_ctl_status (control_of (s), "sector_size") == 4096);
  t_pattern_fill (buf, sizeof buf, 5001, 2);
  T_OK (t_nbd_write (h, buf, sizeof buf, 5001));
  memset (buf, 0, sizeof buf);
  T_OK (t_nbd_read (h, buf, sizeof buf, 5001));
  t_pattern_check (buf, sizeof buf, 5001, 2, "a write within blocks");
  t_nbd_expect (h, 5001 / T_SECTOR - 1, 1, 1);
  T_OK (t_nbd_put (h, 2048, 4096, 3));  /* 2 MiB */
  t_nbd_expect (h, 2048, 4096, 3);
  T_OK (t_nbd_put (h, BAD / 8 * 8, 8, 4));
  t_nbd_expect (h, BAD / 8 * 8, 8, 4);
  T_ASSERT (t_ctl_count (control_of (s), "remapped") == 1);
  T_OK (t_nbd_zero (h, 10000, 3 << 20));
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_fault_failures (f, "rwztf") > 0);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

static void
test_read_only (void)
{
  const struct t_fault_options options = { .nbdkit = "-r" };
  struct t_fault *f = t_fault_start_with (new_image (8 << 20, 1), &options);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("a read-only export");
  T_ASSERT (t_server_has_said (s, "served read-only"));
  T_ASSERT (nbd_is_read_only (h) == 1);
  t_nbd_expect (h, 0, 64, 1);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

static void
test_holes_and_odd_size (void)
{
  const uint64_t size = (8 << 20) + 700;
  char *image = t_path ("sparse"), buf[200];
  struct nbd_handle *h;
  struct t_server *s;
  struct t_fault *f;

  t_part ("holes, an odd size");
  t_image_create (image, 1 << 20, 1);
  T_ASSERT (truncate (image, (off_t) size) == 0);
  f = t_fault_start_with (image, &(struct t_fault_options) {
                            .faults = t_str ("write %llu\n",
                                             (unsigned long long) size / 512),
                          });
  s = serve (f, "");
  h = t_nbd_connect (s);
  T_ASSERT ((uint64_t) nbd_get_size (h) == size);
  T_ASSERT (t_nbd_check_zero_extents (h) >= 7 << 20);
  T_ASSERT ((t_nbd_status_of (h, 0) & LIBNBD_STATE_ZERO) == 0);
  /* The last sector is short, and bad. */
  t_pattern_fill (buf, sizeof buf, size - sizeof buf, 2);
  T_OK (t_nbd_write (h, buf, sizeof buf, size - sizeof buf));
  memset (buf, 0, sizeof buf);
  T_OK (t_nbd_read (h, buf, sizeof buf, size - sizeof buf));
  t_pattern_check (buf, sizeof buf, size - sizeof buf, 2, "the last sector");
  T_ASSERT (t_ctl_count (control_of (s), "remapped") == 1);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* Several requests that the server sits on, each from a client of its own: it
 * has all of them at the same time, on several connections.
 */

enum { NR_SLOW = 8 };

struct reader {
  pthread_t thread;
  struct t_server *server;
  uint64_t lba;
};

static void *
read_slowly (void *arg)
{
  struct reader *r = arg;
  struct nbd_handle *h = t_nbd_connect (r->server);

  t_nbd_expect (h, r->lba, 1, 1);
  t_nbd_close (h);
  return NULL;
}

static unsigned
count_text (const char *path, const char *text)
{
  unsigned nr = 0;

  for (const char *p = t_read_file (path); (p = strstr (p, text)); p++)
    nr++;
  return nr;
}

static bool
all_are_delayed (void *arg)
{
  return t_fault_requests (arg, "d") == NR_SLOW;
}

static void
test_connections (const char *filters, unsigned nr_expected)
{
  const char *log = t_path ("log-%u", nr_expected);
  const struct t_fault_options options = {
    .nbdkit = t_str ("%s --filter=log", filters),
    .params = t_str ("logfile=%s%s", log, strstr (filters, "multi-conn")
                     ? " multi-conn-mode=disable" : ""),
  };
  struct t_fault *f = t_fault_start_with (new_image (8 << 20, 1), &options);
  struct t_server *s = serve (f, "");
  struct reader readers[NR_SLOW];

  t_part ("%u connections", nr_expected);
  t_fault_set (f, "read 5000-6000 delay-ms=1000 errno=0\n");
  t_fault_mark (f);
  for (unsigned i = 0; i < NR_SLOW; i++) {
    readers[i] = (struct reader) { .server = s, .lba = 5000 + 10 * i };
    T_ASSERT (pthread_create (&readers[i].thread, NULL, read_slowly,
                              &readers[i]) == 0);
  }
  t_wait_until (all_are_delayed, f, 20000, "all requests to be under way");
  T_ASSERT (t_fault_requests (f, "r") < NR_SLOW);       /* none waits for all */
  for (unsigned i = 0; i < NR_SLOW; i++)
    pthread_join (readers[i].thread, NULL);
  for (unsigned i = 1; i <= nr_expected; i++)
    T_ASSERT (count_text (log, t_str ("connection=%u Read", i)) > 0);
  T_ASSERT (count_text (log, t_str ("connection=%u Read",
                                    nr_expected + 1)) == 0);
  t_server_stop (s);
  t_fault_kill (f);             /* the filter leaks memory: no good end */
  free (f);
}

int
main (void)
{
  t_begin ("test-nbd-backing", 60);
  test_bad_sectors ();
  test_note ();
  test_durable ();
  test_block_sizes ();
  test_read_only ();
  test_holes_and_odd_size ();
  test_connections ("", 4);
  test_connections ("--filter=multi-conn", 1);
  return t_end ();
}
