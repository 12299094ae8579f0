/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checked.h"
#include "crc32c.h"
#include "endian.h"
#include "store-codec.h"

/* For loops that run a million times: ck_assert itself makes a system call. */
#define ASSERT_QUICKLY(cond)                                                  \
  do {                                                                        \
    if (!(cond))                                                              \
      ck_abort_msg ("not true: %s", #cond);                                   \
  } while (0)

/* Known answers.  These bytes are what stores in the field hold: if one of
 * these tests fails, the format has changed, and needs a new version number.
 * Their checksums were computed by another program.
 */

static const uint8_t uuid[STORE_UUID_BYTES] = {
  0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
  0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
};

static const struct store_super known_super = {
  .compat = 0xc1, .ro_compat = 0xc2, .incompat = 0,
  .sector_bytes = 512,
  .uuid = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f },
  .generation = 9,
  .store_bytes = 106496,
  .backing_bytes = UINT64_C (0x123456789a00),
  .backing_kind = 2,
  .nr_kept = 8,
  .nr_ready = 110,
  .created_s = 0x65f0a1b2,
  .backing_id = "wwn-naa.5000c500a1b2c3d4",
  .backing_path = "/dev/sdb",
  .backing_inode = UINT64_C (0x1122334455667788),
  .backing_born_s = 0x65f0a1b1, .backing_born_ns = 999999999,
  .nr_sections = 2,
  .sections = {
    { 0, 100, 8192, 12288, 65536 },
    { 100, 20, 77824, 81920, 94208 },
  },
};

/* Of the second copy; all bytes that are not named here are zero. */
static const struct {
  unsigned offset, nr;
  const char *bytes;
} known_super_bytes[] = {
  { 0, 8, "REMAPSTO" },
  { 8, 4, "\x01\0\0\0" },                       /* version */
  { 12, 4, "\x01\0\0\0" },                      /* copy */
  { 16, 4, "\xc1\0\0\0" },                      /* compatible */
  { 20, 4, "\xc2\0\0\0" },                      /* read-only compatible */
  { 24, 4, "\0\0\0\0" },                        /* incompatible */
  { 28, 4, "\0\x02\0\0" },                      /* sector size */
  { 32, 16, "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f" },
  { 48, 8, "\x09\0\0\0\0\0\0\0" },              /* generation */
  { 56, 8, "\0\xa0\x01\0\0\0\0\0" },            /* store size */
  { 64, 8, "\0\x9a\x78\x56\x34\x12\0\0" },      /* backing size */
  { 72, 4, "\x02\0\0\0" },                      /* kind of the backing */
  { 76, 4, "\x08\0\0\0" },                      /* slots kept */
  { 80, 8, "\x6e\0\0\0\0\0\0\0" },              /* slots ready */
  { 88, 4, "\x02\0\0\0" },                      /* sections */
  { 96, 8, "\xb2\xa1\xf0\x65\0\0\0\0" },        /* made */
  { 128, 24, "wwn-naa.5000c500a1b2c3d4" },
  { 256, 8, "/dev/sdb" },
  { 512, 8, "\x88\x77\x66\x55\x44\x33\x22\x11" },   /* inode */
  { 520, 8, "\xb1\xa1\xf0\x65\0\0\0\0" },        /* made */
  { 528, 4, "\xff\xc9\x9a\x3b" },              /* nanoseconds */
  { 1024, 8, "\0\0\0\0\0\0\0\0" },              /* section: first slot */
  { 1032, 8, "\x64\0\0\0\0\0\0\0" },            /* slots */
  { 1040, 8, "\0\x20\0\0\0\0\0\0" },            /* table, first copy */
  { 1048, 8, "\0\x30\0\0\0\0\0\0" },            /* data */
  { 1056, 8, "\0\0\x01\0\0\0\0\0" },            /* table, second copy */
  { 1072, 8, "\x64\0\0\0\0\0\0\0" },
  { 1080, 8, "\x14\0\0\0\0\0\0\0" },
  { 1088, 8, "\0\x30\x01\0\0\0\0\0" },
  { 1096, 8, "\0\x40\x01\0\0\0\0\0" },
  { 1104, 8, "\0\x70\x01\0\0\0\0\0" },
  { 4092, 4, "\xc0\x27\xb6\x19" },              /* checksum */
};

static void
make_known_super (uint8_t block[STORE_BLOCK])
{
  memset (block, 0, STORE_BLOCK);
  for (size_t i = 0; i < sizeof known_super_bytes / sizeof known_super_bytes[0];
       i++)
    memcpy (block + known_super_bytes[i].offset, known_super_bytes[i].bytes,
            known_super_bytes[i].nr);
}

static const struct store_commit known_commit = {
  .uuid = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
            0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f },
  .durable_seq = UINT64_C (0x0203040506), .pid = 4711, .is_clean = true,
  .time_s = 0x65f0a1b2, .count = 0x070809,
  .nr_stale = 2, .stale = { 2, 0x12345678 },
};

static void
make_known_commit (uint8_t sector[COMMIT_BYTES])
{
  static const char head[] =
    "REMAPCMT"
    "\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
    "\x06\x05\x04\x03\x02\0\0\0"        /* durable */
    "\x67\x12\0\0"                      /* process */
    "\x01\0\0\0"                        /* closed in good order */
    "\xb2\xa1\xf0\x65\0\0\0\0"          /* when */
    "\x09\x08\x07\0\0\0\0\0"            /* how often */
    "\x02\0\0\0" "\0\0\0\0"             /* stale blocks */
    "\x02\0\0\0" "\x78\x56\x34\x12";

  memset (sector, 0, COMMIT_BYTES);
  memcpy (sector, head, 72);
  memcpy (sector + 508, "\xc8\x41\xcb\x42", 4);
}

#define KNOWN_SLOT ((spare_t) { 0x01234567 })

static const struct store_entry known_entry = {
  .lba = { UINT64_C (0x123456789abc) }, .seq = UINT64_C (0x0203040506),
  .data_crc = 0xdeadbeef, .time_s = 0x65f0a1b2, .state = ENTRY_REMAPPED,
  .cause = CAUSE_READ_ERROR,
};

static const uint8_t known_entry_bytes[ENTRY_BYTES] = {
  0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12,   /* sector */
  0x06, 0x05, 0x04, 0x03, 0x02, 0x00,   /* sequence number */
  0xef, 0xbe, 0xad, 0xde,               /* checksum of the data */
  0xb2, 0xa1, 0xf0, 0x65,               /* when */
  0x02, 0x01, 0x00, 0x00,               /* state, cause */
  0x9d, 0xdc, 0x79, 0xb4,               /* checksum */
};

static void
compare_supers (const struct store_super *a, const struct store_super *b)
{
  ck_assert_uint_eq (a->compat, b->compat);
  ck_assert_uint_eq (a->ro_compat, b->ro_compat);
  ck_assert_uint_eq (a->incompat, b->incompat);
  ck_assert_uint_eq (a->sector_bytes, b->sector_bytes);
  ck_assert_mem_eq (a->uuid, b->uuid, STORE_UUID_BYTES);
  ck_assert_uint_eq (a->generation, b->generation);
  ck_assert_uint_eq (a->store_bytes, b->store_bytes);
  ck_assert_uint_eq (a->backing_bytes, b->backing_bytes);
  ck_assert_uint_eq (a->backing_kind, b->backing_kind);
  ck_assert_uint_eq (a->nr_kept, b->nr_kept);
  ck_assert_uint_eq (a->nr_ready, b->nr_ready);
  ck_assert_uint_eq (a->created_s, b->created_s);
  ck_assert_mem_eq (a->backing_id, b->backing_id, STORE_ID_BYTES);
  ck_assert_mem_eq (a->backing_path, b->backing_path, STORE_PATH_BYTES);
  ck_assert_uint_eq (a->nr_sections, b->nr_sections);
  for (unsigned i = 0; i < a->nr_sections; i++) {
    const struct store_section *s = &a->sections[i], *t = &b->sections[i];

    ck_assert_uint_eq (s->first_slot, t->first_slot);
    ck_assert_uint_eq (s->nr_slots, t->nr_slots);
    ck_assert_uint_eq (s->table_a, t->table_a);
    ck_assert_uint_eq (s->data, t->data);
    ck_assert_uint_eq (s->table_b, t->table_b);
  }
}

static void
compare_entries (const struct store_entry *a, const struct store_entry *b)
{
  ASSERT_QUICKLY (a->lba.n == b->lba.n);
  ASSERT_QUICKLY (a->seq == b->seq);
  ASSERT_QUICKLY (a->data_crc == b->data_crc);
  ASSERT_QUICKLY (a->time_s == b->time_s);
  ASSERT_QUICKLY (a->state == b->state);
  ASSERT_QUICKLY (a->cause == b->cause);
}

START_TEST (known_super_is_encoded)
{
  uint8_t block[STORE_BLOCK], known[STORE_BLOCK];

  make_known_super (known);
  store_super_encode (&known_super, 1, block);
  for (unsigned i = 0; i < STORE_BLOCK; i++)
    if (block[i] != known[i])
      ck_abort_msg ("byte %u is %02x, not %02x", i, block[i], known[i]);
}
END_TEST

START_TEST (known_super_is_decoded)
{
  struct store_super super;
  uint8_t known[STORE_BLOCK];

  make_known_super (known);
  ck_assert_ptr_null (store_super_decode (known, 1, &super));
  compare_supers (&super, &known_super);
  ck_assert_uint_eq (store_super_slots (&super), 120);
}
END_TEST

START_TEST (known_commit_both_ways)
{
  uint8_t sector[COMMIT_BYTES], known[COMMIT_BYTES];
  struct store_commit commit;

  make_known_commit (known);
  store_commit_encode (&known_commit, sector);
  ck_assert_mem_eq (sector, known, COMMIT_BYTES);
  ck_assert_ptr_null (store_commit_decode (known, uuid, &commit));
  ck_assert_mem_eq (commit.uuid, uuid, STORE_UUID_BYTES);
  ck_assert_uint_eq (commit.durable_seq, known_commit.durable_seq);
  ck_assert_uint_eq (commit.pid, 4711);
  ck_assert (commit.is_clean);
  ck_assert_uint_eq (commit.time_s, 0x65f0a1b2);
  ck_assert_uint_eq (commit.count, 0x070809);
  ck_assert_uint_eq (commit.nr_stale, 2);
  ck_assert (store_commit_has_stale (&commit, 2 * STORE_BLOCK));
  ck_assert (store_commit_has_stale (&commit, UINT64_C (0x12345678)
                                     * STORE_BLOCK + 511));
  ck_assert (!store_commit_has_stale (&commit, 0));
}
END_TEST

START_TEST (known_entry_both_ways)
{
  uint8_t bytes[ENTRY_BYTES];
  struct store_entry entry;

  store_entry_encode (&known_entry, uuid, KNOWN_SLOT, bytes);
  ck_assert_mem_eq (bytes, known_entry_bytes, ENTRY_BYTES);
  ck_assert_ptr_null (store_entry_decode (known_entry_bytes, uuid, KNOWN_SLOT,
                                          &entry));
  compare_entries (&entry, &known_entry);
}
END_TEST

/* The numbers of states and causes are on disk as well. */
START_TEST (known_numbers)
{
  ck_assert_int_eq (ENTRY_FREE, 1);
  ck_assert_int_eq (ENTRY_REMAPPED, 2);
  ck_assert_int_eq (ENTRY_LOST, 3);
  ck_assert_int_eq (ENTRY_ZEROED, 4);
  ck_assert_int_eq (ENTRY_BAD_SLOT, 5);
  ck_assert_int_eq (CAUSE_NONE, 0);
  ck_assert_int_eq (CAUSE_READ_ERROR, 1);
  ck_assert_int_eq (CAUSE_WRITE_ERROR, 2);
  ck_assert_int_eq (CAUSE_REWRITE, 3);
  ck_assert_int_eq (CAUSE_SPARE_ERROR, 4);
}
END_TEST

/* Where things are. */

START_TEST (layout_of_tables)
{
  struct store_section s;

  ck_assert_uint_eq (store_entry_offset (0), 0);
  ck_assert_uint_eq (store_entry_offset (1), 28);
  ck_assert_uint_eq (store_entry_offset (17), 476);
  ck_assert_uint_eq (store_entry_offset (18), 512);
  ck_assert_uint_eq (store_entry_offset (18 * 1000 + 5), 512 * 1000 + 140);
  ck_assert_uint_eq (store_table_bytes (1), 4096);
  ck_assert_uint_eq (store_table_bytes (8 * 18), 4096);
  ck_assert_uint_eq (store_table_bytes (8 * 18 + 1), 8192);

  ck_assert_uint_eq (store_section_layout (&s, 7, 145, 512, 8192),
                     8192 + 8192 + 19 * 4096 + 8192);
  ck_assert_uint_eq (s.first_slot, 7);
  ck_assert_uint_eq (s.nr_slots, 145);
  ck_assert_uint_eq (s.table_a, 8192);
  ck_assert_uint_eq (s.data, 16384);
  ck_assert_uint_eq (s.table_b, 16384 + 19 * 4096);
}
END_TEST

/* Round trips. */

static unsigned
seed_random (const char *test, int i)
{
  const char *given = getenv ("REMAP_TEST_SEED");
  unsigned seed = given ? (unsigned) strtoul (given, NULL, 10)
    : (unsigned) time (NULL) * 100 + (unsigned) i;

  printf ("%s: REMAP_TEST_SEED=%u\n", test, seed);
  fflush (stdout);
  srandom (seed);
  return seed;
}

static uint64_t
random_bits (unsigned nr)
{
  uint64_t n = (uint64_t) random () << 42 ^ (uint64_t) random () << 21
    ^ (uint64_t) random ();

  return n & (nr == 64 ? UINT64_MAX : (UINT64_C (1) << nr) - 1);
}

/* A store with so many sections, with gaps between them as growing a file
 * leaves them.
 */
static void
random_super (struct store_super *s, unsigned nr_sections)
{
  uint64_t slots = 0, end = STORE_HEAD_BYTES;
  unsigned id_length = (unsigned) random_bits (7);
  unsigned path_length = (unsigned) random_bits (8);

  memset (s, 0, sizeof *s);
  s->compat = (uint32_t) random_bits (32);
  s->ro_compat = (uint32_t) random_bits (32);
  s->sector_bytes = 512u << random_bits (3);
  for (unsigned i = 0; i < STORE_UUID_BYTES; i++)
    s->uuid[i] = (uint8_t) random_bits (8);
  s->generation = random_bits (63);
  s->backing_bytes = random_bits (40);
  s->backing_kind = 1 + (uint32_t) random_bits (8) % 3;
  s->created_s = random_bits (64);
  s->backing_inode = random_bits (64);
  s->backing_born_s = random_bits (64);
  s->backing_born_ns = (uint32_t) random_bits (29);
  for (unsigned i = 0; i < id_length; i++)
    s->backing_id[i] = (char) ('a' + i % 26);
  for (unsigned i = 0; i < path_length; i++)
    s->backing_path[i] = (char) ('A' + i % 26);
  s->nr_sections = nr_sections;
  for (unsigned i = 0; i < nr_sections; i++) {
    uint64_t nr = 1 + random_bits (20);

    end = store_section_layout (&s->sections[i], slots, nr, s->sector_bytes,
                                end + random_bits (4) * STORE_BLOCK);
    slots += nr;
  }
  s->store_bytes = end + STORE_TAIL_BYTES + random_bits (4) * STORE_BLOCK;
  s->nr_ready = random_bits (20) % (slots + 1);
  s->nr_kept = (uint32_t) (random_bits (8) % slots);
}

START_TEST (super_round_trip)
{
  uint8_t block[STORE_BLOCK];

  seed_random ("super_round_trip", _i);
  for (unsigned i = 0; i < 200; i++) {
    struct store_super super, decoded;
    unsigned copy = i % 2;

    random_super (&super, 1 + i % STORE_SECTIONS_MAX);
    store_super_encode (&super, copy, block);
    ck_assert_ptr_null (store_super_decode (block, copy, &decoded));
    compare_supers (&decoded, &super);
    ck_assert_ptr_nonnull (store_super_decode (block, !copy, &decoded));
  }
}
END_TEST

START_TEST (entry_round_trip)
{
  uint8_t bytes[ENTRY_BYTES];

  seed_random ("entry_round_trip", _i);
  for (unsigned i = 0; i < 20000; i++) {
    spare_t slot = { (uint32_t) random_bits (30) };
    struct store_entry decoded, entry = {
      .lba = { random_bits (48) }, .seq = random_bits (48),
      .data_crc = (uint32_t) random_bits (32),
      .time_s = (uint32_t) random_bits (32),
      .state = (enum entry_state) (1 + random_bits (8) % 5),
      .cause = (enum sector_cause) (random_bits (8) % 5),
    };

    store_entry_encode (&entry, uuid, slot, bytes);
    ASSERT_QUICKLY (store_entry_decode (bytes, uuid, slot, &decoded) == NULL);
    compare_entries (&decoded, &entry);
  }
}
END_TEST

/* Damage. */

START_TEST (any_wrong_bit_of_a_super_is_found)
{
  uint8_t block[STORE_BLOCK];
  struct store_super super;

  make_known_super (block);
  for (unsigned bit = 0; bit < STORE_BLOCK * 8; bit++) {
    block[bit / 8] ^= (uint8_t) (1 << bit % 8);
    ASSERT_QUICKLY (store_super_decode (block, 1, &super) != NULL);
    block[bit / 8] ^= (uint8_t) (1 << bit % 8);
  }
}
END_TEST

START_TEST (any_wrong_bit_of_a_commit_is_found)
{
  uint8_t sector[COMMIT_BYTES];
  struct store_commit commit;

  make_known_commit (sector);
  for (unsigned bit = 0; bit < COMMIT_BYTES * 8; bit++) {
    sector[bit / 8] ^= (uint8_t) (1 << bit % 8);
    ASSERT_QUICKLY (store_commit_decode (sector, uuid, &commit) != NULL);
    sector[bit / 8] ^= (uint8_t) (1 << bit % 8);
  }
}
END_TEST

START_TEST (any_wrong_bit_of_an_entry_is_found)
{
  uint8_t bytes[ENTRY_BYTES];
  struct store_entry entry;

  memcpy (bytes, known_entry_bytes, ENTRY_BYTES);
  for (unsigned bit = 0; bit < ENTRY_BYTES * 8; bit++) {
    bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
    ASSERT_QUICKLY (store_entry_decode (bytes, uuid, KNOWN_SLOT, &entry)
                    != NULL);
    bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
  }
}
END_TEST

/* An entry is good in its own slot of its own store, and nowhere else. */
START_TEST (entry_belongs_to_its_slot_and_store)
{
  uint8_t other[STORE_UUID_BYTES];
  struct store_entry entry;

  for (unsigned bit = 0; bit < 30; bit++) {
    spare_t slot = { KNOWN_SLOT.n ^ 1u << bit };

    ck_assert_ptr_nonnull (store_entry_decode (known_entry_bytes, uuid, slot,
                                               &entry));
  }
  for (unsigned bit = 0; bit < STORE_UUID_BYTES * 8; bit++) {
    memcpy (other, uuid, sizeof other);
    other[bit / 8] ^= (uint8_t) (1 << bit % 8);
    ck_assert_ptr_nonnull (store_entry_decode (known_entry_bytes, other,
                                               KNOWN_SLOT, &entry));
  }
}
END_TEST

/* Zeroes, as of a hole or of a disk that is new, are nothing. */
START_TEST (zeroes_are_nothing)
{
  static const uint8_t zeroes[STORE_BLOCK];
  struct store_super super;
  struct store_commit commit;
  struct store_entry entry;

  ck_assert_str_eq (store_super_decode (zeroes, 0, &super),
                    "is no superblock of a store");
  ck_assert_str_eq (store_commit_decode (zeroes, uuid, &commit),
                    "is no commit sector");
  ck_assert_ptr_nonnull (store_entry_decode (zeroes, uuid, (spare_t) { 0 },
                                             &entry));
  ck_assert_ptr_nonnull (store_entry_decode (zeroes, zeroes, (spare_t) { 0 },
                                             &entry));
}
END_TEST

/* One field is wrong, and the checksum is right. */

static const struct wrong_field {
  unsigned offset, nr_bytes;
  uint64_t value;
  const char *says;             /* is in the message */
} wrong_in_super[] = {
  { SUPER_MAGIC, 8, 0, "no superblock" },
  { SUPER_MAGIC, 1, 'r', "no superblock" },
  { SUPER_VERSION, 4, 0, "another version" },
  { SUPER_VERSION, 4, 2, "another version" },
  { SUPER_VERSION, 4, 0x10001, "another version" },
  { SUPER_COPY, 4, 0, "other copy" },
  { SUPER_COPY, 4, 2, "other copy" },
  { SUPER_GENERATION, 8, UINT64_C (1) << 63, "generation" },
  { SUPER_GENERATION, 8, UINT64_MAX, "generation" },
  { SUPER_INCOMPAT, 4, 1, "does not know" },
  { SUPER_INCOMPAT, 4, 0x80000000, "does not know" },
  { SUPER_SECTOR_BYTES, 4, 0, "sector size" },
  { SUPER_SECTOR_BYTES, 4, 256, "sector size" },
  { SUPER_SECTOR_BYTES, 4, 513, "sector size" },
  { SUPER_SECTOR_BYTES, 4, 1536, "sector size" },
  { SUPER_SECTOR_BYTES, 4, 131072, "sector size" },
  { SUPER_SECTOR_BYTES, 4, 4096, "section" },   /* the data takes more room */
  { SUPER_STORE_BYTES, 8, 0, "store size" },
  { SUPER_STORE_BYTES, 8, 12288, "store size" },
  { SUPER_STORE_BYTES, 8, 106496 + 512, "store size" },
  { SUPER_STORE_BYTES, 8, 106496 - 4096, "section" },
  { SUPER_STORE_BYTES, 8, 16384, "section" },
  { SUPER_STORE_BYTES, 8, UINT64_C (1) << 63, "store size" },
  { SUPER_STORE_BYTES, 8, -UINT64_C (4096), "store size" },
  { SUPER_BACKING_BYTES, 8, UINT64_C (1) << 63, "backing size" },
  { SUPER_BACKING_BYTES, 8, UINT64_C (1) << 57, "backing size" },
  { SUPER_BACKING_KIND, 4, 0, "kind" },
  { SUPER_BACKING_KIND, 4, 4, "kind" },
  { SUPER_NR_KEPT, 4, 120, "keeps more" },
  { SUPER_NR_KEPT, 4, UINT32_MAX, "keeps more" },
  { SUPER_NR_READY, 8, 121, "more slots in use" },
  { SUPER_NR_READY, 8, UINT64_MAX, "more slots in use" },
  { SUPER_NR_SECTIONS, 4, 0, "number of sections" },
  { SUPER_NR_SECTIONS, 4, 3, "section" },       /* the third is zero */
  { SUPER_NR_SECTIONS, 4, 33, "number of sections" },
  { SUPER_NR_SECTIONS, 4, UINT32_MAX, "number of sections" },
  { SUPER_NR_SECTIONS, 4, 1, "more slots in use" },
  { SUPER_BACKING_ID + 127, 1, 'x', "without an end" },
  { SUPER_BACKING_PATH + 255, 1, 'x', "without an end" },
  { SUPER_BACKING_BORN_NS, 4, 1000000000, "time" },
  /* The first section. */
  { 1024 + SECTION_FIRST_SLOT, 8, 1, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, 0, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, 99, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, 1000, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, SPARES_MAX, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, UINT64_MAX, "section" },
  { 1024 + SECTION_NR_SLOTS, 8, UINT64_MAX / 512, "section" },
  { 1024 + SECTION_TABLE_A, 8, 0, "section" },
  { 1024 + SECTION_TABLE_A, 8, 4096, "section" },
  { 1024 + SECTION_TABLE_A, 8, 8193, "section" },
  { 1024 + SECTION_TABLE_A, 8, 12288, "section" },
  { 1024 + SECTION_TABLE_A, 8, UINT64_MAX, "section" },
  { 1024 + SECTION_TABLE_A, 8, -UINT64_C (4096), "section" },
  { 1024 + SECTION_DATA, 8, 8192, "section" },
  { 1024 + SECTION_DATA, 8, 12288 + 512, "section" },
  { 1024 + SECTION_DATA, 8, UINT64_MAX, "section" },
  { 1024 + SECTION_TABLE_B, 8, 8192, "section" },
  { 1024 + SECTION_TABLE_B, 8, 65536 + 4096, "section" },
  { 1024 + SECTION_TABLE_B, 8, UINT64_MAX, "section" },
  /* The second. */
  { 1072 + SECTION_FIRST_SLOT, 8, 0, "section" },
  { 1072 + SECTION_FIRST_SLOT, 8, 99, "section" },
  { 1072 + SECTION_FIRST_SLOT, 8, 101, "section" },
  { 1072 + SECTION_NR_SLOTS, 8, 0, "section" },
  { 1072 + SECTION_NR_SLOTS, 8, 100, "section" },
  { 1072 + SECTION_NR_SLOTS, 8, SPARES_MAX - 99, "section" },
  { 1072 + SECTION_TABLE_A, 8, 8192, "section" },
  { 1072 + SECTION_TABLE_A, 8, 69632 - 4096, "section" },
  { 1072 + SECTION_TABLE_A, 8, 106496, "section" },
  { 1072 + SECTION_DATA, 8, 12288, "section" },
  { 1072 + SECTION_TABLE_B, 8, 65536, "section" },
};

static void
check_message (const char *message, const char *says)
{
  ck_assert_ptr_nonnull (message);
  if (strstr (message, says) == NULL)
    ck_abort_msg ("\"%s\" says nothing of \"%s\"", message, says);
}

START_TEST (super_with_a_wrong_field)
{
  const struct wrong_field *f = &wrong_in_super[_i];
  uint8_t block[STORE_BLOCK];
  struct store_super super;

  make_known_super (block);
  put_le (block + f->offset, f->nr_bytes, f->value);
  put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
  check_message (store_super_decode (block, 1, &super), f->says);
}
END_TEST

/* Sections that are whole, but in the wrong place: over the head, over each
 * other, over the tail.
 */
START_TEST (sections_in_the_wrong_place)
{
  static const struct {
    unsigned section;
    uint64_t offset;
  } places[] = {
    { 0, 0 }, { 0, 4096 }, { 0, 20480 },
    { 1, 8192 }, { 1, 65536 }, { 1, 69632 - 4096 }, { 1, 77824 + 4096 },
  };
  struct store_super super = known_super, decoded;
  struct store_section *s = &super.sections[places[_i].section];
  uint8_t block[STORE_BLOCK];

  store_section_layout (s, s->first_slot, s->nr_slots, super.sector_bytes,
                        places[_i].offset);
  store_super_encode (&super, 0, block);
  check_message (store_super_decode (block, 0, &decoded), "section");
}
END_TEST

static const struct wrong_field wrong_in_commit[] = {
  { COMMIT_MAGIC, 8, 0, "no commit" },
  { COMMIT_MAGIC + 7, 1, 'O', "no commit" },
  { COMMIT_UUID, 1, 0x11, "another store" },
  { COMMIT_UUID + 15, 1, 0, "another store" },
  { COMMIT_DURABLE, 8, SEQ_MAX + 1, "sequence number" },
  { COMMIT_DURABLE, 8, UINT64_MAX, "sequence number" },
};

START_TEST (commit_with_a_wrong_field)
{
  const struct wrong_field *f = &wrong_in_commit[_i];
  uint8_t sector[COMMIT_BYTES];
  struct store_commit commit;

  make_known_commit (sector);
  put_le (sector + f->offset, f->nr_bytes, f->value);
  put_le32 (sector + COMMIT_CRC, crc32c (0, sector, COMMIT_CRC));
  check_message (store_commit_decode (sector, uuid, &commit), f->says);
}
END_TEST

static const struct wrong_field wrong_in_entry[] = {
  { ENTRY_STATE, 1, 0, "state" },
  { ENTRY_STATE, 1, 6, "state" },
  { ENTRY_STATE, 1, 255, "state" },
  { ENTRY_CAUSE, 1, 5, "cause" },
  { ENTRY_CAUSE, 1, 255, "cause" },
  { ENTRY_ZERO, 2, 1, "not zero" },
  { ENTRY_ZERO, 2, 0x8000, "not zero" },
};

START_TEST (entry_with_a_wrong_field)
{
  const struct wrong_field *f = &wrong_in_entry[_i];
  uint8_t bytes[ENTRY_BYTES], number[8];
  struct store_entry entry;
  uint32_t crc;

  memcpy (bytes, known_entry_bytes, ENTRY_BYTES);
  put_le (bytes + f->offset, f->nr_bytes, f->value);
  put_le64 (number, KNOWN_SLOT.n);
  crc = crc32c (crc32c (0, uuid, sizeof uuid), number, sizeof number);
  put_le32 (bytes + ENTRY_CRC, crc32c (crc, bytes, ENTRY_CRC));
  check_message (store_entry_decode (bytes, uuid, KNOWN_SLOT, &entry),
                 f->says);
}
END_TEST

/* What may be changed: compatible features are handed on, and so is all that
 * has no rule.
 */
START_TEST (fields_without_a_rule)
{
  static const struct wrong_field free_fields[] = {
    { SUPER_COMPAT, 4, UINT32_MAX, "" },
    { SUPER_RO_COMPAT, 4, UINT32_MAX, "" },
    { SUPER_UUID, 8, 1, "" },
    { SUPER_GENERATION, 8, INT64_MAX, "" },
    { SUPER_BACKING_BYTES, 8, 0, "" },
    { SUPER_BACKING_BYTES, 8, (LBA_MAX << 9) + 511, "" },
    { SUPER_BACKING_KIND, 4, 3, "" },
    { SUPER_NR_KEPT, 4, 119, "" },
    { SUPER_NR_READY, 8, 120, "" },
    { SUPER_CREATED, 8, UINT64_MAX, "" },
    { SUPER_STORE_BYTES, 8, 106496 + 4096, "" },
  };

  for (size_t i = 0; i < sizeof free_fields / sizeof free_fields[0]; i++) {
    const struct wrong_field *f = &free_fields[i];
    uint8_t block[STORE_BLOCK], again[STORE_BLOCK];
    struct store_super super;

    make_known_super (block);
    put_le (block + f->offset, f->nr_bytes, f->value);
    put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
    ck_assert_ptr_null (store_super_decode (block, 1, &super));
    store_super_encode (&super, 1, again);
    ck_assert_mem_eq (again, block, STORE_BLOCK);
  }
}
END_TEST

#define NR_OF(array) ((int) (sizeof (array) / sizeof (array)[0]))

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("store-codec");
  TCase *tc = tcase_create ("known answers");

  tcase_set_timeout (tc, 60);
  tcase_add_test (tc, known_super_is_encoded);
  tcase_add_test (tc, known_super_is_decoded);
  tcase_add_test (tc, known_commit_both_ways);
  tcase_add_test (tc, known_entry_both_ways);
  tcase_add_test (tc, known_numbers);
  tcase_add_test (tc, layout_of_tables);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("round trips");
  tcase_set_timeout (tc, 60);
  tcase_add_loop_test (tc, super_round_trip, 0, 2);
  tcase_add_loop_test (tc, entry_round_trip, 0, 2);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("damage");
  tcase_set_timeout (tc, 240);
  tcase_add_test (tc, any_wrong_bit_of_a_super_is_found);
  tcase_add_test (tc, any_wrong_bit_of_a_commit_is_found);
  tcase_add_test (tc, any_wrong_bit_of_an_entry_is_found);
  tcase_add_test (tc, entry_belongs_to_its_slot_and_store);
  tcase_add_test (tc, zeroes_are_nothing);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("one wrong field");
  tcase_set_timeout (tc, 60);
  tcase_add_loop_test (tc, super_with_a_wrong_field, 0, NR_OF (wrong_in_super));
  tcase_add_loop_test (tc, sections_in_the_wrong_place, 0, 7);
  tcase_add_loop_test (tc, commit_with_a_wrong_field, 0,
                       NR_OF (wrong_in_commit));
  tcase_add_loop_test (tc, entry_with_a_wrong_field, 0, NR_OF (wrong_in_entry));
  tcase_add_test (tc, fields_without_a_rule);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
