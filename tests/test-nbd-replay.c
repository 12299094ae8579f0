/* SPDX-License-Identifier: BSD-3-Clause */
/* What is written again after an NBD server was gone, and what happens to it in
 * the meantime: a disk must never get anything but what was written last.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "t_ctl.h"
#include "t_disk.h"
#include "t_image.h"
#include "t_nbd.h"
#include "t_wait.h"

static struct t_fault *
start_export (uint64_t size, bool is_volatile)
{
  const struct t_fault_options options = { .volatile_cache = is_volatile };
  static unsigned counter;
  char *image = t_path ("image-%u", counter++);

  t_image_create (image, size, 1);
  return t_fault_start_with (image, &options);
}

static struct t_server *
serve (const struct t_fault *f, const char *more)
{
  static unsigned counter;
  const unsigned n = counter++;

  return t_server_start ("backing=%s spare=%s control=%s %s", f->uri,
                         t_path ("store-%u", n), t_path ("ctl-%u", n), more);
}

/* A request on a thread and a connection of its own. */
struct job {
  pthread_t thread;
  struct t_server *server;
  enum { TOUCH, PUT, PUT_FUA } kind;
  uint64_t lba, nr;
  uint32_t gen;
  int result;
  uint64_t took_ms;
};

static void *
job_main (void *arg)
{
  struct job *j = arg;
  struct nbd_handle *h = t_nbd_connect (j->server);
  uint64_t begin = t_now_ms ();

  if (j->kind == TOUCH)
    j->result = t_nbd_touch (h, j->lba, j->nr);
  else if (j->kind == PUT)
    j->result = t_nbd_put (h, j->lba, j->nr, j->gen);
  else {
    char buf[T_SECTOR];

    t_pattern_fill (buf, T_SECTOR, j->lba * T_SECTOR, j->gen);
    j->result = t_nbd_write_fua (h, buf, T_SECTOR, j->lba * T_SECTOR);
  }
  j->took_ms = t_now_ms () - begin;
  t_nbd_close (h);
  return NULL;
}

static void
begin_job (struct job *j)
{
  T_ASSERT (pthread_create (&j->thread, NULL, job_main, j) == 0);
}

static int
end_job (struct job *j)
{
  pthread_join (j->thread, NULL);
  return j->result;
}

static bool
has_written (void *f)
{
  return t_fault_requests (f, "w") > 0;
}

/* A flush has failed for good; then what is remembered is forgotten by one
 * thread, for want of room, while another writes it again.
 */
static void
test_forget (void)
{
  enum { STEP = 128, NR = 900 };        /* sectors; 56 MiB */
  struct t_fault *f = start_export (96 << 20, false);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);
  struct job reader = { .server = s, .nr = 1 };
  struct job writer = {
    .server = s, .kind = PUT, .lba = 150000, .nr = 16 << 11, .gen = 3,
  };

  t_part ("forgotten while it is written again");
  T_OK (t_nbd_put (h, 8, 8, 1));
  t_fault_set (f, "flush\n");
  T_ERRNO (t_nbd_flush (h), EIO);
  t_fault_set (f, "%s", "");
  for (unsigned i = 0; i < NR; i++)
    T_OK (t_nbd_put (h, 1000 + i * STEP, STEP, 2));
  t_fault_kill (f);
  t_fault_set (f, "write 0-200000 delay-ms=60 errno=0\n");
  t_fault_mark (f);
  t_fault_restart (f);
  begin_job (&reader);
  t_wait_until (has_written, f, 30000, "the first to be written again");
  begin_job (&writer);
  T_OK (end_job (&writer));
  T_OK (end_job (&reader));
  T_ASSERT (t_server_is_alive (s));
  T_ASSERT (t_fault_requests (f, "w") > NR);
  t_image_check (f->image, 1000, NR * STEP, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* What was zeroed fast has to be zeroed again, at any speed. */
static void
test_fast_zero (void)
{
  const struct t_fault_options options = {
    .volatile_cache = true, .nbdkit = "--filter=nozero",
    .params = "zeromode=plugin fastzeromode=ignore",
  };
  char *image = t_path ("zero"), zeroes[8 * T_SECTOR] = { 0 };
  char buf[8 * T_SECTOR];
  struct t_fault *f;
  struct t_server *s;
  struct nbd_handle *h;

  t_part ("a fast zero is slow when it is sent again");
  t_image_create (image, 8 << 20, 1);
  f = t_fault_start_with (image, &options);
  s = serve (f, "");
  h = t_nbd_connect (s);
  T_ASSERT (nbd_zero (h, sizeof zeroes, 100 * T_SECTOR,
                      LIBNBD_CMD_FLAG_FAST_ZERO) == 0);
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_image_check (f->image, 100, 8, 1);
  f->options.params = "zeromode=plugin fastzeromode=slow";
  t_fault_restart (f);
  T_OK (t_nbd_read (h, buf, sizeof buf, 100 * T_SECTOR));
  T_ASSERT (memcmp (buf, zeroes, sizeof buf) == 0);
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* Nothing older is put over what is on the disk: neither of us may live long
 * enough to set that right.
 */
static void
test_newest (bool fua)
{
  struct t_fault *f = start_export (8 << 20, false);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);
  struct job reader = { .server = s, .lba = 300, .nr = 1 };
  char buf[T_SECTOR];

  t_part ("only the newest is written again, %s", fua ? "FUA" : "no FUA");
  T_OK (t_nbd_put (h, 100, 1, 2));
  T_OK (t_nbd_put (h, 200, 1, 2));
  t_pattern_fill (buf, T_SECTOR, 100 * T_SECTOR, 3);
  T_OK (fua ? t_nbd_write_fua (h, buf, T_SECTOR, 100 * T_SECTOR)
        : t_nbd_write (h, buf, T_SECTOR, 100 * T_SECTOR));
  t_fault_kill (f);
  t_fault_mark (f);
  t_fault_restart (f);
  begin_job (&reader);
  T_OK (end_job (&reader));
  T_ASSERT (t_fault_touches (f, "w", 200) == 1);
  T_ASSERT (t_fault_touches (f, "w", 100) == (fua ? 0 : 1));
  t_image_check (f->image, 100, 1, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* Break one of the connections to the disk's server: its fd is nr-th from the
 * lowest.
 */
static void
break_connection (const struct t_server *s, const struct t_fault *f,
                  unsigned nr)
{
  int pidfd = pidfd_open (s->pid, 0);

  T_ASSERT (pidfd != -1);
  for (int i = 0; i < 200; i++) {
    struct sockaddr_un peer = { .sun_family = 0 };
    socklen_t size = sizeof peer - 1;
    int fd = pidfd_getfd (pidfd, i, 0);

    if (fd == -1)
      continue;
    if (getpeername (fd, (struct sockaddr *) &peer, &size) == 0 &&
        peer.sun_family == AF_UNIX && strcmp (peer.sun_path, f->socket) == 0 &&
        nr-- == 0) {
      T_ASSERT (shutdown (fd, SHUT_RDWR) == 0);
      close (fd);
      close (pidfd);
      return;
    }
    close (fd);
  }
  T_FAIL ("the connection is not found");
}

/* One of several connections breaks, and on another a write is slow: were that
 * sent again, the first one might be carried out behind a newer write.
 */
static void
test_one_breaks (void)
{
  struct t_fault *f = start_export (8 << 20, false);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);
  struct job slow = { .server = s, .kind = PUT_FUA, .lba = 1000, .gen = 2 };

  t_part ("one connection breaks, and a write is under way on another");
  T_OK (t_nbd_touch (h, 5000, 1));
  t_fault_set (f, "write 1000 delay-ms=3000 errno=0\n");
  t_fault_mark (f);
  begin_job (&slow);
  usleep (700000);              /* it leaves no trace before it is done */
  break_connection (s, f, 1);
  T_OK (t_nbd_touch (h, 5000, 1));
  T_OK (end_job (&slow));
  T_ASSERT (t_server_has_said (s, "is back"));
  T_OK (t_nbd_flush (h));
  T_ASSERT (t_fault_touches (f, "w", 1000) == 1);
  t_image_check (f->image, 1000, 1, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* The server answers ESHUTDOWN to one request, and lives: no other request is
 * thrown away for it.
 */
static void
test_shutdown_alive (void)
{
  struct t_fault *f = start_export (8 << 20, false);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);
  struct job slow = {
    .server = s, .kind = PUT, .lba = 1000, .nr = 1, .gen = 2,
  };
  uint64_t begin;

  t_part ("ESHUTDOWN, and the server lives");
  t_fault_set (f, "write 1000 delay-ms=2000 errno=0\n"
               "read 5000 errno=ESHUTDOWN\n");
  t_fault_mark (f);
  begin_job (&slow);
  begin = t_now_ms ();
  for (unsigned i = 0; i < 3; i++)
    T_ERRNO (t_nbd_touch (h, 5000, 1), ESHUTDOWN);
  T_ASSERT (t_now_ms () - begin < 20000);
  T_OK (end_job (&slow));
  T_ASSERT (t_fault_touches (f, "w", 1000) == 1);
  T_ASSERT (!t_server_has_said (s, "is lost"));
  T_OK (t_nbd_put (h, 1000, 1, 3));
  T_OK (t_nbd_flush (h));
  t_nbd_expect (h, 1000, 1, 3);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* What cannot be written again is not lost: reads get it, flushes fail until it
 * is written.
 */
static void
test_owed (void)
{
  struct t_fault *f = start_export (8 << 20, true);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("what cannot be written again");
  T_OK (t_nbd_put (h, 104, 4, 1));
  T_OK (t_nbd_flush (h));
  T_OK (t_nbd_put (h, 104, 2, 2));
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_fault_set (f, "write 104-105\n");
  t_fault_restart (f);
  T_OK (t_nbd_touch (h, 300, 1));
  t_nbd_expect (h, 104, 2, 2);
  t_nbd_expect (h, 106, 2, 1);
  T_OK (t_nbd_touch (h, 100, 12));
  T_ASSERT (!(t_nbd_status_of (h, 104 * T_SECTOR) & LIBNBD_STATE_ZERO));
  T_ERRNO (t_nbd_flush (h), EIO);
  t_image_check (f->image, 104, 4, 1);
  t_fault_kill (f);             /* and once more */
  t_fault_restart (f);
  t_nbd_expect (h, 104, 2, 2);
  T_ERRNO (t_nbd_flush (h), EIO);
  t_fault_set (f, "%s", "");
  T_OK (t_nbd_flush (h));
  t_image_check (f->image, 104, 2, 2);
  t_image_check (f->image, 106, 2, 1);
  t_nbd_expect (h, 104, 2, 2);
  T_OK (t_nbd_flush (h));
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* What is written over it, or has a spare now, is not owed. */
static void
test_not_owed (void)
{
  struct t_fault *f = start_export (8 << 20, true);
  struct t_server *s = serve (f, "");
  struct nbd_handle *h = t_nbd_connect (s);

  t_part ("written over, and remapped");
  T_OK (t_nbd_put (h, 100, 8, 2));
  t_fault_set (f, "write 104\n");
  T_OK (t_nbd_put (h, 100, 8, 3));      /* 104 has a spare now */
  t_fault_kill (f);
  t_fault_lose_cache (f, 0);
  t_fault_set (f, "write 104\nwrite 102\n");
  t_fault_mark (f);
  t_fault_restart (f);
  t_nbd_expect (h, 100, 8, 3);
  T_ASSERT (t_fault_touches (f, "w", 104) == 0);
  T_ERRNO (t_nbd_flush (h), EIO);       /* for 102 */
  t_fault_set (f, "write 104\nread 102\n");
  T_OK (t_nbd_put (h, 102, 1, 4));
  T_OK (t_nbd_flush (h));
  t_fault_set (f, "%s", "");
  t_nbd_expect (h, 102, 1, 4);
  t_image_check (f->image, 102, 1, 4);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

/* A server that hangs when it is written to again: nobody waits for that longer
 * than timeout=, and nothing is sent twice for it.
 */
static bool
reads (void *h)
{
  return t_nbd_touch (h, 300, 1) == 0;
}

static void
test_hangs (void)
{
  struct t_fault *f = start_export (8 << 20, false);
  struct t_server *s = serve (f, "timeout=2");
  struct nbd_handle *h = t_nbd_connect (s);
  struct job a = { .server = s, .lba = 0, .nr = 1 }, b = a;

  t_part ("hangs when it is written to again");
  T_OK (t_nbd_put (h, 100, 1, 2));
  t_fault_kill (f);
  t_fault_set (f, "write 100 delay-ms=10000 errno=0\n");
  t_fault_mark (f);
  t_fault_restart (f);
  begin_job (&a);
  begin_job (&b);
  T_ERRNO (end_job (&b), ESHUTDOWN);
  T_ERRNO (end_job (&a), ESHUTDOWN);
  T_ASSERT (a.took_ms < 8000 && b.took_ms < 8000);
  T_ERRNO (t_nbd_touch (h, 300, 1), ESHUTDOWN);
  t_wait_until (reads, h, 30000, "the server to answer");
  T_ASSERT (t_fault_touches (f, "w", 100) == 1);
  t_image_check (f->image, 100, 1, 2);
  t_nbd_close (h);
  t_server_stop (s);
  t_fault_stop (f);
}

int
main (void)
{
  t_begin ("test-nbd-replay", 120);
  test_forget ();
  test_fast_zero ();
  test_newest (false);
  test_newest (true);
  test_one_breaks ();
  test_shutdown_alive ();
  test_owed ();
  test_not_owed ();
  test_hangs ();
  return t_end ();
}
