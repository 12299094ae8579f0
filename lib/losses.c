/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdlib.h>

#include "checked.h"
#include "losses.h"

static struct loss *
nth (const struct losses *l, size_t n)
{
  return &l->ring[(l->first + n) % l->max];
}

static bool
grow (struct losses *l)
{
  size_t max = l->max ? 2 * l->max : 64;
  struct loss *ring = malloc (max * sizeof *ring);

  if (ring == NULL)
    return false;
  for (size_t i = 0; i < l->nr; i++)
    ring[i] = *nth (l, i);
  free (l->ring);
  *l = (struct losses) { .ring = ring, .max = max, .nr = l->nr };
  return true;
}

static void
drop_oldest (struct losses *l)
{
  l->first = (l->first + 1) % l->max;
  l->nr--;
}

static bool
goes_on (const struct loss *a, const struct loss *b)
{
  return a->lba.n + a->nr_sectors == b->lba.n &&
    a->slot.n + a->nr_sectors == b->slot.n;
}

void
losses_add (struct losses *l, const struct loss *loss)
{
  struct loss *last = l->nr > 0 ? nth (l, l->nr - 1) : NULL;

  if (last && goes_on (last, loss)) {
    last->nr_sectors += loss->nr_sectors;
    last->when_ns = loss->when_ns;
    return;
  }
  if (l->nr == l->max && (l->max == LOSSES_MAX || !grow (l))) {
    if (l->max == 0)
      return;
    drop_oldest (l);
  }
  l->nr++;
  *nth (l, l->nr - 1) = *loss;
}

void
losses_expire (struct losses *l, uint64_t before_ns)
{
  while (l->nr > 0 && nth (l, 0)->when_ns < before_ns)
    drop_oldest (l);
}

bool
losses_take (struct losses *l, uint64_t since_ns, struct loss *ret)
{
  if (l->nr == 0 || nth (l, l->nr - 1)->when_ns < since_ns)
    return false;
  *ret = *nth (l, --l->nr);
  return true;
}

void
losses_free (struct losses *l)
{
  free (l->ring);
  *l = (struct losses) { .ring = NULL };
}
