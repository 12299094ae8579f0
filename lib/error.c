/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static _Thread_local char error_text[1024];
static _Thread_local int error_errno;

int
set_error (int err, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (error_text, sizeof error_text, fmt, args);
  va_end (args);
  error_errno = err;
  errno = err;
  return -1;
}

const char *
last_error_text (void)
{
  return error_text;
}

int
last_error_errno (void)
{
  return error_errno;
}

const char *
errno_text (int err)
{
  const char *text = strerrordesc_np (err);

  return text ? text : "unknown error";
}
