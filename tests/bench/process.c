/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "guard.h"
#include "process.h"

#define WAIT_S 20               /* more than any of them takes */

/* ------------------------------------------------------------- commands -- */

/* Where a name in braces begins at `at`: its value, and behind the brace. */
static const char *
value_of (const char *at, const struct process_value *values,
          const char **ret_behind)
{
  for (; values && values->name; values++) {
    size_t n = strlen (values->name);

    if (strncmp (at + 1, values->name, n) == 0 && at[n + 1] == '}') {
      *ret_behind = at + n + 2;
      return values->value;
    }
  }
  return NULL;
}

static char *
word_with_values (const char *word, size_t nr_chars,
                  const struct process_value *values)
{
  const char *end = word + nr_chars, *value;
  char text[8192];
  size_t n = 0;

  while (word < end) {
    value = word[0] == '{' ? value_of (word, values, &word) : NULL;
    if (value)
      n += (size_t) snprintf (text + n, sizeof text - n, "%s", value);
    else
      text[n++] = *word++;
    if (n >= sizeof text - 1)
      bench_fail ("a command is too long");
  }
  text[n] = '\0';
  return strdup (text);
}

char **
process_words (const char *command, const struct process_value *values)
{
  static char *words[PROCESS_WORDS_MAX + 1];
  unsigned nr = 0;

  for (unsigned i = 0; words[i]; i++)
    free (words[i]);
  for (command += strspn (command, " "); *command;
       command += strspn (command, " ")) {
    size_t n = strcspn (command, " ");

    if (nr == PROCESS_WORDS_MAX)
      bench_fail ("a command is too long");
    words[nr++] = word_with_values (command, n, values);
    command += n;
  }
  words[nr] = NULL;
  return words;
}

/* Those in sbin, too: nbd-server may be there. */
static void
extend_path (void)
{
  const char *path = getenv ("PATH");
  char text[8192];

  if (path && strstr (path, ":/usr/sbin:/sbin"))
    return;
  snprintf (text, sizeof text, "%s:/usr/sbin:/sbin", path ? path : "/bin");
  setenv ("PATH", text, 1);
}

void
process_need (const char *program, const char *package)
{
  char dirs[8192], path[8448], *save = NULL;

  extend_path ();
  snprintf (dirs, sizeof dirs, "%s", getenv ("PATH"));
  for (char *dir = strtok_r (dirs, ":", &save); dir;
       dir = strtok_r (NULL, ":", &save)) {
    snprintf (path, sizeof path, "%s/%s", dir, program);
    if (access (path, X_OK) == 0)
      return;
  }
  bench_fail ("%s is not installed: it is in the Debian package %s; or leave "
              "out what needs it (--help)", program, package);
}

/* ------------------------------------------------------------ processes -- */

static void
become (char **words, int out)
{
  int in = open ("/dev/null", O_RDONLY | O_CLOEXEC);

  if (in != -1)
    dup2 (in, STDIN_FILENO);
  dup2 (out, STDOUT_FILENO);
  execvp (words[0], words);
  fprintf (stderr, "%s: %s\n", words[0], strerror (errno));
  _exit (127);
}

void
process_start (struct process *p, const char *name, const char *log,
               char **words)
{
  int self = getpid ();
  int out = open (log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  if (out == -1)
    bench_fail ("%s: %s", log, strerror (errno));
  snprintf (p->name, sizeof p->name, "%s", name);
  snprintf (p->log, sizeof p->log, "%s", log);
  fflush (stdout);
  p->pid = fork ();
  if (p->pid == -1)
    bench_fail ("cannot fork");
  if (p->pid == 0) {
    guard_die_with_parent (self);
    dup2 (out, STDERR_FILENO);
    become (words, out);
  }
  close (out);
}

void
process_fail (struct process *p, const char *fmt, ...)
{
  FILE *f = fopen (p->log, "re");
  char line[1024], why[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (why, sizeof why, fmt, args);
  va_end (args);

  fflush (stdout);
  while (f && fgets (line, sizeof line, f))
    fprintf (stderr, "  %s: %s", p->name, line);
  if (f)
    fclose (f);
  bench_fail ("%s: %s", p->name, why);
}

static void
describe_end (int status, char *ret, size_t size)
{
  if (WIFSIGNALED (status))
    snprintf (ret, size, "was ended by %s", strsignal (WTERMSIG (status)));
  else
    snprintf (ret, size, "has ended, with status %d", WEXITSTATUS (status));
}

void
process_check (struct process *p)
{
  char why[128];
  int status;

  if (waitpid (p->pid, &status, WNOHANG) != p->pid)
    return;
  p->pid = 0;
  describe_end (status, why, sizeof why);
  process_fail (p, "%s", why);
}

static void
pause_1_ms (void)
{
  nanosleep (&(struct timespec) { .tv_nsec = 1000000 }, NULL);
}

void
process_await_end (struct process *p)
{
  double until = bench_now_s () + WAIT_S;
  char why[128];
  int status;

  while (waitpid (p->pid, &status, WNOHANG) == 0) {
    if (bench_now_s () > until)
      process_fail (p, "does not end");
    pause_1_ms ();
  }
  p->pid = 0;
  describe_end (status, why, sizeof why);
  if (WIFSIGNALED (status) ? WTERMSIG (status) != SIGTERM
      : WEXITSTATUS (status) != 0)
    process_fail (p, "%s", why);
}

void
process_stop (struct process *p)
{
  process_check (p);
  kill (p->pid, SIGTERM);
  process_await_end (p);
}

static bool
has_answer (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

  snprintf (addr.sun_path, sizeof addr.sun_path, "%s", path);
  r = connect (fd, (struct sockaddr *) &addr, sizeof addr);
  close (fd);
  return r == 0;
}

static bool
has_file (const char *path)
{
  struct stat st;

  return stat (path, &st) == 0 && st.st_size > 0;
}

static void
await_path (struct process *p, bool (*fn) (const char *path), const char *path)
{
  double until = bench_now_s () + WAIT_S;

  while (!fn (path)) {
    if (p->pid)
      process_check (p);
    if (bench_now_s () > until)
      process_fail (p, "does not begin");
    pause_1_ms ();
  }
}

void
process_await_socket (struct process *p, const char *path)
{
  await_path (p, has_answer, path);
}

void
process_await_file (struct process *p, const char *path)
{
  await_path (p, has_file, path);
}

static pid_t
read_number (struct process *p, const char *pid_file)
{
  FILE *f = fopen (pid_file, "re");
  int pid;

  if (f == NULL || fscanf (f, "%d", &pid) != 1)
    process_fail (p, "%s: no number", pid_file);
  fclose (f);
  return pid;
}

/* It is this process's child (PR_SET_CHILD_SUBREAPER, guard.c), as soon as its
 * parent has ended.
 */
void
process_follow_daemon (struct process *p, const char *pid_file)
{
  process_await_end (p);
  await_path (p, has_file, pid_file);
  p->pid = read_number (p, pid_file);
}

void
process_stop_below (struct process *p, const char *pid_file)
{
  process_check (p);
  kill (read_number (p, pid_file), SIGTERM);
  process_await_end (p);
}

static char *
read_all (int fd)
{
  size_t n = 0, room = 1 << 20;
  char *text = malloc (room);
  ssize_t r;

  while (text && n < room - 1 && (r = read (fd, text + n, room - 1 - n)) > 0)
    n += (size_t) r;
  if (text == NULL)
    bench_fail ("no memory");
  text[n] = '\0';
  return text;
}

char *
process_output (char **words)
{
  int ends[2], status, self = getpid ();
  char *text;
  pid_t pid;

  fflush (stdout);
  if (pipe2 (ends, O_CLOEXEC) == -1 || (pid = fork ()) == -1)
    bench_fail ("cannot fork");
  if (pid == 0) {
    guard_die_with_parent (self);
    become (words, ends[1]);
  }
  close (ends[1]);
  text = read_all (ends[0]);
  close (ends[0]);
  while (waitpid (pid, &status, 0) == -1)
    if (errno != EINTR)
      bench_fail ("cannot wait for %s", words[0]);
  if (status != 0)
    bench_fail ("%s has failed: %s", words[0], text);
  return text;
}
