/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>

#include "checked.h"
#include "crc32c.h"
#include "error.h"
#include "store-slots.h"

uint64_t
store_super_at (const struct store_super *super, unsigned copy)
{
  return copy == 0 ? 0 : super->store_bytes - STORE_BLOCK;
}

uint64_t
store_commit_at (const struct store_super *super, unsigned copy)
{
  return copy == 0 ? COMMIT_A_OFFSET : super->store_bytes - STORE_TAIL_BYTES;
}

const struct store_section *
store_section_of (const struct store_super *super, spare_t slot)
{
  unsigned i = 0;

  while (i + 1 < super->nr_sections &&
         slot.n >= super->sections[i + 1].first_slot)
    i++;
  return &super->sections[i];
}

uint64_t
store_entry_at (const struct store_super *super, spare_t slot, unsigned copy)
{
  const struct store_section *s = store_section_of (super, slot);

  return (copy == 0 ? s->table_a : s->table_b)
    + store_entry_offset (slot.n - s->first_slot);
}

uint64_t
store_data_at (const struct store_super *super, spare_t slot)
{
  const struct store_section *s = store_section_of (super, slot);

  return s->data + (slot.n - s->first_slot) * super->sector_bytes;
}

uint32_t
store_in_section (const struct store_super *super, spare_t first, uint32_t nr)
{
  const struct store_section *s = store_section_of (super, first);
  uint64_t rest = s->first_slot + s->nr_slots - first.n;

  return (uint32_t) MIN (rest, (uint64_t) nr);
}

/* Does the data belong to sectors lba ..., and is it whole? */
static int
check_data (struct dev *dev, const char *path, const struct store_super *super,
            spare_t first, lba_t lba, uint32_t nr, const uint8_t *data,
            unsigned copy)
{
  uint64_t begin = store_entry_at (super, first, copy);
  uint64_t span_bytes =
    store_entry_at (super, (spare_t) { first.n + nr - 1 }, copy)
    + ENTRY_BYTES - begin;
  uint8_t bytes[STORE_SPAN_MAX];

  if (dev_pread (dev, bytes, span_bytes, begin, DEV_BUFFERED) == -1)
    return -1;
  for (uint32_t i = 0; i < nr; i++, data += super->sector_bytes) {
    spare_t slot = { first.n + i };
    struct store_entry e;
    const char *wrong;

    wrong = store_entry_decode (bytes + (store_entry_at (super, slot, copy)
                                         - begin), super->uuid, slot, &e);
    if (wrong)
      return set_error (EILSEQ, "store %s: the entry of slot %u %s", path,
                        slot.n, wrong);
    if (e.state != ENTRY_REMAPPED || e.lba.n != lba.n + i ||
        e.data_crc != crc32c (0, data, super->sector_bytes))
      return set_error (EILSEQ, "store %s: slot %u does not hold sector %llu",
                        path, slot.n, (unsigned long long) (lba.n + i));
  }
  return 0;
}

int
store_read_slots (struct dev *dev, const char *path,
                  const struct store_super *super, spare_t first, lba_t lba,
                  uint32_t nr, void *buf)
{
  uint8_t *p = buf;

  while (nr > 0) {
    uint32_t n = store_in_section (super, first,
                                   MIN (nr, (uint32_t) STORE_RECORD_MAX));
    size_t bytes = (size_t) n * super->sector_bytes;

    if (dev_pread (dev, p, bytes, store_data_at (super, first), 0) == -1)
      return -1;
    if (check_data (dev, path, super, first, lba, n, p, 0) == -1 &&
        check_data (dev, path, super, first, lba, n, p, 1) == -1)
      return -1;
    p += bytes;
    first.n += n;
    lba.n += n;
    nr -= n;
  }
  return 0;
}
