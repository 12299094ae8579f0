/* SPDX-License-Identifier: BSD-3-Clause */
/* The way to the disk is encrypted, with keys that both sides have; whoever
 * does not have the key is not let in.
 */

#include <config.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static bool
have_tls (void)
{
  char *const argv[] = { "nbdkit", "--dump-config", NULL };
  struct nbd_handle *h = nbd_create ();
  int status;
  bool has = nbd_supports_tls (h) == 1 &&
    strstr (t_run_output (argv, &status), "\ntls=yes") != NULL;

  nbd_close (h);
  return has;
}

static char *
key_file (const char *name, const char *content)
{
  char *path = t_path ("%s", name);

  t_write_file (path, content);
  chmod (path, 0600);
  return path;
}

static char *
tls_uri (const struct t_fault *f, const char *user, const char *key)
{
  return t_str ("nbds+unix://%s@/?socket=%s&tls-psk-file=%s", user, f->socket,
                key);
}

static void
check_line (const char *line, const char *name)
{
  if (strstr (line, name) == NULL)
    T_FAIL ("the line does not name \"%s\": %s", name, line);
}

static void
test_served (struct t_fault *f, const char *uri)
{
  struct t_server *s = t_server_start ("backing=%s spare=%s control=%s", uri,
                                       t_path ("store"), t_path ("ctl"));
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("served");
  T_OK (t_nbd_put (h, 990, 2048, 2));
  t_nbd_expect (h, 990, 2048, 2);
  T_ASSERT (t_ctl_count (t_path ("ctl"), "remapped") == 4);

  t_part ("the server is killed");
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_fault_restart (f);
  t_nbd_expect (h, 990, 2048, 2);
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_server_has_said (s, "is back"));
  T_ASSERT (!t_server_has_said (s, KEY));
  T_ASSERT (t_ctl_count (t_path ("ctl"), "remapped") == 4);
  t_nbd_close (h);
  t_server_stop (s);
}

int
main (void)
{
  struct t_fault_options options = {
    .faults = "write 1000-1003\n", .volatile_cache = true,
  };
  char *key, *other, *image, *store;
  struct t_fault *f, *plain;

  t_begin ("test-nbd-tls", 40);
  t_need_tool ("nbdkit");
  if (!have_tls ())
    t_skip ("TLS in nbdkit or libnbd");
  image = t_path ("image");
  store = t_path ("store-2");
  t_image_create (image, 8 << 20, 1);
  key = key_file ("key", "alice:" KEY "\n");
  other = key_file ("other", "alice:00" KEY "\n");
  options.nbdkit = t_str ("--tls=require --tls-psk=%s", key);
  f = t_fault_start_with (image, &options);
  plain = t_fault_start (image, "", false);
  test_served (f, tls_uri (f, "alice", key));

  t_part ("not let in");
  check_line (t_server_refusal ("backing=%s spare=%s", f->uri, store),
              f->socket);
  check_line (t_server_refusal ("backing=%s spare=%s",
                                tls_uri (f, "alice", other), store), "TLS");
  check_line (t_server_refusal ("backing=%s spare=%s",
                                tls_uri (f, "bob", key), store), "bob");
  check_line (t_server_refusal ("backing=%s spare=%s",
                                tls_uri (plain, "alice", key), store), "TLS");
  check_line (t_server_refusal ("backing=%s spare=%s",
                                tls_uri (f, "alice", t_path ("no-key")),
                                store), "cannot connect");
  check_line (t_server_refusal ("backing=nbds://alice:%s@host/ spare=%s", KEY,
                                store), "no password");
  T_ASSERT (access (store, F_OK) == -1);
  t_fault_stop (plain);
  t_fault_stop (f);
  return t_end ();
}
