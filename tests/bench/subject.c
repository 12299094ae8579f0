/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "bench.h"
#include "subject.h"

#define PLUGIN BENCH_BUILDDIR "/remap.so"
#define OURS "nbdkit -f -P {pid} -U {socket} {plugin} backing={image} " \
  "spare={store} control=off "
#define QEMU "qemu-nbd -t -e 64 -x disk -f raw -k {socket} {image} "

const struct subject subjects_known[] = {
  { "remap", OURS "direct=auto", "nbdkit", false, false },
  { "remap-buffered", OURS "direct=off", "nbdkit", true, false },
  { "file", "nbdkit -f -U {socket} file {image}", "nbdkit", true, false },
  { "file-nocache", "nbdkit -f -U {socket} file {image} cache=none", "nbdkit",
    false, false },
  { "null", "nbdkit -f -U {socket} null {size}", "nbdkit", false, false },
  { "qemu-threads", QEMU "--cache=none --aio=threads", "qemu-utils", false,
    true },
  { "qemu-native", QEMU "--cache=none --aio=native", "qemu-utils", false,
    true },
  { "qemu-io_uring", QEMU "--cache=none --aio=io_uring", "qemu-utils", false,
    true },
  { "qemu-writeback", QEMU "--cache=writeback", "qemu-utils", true, false },
  { "nbd-server", "nbd-server -C {config} -p {daemon}", "nbd-server", true,
    false },
  { .name = NULL },
};

const struct subject *
subject_find (const char *name)
{
  for (const struct subject *s = subjects_known; s->name; s++)
    if (strcmp (s->name, name) == 0)
      return s;
  return NULL;
}

const struct subject *
subject_of_command (const char *text)
{
  const char *equals = strchr (text, '=');
  struct subject *s = calloc (1, sizeof *s);

  if (s == NULL || equals == NULL || equals == text)
    bench_fail ("--subject=%s: it is NAME=COMMAND", text);
  s->name = strndup (text, (size_t) (equals - text));
  s->command = equals + 1;
  s->package = "that has it";
  if (s->name == NULL || subject_find (s->name))
    bench_fail ("--subject: there is a subject %s already", s->name);
  return s;
}

/* -------------------------------------------------------------- servers -- */

/* On the socket alone: without "duallisten" there is no port then. */
static void
write_config (const char *path, const char *socket, const struct image *image)
{
  FILE *f = fopen (path, "we");

  if (f == NULL ||
      fprintf (f, "[generic]\nunixsock = %s\nallowlist = false\n"
               "[disk]\nexportname = %s\nflush = true\nfua = true\n", socket,
               image->path) < 0 || fclose (f) == EOF)
    bench_fail ("%s: %s", path, strerror (errno));
}

void
server_start_under (struct server *server, const struct subject *subject,
                    const struct image *image, const char *prefix)
{
  char size[32], config[4200], log[4200], command[8192];
  const struct process_value values[] = {
    { "socket", server->socket }, { "image", image->path },
    { "store", image->store }, { "size", size }, { "plugin", PLUGIN },
    { "config", config }, { "pid", server->pid_file },
    { "daemon", server->pid_file }, { NULL, NULL },
  };

  snprintf (server->socket, sizeof server->socket, "%s/socket", image->dir);
  snprintf (server->uri, sizeof server->uri, "nbd+unix:///disk?socket=%s",
            server->socket);
  snprintf (size, sizeof size, "%llu", (unsigned long long) image->size_bytes);
  snprintf (config, sizeof config, "%s/nbd-server.conf", image->dir);
  snprintf (log, sizeof log, "%s/server.log", image->dir);
  snprintf (server->pid_file, sizeof server->pid_file, "%s/server.pid",
            image->dir);
  snprintf (command, sizeof command, "%s%s", prefix, subject->command);
  if (strstr (command, "{config}"))
    write_config (config, server->socket, image);
  unlink (server->socket);
  unlink (server->pid_file);
  process_start (&server->process, subject->name, log,
                 process_words (command, values));
  if (strstr (command, "{daemon}"))
    process_follow_daemon (&server->process, server->pid_file);
  process_await_socket (&server->process, server->socket);
}

void
server_start (struct server *server, const struct subject *subject,
              const struct image *image)
{
  server_start_under (server, subject, image, "");
}

void
server_stop (struct server *server)
{
  process_stop (&server->process);
  unlink (server->socket);
}

void
server_stop_under (struct server *server)
{
  process_stop_below (&server->process, server->pid_file);
  unlink (server->socket);
}

/* ------------------------------------------------------------- versions -- */

static void
describe_program (const char *program, const char *option)
{
  char command[128], *text;

  snprintf (command, sizeof command, "%s %s", program, option);
  text = process_output (process_words (command, NULL));
  text[strcspn (text, "\n")] = '\0';
  bench_describe (program, text);
  free (text);
}

/* libnbd is in this process. */
static void
describe_libnbd (void)
{
  struct nbd_handle *nbd = nbd_create ();

  if (nbd == NULL)
    bench_fail ("%s", nbd_get_error ());
  bench_describe ("libnbd", nbd_get_version (nbd));
  nbd_close (nbd);
}

void
subjects_describe (const struct subject *const *subjects, unsigned nr_subjects)
{
  static const struct { const char *program, *option; } programs[] = {
    { "nbdkit", "--version" }, { "qemu-nbd", "--version" },
    { "nbd-server", "-V" },
  };

  for (unsigned i = 0; i < nr_subjects; i++) {
    char **words = process_words (subjects[i]->command, NULL);

    process_need (words[0], subjects[i]->package);
  }
  describe_libnbd ();
  for (unsigned k = 0; k < sizeof programs / sizeof programs[0]; k++)
    for (unsigned i = 0; i < nr_subjects; i++) {
      size_t n = strlen (programs[k].program);

      if (strncmp (subjects[i]->command, programs[k].program, n) == 0) {
        describe_program (programs[k].program, programs[k].option);
        break;
      }
    }
}
