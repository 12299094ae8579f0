/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <string.h>

#include "checked.h"
#include "crc32c.h"
#include "endian.h"
#include "store-codec.h"

uint64_t
store_super_slots (const struct store_super *s)
{
  const struct store_section *last = &s->sections[s->nr_sections - 1];

  return last->first_slot + last->nr_slots;
}

uint64_t
store_table_bytes (uint64_t nr_slots)
{
  return round_up (div_round_up (nr_slots, ENTRIES_PER_SECTOR)
                   * TABLE_SECTOR_BYTES, STORE_BLOCK);
}

uint64_t
store_entry_offset (uint64_t slot_in_section)
{
  return slot_in_section / ENTRIES_PER_SECTOR * TABLE_SECTOR_BYTES
    + slot_in_section % ENTRIES_PER_SECTOR * ENTRY_BYTES;
}

uint64_t
store_section_layout (struct store_section *section, uint64_t first_slot,
                      uint64_t nr_slots, uint32_t sector_bytes,
                      uint64_t offset)
{
  uint64_t table_bytes = store_table_bytes (nr_slots);

  section->first_slot = first_slot;
  section->nr_slots = nr_slots;
  section->table_a = offset;
  section->data = section->table_a + table_bytes;
  section->table_b = section->data
    + round_up (nr_slots * sector_bytes, STORE_BLOCK);
  return section->table_b + table_bytes;
}

static void
section_encode (const struct store_section *s, uint8_t *p)
{
  put_le64 (p + SECTION_FIRST_SLOT, s->first_slot);
  put_le64 (p + SECTION_NR_SLOTS, s->nr_slots);
  put_le64 (p + SECTION_TABLE_A, s->table_a);
  put_le64 (p + SECTION_DATA, s->data);
  put_le64 (p + SECTION_TABLE_B, s->table_b);
}

static void
section_decode (const uint8_t *p, struct store_section *ret)
{
  ret->first_slot = get_le64 (p + SECTION_FIRST_SLOT);
  ret->nr_slots = get_le64 (p + SECTION_NR_SLOTS);
  ret->table_a = get_le64 (p + SECTION_TABLE_A);
  ret->data = get_le64 (p + SECTION_DATA);
  ret->table_b = get_le64 (p + SECTION_TABLE_B);
}

void
store_super_encode (const struct store_super *s, unsigned copy,
                    uint8_t block[STORE_BLOCK])
{
  memset (block, 0, STORE_BLOCK);
  memcpy (block + SUPER_MAGIC, STORE_MAGIC, STORE_MAGIC_BYTES);
  put_le32 (block + SUPER_VERSION, STORE_VERSION);
  put_le32 (block + SUPER_COPY, copy);
  put_le32 (block + SUPER_COMPAT, s->compat);
  put_le32 (block + SUPER_RO_COMPAT, s->ro_compat);
  put_le32 (block + SUPER_INCOMPAT, s->incompat);
  put_le32 (block + SUPER_SECTOR_BYTES, s->sector_bytes);
  memcpy (block + SUPER_UUID, s->uuid, STORE_UUID_BYTES);
  put_le64 (block + SUPER_GENERATION, s->generation);
  put_le64 (block + SUPER_STORE_BYTES, s->store_bytes);
  put_le64 (block + SUPER_BACKING_BYTES, s->backing_bytes);
  put_le32 (block + SUPER_BACKING_KIND, s->backing_kind);
  put_le32 (block + SUPER_NR_KEPT, s->nr_kept);
  put_le64 (block + SUPER_NR_READY, s->nr_ready);
  put_le32 (block + SUPER_NR_SECTIONS, s->nr_sections);
  put_le64 (block + SUPER_CREATED, s->created_s);
  memcpy (block + SUPER_BACKING_ID, s->backing_id, STORE_ID_BYTES);
  memcpy (block + SUPER_BACKING_PATH, s->backing_path, STORE_PATH_BYTES);
  put_le64 (block + SUPER_BACKING_INODE, s->backing_inode);
  put_le64 (block + SUPER_BACKING_BORN, s->backing_born_s);
  put_le32 (block + SUPER_BACKING_BORN_NS, s->backing_born_ns);
  for (unsigned i = 0; i < s->nr_sections; i++)
    section_encode (&s->sections[i],
                    block + SUPER_SECTIONS + i * SECTION_BYTES);
  put_le32 (block + SUPER_CRC, crc32c (0, block, SUPER_CRC));
}

/* Are these the slots behind those of the section before it? */
static bool
slots_are_possible (const struct store_section *s, uint64_t first_slot)
{
  return s->nr_slots > 0 && s->nr_slots <= SPARES_MAX &&
    s->first_slot == first_slot && s->first_slot + s->nr_slots <= SPARES_MAX;
}

/* Do the parts of a section lie one behind the other, from `begin` on and
 * before `end`?  Returns where it ends, 0 if not.
 */
static uint64_t
section_end (const struct store_section *s, uint32_t sector_bytes,
             uint64_t begin, uint64_t end)
{
  struct store_section expected;
  uint64_t section_end;

  if (s->table_a < begin || s->table_a > end ||
      !is_aligned (s->table_a, STORE_BLOCK))
    return 0;
  section_end = store_section_layout (&expected, s->first_slot, s->nr_slots,
                                      sector_bytes, s->table_a);
  if (section_end > end || s->data != expected.data ||
      s->table_b != expected.table_b)
    return 0;
  return section_end;
}

static const char *
check_sections (const struct store_super *s)
{
  uint64_t first_slot = 0, begin = STORE_HEAD_BYTES;
  uint64_t end = s->store_bytes - STORE_TAIL_BYTES;

  if (s->nr_sections == 0 || s->nr_sections > STORE_SECTIONS_MAX)
    return "has an impossible number of sections";
  for (unsigned i = 0; i < s->nr_sections; i++) {
    if (!slots_are_possible (&s->sections[i], first_slot))
      return "has a section with impossible slots";
    begin = section_end (&s->sections[i], s->sector_bytes, begin, end);
    if (begin == 0)
      return "has a section in an impossible place";
    first_slot += s->sections[i].nr_slots;
  }
  if (s->nr_ready > first_slot)
    return "has more slots in use than it has slots";
  if (s->nr_kept >= first_slot)
    return "keeps more slots back than it has";
  return NULL;
}

static const char *
check_super (const struct store_super *s)
{
  if (s->incompat != 0)
    return "uses features that this version does not know";
  if (s->generation > INT64_MAX)
    return "has an impossible generation";
  if (!is_power_of_2 (s->sector_bytes) ||
      s->sector_bytes < STORE_SECTOR_MIN || s->sector_bytes > STORE_SECTOR_MAX)
    return "has an impossible sector size";
  if (s->store_bytes < STORE_HEAD_BYTES + STORE_TAIL_BYTES ||
      !is_aligned (s->store_bytes, STORE_BLOCK) || s->store_bytes > INT64_MAX)
    return "has an impossible store size";
  if (s->backing_bytes > INT64_MAX ||
      s->backing_bytes / s->sector_bytes > LBA_MAX)
    return "has an impossible backing size";
  if (s->backing_kind < 1 || s->backing_kind > 3)
    return "has an impossible kind of backing";
  if (s->backing_id[STORE_ID_BYTES - 1] != '\0' ||
      s->backing_path[STORE_PATH_BYTES - 1] != '\0')
    return "has a name without an end";
  if (s->backing_born_ns >= 1000000000)
    return "has an impossible time";
  return check_sections (s);
}

const char *
store_super_decode (const uint8_t block[STORE_BLOCK], unsigned copy,
                    struct store_super *ret)
{
  if (memcmp (block + SUPER_MAGIC, STORE_MAGIC, STORE_MAGIC_BYTES) != 0)
    return "is no superblock of a store";
  if (get_le32 (block + SUPER_CRC) != crc32c (0, block, SUPER_CRC))
    return "has a wrong checksum";
  if (get_le32 (block + SUPER_VERSION) != STORE_VERSION)
    return "is of another version of the format";
  if (get_le32 (block + SUPER_COPY) != copy)
    return "stands where the other copy belongs";

  memset (ret, 0, sizeof *ret);
  ret->compat = get_le32 (block + SUPER_COMPAT);
  ret->ro_compat = get_le32 (block + SUPER_RO_COMPAT);
  ret->incompat = get_le32 (block + SUPER_INCOMPAT);
  ret->sector_bytes = get_le32 (block + SUPER_SECTOR_BYTES);
  memcpy (ret->uuid, block + SUPER_UUID, STORE_UUID_BYTES);
  ret->generation = get_le64 (block + SUPER_GENERATION);
  ret->store_bytes = get_le64 (block + SUPER_STORE_BYTES);
  ret->backing_bytes = get_le64 (block + SUPER_BACKING_BYTES);
  ret->backing_kind = get_le32 (block + SUPER_BACKING_KIND);
  ret->nr_kept = get_le32 (block + SUPER_NR_KEPT);
  ret->nr_ready = get_le64 (block + SUPER_NR_READY);
  ret->created_s = get_le64 (block + SUPER_CREATED);
  memcpy (ret->backing_id, block + SUPER_BACKING_ID, STORE_ID_BYTES);
  memcpy (ret->backing_path, block + SUPER_BACKING_PATH, STORE_PATH_BYTES);
  ret->backing_inode = get_le64 (block + SUPER_BACKING_INODE);
  ret->backing_born_s = get_le64 (block + SUPER_BACKING_BORN);
  ret->backing_born_ns = get_le32 (block + SUPER_BACKING_BORN_NS);
  ret->nr_sections = get_le32 (block + SUPER_NR_SECTIONS);
  for (unsigned i = 0; i < MIN (ret->nr_sections,
                                (unsigned) STORE_SECTIONS_MAX); i++)
    section_decode (block + SUPER_SECTIONS + i * SECTION_BYTES,
                    &ret->sections[i]);
  return check_super (ret);
}

bool
store_super_is_foreign (const uint8_t block[STORE_BLOCK])
{
  return memcmp (block + SUPER_MAGIC, STORE_MAGIC, STORE_MAGIC_BYTES) == 0 &&
    get_le32 (block + SUPER_CRC) == crc32c (0, block, SUPER_CRC) &&
    (get_le32 (block + SUPER_VERSION) != STORE_VERSION ||
     get_le32 (block + SUPER_INCOMPAT) != 0);
}

void
store_commit_encode (const struct store_commit *c,
                     uint8_t sector[COMMIT_BYTES])
{
  memset (sector, 0, COMMIT_BYTES);
  memcpy (sector + COMMIT_MAGIC, STORE_COMMIT_MAGIC, STORE_MAGIC_BYTES);
  memcpy (sector + COMMIT_UUID, c->uuid, STORE_UUID_BYTES);
  put_le64 (sector + COMMIT_DURABLE, c->durable_seq);
  put_le32 (sector + COMMIT_PID, c->pid);
  put_le32 (sector + COMMIT_CLEAN, c->is_clean);
  put_le64 (sector + COMMIT_TIME, c->time_s);
  put_le64 (sector + COMMIT_COUNT, c->count);
  put_le32 (sector + COMMIT_NR_STALE, c->nr_stale);
  for (unsigned i = 0; i < c->nr_stale; i++)
    put_le32 (sector + COMMIT_STALE + 4 * i, c->stale[i]);
  put_le32 (sector + COMMIT_CRC, crc32c (0, sector, COMMIT_CRC));
}

const char *
store_commit_decode (const uint8_t sector[COMMIT_BYTES],
                     const uint8_t uuid[STORE_UUID_BYTES],
                     struct store_commit *ret)
{
  if (memcmp (sector + COMMIT_MAGIC, STORE_COMMIT_MAGIC, STORE_MAGIC_BYTES))
    return "is no commit sector";
  if (get_le32 (sector + COMMIT_CRC) != crc32c (0, sector, COMMIT_CRC))
    return "has a wrong checksum";
  if (memcmp (sector + COMMIT_UUID, uuid, STORE_UUID_BYTES) != 0)
    return "belongs to another store";

  memcpy (ret->uuid, uuid, STORE_UUID_BYTES);
  ret->durable_seq = get_le64 (sector + COMMIT_DURABLE);
  ret->pid = get_le32 (sector + COMMIT_PID);
  ret->is_clean = get_le32 (sector + COMMIT_CLEAN) != 0;
  ret->time_s = get_le64 (sector + COMMIT_TIME);
  ret->count = get_le64 (sector + COMMIT_COUNT);
  ret->nr_stale = get_le32 (sector + COMMIT_NR_STALE);
  if (ret->durable_seq > SEQ_MAX)
    return "has an impossible sequence number";
  if (ret->nr_stale > STORE_STALE_MAX)
    return "has an impossible number of stale blocks";
  for (unsigned i = 0; i < ret->nr_stale; i++)
    ret->stale[i] = get_le32 (sector + COMMIT_STALE + 4 * i);
  return NULL;
}

bool
store_commit_has_stale (const struct store_commit *c, uint64_t offset)
{
  for (unsigned i = 0; i < c->nr_stale; i++)
    if (c->stale[i] == offset / STORE_BLOCK)
      return true;
  return false;
}

uint32_t
store_entry_seed (const uint8_t uuid[STORE_UUID_BYTES])
{
  return crc32c (0, uuid, STORE_UUID_BYTES);
}

static uint32_t
entry_crc (const uint8_t *bytes, uint32_t seed, spare_t slot)
{
  uint8_t all[8 + ENTRY_CRC];

  put_le64 (all, slot.n);
  memcpy (all + 8, bytes, ENTRY_CRC);
  return crc32c (seed, all, sizeof all);
}

void
store_entry_encode (const struct store_entry *e,
                    const uint8_t uuid[STORE_UUID_BYTES], spare_t slot,
                    uint8_t bytes[ENTRY_BYTES])
{
  put_le48 (bytes + ENTRY_LBA, e->lba.n);
  put_le48 (bytes + ENTRY_SEQ, e->seq);
  put_le32 (bytes + ENTRY_DATA_CRC, e->data_crc);
  put_le32 (bytes + ENTRY_TIME, e->time_s);
  bytes[ENTRY_STATE] = (uint8_t) e->state;
  bytes[ENTRY_CAUSE] = (uint8_t) e->cause;
  put_le16 (bytes + ENTRY_ZERO, 0);
  put_le32 (bytes + ENTRY_CRC,
            entry_crc (bytes, store_entry_seed (uuid), slot));
}

const char *
store_entry_decode (const uint8_t bytes[ENTRY_BYTES],
                    const uint8_t uuid[STORE_UUID_BYTES], spare_t slot,
                    struct store_entry *ret)
{
  return store_entry_decode_seeded (bytes, store_entry_seed (uuid), slot, ret);
}

const char *
store_entry_decode_seeded (const uint8_t bytes[ENTRY_BYTES], uint32_t seed,
                           spare_t slot, struct store_entry *ret)
{
  if (get_le32 (bytes + ENTRY_CRC) != entry_crc (bytes, seed, slot))
    return "has a wrong checksum";
  ret->lba.n = get_le48 (bytes + ENTRY_LBA);
  ret->seq = get_le48 (bytes + ENTRY_SEQ);
  ret->data_crc = get_le32 (bytes + ENTRY_DATA_CRC);
  ret->time_s = get_le32 (bytes + ENTRY_TIME);
  ret->state = (enum entry_state) bytes[ENTRY_STATE];
  ret->cause = (enum sector_cause) bytes[ENTRY_CAUSE];
  if (ret->state < ENTRY_FREE || ret->state > ENTRY_BAD_SLOT)
    return "has an impossible state";
  if (ret->cause > CAUSE_SPARE_ERROR)
    return "has an impossible cause";
  if (get_le16 (bytes + ENTRY_ZERO) != 0)
    return "is not zero where it has to be";
  return NULL;
}
