/* SPDX-License-Identifier: BSD-3-Clause */
/* thread: threads of the library.  They take no signals: these are for the
 * threads of the program.
 */
#ifndef REMAP_THREAD_H
#define REMAP_THREAD_H

#include <pthread.h>

/* pthread_create; 0 or an errno, as that has it. */
extern int thread_start (pthread_t *ret, void *(*fn) (void *), void *opaque);

#endif /* REMAP_THREAD_H */
