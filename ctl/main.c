/* SPDX-License-Identifier: BSD-3-Clause */
/* remapctl: ask about a disk that is kept in service by libremap. */
#include <config.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"

static const char help[] =
  "Usage: remapctl status [--json] DISK\n"
  "       remapctl list [--json | --csv] DISK\n"
  "       remapctl check [--repair] [--json] STORE\n"
  "       remapctl dump [--json] STORE\n"
  "\n"
  "Ask about a disk that nbdkit-remap-plugin serves, or its store alone.\n"
  "\n"
  "Commands:\n"
  "  status     what a person wants to know, one screen\n"
  "  list       every sector that is remapped or lost\n"
  "  check      verify a store that no server uses, and repair it if told to\n"
  "  dump       print all that is in a store but data, for a bug report\n"
  "\n"
  "DISK is a disk, its store, or the control socket of its server.\n"
  "\n"
  "Options:\n"
  "  --csv      print comma-separated values (list)\n"
  "  --help     print this, and exit\n"
  "  --json     print JSON\n"
  "  --repair   mend what one good copy can mend (check)\n"
  "  --version  print the version, and exit\n"
  "\n"
  "Exit status of status and list: 0, or 1 on an error.  Of check the sum of:\n"
  "1 damage was repaired, 4 damage is left, 8 it could not be checked or\n"
  "repaired, 16 wrong usage.  Of dump: 0, 8, 16.  remapctl(1) tells more.\n";

static const struct command {
  const char *name;
  int (*run) (const struct options *options);
  int error_status, usage_status;
} commands[] = {
  { "check", command_check, CHECK_ERROR, CHECK_USAGE },
  { "dump", command_dump, CHECK_ERROR, CHECK_USAGE },
  { "list", command_list, STATUS_ERROR, STATUS_ERROR },
  { "status", command_status, STATUS_ERROR, STATUS_ERROR },
};

static const struct option long_options[] = {
  { "csv", no_argument, NULL, 'c' },
  { "help", no_argument, NULL, 'h' },
  { "json", no_argument, NULL, 'j' },
  { "repair", no_argument, NULL, 'r' },
  { "version", no_argument, NULL, 'V' },
  { NULL, 0, NULL, 0 },
};

static const struct command *
find_command (const char *name)
{
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    if (strcmp (name, commands[i].name) == 0)
      return &commands[i];
  return NULL;
}

/* Output that did not get to where it should is an error. */
static int
finish_output (int status, int error_status)
{
  if (fflush (stdout) == 0 && !ferror (stdout))
    return status;
  perror ("remapctl: standard output");
  return error_status;
}

/* Options may stand anywhere (getopt moves them to the front), so which
 * command it is, and its exit status, are known only at the end.  Returns a
 * message, NULL: none; "": getopt has printed one.
 */
static const char *
parse_arguments (int argc, char **argv, struct options *ret,
                 const struct command **ret_command, const char **ret_print)
{
  bool wrong = false;
  int c;

  while ((c = getopt_long (argc, argv, "", long_options, NULL)) != -1)
    switch (c) {
    case 'c': ret->csv = true; break;
    case 'j': ret->json = true; break;
    case 'r': ret->repair = true; break;
    case 'h': *ret_print = help; break;
    case 'V': *ret_print = "remapctl " PACKAGE_VERSION "\n"; break;
    default: wrong = true;
    }
  if (argc - optind > 0)
    *ret_command = find_command (argv[optind]);
  if (wrong)
    return "";
  if (*ret_print)
    return NULL;
  if (argc - optind == 0)
    return "a command is missing";
  if (!*ret_command)
    return "no such command; there are check, dump, list and status";
  if (argc - optind != 2)
    return "a disk is missing, or there is more than one";
  if (ret->csv && (*ret_command)->run != command_list)
    return "--csv is for list only";
  if (ret->repair && (*ret_command)->run != command_check)
    return "--repair is for check only";
  if (ret->csv && ret->json)
    return "one of --csv and --json";
  ret->disk = argv[optind + 1];
  return NULL;
}

int
main (int argc, char **argv)
{
  const struct command *command = NULL;
  const char *print = NULL, *wrong;
  struct options options = { .disk = NULL };

  wrong = parse_arguments (argc, argv, &options, &command, &print);
  if (wrong) {
    if (*wrong)
      fprintf (stderr, "remapctl: %s\n", wrong);
    fprintf (stderr, "Try 'remapctl --help'.\n");
    return command ? command->usage_status : STATUS_ERROR;
  }
  if (print) {
    fputs (print, stdout);
    return finish_output (STATUS_OK, STATUS_ERROR);
  }
  return finish_output (command->run (&options), command->error_status);
}
