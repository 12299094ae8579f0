/* SPDX-License-Identifier: BSD-3-Clause */
/* t_ctl: remapctl, and the control socket itself. */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "t_base.h"
#include "t_ctl.h"
#include "t_wait.h"

int
t_ctl (const char *command, const char *disk, char **ret_output)
{
  char *argv[] = {
    t_remapctl (), (char *) command, (char *) disk, NULL
  };
  int status;

  *ret_output = t_run_output (argv, &status);
  return status;
}

int
t_ctl_run (const char *words, char **ret_output, char **ret_error)
{
  static unsigned counter;
  char *output = t_path ("ctl.%u.out", counter);
  char *error = t_path ("ctl.%u.err", counter++);
  const struct t_spawn how = { .stdout_to = output, .stderr_to = error };
  char *argv[16] = { t_remapctl () }, *save = NULL;
  size_t n = 1;
  int status;

  for (char *word = strtok_r (t_str ("%s", words), " ", &save);
       word != NULL && n < sizeof argv / sizeof argv[0] - 1;
       word = strtok_r (NULL, " ", &save))
    argv[n++] = word;
  status = t_run (argv, &how);
  *ret_output = t_read_file (output);
  if (ret_error)
    *ret_error = t_read_file (error);
  unlink (output);
  unlink (error);
  return status;
}

json_t *
t_ctl_json (const char *command, const char *disk)
{
  char *argv[] = {
    t_remapctl (), (char *) command, "--json", (char *) disk, NULL
  };
  json_error_t error;
  json_t *r;
  int status;
  char *text = t_run_output (argv, &status);

  if (status != 0)
    T_FAIL ("remapctl %s --json %s: exit status %d", command, disk, status);
  r = json_loads (text, 0, &error);
  if (r == NULL)
    T_FAIL ("remapctl %s --json %s: %s in: %s", command, disk, error.text,
            text);
  return r;
}

/* Call with each listed range; stop when visit returns true. */
static void
visit_list (const char *disk, bool (*visit) (uint64_t lba, uint64_t count,
                                             const char *state, void *arg),
            void *arg)
{
  json_t *root = t_ctl_json ("list", disk), *range;
  json_t *sectors = json_object_get (root, "sectors");
  size_t i;

  if (!json_is_array (sectors))
    T_FAIL ("remapctl list --json %s: no array \"sectors\"", disk);
  json_array_foreach (sectors, i, range) {
    json_int_t lba, count;
    const char *state;

    if (json_unpack (range, "{s:I,s:I,s:s}", "lba", &lba, "count", &count,
                     "state", &state) == -1)
      T_FAIL ("remapctl list --json %s: not as documented: %s", disk,
              json_dumps (range, 0));
    if (visit (lba, count, state, arg))
      break;
  }
  json_decref (root);
}

struct search {
  const char *state;
  uint64_t lba, nr;
};

static bool
add_up (uint64_t lba, uint64_t count, const char *state, void *arg)
{
  struct search *s = arg;

  (void) lba;
  if (strcmp (state, s->state) == 0)
    s->nr += count;
  return false;
}

uint64_t
t_ctl_count (const char *disk, const char *state)
{
  struct search s = { .state = state };

  visit_list (disk, add_up, &s);
  return s.nr;
}

static bool
find_lba (uint64_t lba, uint64_t count, const char *state, void *arg)
{
  struct search *s = arg;

  if (s->lba < lba || s->lba >= lba + count)
    return false;
  s->state = t_str ("%s", state);
  return true;
}

const char *
t_ctl_state_of (const char *disk, uint64_t lba)
{
  struct search s = { .state = "", .lba = lba };

  visit_list (disk, find_lba, &s);
  return s.state;
}

int64_t
t_ctl_status (const char *disk, const char *path)
{
  json_t *root = t_ctl_json ("status", disk), *value = root;
  char *save = NULL;
  int64_t r;

  for (char *key = strtok_r (t_str ("%s", path), ".", &save); key != NULL;
       key = strtok_r (NULL, ".", &save))
    value = json_object_get (value, key);
  if (!json_is_integer (value))
    T_FAIL ("remapctl status --json %s: no number \"%s\"", disk, path);
  r = json_integer_value (value);
  json_decref (root);
  return r;
}

void
t_ctl_check (const char *store)
{
  char *output;
  int status = t_ctl ("check", store, &output);

  if (status != 0)
    T_FAIL ("remapctl check %s: exit status %d: %s", store, status, output);
}

int
t_control_connect (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (fd == -1 || strlen (path) >= sizeof addr.sun_path)
    T_FAIL ("%s: %m", path);
  strcpy (addr.sun_path, path);
  if (connect (fd, (struct sockaddr *) &addr, sizeof addr) == -1) {
    close (fd);
    return -1;
  }
  return fd;
}

void
t_control_send (int fd, const void *data, size_t count)
{
  const char *p = data;

  while (count > 0) {
    ssize_t n = send (fd, p, count, MSG_NOSIGNAL);

    if (n == -1)                /* the server has had enough: see the answer */
      return;
    p += n;
    count -= n;
  }
}

/* One byte, or -1 where the server closed the connection. */
static int
next_byte (int fd, uint64_t deadline)
{
  struct pollfd pfd = { .fd = fd, .events = POLLIN };
  const uint64_t now = t_now_ms ();
  unsigned char c;

  if (now > deadline || poll (&pfd, 1, deadline - now) == 0)
    T_FAIL ("no answer on the control socket");
  return recv (fd, &c, 1, 0) == 1 ? c : -1;
}

char *
t_control_line (int fd, unsigned limit_ms)
{
  const uint64_t deadline = t_now_ms () + (uint64_t) limit_ms * t_scale ();
  char *line = NULL, *r;
  size_t size = 0;
  FILE *fp = open_memstream (&line, &size);
  int c;

  if (fp == NULL)
    T_FAIL ("out of memory");
  while ((c = next_byte (fd, deadline)) != -1 && c != '\n')
    putc (c, fp);
  fclose (fp);
  r = c == -1 && size == 0 ? NULL : t_str ("%s", line);
  free (line);
  return r;
}

json_t *
t_control_answer (int fd)
{
  char *line = t_control_line (fd, 10000);
  json_error_t error;
  json_t *r;

  if (line == NULL)
    T_FAIL ("the server closed the control connection");
  r = json_loads (line, 0, &error);
  if (r == NULL)
    T_FAIL ("not JSON: %s: %s", error.text, line);
  return r;
}
