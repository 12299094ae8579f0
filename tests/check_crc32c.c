/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "crc32c.h"

/* RFC 3720, appendix B.4. */

START_TEST (zeroes)
{
  uint8_t buf[32] = { 0 };

  ck_assert_uint_eq (crc32c (0, buf, sizeof buf), 0x8a9136aa);
}
END_TEST

START_TEST (ones)
{
  uint8_t buf[32];

  memset (buf, 0xff, sizeof buf);
  ck_assert_uint_eq (crc32c (0, buf, sizeof buf), 0x62a8ab43);
}
END_TEST

START_TEST (incrementing)
{
  uint8_t buf[32];

  for (unsigned i = 0; i < 32; i++)
    buf[i] = (uint8_t) i;
  ck_assert_uint_eq (crc32c (0, buf, sizeof buf), 0x46dd794e);
}
END_TEST

START_TEST (decrementing)
{
  uint8_t buf[32];

  for (unsigned i = 0; i < 32; i++)
    buf[i] = (uint8_t) (31 - i);
  ck_assert_uint_eq (crc32c (0, buf, sizeof buf), 0x113fdb5c);
}
END_TEST

START_TEST (iscsi_read_command)
{
  static const uint8_t pdu[48] = {
    0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
    0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
    0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
  };

  ck_assert_uint_eq (crc32c (0, pdu, sizeof pdu), 0xd9963a56);
}
END_TEST

START_TEST (check_value_and_nothing)
{
  ck_assert_uint_eq (crc32c (0, "123456789", 9), 0xe3069283);
  ck_assert_uint_eq (crc32c (0, "", 0), 0);
  ck_assert_uint_eq (crc32c (0x12345678, "", 0), 0x12345678);
}
END_TEST

/* The definition, a bit at a time. */
static uint32_t
crc32c_by_bits (uint32_t crc, const uint8_t *p, size_t nr_bytes)
{
  crc = ~crc;
  while (nr_bytes-- > 0) {
    crc ^= *p++;
    for (unsigned i = 0; i < 8; i++)
      crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

/* Every length and every alignment, carried on at every byte. */
START_TEST (as_defined)
{
  uint8_t buf[300];

  for (unsigned i = 0; i < sizeof buf; i++)
    buf[i] = (uint8_t) (i * i * 31 + i * 7 + 5);
  for (size_t begin = 0; begin < 16; begin++)
    for (size_t n = 0; begin + n <= sizeof buf; n++)
      if (crc32c (0, buf + begin, n) != crc32c_by_bits (0, buf + begin, n))
        ck_abort_msg ("%zu bytes from %zu", n, begin);
  for (size_t n = 0; n <= sizeof buf; n++)
    ck_assert_uint_eq (crc32c (crc32c (0, buf, n), buf + n, sizeof buf - n),
                       crc32c_by_bits (0, buf, sizeof buf));
}
END_TEST

/* More than an int counts, of zeroes that take no memory. */
START_TEST (more_than_2_gib)
{
  size_t n = ((size_t) 1 << 31) + 5, half = n / 2;
  uint8_t *p = mmap (NULL, n, PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  ck_assert_ptr_ne (p, MAP_FAILED);
  ck_assert_uint_eq (crc32c (7, p, n),
                     crc32c (crc32c (7, p, half), p + half, n - half));
  munmap (p, n);
}
END_TEST

static Suite *
make_suite (void)
{
  Suite *suite = suite_create ("crc32c");
  TCase *tc = tcase_create ("RFC 3720");

  tcase_set_timeout (tc, 60);
  tcase_add_test (tc, zeroes);
  tcase_add_test (tc, ones);
  tcase_add_test (tc, incrementing);
  tcase_add_test (tc, decrementing);
  tcase_add_test (tc, iscsi_read_command);
  tcase_add_test (tc, check_value_and_nothing);
  suite_add_tcase (suite, tc);

  tc = tcase_create ("any buffer");
  tcase_set_timeout (tc, 120);
  tcase_add_test (tc, as_defined);
  if (!getenv ("REMAP_TEST_VALGRIND"))  /* it would take minutes */
    tcase_add_test (tc, more_than_2_gib);
  suite_add_tcase (suite, tc);
  return suite;
}

int
main (void)
{
  SRunner *runner = srunner_create (make_suite ());
  int nr_failed;

  srunner_run_all (runner, CK_NORMAL);
  nr_failed = srunner_ntests_failed (runner);
  srunner_free (runner);
  return nr_failed == 0 ? 0 : 1;
}
