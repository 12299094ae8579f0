/* SPDX-License-Identifier: BSD-3-Clause */
/* store-format: the layout of a store.  remap-store(5) says the same in prose.
 *
 * All numbers are little-endian.  A block is 4096 bytes.
 *
 *   offset              size   what
 *   0                   4096   superblock, first copy
 *   4096                512    commit sector, first copy; zero to 8191
 *   8192 ...                   sections
 *   store size - 8192   512    commit sector, second copy
 *   store size - 4096   4096   superblock, second copy
 *
 * A section holds some of the slots, in three parts that begin on blocks: the
 * first copy of their table, their data, the second copy of their table.  A
 * new store has one section; growing appends one (where the second superblock
 * stood, nothing remains of use).
 *
 * Superblock:
 *   0     8    magic "REMAPSTO"
 *   8     4    version, 1
 *   12    4    copy: 0 first, 1 second
 *   16    4    compatible features: unknown ones may be ignored
 *   20    4    read-only compatible features: with unknown ones, do not write
 *   24    4    incompatible features: with unknown ones, do not use
 *   28    4    sector size in bytes: a power of two, 512 .. 65536
 *   32    16   UUID of the store
 *   48    8    generation: the larger one is newer
 *   56    8    store size in bytes, a multiple of 4096
 *   64    8    size of the backing in bytes
 *   72    4    kind of the backing: 1 file, 2 block device, 3 NBD export
 *   76    4    slots of the store that are kept for rewrites
 *   80    8    slots whose table entries are initialised
 *   88    4    number of sections, 1 .. 32
 *   92    4    zero
 *   96    8    when the store was made, seconds since 1970
 *   104   24   zero
 *   128   128  id of the backing (WWN or serial), padded with NUL
 *   256   256  path of the backing when last opened, padded with NUL; to tell
 *   512   8    inode number of the backing, if it is a file; 0: not known
 *   520   8    when that inode was made, seconds since 1970
 *   528   4    and nanoseconds, < 1000000000
 *   532   492  zero
 *   1024  1536 sections, 48 bytes each:
 *              0   8  first slot
 *              8   8  number of slots
 *              16  8  offset of the table, first copy
 *              24  8  offset of the data
 *              32  8  offset of the table, second copy
 *              40  8  zero
 *   2560  1532 zero
 *   4092  4    CRC32C of bytes 0 .. 4091
 *
 * Commit sector (512 bytes, so that a disk writes it whole or not at all):
 *   0     8    magic "REMAPCMT"
 *   8     16   UUID of the store
 *   24    8    durable: all records up to this sequence number are on stable
 *              storage, and so is the data that they speak of
 *   32    4    process id of the server that has the store, 0: none
 *   36    4    1: closed in good order
 *   40    8    when it was written, seconds since 1970
 *   48    8    how often it was written: the larger one is newer
 *   56    4    number of stale blocks, 0 .. 96
 *   60    4    zero
 *   64    384  stale blocks, 4 bytes each: offset / 4096
 *   508   4    CRC32C of bytes 0 .. 507
 * A stale block holds one copy of a superblock or of a part of a table, could
 * not be written, and so is old, however good it looks: the other copy alone
 * counts.
 *
 * Table: slot s of a section is entry s % 18 of 512-byte sector s / 18; the
 * last 8 bytes of each sector are zero.  Entry:
 *   0     6    LBA: the sector of the backing that this slot stands in for
 *   6     6    sequence number of the record
 *   12    4    CRC32C of the slot's data; 0 where there is none
 *   16    4    when, seconds since 1970
 *   20    1    1 free, 2 remapped, 3 lost, 4 zeroed, 5 bad slot
 *   21    1    cause: enum sector_cause
 *   22    2    zero
 *   24    4    CRC32C of: UUID, slot number (8 bytes), bytes 0 .. 23
 *
 * Data: slot s of a section is at offset of the data + s * sector size.
 *
 * Why no journal: a record is its table entry, written in place into a sector
 * that disks write whole, so there is nothing to replay and nothing to
 * compact; and the entry of a slot is found by its number, so that it can hold
 * the checksum of the slot's data.
 *
 * Which record counts: of all entries with one LBA, the one with the largest
 * sequence number.  A sector that is written anew gets a new slot and a new
 * record; the old slot is not used again before a flush has made the new one
 * durable.  Data, first copy and second copy are written in any order between
 * two flushes, because what a power cut leaves of them can be told:
 *   - the entry is old: so is the sector;
 *   - the entry is new in one copy: it counts, and is copied to the other;
 *   - the entry is new, its data is not (checksum): if its sequence number is
 *     above `durable`, no flush had completed: the entry is dropped, and the
 *     next older record of the LBA counts, or the backing itself.  Else the
 *     data has rotted: the sector is lost.
 * An entry that is damaged in both copies can belong to any LBA: the store is
 * refused.
 */
#ifndef REMAP_STORE_FORMAT_H
#define REMAP_STORE_FORMAT_H

#include <stdint.h>

#define STORE_BLOCK 4096
#define STORE_VERSION 1
#define STORE_MAGIC "REMAPSTO"
#define STORE_COMMIT_MAGIC "REMAPCMT"
#define STORE_MAGIC_BYTES 8
#define STORE_UUID_BYTES 16

#define STORE_SECTOR_MIN 512
#define STORE_SECTOR_MAX 65536

/* Offsets in the superblock. */
enum {
  SUPER_MAGIC = 0, SUPER_VERSION = 8, SUPER_COPY = 12, SUPER_COMPAT = 16,
  SUPER_RO_COMPAT = 20, SUPER_INCOMPAT = 24, SUPER_SECTOR_BYTES = 28,
  SUPER_UUID = 32, SUPER_GENERATION = 48, SUPER_STORE_BYTES = 56,
  SUPER_BACKING_BYTES = 64, SUPER_BACKING_KIND = 72, SUPER_NR_KEPT = 76,
  SUPER_NR_READY = 80, SUPER_NR_SECTIONS = 88, SUPER_CREATED = 96,
  SUPER_BACKING_ID = 128, SUPER_BACKING_PATH = 256, SUPER_BACKING_INODE = 512,
  SUPER_BACKING_BORN = 520, SUPER_BACKING_BORN_NS = 528, SUPER_SECTIONS = 1024,
  SUPER_CRC = 4092,
};
#define STORE_ID_BYTES 128
#define STORE_PATH_BYTES 256

#define STORE_SECTIONS_MAX 32
#define SECTION_BYTES 48
enum {
  SECTION_FIRST_SLOT = 0, SECTION_NR_SLOTS = 8, SECTION_TABLE_A = 16,
  SECTION_DATA = 24, SECTION_TABLE_B = 32,
};

#define COMMIT_BYTES 512
#define COMMIT_A_OFFSET 4096
#define STORE_HEAD_BYTES 8192   /* before the first section */
#define STORE_TAIL_BYTES 8192   /* behind the last one */
enum {
  COMMIT_MAGIC = 0, COMMIT_UUID = 8, COMMIT_DURABLE = 24, COMMIT_PID = 32,
  COMMIT_CLEAN = 36, COMMIT_TIME = 40, COMMIT_COUNT = 48, COMMIT_NR_STALE = 56,
  COMMIT_STALE = 64, COMMIT_CRC = 508,
};
#define STORE_STALE_MAX 96

#define TABLE_SECTOR_BYTES 512
#define ENTRIES_PER_SECTOR 18
#define ENTRY_BYTES 28
enum {
  ENTRY_LBA = 0, ENTRY_SEQ = 6, ENTRY_DATA_CRC = 12, ENTRY_TIME = 16,
  ENTRY_STATE = 20, ENTRY_CAUSE = 21, ENTRY_ZERO = 22, ENTRY_CRC = 24,
};
#define SEQ_MAX ((UINT64_C (1) << 48) - 1)

_Static_assert (ENTRIES_PER_SECTOR * ENTRY_BYTES <= TABLE_SECTOR_BYTES,
                "the entries of a table sector fit into it");
_Static_assert (SUPER_SECTIONS + STORE_SECTIONS_MAX * SECTION_BYTES
                <= SUPER_CRC, "the sections fit into the superblock");

#endif /* REMAP_STORE_FORMAT_H */
