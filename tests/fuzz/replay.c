/* SPDX-License-Identifier: BSD-3-Clause */
/* Run a fuzz target over files, as a test: those that are named, else all of
 * its corpus.  No input may take more than a few seconds.
 */
#include <config.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz/fuzz.h"

#define INPUT_MAX (4u << 20)
#define SECONDS_MAX 20

static int
replay (const char *path)
{
  FILE *file = fopen (path, "rb");
  uint8_t *data = malloc (INPUT_MAX), *input;
  size_t size;

  if (file == NULL || data == NULL) {
    perror (path);
    return -1;
  }
  size = fread (data, 1, INPUT_MAX, file);
  fclose (file);
  /* As long as it is, so that a sanitizer sees what reads behind it. */
  input = malloc (size + (size == 0));
  if (input == NULL)
    return -1;
  memcpy (input, data, size);
  free (data);
  printf ("%s\n", path);
  fflush (stdout);
  alarm (SECONDS_MAX);
  LLVMFuzzerTestOneInput (input, size);
  alarm (0);
  free (input);
  return 0;
}

static int
replay_all (const char *folder)
{
  DIR *dir = opendir (folder);
  struct dirent *entry;
  unsigned nr = 0;
  int r = 0;

  if (dir == NULL) {
    perror (folder);
    return -1;
  }
  while (r == 0 && (entry = readdir (dir)) != NULL) {
    char path[4096];

    if (entry->d_name[0] == '.')
      continue;
    snprintf (path, sizeof path, "%s/%s", folder, entry->d_name);
    r = replay (path);
    nr++;
  }
  closedir (dir);
  printf ("%u inputs\n", nr);
  return nr == 0 ? -1 : r;
}

int
main (int argc, char *argv[])
{
  const char *srcdir = getenv ("REMAP_SRCDIR");
  char folder[2048];

  for (int i = 1; i < argc; i++)
    if (replay (argv[i]) == -1)
      return 1;
  if (argc > 1)
    return 0;
  if (srcdir == NULL) {
    fprintf (stderr, "%s: name files, or run this through make check\n",
             argv[0]);
    return 1;
  }
  snprintf (folder, sizeof folder, "%s/tests/fuzz/corpus/" FUZZ_TARGET, srcdir);
  return replay_all (folder) == -1;
}
