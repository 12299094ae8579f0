/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store-claims.h"

/* What a claim was made of, and the order that it belongs into. */
struct model {
  uint64_t lba, seq;
  uint32_t slot;
  enum sector_state state;
  enum sector_cause cause;
};

static uint64_t random_state;

static uint64_t
random_bits (unsigned nr_bits)
{
  random_state = random_state * UINT64_C (6364136223846793005) + 1;
  return random_state >> (64 - nr_bits);
}

static void
begin (void)
{
  const char *seed = getenv ("REMAP_TEST_SEED");

  random_state = seed ? strtoull (seed, NULL, 0) : (uint64_t) time (NULL);
  printf ("REMAP_TEST_SEED=%llu\n", (unsigned long long) random_state);
}

static int
compare_models (const void *va, const void *vb)
{
  const struct model *a = va, *b = vb;

  if (a->lba != b->lba)
    return a->lba < b->lba ? -1 : 1;
  if (a->seq != b->seq)
    return a->seq > b->seq ? -1 : 1;
  return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static bool
is_claim_of (const struct claim *c, const struct model *m)
{
  return c->lba == m->lba && claim_seq (c) == m->seq && c->slot == m->slot &&
    c->state == (unsigned) m->state &&
    c->is_spare_error == (m->cause == CAUSE_SPARE_ERROR);
}

static void
add_all (struct claims *c, const struct model *m, size_t nr)
{
  for (size_t i = 0; i < nr; i++)
    if (claims_add (c, (lba_t) { m[i].lba }, m[i].seq,
                    (spare_t) { m[i].slot }, m[i].state, m[i].cause) == -1)
      ck_abort_msg ("claim %zu found no memory", i);
}

/* Add claims, with slots that ascend; sort them, and compare with a sort that
 * is plainly right.
 */
static void
check_sort (struct model *m, size_t nr, bool with_hint)
{
  struct claims c = { .nr = 0 };

  if (with_hint)
    claims_expect (&c, nr, 24);
  add_all (&c, m, nr);
  ck_assert_int_eq (claims_sort (&c), 0);
  qsort (m, nr, sizeof *m, compare_models);
  ck_assert_uint_eq (c.nr, nr);
  for (size_t i = 0; i < nr; i++)
    if (!is_claim_of (&c.claims[i], &m[i]))
      ck_abort_msg ("claim %zu of %zu is another", i, nr);
  claims_free (&c);
}

static struct model *
make_models (size_t nr, unsigned lba_bits, unsigned seq_bits)
{
  struct model *m = calloc (nr + 1, sizeof *m);
  uint32_t slot = 0;

  ck_assert_ptr_nonnull (m);
  for (size_t i = 0; i < nr; i++) {
    m[i] = (struct model) {
      .lba = lba_bits ? random_bits (lba_bits) : 0,
      .seq = seq_bits ? random_bits (seq_bits) : 0, .slot = slot,
      .state = (enum sector_state) (1 + random_bits (32) % 3),
      .cause = (enum sector_cause) (random_bits (32) % 5),
    };
    slot += 1 + (uint32_t) random_bits (2);
  }
  return m;
}

/* Every number of bits that a sector can have: one digit to four. */
START_TEST (sorts_sectors_of_any_size)
{
  for (unsigned bits = 1; bits <= 48; bits++) {
    struct model *m = make_models (3000, bits, 47);

    check_sort (m, 3000, bits % 2);
    free (m);
  }
}
END_TEST

/* Many claims to each sector, with many sequence numbers and with few. */
START_TEST (sorts_claims_to_one_sector)
{
  for (unsigned lba_bits = 0; lba_bits <= 8; lba_bits++)
    for (unsigned seq_bits = 0; seq_bits <= 47; seq_bits += 47) {
      struct model *m = make_models (2000, lba_bits, seq_bits);

      check_sort (m, 2000, false);
      free (m);
    }
}
END_TEST

START_TEST (sorts_few)
{
  for (size_t nr = 0; nr <= 4; nr++)
    for (unsigned i = 0; i < 200; i++) {
      struct model *m = make_models (nr, 1 + i % 3, 2);

      check_sort (m, nr, i % 2);
      free (m);
    }
}
END_TEST

/* In order, and in reverse, as a store of one area is. */
START_TEST (sorts_sorted)
{
  for (unsigned reverse = 0; reverse < 2; reverse++) {
    struct model *m = make_models (5000, 1, 10);

    for (size_t i = 0; i < 5000; i++)
      m[i].lba = 1000000 + (reverse ? 5000 - i : i) / 2;
    check_sort (m, 5000, true);
    free (m);
  }
}
END_TEST

/* Enough for huge pages, and for a hint that is too small. */
START_TEST (sorts_many)
{
  const size_t nr = 700000;
  struct model *m = make_models (nr, 34, 20);
  struct claims c = { .nr = 0 };

  claims_expect (&c, 300000, 24);
  add_all (&c, m, nr);
  for (size_t i = 0; i < nr; i++)
    if (c.claims[i].lba != m[i].lba)
      ck_abort_msg ("claim %zu was lost", i);
  claims_free (&c);
  check_sort (m, nr, true);
  free (m);
}
END_TEST

/* The largest values of each field leave the others alone. */
START_TEST (keeps_each_field)
{
  struct model m[] = {
    { LBA_MAX, 0, 0, SECTOR_REMAPPED, CAUSE_NONE },
    { 0, CLAIM_SEQ_MAX, 1, SECTOR_LOST, CAUSE_READ_ERROR },
    { 0, 0, 2, SECTOR_ZEROED, CAUSE_SPARE_ERROR },
    { LBA_MAX, CLAIM_SEQ_MAX, SPARES_MAX, SECTOR_ZEROED, CAUSE_SPARE_ERROR },
  };

  check_sort (m, 4, false);
}
END_TEST

START_TEST (keeps_checksums)
{
  struct claims c = { .nr = 0 };
  struct model *m = make_models (1000, 10, 10);

  for (size_t i = 0; i < 1000; i++)
    ck_assert_int_eq (claims_add_data (&c, (spare_t) { m[i].slot },
                                       (uint32_t) m[i].lba), 0);
  for (size_t i = 0; i < 1000; i++)
    ck_assert_uint_eq (claims_data_crc (&c, (spare_t) { m[i].slot }),
                       m[i].lba);
  claims_free (&c);
  free (m);
}
END_TEST

/* Memory of the sort is handed on once, and where it is enough: with or without
 * a sort, of an even or an odd number of digits, with or without a hint.
 */
START_TEST (reuses_memory)
{
  for (unsigned i = 0; i < 8; i++) {
    bool is_sorted = i & 1, is_high = i & 2;
    struct claims c = { .nr = 0 };
    uint8_t *p, *q;

    if (i & 4)
      claims_expect (&c, 1000, 24);
    for (uint32_t k = 0; k < 1000; k++)
      claims_add (&c, (lba_t) { (uint64_t) (is_sorted ? k : 999 - k)
                                << (is_high ? 10 : 0) },
                  k, (spare_t) { k }, SECTOR_LOST, CAUSE_NONE);
    ck_assert_int_eq (claims_sort (&c), 0);
    p = claims_reuse (&c, 1000, 24);
    q = claims_reuse (&c, 1000, 24);
    ck_assert_ptr_nonnull (p);
    ck_assert_ptr_nonnull (q);
    ck_assert_ptr_ne (p, q);
    memset (p, 1, 24000);
    memset (q, 2, 24000);
    ck_assert_uint_eq (c.claims[999].lba, 999u << (is_high ? 10 : 0));
    claims_free (&c);
    free (p);
    free (q);
  }
}
END_TEST

int
main (void)
{
  Suite *suite = suite_create ("store-claims");
  TCase *tc = tcase_create ("sort");
  SRunner *runner;
  int nr_failed;

  tcase_add_checked_fixture (tc, begin, NULL);
  tcase_set_timeout (tc, 60);
  tcase_add_test (tc, sorts_sectors_of_any_size);
  tcase_add_test (tc, sorts_claims_to_one_sector);
  tcase_add_test (tc, sorts_few);
  tcase_add_test (tc, sorts_sorted);
  tcase_add_test (tc, sorts_many);
  suite_add_tcase (suite, tc);
  tc = tcase_create ("keep");
  tcase_add_checked_fixture (tc, begin, NULL);
  tcase_add_test (tc, keeps_each_field);
  tcase_add_test (tc, keeps_checksums);
  tcase_add_test (tc, reuses_memory);
  suite_add_tcase (suite, tc);

  runner = srunner_create (suite);
  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
