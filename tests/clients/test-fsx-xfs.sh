#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# XFS on a disk whose sectors go bad while files are written, read, moved and
# removed at random: every byte is what it should be.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/fsx.bash"

fs=xfs
fs_bytes=$((320 << 20))         # it wants 300 MiB

make_fs ()
{
    mkfs.xfs -q -f -K "$1"
}

check_fs ()
{
    xfs_repair -n "$1"
}

mount_fs ()
{
    mount -t xfs -o discard "$1" "$2"
}

run_fsx_test mkfs.xfs xfs_repair
