/* SPDX-License-Identifier: BSD-3-Clause */
/* store-slots: where the slots of a store are, and what proves their data. */
#ifndef REMAP_STORE_SLOTS_H
#define REMAP_STORE_SLOTS_H

#include "dev.h"
#include "store-codec.h"

/* Where the copies 0 and 1 of superblock and commit sector are, in bytes. */
extern uint64_t store_super_at (const struct store_super *super,
                                unsigned copy);
extern uint64_t store_commit_at (const struct store_super *super,
                                 unsigned copy);

/* The section of a slot. */
extern const struct store_section *
store_section_of (const struct store_super *super, spare_t slot);

/* Where a slot's entry (copy 0 or 1) and its data are, in bytes. */
extern uint64_t store_entry_at (const struct store_super *super, spare_t slot,
                                unsigned copy);
extern uint64_t store_data_at (const struct store_super *super, spare_t slot);

/* How many of the slots first .. first + nr - 1 lie in one section. */
extern uint32_t store_in_section (const struct store_super *super,
                                  spare_t first, uint32_t nr);

/* Read the data of sectors lba ... from their slots and prove it by their
 * entries; one good copy of an entry is enough.
 * Errors: EILSEQ a slot does not hold its sector; others of dev.
 */
extern int store_read_slots (struct dev *dev, const char *path,
                             const struct store_super *super, spare_t first,
                             lba_t lba, uint32_t nr, void *buf);

#endif /* REMAP_STORE_SLOTS_H */
