/* SPDX-License-Identifier: BSD-3-Clause */
/* t_image: content that knows where it belongs.
 *
 * Purpose: every sector carries its number and a generation, all of its bytes
 *   depend on both, and every byte can be computed alone.  So content that is
 *   stale, of another sector, half or invented is seen, and said, whatever
 *   the offset and the length.  Generation 0 is all zeroes.
 * Units: bytes where the name says offset or count; a pattern sector is 512
 *   bytes, whatever the disk's sector is.
 */

#ifndef REMAP_T_IMAGE_H
#define REMAP_T_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define T_SECTOR 512

/* Fill buf with the content of these bytes of the disk. */
void t_pattern_fill (void *buf, size_t count, uint64_t offset, uint32_t gen);

/* Does buf hold it?  If not, *ret_why (may be NULL) says what it holds. */
bool t_pattern_matches (const void *buf, size_t count, uint64_t offset,
                        uint32_t gen, const char **ret_why);

/* Fails the test if not. */
void t_pattern_check (const void *buf, size_t count, uint64_t offset,
                      uint32_t gen, const char *what);

/* Of which generation is this one whole sector, as content of that lba?
 * False if of none.
 */
bool t_pattern_generation (const void *buf, uint64_t lba, uint32_t *ret_gen);

/* What is in this sector?  For messages. */
const char *t_pattern_describe (const void *buf, size_t count);

/* An image file, filled with the pattern of this generation. */
void t_image_create (const char *path, uint64_t size, uint32_t gen);

/* Read these bytes of the file. */
void t_image_read (const char *path, void *buf, size_t count,
                   uint64_t offset);

/* Fails the test if these sectors of the file do not hold this. */
void t_image_check (const char *path, uint64_t lba, uint64_t nr_sectors,
                    uint32_t gen);

/* Where in the file is this sector's content?  Byte offset, -1 if nowhere. */
int64_t t_image_find (const char *path, uint64_t lba, uint32_t gen);

/* Are these two files equal to the byte? */
bool t_image_equal (const char *a, const char *b);

/* Copy a file, holes and all. */
void t_image_copy (const char *from, const char *to);

#endif /* REMAP_T_IMAGE_H */
