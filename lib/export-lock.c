/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "export-lock.h"
#include "log.h"

struct export_lock {
  int fd;                       /* -1: it is not locked */
  int err;                      /* why not */
  char path[PATH_MAX], name[256], about[1024];
};

/* Whoever may not write in the file (another user's) may still lock it. */
static int
open_file (const char *path)
{
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

  return fd == -1 && (errno == EACCES || errno == EROFS)
    ? open (path, O_RDONLY | O_CLOEXEC) : fd;
}

/* Is it still the file that has the name?  Its owner may just have removed it. */
static bool
is_current (int fd, const char *path)
{
  struct stat a, b;

  return fstat (fd, &a) == 0 && stat (path, &b) == 0 &&
    a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Returns the locked file, or -1: EWOULDBLOCK another process has it, which is
 * *ret_pid if it can be told.
 */
static int
open_locked (const char *path, int operation, long *ret_pid)
{
  char text[32] = "";

  for (;;) {
    CLEANUP_CLOSE int fd = open_file (path);
    int locked = fd;

    if (fd == -1)
      return -1;
    if (flock (fd, operation | LOCK_NB) == -1) {
      int err = errno;

      if (pread (fd, text, sizeof text - 1, 0) > 0)
        *ret_pid = strtol (text, NULL, 10);
      errno = err;
      return -1;
    }
    if (is_current (fd, path)) {
      fd = -1;
      return locked;
    }
  }
}

static void
explain_busy (const char *name, long pid)
{
  if (pid > 0 && (kill ((pid_t) pid, 0) == 0 || errno != ESRCH))
    set_error (EBUSY, "%s is in use by process %ld: one server at a time",
               name, pid);
  else
    set_error (EBUSY, "%s is in use by another process: one server at a time",
               name);
}

struct export_lock *
export_lock_take (const char *dir, const char *id, const char *name,
                  const char *about, bool is_shared)
{
  struct export_lock *l = calloc (1, sizeof *l);
  long pid = 0;

  if (l == NULL) {
    set_error (ENOMEM, "no memory");
    return NULL;
  }
  snprintf (l->name, sizeof l->name, "%s", name);
  snprintf (l->about, sizeof l->about, "%s", about);
  l->fd = -1;
  if (snprintf (l->path, sizeof l->path, "%s/%s.lock", dir, id)
      >= (int) sizeof l->path) {
    l->err = ENAMETOOLONG;
    return l;
  }
  mkdir (dir, 0755);            /* if it cannot be made, nor can the file */
  l->fd = open_locked (l->path, is_shared ? LOCK_SH : LOCK_EX, &pid);
  l->err = errno;
  if (l->fd == -1 && l->err == EWOULDBLOCK) {
    free (l);
    explain_busy (name, pid);
    return NULL;
  }
  export_lock_note_pid (l);
  return l;
}

/* It is for messages alone: if it cannot be written, they say less. */
void
export_lock_note_pid (struct export_lock *l)
{
  char text[sizeof l->about + 32];
  int n = snprintf (text, sizeof text, "%ld %s\n", (long) getpid (), l->about);

  if (l->fd == -1 || pwrite (l->fd, text, (size_t) n, 0) != n ||
      ftruncate (l->fd, n) == -1)
    return;
}

void
export_lock_warn (const struct export_lock *l)
{
  if (l->fd == -1)
    log_message (LEVEL_WARNING, "%s: %s cannot be locked (%s): nothing keeps a "
                 "second server on this machine away", l->name, l->path,
                 errno_text (l->err));
}

/* Others that share it still need the name. */
void
export_lock_release (struct export_lock *l)
{
  int saved = errno;

  if (l == NULL)
    return;
  if (l->fd != -1) {
    if (flock (l->fd, LOCK_EX | LOCK_NB) == 0 && is_current (l->fd, l->path))
      unlink (l->path);
    close (l->fd);
  }
  free (l);
  errno = saved;
}
