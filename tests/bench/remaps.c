/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"
#include "checked.h"
#include "crc32c.h"
#include "error.h"
#include "remaps.h"
#include "store-internal.h"

#define SECTOR_BYTES 512

lba_t
remaps_scattered (uint64_t i, unsigned nr_bits)
{
  const uint64_t mask = (UINT64_C (1) << nr_bits) - 1;
  uint64_t x = i * UINT64_C (0x9e3779b97f4a7c15) & mask;

  x ^= x >> (nr_bits / 2);
  return (lba_t) { x * UINT64_C (0xbf58476d1ce4e5b9) & mask };
}

spare_t
remaps_take (struct store *s, uint32_t nr, uint32_t *ret_nr)
{
  spare_t first;
  int n = store_take (s, nr, STORE_FOR_NEW, &first);

  if (n == -1)
    bench_fail ("%s", last_error_text ());
  *ret_nr = (uint32_t) n;
  return first;
}

/* nr records in neighbouring slots: in one write, that it be quick, but entry
 * for entry what store_record writes.
 */
static void
record_scattered (struct store *s, spare_t first, uint32_t nr, lba_t base,
                  unsigned nr_bits)
{
  static const uint8_t zeroes[SECTOR_BYTES];
  struct store_entry e[STORE_RECORD_MAX];

  for (uint32_t i = 0; i < nr; i++)
    e[i] = (struct store_entry) {
      .lba = { base.n + remaps_scattered (first.n + i, nr_bits).n },
      .seq = first.n + i + 1,
      .data_crc = crc32c (0, zeroes, SECTOR_BYTES), .time_s = 1700000000,
      .state = ENTRY_REMAPPED, .cause = CAUSE_WRITE_ERROR,
    };
  if (store_write_entries (s, first, nr, e) == -1)
    bench_fail ("%s", last_error_text ());
  atomic_store (&s->seq_recorded, first.n + nr);
}

void
remaps_record_scattered (struct store *s, uint64_t nr, lba_t base,
                         unsigned nr_bits)
{
  uint32_t n;

  for (uint64_t done = 0; done < nr; done += n) {
    uint64_t most = MIN (nr - done, (uint64_t) STORE_RECORD_MAX);
    spare_t first = remaps_take (s, (uint32_t) most, &n);

    if (first.n != done)
      bench_fail ("slot %u was taken, not %llu", first.n,
                  (unsigned long long) done);
    record_scattered (s, first, n, base, nr_bits);
    store_settle (s, n);
  }
}

void
remaps_record_run (struct store *s, lba_t lba, uint32_t nr,
                   const uint8_t *data)
{
  for (uint32_t done = 0, n; done < nr; done += n) {
    const uint8_t *p = data + (size_t) done * SECTOR_BYTES;
    struct sector_run run = {
      .lba = { lba.n + done }, .state = SECTOR_REMAPPED,
    };
    uint32_t most = MIN (nr - done, (uint32_t) STORE_RECORD_MAX);

    run.spare = remaps_take (s, most, &n);
    run.nr_sectors = n;
    if (store_write (s, run.spare, n, p) == -1 ||
        store_record (s, &run, CAUSE_WRITE_ERROR, p) == -1)
      bench_fail ("%s", last_error_text ());
    store_settle (s, n);
  }
}
