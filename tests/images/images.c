/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checked.h"
#include "crc32c.h"
#include "endian.h"
#include "images/images.h"
#include "store-load.h"

#define NR_OF(array) (sizeof (array) / sizeof (array)[0])

/* subject: a slot, or what else add was given. */
typedef void change_fn (struct image *image, const struct fault *f,
                        uint64_t subject, unsigned copy);

struct fault {
  const char *name, *class;
  change_fn *change;            /* called for each copy */
  unsigned where, nr_bytes;
  uint64_t value;
  bool is_added;                /* to what was there */
  bool is_newer;                /* than the other copy */
  struct image_end end[3];      /* the first copy, the second, both */
};

/* What becomes of it. */
#define OPENS { .result = IMAGE_OPENS }
#define BEHIND(t) { .result = IMAGE_BEHIND, .text = t }
#define REPAIRED(t) { .result = IMAGE_REPAIRED, .text = t }
#define LOSES { .result = IMAGE_LOSES }
#define REFUSED(t) { .result = IMAGE_REFUSED, .err = EUCLEAN, .text = t }
#define NOT_SERVED(e, t) { .result = IMAGE_NOT_SERVED, .err = e, .text = t }
#define NO_STORE { .result = IMAGE_NO_STORE, .err = EEXIST, .text = "no store" }

/* The other copy serves; without one it is refused. */
#define SERVED_BY_OTHER(t) { REPAIRED (t), REPAIRED (t), REFUSED (t) }
#define ODD { .result = IMAGE_ODD }
#define DIFFER "of the same age, but differ"
#define ALWAYS(e) { e, e, e }

static void
give_up (const char *what)
{
  fprintf (stderr, "images: %s\n", what);
  abort ();
}

/* Where things are. */

static uint8_t *
super_at (struct image *image, unsigned copy)
{
  return image->bytes + (copy == 0 ? 0 : image->super.store_bytes
                         - STORE_BLOCK);
}

static uint8_t *
commit_at (struct image *image, unsigned copy)
{
  return image->bytes + (copy == 0 ? COMMIT_A_OFFSET
                         : image->super.store_bytes - STORE_TAIL_BYTES);
}

static uint8_t *
entry_at (struct image *image, uint64_t slot, unsigned copy)
{
  return image->bytes + store_entry_at (&image->super,
                                        (spare_t) { (uint32_t) slot }, copy);
}

static void
seal_super (uint8_t *block)
{
  put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
}

static void
seal_commit (uint8_t *sector)
{
  put_le32 (sector + COMMIT_CRC, crc32c (0, sector, COMMIT_CRC));
}

static void
seal_entry (struct image *image, uint64_t slot, uint8_t *bytes)
{
  uint8_t number[8];
  uint32_t crc = crc32c (0, image->super.uuid, STORE_UUID_BYTES);

  put_le64 (number, slot);
  crc = crc32c (crc, number, sizeof number);
  put_le32 (bytes + ENTRY_CRC, crc32c (crc, bytes, ENTRY_CRC));
}

static uint64_t
max_seq (struct image *image)
{
  uint64_t seq = 0;

  for (unsigned i = 0; i < image->super.nr_ready; i++)
    seq = MAX (seq, get_le48 (entry_at (image, i, 0) + ENTRY_SEQ));
  return seq;
}

/* The slot that a case is about. */

enum { OF_LBA = 1, OF_STATE = 2 };
#define SUBJECT(how, n) ((uint64_t) (how) << 56 | (n))

static uint64_t
slot_of (struct image *image, uint64_t subject)
{
  uint64_t n = subject & LBA_MAX;

  for (uint64_t slot = 0; slot < image->super.nr_ready; slot++) {
    const uint8_t *e = entry_at (image, slot, 0);

    if (subject >> 56 == OF_STATE ? e[ENTRY_STATE] == n
        : e[ENTRY_STATE] != ENTRY_FREE && e[ENTRY_STATE] != ENTRY_BAD_SLOT &&
        get_le48 (e + ENTRY_LBA) == n)
      return slot;
  }
  give_up ("the base has no such slot");
  return 0;
}

/* Changes: of fields, with the right checksum. */

static void
change_field (uint8_t *block, const struct fault *f)
{
  uint64_t old = f->is_added ? get_le (block + f->where, f->nr_bytes) : 0;

  put_le (block + f->where, f->nr_bytes, old + f->value);
}

static void
super_field (struct image *image, const struct fault *f, uint64_t subject,
             unsigned copy)
{
  uint8_t *block = super_at (image, copy);

  change_field (block, f);
  if (f->is_newer)
    put_le64 (block + SUPER_GENERATION,
              get_le64 (block + SUPER_GENERATION) + 1);
  seal_super (block);
}

static void
commit_field (struct image *image, const struct fault *f, uint64_t subject,
              unsigned copy)
{
  uint8_t *sector = commit_at (image, copy);

  change_field (sector, f);
  seal_commit (sector);
}

static void
entry_field (struct image *image, const struct fault *f, uint64_t subject,
             unsigned copy)
{
  uint8_t *bytes = entry_at (image, subject, copy);

  change_field (bytes, f);
  seal_entry (image, subject, bytes);
}

/* Changes: with a wrong checksum, or none. */

static void
super_bits (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  super_at (image, copy)[f->where] ^= 0x21;
}

static void
commit_bits (struct image *image, const struct fault *f, uint64_t subject,
             unsigned copy)
{
  commit_at (image, copy)[f->where] ^= 0x21;
}

static void
entry_bits (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  entry_at (image, subject, copy)[f->where] ^= 0x21;
}

static void
super_zero (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  memset (super_at (image, copy) + f->where, 0, f->nr_bytes);
}

static void
commit_zero (struct image *image, const struct fault *f, uint64_t subject,
             unsigned copy)
{
  memset (commit_at (image, copy) + f->where, 0, f->nr_bytes);
}

static void
entry_zero (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  memset (entry_at (image, subject, copy), 0, ENTRY_BYTES);
}

/* The entry of the slot behind stands in its place. */
static void
entry_of_neighbour (struct image *image, const struct fault *f,
                    uint64_t subject, unsigned copy)
{
  memcpy (entry_at (image, subject, copy), entry_at (image, subject + 1, copy),
          ENTRY_BYTES);
}

/* The table of section `value`: as a whole, or a sector of it. */
static void
table_zero (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  const struct store_section *s = &image->super.sections[f->value];
  uint64_t begin = copy == 0 ? s->table_a : s->table_b;

  memset (image->bytes + begin + f->where, 0,
          f->nr_bytes ? f->nr_bytes : store_table_bytes (s->nr_slots));
}

static void
table_tail (struct image *image, const struct fault *f, uint64_t subject,
            unsigned copy)
{
  const struct store_section *s = &image->super.sections[f->value];

  memset (image->bytes + (copy == 0 ? s->table_a : s->table_b) + f->where,
          0x5a, f->nr_bytes);
}

/* Changes that concern no copy: called for the first. */

static void
data_bits (struct image *image, const struct fault *f, uint64_t subject,
           unsigned copy)
{
  image->bytes[store_data_at (&image->super, (spare_t) { (uint32_t) subject })
               + f->where] ^= 0x21;
}

static void
data_zero (struct image *image, const struct fault *f, uint64_t subject,
           unsigned copy)
{
  memset (image->bytes + store_data_at (&image->super,
                                        (spare_t) { (uint32_t) subject }), 0,
          image->super.sector_bytes);
}

/* A record of a sector that has none, newer than any other. */
static void
add_claim (struct image *image, uint64_t lba, uint64_t seq)
{
  uint64_t slot = slot_of (image, SUBJECT (OF_STATE, ENTRY_FREE));
  struct store_entry e = {
    .lba = { lba }, .seq = seq, .data_crc = 0x12345678, .time_s = 1,
    .state = ENTRY_REMAPPED, .cause = CAUSE_WRITE_ERROR,
  };

  for (unsigned i = 0; i < 2; i++)
    store_entry_encode (&e, image->super.uuid, (spare_t) { (uint32_t) slot },
                        entry_at (image, slot, i));
}

static void
claim_without_data (struct image *image, const struct fault *f,
                    uint64_t subject, unsigned copy)
{
  add_claim (image, f->value, max_seq (image) + 1);
}

static void
claim_of_same_age (struct image *image, const struct fault *f,
                   uint64_t subject, unsigned copy)
{
  const uint8_t *other = entry_at (image, subject, 0);

  add_claim (image, get_le48 (other + ENTRY_LBA),
             get_le48 (other + ENTRY_SEQ));
}

static void
super_in_other_place (struct image *image, const struct fault *f,
                      uint64_t subject, unsigned copy)
{
  memcpy (super_at (image, copy), super_at (image, !copy), STORE_BLOCK);
}

static void
supers_swapped (struct image *image, const struct fault *f, uint64_t subject,
                unsigned copy)
{
  uint8_t block[STORE_BLOCK];

  memcpy (block, super_at (image, 0), STORE_BLOCK);
  memcpy (super_at (image, 0), super_at (image, 1), STORE_BLOCK);
  memcpy (super_at (image, 1), block, STORE_BLOCK);
}

/* nr_bytes at where are zero; negative values of where: from the end. */
static void
region_zero (struct image *image, const struct fault *f, uint64_t subject,
             unsigned copy)
{
  memset (image->bytes + f->where, 0, f->nr_bytes);
}

static void
tail_zero (struct image *image, const struct fault *f, uint64_t subject,
           unsigned copy)
{
  memset (image->bytes + image->super.store_bytes - f->nr_bytes, 0,
          f->nr_bytes);
}

static void
half_zero (struct image *image, const struct fault *f, uint64_t subject,
           unsigned copy)
{
  size_t half = image->size_bytes / 2;

  memset (image->bytes + (f->value ? half : 0), 0, half);
}

static void
resize (struct image *image, size_t size_bytes)
{
  image->bytes = realloc (image->bytes, size_bytes + 1);
  if (image->bytes == NULL)
    give_up ("no memory");
  if (size_bytes > image->size_bytes)
    memset (image->bytes + image->size_bytes, 0,
            size_bytes - image->size_bytes);
  image->size_bytes = size_bytes;
}

static void
cut_off (struct image *image, const struct fault *f, uint64_t subject,
         unsigned copy)
{
  resize (image, subject);
}

/* The first superblock is damaged, and the size is another one. */
static void
resized_and_damaged (struct image *image, const struct fault *f,
                     uint64_t subject, unsigned copy)
{
  super_at (image, 0)[100] ^= 1;
  resize (image, f->is_added ? image->size_bytes + f->value : f->value);
}

/* Growth was interrupted before the first superblock was written: the file has
 * its new length, with the new superblock at its end.
 */
static void
growth_half_done (struct image *image, const struct fault *f, uint64_t subject,
                  unsigned copy)
{
  struct store_super grown = image->super;
  uint64_t end = grown.store_bytes, old = end;

  end = store_section_layout (&grown.sections[2], BASE_SLOTS, 32, 512, end);
  grown.nr_sections = 3;
  grown.store_bytes = end + STORE_TAIL_BYTES;
  grown.generation++;
  resize (image, grown.store_bytes);
  memcpy (image->bytes + end, image->bytes + old - STORE_TAIL_BYTES,
          COMMIT_BYTES);
  store_super_encode (&grown, 1, image->bytes + end + STORE_BLOCK);
}

/* The tables. */

#define SUPER_FIELD(f, n, v) .change = super_field, .where = SUPER_##f,       \
    .nr_bytes = n, .value = v

#define IN_SECTION(i, f) SUPER_SECTIONS + (i) * SECTION_BYTES + SECTION_##f
#define SECTION_FIELD(i, f, v) .change = super_field,                         \
    .where = IN_SECTION (i, f), .nr_bytes = 8, .value = v

#define SLOTS_TEXT "section with impossible slots"
#define PLACE_TEXT "section in an impossible place"
#define SLOTS(n, i, f, v)                                                     \
  { n, "slots of a section", SECTION_FIELD (i, f, v),                         \
    .end = SERVED_BY_OTHER (SLOTS_TEXT) }
#define PLACE(n, i, f, v)                                                     \
  { n, "place of a section", SECTION_FIELD (i, f, v),                         \
    .end = SERVED_BY_OTHER (PLACE_TEXT) }

static const struct fault super_faults[] = {
  { "magic 0", "no store", SUPER_FIELD (MAGIC, 8, 0),
    .end = { REPAIRED ("is no superblock"), REPAIRED ("is no superblock"),
             NO_STORE } },
  { "version 0", "version", SUPER_FIELD (VERSION, 4, 0),
    .end = ALWAYS (REFUSED ("another version")) },
  { "version 2", "version", SUPER_FIELD (VERSION, 4, 2),
    .end = ALWAYS (REFUSED ("another version")) },
  { "version 2^32 - 1", "version", SUPER_FIELD (VERSION, 4, UINT32_MAX),
    .end = ALWAYS (REFUSED ("another version")) },
  { "copy 2", "copy", SUPER_FIELD (COPY, 4, 2),
    .end = SERVED_BY_OTHER ("the other copy belongs") },
  { "incompatible feature", "features", SUPER_FIELD (INCOMPAT, 4, 1),
    .end = ALWAYS (REFUSED ("does not know")) },
  { "incompatible feature 31", "features",
    SUPER_FIELD (INCOMPAT, 4, UINT32_C (1) << 31),
    .end = ALWAYS (REFUSED ("does not know")) },
  { "incompatible feature, newer", "features", SUPER_FIELD (INCOMPAT, 4, 4),
    .is_newer = true, .end = ALWAYS (REFUSED ("does not know")) },
  { "read-only feature", "read-only features", SUPER_FIELD (RO_COMPAT, 4, 1),
    .end = { { .result = IMAGE_NOT_MADE }, { .result = IMAGE_NOT_MADE },
             NOT_SERVED (EUCLEAN, "looked at, but not served") } },
  { "read-only feature in one copy", "differ", SUPER_FIELD (RO_COMPAT, 4, 1),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER) } },
  { "read-only feature, newer", "read-only features",
    SUPER_FIELD (RO_COMPAT, 4, UINT32_C (1) << 31), .is_newer = true,
    .end = ALWAYS (NOT_SERVED (EUCLEAN, "looked at, but not served")) },
  { "compatible feature", "differ", SUPER_FIELD (COMPAT, 4, 0x80000001),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER),
             { .result = IMAGE_OPENS, .compat = 0x80000001 } } },
  { "compatible feature, newer", "", SUPER_FIELD (COMPAT, 4, 6),
    .is_newer = true,
    .end = { { .result = IMAGE_BEHIND, .text = "superblock is older",
               .compat = 6 },
             { .result = IMAGE_BEHIND, .text = "superblock is older",
               .compat = 6 },
             { .result = IMAGE_OPENS, .compat = 6 } } },

  { "sector size 0", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 0),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 256", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 256),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 511", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 511),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 513", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 513),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 768", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 768),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 128K", "sector size", SUPER_FIELD (SECTOR_BYTES, 4, 131072),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 2G", "sector size",
    SUPER_FIELD (SECTOR_BYTES, 4, UINT32_C (1) << 31),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 2^32 - 1", "sector size",
    SUPER_FIELD (SECTOR_BYTES, 4, UINT32_MAX),
    .end = SERVED_BY_OTHER ("sector size") },
  { "sector size 1024", "place of a section",
    SUPER_FIELD (SECTOR_BYTES, 4, 1024), .end = SERVED_BY_OTHER (PLACE_TEXT) },
  { "sector size 64K", "place of a section",
    SUPER_FIELD (SECTOR_BYTES, 4, 65536), .end = SERVED_BY_OTHER (PLACE_TEXT) },

  { "UUID", "two stores", SUPER_FIELD (UUID, 8, 1),
    .end = { REFUSED ("two stores"), REFUSED ("two stores") } },
  { "UUID in both", "commit of another store", SUPER_FIELD (UUID, 8, 1),
    .end = { [2] = REFUSED ("belongs to another store") } },

  { "generation 0", "", SUPER_FIELD (GENERATION, 8, 0),
    .end = { BEHIND ("first superblock is older"),
             BEHIND ("second superblock is older"), OPENS } },
  { "generation + 1", "", SUPER_FIELD (GENERATION, 8, 1), .is_added = true,
    .end = { BEHIND ("second superblock is older"),
             BEHIND ("first superblock is older"), OPENS } },
  { "generation 2^63 - 2", "",
    SUPER_FIELD (GENERATION, 8, INT64_MAX - 1),
    .end = { [2] = OPENS } },
  { "generation 2^63", "generation",
    SUPER_FIELD (GENERATION, 8, UINT64_C (1) << 63),
    .end = SERVED_BY_OTHER ("generation") },
  { "generation 2^64 - 1", "generation", SUPER_FIELD (GENERATION, 8, UINT64_MAX),
    .end = SERVED_BY_OTHER ("generation") },

  { "store size 0", "store size", SUPER_FIELD (STORE_BYTES, 8, 0),
    .end = SERVED_BY_OTHER ("store size") },
  { "store size 12288", "store size", SUPER_FIELD (STORE_BYTES, 8, 12288),
    .end = SERVED_BY_OTHER ("store size") },
  { "store size 16384", "place of a section",
    SUPER_FIELD (STORE_BYTES, 8, 16384), .end = SERVED_BY_OTHER (PLACE_TEXT) },
  { "store size - 4096", "place of a section",
    SUPER_FIELD (STORE_BYTES, 8, -UINT64_C (4096)), .is_added = true,
    .end = SERVED_BY_OTHER (PLACE_TEXT) },
  { "store size + 512", "store size", SUPER_FIELD (STORE_BYTES, 8, 512),
    .is_added = true, .end = SERVED_BY_OTHER ("store size") },
  { "store size + 1", "store size", SUPER_FIELD (STORE_BYTES, 8, 1),
    .is_added = true, .end = SERVED_BY_OTHER ("store size") },
  { "store size 2^63", "store size",
    SUPER_FIELD (STORE_BYTES, 8, UINT64_C (1) << 63),
    .end = SERVED_BY_OTHER ("store size") },
  { "store size 2^64 - 4096", "store size",
    SUPER_FIELD (STORE_BYTES, 8, -UINT64_C (4096)),
    .end = SERVED_BY_OTHER ("store size") },
  { "store size + 4096", "cut off", SUPER_FIELD (STORE_BYTES, 8, 4096),
    .is_added = true, .end = { REFUSED ("cut off"), { .result = 0 },
                               REFUSED ("cut off") } },
  { "store size + 4096 in the second", "differ",
    SUPER_FIELD (STORE_BYTES, 8, 4096), .is_added = true,
    .end = { { .result = 0 }, REFUSED (DIFFER) } },
  { "store size 2^62", "cut off",
    SUPER_FIELD (STORE_BYTES, 8, UINT64_C (1) << 62),
    .end = { REFUSED ("cut off"), { .result = 0 }, REFUSED ("cut off") } },

  { "backing size 2^63", "backing size",
    SUPER_FIELD (BACKING_BYTES, 8, UINT64_C (1) << 63),
    .end = SERVED_BY_OTHER ("backing size") },
  { "backing size 2^64 - 1", "backing size",
    SUPER_FIELD (BACKING_BYTES, 8, UINT64_MAX),
    .end = SERVED_BY_OTHER ("backing size") },
  { "backing size 2^57", "backing size",
    SUPER_FIELD (BACKING_BYTES, 8, UINT64_C (1) << 57),
    .end = SERVED_BY_OTHER ("backing size") },
  { "backing size 0", "sector behind the end",
    SUPER_FIELD (BACKING_BYTES, 8, 0),
    .end = { [2] = REFUSED ("of a disk with 0 sectors") } },
  { "backing size 0 in one", "differ", SUPER_FIELD (BACKING_BYTES, 8, 0),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER) } },
  { "of a smaller disk", "another disk", SUPER_FIELD (BACKING_BYTES, 8, -512),
    .is_added = true, .end = { [2] = NOT_SERVED (ESTALE, "belongs to") } },
  { "of a much smaller disk", "sector behind the end",
    SUPER_FIELD (BACKING_BYTES, 8, 51200),
    .end = { [2] = REFUSED ("of a disk with 100 sectors") } },
  { "of a larger disk", "another disk", SUPER_FIELD (BACKING_BYTES, 8, 512),
    .is_added = true, .end = { [2] = NOT_SERVED (ESTALE, "belongs to") } },
  { "of the largest disk", "another disk",
    SUPER_FIELD (BACKING_BYTES, 8, (UINT64_C (1) << 57) - 512),
    .end = { [2] = NOT_SERVED (ESTALE, "belongs to") } },
  { "kind 0", "kind", SUPER_FIELD (BACKING_KIND, 4, 0),
    .end = SERVED_BY_OTHER ("kind of backing") },
  { "kind 4", "kind", SUPER_FIELD (BACKING_KIND, 4, 4),
    .end = SERVED_BY_OTHER ("kind of backing") },
  { "kind 99", "kind", SUPER_FIELD (BACKING_KIND, 4, 99),
    .end = SERVED_BY_OTHER ("kind of backing") },
  { "kind 2^32 - 1", "kind", SUPER_FIELD (BACKING_KIND, 4, UINT32_MAX),
    .end = SERVED_BY_OTHER ("kind of backing") },
  { "of a device", "another disk", SUPER_FIELD (BACKING_KIND, 4, 2),
    .end = { [2] = NOT_SERVED (ESTALE, "belongs to") } },
  { "id", "another disk", SUPER_FIELD (BACKING_ID, 4, 0x2d6e7777),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER),
             NOT_SERVED (ESTALE, "belongs to") } },
  { "id without an end", "end of a name", .change = super_field,
    .where = SUPER_BACKING_ID + STORE_ID_BYTES - 1, .nr_bytes = 1,
    .value = 'x', .end = SERVED_BY_OTHER ("without an end") },
  { "path without an end", "end of a name", .change = super_field,
    .where = SUPER_BACKING_PATH + STORE_PATH_BYTES - 1, .nr_bytes = 1,
    .value = 'x', .end = SERVED_BY_OTHER ("without an end") },
  { "of another file", "another disk", SUPER_FIELD (BACKING_INODE, 8, 7),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER),
             NOT_SERVED (ESTALE, "inode 7") } },
  { "birth without inode", "differ", SUPER_FIELD (BACKING_BORN, 8, UINT64_MAX),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER), OPENS } },
  { "10^9 nanoseconds", "time", SUPER_FIELD (BACKING_BORN_NS, 4, 1000000000),
    .end = SERVED_BY_OTHER ("impossible time") },
  { "path", "differ", SUPER_FIELD (BACKING_PATH, 1, 'x'),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER), OPENS } },

  { "all slots kept", "kept", SUPER_FIELD (NR_KEPT, 4, BASE_SLOTS),
    .end = SERVED_BY_OTHER ("keeps more slots") },
  { "2^32 - 1 slots kept", "kept", SUPER_FIELD (NR_KEPT, 4, UINT32_MAX),
    .end = SERVED_BY_OTHER ("keeps more slots") },
  { "no slots kept", "differ", SUPER_FIELD (NR_KEPT, 4, 0),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER), OPENS } },
  { "too many slots ready", "ready", SUPER_FIELD (NR_READY, 8, BASE_SLOTS + 1),
    .end = SERVED_BY_OTHER ("more slots in use") },
  { "2^64 - 1 slots ready", "ready", SUPER_FIELD (NR_READY, 8, UINT64_MAX),
    .end = SERVED_BY_OTHER ("more slots in use") },
  { "no slots ready", "missing records", SUPER_FIELD (NR_READY, 8, 0),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER),
             REFUSED ("records are missing") } },
  { "slots of one section ready", "missing records",
    SUPER_FIELD (NR_READY, 8, BASE_SLOTS_AT_FIRST),
    .end = { [2] = REFUSED ("records are missing") } },
  { "no sections", "sections", SUPER_FIELD (NR_SECTIONS, 4, 0),
    .end = SERVED_BY_OTHER ("number of sections") },
  { "33 sections", "sections", SUPER_FIELD (NR_SECTIONS, 4, 33),
    .end = SERVED_BY_OTHER ("number of sections") },
  { "2^32 - 1 sections", "sections", SUPER_FIELD (NR_SECTIONS, 4, UINT32_MAX),
    .end = SERVED_BY_OTHER ("number of sections") },
  { "one section", "ready", SUPER_FIELD (NR_SECTIONS, 4, 1),
    .end = SERVED_BY_OTHER ("more slots in use") },
  { "three sections", "slots of a section", SUPER_FIELD (NR_SECTIONS, 4, 3),
    .end = SERVED_BY_OTHER (SLOTS_TEXT) },
  { "time", "differ", SUPER_FIELD (CREATED, 8, UINT64_MAX),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER), OPENS } },

  SLOTS ("first slot 1", 0, FIRST_SLOT, 1),
  SLOTS ("first slot 2^64 - 1", 0, FIRST_SLOT, UINT64_MAX),
  SLOTS ("no slots", 0, NR_SLOTS, 0),
  PLACE ("slots overlap", 0, NR_SLOTS, BASE_SLOTS_AT_FIRST + 1),
  SLOTS ("hole in the slots", 0, NR_SLOTS, BASE_SLOTS_AT_FIRST - 1),
  PLACE ("too many slots", 0, NR_SLOTS, 1000),
  PLACE ("2^30 - 1 slots", 0, NR_SLOTS, SPARES_MAX),
  SLOTS ("2^64 - 1 slots", 0, NR_SLOTS, UINT64_MAX),
  SLOTS ("2^55 slots", 0, NR_SLOTS, UINT64_C (1) << 55),
  PLACE ("table at 0", 0, TABLE_A, 0),
  PLACE ("table over the commit sector", 0, TABLE_A, 4096),
  PLACE ("table at 8193", 0, TABLE_A, 8193),
  PLACE ("table elsewhere", 0, TABLE_A, 12288),
  PLACE ("table at 2^63", 0, TABLE_A, UINT64_C (1) << 63),
  PLACE ("table at 2^64 - 4096", 0, TABLE_A, -UINT64_C (4096)),
  PLACE ("data over the table", 0, DATA, 8192),
  PLACE ("data at an odd place", 0, DATA, 12289),
  PLACE ("data at 2^64 - 512", 0, DATA, -UINT64_C (512)),
  PLACE ("second table over the first", 0, TABLE_B, 8192),
  PLACE ("second table at 2^64 - 1", 0, TABLE_B, UINT64_MAX),
  SLOTS ("second section: first slot 0", 1, FIRST_SLOT, 0),
  SLOTS ("second section: slots overlap", 1, FIRST_SLOT,
         BASE_SLOTS_AT_FIRST - 1),
  SLOTS ("second section: hole", 1, FIRST_SLOT, BASE_SLOTS_AT_FIRST + 1),
  SLOTS ("second section: no slots", 1, NR_SLOTS, 0),
  PLACE ("second section: too many slots", 1, NR_SLOTS, 1000),
  SLOTS ("second section: 2^30 slots in all", 1, NR_SLOTS, SPARES_MAX - 39),
  PLACE ("second section over the first", 1, TABLE_A, 8192),
  PLACE ("second section behind the end", 1, TABLE_A, UINT64_C (1) << 40),
  PLACE ("second section: data over the first", 1, DATA, 12288),
  PLACE ("second section: data over the tail", 1, DATA, UINT64_MAX - 4095),
  PLACE ("second section: table over the first", 1, TABLE_B, 8192),

#define RESERVED(w)                                                           \
  { "zero at " #w, "", .change = super_field, .where = w, .nr_bytes = 1,      \
    .value = 0x5a, .end = ALWAYS (ODD) }
  RESERVED (92), RESERVED (95), RESERVED (104), RESERVED (127),
  RESERVED (600), RESERVED (1023), RESERVED (1064), RESERVED (1071),
  RESERVED (1120), RESERVED (2559), RESERVED (2560), RESERVED (4091),

#define BITS(w)                                                               \
  { "bits at " #w, "checksum of a superblock", .change = super_bits,          \
    .where = w, .end = SERVED_BY_OTHER ("superblock has a wrong checksum") }
  BITS (8), BITS (12), BITS (16), BITS (20), BITS (24), BITS (28), BITS (32),
  BITS (47), BITS (48), BITS (56), BITS (64), BITS (72), BITS (76), BITS (80),
  BITS (88), BITS (92), BITS (96), BITS (104), BITS (128), BITS (255),
  BITS (256), BITS (511), BITS (512), BITS (1024), BITS (1032), BITS (1040),
  BITS (1048), BITS (1056), BITS (1064), BITS (1072), BITS (2559),
  BITS (2560), BITS (4091), BITS (4092), BITS (4095),
  { "bits of the magic", "no store", .change = super_bits, .where = 0,
    .end = { REPAIRED ("is no superblock"), REPAIRED ("is no superblock"),
             NO_STORE } },
  { "zeroed", "no store", .change = super_zero, .nr_bytes = STORE_BLOCK,
    .end = { REPAIRED ("is no superblock"), REPAIRED ("is no superblock"),
             NO_STORE } },
  { "first sector zeroed", "no store", .change = super_zero, .nr_bytes = 512,
    .end = { REPAIRED ("is no superblock"), REPAIRED ("is no superblock"),
             NO_STORE } },
  { "torn", "checksum of a superblock", .change = super_zero, .where = 512,
    .nr_bytes = 3584,
    .end = SERVED_BY_OTHER ("superblock has a wrong checksum") },
  { "the other one", "copy", .change = super_in_other_place,
    .end = { REPAIRED ("the other copy belongs"),
             REPAIRED ("the other copy belongs") } },
};

#define COMMIT_FIELD(f, n, v) .change = commit_field, .where = COMMIT_##f,    \
    .nr_bytes = n, .value = v
#define NO_COMMIT SERVED_BY_OTHER ("commit sector is no commit sector")

static const struct fault commit_faults[] = {
  { "magic 0", "no commit sector", COMMIT_FIELD (MAGIC, 8, 0),
    .end = NO_COMMIT },
  { "UUID", "commit of another store", COMMIT_FIELD (UUID, 8, 1),
    .end = SERVED_BY_OTHER ("belongs to another store") },
  { "durable 2^48", "durable", COMMIT_FIELD (DURABLE, 8, SEQ_MAX + 1),
    .end = SERVED_BY_OTHER ("impossible sequence number") },
  { "durable 2^64 - 1", "durable", COMMIT_FIELD (DURABLE, 8, UINT64_MAX),
    .end = SERVED_BY_OTHER ("impossible sequence number") },
  { "durable 2^48 - 1", "missing records", COMMIT_FIELD (DURABLE, 8, SEQ_MAX),
    .end = ALWAYS (REFUSED ("records are missing")) },
  { "durable + 1", "missing records", COMMIT_FIELD (DURABLE, 8, 1),
    .is_added = true, .end = ALWAYS (REFUSED ("records are missing")) },
  { "durable - 1", "", COMMIT_FIELD (DURABLE, 8, -1), .is_added = true,
    .end = ALWAYS (OPENS) },
  { "durable 0", "", COMMIT_FIELD (DURABLE, 8, 0), .end = ALWAYS (OPENS) },
  { "process", "", COMMIT_FIELD (PID, 4, UINT32_MAX), .end = ALWAYS (OPENS) },
  { "closing 2", "", COMMIT_FIELD (CLEAN, 4, 2), .end = ALWAYS (ODD) },
  { "not closed", "", COMMIT_FIELD (CLEAN, 4, 0), .end = ALWAYS (OPENS) },
  { "time", "", COMMIT_FIELD (TIME, 8, UINT64_MAX), .end = ALWAYS (OPENS) },
  { "count", "", COMMIT_FIELD (COUNT, 8, UINT64_MAX), .end = ALWAYS (OPENS) },
  { "97 stale blocks", "stale blocks", COMMIT_FIELD (NR_STALE, 4, 97),
    .end = SERVED_BY_OTHER ("number of stale blocks") },
  { "2^32 - 1 stale blocks", "stale blocks",
    COMMIT_FIELD (NR_STALE, 4, UINT32_MAX),
    .end = SERVED_BY_OTHER ("number of stale blocks") },
  { "zero at 60", "", .change = commit_field, .where = 60, .nr_bytes = 4,
    .value = 1, .end = ALWAYS (ODD) },
  { "zero at 507", "", .change = commit_field, .where = 507, .nr_bytes = 1,
    .value = 1, .end = ALWAYS (ODD) },
  { "zeroed", "no commit sector", .change = commit_zero,
    .nr_bytes = COMMIT_BYTES, .end = NO_COMMIT },
  { "bits of the magic", "no commit sector", .change = commit_bits,
    .end = NO_COMMIT },
#define COMMIT_BITS(w)                                                        \
  { "bits at " #w, "checksum of a commit sector", .change = commit_bits,      \
    .where = w, .end = SERVED_BY_OTHER ("commit sector has a wrong checksum") }
  COMMIT_BITS (8), COMMIT_BITS (23), COMMIT_BITS (24), COMMIT_BITS (31),
  COMMIT_BITS (32), COMMIT_BITS (36), COMMIT_BITS (40), COMMIT_BITS (48),
  COMMIT_BITS (507), COMMIT_BITS (508), COMMIT_BITS (511),
};

/* Of any slot. */

#define ENTRY_FIELD(f, n, v) .change = entry_field, .where = ENTRY_##f,       \
    .nr_bytes = n, .value = v
#define WRONG_ENTRY(t)                                                        \
  { REPAIRED ("first copy of its entry " t),                                  \
    REPAIRED ("second copy of its entry " t),                                 \
    REFUSED ("the first copy of its entry " t ", and the second " t) }

static const struct fault entry_faults[] = {
  { "state 0", "state", ENTRY_FIELD (STATE, 1, 0),
    .end = WRONG_ENTRY ("has an impossible state") },
  { "state 6", "state", ENTRY_FIELD (STATE, 1, 6),
    .end = WRONG_ENTRY ("has an impossible state") },
  { "state 255", "state", ENTRY_FIELD (STATE, 1, 255),
    .end = WRONG_ENTRY ("has an impossible state") },
  { "cause 5", "cause", ENTRY_FIELD (CAUSE, 1, 5),
    .end = WRONG_ENTRY ("has an impossible cause") },
  { "cause 255", "cause", ENTRY_FIELD (CAUSE, 1, 255),
    .end = WRONG_ENTRY ("has an impossible cause") },
  { "zero at 22", "zero of an entry", ENTRY_FIELD (ZERO, 1, 1),
    .end = WRONG_ENTRY ("is not zero where it has to be") },
  { "zero at 23", "zero of an entry", .change = entry_field, .where = 23,
    .nr_bytes = 1, .value = 0x80,
    .end = WRONG_ENTRY ("is not zero where it has to be") },
  { "sequence number 2^48 - 1", "end of sequence numbers",
    ENTRY_FIELD (SEQ, 6, SEQ_MAX),
    .end = ALWAYS (REFUSED ("sequence numbers are used up")) },
  { "sequence number 2^47", "end of sequence numbers",
    ENTRY_FIELD (SEQ, 6, SEQ_MAX / 2 + 1),
    .end = ALWAYS (REFUSED ("sequence numbers are used up")) },
  { "sequence number + 1000", "", ENTRY_FIELD (SEQ, 6, 1000), .is_added = true,
    .end = { BEHIND ("one copy of its entry is newer"),
             BEHIND ("one copy of its entry is newer"), OPENS } },
  { "time", "entries differ", ENTRY_FIELD (TIME, 4, UINT32_MAX),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER), OPENS } },
  { "zeroed", "checksum of an entry", .change = entry_zero,
    .end = WRONG_ENTRY ("has a wrong checksum") },
  { "that of the slot behind", "checksum of an entry",
    .change = entry_of_neighbour, .end = WRONG_ENTRY ("has a wrong checksum") },
#define ENTRY_BITS(w)                                                         \
  { "bits at " #w, "checksum of an entry", .change = entry_bits, .where = w,  \
    .end = WRONG_ENTRY ("has a wrong checksum") }
  ENTRY_BITS (0), ENTRY_BITS (5), ENTRY_BITS (6), ENTRY_BITS (11),
  ENTRY_BITS (12), ENTRY_BITS (16), ENTRY_BITS (20), ENTRY_BITS (21),
  ENTRY_BITS (22), ENTRY_BITS (24), ENTRY_BITS (27),
};

/* Of a slot that stands in for a sector. */
static const struct fault claim_faults[] = {
  { "LBA behind the end", "sector behind the end",
    ENTRY_FIELD (LBA, 6, BASE_NR_SECTORS),
    .end = { [2] = REFUSED ("for sector 256 of a disk with 256 sectors") } },
  { "LBA 2^48 - 1", "sector behind the end", ENTRY_FIELD (LBA, 6, LBA_MAX),
    .end = { [2] = REFUSED ("for sector 281474976710655 of a disk") } },
  { "LBA in one", "entries differ", ENTRY_FIELD (LBA, 6, BASE_LBA_CLEAN),
    .end = { REFUSED (DIFFER), REFUSED (DIFFER) } },
  { "another with its sector and its age", "two slots",
    .change = claim_of_same_age,
    .end = { REFUSED ("both stand in for sector") } },
};

/* Of a slot with data. */
static const struct fault data_faults[] = {
  { "checksum of the data", "entries differ", ENTRY_FIELD (DATA_CRC, 4, 1),
    .is_added = true, .end = { REFUSED (DIFFER), REFUSED (DIFFER), LOSES } },
  { "first bits of the data", "", .change = data_bits, .end = { LOSES } },
  { "last bits of the data", "", .change = data_bits, .where = 511,
    .end = { LOSES } },
  { "zeroed data", "", .change = data_zero, .end = { LOSES } },
};

#define TABLE_SECTOR(s, n)                                                    \
  { "sector " #n " of section " #s, "checksum of an entry",                   \
    .change = table_zero, .value = s, .where = n * TABLE_SECTOR_BYTES,        \
    .nr_bytes = TABLE_SECTOR_BYTES, .end = WRONG_ENTRY ("has a wrong checksum") }

static const struct fault table_faults[] = {
  TABLE_SECTOR (0, 0), TABLE_SECTOR (0, 1), TABLE_SECTOR (0, 2),
  TABLE_SECTOR (1, 0), TABLE_SECTOR (1, 1),
  { "all of section 0", "checksum of an entry", .change = table_zero,
    .end = WRONG_ENTRY ("has a wrong checksum") },
  { "all of section 1", "checksum of an entry", .change = table_zero,
    .value = 1, .end = WRONG_ENTRY ("has a wrong checksum") },
  { "behind the entries of a sector", "", .change = table_tail, .where = 504,
    .nr_bytes = 8, .end = ALWAYS (OPENS) },
  { "behind the last entry", "", .change = table_tail, .value = 1,
    .where = 1024 - 8, .nr_bytes = 3000, .end = ALWAYS (OPENS) },
};

static const struct fault store_faults[] = {
  { "superblocks swapped", "copy", .change = supers_swapped,
    .end = { REFUSED ("the other copy belongs") } },
  { "no head", "", .change = region_zero, .nr_bytes = STORE_HEAD_BYTES,
    .end = { REPAIRED ("commit sector") } },
  { "no tail", "", .change = tail_zero, .nr_bytes = STORE_TAIL_BYTES,
    .end = { REPAIRED ("commit sector") } },
  { "no first half", "checksum of an entry", .change = half_zero,
    .end = { REFUSED ("slot 0: ") } },
  { "no second half", "checksum of an entry", .change = half_zero, .value = 1,
    .end = { REFUSED ("slot 40: ") } },
  { "a record without data", "", .change = claim_without_data,
    .value = BASE_LBA_CLEAN, .end = { BEHIND ("not yet durable") } },
  { "a newer record without data", "", .change = claim_without_data,
    .value = BASE_LBA_REMAPPED, .end = { BEHIND ("not yet durable") } },
  { "growth half done", "", .change = growth_half_done,
    .end = { BEHIND ("first superblock is older") } },
  /* Two faults, after which what stood there before the growth must not be
   * taken for the store.
   */
  { "first superblock damaged, longer", "", .change = resized_and_damaged,
    .is_added = true, .value = 100000, .end = { REPAIRED ("wrong checksum") } },
  { "first superblock damaged, shorter", "checksum of a superblock",
    .change = resized_and_damaged, .is_added = true, .value = -UINT64_C (4096),
    .end = { REFUSED ("superblock") } },
  { "first superblock damaged, as short as before growth",
    "checksum of a superblock", .change = resized_and_damaged, .value = 45056,
    .end = { REFUSED ("superblock") } },
};

static const struct fault size_fault = {
  "size", "cut off", .change = cut_off,
};

/* The list. */

struct list {
  struct image_case *cases;
  size_t nr, max;
};

static struct image_case *
add (struct list *list, const char *area, const struct fault *f,
     uint64_t subject, unsigned copies)
{
  static const char *const where[] = {
    "", " in the first copy", " in the second copy", " in both copies" };
  struct image_case *c;

  if (list->nr == list->max) {
    list->max = list->max * 2 + 256;
    list->cases = realloc (list->cases, list->max * sizeof list->cases[0]);
    if (list->cases == NULL)
      give_up ("no memory");
  }
  c = &list->cases[list->nr++];
  *c = (struct image_case) {
    .class = f->class, .fault = f, .copies = copies, .subject = subject,
    .end = f->end[copies - 1], .lost_lba = subject,
  };
  if (c->end.result == IMAGE_REFUSED && strcmp (c->end.text, DIFFER) == 0)
    c->class = strncmp (area, "super", 5) == 0 ? "differ" : "entries differ";
  if (strcmp (area, "free slot") == 0 && strcmp (f->name, "time") == 0 &&
      c->end.result == IMAGE_OPENS)
    c->end.result = IMAGE_ODD;
  snprintf (c->name, sizeof c->name, "%s: %s%s", area, f->name,
            where[copies]);
  return c;
}

static void
add_faults (struct list *list, const char *area, const struct fault *f,
            size_t nr, uint64_t subject)
{
  for (size_t i = 0; i < nr; i++)
    for (unsigned copies = 1; copies <= 3; copies++)
      if (f[i].end[copies - 1].result != IMAGE_NOT_MADE)
        add (list, area, &f[i], subject, copies);
}

static void
add_size (struct list *list, size_t size_bytes, uint64_t store_bytes)
{
  struct image_case *c;

  if (size_bytes == 0 || size_bytes == store_bytes)
    return;
  c = add (list, "store", &size_fault, size_bytes, 1);
  snprintf (c->name, sizeof c->name, "store: %zu bytes", size_bytes);
  c->end = size_bytes > store_bytes ? (struct image_end) OPENS
    : size_bytes < STORE_MAGIC_BYTES ? (struct image_end) NO_STORE
    : (struct image_end) REFUSED ("cut off");
}

/* Cut off at each boundary, and beside it. */
static void
add_sizes (struct list *list)
{
  struct store_section s[2];
  uint64_t first_end = store_section_layout (&s[0], 0, BASE_SLOTS_AT_FIRST, 512,
                                             STORE_HEAD_BYTES);
  uint64_t begin = first_end + STORE_TAIL_BYTES;
  uint64_t end = store_section_layout (&s[1], BASE_SLOTS_AT_FIRST,
                                       BASE_SLOTS - BASE_SLOTS_AT_FIRST, 512,
                                       begin);
  uint64_t store_bytes = end + STORE_TAIL_BYTES;
  const uint64_t boundaries[] = {
    1, STORE_MAGIC_BYTES, 512, STORE_BLOCK, STORE_BLOCK + COMMIT_BYTES,
    STORE_HEAD_BYTES, s[0].data, STORE_HEAD_BYTES + STORE_TAIL_BYTES,
    s[0].table_b, first_end, first_end + COMMIT_BYTES,
    first_end + STORE_BLOCK, begin, s[1].data, s[1].table_b, end,
    end + COMMIT_BYTES, end + STORE_BLOCK, store_bytes,
    store_bytes + 512, store_bytes + STORE_BLOCK,
    store_bytes + STORE_TAIL_BYTES, store_bytes + (1 << 20),
  };

  for (size_t i = 0; i < NR_OF (boundaries); i++)
    for (int delta = -1; delta <= 1; delta++)
      add_size (list, (size_t) boundaries[i] + (size_t) delta, store_bytes);
}

static const struct {
  const char *name;
  uint64_t subject;
  bool is_claim, has_data;
} subjects[] = {
  { "remapped slot", SUBJECT (OF_LBA, BASE_LBA_REMAPPED), true, true },
  { "slot of the second section", SUBJECT (OF_LBA, BASE_LBA_SECOND), true,
    true },
  { "lost slot", SUBJECT (OF_LBA, BASE_LBA_LOST), true, false },
  { "zeroed slot", SUBJECT (OF_LBA, BASE_LBA_ZEROED), true, false },
  { "bad slot", SUBJECT (OF_STATE, ENTRY_BAD_SLOT), false, false },
  { "free slot", SUBJECT (OF_STATE, ENTRY_FREE), false, false },
};

struct image_case *
images_list (size_t *ret_nr)
{
  struct list list = { .cases = NULL };

  add_faults (&list, "superblock", super_faults, NR_OF (super_faults), 0);
  add_faults (&list, "commit sector", commit_faults, NR_OF (commit_faults), 0);
  for (size_t i = 0; i < NR_OF (subjects); i++) {
    add_faults (&list, subjects[i].name, entry_faults, NR_OF (entry_faults),
                subjects[i].subject);
    if (subjects[i].is_claim)
      add_faults (&list, subjects[i].name, claim_faults, NR_OF (claim_faults),
                  subjects[i].subject);
    if (subjects[i].has_data)
      add_faults (&list, subjects[i].name, data_faults, NR_OF (data_faults),
                  subjects[i].subject);
  }
  add_faults (&list, "table", table_faults, NR_OF (table_faults), 0);
  add_faults (&list, "store", store_faults, NR_OF (store_faults), 0);
  add_sizes (&list);
  *ret_nr = list.nr;
  return list.cases;
}

void
images_make (const struct image_case *c, struct image *image)
{
  uint64_t subject = c->subject >> 56 ? slot_of (image, c->subject)
    : c->subject;

  for (unsigned copy = 0; copy < 2; copy++)
    if (c->copies & 1u << copy)
      c->fault->change (image, c->fault, subject, copy);
}
