/* SPDX-License-Identifier: BSD-3-Clause */
/* guard: nothing of a benchmark survives it, however it ends.
 *
 * Purpose:    the benchmark runs in a child.  This process only waits for it,
 *             and then ends what is left of its processes, and removes its
 *             mounts and directories.
 * Invariants: U1 A directory or mount is known here before it is made.
 *             U2 Whatever the child leaves behind is this process's child then
 *                (PR_SET_CHILD_SUBREAPER), and ended by its number.
 *             U3 Killed by SIGKILL, this process takes all others with it;
 *                directories alone are left then (and nbd-server, which makes
 *                itself a daemon).
 * Signals:    SIGINT, SIGTERM and SIGHUP go on to the child, which they end;
 *             the exit status is 128 and the signal, as a shell has it.
 */
#ifndef REMAP_BENCH_GUARD_H
#define REMAP_BENCH_GUARD_H

/* Run fn in the child; returns the exit status of the whole. */
extern int guard_run (int (*fn) (int argc, char *argv[]), int argc,
                      char *argv[]);

/* In the child: an empty directory in parent, removed at the end with all that
 * is in it.
 */
extern const char *guard_make_dir (const char *parent, const char *name);

/* In the child: unmount this at the end. */
extern void guard_mount (const char *path);

/* After fork, in a process that shall not outlive its parent. */
extern void guard_die_with_parent (int parent_pid);

#endif /* REMAP_BENCH_GUARD_H */
