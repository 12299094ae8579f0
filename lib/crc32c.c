/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <limits.h>

#include <isa-l/crc.h>

#include "checked.h"
#include "crc32c.h"

uint32_t
crc32c (uint32_t crc, const void *buf, size_t nr_bytes)
{
  /* ISA-L counts with an int, takes a pointer it does not write through, and
   * leaves both inversions of the standard to its caller.
   */
  unsigned char *p = (unsigned char *) (uintptr_t) buf;

  crc = ~crc;
  while (nr_bytes > 0) {
    int n = (int) MIN (nr_bytes, (size_t) INT_MAX);

    crc = crc32_iscsi (p, n, crc);
    p += n;
    nr_bytes -= (size_t) n;
  }
  return ~crc;
}
