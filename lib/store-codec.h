/* SPDX-License-Identifier: BSD-3-Clause */
/* store-codec: encode, decode and validate the blocks of a store.  Pure.
 *
 * A decoder returns NULL if the block is good, else what is wrong with it, as
 * the end of a sentence ("has a wrong checksum"); *ret is then undefined.  A
 * block that decodes obeys every rule of store-format.h that can be checked
 * by looking at it alone.
 */
#ifndef REMAP_STORE_CODEC_H
#define REMAP_STORE_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "sector.h"
#include "store-format.h"

struct store_section {
  uint64_t first_slot, nr_slots;
  uint64_t table_a, data, table_b;      /* offsets in bytes */
};

struct store_super {
  uint32_t compat, ro_compat, incompat;
  uint32_t sector_bytes;
  uint8_t uuid[STORE_UUID_BYTES];
  uint64_t generation;
  uint64_t store_bytes;
  uint64_t backing_bytes;
  uint32_t backing_kind;
  uint32_t nr_kept;             /* slots kept for rewrites */
  uint64_t nr_ready;            /* slots with initialised entries */
  uint64_t created_s;
  char backing_id[STORE_ID_BYTES];
  char backing_path[STORE_PATH_BYTES];
  uint64_t backing_inode;       /* 0: not known */
  uint64_t backing_born_s;
  uint32_t backing_born_ns;
  unsigned nr_sections;
  struct store_section sections[STORE_SECTIONS_MAX];
};

struct store_commit {
  uint8_t uuid[STORE_UUID_BYTES];
  uint64_t durable_seq;
  uint32_t pid;
  bool is_clean;
  uint64_t time_s;
  uint64_t count;               /* how often it was written */
  unsigned nr_stale;
  uint32_t stale[STORE_STALE_MAX];      /* offsets / STORE_BLOCK */
};

enum entry_state {
  ENTRY_FREE = 1,
  ENTRY_REMAPPED = 2,
  ENTRY_LOST = 3,
  ENTRY_ZEROED = 4,
  ENTRY_BAD_SLOT = 5,
};

struct store_entry {
  lba_t lba;
  uint64_t seq;
  uint32_t data_crc;
  uint32_t time_s;
  enum entry_state state;
  enum sector_cause cause;
};

/* The most sectors in one record, and the longest stretch of a table that so
 * many entries cover, in bytes.
 */
#define STORE_RECORD_MAX 1024
#define STORE_SPAN_MAX                                                        \
  ((STORE_RECORD_MAX / ENTRIES_PER_SECTOR + 2) * TABLE_SECTOR_BYTES)

/* All slots of a store. */
extern uint64_t store_super_slots (const struct store_super *s);

/* Bytes of one copy of a table, a multiple of STORE_BLOCK. */
extern uint64_t store_table_bytes (uint64_t nr_slots);

/* Where a slot's entry is, from the start of its section's table. */
extern uint64_t store_entry_offset (uint64_t slot_in_section);

/* Lay out a section that begins at offset; returns where it ends. */
extern uint64_t store_section_layout (struct store_section *section,
                                      uint64_t first_slot, uint64_t nr_slots,
                                      uint32_t sector_bytes, uint64_t offset);

extern void store_super_encode (const struct store_super *s, unsigned copy,
                                uint8_t block[STORE_BLOCK]);
extern const char *store_super_decode (const uint8_t block[STORE_BLOCK],
                                       unsigned copy, struct store_super *ret);

/* Is this a whole superblock, but of another version of the format, or with
 * features that must be known?  What it says is not to be judged, and least of
 * all to be repaired.
 */
extern bool store_super_is_foreign (const uint8_t block[STORE_BLOCK]);

extern void store_commit_encode (const struct store_commit *c,
                                 uint8_t sector[COMMIT_BYTES]);
extern const char *store_commit_decode (const uint8_t sector[COMMIT_BYTES],
                                        const uint8_t uuid[STORE_UUID_BYTES],
                                        struct store_commit *ret);

/* Is the block at this offset in the list of stale ones? */
extern bool store_commit_has_stale (const struct store_commit *c,
                                    uint64_t offset);

extern void store_entry_encode (const struct store_entry *e,
                                const uint8_t uuid[STORE_UUID_BYTES],
                                spare_t slot, uint8_t bytes[ENTRY_BYTES]);
extern const char *store_entry_decode (const uint8_t bytes[ENTRY_BYTES],
                                       const uint8_t uuid[STORE_UUID_BYTES],
                                       spare_t slot, struct store_entry *ret);

/* The same for whoever decodes many entries of a store: seed is what all their
 * checksums begin with.
 */
extern uint32_t store_entry_seed (const uint8_t uuid[STORE_UUID_BYTES]);
extern const char *
store_entry_decode_seeded (const uint8_t bytes[ENTRY_BYTES], uint32_t seed,
                           spare_t slot, struct store_entry *ret);

#endif /* REMAP_STORE_CODEC_H */
