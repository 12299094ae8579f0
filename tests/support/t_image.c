/* SPDX-License-Identifier: BSD-3-Clause */
/* t_image: content that knows where it belongs. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "t_base.h"
#include "t_image.h"

enum { WORDS = T_SECTOR / 8, CHUNK = 1 << 20 };

/* A sector: word 0 the lba, word 1 the generation, the rest mixed of both. */
static uint64_t
word_of (uint64_t lba, uint32_t gen, unsigned i)
{
  uint64_t x;

  if (i < 2)
    return i == 0 ? ~lba : (UINT64_C (0x52454d41) << 32) | gen;
  x = (lba << 20) ^ ((uint64_t) gen << 44) ^ (lba >> 40) ^ i;
  x = (x ^ (x >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C (0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static void
fill_sector (uint64_t words[WORDS], uint64_t lba, uint32_t gen)
{
  for (unsigned i = 0; i < WORDS; i++)
    words[i] = gen ? word_of (lba, gen, i) : 0;
}

void
t_pattern_fill (void *buf, size_t count, uint64_t offset, uint32_t gen)
{
  char *p = buf;
  uint64_t words[WORDS];

  while (count > 0) {
    size_t skip = offset % T_SECTOR;
    size_t n = count < T_SECTOR - skip ? count : T_SECTOR - skip;

    fill_sector (words, offset / T_SECTOR, gen);
    memcpy (p, (char *) words + skip, n);
    p += n;
    offset += n;
    count -= n;
  }
}

const char *
t_pattern_describe (const void *buf, size_t count)
{
  static const char zeroes[T_SECTOR];
  uint64_t words[WORDS], expected[WORDS];
  const unsigned char *p = buf;

  if (count == 0 || memcmp (buf, zeroes, count) == 0)
    return "zeroes";
  if (count == T_SECTOR) {
    memcpy (words, buf, T_SECTOR);
    fill_sector (expected, ~words[0], (uint32_t) words[1]);
    if (memcmp (words, expected, T_SECTOR) == 0)
      return t_str ("the content of sector %llu, generation %u",
                    (unsigned long long) ~words[0], (unsigned) words[1]);
  }
  return t_str ("bytes %02x %02x %02x %02x ... %02x", p[0], p[count > 1],
                p[count > 2 ? 2 : 0], p[count > 3 ? 3 : 0], p[count - 1]);
}

/* Say what differs between what was got and what was expected. */
static const char *
describe_difference (const char *got, const char *expected, size_t count,
                     uint64_t offset, uint32_t gen)
{
  size_t i = 0, n = count < T_SECTOR ? count : T_SECTOR;

  while (got[i] == expected[i])
    i++;
  return t_str ("sector %llu, byte %zu: not generation %u, but %s",
                (unsigned long long) (offset / T_SECTOR),
                (size_t) (offset % T_SECTOR) + i, gen,
                t_pattern_describe (got, n));
}

bool
t_pattern_matches (const void *buf, size_t count, uint64_t offset,
                   uint32_t gen, const char **ret_why)
{
  const char *p = buf;
  char expected[T_SECTOR];

  while (count > 0) {
    size_t skip = offset % T_SECTOR;
    size_t n = count < T_SECTOR - skip ? count : T_SECTOR - skip;

    t_pattern_fill (expected, n, offset, gen);
    if (memcmp (p, expected, n) != 0) {
      if (ret_why)
        *ret_why = describe_difference (p, expected, n, offset, gen);
      return false;
    }
    p += n;
    offset += n;
    count -= n;
  }
  return true;
}

void
t_pattern_check (const void *buf, size_t count, uint64_t offset,
                 uint32_t gen, const char *what)
{
  const char *why;

  if (!t_pattern_matches (buf, count, offset, gen, &why))
    T_FAIL ("%s: %s", what, why);
}

bool
t_pattern_generation (const void *buf, uint64_t lba, uint32_t *ret_gen)
{
  uint64_t words[2];

  memcpy (words, buf, sizeof words);
  if (words[1] == 0)
    *ret_gen = 0;
  else
    *ret_gen = (uint32_t) words[1];
  return t_pattern_matches (buf, T_SECTOR, lba * T_SECTOR, *ret_gen, NULL);
}

static int
open_or_fail (const char *path, int flags)
{
  int fd = open (path, flags | O_CLOEXEC, 0600);

  if (fd == -1)
    T_FAIL ("%s: %m", path);
  return fd;
}

void
t_image_create (const char *path, uint64_t size, uint32_t gen)
{
  int fd = open_or_fail (path, O_WRONLY | O_CREAT | O_TRUNC);
  char *buf = malloc (CHUNK);

  if (buf == NULL || ftruncate (fd, size) == -1)
    T_FAIL ("%s: %m", path);
  for (uint64_t offset = 0; gen && offset < size; offset += CHUNK) {
    size_t n = size - offset < CHUNK ? size - offset : CHUNK;

    t_pattern_fill (buf, n, offset, gen);
    if (pwrite (fd, buf, n, offset) != (ssize_t) n)
      T_FAIL ("%s: %m", path);
  }
  free (buf);
  close (fd);
}

void
t_image_read (const char *path, void *buf, size_t count, uint64_t offset)
{
  int fd = open_or_fail (path, O_RDONLY);

  errno = 0;
  if (pread (fd, buf, count, offset) != (ssize_t) count)
    T_FAIL ("%s: cannot read %zu bytes at %llu: %m", path, count,
            (unsigned long long) offset);
  close (fd);
}

void
t_image_check (const char *path, uint64_t lba, uint64_t nr_sectors,
               uint32_t gen)
{
  const size_t count = nr_sectors * T_SECTOR;
  char *buf = malloc (count + 1);

  if (buf == NULL)
    T_FAIL ("out of memory");
  t_image_read (path, buf, count, lba * T_SECTOR);
  t_pattern_check (buf, count, lba * T_SECTOR, gen, path);
  free (buf);
}

int64_t
t_image_find (const char *path, uint64_t lba, uint32_t gen)
{
  int fd = open_or_fail (path, O_RDONLY);
  char *buf = malloc (CHUNK);
  int64_t offset = 0, found = -1;
  ssize_t n;

  if (buf == NULL)
    T_FAIL ("out of memory");
  while (found == -1 && (n = pread (fd, buf, CHUNK, offset)) > 0) {
    for (ssize_t i = 0; i + T_SECTOR <= n && found == -1; i += T_SECTOR)
      if (t_pattern_matches (buf + i, T_SECTOR, lba * T_SECTOR, gen, NULL))
        found = offset + i;
    offset += n;
  }
  free (buf);
  close (fd);
  return found;
}

bool
t_image_equal (const char *a, const char *b)
{
  char *argv[] = { "cmp", "-s", (char *) a, (char *) b, NULL };

  return t_run (argv, NULL) == 0;
}

void
t_image_copy (const char *from, const char *to)
{
  char *argv[] = { "cp", "--sparse=always", (char *) from, (char *) to, NULL };

  if (t_run (argv, NULL) != 0)
    T_FAIL ("cp %s %s failed", from, to);
}
