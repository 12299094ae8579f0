#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# ext4 with small blocks on a disk whose sectors go bad while files are written,
# read, moved and removed at random: every byte is what it should be.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/fsx.bash"

fs=ext4
fs_bytes=$((64 << 20))

make_fs ()
{
    mkfs.ext4 -q -F -b 1024 -J size=4 \
        -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$1"
}

check_fs ()
{
    e2fsck -f -n "$1"
}

mount_fs ()
{
    mount -t ext4 -o errors=remount-ro,discard "$1" "$2"
}

run_fsx_test mkfs.ext4 e2fsck
