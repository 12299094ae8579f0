/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks that end within a sector, from one byte on, with direct I/O and without:
 * the last sector is read and written, whole and in part, zeroed and trimmed;
 * lost and healed where it is bad; and nothing grows.
 */

#include <config.h>

#include <errno.h>
#include <sys/stat.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

static const uint64_t sizes[] = { 1, 511, 513, 4095, 4097, 100 * T_SECTOR + 1 };
enum { NR_SIZES = 6 };

static uint64_t size;

static uint64_t
begin_of_last (void)
{
  return (size - 1) / T_SECTOR * T_SECTOR;
}

/* All of it is of generation 1, but the last sector, of this one. */
static void
expect_last (struct nbd_handle *h, uint32_t gen)
{
  const uint64_t last = begin_of_last ();
  char buf[100 * T_SECTOR + 1];

  T_OK (t_nbd_read (h, buf, size, 0));
  t_pattern_check (buf, last, 0, 1, "before the last sector");
  t_pattern_check (buf + last, size - last, last, gen, "the last sector");
  nbd_set_strict_mode (h, 0);   /* let the server refuse it */
  T_ASSERT (t_nbd_read (h, buf, 2, size - 1) != 0);
  T_ASSERT (t_nbd_write (h, buf, 2, size - 1) != 0);
}

static void
put_last (struct nbd_handle *h, uint64_t from, uint32_t gen)
{
  char buf[T_SECTOR];

  t_pattern_fill (buf, size - from, from, gen);
  T_OK (t_nbd_write_fua (h, buf, size - from, from));
}

static void
use_last (struct nbd_handle *h)
{
  const uint64_t last = begin_of_last ();
  char buf[T_SECTOR];

  put_last (h, last, 2);
  expect_last (h, 2);
  T_OK (t_nbd_zero (h, size - last, last));
  expect_last (h, 0);
  T_OK (t_nbd_trim (h, size - last, last));
  expect_last (h, 0);
  put_last (h, size - 1, 3);
  T_OK (t_nbd_read (h, buf, size - last, last));
  t_pattern_check (buf, size - 1 - last, last, 0, "before the last byte");
  t_pattern_check (buf + (size - 1 - last), 1, size - 1, 3, "the last byte");
  put_last (h, last, 4);
  T_OK (t_nbd_flush (h));
}

static void
check_size (const struct t_disk *d)
{
  struct stat st;

  T_ASSERT (stat (d->image, &st) == 0 && (uint64_t) st.st_size == size);
}

static void
restart (struct t_server *s, struct nbd_handle **h)
{
  t_server_kill (s);
  t_nbd_close (*h);
  t_server_restart (s);
  *h = t_nbd_connect (s);
}

static void
test_plain (const char *direct)
{
  const struct t_disk_options options = { .gen = 1 };
  struct t_disk *d = t_disk_new (T_DISK_PLAIN, size, &options);
  struct t_server *s = t_server_start ("%s direct=%s", t_disk_params (d),
                                       direct);
  struct nbd_handle *h = t_nbd_connect (s);

  T_ASSERT ((uint64_t) nbd_get_size (h) == size);
  expect_last (h, 1);
  use_last (h);
  restart (s, &h);
  expect_last (h, 4);
  t_nbd_close (h);
  t_server_stop (s);
  check_size (d);
  T_ASSERT (t_ctl_count (d->store, "remapped") == 0);
  t_disk_free (d);
}

static void
test_bad (void)
{
  const uint64_t last = begin_of_last ();
  const struct t_disk_options options = {
    .gen = 1, .faults = t_str ("both %llu\n",
                               (unsigned long long) last / T_SECTOR),
  };
  struct t_disk *d = t_disk_new (T_DISK_FUSE, size, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));
  struct nbd_handle *h = t_nbd_connect (s);
  char buf[T_SECTOR] = { 0 };

  T_ERRNO (t_nbd_read (h, buf, 1, size - 1), EIO);
  T_ASSERT (t_ctl_count (d->store, "lost") == 1);
  if (size - last > 1)
    T_ERRNO (t_nbd_write (h, buf, 1, size - 1), EIO);
  restart (s, &h);
  T_ERRNO (t_nbd_read (h, buf, 1, size - 1), EIO);
  t_fault_mark (d->fault);
  use_last (h);
  T_ASSERT (t_fault_touches (d->fault, "rwzt", last / T_SECTOR) == 0);
  restart (s, &h);
  expect_last (h, 4);
  t_nbd_close (h);
  t_server_stop (s);
  check_size (d);
  T_ASSERT (t_ctl_count (d->store, "remapped") == 1);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  static const char *const direct[] = { "on", "off", "auto" };

  t_begin ("test-odd-sizes", 60);
  for (unsigned i = 0; i < NR_SIZES; i++) {
    size = sizes[i];
    for (unsigned k = 0; k < 3; k++) {
      t_part ("%llu bytes, direct=%s", (unsigned long long) size, direct[k]);
      test_plain (direct[k]);
    }
    if (!t_disk_can (T_DISK_FUSE))
      continue;
    t_part ("%llu bytes, a bad last sector", (unsigned long long) size);
    test_bad ();
  }
  return t_end ();
}
