/* SPDX-License-Identifier: BSD-3-Clause */
/* remapctl dump prints what is in a store, and no data: of a good one, of one
 * that a server has, of one that no server would take.  Whatever is damaged,
 * neither a dump nor a check crashes, what a dump prints as JSON is JSON, and
 * what a repair says of its work is true.
 *
 * REMAP_TEST_SEED=N repeats the damage.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "crc32c.h"
#include "dev-fault.h"
#include "endian.h"
#include "error.h"
#include "store-check.h"
#include "store-dump.h"
#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_store.h"

enum { FIRST = 1000, NR = 40, LOST = 2000, SECTORS = 16384, NR_DAMAGES = 500 };

static struct t_disk *disk;
static char *store;

static char *
dump (const char *options, const char *path, int status)
{
  char *output, *error;
  int r = t_ctl_run (t_str ("dump %s %s", options, path), &output, &error);

  if (r != status || (r == 0 && *error != '\0'))
    T_FAIL ("remapctl dump %s %s: exit status %d, expected %d: %s%s", options,
            path, r, status, output, error);
  return r == 0 ? output : error;
}

static json_t *
dump_json (const char *path)
{
  json_error_t error;
  char *text = dump ("--json", path, 0);
  json_t *r = json_loads (text, JSON_REJECT_DUPLICATES, &error);

  if (r == NULL)
    T_FAIL ("no JSON: %s at %d: %s", error.text, error.line, text);
  return r;
}

/* A member by a path such as "superblock.first.version". */
static json_t *
member (json_t *json, const char *path)
{
  char *save = NULL;

  for (char *key = strtok_r (t_str ("%s", path), ".", &save); key != NULL;
       key = strtok_r (NULL, ".", &save))
    json = json_object_get (json, key);
  if (json == NULL)
    T_FAIL ("no %s", path);
  return json;
}

static int64_t
number (json_t *json, const char *path)
{
  return json_integer_value (member (json, path));
}

static void
expect_word (const char *text, const char *word)
{
  if (strstr (text, word) == NULL)
    T_FAIL ("no \"%s\" in: %s", word, text);
}

static void
test_good (struct t_server *s)
{
  struct nbd_handle *h = t_nbd_connect (s);
  char content[T_SECTOR + 1], *text;
  json_t *json, *entry;
  unsigned nr_remapped = 0;
  size_t i;

  t_part ("of a store in use");
  T_OK (t_nbd_put (h, FIRST, NR, 2));
  T_ERRNO (t_nbd_touch (h, LOST, 1), EIO);
  memset (content, 'x', sizeof content);
  memcpy (content, "SECRET SECRET", 13);
  T_OK (t_nbd_write (h, content, T_SECTOR, FIRST * T_SECTOR));
  T_OK (t_nbd_flush (h));
  expect_word (dump ("", store, 0), "in_use: yes");
  json = dump_json (store);
  T_ASSERT (json_is_true (member (json, "in_use")));
  T_ASSERT (number (json, "commit_sector.first.pid") == s->pid);
  json_decref (json);
  t_nbd_close (h);
  t_server_stop (s);

  t_part ("of a good store");
  json = dump_json (store);
  T_ASSERT (json_is_false (member (json, "in_use")));
  T_ASSERT (number (json, "superblock.first.version") == 1);
  T_ASSERT (number (json, "superblock.second.copy") == 1);
  T_ASSERT (number (json, "superblock.second.backing_size")
            == SECTORS * T_SECTOR);
  T_ASSERT (number (json, "commit_sector.second.closed") == 1);
  T_ASSERT (number (json, "counts.lost") == 1);
  T_ASSERT (number (json, "counts.copies_differ") == 0);
  T_ASSERT (number (json, "counts.remapped") >= NR);
  json_array_foreach (member (json, "entries"), i, entry) {
    int64_t lba = number (entry, "lba");

    nr_remapped += strcmp (json_string_value (member (entry, "state")),
                           "remapped") == 0;
    T_ASSERT (lba == LOST || (lba >= FIRST && lba < FIRST + NR));
    T_ASSERT (number (entry, "slot") >= 0 && number (entry, "seq") > 0);
  }
  T_ASSERT (nr_remapped == number (json, "counts.remapped"));
  json_decref (json);
  text = dump ("", store, 0);
  T_ASSERT (strstr (text, "SECRET") == NULL && strstr (text, "xxxx") == NULL);
  expect_word (text, t_str ("lost, sector %d, ", LOST));
  expect_word (text, disk->path);
  T_ASSERT (strstr (text, "PROBLEM") == NULL);
}

/* Damage, and what is to be found in the text. */
static void
test_damaged (void)
{
  char *path = t_path ("damaged.remap"), *text;
  spare_t slot = t_store_slot_of (store, FIRST + 5);
  uint64_t place[2][3];

  t_part ("of a damaged store");
  for (unsigned copy = 0; copy < 2; copy++)
    for (unsigned part = 0; part < 3; part++)
      place[copy][part] = t_store_place (store, part, copy, slot);

  t_image_copy (store, path);
  t_store_flip (path, place[1][T_STORE_ENTRY] + 3);
  text = dump ("", path, 0);
  expect_word (text, t_str ("slot %u: COPIES DIFFER: first: remapped, sector %d,",
                            slot.n, FIRST + 5));
  expect_word (text, "second: PROBLEM: has a wrong checksum");
  t_store_flip (path, place[0][T_STORE_ENTRY] + 3);     /* refused now */
  text = dump ("", path, 0);
  expect_word (text, t_str ("slot %u: first: PROBLEM: has a wrong checksum; "
                            "second: PROBLEM: has a wrong checksum", slot.n));
  expect_word (text, "damaged_in_both_copies: 1\n");
  t_store_flip (path, place[0][T_STORE_COMMIT] + 30);
  t_store_flip (path, place[1][T_STORE_COMMIT] + 30);
  t_store_flip (path, place[0][T_STORE_SUPER] + 3000);
  expect_word (dump ("", path, 0), "by the second superblock");
  t_store_flip (path, place[1][T_STORE_SUPER] + 3000);
  text = dump ("", path, 0);
  expect_word (text, "PROBLEM: has a wrong checksum\n    version: 1");
  expect_word (text, "bytes_3000: 40\n");
  expect_word (text, t_str ("lost, sector %d, ", LOST));
  json_decref (dump_json (path));
  T_ASSERT (t_ctl_run (t_str ("check %s", path), &text, NULL) == 4);

  t_image_copy (store, path);
  if (truncate (path, 16384) == -1)
    T_FAIL ("%m");
  text = dump ("", path, 0);
  expect_word (text, "lies behind the end");
  expect_word (text, t_str ("sector %d, ", LOST));
  json_decref (dump_json (path));
}

static void
test_no_store (void)
{
  char *text = t_path ("diary.txt"), *output;

  t_part ("of no store");
  t_write_file (text, "Dear diary,\n");
  expect_word (dump ("", text, 8), "is no store");
  t_write_file (text, "");
  expect_word (dump ("", text, 8), "is no store");
  t_image_create (text, 1 << 20, 1);
  expect_word (dump ("--json", text, 8), "is no store");
  dump ("", t_path ("none"), 8);
  dump ("", t_path ("."), 8);
  T_ASSERT (t_ctl_run ("dump", &output, NULL) == 16);
  T_ASSERT (t_ctl_run (t_str ("dump --csv %s", text), &output, NULL) == 16);
}

/* Any damage. */

static uint64_t seed;

static uint64_t
pick (uint64_t below)
{
  return dev_fault_random (&seed) % below;
}

struct image {
  uint8_t *bytes;
  uint64_t size;
  struct store_super super;
};

/* Change some bytes of a piece, and give it a good checksum then, or not. */
static void
damage_piece (uint8_t *piece, size_t size)
{
  size_t at = pick (size), n = 1 + pick (pick (2) ? 4 : 64);

  for (size_t i = at; i < size && i < at + n; i++)
    piece[i] = pick (3) ? (uint8_t) pick (256) : pick (2) ? 0xff : 0;
}

static void
damage_entry (struct image *image, unsigned copy)
{
  spare_t slot = { (uint32_t) pick (pick (2) ? 64 : image->super.nr_ready) };
  uint8_t *entry = image->bytes + store_entry_at (&image->super, slot, copy);
  uint8_t text[STORE_UUID_BYTES + 8 + ENTRY_CRC];

  damage_piece (entry, ENTRY_BYTES);
  if (pick (3) == 0) {
    entry[ENTRY_STATE] = (uint8_t) (1 + pick (5));
    entry[ENTRY_CAUSE] = (uint8_t) pick (5);
    put_le16 (entry + ENTRY_ZERO, 0);
  }
  memcpy (text, image->super.uuid, STORE_UUID_BYTES);
  put_le64 (text + STORE_UUID_BYTES, slot.n);
  memcpy (text + STORE_UUID_BYTES + 8, entry, ENTRY_CRC);
  if (pick (2))
    put_le32 (entry + ENTRY_CRC, crc32c (0, text, sizeof text));
}

static void
damage (struct image *image)
{
  const uint64_t store_bytes = image->super.store_bytes;
  unsigned copy = (unsigned) pick (2);
  uint8_t *piece;

  switch (pick (6)) {
  case 0:
    piece = image->bytes + (copy ? store_bytes - STORE_BLOCK : 0);
    damage_piece (piece, pick (2) ? SUPER_CREATED : STORE_BLOCK);
    if (pick (2))
      put_le32 (piece + SUPER_CRC, crc32c (0, piece, SUPER_CRC));
    break;
  case 1:
    piece = image->bytes + (copy ? store_bytes - STORE_TAIL_BYTES
                            : COMMIT_A_OFFSET);
    damage_piece (piece, COMMIT_BYTES);
    if (pick (2))
      put_le32 (piece + COMMIT_CRC, crc32c (0, piece, COMMIT_CRC));
    break;
  case 2:
    memset (image->bytes + pick (store_bytes / 512) * 512, 0, 512);
    break;
  case 3:
    if (pick (8) == 0)
      image->size = pick (store_bytes);
    break;
  default:
    damage_entry (image, copy);
  }
}

static void
write_image (const char *path, const struct image *image)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  if (fd == -1 ||
      pwrite (fd, image->bytes, image->size, 0) != (ssize_t) image->size)
    T_FAIL ("%s: %m", path);
  close (fd);
}

static void
write_line (void *opaque, const char *line)
{
  T_ASSERT (strchr (line, '\n') == NULL);
  fprintf (opaque, "%s\n", line);
}

static void
check_dump (const char *path, bool is_json)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);
  json_error_t error;
  json_t *json;
  int r;

  if (fp == NULL)
    T_FAIL ("out of memory");
  r = store_dump (path, is_json, write_line, fp);
  fclose (fp);
  if (r == -1 && last_error_errno () != EEXIST)
    T_FAIL ("dump: %s", last_error_text ());
  if (r == 0 && is_json) {
    json = json_loads (text, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
      T_FAIL ("no JSON: %s at %d: %s", error.text, error.line, text);
    json_decref (json);
  }
  free (text);
}

static unsigned nr_verdicts[STORE_FATAL + 1];

static void
ignore_problem (void *opaque, int problem_damage, const char *problem)
{
  (void) opaque;
  (void) problem_damage;
  T_ASSERT (strchr (problem, '\n') == NULL);
}

static void
check_check (const char *path)
{
  uint64_t nr_repaired;
  int before = store_check (path, ignore_problem, NULL), after, again;

  if (before == -1)
    return;
  nr_verdicts[before]++;
  after = store_check_and_repair (path, ignore_problem, NULL, &nr_repaired);
  again = store_check (path, ignore_problem, NULL);
  if (after == -1)
    T_ASSERT (last_error_errno () == EUCLEAN && again == before);
  else if (after != again || (before == STORE_FATAL) != (after == STORE_FATAL)
           || after == STORE_REPAIRABLE || after > before)
    T_FAIL ("%d before, %d after a repair, %d then", before, after, again);
}

static void
test_any_damage (void)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  const uint64_t first_seed = given ? strtoull (given, NULL, 0)
    : (uint64_t) time (NULL);
  struct image original = { .super = t_store_super (store) };
  struct image image = original;
  char *path = t_path ("any.remap");

  t_part ("any damage, REMAP_TEST_SEED=%llu", (unsigned long long) first_seed);
  original.size = original.super.store_bytes;
  original.bytes = malloc (original.size);
  image.bytes = malloc (original.size);
  t_image_read (store, original.bytes, original.size, 0);
  for (unsigned i = 0; i < NR_DAMAGES; i++) {
    seed = first_seed + i;
    image.size = original.size;
    memcpy (image.bytes, original.bytes, original.size);
    for (uint64_t n = 1 + pick (3); n > 0; n--)
      damage (&image);
    write_image (path, &image);
    check_dump (path, true);
    check_dump (path, false);
    check_check (path);
  }
  for (unsigned i = 0; i <= STORE_FATAL; i++)
    if (i != STORE_LASTING && nr_verdicts[i] == 0)
      T_FAIL ("no damage had the verdict %u", i);
  free (original.bytes);
  free (image.bytes);
}

int
main (void)
{
  const struct t_disk_options options = {
    .gen = 1,
    .faults = t_str ("both %d-%d\nboth %d\n", FIRST, FIRST + NR - 1, LOST),
  };
  struct t_server *s;

  t_begin ("test-remapctl-dump", 120);
  if (!t_disk_can (T_DISK_FUSE))
    t_skip ("nbdfuse is missing");
  disk = t_disk_new (T_DISK_FUSE, SECTORS * T_SECTOR, &options);
  store = disk->store;
  s = t_server_start ("%s spare-size=64K", t_disk_params (disk));
  test_good (s);
  test_damaged ();
  test_no_store ();
  test_any_damage ();
  t_disk_free (disk);
  return t_end ();
}
