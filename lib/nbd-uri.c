/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "nbd-uri.h"

/* Parts of a URI, none with an end of its own. */
struct part {
  const char *begin;
  size_t n;
};

struct uri_parts {
  struct part scheme, user, host, port, path, query;
};

bool
nbd_uri_is_one (const char *text)
{
  size_t n = 0;

  while (isalnum ((unsigned char) text[n]) || (n > 0 && text[n] == '+'))
    n++;
  return n > 0 && strncmp (text + n, "://", 3) == 0;
}

static bool
part_is (struct part p, const char *text)
{
  return p.n == strlen (text) && memcmp (p.begin, text, p.n) == 0;
}

/* "[user@]host[:port]", host perhaps an IPv6 address in brackets. */
static void
split_authority (struct part all, struct uri_parts *ret)
{
  const char *at = memrchr (all.begin, '@', all.n), *colon;

  ret->user = ret->port = (struct part) { all.begin, 0 };
  if (at) {
    ret->user.n = (size_t) (at - all.begin);
    all.n -= ret->user.n + 1;
    all.begin = at + 1;
  }
  ret->host = all;
  colon = memrchr (all.begin, ':', all.n);
  if (colon && memchr (colon, ']', (size_t) (all.begin + all.n - colon)))
    colon = NULL;
  if (colon) {
    ret->host.n = (size_t) (colon - all.begin);
    ret->port = (struct part) { colon + 1, all.n - ret->host.n - 1 };
  }
}

static void
split (const char *uri, struct uri_parts *ret)
{
  const char *p = strstr (uri, "://");
  struct part authority;

  ret->scheme = (struct part) { uri, (size_t) (p - uri) };
  p += 3;
  authority = (struct part) { p, strcspn (p, "/?#") };
  split_authority (authority, ret);
  p += authority.n;
  ret->path = (struct part) { p, strcspn (p, "?#") };
  p += ret->path.n;
  if (*p == '?')
    p++;
  ret->query = (struct part) { p, strcspn (p, "#") };
}

/* The next "KEY=VALUE" of a query, which is shortened by it. */
static bool
next_parameter (struct part *query, struct part *ret_key,
                struct part *ret_value)
{
  const char *equals;

  while (query->n > 0 && (*query->begin == '&' || *query->begin == ';'))
    *query = (struct part) { query->begin + 1, query->n - 1 };
  if (query->n == 0)
    return false;
  ret_key->begin = query->begin;
  for (ret_key->n = 0; ret_key->n < query->n &&
         query->begin[ret_key->n] != '&' && query->begin[ret_key->n] != ';';
       ret_key->n++)
    ;
  *query = (struct part) { query->begin + ret_key->n, query->n - ret_key->n };
  equals = memchr (ret_key->begin, '=', ret_key->n);
  *ret_value = (struct part) { query->begin, 0 };
  if (equals) {
    ret_value->begin = equals + 1;
    ret_value->n = (size_t) (ret_key->begin + ret_key->n - equals - 1);
    ret_key->n = (size_t) (equals - ret_key->begin);
  }
  return true;
}

static bool
is_path (struct part key)
{
  return part_is (key, "socket") || part_is (key, "tls-psk-file") ||
    part_is (key, "tls-certificates");
}

/* The folder of this process, with what URIs do not bear as %XX. */
static void
print_folder (FILE *fp)
{
  CLEANUP_FREE char *folder = getcwd (NULL, 0);

  for (const char *p = folder ? folder : ""; *p; p++)
    if (isalnum ((unsigned char) *p) || strchr ("/-._~", *p))
      fputc (*p, fp);
    else
      fprintf (fp, "%%%02X", (unsigned char) *p);
  fputc ('/', fp);
}

static void
print_absolute (const char *uri, const struct uri_parts *parts, FILE *fp)
{
  struct part query = parts->query, key, value;
  const char *copied = uri;

  while (next_parameter (&query, &key, &value)) {
    bool is_absolute = value.n == 0 || value.begin[0] == '/' ||
      (value.n >= 3 && strncasecmp (value.begin, "%2f", 3) == 0);

    if (!is_path (key) || is_absolute)
      continue;
    fwrite (copied, 1, (size_t) (value.begin - copied), fp);
    print_folder (fp);
    copied = value.begin;
  }
  fputs (copied, fp);
}

/* A password with a '/' in it looks like a port up to there. */
static bool
is_port (struct part p)
{
  for (size_t i = 0; i < p.n; i++)
    if (!isdigit ((unsigned char) p.begin[i]))
      return false;
  return true;
}

static int
check_secrets (const struct uri_parts *parts)
{
  if (memchr (parts->user.begin, ':', parts->user.n))
    return set_error (EINVAL, "an NBD URI has no password: give "
                      "nbds://USER@HOST/?tls-psk-file=PATH, with the key in "
                      "that file");
  if (!is_port (parts->port))
    return set_error (EINVAL, "the port of an NBD URI is no number: give "
                      "nbd://HOST:PORT/EXPORT");
  return 0;
}

int
nbd_uri_check_secrets (const char *name)
{
  struct uri_parts parts;

  if (!nbd_uri_is_one (name))
    return 0;
  split (name, &parts);
  return check_secrets (&parts);
}

static int
check (const char *uri, const struct uri_parts *parts)
{
  static const char *const schemes[] = {
    "nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock",
  };

  if (check_secrets (parts) == -1)
    return -1;
  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (part_is (parts->scheme, schemes[i]))
      return 0;
  return set_error (EINVAL, "%s: there is no such scheme of NBD: use "
                    "nbd://HOST, nbds://HOST or nbd+unix:///?socket=PATH", uri);
}

char *
nbd_uri_absolute (const char *uri)
{
  struct uri_parts parts;
  char *text = NULL;
  size_t size;
  FILE *fp;

  split (uri, &parts);
  if (check (uri, &parts) == -1)
    return NULL;
  fp = open_memstream (&text, &size);
  if (fp)
    print_absolute (uri, &parts, fp);
  if (fp == NULL || fclose (fp) == EOF) {
    free (text);
    set_error (ENOMEM, "no memory");
    return NULL;
  }
  return text;
}

/* The part, with each %XX as the byte it stands for. */
static void
print_decoded (FILE *fp, struct part p)
{
  for (size_t i = 0; i < p.n; i++) {
    unsigned byte;

    if (p.begin[i] == '%' && p.n - i > 2 &&
        sscanf (p.begin + i + 1, "%2x", &byte) == 1) {
      fputc ((int) byte, fp);
      i += 2;
    }
    else
      fputc (p.begin[i], fp);
  }
}

/* To free.  NULL: no memory. */
static char *
decoded (struct part p)
{
  char *text = NULL;
  size_t size;
  FILE *fp = open_memstream (&text, &size);

  if (fp)
    print_decoded (fp, p);
  if (fp == NULL || fclose (fp) == EOF) {
    free (text);
    return NULL;
  }
  return text;
}

/* The name of a host is the same in any case of its letters. */
static void
print_host (FILE *fp, struct part p)
{
  CLEANUP_FREE char *name = decoded (p);

  for (char *c = name; c && *c; c++)
    fputc (*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c, fp);
}

/* The folder of a socket may have several names, by links: one is the real one,
 * as far as there is such a folder now.
 */
static void
print_socket (FILE *fp, struct part p)
{
  CLEANUP_FREE char *path = decoded (p), *real = NULL;
  char *end = path ? path + strlen (path) : NULL;

  while (real == NULL && end && end > path) {
    char *slash = memrchr (path, '/', (size_t) (end - path));

    if (slash == NULL || slash == path)
      break;
    *slash = '\0';
    real = realpath (path, NULL);
    *slash = '/';
    end = slash;
  }
  if (real)
    fputs (strcmp (real, "/") == 0 ? "" : real, fp);
  fputs (real ? end : path ? path : "", fp);
}

static struct part
socket_of (const struct uri_parts *parts)
{
  struct part query = parts->query, key, value, found = { "", 0 };

  while (next_parameter (&query, &key, &value))
    if (part_is (key, "socket"))
      found = value;
  return found;
}

/* Transport, host and port or socket, and export, with zero bytes between. */
static void
print_place (FILE *fp, const struct uri_parts *parts)
{
  bool is_unix = memmem (parts->scheme.begin, parts->scheme.n, "unix", 4);
  bool is_vsock = memmem (parts->scheme.begin, parts->scheme.n, "vsock", 5);

  fputs (is_unix ? "unix" : is_vsock ? "vsock" : "", fp);
  if (is_unix || is_vsock)
    fputc ('\0', fp);
  if (is_unix)
    print_socket (fp, socket_of (parts));
  else {
    print_host (fp, parts->host.n > 0 ? parts->host
                : is_vsock ? (struct part) { "2", 1 }
                : (struct part) { "localhost", 9 });
    fputc ('\0', fp);
    print_decoded (fp, parts->port.n > 0 ? parts->port
                   : (struct part) { "10809", 5 });
  }
  fputc ('\0', fp);
  if (parts->path.n > 0)
    print_decoded (fp, (struct part) { parts->path.begin + 1,
                                       parts->path.n - 1 });
}

/* FNV-1a: tells names apart that look the same as file names. */
static uint64_t
checksum (const char *text, size_t n)
{
  uint64_t sum = UINT64_C (0xcbf29ce484222325);

  for (size_t i = 0; i < n; i++)
    sum = (sum ^ (unsigned char) text[i]) * UINT64_C (0x100000001b3);
  return sum;
}

void
nbd_uri_id (const char *uri, char *ret, size_t size)
{
  CLEANUP_FREE char *place = NULL;
  struct uri_parts parts;
  size_t n = 0, k;
  FILE *fp = open_memstream (&place, &n);
  char sum[24];

  ret[0] = '\0';
  split (uri, &parts);
  if (fp)
    print_place (fp, &parts);
  if (fp == NULL || fclose (fp) == EOF || size < 64)
    return;
  snprintf (sum, sizeof sum, "-%016llx",
            (unsigned long long) checksum (place, n));
  k = (size_t) snprintf (ret, size, "nbd-");
  for (size_t i = 0; i < n && k + sizeof sum < size; i++) {
    unsigned char c = (unsigned char) place[i];

    if (c == '\0')
      c = '-';
    ret[k++] = isalnum (c) || strchr (".-", c) ? (char) c : '_';
  }
  while (k > 0 && strchr ("-_", ret[k - 1]))
    k--;
  snprintf (ret + k, size - k, "%s", sum);
}
