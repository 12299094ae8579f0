/* SPDX-License-Identifier: BSD-3-Clause */
/* sector: the two kinds of sector numbers, and what a sector can be.
 *
 * lba_t counts sectors of the backing, spare_t sectors (slots) of the store.
 * They are structs so that mixing them does not compile.
 */
#ifndef REMAP_SECTOR_H
#define REMAP_SECTOR_H

#include <stdbool.h>
#include <stdint.h>

typedef struct { uint64_t n; } lba_t;
typedef struct { uint32_t n; } spare_t;

/* Spares are numbered with 30 bits, so that a map entry is eight bytes; the
 * last number says "no spare".
 */
#define SPARE_BITS 30
#define SPARES_MAX ((UINT32_C (1) << SPARE_BITS) - 1)
#define SPARE_NONE ((spare_t) { SPARES_MAX })

/* The store numbers sectors with 48 bits. */
#define LBA_MAX ((UINT64_C (1) << 48) - 1)

enum sector_state {
  SECTOR_CLEAN = 0,             /* on the backing */
  SECTOR_REMAPPED = 1,          /* its data is in its spare */
  SECTOR_LOST = 2,              /* unreadable, until it is written whole */
  SECTOR_ZEROED = 3,            /* reads as zeroes, no data stored */
};

/* What led to a record in the store. */
enum sector_cause {
  CAUSE_NONE = 0,
  CAUSE_READ_ERROR = 1,         /* could not be read from the backing */
  CAUSE_WRITE_ERROR = 2,        /* could not be written to the backing */
  CAUSE_REWRITE = 3,            /* a client wrote to it while it was mapped */
  CAUSE_SPARE_ERROR = 4,        /* its spare failed */
};

static inline const char *
sector_state_to_string (enum sector_state state)
{
  switch (state) {
  case SECTOR_CLEAN: return "clean";
  case SECTOR_REMAPPED: return "remapped";
  case SECTOR_LOST: return "lost";
  case SECTOR_ZEROED: return "zeroed";
  }
  return "unknown";
}

/* A run of neighbouring sectors that are alike.  Their spares are neighbours
 * too (or all SPARE_NONE).
 */
struct sector_run {
  lba_t lba;
  uint64_t nr_sectors;
  enum sector_state state;
  spare_t spare;
};

#endif /* REMAP_SECTOR_H */
