# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What scripts in a guest have beyond clients/support.bash: disks that fail
# below the plugin, as the kernel has them, and the plugin as /dev/nbdN.

begin_in_guest ()
{
    begin bash nbdkit remapctl
}
