/* SPDX-License-Identifier: BSD-3-Clause */
/* mark: what a disk bears so that it is not served without its store.
 *
 * Purpose:    a disk that has remapped sectors looks like any other; served
 *             without its store it would give out what those sectors held
 *             before.  So it gets a mark that names the store.
 * Where:      a file bears it itself, in the extended attribute
 *             user.nbdkit-remap.store.  For a block device and an NBD
 *             export, where nothing but the clients' data may be written, a note
 *             is kept in the state directory: a file named after the WWN or
 *             serial, or the place of the export, with ".disk" behind.  A device that has neither bears no mark.
 * Format:     a line: the UUID of the store in 32 hexadecimal digits, a sequence
 *             number that the store has reached, decimal (less: it is an old
 *             copy of the store), the path of the store; with spaces between.
 *             Later versions may add lines.
 * Locking:    none.
 */
#ifndef REMAP_MARK_H
#define REMAP_MARK_H

#include <stdint.h>

#include "identity.h"
#include "store-format.h"

struct mark {
  uint8_t uuid[STORE_UUID_BYTES];
  uint64_t seq;
  char store[STORE_PATH_BYTES];         /* path */
};

/* What an open disk bears.  1: *ret is it; 0: nothing; -1: that cannot be found
 * out, or EUCLEAN: it is damaged.
 */
extern int mark_read (const struct dev *dev, const struct identity *disk,
                      struct mark *ret);

/* Durable on return.  Errors: EOPNOTSUPP the disk can bear none; others. */
extern int mark_write (const struct dev *dev, const struct identity *disk,
                       const struct mark *mark);

/* The same for a disk that is not open. */
extern int mark_read_path (const char *path, struct mark *ret);

/* The same for a note in a state directory, which is made if it is missing. */
extern int mark_read_note (const char *dir, const char *id, struct mark *ret);
extern int mark_write_note (const char *dir, const char *id,
                            const struct mark *mark);

#endif /* REMAP_MARK_H */
