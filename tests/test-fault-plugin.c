/* SPDX-License-Identifier: BSD-3-Clause */
/* The failing disk of the other tests (support/fault-plugin.c) fails as it is
 * told, and not otherwise: what the other tests show depends on it.
 */

#include <config.h>

#include <errno.h>

#include "t_fault.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

enum { NR_SECTORS = 2048 };

static struct t_fault *fault;
static struct nbd_handle *h;

static void
test_places (void)
{
  t_part ("places and kinds");
  t_fault_set (fault, "read 10\nwrite 20-21 # comment\n\nboth 30\ntrim 40\n");
  T_ERRNO (t_nbd_touch (h, 10, 1), EIO);
  T_ERRNO (t_nbd_touch (h, 0, 64), EIO);
  T_ERRNO (t_nbd_read (h, &(char) { 0 }, 1, 11 * T_SECTOR - 1), EIO);
  T_OK (t_nbd_touch (h, 9, 1));
  T_OK (t_nbd_touch (h, 11, 19));
  T_OK (t_nbd_put (h, 10, 10, 2));
  T_ERRNO (t_nbd_put (h, 16, 8, 2), EIO);
  T_ERRNO (t_nbd_put (h, 21, 1, 2), EIO);
  T_ERRNO (t_nbd_zero (h, T_SECTOR, 20 * T_SECTOR), EIO);
  T_OK (t_nbd_put (h, 22, 1, 2));
  T_ERRNO (t_nbd_put (h, 30, 1, 2), EIO);
  T_ERRNO (t_nbd_touch (h, 30, 1), EIO);
  T_OK (t_nbd_trim (h, T_SECTOR, 30 * T_SECTOR));
  T_ERRNO (t_nbd_trim (h, T_SECTOR, 40 * T_SECTOR), EIO);
  T_OK (t_nbd_flush (h));
  t_image_check (fault->image, 16, 4, 2);
  t_image_check (fault->image, 20, 2, 1); /* nothing of a failed request */
}

static void
test_counters (void)
{
  t_part ("times, until-write");
  t_fault_set (fault, "%s", "read 50 times=2\nwrite 51 times=1\n"
               "read 52 until-write\nflush times=1\n");
  T_ERRNO (t_nbd_touch (h, 50, 1), EIO);
  T_ERRNO (t_nbd_touch (h, 48, 8), EIO);
  T_ERRNO (t_nbd_touch (h, 52, 1), EIO);
  T_OK (t_nbd_touch (h, 50, 1));
  T_ERRNO (t_nbd_put (h, 51, 1, 3), EIO);
  T_OK (t_nbd_put (h, 51, 1, 3));
  T_ERRNO (t_nbd_touch (h, 52, 1), EIO);
  T_OK (t_nbd_write (h, "x", 1, 52 * T_SECTOR));
  T_ERRNO (t_nbd_touch (h, 52, 1), EIO);
  T_OK (t_nbd_put (h, 52, 1, 3));
  t_nbd_expect (h, 51, 2, 3);
  T_ERRNO (t_nbd_flush (h), EIO);
  T_OK (t_nbd_flush (h));
}

static void
test_errnos (void)
{
  static const struct { const char *name; int err; } errors[] = {
    { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EPERM", EPERM },
    { "ENOMEM", ENOMEM }, { "EINVAL", EINVAL }, { "ESHUTDOWN", ESHUTDOWN },
  };

  t_part ("errnos");
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    t_fault_set (fault, "both 60 errno=%s", errors[i].name);
    T_ERRNO (t_nbd_touch (h, 60, 1), errors[i].err);
    T_ERRNO (t_nbd_put (h, 60, 1, 2), errors[i].err);
  }
  t_fault_set (fault, "both 60 errno=ENODATA"); /* NBD cannot say this */
  T_ERRNO (t_nbd_touch (h, 0, 1), EINVAL);
  t_fault_set (fault, "%s", "");
  T_OK (t_nbd_touch (h, 0, 1));
}

static void
test_torn_and_slow (void)
{
  char sector[T_SECTOR];
  uint64_t start;

  t_part ("torn, slow");
  T_OK (t_nbd_put (h, 100, 8, 1));
  t_fault_set (fault, "write 103 torn\nread 110 errno=0 delay-ms=50\n");
  T_ERRNO (t_nbd_put (h, 100, 8, 2), EIO);
  t_image_check (fault->image, 100, 3, 2);
  t_image_check (fault->image, 104, 4, 1);
  t_image_read (fault->image, sector, T_SECTOR, 103 * T_SECTOR);
  T_ASSERT (!t_pattern_matches (sector, T_SECTOR, 103 * T_SECTOR, 1, NULL));
  T_ASSERT (!t_pattern_matches (sector, T_SECTOR, 103 * T_SECTOR, 2, NULL));
  t_fault_mark (fault);
  start = t_now_ms ();
  T_OK (t_nbd_touch (h, 110, 1));
  T_ASSERT (t_now_ms () - start >= 50);
  T_ASSERT (t_fault_touches (fault, "d", 110) == 1);
}

/* A physical sector fails as one, but no byte changes behind the request. */
static void
test_physical (void)
{
  const struct t_fault_options options = {
    .faults = "write 503 torn\n", .params = "physical=4096",
  };
  struct t_fault *physical = t_fault_start_with (fault->image, &options);
  struct t_server server = { .socket = physical->socket };
  struct nbd_handle *h2 = t_nbd_connect (&server);

  t_part ("physical sectors");
  T_OK (t_nbd_put (h, 496, 24, 1));
  T_OK (t_nbd_put (h2, 488, 8, 2));
  T_OK (t_nbd_put (h2, 504, 8, 2));
  T_ERRNO (t_nbd_put (h2, 496, 2, 2), EIO);
  T_ERRNO (t_nbd_put (h2, 498, 1, 2), EIO);
  t_image_check (fault->image, 496, 3, 2);
  t_image_check (fault->image, 499, 5, 1);
  t_nbd_close (h2);
  t_fault_stop (physical);
}

static void
test_extents (void)
{
  t_part ("extents");
  T_OK (t_nbd_put (h, 384, 64, 1));
  T_OK (t_nbd_trim (h, 16 * T_SECTOR, 400 * T_SECTOR));
  T_ASSERT (t_nbd_status_of (h, 399 * T_SECTOR) == 0);
  T_ASSERT (t_nbd_status_of (h, 400 * T_SECTOR) ==
            (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO));
  T_ASSERT (t_nbd_status_of (h, 416 * T_SECTOR) == 0);
  T_ASSERT (t_nbd_check_zero_extents (h) >= 16 * T_SECTOR);
}

static void
test_log (void)
{
  t_part ("log");
  t_fault_set (fault, "both 200\n");
  t_fault_mark (fault);
  T_ASSERT (t_fault_requests (fault, "rwztf") == 0);
  T_OK (t_nbd_touch (h, 192, 8));
  T_ERRNO (t_nbd_touch (h, 192, 9), EIO);
  T_ERRNO (t_nbd_put (h, 200, 1, 2), EIO);
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_fault_touches (fault, "r", 200) == 1);
  T_ASSERT (t_fault_touches (fault, "rw", 200) == 2);
  T_ASSERT (t_fault_touches (fault, "rw", 201) == 0);
  T_ASSERT (t_fault_requests (fault, "r") == 2);
  T_ASSERT (t_fault_failures (fault, "r") == 1);
  T_ASSERT (t_fault_requests (fault, "f") == 1);
}

/* New faults are in force at once, however fast they follow each other. */
static void
test_switching (void)
{
  t_part ("switching");
  for (unsigned i = 0; i < 500; i++) {
    t_fault_set (fault, "read %u\n", 300 + i % 2);
    T_ERRNO (t_nbd_touch (h, 300 + i % 2, 1), EIO);
    T_OK (t_nbd_touch (h, 301 - i % 2, 1));
  }
}

int
main (void)
{
  struct t_server server = { 0 };
  char *image;

  t_begin ("test-fault-plugin", 20);
  image = t_path ("image");
  t_image_create (image, NR_SECTORS * T_SECTOR, 1);
  fault = t_fault_start (image, NULL, false);
  server.socket = fault->socket;
  h = t_nbd_connect (&server);
  t_nbd_expect (h, 0, NR_SECTORS, 1);

  test_places ();
  test_counters ();
  test_errnos ();
  test_torn_and_slow ();
  test_physical ();
  test_extents ();
  test_log ();
  test_switching ();
  t_nbd_close (h);
  t_fault_stop (fault);
  return t_end ();
}
