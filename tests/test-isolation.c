/* SPDX-License-Identifier: BSD-3-Clause */
/* The largest request, 32 MiB, over bad sectors at random places, alone and in
 * runs: they alone are lost (read) or remapped (written), each is touched no
 * more than 1 + retries times, and all others are read and written in place.
 *
 * REMAP_TEST_SEED=N repeats a run.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

enum {
  REQUEST = 65536,              /* sectors: 32 MiB */
  FIRST = 1000,                 /* of each request, at no round place */
  NR_SECTORS = FIRST + REQUEST + 1000,
  NR_RUNS = 16, RUN_MAX = 5,
};

static unsigned seed, base_seed;
static bool is_bad[NR_SECTORS];
static unsigned nr_bad;

/* Bad sectors inside of the request, among them its first and its last one. */
static char *
choose_faults (const char *op)
{
  char *text = malloc (NR_RUNS * RUN_MAX * 32);
  size_t n = 0;

  if (text == NULL)
    T_FAIL ("out of memory");
  memset (is_bad, 0, sizeof is_bad);
  is_bad[FIRST] = is_bad[FIRST + REQUEST - 1] = true;
  for (unsigned i = 0; i < NR_RUNS - 2; i++) {
    unsigned at = FIRST + rand_r (&seed) % (REQUEST - RUN_MAX);
    unsigned nr = rand_r (&seed) % 2 ? 1 : 1 + rand_r (&seed) % RUN_MAX;

    while (nr-- > 0)
      is_bad[at + nr] = true;
  }
  nr_bad = 0;
  for (unsigned i = 0; i < NR_SECTORS; i++)
    if (is_bad[i]) {
      n += sprintf (text + n, "%s %u\n", op, i);
      nr_bad++;
    }
  return text;
}

static void
check_touches (struct t_disk *d, const char *ops, unsigned least, unsigned most)
{
  for (unsigned i = 0; i < NR_SECTORS; i++)
    if (is_bad[i]) {
      unsigned n = t_fault_touches (d->fault, ops, i);

      if (n < least || n > most)
        T_FAIL ("REMAP_TEST_SEED=%u: sector %u was touched %u times, not %u to "
                "%u", base_seed, i, n, least, most);
    }
}

/* Every sector but the bad ones: reads so, and (in place) is so. */
static void
check_others (struct nbd_handle *h, struct t_disk *d, uint32_t gen)
{
  for (unsigned i = FIRST; i < FIRST + REQUEST; ) {
    unsigned n = 0;

    while (i + n < FIRST + REQUEST && !is_bad[i + n])
      n++;
    if (n > 0) {
      t_nbd_expect (h, i, n, gen);
      t_image_check (d->image, i, n, gen);
    }
    i += n ? n : 1;
  }
}

static void
check_reads (struct nbd_handle *h, struct t_disk *d, unsigned retries)
{
  char *faults = choose_faults ("read");

  t_fault_set (d->fault, "%s", faults);
  t_fault_mark (d->fault);
  T_ERRNO (t_nbd_touch (h, FIRST, REQUEST), EIO);
  check_touches (d, "r", 1, 1 + retries);
  T_ASSERT (t_ctl_count (d->store, "lost") == nr_bad);
  T_ASSERT (t_ctl_count (d->store, "remapped") == 0);
  check_others (h, d, 1);

  t_fault_mark (d->fault);      /* known from now on */
  T_ERRNO (t_nbd_touch (h, FIRST, REQUEST), EIO);
  T_OK (t_nbd_put (h, FIRST, REQUEST, 2));
  t_nbd_expect (h, FIRST, REQUEST, 2);
  check_touches (d, "rwzt", 0, 0);
  T_ASSERT (t_ctl_count (d->store, "lost") == 0);
  T_ASSERT (t_ctl_count (d->store, "remapped") == nr_bad);
  free (faults);
}

/* Sectors that were remapped by the reads are so for ever: others are bad. */
static void
check_writes (struct nbd_handle *h, struct t_disk *d, unsigned retries)
{
  const unsigned nr_before = nr_bad;
  static bool was_bad[NR_SECTORS];
  unsigned nr_again = 0;
  char *faults;

  memcpy (was_bad, is_bad, sizeof was_bad);
  faults = choose_faults ("write");
  t_fault_set (d->fault, "%s", faults);
  t_fault_mark (d->fault);
  T_OK (t_nbd_put (h, FIRST, REQUEST, 3));
  for (unsigned i = 0; i < NR_SECTORS; i++) {
    nr_again += was_bad[i] && is_bad[i];
    if (was_bad[i])
      is_bad[i] = false;
  }
  check_touches (d, "wzt", 1, 1 + retries);
  T_ASSERT (t_ctl_count (d->store, "remapped")
            == nr_before + nr_bad - nr_again);
  t_nbd_expect (h, FIRST, REQUEST, 3);
  for (unsigned i = 0; i < NR_SECTORS; i++)
    is_bad[i] |= was_bad[i];
  check_others (h, d, 3);
  t_nbd_expect (h, 0, FIRST, 1);
  t_nbd_expect (h, FIRST + REQUEST, NR_SECTORS - FIRST - REQUEST, 1);
  free (faults);
}

static void
test_retries (enum t_disk_kind kind, unsigned retries)
{
  const struct t_disk_options options = { .gen = 1 };
  struct t_disk *d = t_disk_new (kind, NR_SECTORS * T_SECTOR, &options);
  struct t_server *s = t_server_start ("%s retries=%u", t_disk_params (d),
                                       retries);
  struct nbd_handle *h = t_nbd_connect (s);

  check_reads (h, d, retries);
  check_writes (h, d, retries);
  t_server_kill (s);
  t_nbd_close (h);
  t_server_restart (s);
  h = t_nbd_connect (s);
  t_nbd_expect (h, FIRST, REQUEST, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

static void
test (enum t_disk_kind kind)
{
  t_part ("%s, retries=2", t_disk_kind_name (kind));
  test_retries (kind, 2);
  if (kind != T_DISK_FUSE)
    return;
  t_part ("%s, retries=5", t_disk_kind_name (kind));
  test_retries (kind, 5);
}

int
main (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");

  t_begin ("test-isolation", 60);
  base_seed = given ? (unsigned) strtoul (given, NULL, 0)
    : (unsigned) time (NULL);
  seed = base_seed;
  printf ("REMAP_TEST_SEED=%u\n", base_seed);
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
