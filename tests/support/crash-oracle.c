/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "crash-oracle.h"

uint64_t
crash_hash (const void *buf, size_t count)
{
  const uint8_t *p = buf;
  uint64_t h = UINT64_C (0xcbf29ce484222325);

  for (size_t i = 0; i < count; i += 8) {
    uint64_t word;

    memcpy (&word, p + i, 8);
    h = (h ^ word) * UINT64_C (0x100000001b3);
    h ^= h >> 29;
  }
  return h == CRASH_LOST ? 1 : h;
}

uint64_t
crash_hash_of_zeroes (uint32_t nr_bytes)
{
  uint8_t *zeroes = calloc (1, nr_bytes);
  uint64_t hash = crash_hash (zeroes, nr_bytes);

  free (zeroes);
  return hash;
}

bool
crash_set_has (const struct crash_set *s, uint64_t hash)
{
  for (unsigned i = 0; i < s->nr; i++)
    if (s->hash[i] == hash)
      return true;
  return false;
}

void
crash_set_add (struct crash_set *s, uint64_t hash)
{
  if (crash_set_has (s, hash))
    return;
  ck_assert_uint_lt (s->nr, CRASH_SET_MAX);
  s->hash[s->nr++] = hash;
}

void
crash_set_remove (struct crash_set *s, uint64_t hash)
{
  for (unsigned i = 0; i < s->nr; i++)
    if (s->hash[i] == hash)
      s->hash[i--] = s->hash[--s->nr];
}

void
crash_set_only (struct crash_set *s, uint64_t hash)
{
  s->nr = 1;
  s->hash[0] = hash;
}

void
crash_sets_copy (struct crash_set *to, const struct crash_set *from,
                 unsigned nr)
{
  memcpy (to, from, nr * sizeof *to);
}

void
crash_oracle_init (struct crash_oracle *o, unsigned nr, uint32_t sector_bytes)
{
  *o = (struct crash_oracle) { .sector_bytes = sector_bytes, .nr = nr };
  o->killed = calloc (nr, sizeof o->killed[0]);
  o->cut = calloc (nr, sizeof o->cut[0]);
  o->flushing = calloc (nr, sizeof o->flushing[0]);
  o->trimmed = calloc (nr, sizeof o->trimmed[0]);
  o->lost_unrecorded = calloc (nr, sizeof o->lost_unrecorded[0]);
}

void
crash_oracle_free (struct crash_oracle *o)
{
  free (o->killed);
  free (o->cut);
  free (o->flushing);
  free (o->trimmed);
  free (o->lost_unrecorded);
}

void
crash_oracle_copy (struct crash_oracle *to, const struct crash_oracle *from)
{
  crash_oracle_init (to, from->nr, from->sector_bytes);
  crash_sets_copy (to->killed, from->killed, to->nr);
  crash_sets_copy (to->cut, from->cut, to->nr);
  memcpy (to->trimmed, from->trimmed, to->nr * sizeof to->trimmed[0]);
  to->rest_hash = from->rest_hash;
}

void
crash_oracle_opened (struct crash_oracle *o)
{
  memset (o->lost_unrecorded, 0, o->nr * sizeof o->lost_unrecorded[0]);
}

void
crash_oracle_read (struct crash_oracle *o, unsigned i, uint64_t hash)
{
  if (hash != CRASH_LOST || !o->lost_unrecorded[i])
    crash_set_only (&o->killed[i], hash);
}

/* A write of this content was acknowledged (r 0), or may have happened. */
void
crash_oracle_wrote (struct crash_oracle *o, unsigned i, uint64_t hash, int r,
              bool fua)
{
  crash_set_add (&o->cut[i], hash);
  if (o->is_flushing)
    crash_set_add (&o->flushing[i], hash);
  if (r != 0)
    crash_set_add (&o->killed[i], hash);
  else {
    crash_set_only (&o->killed[i], hash);
    o->lost_unrecorded[i] = false;
    if (fua)
      crash_set_only (&o->cut[i], hash);
  }
  o->trimmed[i] = false;
}

/* Only what was acknowledged before a flush began is covered by it. */
void
crash_oracle_flush_begins (struct crash_oracle *o)
{
  crash_sets_copy (o->flushing, o->killed, o->nr);
  o->is_flushing = true;
}

void
crash_oracle_flush_ends (struct crash_oracle *o, int r)
{
  o->is_flushing = false;
  if (r != 0)
    return;
  crash_sets_copy (o->cut, o->flushing, o->nr);
  memset (o->trimmed, 0, o->nr * sizeof o->trimmed[0]);
}
