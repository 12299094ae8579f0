/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "guard.h"

#define NR_PATHS 32

/* Shared with the child. */
static struct {
  char dirs[NR_PATHS][4096], mounts[NR_PATHS][4096];
  volatile unsigned nr_dirs, nr_mounts;
} *left;

static const int signals_to_end[] = { SIGINT, SIGTERM, SIGHUP };

static void
pause_ms (long ms)
{
  nanosleep (&(struct timespec) { .tv_nsec = ms * 1000000 }, NULL);
}

/* ------------------------------------------------------------ the child -- */

const char *
guard_make_dir (const char *parent, const char *name)
{
  char *dir = left->dirs[left->nr_dirs];

  if (left->nr_dirs == NR_PATHS)
    bench_fail ("too many directories");
  snprintf (dir, sizeof left->dirs[0], "%s/%s.XXXXXX", parent, name);
  if (mkdtemp (dir) == NULL)
    bench_fail ("%s: %s", dir, strerror (errno));
  left->nr_dirs++;              /* U1: nothing is in it yet */
  return dir;
}

void
guard_mount (const char *path)
{
  if (left->nr_mounts == NR_PATHS)
    bench_fail ("too many mounts");
  snprintf (left->mounts[left->nr_mounts], sizeof left->mounts[0], "%s", path);
  left->nr_mounts++;
}

void
guard_die_with_parent (int parent_pid)
{
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (getppid () != parent_pid)
    _exit (EXIT_FAILURE);       /* it was quicker */
}

/* ------------------------------------------------------------ the guard -- */

static int
remove_path (const char *path, const struct stat *st, int type,
             struct FTW *where)
{
  if (remove (path) == -1)
    fprintf (stderr, "bench: cannot remove %s: %s\n", path, strerror (errno));
  return 0;
}

/* The processes that are ours now, by the kernel's list of them. */
static void
kill_children (int sig)
{
  FILE *f = fopen ("/proc/thread-self/children", "re");
  int pid;

  while (f && fscanf (f, "%d", &pid) == 1)
    kill (pid, sig);
  if (f)
    fclose (f);
}

/* They see that the child has gone, and end; who does not, is ended. */
static void
reap_orphans (void)
{
  for (unsigned nr_tries = 0; nr_tries < 600; nr_tries++) {
    pid_t pid = waitpid (-1, NULL, WNOHANG);

    if (pid == -1 && errno == ECHILD)
      return;
    if (pid > 0)
      continue;
    if (nr_tries == 100)
      kill_children (SIGTERM);
    if (nr_tries >= 300)
      kill_children (SIGKILL);
    pause_ms (10);
  }
  fprintf (stderr, "bench: a process does not end\n");
}

/* Who is not root, may not; fusermount3 may. */
static void
unmount (const char *path)
{
  pid_t pid;

  if (umount2 (path, MNT_DETACH) == 0 || errno != EPERM)
    return;
  pid = fork ();
  if (pid == 0) {
    execlp ("fusermount3", "fusermount3", "-uzq", path, NULL);
    _exit (127);
  }
  if (pid > 0)
    waitpid (pid, NULL, 0);
}

static void
clean_up (void)
{
  reap_orphans ();
  for (unsigned i = 0; i < left->nr_mounts; i++)
    unmount (left->mounts[i]);
  for (unsigned i = 0; i < left->nr_dirs; i++)
    nftw (left->dirs[i], remove_path, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Until the child has ended: its status as wait tells it. */
static int
wait_for_child (pid_t child, const sigset_t *set)
{
  int status, sig;

  for (;;) {
    if (waitpid (child, &status, WNOHANG) == child)
      return status;
    if (sigwait (set, &sig) == 0 && sig != SIGCHLD)
      kill (child, sig);
  }
}

static void
say_signal (int sig)
{
  fprintf (stderr, "bench: ended by %s\n", strsignal (sig));
}

int
guard_run (int (*fn) (int argc, char *argv[]), int argc, char *argv[])
{
  sigset_t set, before;
  pid_t self = getpid (), child;
  int status;

  left = bench_shared (sizeof *left);
  prctl (PR_SET_CHILD_SUBREAPER, 1);
  sigemptyset (&set);
  sigaddset (&set, SIGCHLD);
  for (size_t i = 0; i < sizeof signals_to_end / sizeof (int); i++)
    sigaddset (&set, signals_to_end[i]);
  sigprocmask (SIG_BLOCK, &set, &before);
  child = fork ();
  if (child == 0) {
    guard_die_with_parent (self);
    prctl (PR_SET_CHILD_SUBREAPER, 1);  /* of daemons, while it lives */
    sigprocmask (SIG_SETMASK, &before, NULL);
    exit (fn (argc, argv));
  }
  status = child == -1 ? W_EXITCODE (EXIT_FAILURE, 0)
    : wait_for_child (child, &set);
  clean_up ();
  if (WIFSIGNALED (status))
    say_signal (WTERMSIG (status));
  return WIFSIGNALED (status) ? 128 + WTERMSIG (status) : WEXITSTATUS (status);
}
