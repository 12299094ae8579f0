/* SPDX-License-Identifier: BSD-3-Clause */
/* commands: one function for each command of remapctl. */
#ifndef REMAPCTL_COMMANDS_H
#define REMAPCTL_COMMANDS_H

#include <stdbool.h>

/* Exit status of status and list, and where no command was understood. */
#define STATUS_OK 0
#define STATUS_ERROR 1

/* Exit status of check, as fsck(8) has them: the sum of what applies.  dump has
 * the last two.
 */
#define CHECK_SOUND 0
#define CHECK_REPAIRED 1
#define CHECK_DAMAGED 4
#define CHECK_ERROR 8
#define CHECK_USAGE 16

struct options {
  const char *disk;             /* or store, as the user named it */
  bool json, csv, repair;
};

/* Each returns an exit status; errors are printed to stderr. */
extern int command_status (const struct options *options);
extern int command_list (const struct options *options);
extern int command_check (const struct options *options);
extern int command_dump (const struct options *options);

#endif /* REMAPCTL_COMMANDS_H */
