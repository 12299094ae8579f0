/* SPDX-License-Identifier: BSD-3-Clause */
/* t_disk: a disk to be served, of one of several kinds.
 *
 * Purpose: a test runs on each kind that can show what it is about.
 *
 *   T_DISK_PLAIN  a regular file; it never fails
 *   T_DISK_FUSE   a file mounted with nbdfuse from a fault server
 *   T_DISK_LOOP   a block device, attached with direct I/O to such a file
 *
 * What stands on the medium is the image below all of these: ->image.
 */

#ifndef REMAP_T_DISK_H
#define REMAP_T_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "t_fault.h"
#include "t_server.h"

enum t_disk_kind { T_DISK_PLAIN, T_DISK_FUSE, T_DISK_LOOP };

struct t_disk_options {
  const char *faults;           /* to begin with */
  const char *image;            /* an existing image; default: a new one */
  uint32_t gen;                 /* pattern of a new image; 0: zeroes */
  bool volatile_cache;          /* for t_disk_cut_power */
  bool read_only;               /* attach the loop device read-only */
  unsigned sector_bytes;        /* of the loop device; 0: 512 */
  unsigned physical_bytes;      /* what fails as one below; 0: 512 */
  unsigned connections;         /* of nbdfuse; 0: its default, 4.  Behind a
                                   slow request waits what shares its one */
};

struct t_disk {
  enum t_disk_kind kind;
  uint64_t size;
  char *image;
  char *path;                   /* what backing= gets */
  char *store;                  /* what spare= gets, or has by itself */
  struct t_fault *fault;        /* NULL of a plain file */
  struct t_disk_options options;
  pid_t fuse_pid;
  char *fuse_path;
  int loop_fd;
};

/* "nbdfuse file", ... */
const char *t_disk_kind_name (enum t_disk_kind kind);

/* Can this kind be had here?  If not, says what is missing as t_skip_part
 * does.
 */
bool t_disk_can (enum t_disk_kind kind);

/* size: ignored where options name an image. */
struct t_disk *t_disk_new (enum t_disk_kind kind, uint64_t size,
                           const struct t_disk_options *options);
void t_disk_free (struct t_disk *d);

/* Cut the power of these disks (nr of them, with a volatile cache), on which
 * the server runs, and of the server.  The disks are there again then, each as
 * t_fault_cut_power may leave it, with the faults that they had; the server is
 * not.  A loop device may come back under another name.
 */
void t_disk_cut_power (struct t_server *s, struct t_disk *const *disks,
                       size_t nr, unsigned seed);

/* The parameters of the server for this disk: "backing=... spare=...". */
const char *t_disk_params (const struct t_disk *d);

/* Run the same test on several kinds; each is a part named after its kind.
 * kinds: a list, ended by -1.
 */
void t_disk_each (const int *kinds, void (*test) (enum t_disk_kind kind));

/* The lists. */
extern const int t_disk_failing_kinds[]; /* fuse, loop */
extern const int t_disk_all_kinds[];     /* plain, fuse, loop */
extern const int t_disk_fuse_only[];

#endif /* REMAP_T_DISK_H */
