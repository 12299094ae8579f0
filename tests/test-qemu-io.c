/* SPDX-License-Identifier: BSD-3-Clause */
/* qemu-io as the client, on a disk with bad sectors: it writes, zeroes,
 * discards, flushes and verifies patterns across them, aligned and not.
 */

#include <config.h>

#include <string.h>

#include "t_base.h"
#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_server.h"

enum { MAX_COMMANDS = 20 };

/* Run these commands (ended by NULL); returns what qemu-io printed. */
static char *
qemu_io (struct t_server *s, const char *const *commands)
{
  char *argv[5 + 2 * MAX_COMMANDS] = {
    (char *) t_need_tool ("qemu-io"), "-f", "raw"
  };
  size_t n = 3;
  int status;
  char *output;

  for (; *commands != NULL; commands++) {
    argv[n++] = "-c";
    argv[n++] = (char *) *commands;
  }
  argv[n++] = t_str ("nbd+unix:///?socket=%s", s->socket);
  output = t_run_output (argv, &status);
  if (status != 0 || strstr (output, "failed"))
    T_FAIL ("qemu-io: exit status %d: %s", status, output);
  return output;
}

static void
test (enum t_disk_kind kind)
{
  static const char *const write_and_verify[] = {
    "write -P 0x11 480k 64k", "read -P 0x11 480k 64k",
    "write -P 0x22 512100 999", "read -P 0x22 512100 999",
    "read -P 0x11 480k 20580", "flush",
    "write -z 508k 8k", "read -P 0 508k 8k",
    "write -P 0x33 508k 4k", "read -P 0x33 508k 4k",
    "discard 496k 4k", "write -f -P 0x44 496k 8k", "read -P 0x44 496k 8k",
    NULL
  };
  static const char *const verify[] = {
    "read -P 0x11 480k 16k", "read -P 0x44 496k 8k", "read -P 0x33 508k 4k",
    "read -P 0 512k 4k", "read -P 0x11 516k 28k", NULL
  };
  const struct t_disk_options options = {
    .gen = 1, .faults = "both 1000-1001\nwrite 1016-1023\nboth 0\n",
  };
  struct t_disk *d = t_disk_new (kind, 8 << 20, &options);
  struct t_server *s = t_server_start ("%s", t_disk_params (d));

  qemu_io (s, write_and_verify);
  qemu_io (s, verify);
  T_ASSERT (t_ctl_count (d->store, "remapped") >= 2);
  t_server_kill (s);
  t_server_restart (s);
  qemu_io (s, verify);
  t_server_stop (s);
  t_ctl_check (d->store);
  t_disk_free (d);
}

int
main (void)
{
  t_begin ("test-qemu-io", 30);
  t_need_tool ("qemu-io");
  t_disk_each (t_disk_failing_kinds, test);
  return t_end ();
}
