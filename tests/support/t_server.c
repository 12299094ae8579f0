/* SPDX-License-Identifier: BSD-3-Clause */
/* t_server: the server under test, nbdkit with the plugin. */

#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t_base.h"
#include "t_server.h"
#include "t_wait.h"

enum { MAX_ARGS = 60, LOG_SHOWN_BYTES = 6000 };

static struct t_server *all_servers;

/* What no server may ever write. */
static const char *const reports[] = {
  "ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "LeakSanitizer",
  "FATAL: ThreadSanitizer", "runtime error:", "Assertion `", "Invalid read of",
  "Invalid write of", "uninitialised value",
};

static void
show_logs (void)
{
  for (struct t_server *s = all_servers; s != NULL; s = s->next) {
    char *text = t_read_file (s->log);
    size_t n = strlen (text);

    fprintf (stderr, "--- the log of nbdkit %s:\n%s", s->params,
             n > LOG_SHOWN_BYTES ? text + n - LOG_SHOWN_BYTES : text);
  }
}

static void
check_reports (const struct t_server *s)
{
  const char *text = t_read_file (s->log);

  for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++)
    if (strstr (text, reports[i]))
      T_FAIL ("the server's log has: %s", reports[i]);
}

/* Append the words of text, which stays in use. */
static size_t
append_words (char **argv, size_t n, const char *text)
{
  char *save = NULL;

  for (char *word = strtok_r (t_str ("%s", text), " ", &save); word != NULL;
       word = strtok_r (NULL, " ", &save)) {
    if (n >= MAX_ARGS)
      T_FAIL ("too many parameters: %s", text);
    argv[n++] = word;
  }
  return n;
}

/* Valgrind, where asked for, then nbdkit; params is for the plugin. */
static void
make_argv (char **argv, const struct t_server *s, bool foreground)
{
  const char *nbdkit = getenv ("NBDKIT");
  const char *valgrind = getenv ("REMAP_TEST_VALGRIND");
  size_t n = 0;

  if (valgrind && strcmp (valgrind, "1") == 0)
    valgrind = "valgrind --quiet --error-exitcode=119 --vgdb=no";
  if (valgrind && *valgrind)
    n = append_words (argv, n, valgrind);
  argv[n++] = nbdkit && *nbdkit ? (char *) nbdkit : "nbdkit";
  if (foreground)
    argv[n++] = "-f";
  argv[n++] = "-U";
  argv[n++] = s->socket;
  argv[n++] = "-P";
  argv[n++] = s->pid_file;
  argv[n++] = t_plugin ();
  n = append_words (argv, n, s->params);
  argv[n] = NULL;
}

static pid_t
spawn_server (struct t_server *s, bool foreground)
{
  static unsigned counter;
  char *argv[MAX_ARGS + 20];
  const struct t_spawn how = {
    .stderr_to = s->log = t_path ("server-%u.log", counter++),
    .preload = getenv ("REMAP_TEST_PRELOAD"),
  };

  unlink (s->socket);
  unlink (s->pid_file);
  make_argv (argv, s, foreground);
  return t_spawn (argv, &how);
}

static struct t_server *
new_server (char *params)
{
  static unsigned counter;
  const unsigned n = counter++;
  struct t_server *s = calloc (1, sizeof *s);

  if (s == NULL)
    T_FAIL ("out of memory");
  t_need_tool ("nbdkit");
  if (strchr (t_plugin (), '/') && access (t_plugin (), R_OK) == -1)
    T_FAIL ("%s: %m (is it built?)", t_plugin ());
  s->params = params;
  s->socket = t_path ("server-%u.sock", n);
  s->pid_file = t_path ("server-%u.pid", n);
  s->next = all_servers;
  all_servers = s;
  t_on_fail (show_logs);
  return s;
}

static char *
format_params (const char *fmt, va_list args)
{
  char *text, *r;

  if (vasprintf (&text, fmt, args) == -1)
    T_FAIL ("out of memory");
  r = t_str ("%s", text);
  free (text);
  return r;
}

static bool
is_ready (void *arg)
{
  struct t_server *s = arg;

  if (t_has_ended (s->pid))
    T_FAIL ("the server did not start: nbdkit %s: %s", s->params,
            t_status_text (t_reap (s->pid, 0)));
  return t_file_is_filled (s->pid_file);
}

void
t_server_restart (struct t_server *s)
{
  if (s->pid != 0)
    T_FAIL ("the server is still running");
  s->pid = spawn_server (s, true);
  t_wait_until (is_ready, s, 20000, "the server's start");
  t_check_installed (s->pid);
}

struct t_server *
t_server_start (const char *fmt, ...)
{
  struct t_server *s;
  va_list args;

  va_start (args, fmt);
  s = new_server (format_params (fmt, args));
  va_end (args);
  t_server_restart (s);
  return s;
}

void
t_server_restart_with (struct t_server *s, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  s->params = format_params (fmt, args);
  va_end (args);
  t_server_restart (s);
}

bool
t_server_is_alive (const struct t_server *s)
{
  return s->pid != 0 && !t_has_ended (s->pid);
}

/* Reap it, and check how it ended. */
static void
reap_server (struct t_server *s, int sig)
{
  int status = t_reap (s->pid, 20000);

  s->pid = 0;
  check_reports (s);
  if (sig == SIGKILL
      ? !WIFSIGNALED (status) || WTERMSIG (status) != SIGKILL
      : !WIFEXITED (status) || WEXITSTATUS (status) != 0)
    T_FAIL ("the server was sent signal %d and ended with %s", sig,
            t_status_text (status));
}

static void
end_server (struct t_server *s, int sig)
{
  if (!t_server_is_alive (s))
    T_FAIL ("the server has died by itself: %s",
            t_status_text (t_reap (s->pid, 0)));
  kill (s->pid, sig);
  reap_server (s, sig);
}

void
t_server_kill (struct t_server *s)
{
  end_server (s, SIGKILL);
}

void
t_server_was_killed (struct t_server *s)
{
  reap_server (s, SIGKILL);
}

void
t_server_stop (struct t_server *s)
{
  t_wait_for_idle_nbdkit (s->pid);
  end_server (s, SIGTERM);
}

bool
t_server_has_said (const struct t_server *s, const char *text)
{
  return strstr (t_read_file (s->log), text) != NULL;
}

/* A server that should have refused runs in the background: end it. */
static void
end_unwanted_server (const struct t_server *s)
{
  const int pid = atoi (t_read_file (s->pid_file));

  if (pid > 1)
    kill (pid, SIGKILL);
}

char *
t_server_refusal (const char *fmt, ...)
{
  struct t_server *s;
  char *said, *end;
  va_list args;
  int status;

  va_start (args, fmt);
  s = new_server (format_params (fmt, args));
  va_end (args);
  status = t_reap (spawn_server (s, false), 20000);
  said = t_read_file (s->log);
  check_reports (s);
  if (!WIFEXITED (status) || WEXITSTATUS (status) != 1) {
    end_unwanted_server (s);
    T_FAIL ("nbdkit %s: %s, but should have refused with status 1", s->params,
            t_status_text (status));
  }
  end = strchr (said, '\n');
  if (end == NULL || end == said || end[1] != '\0')
    T_FAIL ("nbdkit %s: refused with more or less than one line", s->params);
  *end = '\0';
  return said;
}
