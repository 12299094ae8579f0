/* SPDX-License-Identifier: BSD-3-Clause */
/* t_store: a store that itself stands on a failing disk, or is damaged. */

#include <config.h>

#include <fcntl.h>
#include <unistd.h>

#include "t_base.h"
#include "t_image.h"
#include "t_server.h"
#include "t_store.h"

struct t_disk *
t_store_on_failing_disk (const struct t_disk *backing, const char *params)
{
  static unsigned counter;
  const struct t_disk_options options = {
    .image = t_path ("store-image-%u", counter++),
    .volatile_cache = backing->options.volatile_cache,
    .connections = backing->options.connections,
  };
  struct t_server *s = t_server_start ("backing=%s spare=%s control=off %s",
                                       backing->path, options.image, params);

  t_server_stop (s);
  return t_disk_new (T_DISK_FUSE, 0, &options);
}

struct store_super
t_store_super (const char *path)
{
  uint8_t block[STORE_BLOCK];
  struct store_super super;
  const char *wrong;

  t_image_read (path, block, sizeof block, 0);
  wrong = store_super_decode (block, 0, &super);
  if (wrong)
    T_FAIL ("%s: its superblock %s", path, wrong);
  return super;
}

spare_t
t_store_slot_of (const char *path, uint64_t lba)
{
  struct store_super super = t_store_super (path);

  for (spare_t slot = { 0 }; slot.n < super.nr_ready; slot.n++) {
    uint8_t bytes[ENTRY_BYTES];
    struct store_entry e;

    t_image_read (path, bytes, sizeof bytes, store_entry_at (&super, slot, 0));
    if (store_entry_decode (bytes, super.uuid, slot, &e) == NULL &&
        e.state == ENTRY_REMAPPED && e.lba.n == lba)
      return slot;
  }
  T_FAIL ("%s: no slot for sector %llu", path, (unsigned long long) lba);
}

uint64_t
t_store_place (const char *path, enum t_store_part part, unsigned copy,
               spare_t slot)
{
  struct store_super super = t_store_super (path);

  switch (part) {
  case T_STORE_SUPER:
    return copy ? super.store_bytes - STORE_BLOCK : 0;
  case T_STORE_COMMIT:
    return copy ? super.store_bytes - STORE_TAIL_BYTES : COMMIT_A_OFFSET;
  case T_STORE_ENTRY:
    break;
  }
  return store_entry_at (&super, slot, copy);
}

void
t_store_flip (const char *path, uint64_t offset)
{
  int fd = open (path, O_RDWR | O_CLOEXEC);
  uint8_t byte;

  if (fd == -1 || pread (fd, &byte, 1, (off_t) offset) != 1)
    T_FAIL ("%s: %m", path);
  byte ^= 0x40;
  if (pwrite (fd, &byte, 1, (off_t) offset) != 1)
    T_FAIL ("%s: %m", path);
  close (fd);
}
