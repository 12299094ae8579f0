/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dev.h"
#include "error.h"
#include "store-inspect.h"
#include "store-internal.h"

struct store_view {
  char path[256];
  struct store_image image;
};

/* A lock is tried for, so that a store that changes is not looked at. */
static struct dev *
open_unused (const char *path)
{
  struct dev *dev = dev_open (path, DEV_DIRECT_AUTO, DEV_OPEN_READONLY,
                              DEV_TIMEOUT_S);

  if (dev == NULL && errno == EBUSY)
    store_explain_busy (path);
  return dev;
}

struct store_view *
store_view_open (const char *path)
{
  struct store_view *view = NULL;
  struct dev *dev = open_unused (path);

  if (dev == NULL)
    return NULL;
  view = calloc (1, sizeof *view);
  if (view == NULL)
    set_error (ENOMEM, "no memory to read store %s", path);
  else if (store_load (dev, path, NULL, NULL, &view->image) == -1) {
    if (errno == EEXIST)
      set_error (EEXIST, "%s is no store", path);
    free (view);
    view = NULL;
  }
  else
    snprintf (view->path, sizeof view->path, "%s", path);
  dev_close (dev);
  return view;
}

void
store_view_close (struct store_view *view)
{
  if (view)
    store_image_free (&view->image);
  free (view);
}

void
store_view_get_status (const struct store_view *view, struct status *ret)
{
  const struct store_image *image = &view->image;
  uint64_t total = store_super_slots (&image->super);
  uint64_t used = image->nr_remapped + image->nr_lost + image->nr_zeroed
    + image->bad_slots.nr + image->super.nr_kept;

  memset (ret, 0, sizeof *ret);
  memcpy (ret->backing, image->super.backing_path, sizeof ret->backing);
  memcpy (ret->store, view->path, sizeof ret->store);
  memcpy (ret->identity, image->super.backing_id, sizeof ret->identity);
  ret->size_bytes = image->super.backing_bytes;
  ret->sector_bytes = image->super.sector_bytes;
  ret->physical_bytes = image->super.sector_bytes;
  ret->nr_remapped = image->nr_remapped;
  ret->nr_lost = image->nr_lost;
  ret->nr_zeroed = image->nr_zeroed;
  ret->spares_total = total - image->super.nr_kept;
  ret->spares_free = total > used ? total - used : 0;
  ret->spares_bad = image->bad_slots.nr;
}

int
store_view_next_run (const struct store_view *view, lba_t from,
                     struct sector_run *ret)
{
  const struct store_image *image = &view->image;
  size_t low = 0, high = image->nr_runs;
  uint64_t skip;

  while (low < high) {
    size_t mid = low + (high - low) / 2;
    const struct sector_run *run = &image->runs[mid];

    if (run->lba.n + run->nr_sectors <= from.n)
      low = mid + 1;
    else
      high = mid;
  }
  if (low == image->nr_runs)
    return -1;
  *ret = image->runs[low];
  skip = from.n > ret->lba.n ? from.n - ret->lba.n : 0;
  ret->lba.n += skip;
  ret->nr_sectors -= skip;
  ret->spare.n += (uint32_t) skip;
  return 0;
}
