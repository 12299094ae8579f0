/* SPDX-License-Identifier: BSD-3-Clause */
/* image: disks for servers to serve. */
#ifndef REMAP_BENCH_IMAGE_H
#define REMAP_BENCH_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

enum image_kind {
  IMAGE_MEMORY,                 /* a file in /dev/shm */
  IMAGE_LOOP,                   /* a loop device over such a file */
  IMAGE_DISK,                   /* a file in $TMPDIR */
  NR_IMAGE_KINDS
};

struct image {
  const char *name;
  char dir[4096];               /* sockets, logs */
  char path[4200], store[4200]; /* the disk, and the plugin's store for it */
  uint64_t size_bytes;
  bool takes_direct;            /* O_DIRECT works on it */
  int fd;
};

extern const char *image_kind_name (enum image_kind kind);

/* All of it is data, none is a hole.  What cannot be made, ends the program. */
extern void image_make (struct image *image, enum image_kind kind,
                        uint64_t size_bytes);

/* A file, in memory where possible: data up to nr_filled bytes, then a hole. */
extern void image_make_sparse (struct image *image, uint64_t nr_filled,
                               uint64_t size_bytes);

extern void image_remove (struct image *image);

/* All is durable, and the page cache has all of it, or nothing. */
extern void image_settle (struct image *image, bool is_cached);

#endif /* REMAP_BENCH_IMAGE_H */
