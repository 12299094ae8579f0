/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "breaker.h"
#include "checked.h"

static bool
is_refused (const struct breaker *b, enum breaker_op op)
{
  return b->state == BREAKER_OPEN ||
    (b->state == BREAKER_READ_ONLY && op == BREAKER_WRITE);     /* B2 */
}

enum breaker_verdict
breaker_judge (const struct breaker *b, enum breaker_op op, uint64_t failed_ns)
{
  if (is_refused (b, op))
    return BREAKER_REFUSE;
  return b->answered_ns[op] > failed_ns                         /* B1 */
    ? BREAKER_BELIEVE : BREAKER_PROBE;
}

static enum breaker_state
next_state (enum breaker_state state, enum breaker_op op,
            enum breaker_answer answer)
{
  if (answer == BREAKER_NO_ANSWER)
    return BREAKER_OPEN;
  if (answer == BREAKER_ANSWERS_WRITE)
    return BREAKER_CLOSED;
  if (op == BREAKER_WRITE)
    return BREAKER_READ_ONLY;
  return state == BREAKER_OPEN ? BREAKER_CLOSED : state;
}

/* What was lost from then on is doubtful; look at it at look_ns or later. */
static void
order_look (struct breaker *b, uint64_t from_ns, uint64_t look_ns)
{
  b->doubt_from_ns = b->look_ns ? MIN (b->doubt_from_ns, from_ns) : from_ns;
  b->look_ns = MAX (look_ns, b->look_ns);
}

static uint64_t
before (uint64_t ns, uint64_t by_ns)
{
  return ns > by_ns ? ns - by_ns : 0;
}

void
breaker_note_probe (struct breaker *b, enum breaker_op op,
                    enum breaker_answer answer, uint64_t began_ns,
                    uint64_t now_ns)
{
  enum breaker_state state = next_state (b->state, op, answer);

  if (answer >= BREAKER_ANSWERS_READ)
    b->answered_ns[BREAKER_READ] = MAX (b->answered_ns[BREAKER_READ], began_ns);
  if (answer >= BREAKER_ANSWERS_WRITE)
    b->answered_ns[BREAKER_WRITE] = MAX (b->answered_ns[BREAKER_WRITE],
                                         began_ns);
  b->probed_ns = now_ns;
  if (b->state == BREAKER_CLOSED)
    b->since_ns = now_ns;
  if (b->state == BREAKER_OPEN && state != BREAKER_OPEN)
    order_look (b, before (b->since_ns, BREAKER_DOUBT_NS), now_ns);
  b->state = state;
}

void
breaker_note_lost (struct breaker *b, uint64_t nr_sectors, uint64_t now_ns)
{
  if (now_ns - b->second_ns >= BREAKER_PROBE_NS) {
    b->second_ns = now_ns;
    b->nr_lost = 0;
  }
  b->nr_lost += nr_sectors;
  if (b->nr_lost > BREAKER_BURST_SECTORS)
    order_look (b, before (b->second_ns, BREAKER_QUIET_NS),
                now_ns + BREAKER_QUIET_NS);
}

uint64_t
breaker_probe_due (const struct breaker *b)
{
  return b->state == BREAKER_CLOSED ? BREAKER_NEVER
    : b->probed_ns + BREAKER_PROBE_NS;
}

uint64_t
breaker_look_due (const struct breaker *b)
{
  return b->state == BREAKER_OPEN || b->look_ns == 0 ? BREAKER_NEVER
    : b->look_ns;
}

enum breaker_op
breaker_probe_op (const struct breaker *b)
{
  return b->state == BREAKER_READ_ONLY ? BREAKER_WRITE : BREAKER_READ;
}

void
breaker_look_again (struct breaker *b, uint64_t from_ns, uint64_t look_ns)
{
  order_look (b, from_ns, look_ns);
}

uint64_t
breaker_take_look (struct breaker *b)
{
  b->look_ns = 0;
  return b->doubt_from_ns;
}

const char *
breaker_state_to_string (enum breaker_state state)
{
  switch (state) {
  case BREAKER_CLOSED: return "closed";
  case BREAKER_READ_ONLY: return "read-only";
  case BREAKER_OPEN: return "open";
  }
  return "unknown";
}
