/* SPDX-License-Identifier: BSD-3-Clause */
/* t_base: what every test needs: a verdict, a directory, child processes. */

#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_base.h"
#include "t_wait.h"

enum { MAX_JANITOR_ITEMS = 256 };

/* What the test tells its janitor: a process, or a mount point. */
struct janitor_item {
  pid_t pid;
  char mount[200];
};

static char test_name[80], part_name[200], directory[160];
static bool part_was_run, part_was_skipped;
static pid_t test_pid, janitor_pid;
static int janitor_fd = -1;
static void (*show_more) (void);

/* t_str: each string is kept in a list, so that leak checkers find it. */
struct kept {
  struct kept *next;
  char text[];
};
static struct kept *kept_strings;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

/*---- The janitor ----*/

static int
remove_one (const char *path, const struct stat *st, int type,
            struct FTW *ftw)
{
  (void) st;
  (void) type;
  (void) ftw;
  remove (path);
  return 0;
}

static void
janitor_unmount (const char *path)
{
  pid_t pid;

  if (umount2 (path, MNT_DETACH) == 0 || errno == EINVAL || errno == ENOENT)
    return;
  pid = fork ();                /* not root: ask the setuid helper */
  if (pid == 0) {
    execlp ("fusermount3", "fusermount3", "-u", "-z", path, (char *) NULL);
    _exit (127);
  }
  if (pid > 0)
    waitpid (pid, NULL, 0);
}

/* Servers note in the state directory which store an NBD export has, and those
 * that were killed leave their lock on it there: those that speak of the
 * directory of this test go with it.
 */
static void
janitor_forget_notes (void)
{
  DIR *dir = opendir (REMAP_STATEDIR);
  const struct dirent *entry;
  char path[4096], text[4096];

  while (dir && (entry = readdir (dir)) != NULL) {
    ssize_t n = -1;
    int fd;

    if (strncmp (entry->d_name, "nbd-", 4) != 0 ||
        snprintf (path, sizeof path, "%s/%s", REMAP_STATEDIR, entry->d_name)
        >= (int) sizeof path)
      continue;
    fd = open (path, O_RDONLY | O_CLOEXEC);
    if (fd != -1) {
      n = read (fd, text, sizeof text - 1);
      close (fd);
    }
    if (n > 0 && memmem (text, (size_t) n, directory, strlen (directory)))
      unlink (path);
  }
  if (dir)
    closedir (dir);
}

/* Latest first: servers before the disks below them. */
static void
janitor_clean (const struct janitor_item *items, const int *pidfds, size_t n)
{
  while (n-- > 0) {
    if (items[n].pid > 0 && pidfds[n] >= 0)
      syscall (SYS_pidfd_send_signal, pidfds[n], SIGKILL, NULL, 0);
    else if (items[n].mount[0])
      janitor_unmount (items[n].mount);
  }
  janitor_forget_notes ();
  if (getenv ("REMAP_TEST_KEEP"))
    fprintf (stderr, "%s: left in %s\n", test_name, directory);
  else
    nftw (directory, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* Collect items until the test is gone, then clean up after it. */
static void
janitor_main (int fd)
{
  static struct janitor_item items[MAX_JANITOR_ITEMS];
  static int pidfds[MAX_JANITOR_ITEMS];
  struct janitor_item item;
  size_t n = 0;

  signal (SIGINT, SIG_IGN);
  signal (SIGTERM, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  setsid ();
  while (read (fd, &item, sizeof item) == sizeof item) {
    if (n == MAX_JANITOR_ITEMS) { /* forget what has long ended */
      close (pidfds[0]);
      memmove (items, items + 1, (n - 1) * sizeof items[0]);
      memmove (pidfds, pidfds + 1, (n - 1) * sizeof pidfds[0]);
      n--;
    }
    items[n] = item;
    pidfds[n] = item.pid > 0 ? (int) syscall (SYS_pidfd_open, item.pid, 0)
      : -1;
    n++;
  }
  janitor_clean (items, pidfds, n);
  _exit (0);
}

static void
janitor_start (void)
{
  int fds[2];

  if (pipe2 (fds, O_CLOEXEC) == -1)
    T_FAIL ("pipe2: %m");
  fflush (NULL);
  janitor_pid = fork ();
  if (janitor_pid == -1)
    T_FAIL ("fork: %m");
  if (janitor_pid == 0) {
    close (fds[1]);
    janitor_main (fds[0]);
  }
  close (fds[0]);
  janitor_fd = fds[1];
}

static void
janitor_tell (const struct janitor_item *item)
{
  if (write (janitor_fd, item, sizeof *item) != sizeof *item)
    T_FAIL ("writing to the janitor: %m");
}

void
t_janitor_mount (const char *path)
{
  struct janitor_item item = { 0 };

  snprintf (item.mount, sizeof item.mount, "%s", path);
  janitor_tell (&item);
}

static bool
no_child_is_left (void *arg)
{
  (void) arg;
  while (waitpid (-1, NULL, WNOHANG) > 0)
    continue;
  return waitpid (-1, NULL, WNOHANG) == -1;
}

/* At exit: let the janitor work, wait for it and for whom it has killed. */
static void
janitor_finish (void)
{
  if (getpid () != test_pid || janitor_fd == -1)
    return;
  close (janitor_fd);
  janitor_fd = -1;
  waitpid (janitor_pid, NULL, 0);
  t_wait_for (no_child_is_left, NULL, 2000);
}

/*---- Begin, end and verdict ----*/

void
t_begin (const char *name, unsigned limit_s)
{
  const char *tmp = getenv ("TMPDIR");

  if (tmp == NULL || *tmp == '\0' || strlen (tmp) > 40 || strchr (tmp, ' '))
    tmp = "/tmp";               /* socket names must be short */
  setvbuf (stdout, NULL, _IOLBF, 0);
  snprintf (test_name, sizeof test_name, "%s", name);
  snprintf (directory, sizeof directory, "%s/remap-test-XXXXXX",
            tmp);
  if (mkdtemp (directory) == NULL || chmod (directory, 0755) == -1)
    T_FAIL ("%s: %m", directory);
  test_pid = getpid ();
  janitor_start ();
  atexit (janitor_finish);
  signal (SIGPIPE, SIG_IGN);
  alarm (limit_s * t_scale ());
}

int
t_end (void)
{
  part_name[0] = '\0';
  if (part_was_skipped && !part_was_run)
    t_skip ("every part was skipped");
  t_note ("passed");
  return EXIT_SUCCESS;
}

static void
say (FILE *fp, const char *prefix, const char *fmt, va_list args)
{
  flockfile (fp);
  fprintf (fp, "%s%s%s: %s", test_name, part_name[0] ? ": " : "", part_name,
           prefix);
  vfprintf (fp, fmt, args);
  putc ('\n', fp);
  funlockfile (fp);
}

void
t_note (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  say (stdout, "", fmt, args);
  va_end (args);
}

void
t_part (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (part_name, sizeof part_name, fmt, args);
  va_end (args);
  part_was_run = true;
}

static bool
is_strict (void)
{
  const char *strict = getenv ("REMAP_TEST_STRICT");

  return strict && strcmp (strict, "1") == 0;
}

void
t_skip (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  say (stderr, is_strict () ? "FAILED, would be skipped: " : "skipped: ",
       fmt, args);
  va_end (args);
  exit (is_strict () ? EXIT_FAILURE : 77);
}

void
t_skip_part (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  say (stderr, is_strict () ? "FAILED, would be skipped: "
       : "this part is skipped: ", fmt, args);
  va_end (args);
  if (is_strict ())
    exit (EXIT_FAILURE);
  part_was_skipped = true;
}

void
t_on_fail (void (*show) (void))
{
  show_more = show;
}

void
t_fail_at (const char *file, int line, const char *fmt, ...)
{
  static atomic_flag once = ATOMIC_FLAG_INIT;
  const int err = errno;
  char where[200];
  va_list args;

  if (atomic_flag_test_and_set (&once)) /* another thread is at it */
    for (;;)
      pause ();
  snprintf (where, sizeof where, "FAILED at %s:%d: ", file, line);
  va_start (args, fmt);
  errno = err;                  /* for %m */
  say (stderr, where, fmt, args);
  va_end (args);
  if (show_more)
    show_more ();
  fflush (NULL);
  janitor_finish ();
  _exit (EXIT_FAILURE);
}

unsigned
t_scale (void)
{
  const char *valgrind = getenv ("REMAP_TEST_VALGRIND");
  const char *preload = getenv ("REMAP_TEST_PRELOAD");

  if (valgrind && *valgrind)
    return 20;
  return preload && *preload ? 5 : 2;
}

/*---- Strings and files ----*/

static char *
keep_vstr (const char *fmt, va_list args)
{
  struct kept *k;
  va_list again;
  int n;

  va_copy (again, args);
  n = vsnprintf (NULL, 0, fmt, again);
  va_end (again);
  k = malloc (sizeof *k + n + 1);
  if (n < 0 || k == NULL)
    T_FAIL ("out of memory");
  vsnprintf (k->text, n + 1, fmt, args);
  pthread_mutex_lock (&kept_lock);
  k->next = kept_strings;
  kept_strings = k;
  pthread_mutex_unlock (&kept_lock);
  return k->text;
}

char *
t_str (const char *fmt, ...)
{
  va_list args;
  char *r;

  va_start (args, fmt);
  r = keep_vstr (fmt, args);
  va_end (args);
  return r;
}

char *
t_path (const char *fmt, ...)
{
  va_list args;
  char *name;

  va_start (args, fmt);
  name = keep_vstr (fmt, args);
  va_end (args);
  return t_str ("%s/%s", directory, name);
}

char *
t_built (const char *relative)
{
  const char *top = getenv ("REMAP_BUILDDIR");
  char cwd[4096];

  if (top == NULL || *top == '\0')
    top = getenv ("abs_top_builddir");
  if (top && *top)
    return t_str ("%s/%s", top, relative);
  if (getcwd (cwd, sizeof cwd) == NULL)
    T_FAIL ("getcwd: %m");
  return t_str ("%s/../%s", cwd, relative);
}

char *
t_plugin (void)
{
  const char *plugin = getenv ("REMAP_PLUGIN");

  return plugin && *plugin ? t_str ("%s", plugin) : t_built ("remap.so");
}

/* Whoever sets REMAP_PLUGIN has a fitting remapctl in the PATH. */
char *
t_remapctl (void)
{
  const char *plugin = getenv ("REMAP_PLUGIN");

  return plugin && *plugin ? t_str ("remapctl") : t_built ("ctl/remapctl");
}

void
t_check_installed (pid_t pid)
{
  const char *installed = getenv ("REMAP_TEST_INSTALLED");
  const char *maps;

  if (installed == NULL || strcmp (installed, "1") != 0)
    return;
  maps = t_read_file (t_str ("/proc/%d/maps", (int) pid));
  if (strstr (maps, "/nbdkit-remap-plugin.so") == NULL ||
      strstr (maps, "/libremap.so.") == NULL)
    T_FAIL ("the plugin or libremap is not in process %d", (int) pid);
  if (strstr (maps, t_built ("plugin/")) || strstr (maps, t_built ("lib/")))
    T_FAIL ("process %d has loaded what is not installed", (int) pid);
}

char *
t_read_file (const char *path)
{
  FILE *fp = fopen (path, "re");
  char *line = NULL, *r;
  size_t size = 0;

  if (fp == NULL)
    return t_str ("%s", "");
  if (getdelim (&line, &size, '\0', fp) == -1)
    r = t_str ("%s", "");
  else
    r = t_str ("%s", line);
  free (line);
  fclose (fp);
  return r;
}

void
t_write_file (const char *path, const char *content)
{
  FILE *fp = fopen (path, "we");

  if (fp == NULL || fputs (content, fp) == EOF || fclose (fp) == EOF)
    T_FAIL ("%s: %m", path);
}

const char *
t_find_tool (const char *name)
{
  const char *path = getenv ("PATH");
  char *list = t_str ("%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
  char *save = NULL;

  for (char *dir = strtok_r (list, ":", &save); dir != NULL;
       dir = strtok_r (NULL, ":", &save)) {
    char *file = t_str ("%s/%s", dir, name);

    if (access (file, X_OK) == 0)
      return file;
  }
  return NULL;
}

const char *
t_need_tool (const char *name)
{
  const char *r = t_find_tool (name);

  if (r == NULL)
    t_skip ("the program %s is missing", name);
  return r;
}

/*---- Child processes ----*/

static void
redirect (const char *path, int flags, int fd)
{
  int opened;

  if (path == NULL)
    return;
  opened = open (path, flags | O_CLOEXEC, 0600);
  if (opened == -1 || dup2 (opened, fd) == -1)
    _exit (126);
}

static void
child_main (char *const argv[], const struct t_spawn *how, pid_t parent)
{
  sigset_t none;

  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  signal (SIGPIPE, SIG_DFL);
  prctl (PR_SET_PDEATHSIG, SIGTERM);
  if (getppid () != parent)
    _exit (126);
  redirect (how->stdin_from ? how->stdin_from : "/dev/null", O_RDONLY, 0);
  redirect (how->stdout_to, O_WRONLY | O_CREAT | O_APPEND, 1);
  redirect (how->stderr_to, O_WRONLY | O_CREAT | O_APPEND, 2);
  if (how->preload && *how->preload)
    setenv ("LD_PRELOAD", how->preload, 1);
  execvp (argv[0], argv);
  fprintf (stderr, "%s: %m\n", argv[0]);
  _exit (127);
}

pid_t
t_spawn (char *const argv[], const struct t_spawn *how)
{
  static const struct t_spawn plain;
  const pid_t parent = getpid ();
  struct janitor_item item = { 0 };
  pid_t pid;

  fflush (NULL);
  pid = fork ();
  if (pid == -1)
    T_FAIL ("fork: %m");
  if (pid == 0)
    child_main (argv, how ? how : &plain, parent);
  item.pid = pid;
  janitor_tell (&item);
  return pid;
}

bool
t_has_ended (pid_t pid)
{
  siginfo_t info = { 0 };

  if (waitid (P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == -1)
    T_FAIL ("waitid %d: %m", (int) pid);
  return info.si_pid == pid;
}

static bool
has_ended (void *pid)
{
  return t_has_ended (*(pid_t *) pid);
}

int
t_reap (pid_t pid, unsigned limit_ms)
{
  int status;

  if (!t_wait_for (has_ended, &pid, limit_ms))
    T_FAIL ("process %d did not end within %u ms", (int) pid,
            limit_ms * t_scale ());
  if (waitpid (pid, &status, 0) != pid)
    T_FAIL ("waitpid %d: %m", (int) pid);
  return status;
}

/* Threads that are named like the program. */
static unsigned
nr_nbdkit_threads (pid_t pid)
{
  char *tasks = t_str ("/proc/%d/task", (int) pid);
  DIR *dir = opendir (tasks);
  struct dirent *d;
  unsigned nr = 0;

  if (dir == NULL)
    return 0;
  while ((d = readdir (dir)) != NULL)
    if (d->d_name[0] != '.' &&
        strcmp (t_read_file (t_str ("%s/%s/comm", tasks, d->d_name)),
                "nbdkit\n") == 0)
      nr++;
  closedir (dir);
  return nr;
}

struct idle {
  pid_t pid;
  uint64_t since_ms;            /* since when it looks idle; 0: it does not */
};

/* nbdkit has its main thread and, for each client, more of the same name; a
 * library may have one for itself, so two must be two for a while.
 */
static bool
nbdkit_is_idle (void *arg)
{
  struct idle *idle = arg;
  const unsigned nr = nr_nbdkit_threads (idle->pid);

  if (nr > 2)
    idle->since_ms = 0;
  else if (idle->since_ms == 0)
    idle->since_ms = t_now_ms ();
  return nr <= 1 || (nr == 2 && t_now_ms () - idle->since_ms >= 20);
}

void
t_wait_for_idle_nbdkit (pid_t pid)
{
  struct idle idle = { .pid = pid };

  t_wait_for (nbdkit_is_idle, &idle, 500);
}

int
t_run (char *const argv[], const struct t_spawn *how)
{
  pid_t pid = t_spawn (argv, how);
  int status = t_reap (pid, 60000);

  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}

char *
t_run_output (char *const argv[], int *ret_status)
{
  static atomic_uint counter;
  char *file = t_path ("output.%u", counter++);
  const struct t_spawn how = { .stdout_to = file };
  char *r;

  *ret_status = t_run (argv, &how);
  r = t_read_file (file);
  unlink (file);
  return r;
}

const char *
t_status_text (int status)
{
  if (WIFEXITED (status))
    return t_str ("exit %d", WEXITSTATUS (status));
  if (WIFSIGNALED (status))
    return t_str ("signal %d (%s)", WTERMSIG (status),
                  strsignal (WTERMSIG (status)));
  return t_str ("status %#x", status);
}
