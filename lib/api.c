/* SPDX-License-Identifier: BSD-3-Clause */
/* api: remap.h over the engine: check arguments, put the parts together. */
#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-socket.h"
#include "engine.h"
#include "error.h"
#include "export-lock.h"
#include "identity.h"
#include "log.h"
#include "mark.h"
#include "nbd-uri.h"
#include "patrol.h"
#include "remap.h"
#include "store-load.h"
#include "worker.h"

_Static_assert (REMAP_LOG_ERROR == (int) LEVEL_ERROR &&
                REMAP_LOG_DEBUG == (int) LEVEL_DEBUG, "levels are the same");
_Static_assert (REMAP_DIRECT_ON == (int) DEV_DIRECT_ON &&
                REMAP_DIRECT_OFF == (int) DEV_DIRECT_OFF, "so is direct");
_Static_assert (REMAP_FLAG_FUA == DEV_FUA &&
                REMAP_FLAG_MAY_TRIM == DEV_MAY_TRIM &&
                REMAP_FLAG_FAST == DEV_FAST, "so are the flags");
_Static_assert (REMAP_EXTENT_HOLE == DEV_EXTENT_HOLE &&
                REMAP_EXTENT_ZERO == DEV_EXTENT_ZERO, "and the extents");

struct remap_disk {
  char *backing;                /* path */
  struct engine *engine;
  struct patrol *patrol;
  struct worker *worker;
  bool is_open;                 /* nothing failed at the start */
  struct control_socket *control;
  struct dev_info info;
  struct dev *dev;              /* the engine's, as the next */
  struct store *store;
  struct identity identity;
  struct export_lock *locks[2]; /* of disk and store, where they are exports */
  uint32_t sector_bytes, physical_bytes;
  uint64_t started_ns;          /* CLOCK_MONOTONIC */
};

void
remap_options_init (struct remap_options *options, size_t size)
{
  memset (options, 0, size);
  options->size = size;
  options->retries = 2;
  options->timeout_s = DEV_TIMEOUT_S;
}

int
remap_errno (void)
{
  return last_error_errno ();
}

const char *
remap_error (void)
{
  return last_error_text ();
}

void
remap_set_log (void (*fn) (int level, const char *message))
{
  log_set_callback (fn);
}

/* Open. */

static struct dev *
open_backing (const struct remap_options *o)
{
  enum dev_direct direct = (enum dev_direct) o->direct;
  struct dev *dev = dev_open (o->backing, direct,
                              o->readonly ? DEV_OPEN_READONLY : 0,
                              o->timeout_s);

  if (dev == NULL && !o->readonly &&
      (errno == EROFS || errno == EACCES || errno == EPERM)) {
    log_message (LEVEL_WARNING, "%s: it is served read-only",
                 last_error_text ());
    dev = dev_open (o->backing, direct, DEV_OPEN_READONLY, o->timeout_s);
  }
  if (dev && !dev->info.direct && o->direct != REMAP_DIRECT_OFF &&
      !(dev->info.kind == DEV_NBD && dev->info.readonly))
    log_message (LEVEL_WARNING, dev->info.kind == DEV_NBD
                 ? "%s: if its server buffers writes, their errors show only at "
                 "a flush, too late to remap them; direct=on makes each of them "
                 "durable at once" : "%s: no direct I/O here: write errors show "
                 "only at a flush, too late to remap them", o->backing);
  return dev;
}

/* The folder of the default store of a device is made if it is missing; that
 * of a file is there.
 */
static char *
find_store (const struct remap_options *o)
{
  char *path;

  if (o->spare) {
    path = strdup (o->spare);
    if (path == NULL)
      set_error (ENOMEM, "no memory");
    return path;
  }
  path = identity_default_store (o->backing);
  if (path && strncmp (path, REMAP_STATEDIR "/",
                       sizeof REMAP_STATEDIR) == 0 &&
      mkdir (REMAP_STATEDIR, 0755) == -1 && errno != EEXIST) {
    set_error (errno, "cannot make %s (%s): name a store with spare=",
               REMAP_STATEDIR, errno_text (errno));
    free (path);
    return NULL;
  }
  return path;
}

static int
check_not_same (const char *backing, const char *store)
{
  char id[128], store_id[128];
  struct stat a, b;

  if (identity_id_of_path (backing, id, sizeof id) &&
      identity_id_of_path (store, store_id, sizeof store_id) &&
      nbd_uri_is_one (backing) && strcmp (id, store_id) == 0)
    return set_error (EINVAL, "%s is the disk itself and cannot be its own store: "
                      "name another place with spare=", store);
  if (stat (backing, &a) == 0 && stat (store, &b) == 0 &&
      (S_ISBLK (a.st_mode) ? a.st_rdev == b.st_rdev && S_ISBLK (b.st_mode)
       : a.st_dev == b.st_dev && a.st_ino == b.st_ino))
    return set_error (EINVAL, "%s is the disk itself and cannot be its own store: "
                      "name another place with spare=", store);
  return 0;
}

static struct store *
open_store (const struct remap_options *o, const struct dev *backing,
            const struct identity *identity, const char *path,
            struct map **ret_map, bool *ret_created)
{
  struct mark mark;
  int is_marked;
  struct store_options so = {
    .path = path, .backing = identity, .spare_bytes = o->spare_size,
    .timeout_s = o->timeout_s, .adopt = o->adopt, .new_store = o->new_store,
    .ret_created = ret_created,
  };

  is_marked = mark_read (backing, identity, &mark);
  if (is_marked == -1 && !o->adopt && !o->new_store)
    return NULL;
  if (is_marked == 1)
    so.mark = &mark;
  return store_open (&so, ret_map);
}

/* What the disk is to bear from now on.  A relative name of the store is made
 * absolute; links in an absolute one stay, since devices change their names.
 */
static void
make_mark (const struct remap_disk *d, struct mark *ret)
{
  CLEANUP_FREE char *path = NULL;

  store_get_mark (d->store, ret);
  if (ret->store[0] == '/' || nbd_uri_is_one (ret->store))
    return;
  path = realpath (ret->store, NULL);
  if (path && strlen (path) < sizeof ret->store)
    snprintf (ret->store, sizeof ret->store, "%s", path);
}

/* Let the disk bear the mark of its store, so that it is not served without it
 * some day, nor with an old copy of it.  At the start, last of all that can
 * fail and before any sector is remapped, and at the end.  A file that is served
 * read-only is left as it is.  -1: it bears the mark of another store, which
 * would be taken for the right one.
 */
static int
mark_disk (const struct remap_disk *d, bool is_new)
{
  struct mark had, mark;
  int is_marked;

  if (d->info.readonly && d->identity.kind == DEV_FILE)
    return 0;
  make_mark (d, &mark);
  is_marked = mark_read (d->dev, &d->identity, &had);
  if (is_marked == 1 && memcmp (had.uuid, mark.uuid, sizeof had.uuid) == 0 &&
      had.seq == mark.seq && strcmp (had.store, mark.store) == 0)
    return 0;
  if (mark_write (d->dev, &d->identity, &mark) == 0)
    return 0;
  if (is_marked == 1 && memcmp (had.uuid, mark.uuid, sizeof had.uuid) != 0)
    return -1;
  log_message (is_new ? LEVEL_WARNING : LEVEL_INFO, "%s: should the store go "
               "missing, that will not be noticed", last_error_text ());
  return 0;
}

/* If it is a server of ours that has the disk, the disk's store knows it. */
static void
explain_busy (const struct remap_options *o)
{
  CLEANUP_FREE char *text = strdup (last_error_text ());
  CLEANUP_FREE char *store = find_store (o);
  unsigned pid = store ? store_owner (store) : 0;

  if (pid)
    set_error (EBUSY, "%s is in use by process %u: one server at a time",
               o->backing, pid);
  else
    set_error (EBUSY, "%s", text ? text : "it is in use");
}

static void
post_event (void *opaque, const struct event *event)
{
  struct remap_disk *d = opaque;

  worker_post (d->worker, event);
}

/* name is an NBD export, whose id is known. */
static struct export_lock *
lock_export (const struct remap_options *o, const char *store, const char *name,
             const char *id, bool is_shared)
{
  CLEANUP_FREE char *about = NULL;

  if (asprintf (&about, "serves %s, with the store %s", o->backing, store)
      == -1) {
    about = NULL;
    set_error (ENOMEM, "no memory");
    return NULL;
  }
  return export_lock_take (REMAP_STATEDIR, id, name, about, is_shared);
}

/* NBD has no locks: exports that become the disk or its store get one. */
static int
lock_exports (struct remap_disk *d, const struct remap_options *o,
              const char *store)
{
  char id[128];

  if (d->info.kind == DEV_NBD && d->identity.id[0]) {
    d->locks[0] = lock_export (o, store, o->backing, d->identity.id,
                               d->info.readonly);
    if (d->locks[0] == NULL)
      return -1;
  }
  if (nbd_uri_is_one (store) && identity_id_of_path (store, id, sizeof id)) {
    d->locks[1] = lock_export (o, store, store, id, false);
    if (d->locks[1] == NULL)
      return -1;
  }
  return 0;
}

static struct engine *
open_engine (struct remap_disk *d, const struct remap_options *o,
             char **ret_store, bool *ret_created)
{
  const struct engine_options eo = {
    .retries = o->retries,
    .lost_reads_zero = o->on_lost == REMAP_ON_LOST_ZERO,
    .deadline_ms = (uint64_t) o->deadline_s * 1000,
    .event = post_event, .opaque = d,
  };
  struct dev *backing = open_backing (o);
  struct store *store = NULL;
  struct map *map = NULL;

  if (backing == NULL) {
    if (errno == EBUSY)
      explain_busy (o);
    return NULL;
  }
  d->info = backing->info;
  *ret_store = find_store (o);
  identity_of_dev (backing, o->backing, &d->identity);
  if (*ret_store && check_not_same (o->backing, *ret_store) == 0 &&
      lock_exports (d, o, *ret_store) == 0)
    store = open_store (o, backing, &d->identity, *ret_store, &map,
                        ret_created);
  if (store == NULL) {
    int saved = errno;

    dev_close (backing);
    errno = saved;
    return NULL;
  }
  d->dev = backing;
  d->store = store;
  return engine_new (backing, store, map, &eo);
}

/* What the control socket tells; runs on the worker's thread. */

static void
get_status (void *opaque, struct status *ret)
{
  struct remap_disk *d = opaque;

  memset (ret, 0, sizeof *ret);
  engine_get_status (d->engine, ret);
  ret->is_live = true;
  ret->pid = (int) getpid ();
  ret->now_ns = clock_now_ns ();
  ret->uptime_s = (ret->now_ns - d->started_ns) / 1000000000;
  worker_get_snapshot (d->worker, &ret->health);
}

static int
next_run (void *opaque, lba_t from, struct sector_run *ret)
{
  struct remap_disk *d = opaque;

  return engine_next_run (d->engine, from, ret);
}

/* The socket beside a store that is a file can fail to fit its address: then
 * the disk is served without.
 */
static int
open_control (struct remap_disk *d, const struct remap_options *o,
              const char *store)
{
  const struct control_source source = { get_status, next_run, d };
  CLEANUP_FREE char *path = NULL;
  struct stat st;

  if (o->control && strcmp (o->control, "off") == 0)
    return 0;
  if (o->control == NULL &&
      (stat (store, &st) == -1 || !S_ISREG (st.st_mode)))
    return 0;
  if (asprintf (&path, "%s%s", o->control ? o->control : store,
                o->control ? "" : ".ctl") == -1) {
    path = NULL;
    return set_error (ENOMEM, "no memory");
  }
  d->control = control_socket_new (path, &source);
  if (d->control)
    return 0;
  if (o->control == NULL && errno == ENAMETOOLONG) {
    log_message (LEVEL_WARNING, "no control socket: %s; give a shorter one "
                 "with control=", last_error_text ());
    return 0;
  }
  return -1;
}

/* A start that is refused leaves nothing. */
static void
remove_created (const char *store, bool created)
{
  int saved = errno;
  struct stat st;

  if (created && stat (store, &st) == 0 && S_ISREG (st.st_mode))
    unlink (store);
  errno = saved;
}

/* All but the engine. */
static int
open_rest (struct remap_disk *d, const struct remap_options *o,
           const char *store, bool created)
{
  struct worker_guest guest;
  struct status status = { .pid = 0 };

  if (open_control (d, o, store) == -1)
    return -1;
  if (d->control)
    guest = control_socket_guest (d->control);
  engine_get_status (d->engine, &status);
  d->sector_bytes = status.sector_bytes;
  d->physical_bytes = status.physical_bytes;
  d->worker = worker_new ((d->info.size_bytes + d->sector_bytes - 1)
                          / d->sector_bytes, d->control ? &guest : NULL);
  d->patrol = patrol_new (d->engine);
  if (d->worker == NULL || d->patrol == NULL || mark_disk (d, created) == -1)
    return -1;
  for (unsigned i = 0; i < 2; i++)
    if (d->locks[i])
      export_lock_warn (d->locks[i]);
  d->is_open = true;
  log_message (LEVEL_INFO, "%s: %llu bytes, sectors of %u, store %s: %llu "
               "remapped, %llu lost, %llu of %llu spares left", o->backing,
               (unsigned long long) d->info.size_bytes, d->sector_bytes, store,
               (unsigned long long) status.nr_remapped,
               (unsigned long long) status.nr_lost,
               (unsigned long long) status.spares_free,
               (unsigned long long) status.spares_total);
  return 0;
}

static int
open_parts (struct remap_disk *d, const struct remap_options *o)
{
  CLEANUP_FREE char *store = NULL;
  bool created = false;

  d->engine = open_engine (d, o, &store, &created);
  if (d->engine == NULL)
    return -1;
  if (open_rest (d, o, store, created) == 0)
    return 0;
  remove_created (store, created);
  return -1;
}

struct remap_disk *
remap_open (const struct remap_options *options)
{
  struct remap_disk *d;
  int saved;

  if (options->size != sizeof *options || options->backing == NULL ||
      options->backing[0] == '\0') {
    set_error (EINVAL, "no disk is named: give backing=DISK");
    return NULL;
  }
  if (nbd_uri_check_secrets (options->backing) == -1 ||
      (options->spare && nbd_uri_check_secrets (options->spare) == -1))
    return NULL;
  if (options->timeout_s == 0) {
    set_error (EINVAL, "timeout=0: give at least 1 second");
    return NULL;
  }
  d = calloc (1, sizeof *d);
  if (d)
    d->backing = strdup (options->backing);
  if (d == NULL || d->backing == NULL) {
    free (d);
    set_error (ENOMEM, "no memory");
    return NULL;
  }
  d->started_ns = clock_now_ns ();
  if (open_parts (d, options) == 0) {
    if (options->on_lost == REMAP_ON_LOST_ZERO)
      log_message (LEVEL_WARNING, "%s: on-lost=zero: sectors that are lost read "
                   "as zeroes, and nobody is told", options->backing);
    return d;
  }
  saved = errno;
  remap_close (d);
  errno = saved;
  return NULL;
}

int
remap_start (struct remap_disk *d)
{
  for (unsigned i = 0; i < 2; i++)
    if (d->locks[i])
      export_lock_note_pid (d->locks[i]);
  if (engine_start (d->engine) == -1)
    return -1;
  return worker_start (d->worker) == 0 ? patrol_start (d->patrol) : -1;
}

void
remap_close (struct remap_disk *d)
{
  if (d == NULL)
    return;
  patrol_free (d->patrol);
  engine_stop (d->engine);      /* it tells the worker what it meets */
  if (d->worker)
    worker_free (d->worker);
  if (d->control)
    control_socket_free (d->control);
  if (d->is_open && engine_flush (d->engine) == 0)
    mark_disk (d, false);
  engine_free (d->engine);
  for (unsigned i = 0; i < 2; i++)
    export_lock_release (d->locks[i]);
  free (d->backing);
  free (d);
}

/* What it is. */

uint64_t
remap_size (const struct remap_disk *d)
{
  return d->info.size_bytes;
}

uint32_t
remap_sector_size (const struct remap_disk *d)
{
  return d->sector_bytes;
}

uint32_t
remap_physical_size (const struct remap_disk *d)
{
  return d->physical_bytes;
}

int
remap_is_readonly (const struct remap_disk *d)
{
  return d->info.readonly;
}

int
remap_is_rotational (const struct remap_disk *d)
{
  return d->info.rotational;
}

int
remap_is_direct (const struct remap_disk *d)
{
  return d->info.direct;
}

int
remap_can_cache (const struct remap_disk *d)
{
  return d->info.can_cache;
}

int
remap_can_extents (const struct remap_disk *d)
{
  return d->info.can_extents;
}

const char *
remap_backing (const struct remap_disk *d)
{
  return d->backing;
}

/* Requests. */

int
remap_pread (struct remap_disk *d, void *buf, size_t count, uint64_t offset)
{
  return engine_pread (d->engine, buf, count, offset);
}

int
remap_pwrite (struct remap_disk *d, const void *buf, size_t count,
              uint64_t offset, unsigned flags)
{
  return engine_pwrite (d->engine, buf, count, offset, flags & DEV_FUA);
}

int
remap_flush (struct remap_disk *d)
{
  return engine_flush (d->engine);
}

int
remap_zero (struct remap_disk *d, uint64_t count, uint64_t offset,
            unsigned flags)
{
  return engine_zero (d->engine, count, offset,
                      flags & (DEV_FUA | DEV_MAY_TRIM | DEV_FAST));
}

int
remap_trim (struct remap_disk *d, uint64_t count, uint64_t offset,
            unsigned flags)
{
  return engine_trim (d->engine, count, offset, flags & DEV_FUA);
}

int
remap_cache (struct remap_disk *d, uint64_t count, uint64_t offset)
{
  return engine_cache (d->engine, count, offset);
}

int
remap_extents (struct remap_disk *d, uint64_t count, uint64_t offset,
               int (*fn) (void *opaque, uint64_t offset, uint64_t count,
                          unsigned type),
               void *opaque)
{
  return engine_extents (d->engine, count, offset, fn, opaque);
}
