/* SPDX-License-Identifier: BSD-3-Clause */
/* libremap: keep a failing disk in service.
 *
 * A struct remap_disk is an open disk (the backing) with its store of spare
 * sectors.  Bad sectors that a request meets are remapped inside the request.
 *
 * Every function that can fail returns -1 or NULL and leaves a number and a
 * sentence in the calling thread: remap_errno (), remap_error ().  The library
 * never prints, exits or aborts on input; what it has to say goes to the
 * callback of remap_set_log ().  libremap(3) tells more.
 */
#ifndef REMAP_H
#define REMAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default)    /* the library hides all else */
#endif

struct remap_disk;

enum remap_direct {
  REMAP_DIRECT_AUTO = 0,        /* direct I/O where the kernel offers it */
  REMAP_DIRECT_ON = 1,          /* fail where it does not */
  REMAP_DIRECT_OFF = 2          /* through the page cache */
};

enum remap_on_lost {
  REMAP_ON_LOST_ERROR = 0,      /* a lost sector reads as EIO */
  REMAP_ON_LOST_ZERO = 1        /* a lost sector reads as zeroes */
};

/* What remap_open is told.  Set by the caller after remap_options_init. */
struct remap_options {
  size_t size;                  /* set by remap_options_init */
  const char *backing;          /* path or NBD URI; required */
  const char *spare;            /* path or NBD URI of the store; NULL: the
                                   default, which an NBD backing has not */
  uint64_t spare_size;          /* bytes of spares; 0: 1 %, >= 4096 sectors */
  unsigned retries;             /* default 2 */
  enum remap_on_lost on_lost;   /* default REMAP_ON_LOST_ERROR */
  enum remap_direct direct;     /* default REMAP_DIRECT_AUTO */
  const char *control;          /* path of the control socket; "off": none;
                                   NULL: STORE.ctl of a store that is a file */
  unsigned deadline_s;          /* reads: EIO after so long; 0: never */
  int readonly;                 /* nothing reaches the backing but reads */
  int adopt;                    /* take a store that knows another disk */
  int new_store;                /* begin anew where a store is missing */
  unsigned timeout_s;           /* how long requests wait for an NBD server that
                                   was lost; at least 1, default 30 */
};

/* Fill in the defaults.
 * Units:     size is sizeof (struct remap_options), for later versions.
 * Since:     0.1
 */
extern void remap_options_init (struct remap_options *options, size_t size);

/* The last error of the calling thread: errno value and one line of text.
 * Ownership: the text is the library's, until the thread's next call.
 * Threads:   each thread has its own.
 * Since:     0.1
 */
extern int remap_errno (void);
extern const char *remap_error (void);

enum remap_log_level {
  REMAP_LOG_ERROR = 0,
  REMAP_LOG_WARNING = 1,
  REMAP_LOG_INFO = 2,
  REMAP_LOG_DEBUG = 3
};

/* Have fn called with every message; NULL: none.  One for the process.
 * Threads:   fn may be called from any thread, several at a time, and must
 *            not call the library.
 * Since:     0.1
 */
extern void remap_set_log (void (*fn) (int level, const char *message));

/* Open a disk and its store, which is made where it is missing; lock both,
 * bind the control socket.  No thread is started: the process may still fork.
 * Returns:   a disk, or NULL with the error set; nothing is changed then.
 * Errors:    EINVAL, ENOENT, EBUSY (in use, the message says by whom), ESTALE
 *            (a store of another disk), EUCLEAN (a damaged store), ...
 * Ownership: the caller's, until remap_close.  options may go at once.
 * Since:     0.1
 */
extern struct remap_disk *remap_open (const struct remap_options *options);

/* Start the threads (remap-worker, remap-patrol).  Call once, after the last
 * fork.
 * Since:     0.1
 */
extern int remap_start (struct remap_disk *disk);

/* Wait for late reads, analyse what is queued, join the threads, make the
 * store durable, unlock.  No other call may be under way.  NULL is allowed.
 * Since:     0.1
 */
extern void remap_close (struct remap_disk *disk);

/* What a disk is.  All are constant while it is open.
 * Units:     bytes.
 * Threads:   any.
 * Since:     0.1
 */
extern uint64_t remap_size (const struct remap_disk *disk);
extern uint32_t remap_sector_size (const struct remap_disk *disk);
extern uint32_t remap_physical_size (const struct remap_disk *disk);
extern int remap_is_readonly (const struct remap_disk *disk);
extern int remap_is_rotational (const struct remap_disk *disk);
extern int remap_is_direct (const struct remap_disk *disk);
extern int remap_can_cache (const struct remap_disk *disk);
extern int remap_can_extents (const struct remap_disk *disk);
extern const char *remap_backing (const struct remap_disk *disk);

#define REMAP_FLAG_FUA (1u << 0)        /* durable before the call returns */
#define REMAP_FLAG_MAY_TRIM (1u << 1)   /* zero: may make a hole */
#define REMAP_FLAG_FAST (1u << 2)       /* zero: ENOTSUP if as slow as writing */

/* Read count bytes at offset into buf, following remapped sectors.
 * Units:     bytes, any offset and count inside the disk.
 * Returns:   0, or -1 with the error set; buf is then undefined.
 * Errors:    EINVAL out of range; EIO a sector is lost, or the read was not
 *            answered in time (deadline_s); others as the disk gave them.
 * Threads:   any number in parallel; blocks as long as the disk does, or until
 *            the deadline.
 * Since:     0.1
 */
extern int remap_pread (struct remap_disk *disk, void *buf, size_t count,
                        uint64_t offset);

/* Write count bytes of buf at offset.  A sector that cannot be written goes
 * to a spare.  flags: REMAP_FLAG_FUA.
 * Errors:    as remap_pread; ENOSPC no spare is left; EROFS read-only; EIO
 *            also where part of a lost sector was to be written.
 * Since:     0.1
 */
extern int remap_pwrite (struct remap_disk *disk, const void *buf,
                         size_t count, uint64_t offset, unsigned flags);

/* Make durable what was written, to the backing and to spares.
 * Errors:    EIO and others.  Once a flush failed, every later one fails.
 * Since:     0.1
 */
extern int remap_flush (struct remap_disk *disk);

/* As writing zeroes.  flags: REMAP_FLAG_FUA, _MAY_TRIM, _FAST.
 * Since:     0.1
 */
extern int remap_zero (struct remap_disk *disk, uint64_t count,
                       uint64_t offset, unsigned flags);

/* The range is no longer needed.  flags: REMAP_FLAG_FUA.
 * Since:     0.1
 */
extern int remap_trim (struct remap_disk *disk, uint64_t count,
                       uint64_t offset, unsigned flags);

/* Read ahead into the page cache (where remap_can_cache).
 * Since:     0.1
 */
extern int remap_cache (struct remap_disk *disk, uint64_t count,
                        uint64_t offset);

#define REMAP_EXTENT_HOLE (1u << 0)
#define REMAP_EXTENT_ZERO (1u << 1)

/* Tell fn the block status of a range, in ascending order, without gaps.  fn
 * returns non-zero to stop; remap_extents then returns -1.
 * Since:     0.1
 */
extern int remap_extents (struct remap_disk *disk, uint64_t count,
                          uint64_t offset,
                          int (*fn) (void *opaque, uint64_t offset,
                                     uint64_t count, unsigned type),
                          void *opaque);

/* Ask about a disk: its server where one runs, else its store.
 * disk is a backing, a store or a control socket; method "status" or "list";
 * params NULL or a JSON object (list: "from" an LBA, "limit" of runs).
 * Returns:   0 and *ret_json, JSON text as remapctl(1) describes it.
 * Errors:    ENOENT no such disk, store or server; EINVAL; EBUSY a server has
 *            the store, but does not answer; EUCLEAN a damaged store.
 * Ownership: *ret_json is the caller's, to free (3).
 * Threads:   any; may block for a few seconds.
 * Since:     0.1
 */
extern int remap_query (const char *disk, const char *method,
                        const char *params, char **ret_json);

/* How bad a problem of a store is. */
enum remap_damage {
  REMAP_DAMAGE_NONE = 0,
  REMAP_DAMAGE_REPAIRABLE = 1,  /* the other copy serves */
  REMAP_DAMAGE_LASTING = 2,     /* nothing mends it; all else is of use.  The
                                   data of a sector, which reads as lost */
  REMAP_DAMAGE_FATAL = 3        /* the store cannot be used */
};

/* Verify a store that no server uses, without changing it.
 * fn is called with each problem, one line, and its damage.
 * Returns:   the worst damage, or -1: it could not be checked.
 * Errors:    EBUSY (in use, the message says by whom), EEXIST (no store), ...
 * Since:     0.1
 */
extern int remap_check (const char *store,
                        void (*fn) (void *opaque, int damage,
                                    const char *problem),
                        void *opaque);

/* The same, and repair what can be repaired, as the next start of a server
 * would.  fn is called with what was found first, and of that once more with
 * what a repair should have mended and did not.
 * Returns:   the worst damage that is left, or -1 (what was repaired until
 *            then stays so); *ret_nr_repaired problems are gone.
 * Errors:    as remap_check; EROFS, EACCES, EUCLEAN (a later version's
 *            store), EIO, ...
 * Since:     0.1
 */
extern int remap_repair (const char *store,
                         void (*fn) (void *opaque, int damage,
                                     const char *problem),
                         void *opaque, uint64_t *ret_nr_repaired);

enum remap_dump_format {
  REMAP_DUMP_TEXT = 0,
  REMAP_DUMP_JSON = 1           /* the lines are one object */
};

/* Print all that is in a store, but for the data of sectors, for a bug report:
 * also where it is damaged, and while a server has it.  It takes no lock.
 * fn is called with one line after the other, without a newline.
 * Returns:   0, or -1 with the error set.
 * Errors:    ENOENT, EACCES, EEXIST (it is no store), ...
 * Since:     0.1
 */
extern int remap_dump (const char *store, enum remap_dump_format format,
                       void (*fn) (void *opaque, const char *line),
                       void *opaque);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif /* REMAP_H */
