/* SPDX-License-Identifier: BSD-3-Clause */
/* params: key=value parameters -> struct remap_options. */
#ifndef REMAP_PARAMS_H
#define REMAP_PARAMS_H

#include <stdbool.h>

#include "remap.h"

/* One line a parameter; the same names as in the man page (a test compares
 * them).
 */
extern const char params_help[];

extern struct remap_options params;

/* nbdkit's .load, .unload, .config and .config_complete. */
extern void params_load (void);
extern void params_unload (void);
extern int params_set (const char *key, const char *value);
extern int params_complete (void);

#endif /* REMAP_PARAMS_H */
