/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "nbd-uri.h"

START_TEST (paths_are_no_uris)
{
  static const char *const paths[] = {
    "", "/dev/sda", "disk.img", "a/b://c", "://x", "nbd:/x", "nbd", "./nbd://x",
  };

  ck_assert (!nbd_uri_is_one (paths[_i]));
}
END_TEST

START_TEST (uris_are_known)
{
  static const char *const uris[] = {
    "nbd://host", "nbds://host:1/x", "nbd+unix:///?socket=/s", "http://x",
    "nbds+vsock://3",
  };

  ck_assert (nbd_uri_is_one (uris[_i]));
}
END_TEST

/* FOLDER stands for where the test runs, as a URI has it. */
static const struct { const char *uri, *absolute; } paths[] = {
  { "nbd://host", NULL },
  { "nbd://[::1]:10810/a/b", NULL },
  { "nbd+unix:///?socket=/run/s", NULL },
  { "nbd+unix:///?socket=%2Frun/s", NULL },
  { "nbds://h/?tls-psk-file=/k&tls-certificates=/c", NULL },
  { "nbd://h/?socket", NULL },
  { "nbd+unix:///?socket=s", "nbd+unix:///?socket=FOLDER/s" },
  { "nbd+unix:///x?socket=d/s&a=b", "nbd+unix:///x?socket=FOLDER/d/s&a=b" },
  { "nbds://u@h/?tls-psk-file=k;tls-certificates=c#f",
    "nbds://u@h/?tls-psk-file=FOLDER/k;tls-certificates=FOLDER/c#f" },
  { "nbd://h/?notsocket=x&xsocket=y", NULL },
};

START_TEST (paths_become_absolute)
{
  const char *expected = paths[_i].absolute ? paths[_i].absolute
    : paths[_i].uri;
  char folder[] = "/tmp/remap uri.XXXXXX", encoded[100] = "", text[400] = "";
  char *absolute, *again;

  ck_assert_ptr_nonnull (mkdtemp (folder));
  ck_assert_int_eq (chdir (folder), 0);
  snprintf (encoded, sizeof encoded, "/tmp/remap%%20uri.%s",
            strrchr (folder, '.') + 1);
  for (const char *p = expected; *p; p++) {
    bool is_folder = strncmp (p, "FOLDER", 6) == 0;

    if (is_folder)
      strcat (text, encoded);
    else
      strncat (text, p, 1);
    p += is_folder ? 5 : 0;
  }
  absolute = nbd_uri_absolute (paths[_i].uri);
  ck_assert_str_eq (absolute, text);
  again = nbd_uri_absolute (absolute);
  ck_assert_str_eq (again, text);
  free (again);
  free (absolute);
  ck_assert_int_eq (rmdir (folder), 0);
}
END_TEST

START_TEST (wrong_ones_are_refused)
{
  static const char *const wrong[] = {
    "http://host", "nbd+tcp://host", "NBD://host", "nbd://u:secret@host",
    "nbds://:secret@host/?tls-psk-file=/k", "ftp://u:secret@host",
    "nbd://u:secret/1@host",
  };

  ck_assert_int_eq (nbd_uri_check_secrets (wrong[_i]),
                    strstr (wrong[_i], "secret") ? -1 : 0);
  ck_assert_ptr_null (nbd_uri_absolute (wrong[_i]));
  ck_assert_int_eq (errno, EINVAL);
  ck_assert_ptr_null (strstr (last_error_text (), "secret"));
}
END_TEST

static char *
id_of (const char *uri)
{
  char id[128];

  nbd_uri_id (uri, id, sizeof id);
  return strdup (id);
}

START_TEST (same_place_same_id)
{
  static const char *const pairs[][2] = {
    { "nbd://host", "nbd://host:10809/" },
    { "nbd://host/x", "nbds://user@host:10809/x?tls-psk-file=/k" },
    { "nbd://host/x%20y", "nbd://host/x y" },
    { "nbd+unix:///x?socket=/s", "nbds+unix:///x?tls-psk-file=/k&socket=%2fs" },
    { "nbd:///x", "nbd://localhost/x" },
    { "nbd+vsock:///", "nbd+vsock://2:10809" },
    { "nbd://Host.EXAMPLE/X", "nbd://host.example/X" },
    { "nbd://[FE80::A]", "nbd://[fe80::a]" },
    { "nbd+unix:///?socket=/tmp/../tmp//s", "nbd+unix:///?socket=/tmp/s" },
    { "nbd+unix:///?socket=/tmp/..//s", "nbd+unix:///?socket=/s" },
    { "nbd+unix:///?socket=/tmp/./no%20such/s",
      "nbd+unix:///?socket=/tmp/no such/s" },
  };
  char *a = id_of (pairs[_i][0]), *b = id_of (pairs[_i][1]);

  ck_assert_str_eq (a, b);
  free (a);
  free (b);
}
END_TEST

START_TEST (links_do_not_matter)
{
  char folder[] = "/tmp/remap-uri.XXXXXX", real[64], link[64], uri[128];
  char *a, *b;

  ck_assert_ptr_nonnull (mkdtemp (folder));
  snprintf (real, sizeof real, "%s/real", folder);
  snprintf (link, sizeof link, "%s/link", folder);
  ck_assert_int_eq (mkdir (real, 0700), 0);
  ck_assert_int_eq (symlink ("real", link), 0);
  snprintf (uri, sizeof uri, "nbd+unix:///x?socket=%s/s", real);
  a = id_of (uri);
  snprintf (uri, sizeof uri, "nbd+unix:///x?socket=%s/s", link);
  b = id_of (uri);
  ck_assert_str_eq (a, b);
  free (b);
  snprintf (uri, sizeof uri, "nbd+unix:///x?socket=%s/t", link);
  b = id_of (uri);
  ck_assert_str_ne (a, b);
  free (b);
  free (a);
  ck_assert_int_eq (unlink (link), 0);
  ck_assert_int_eq (rmdir (real), 0);
  ck_assert_int_eq (rmdir (folder), 0);
}
END_TEST

START_TEST (other_place_other_id)
{
  static const char *const uris[] = {
    "nbd://host", "nbd://host:1", "nbd://host/x", "nbd://host/X",
    "nbd://host/a_b", "nbd://host/a/b", "nbd://host2", "nbd://[::1]",
    "nbd+unix:///?socket=/s", "nbd+unix:///s?socket=/",
    "nbd+unix:///x?socket=/s", "nbd+vsock://3", "nbd://3", "nbd://host-1/x",
    "nbd://host:1/x",
  };
  enum { NR = sizeof uris / sizeof uris[0] };

  for (size_t i = 0; i < NR; i++)
    for (size_t j = 0; j < i; j++) {
      char *a = id_of (uris[i]), *b = id_of (uris[j]);

      ck_assert_msg (strcmp (a, b) != 0, "%s and %s are both %s", uris[i],
                     uris[j], a);
      free (a);
      free (b);
    }
}
END_TEST

START_TEST (ids_are_file_names)
{
  char uri[2000] = "nbd://host/", *id;

  id = id_of ("nbd+unix:///a/../b?socket=/run/x y");
  ck_assert_ptr_null (strchr (id, '/'));
  ck_assert_ptr_null (strchr (id, ' '));
  ck_assert_int_eq (strncmp (id, "nbd-unix-", 9), 0);
  free (id);
  memset (uri + 11, 'x', sizeof uri - 12);      /* much too long */
  uri[sizeof uri - 1] = '\0';
  id = id_of (uri);
  ck_assert_uint_lt (strlen (id), 128);
  free (id);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("nbd_uri");
  TCase *tcase = tcase_create ("uri");
  SRunner *runner = srunner_create (suite);
  int nr_failed;

  tcase_add_loop_test (tcase, paths_are_no_uris, 0, 8);
  tcase_add_loop_test (tcase, uris_are_known, 0, 5);
  tcase_add_loop_test (tcase, paths_become_absolute, 0,
                       sizeof paths / sizeof paths[0]);
  tcase_add_loop_test (tcase, wrong_ones_are_refused, 0, 7);
  tcase_add_loop_test (tcase, same_place_same_id, 0, 11);
  tcase_add_test (tcase, links_do_not_matter);
  tcase_add_test (tcase, other_place_other_id);
  tcase_add_test (tcase, ids_are_file_names);
  suite_add_tcase (suite, tcase);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
