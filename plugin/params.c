/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "params.h"

const char params_help[] =
  "[backing=]<DISK>     (required) Disk to serve: a file, a block device, or\n"
  "                       an NBD URI.\n"
  "spare=<STORE>        Where spare sectors and their table are kept\n"
  "                       (default: DISK.remap, or a file named after the\n"
  "                       device in the state directory; required for an\n"
  "                       NBD URI).\n"
  "spare-size=<SIZE>    Room for spares (default: 1% of the disk).\n"
  "retries=<N>          Further attempts before an unreadable sector is lost\n"
  "                       (default: 2).\n"
  "on-lost=error|zero   What a read of a lost sector gets (default: error).\n"
  "deadline=<S>|off     Seconds after which a read that the disk sits on gets\n"
  "                       an error (default: off).\n"
  "direct=auto|on|off   Direct I/O on the disk (default: auto).\n"
  "adopt=yes            Take a store that belongs to another disk.\n"
  "new-store=yes        Begin anew where the store of the disk is missing.\n"
  "control=<PATH>|off   Control socket (default: STORE.ctl).\n"
  "timeout=<SECONDS>    How long requests wait for an NBD server that was\n"
  "                       lost (default: 30).";

struct remap_options params;

#define RETRIES_MAX 1000
#define DEADLINE_MAX_S 3600
#define TIMEOUT_MAX 86400

/* What params points to. */
static char *backing, *spare, *control;

void
params_load (void)
{
  remap_options_init (&params, sizeof params);
}

void
params_unload (void)
{
  free (backing);
  free (spare);
  free (control);
}

/* Scheme and "://": what is behind that is the library's. */
static bool
is_uri (const char *value)
{
  size_t n = 0;

  while (isalnum ((unsigned char) value[n]) || (n > 0 && value[n] == '+'))
    n++;
  return n > 0 && strncmp (value + n, "://", 3) == 0;
}

static int
set_string (char **ret, const char *key, const char *value, bool is_path)
{
  if (*ret) {
    nbdkit_error ("%s= was given twice: give it once", key);
    return -1;
  }
  if (value[0] == '\0') {
    nbdkit_error ("%s= needs a value", key);
    return -1;
  }
  /* nbdkit changes its folder when it becomes a daemon. */
  *ret = is_path ? nbdkit_absolute_path (value) : strdup (value);
  return *ret ? 0 : -1;
}

struct choice {
  const char *word;
  int number;
};

static int
set_choice (const char *key, const char *value, const struct choice *choices,
            int *ret)
{
  char words[128] = "";
  size_t n = 0;

  for (; choices->word; choices++) {
    if (strcmp (value, choices->word) == 0) {
      *ret = choices->number;
      return 0;
    }
    n += (size_t) snprintf (words + n, sizeof words - n, "%s%s",
                            n > 0 ? ", " : "", choices->word);
  }
  nbdkit_error ("%s=%s is not understood: use one of %s", key, value, words);
  return -1;
}

/* A size as nbdkit takes it, 1M or 100s (sectors of 512 bytes); nbdkit's own
 * parser does not say which parameter is wrong.  -1: it is no size.
 */
static int64_t
parse_size (const char *value)
{
  static const char suffixes[] = "bkmgtpe";
  unsigned long long n;
  const char *suffix;
  char *end;
  int64_t size;

  errno = 0;
  n = strtoull (value, &end, 10);
  if (value[0] < '0' || value[0] > '9' || errno != 0)
    return -1;
  if (end[0] == '\0')
    return n <= INT64_MAX ? (int64_t) n : -1;
  if (end[1] != '\0')
    return -1;
  if (end[0] == 's' || end[0] == 'S')
    return __builtin_mul_overflow (n, 512, &size) ? -1 : size;
  suffix = strchr (suffixes, tolower ((unsigned char) end[0]));
  if (suffix == NULL ||
      __builtin_mul_overflow (n, UINT64_C (1) << 10 * (suffix - suffixes),
                              &size))
    return -1;
  return size;
}

/* nbdkit's own parser says "empty string" of a word. */
static bool
parse_number (const char *value, unsigned min, unsigned max, unsigned *ret)
{
  unsigned long n;
  char *end;

  errno = 0;
  n = strtoul (value, &end, 10);
  if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 ||
      n < min || n > max)
    return false;
  *ret = (unsigned) n;
  return true;
}

static int
set_number (const char *key, const char *value, unsigned min, unsigned max,
            unsigned *ret)
{
  if (parse_number (value, min, max, ret))
    return 0;
  nbdkit_error ("%s=%s is not understood: use a number from %u to %u", key,
                value, min, max);
  return -1;
}

static int
set_deadline (const char *value)
{
  if (strcmp (value, "off") == 0) {
    params.deadline_s = 0;
    return 0;
  }
  if (parse_number (value, 1, DEADLINE_MAX_S, &params.deadline_s))
    return 0;
  nbdkit_error ("deadline=%s is not understood: use a number of seconds from 1 "
                "to %d, or off", value, DEADLINE_MAX_S);
  return -1;
}

static int
set_spare_size (const char *value)
{
  int64_t size = parse_size (value);

  if (size == -1) {
    nbdkit_error ("spare-size=%s is no size: use a number of bytes, or one "
                  "with a suffix as in 64M", value);
    return -1;
  }
  if (size == 0) {
    nbdkit_error ("spare-size=0 leaves no room for spares: at least 16K");
    return -1;
  }
  params.spare_size = (uint64_t) size;
  return 0;
}

int
params_set (const char *key, const char *value)
{
  static const struct choice on_lost[] = {
    { "error", REMAP_ON_LOST_ERROR }, { "zero", REMAP_ON_LOST_ZERO },
    { NULL, 0 },
  };
  static const struct choice direct[] = {
    { "auto", REMAP_DIRECT_AUTO }, { "on", REMAP_DIRECT_ON },
    { "off", REMAP_DIRECT_OFF }, { NULL, 0 },
  };
  static const struct choice yes_no[] = {
    { "yes", 1 }, { "no", 0 }, { NULL, 0 },
  };
  int number;

  if (strcmp (key, "backing") == 0)
    return set_string (&backing, key, value, !is_uri (value));
  if (strcmp (key, "spare") == 0)
    return set_string (&spare, key, value, !is_uri (value));
  if (strcmp (key, "control") == 0)
    return set_string (&control, key, value, strcmp (value, "off") != 0);
  if (strcmp (key, "spare-size") == 0)
    return set_spare_size (value);
  if (strcmp (key, "retries") == 0)
    return set_number (key, value, 0, RETRIES_MAX, &params.retries);
  if (strcmp (key, "deadline") == 0)
    return set_deadline (value);
  if (strcmp (key, "timeout") == 0)
    return set_number (key, value, 1, TIMEOUT_MAX, &params.timeout_s);
  if (strcmp (key, "adopt") == 0)
    return set_choice (key, value, yes_no, &params.adopt);
  if (strcmp (key, "new-store") == 0)
    return set_choice (key, value, yes_no, &params.new_store);
  if (strcmp (key, "on-lost") == 0) {
    if (set_choice (key, value, on_lost, &number) == -1)
      return -1;
    params.on_lost = (enum remap_on_lost) number;
    return 0;
  }
  if (strcmp (key, "direct") == 0) {
    if (set_choice (key, value, direct, &number) == -1)
      return -1;
    params.direct = (enum remap_direct) number;
    return 0;
  }
  nbdkit_error ("unknown parameter '%s': `nbdkit remap --help` lists them",
                key);
  return -1;
}

/* Was nbdkit started with -r?  It tells plugins only when a client connects,
 * but the disk is opened before the fork, and read-only must mean that.  So
 * its command line is asked: options may stand anywhere in it.
 */
static bool
is_readonly_option (const char *arg)
{
  /* The short options of nbdkit 1.32 that take a value, which may follow. */
  static const char with_value[] = "DegiPptuUe";

  if (strncmp (arg, "--", 2) == 0)
    return strcmp (arg, "--readonly") == 0 || strcmp (arg, "--read-only") == 0;
  if (arg[0] != '-')
    return false;
  for (const char *p = arg + 1; *p && !strchr (with_value, *p); p++)
    if (*p == 'r')
      return true;
  return false;
}

static bool
nbdkit_is_readonly (void)
{
  FILE *fp = fopen ("/proc/self/cmdline", "re");
  char *arg = NULL;
  size_t size = 0;
  bool found = false;

  while (fp && !found && getdelim (&arg, &size, '\0', fp) > 0) {
    if (strcmp (arg, "--") == 0)
      break;
    found = is_readonly_option (arg);
  }
  free (arg);
  if (fp)
    fclose (fp);
  return found;
}

int
params_complete (void)
{
  if (backing == NULL) {
    nbdkit_error ("no disk is named: give backing=DISK");
    return -1;
  }
  params.backing = backing;
  params.spare = spare;
  params.control = control;
  params.readonly = nbdkit_is_readonly ();
  return 0;
}
