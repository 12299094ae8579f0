/* SPDX-License-Identifier: BSD-3-Clause */
/* export-lock: one server at a time for an NBD export, on one machine.
 *
 * Purpose:    NBD has no locks.  A server that has an export, as its disk or as
 *             its store, locks a file for it in the state directory: ID.lock.
 *             Servers on other machines are not kept away by that.
 * Format:     a line: the number of the process that has it, a space, and what
 *             it has, for people.
 * Who has it: the lock (flock) belongs to the open file: it survives the fork
 *             of a server that becomes a daemon, and ends with kill -9.  The
 *             file is removed in good order; one that stays behind is harmless.
 * Locking:    none.
 */
#ifndef REMAP_EXPORT_LOCK_H
#define REMAP_EXPORT_LOCK_H

#include <stdbool.h>

struct export_lock;

/* Lock the export with this id (nbd_uri_id), whose name is for messages; dir is
 * made if it is missing.  Readers share it.  about says what has it.  Where dir
 * cannot be used, it is not locked, and export_lock_warn tells.  NULL: EBUSY, or
 * no memory.
 */
extern struct export_lock *export_lock_take (const char *dir, const char *id,
                                             const char *name,
                                             const char *about,
                                             bool is_shared);

/* Note that it is this process that has it, after a fork. */
extern void export_lock_note_pid (struct export_lock *l);

/* If it is not locked, warn of that. */
extern void export_lock_warn (const struct export_lock *l);

/* NULL is fine. */
extern void export_lock_release (struct export_lock *l);

#endif /* REMAP_EXPORT_LOCK_H */
