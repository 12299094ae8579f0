/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <assert.h>
#include <string.h>

#include "checked.h"
#include "health.h"

void
health_init (struct health *h, uint64_t nr_sectors)
{
  memset (h, 0, sizeof *h);
  h->nr_sectors = nr_sectors;
  h->sectors_per_region =
    MAX (div_round_up (nr_sectors, HEALTH_NR_REGIONS), UINT64_C (1));
}

unsigned
health_region_of (const struct health *h, lba_t lba)
{
  uint64_t region = lba.n / h->sectors_per_region;

  return (unsigned) MIN (region, (uint64_t) HEALTH_NR_REGIONS - 1);
}

static bool
event_kind_is_error (enum event_kind kind)
{
  switch (kind) {
  case EVENT_READ_ERROR:
  case EVENT_WRITE_ERROR:
  case EVENT_SPARE_ERROR:
  case EVENT_OTHER_ERROR:
    return true;
  case EVENT_WEAK:
  case EVENT_REMAPPED:
  case EVENT_LOST:
  case EVENT_HEALED:
    return false;
  }
  return false;
}

static void
count_events (struct health *h, unsigned region, enum event_kind kind,
              uint64_t count)
{
  h->region[region].count[kind] += count;       /* H1 */
  h->total[kind] += count;
}

void
health_note (struct health *h, const struct event *event)
{
  count_events (h, health_region_of (h, event->lba), event->kind, 1);

  /* Threads post in any order: the clock decides which error was the last. */
  if (event_kind_is_error (event->kind)
      && event->when_ns >= h->last_error.when_ns)
    h->last_error = *event;
}

void
health_note_count (struct health *h, unsigned region, enum event_kind kind,
                   uint64_t count)
{
  count_events (h, region, kind, count);
  h->nr_uncounted_details += count;
}

static uint64_t
nr_medium_errors (const struct health_region *region)
{
  return region->count[EVENT_READ_ERROR] + region->count[EVENT_WRITE_ERROR];
}

/* Put the region into the list, which is sorted, worst first; of two that are
 * equally bad the one with the lower LBA comes first.
 */
static void
insert_worst (struct health_snapshot *ret, lba_t lba, uint64_t nr_sectors,
              uint64_t nr_errors)
{
  unsigned i = ret->nr_worst;

  if (i < HEALTH_NR_WORST)
    ret->nr_worst++;
  else if (ret->worst[i - 1].nr_errors >= nr_errors)
    return;
  else
    i--;
  for (; i > 0 && ret->worst[i - 1].nr_errors < nr_errors; i--)
    ret->worst[i] = ret->worst[i - 1];
  ret->worst[i].lba = lba;
  ret->worst[i].nr_sectors = nr_sectors;
  ret->worst[i].nr_errors = nr_errors;
}

void
health_get_snapshot (const struct health *h, struct health_snapshot *ret)
{
  memset (ret, 0, sizeof *ret);
  memcpy (ret->total, h->total, sizeof ret->total);
  ret->nr_uncounted_details = h->nr_uncounted_details;
  ret->last_error = h->last_error;

  for (unsigned r = 0; r < HEALTH_NR_REGIONS; r++) {
    uint64_t nr_errors = nr_medium_errors (&h->region[r]);
    uint64_t start = r * h->sectors_per_region;

    if (nr_errors == 0)
      continue;
    /* An error beyond the end (a caller's bug) counts in the last region. */
    insert_worst (ret, (lba_t) { start },
                  start >= h->nr_sectors ? 0
                  : MIN (h->sectors_per_region, h->nr_sectors - start),
                  nr_errors);
  }
}

void
health_verify (const struct health *h)
{
  for (unsigned kind = 0; kind < NR_EVENT_KINDS; kind++) {
    uint64_t sum = 0;

    for (unsigned r = 0; r < HEALTH_NR_REGIONS; r++)
      sum += h->region[r].count[kind];
    assert (sum == h->total[kind]);     /* H1 */
    (void) sum;
  }
}

const char *
event_kind_to_string (enum event_kind kind)
{
  switch (kind) {
  case EVENT_READ_ERROR: return "read_error";
  case EVENT_WRITE_ERROR: return "write_error";
  case EVENT_WEAK: return "weak";
  case EVENT_REMAPPED: return "remapped";
  case EVENT_LOST: return "lost";
  case EVENT_HEALED: return "healed";
  case EVENT_SPARE_ERROR: return "spare_error";
  case EVENT_OTHER_ERROR: return "other_error";
  }
  return "unknown";
}
