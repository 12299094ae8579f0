/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "export-lock.c"

#define ID "nbd-x"
static char top[64], dir[80], path[100];
static char warning[600];

static void
keep_warning (int level, const char *message)
{
  (void) level;
  snprintf (warning, sizeof warning, "%s", message);
}

static void
setup (void)
{
  strcpy (top, "/tmp/remap-lock.XXXXXX");
  ck_assert_ptr_nonnull (mkdtemp (top));
  snprintf (dir, sizeof dir, "%s/state", top);
  snprintf (path, sizeof path, "%s/" ID ".lock", dir);
  warning[0] = '\0';
  log_set_callback (keep_warning);
}

static void
teardown (void)
{
  unlink (path);
  if (rmdir (dir) == -1)
    unlink (dir);
  ck_assert_int_eq (rmdir (top), 0);
}

static struct export_lock *
take (bool is_shared)
{
  struct export_lock *l = export_lock_take (dir, ID, "the-export", "about it",
                                            is_shared);

  if (l)
    export_lock_warn (l);
  ck_assert_str_eq (warning, "");
  return l;
}

static void
check_refused (bool is_shared, pid_t pid)
{
  char expected[100];

  ck_assert_ptr_null (take (is_shared));
  ck_assert_int_eq (errno, EBUSY);
  snprintf (expected, sizeof expected, "the-export is in use by process %d:",
            (int) pid);
  ck_assert_ptr_nonnull (strstr (last_error_text (), expected));
}

START_TEST (one_at_a_time)
{
  struct export_lock *l = take (false);

  ck_assert_ptr_nonnull (l);
  check_refused (false, getpid ());
  check_refused (true, getpid ());
  export_lock_release (l);
  ck_assert_int_eq (access (path, F_OK), -1);
  l = take (false);
  ck_assert_ptr_nonnull (l);
  export_lock_release (l);
}
END_TEST

START_TEST (readers_share)
{
  struct export_lock *a = take (true), *b = take (true);

  ck_assert_ptr_nonnull (a);
  ck_assert_ptr_nonnull (b);
  check_refused (false, getpid ());
  export_lock_release (a);
  check_refused (false, getpid ());     /* the name is still there */
  export_lock_release (b);
  a = take (false);
  ck_assert_ptr_nonnull (a);
  export_lock_release (a);
}
END_TEST

/* As a server that becomes a daemon does, and is killed. */
START_TEST (it_survives_a_fork_and_ends_with_the_process)
{
  struct export_lock *l = take (false);
  int ready[2], status;
  char byte;
  pid_t pid;

  ck_assert_ptr_nonnull (l);
  ck_assert_int_eq (pipe (ready), 0);
  pid = fork ();
  if (pid == 0) {
    export_lock_note_pid (l);
    if (write (ready[1], "x", 1) == 1)
      for (;;)
        pause ();
    _exit (1);
  }
  ck_assert_int_eq (read (ready[0], &byte, 1), 1);
  close (l->fd);                /* as if the parent had ended */
  check_refused (false, pid);
  ck_assert_int_eq (kill (pid, SIGKILL), 0);
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_int_eq (access (path, F_OK), 0);
  free (l);
  l = take (false);
  ck_assert_ptr_nonnull (l);
  export_lock_release (l);
}
END_TEST

START_TEST (without_a_folder_it_warns)
{
  int fd = open (dir, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  struct export_lock *l;

  ck_assert_int_ge (fd, 0);
  close (fd);
  l = export_lock_take (dir, ID, "the-export", "", false);
  ck_assert_ptr_nonnull (l);
  export_lock_note_pid (l);
  export_lock_warn (l);
  ck_assert_ptr_nonnull (strstr (warning, "the-export"));
  ck_assert_ptr_nonnull (strstr (warning, path));
  export_lock_release (l);
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("export_lock");
  TCase *tcase = tcase_create ("lock");
  SRunner *runner = srunner_create (suite);
  int nr_failed;

  tcase_add_checked_fixture (tcase, setup, teardown);
  tcase_add_test (tcase, one_at_a_time);
  tcase_add_test (tcase, readers_share);
  tcase_add_test (tcase, it_survives_a_fork_and_ends_with_the_process);
  tcase_add_test (tcase, without_a_folder_it_warns);
  suite_add_tcase (suite, tcase);
  srunner_run_all (runner, CK_ENV);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
