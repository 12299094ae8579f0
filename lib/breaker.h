/* SPDX-License-Identifier: BSD-3-Clause */
/* breaker: is it the sector, or the disk?  Pure: time comes in as an argument.
 *
 * Purpose:    EIO is what a bad sector answers, and what a dead disk answers,
 *             and an SSD that takes no more writes.  So an error is believed to
 *             be the sector's only where the disk has answered another request
 *             that began after it (a probe, evidence.c).  Where it does not, the
 *             breaker opens: nothing is called lost, no spare is given out, and
 *             the disk is probed once a second until it answers.
 *
 *      CLOSED     reads are answered, and writes as far as is known
 *      READ_ONLY  reads are answered, writes are not
 *      OPEN       nothing is answered
 *
 *             What a probe tells          the state is then
 *             nothing was answered        OPEN
 *             the read was (no write      CLOSED if it was OPEN, else as it was
 *               was tried)
 *             read, but not written       READ_ONLY
 *             read and written            CLOSED
 *
 *             What was called lost shortly before the breaker opened, or when
 *             it came thick and fast, is doubtful: it deserves a second look.
 * Invariants: B1 An error is believed only if a probe that began after it was
 *                answered.
 *             B2 While OPEN no error is believed, while READ_ONLY none of a
 *                write.
 * Locking:    the caller's.
 * Units:      times in nanoseconds of a clock that never goes back and is not
 *             0.
 */
#ifndef REMAP_BREAKER_H
#define REMAP_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum breaker_state { BREAKER_CLOSED = 0, BREAKER_READ_ONLY, BREAKER_OPEN };

enum breaker_op { BREAKER_READ = 0, BREAKER_WRITE };

enum breaker_verdict {
  BREAKER_BELIEVE,              /* the sector is bad */
  BREAKER_REFUSE,               /* it may be the disk */
  BREAKER_PROBE,                /* find out by a probe, and ask again */
};

/* What the disk answered to a probe; each includes those before it. */
enum breaker_answer {
  BREAKER_NO_ANSWER = 0,
  BREAKER_ANSWERS_READ,
  BREAKER_ANSWERS_WRITE,
};

#define BREAKER_PROBE_NS UINT64_C (1000000000)
/* More sectors lost in a second than this are a burst. */
#define BREAKER_BURST_SECTORS 64
/* So long must it be quiet before what was lost in a burst is read again. */
#define BREAKER_QUIET_NS UINT64_C (1000000000)
/* What was lost so shortly before the disk stopped to answer is doubtful. */
#define BREAKER_DOUBT_NS UINT64_C (60000000000)

#define BREAKER_NEVER UINT64_MAX

/* All zero: CLOSED, nothing known. */
struct breaker {
  enum breaker_state state;
  uint64_t since_ns;            /* not CLOSED: when it was left */
  uint64_t probed_ns;           /* when the last probe ended */
  uint64_t answered_ns[2];      /* by op: the last probe that was answered began
                                   then */
  uint64_t second_ns;           /* losses are counted in the second that began
                                   then */
  uint64_t nr_lost;
  uint64_t doubt_from_ns;       /* second look: at what was lost since then, */
  uint64_t look_ns;             /* from then on; 0: none */
};

/* An attempt failed with a medium error at failed_ns. */
extern enum breaker_verdict breaker_judge (const struct breaker *b,
                                           enum breaker_op op,
                                           uint64_t failed_ns);

/* A probe that began at began_ns has ended: op says whether it tried to write.
 * Probes are told in the order in which they began.
 */
extern void breaker_note_probe (struct breaker *b, enum breaker_op op,
                                enum breaker_answer answer, uint64_t began_ns,
                                uint64_t now_ns);

/* Sectors were called lost. */
extern void breaker_note_lost (struct breaker *b, uint64_t nr_sectors,
                               uint64_t now_ns);

/* When the next probe, and the next second look, are due. */
extern uint64_t breaker_probe_due (const struct breaker *b);
extern uint64_t breaker_look_due (const struct breaker *b);

/* What the probe that is due has to try. */
extern enum breaker_op breaker_probe_op (const struct breaker *b);

/* It could not be taken to its end: again, at look_ns. */
extern void breaker_look_again (struct breaker *b, uint64_t from_ns,
                                uint64_t look_ns);

/* The second look is being taken: returns from when on what was lost is
 * doubtful.
 */
extern uint64_t breaker_take_look (struct breaker *b);

extern const char *breaker_state_to_string (enum breaker_state state);

#endif /* REMAP_BREAKER_H */
