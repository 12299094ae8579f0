/* SPDX-License-Identifier: BSD-3-Clause */
/* sanitizer-first: let a preloaded sanitizer begin before all else.
 *
 * A sanitizer's runtime that is preloaded into a program without
 * instrumentation begins with the first malloc.  In nbdkit that comes from the
 * constructor of libp11-kit, inside newlocale, which holds a lock of glibc:
 * the runtime then looks for optional symbols, dlerror translates the message
 * for a missing one, and doing so gives up that lock.  After that, the first
 * error message makes the process hang when it exits.
 *
 * This library is preloaded too and linked with -z initfirst, so that its
 * constructor is the first of the process.
 */

#include <config.h>

#include <stdlib.h>

static void __attribute__ ((constructor))
begin (void)
{
  void *volatile p = malloc (1);

  free (p);
}
