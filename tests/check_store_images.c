/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores with one fault each, as images/images.c makes them: each is opened
 * right and repaired, or refused with a message of its own and not changed; and
 * the check says the same of it.
 */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checked.h"
#include "dev-fault.h"
#include "error.h"
#include "images/images.h"
#include "log.h"
#include "store-check.h"
#include "store-load.h"

static struct image_case *cases;
static size_t nr_cases;

/* The base: a backing with bad sectors, and the bytes of its store. */
static struct dev_fault *base_backing;
static struct image base;

/* The rig of the case under test; what was logged. */
static struct fault_rig rig;
static char log_text[65536];
static bool has_warned;

static void
keep_log (int level, const char *message)
{
  size_t n = strlen (log_text);

  if (strstr (message, "spares left"))  /* true of all images */
    return;
  snprintf (log_text + n, sizeof log_text - n, "%d: %s\n", level, message);
  has_warned |= level <= LEVEL_WARNING;
}

static void
must (int r, const char *what)
{
  if (r == 0)
    return;
  fprintf (stderr, "check_store_images: %s: %s\n", what, last_error_text ());
  exit (1);
}

/* What each sector of the base is. */

#define LOST UINT64_MAX
#define ZEROES (UINT64_MAX - 1)

static uint64_t
version_of (uint64_t lba)
{
  if (lba >= 10 && lba < 13)
    return LOST;
  if (lba >= 118 && lba < 120)
    return ZEROES;
  if (lba == 100)
    return 2;
  return (lba >= 101 && lba < 120) || (lba >= 130 && lba < 160) ? 1 : 0;
}

static void
spoil_next_slot (void)
{
  struct store_super super;
  uint8_t block[STORE_BLOCK];

  dev_fault_peek (rig.store, block, sizeof block, 0);
  must (store_super_decode (block, 0, &super) != NULL, "superblock");
  dev_fault_spoil (rig.store,
                   store_data_at (&super, (spare_t) { 20 }) / 512, 1,
                   DEV_FAULT_BAD_WRITE, 1, 0);
}

static void
make_records (void)
{
  uint8_t buf[512];

  dev_fault_spoil (rig.backing, 100, 20, DEV_FAULT_BAD, 0, 0);
  dev_fault_spoil (rig.backing, 130, 30, DEV_FAULT_BAD, 0, 0);
  dev_fault_spoil (rig.backing, 10, 3, DEV_FAULT_BAD_READ, 0, 0);
  must (fault_rig_write (&rig, 100, 20, 1, 0), "write");
  spoil_next_slot ();
  must (fault_rig_write (&rig, 100, 1, 2, DEV_FUA), "rewrite");
  must (engine_zero (rig.engine, 2 * 512, 118 * 512, 0), "zero");
  for (unsigned i = 10; i < 13; i++)
    must (engine_pread (rig.engine, buf, 512, i * 512) != -1, "lose");
}

static void
take_base (void)
{
  base.size_bytes = dev_fault_size (rig.store);
  base.bytes = malloc (base.size_bytes);
  dev_fault_peek (rig.store, base.bytes, base.size_bytes, 0);
  must (store_super_decode (base.bytes, 0, &base.super) != NULL,
        "superblock");
  must (base.super.nr_sections != 2 || base.super.nr_ready != BASE_SLOTS ||
        store_super_slots (&base.super) != BASE_SLOTS, "sections");
}

static void
make_base (void)
{
  fault_rig_init (&rig, &(struct dev_fault_options) {
                    .size_bytes = BASE_NR_SECTORS * 512 },
                  &(struct dev_fault_options) { .size_bytes = 0 });
  rig.spare_bytes = 32 * 512;
  must (fault_rig_open (&rig), "make");
  make_records ();
  fault_rig_close (&rig);
  rig.spare_bytes = 64 * 512;
  must (fault_rig_open (&rig), "make larger");
  must (fault_rig_write (&rig, 130, 30, 1, 0), "write more");
  fault_rig_close (&rig);
  take_base ();
  base_backing = dev_fault_clone (rig.backing);
  fault_rig_free (&rig);
}

/* A case. */

static void
make_image (const struct image_case *c, struct image *ret)
{
  *ret = base;
  ret->bytes = malloc (base.size_bytes);
  memcpy (ret->bytes, base.bytes, base.size_bytes);
  images_make (c, ret);
}

static void
begin (const struct image *image)
{
  rig = (struct fault_rig) {
    .backing = dev_fault_clone (base_backing),
    .store = dev_fault_new (&(struct dev_fault_options) {
                              .size_bytes = image->size_bytes }),
    .options = { .retries = 2 },
  };
  dev_fault_poke (rig.store, image->bytes, image->size_bytes, 0);
  log_text[0] = '\0';
  has_warned = false;
  log_set_callback (keep_log);
}

static void
end (struct image *image)
{
  log_set_callback (NULL);
  fault_rig_free (&rig);
  free (image->bytes);
}

/* The check, of these bytes in a file. */

struct findings {
  char text[65536];
};

static void
keep_finding (void *opaque, int damage, const char *problem)
{
  struct findings *f = opaque;
  size_t n = strlen (f->text);

  snprintf (f->text + n, sizeof f->text - n, "%d: %s\n", damage, problem);
}

static int
check_bytes (const uint8_t *bytes, size_t size_bytes, struct findings *ret)
{
  int fd = memfd_create ("store", MFD_CLOEXEC), r, err;
  char path[64];

  ck_assert_int_ge (fd, 0);
  ck_assert_int_eq (write (fd, bytes, size_bytes), (ssize_t) size_bytes);
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  ret->text[0] = '\0';
  r = store_check (path, keep_finding, ret);
  err = errno;
  close (fd);
  errno = err;
  return r;
}

static int
check_store_now (struct findings *ret)
{
  size_t size_bytes = dev_fault_size (rig.store);
  uint8_t *bytes = malloc (size_bytes);
  int r;

  dev_fault_peek (rig.store, bytes, size_bytes, 0);
  r = check_bytes (bytes, size_bytes, ret);
  free (bytes);
  return r;
}

static void
expect_check (const struct image_case *c, const struct image *image)
{
  static const int wanted[] = {
    [IMAGE_OPENS] = STORE_NORMAL, [IMAGE_BEHIND] = STORE_NORMAL,
    [IMAGE_REPAIRED] = STORE_REPAIRABLE, [IMAGE_LOSES] = STORE_LASTING,
    [IMAGE_REFUSED] = STORE_FATAL, [IMAGE_NOT_SERVED] = STORE_NORMAL,
    [IMAGE_NO_STORE] = -1,
  };
  struct findings f;
  int r = check_bytes (image->bytes, image->size_bytes, &f);

  if (c->end.result == IMAGE_ODD) {
    ck_assert_msg ((r == STORE_REPAIRABLE || r == STORE_LASTING) &&
                   strstr (f.text, "should be zero"), "%s: the check says %d: "
                   "%s", c->name, r, f.text);
    return;
  }
  ck_assert_msg (r == wanted[c->end.result], "%s: the check says %d: %s",
                 c->name, r, r == -1 ? last_error_text () : f.text);
  if (r == -1)
    ck_assert_msg (errno == EEXIST, "%s: %s", c->name, last_error_text ());
  else
    ck_assert_msg (r == 0 || c->end.result == IMAGE_LOSES ||
                   strstr (f.text, c->end.text),
                   "%s: the check says: %s", c->name, f.text);
}

/* Opened: all sectors, what was said, and the store behind it. */

static void
expect_sector (const struct image_case *c, uint64_t lba)
{
  static const uint8_t zeroes[512];
  uint64_t version = version_of (lba);
  uint8_t buf[512];

  if (c->end.result == IMAGE_LOSES &&
      lba == (c->lost_lba & LBA_MAX))
    version = LOST;
  if (version == LOST) {
    ck_assert_msg (engine_pread (rig.engine, buf, 512, lba * 512) == -1,
                   "%s: sector %d can be read", c->name, (int) lba);
    ck_assert_int_eq (errno, EIO);
    ck_assert_int_eq (fault_rig_state (&rig, lba), SECTOR_LOST);
  }
  else if (version == ZEROES) {
    ck_assert_msg (engine_pread (rig.engine, buf, 512, lba * 512) == 0,
                   "%s: sector %d: %s", c->name, (int) lba,
                   last_error_text ());
    ck_assert_msg (memcmp (buf, zeroes, 512) == 0, "%s: sector %d", c->name,
                   (int) lba);
  }
  else
    ck_assert_msg (fault_rig_read (&rig, lba, 1, version) == 0,
                   "%s: sector %d: %s", c->name, (int) lba,
                   last_error_text ());
}

static void
expect_sectors (const struct image_case *c)
{
  for (uint64_t lba = 0; lba < BASE_NR_SECTORS; lba++)
    expect_sector (c, lba);
  engine_verify (rig.engine);
}

static void
expect_said (const struct image_case *c)
{
  ck_assert_msg (c->end.text == NULL || strstr (log_text, c->end.text),
                 "%s: not said: %s", c->name, log_text);
  if (c->end.result == IMAGE_REPAIRED)
    ck_assert_msg (strstr (log_text, "repaired"), "%s: repaired? %s",
                   c->name, log_text);
  else
    ck_assert_msg (!has_warned, "%s: %s", c->name, log_text);
  if (c->end.result == IMAGE_OPENS || c->end.result == IMAGE_ODD)
    ck_assert_msg (log_text[0] == '\0', "%s: %s", c->name, log_text);
}

static void
expect_compat (const struct image_case *c)
{
  struct store_super super[2];
  uint8_t block[STORE_BLOCK];

  for (unsigned copy = 0; copy < 2; copy++) {
    dev_fault_peek (rig.store, block, sizeof block,
                    copy ? super[0].store_bytes - STORE_BLOCK : 0);
    ck_assert_ptr_null (store_super_decode (block, copy, &super[copy]));
    ck_assert_msg (super[copy].compat == c->end.compat, "%s: features %x",
                   c->name, super[copy].compat);
  }
  ck_assert_uint_eq (super[0].generation, super[1].generation);
}

static void
expect_opens (const struct image_case *c)
{
  struct findings f;
  int r;

  ck_assert_msg (fault_rig_open (&rig) == 0, "%s: %s", c->name,
                 last_error_text ());
  expect_said (c);
  expect_sectors (c);
  ck_assert_int_eq (fault_rig_write (&rig, BASE_LBA_CLEAN, 1, 0, DEV_FUA), 0);
  fault_rig_close (&rig);
  expect_compat (c);

  r = check_store_now (&f);
  ck_assert_msg (r == 0 || c->end.result == IMAGE_ODD, "%s: afterwards: %s",
                 c->name, f.text);
  log_text[0] = '\0';
  ck_assert_msg (fault_rig_open (&rig) == 0, "%s: again: %s", c->name,
                 last_error_text ());
  ck_assert_msg (log_text[0] == '\0', "%s: again: %s", c->name, log_text);
  expect_sectors (c);
  /* The superblock is written anew. */
  fault_rig_close (&rig);
  rig.spare_bytes = 128 * 512;
  ck_assert_int_eq (fault_rig_open (&rig), 0);
  expect_sectors (c);
  fault_rig_close (&rig);
  expect_compat (c);
  r = check_store_now (&f);
  ck_assert_msg (r == 0 || c->end.result == IMAGE_ODD, "%s: grown: %s",
                 c->name, f.text);
}

/* Refused: with its reason, and as it was. */
static void
expect_refused (const struct image_case *c, const struct image *image)
{
  uint8_t *now = malloc (image->size_bytes);

  ck_assert_msg (fault_rig_open (&rig) == -1, "%s: it opens", c->name);
  ck_assert_msg (errno == c->end.err && errno == last_error_errno (),
                 "%s: %s: %s", c->name, errno_text (errno),
                 last_error_text ());
  ck_assert_msg (strstr (last_error_text (), c->end.text), "%s: %s", c->name,
                 last_error_text ());
  ck_assert_uint_eq (dev_fault_calls (rig.store, DEV_FAULT_CHANGES), 0);
  ck_assert_uint_eq (dev_fault_size (rig.store), image->size_bytes);
  dev_fault_peek (rig.store, now, image->size_bytes, 0);
  ck_assert_msg (memcmp (now, image->bytes, image->size_bytes) == 0,
                 "%s: it was changed", c->name);
  free (now);
}

static bool
is_opened (const struct image_case *c)
{
  return c->end.result <= IMAGE_LOSES;
}

START_TEST (store_with_a_fault)
{
  const struct image_case *c = &cases[_i];
  struct image image;

  make_image (c, &image);
  expect_check (c, &image);
  begin (&image);
  if (is_opened (c))
    expect_opens (c);
  else
    expect_refused (c, &image);
  end (&image);
}
END_TEST

/* The base itself: without a fault, nothing is found. */
START_TEST (base_is_good)
{
  static const struct image_case none = {
    .name = "base", .end = { .result = IMAGE_OPENS },
  };
  struct image image = base;
  struct findings f;

  image.bytes = malloc (base.size_bytes);
  memcpy (image.bytes, base.bytes, base.size_bytes);
  ck_assert_msg (check_bytes (image.bytes, image.size_bytes, &f) == 0, "%s",
                 f.text);
  begin (&image);
  expect_opens (&none);
  end (&image);
}
END_TEST

/* Whoever is told the same has the same fault. */

struct refusal {
  const struct image_case *c;
  char text[1024];
};

static void
refuse (const struct image_case *c, struct refusal *ret)
{
  struct image image;

  make_image (c, &image);
  begin (&image);
  ck_assert_int_eq (fault_rig_open (&rig), -1);
  *ret = (struct refusal) { .c = c };
  snprintf (ret->text, sizeof ret->text, "%s", last_error_text ());
  end (&image);
}

START_TEST (refusals_tell_faults_apart)
{
  struct refusal *refusals = calloc (nr_cases, sizeof *refusals);
  size_t nr = 0;

  for (size_t i = 0; i < nr_cases; i++)
    if (!is_opened (&cases[i]))
      refuse (&cases[i], &refusals[nr++]);
  ck_assert_uint_gt (nr, 100);
  for (size_t i = 0; i < nr; i++)
    for (size_t k = 0; k < i; k++)
      ck_assert_msg (strcmp (refusals[i].text, refusals[k].text) != 0 ||
                     strcmp (refusals[i].c->class, refusals[k].c->class) == 0,
                     "%s, and %s: %s", refusals[i].c->name,
                     refusals[k].c->name, refusals[i].text);
  free (refusals);
}
END_TEST

/* The list makes no case twice, and each changes something. */
START_TEST (cases_differ)
{
  for (size_t i = 0; i < nr_cases; i++) {
    struct image image;

    for (size_t k = 0; k < i; k++)
      if (strcmp (cases[i].name, cases[k].name) == 0)
        ck_abort_msg ("twice: %s", cases[i].name);
    make_image (&cases[i], &image);
    ck_assert_msg (image.size_bytes != base.size_bytes ||
                   memcmp (image.bytes, base.bytes, base.size_bytes) != 0,
                   "%s changes nothing", cases[i].name);
    free (image.bytes);
  }
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("store_images");
  TCase *tc = tcase_create ("images");
  SRunner *runner;
  int nr_failed;

  make_base ();
  cases = images_list (&nr_cases);
  printf ("%zu images\n", nr_cases);
  tcase_set_timeout (tc, 250);
  tcase_add_test (tc, base_is_good);
  tcase_add_test (tc, cases_differ);
  tcase_add_loop_test (tc, store_with_a_fault, 0, (int) nr_cases);
  tcase_add_test (tc, refusals_tell_faults_apart);
  suite_add_tcase (suite, tc);
  runner = srunner_create (suite);
  /* Making the base has left a thread of liburcu behind, which a fork loses. */
  srunner_set_fork_status (runner, CK_NOFORK);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  dev_fault_free (base_backing);
  free (base.bytes);
  free (cases);
  return nr_failed == 0 ? 0 : 1;
}
