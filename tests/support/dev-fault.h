/* SPDX-License-Identifier: BSD-3-Clause */
/* dev-fault: a disk in memory that fails on command, for the unit tests.
 *
 * Purpose:    bad sectors, failing calls, power cuts and threads stopped
 *             halfway, all of it exactly where a test wants it.
 * Objects:    struct dev_fault is the disk and belongs to the test; what
 *             dev_fault_open returns is a way to it, to be given to whoever
 *             closes it.  A disk that is closed and opened again is a disk
 *             whose server was killed: all writes are there, durable or not.
 * Failure:    sectors are bad by unit, which is the physical sector.  A read of
 *             a bad unit fails and leaves rubbish in the buffer.  A write
 *             carries out what lies before the first bad unit.  A unit that
 *             cannot be read fails writes of a part of it, and is mended by a
 *             write of all of it.
 * Durability: only if asked for (is_volatile).  What is written, zeroed,
 *             trimmed or buffered is lost in a power cut unless a flush that
 *             began later has succeeded, or it was written with DEV_FUA.  A
 *             flush that fails gives up what it covered: no later flush will
 *             make that durable (but with ENODEV nothing was tried).  What a
 *             power cut leaves of a stretch that was not durable is chosen for
 *             each sector of the disk alone, by seed or by number: an older or
 *             a newer content, never a mix.
 * Locking:    any number of threads.  Hooks are called with nothing held (but
 *             what the caller of the device holds: dev_flush its mutex).
 */
#ifndef REMAP_DEV_FAULT_H
#define REMAP_DEV_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dev.h"
#include "engine.h"

#define DEV_FAULT_ATOM_BYTES 512        /* the smallest sector */

struct dev_fault;

struct dev_fault_options {
  uint64_t size_bytes;
  uint32_t sector_bytes;        /* 0: 512 */
  uint32_t physical_bytes;      /* 0: the sector */
  enum dev_kind kind;           /* 0: DEV_FILE */
  bool readonly;
  bool cannot_zero, cannot_trim;
  bool is_volatile;             /* keep what power cuts need */
  bool tears;                   /* a read beside a write may see half of it */
};

extern struct dev_fault *dev_fault_new (const struct dev_fault_options *o);
extern void dev_fault_free (struct dev_fault *d);

/* The same content, durable and not, and the same bad sectors. */
extern struct dev_fault *dev_fault_clone (struct dev_fault *d);

extern struct dev *dev_fault_open (struct dev_fault *d);
extern uint64_t dev_fault_size (struct dev_fault *d);

/* Bad sectors.  nr_failures: mended after so many failed calls, 0: never.
 * err 0: EIO.
 */
#define DEV_FAULT_BAD_READ (1u << 0)
#define DEV_FAULT_BAD_WRITE (1u << 1)
#define DEV_FAULT_BAD (DEV_FAULT_BAD_READ | DEV_FAULT_BAD_WRITE)
extern void dev_fault_spoil (struct dev_fault *d, uint64_t sector, uint64_t nr,
                             unsigned how, unsigned nr_failures, int err);
extern void dev_fault_mend (struct dev_fault *d, uint64_t sector, uint64_t nr);
extern unsigned dev_fault_how_bad (struct dev_fault *d, uint64_t sector);

/* How many calls, failed or not, covered this sector. */
extern unsigned dev_fault_touches (struct dev_fault *d, uint64_t sector);
extern void dev_fault_forget_touches (struct dev_fault *d);

/* Calls. */
enum dev_fault_kind {
  DEV_FAULT_PREAD = 1 << 0,
  DEV_FAULT_PWRITE = 1 << 1,
  DEV_FAULT_FLUSH = 1 << 2,
  DEV_FAULT_ZERO = 1 << 3,
  DEV_FAULT_TRIM = 1 << 4,
  DEV_FAULT_EXTENTS = 1 << 5,
  DEV_FAULT_CACHE = 1 << 6,
  DEV_FAULT_RESIZE = 1 << 7,
};
#define DEV_FAULT_CHANGES                                                     \
  (DEV_FAULT_PWRITE | DEV_FAULT_ZERO | DEV_FAULT_TRIM | DEV_FAULT_RESIZE)
#define DEV_FAULT_ALL 0xffu

struct dev_fault_call {
  struct dev_fault *disk;
  enum dev_fault_kind kind;
  uint64_t count, offset;
  unsigned flags;
  const void *data;             /* of a write */
  int err;                      /* is_done: how it ended, 0 or errno */
};

/* Called before a call is carried out, and after it.  Before it, a result other
 * than 0 is the errno that it fails with; nothing is done then.  Nor is it with
 * DEV_FAULT_SWALLOW, but the call succeeds: a disk that lies.
 */
#define DEV_FAULT_SWALLOW (-1)
typedef int dev_fault_hook_fn (void *opaque, const struct dev_fault_call *call,
                               bool is_done);
extern void dev_fault_set_hook (struct dev_fault *d, dev_fault_hook_fn *fn,
                                void *opaque);

/* The nth call from now on (1: the next) of these kinds fails with err (0: EIO),
 * and, if for_ever, all that follow it.  One such rule at a time.
 */
extern void dev_fault_fail_calls (struct dev_fault *d, unsigned kinds,
                                  unsigned nth, bool for_ever, int err);
extern void dev_fault_heal_calls (struct dev_fault *d);

/* How many calls of these kinds there were. */
extern unsigned dev_fault_calls (struct dev_fault *d, unsigned kinds);

/* Look at the content, or change it behind everyone's back, durably. */
extern void dev_fault_peek (struct dev_fault *d, void *buf, size_t count,
                            uint64_t offset);
extern void dev_fault_poke (struct dev_fault *d, const void *buf, size_t count,
                            uint64_t offset);

/* The same as a call would, without a failure or a hook: for a write that was
 * stopped halfway.  buf NULL: zeroes.
 */
extern void dev_fault_write_quietly (struct dev_fault *d, const void *buf,
                                     size_t count, uint64_t offset);

/* The power fails and comes back.  With seed 0 nothing is kept that was not
 * durable.
 */
extern void dev_fault_cut_power (struct dev_fault *d, uint64_t seed);

/* All that a power cut could leave, counted: each sector with what is durable
 * or with any of the contents it had since, whatever the others have, and the
 * same for the size.  UINT64_MAX: more than that.
 */
extern uint64_t dev_fault_nr_outcomes (struct dev_fault *d);

/* The power fails and leaves outcome nth, 0 .. number - 1.  With 0 nothing is
 * kept that was not durable, with the last one all is.
 */
extern void dev_fault_cut_power_to (struct dev_fault *d, uint64_t nth);

/* A number from a seed that moves on. */
extern uint64_t dev_fault_random (uint64_t *seed);

/* Content that tells its sector and version, whatever is cut off behind. */
extern void dev_fault_pattern (void *buf, size_t count, uint64_t sector,
                               uint64_t version);

/* A rig: an engine over two such disks.  What is not set by a test before
 * fault_rig_open is as the server has it by default.
 */
struct fault_rig {
  struct dev_fault *backing, *store;
  uint64_t spare_bytes;
  struct engine_options options;
  struct engine *engine;        /* NULL: not open */
};

/* Disks of so many bytes (each sector with its pattern, version 0) and for the
 * store; retries 2.
 */
extern void fault_rig_init (struct fault_rig *rig,
                            const struct dev_fault_options *backing,
                            const struct dev_fault_options *store);

/* 0, or -1 with the error set. */
extern int fault_rig_open (struct fault_rig *rig);
extern void fault_rig_close (struct fault_rig *rig);
extern void fault_rig_kill (struct fault_rig *rig);
extern void fault_rig_free (struct fault_rig *rig);

/* Whole sectors (the last one of the disk as far as it goes), each with its
 * pattern.  fault_rig_read: 0 they are of this version, 1 one is not, -1 error.
 */
extern int fault_rig_write (struct fault_rig *rig, uint64_t lba, uint64_t nr,
                            uint64_t version, unsigned flags);
extern int fault_rig_read (struct fault_rig *rig, uint64_t lba, uint64_t nr,
                           uint64_t version);

extern enum sector_state fault_rig_state (struct fault_rig *rig, uint64_t lba);

#endif /* REMAP_DEV_FAULT_H */
