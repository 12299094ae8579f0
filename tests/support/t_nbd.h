/* SPDX-License-Identifier: BSD-3-Clause */
/* t_nbd: a client of the server under test, in a few words.
 *
 * Purpose: every operation is tried and returns 0 or the errno that the
 *   client sees; T_OK and T_ERRNO say what is expected.
 * Units: bytes; lba and nr_sectors where the name of the argument says so,
 *   in sectors of 512 bytes.
 */

#ifndef REMAP_T_NBD_H
#define REMAP_T_NBD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <libnbd.h>

#include "t_base.h"
#include "t_server.h"

/* This operation must succeed, must fail with that errno. */
#define T_OK(op) T_ERRNO (op, 0)
#define T_ERRNO(op, expected)                                           \
  do {                                                                  \
    int t_err_ = (op);                                                  \
    if (t_err_ != (expected))                                           \
      T_FAIL ("%s: %s, expected: %s", #op,                              \
              t_err_ ? strerrorname_np (t_err_) : "success",            \
              (expected) ? strerrorname_np (expected) : "success");     \
  } while (0)

struct nbd_handle *t_nbd_connect (const struct t_server *s);

/* Disconnect, orderly; or as left behind by a server that was killed. */
void t_nbd_close (struct nbd_handle *h);

int t_nbd_read (struct nbd_handle *h, void *buf, size_t count,
                uint64_t offset);
int t_nbd_write (struct nbd_handle *h, const void *buf, size_t count,
                 uint64_t offset);
int t_nbd_write_fua (struct nbd_handle *h, const void *buf, size_t count,
                     uint64_t offset);
int t_nbd_zero (struct nbd_handle *h, uint64_t count, uint64_t offset);
int t_nbd_trim (struct nbd_handle *h, uint64_t count, uint64_t offset);
int t_nbd_flush (struct nbd_handle *h);

/* Write, read sectors of a pattern (t_image.h).  Read into nowhere. */
int t_nbd_put (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors,
               uint32_t gen);
int t_nbd_touch (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors);

/* Read these sectors: they must have that content. */
void t_nbd_expect (struct nbd_handle *h, uint64_t lba, uint64_t nr_sectors,
                   uint32_t gen);

/* What block status says of this byte (LIBNBD_STATE_*). */
uint32_t t_nbd_status_of (struct nbd_handle *h, uint64_t offset);

/* Whatever block status calls zero anywhere must read as zeroes.  Returns how
 * many bytes it calls zero.
 */
uint64_t t_nbd_check_zero_extents (struct nbd_handle *h);

#endif /* REMAP_T_NBD_H */
