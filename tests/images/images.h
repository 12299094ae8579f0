/* SPDX-License-Identifier: BSD-3-Clause */
/* images: stores with one fault each.
 *
 * Purpose:    a list of faults, each with what is to become of a store that has
 *             it, for every kind of block and every field of store-format.h.
 *             The base is a good store, made by the code that serves; a case
 *             changes its bytes and knows no more than the format.
 */
#ifndef REMAP_IMAGES_H
#define REMAP_IMAGES_H

#include <stddef.h>
#include <stdint.h>

#include "store-codec.h"

/* What the base is made of.  Sectors of 512 bytes, two sections. */
#define BASE_NR_SECTORS 256             /* of the backing */
#define BASE_SLOTS_AT_FIRST 40
#define BASE_SLOTS 72                   /* after it was made larger */
#define BASE_LBA_REMAPPED 105           /* in the first section */
#define BASE_LBA_SECOND 155             /* in the second one */
#define BASE_LBA_LOST 11
#define BASE_LBA_ZEROED 118
#define BASE_LBA_CLEAN 200

struct image {
  uint8_t *bytes;               /* malloc */
  size_t size_bytes;
  struct store_super super;     /* of the base */
};

enum image_result {
  IMAGE_NOT_MADE = 0,
  IMAGE_OPENS,                  /* and nobody need know */
  IMAGE_BEHIND,                 /* as after a crash: opens, text for the log */
  IMAGE_ODD,                    /* opens, but the check finds fault with what
                                   nobody reads */
  IMAGE_REPAIRED,               /* the other copy serves: text is warned of */
  IMAGE_LOSES,                  /* opens, and one sector is lost */
  IMAGE_REFUSED,                /* damaged: not served, the check says so */
  IMAGE_NOT_SERVED,             /* but there is nothing wrong with it */
  IMAGE_NO_STORE,               /* taken for some file */
};

struct image_end {
  enum image_result result;
  const char *text;             /* a part of what is said */
  int err;
  uint32_t compat;              /* features that must still be there */
};

struct fault;

struct image_case {
  char name[128];
  const char *class;            /* refusals of one class may say the same */
  struct image_end end;
  uint64_t lost_lba;            /* IMAGE_LOSES */
  /* Private: */
  const struct fault *fault;
  unsigned copies;              /* bit 0: the first, bit 1: the second */
  uint64_t subject;
};

/* All cases, to free. */
extern struct image_case *images_list (size_t *ret_nr);

/* Make its fault in a copy of the base. */
extern void images_make (const struct image_case *c, struct image *image);

#endif /* REMAP_IMAGES_H */
