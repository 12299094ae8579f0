#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# File systems of a real kernel on /dev/nbd0, over bad sectors: made, used
# while more sectors go bad, mounted anew, checked. None of it meets an error.

. "$(dirname "$0")/guest.bash"

if on_host; then
    begin_guest
    guest_add_program dmsetup e2fsck filefrag mkfs.ext4 mkfs.xfs nbd-client xfs_repair
    guest_add_module dm-mod ext4 loop nbd xfs
    guest_run "$0"
    exit
fi

begin_in_guest
make_files first 18
make_files second 18
head -c 4000000 /dev/urandom > old
head -c 4000000 /dev/urandom > new

# use_file_system TYPE SIZE
use_file_system ()
{
    local type=$1 size=$2 bad before range sector
    bad=(1000-1001)
    for ((sector = 2345; sector < 8000; sector += 307)); do
        bad+=("$sector")
    done

    part "$type: made over bad sectors"
    make_disk "$type" "$size" "${bad[@]}"
    start_server "$type" backing="/dev/mapper/$type" spare="$type.store"
    attach "$type"
    make_file_system "$type"
    mount -t "$type" "$nbd" /mnt
    cp old /mnt/old             # over the bad ones, where it can be
    mkdir /mnt/files
    cp -r first /mnt/files/
    drop_caches
    cmp old /mnt/old
    diff -r first /mnt/files/first
    before=$(away "$type.store")
    [ "$before" -gt 0 ] || fail "no sector was remapped"

    part "$type: more sectors go bad while it is mounted"
    # Those below a file, which is then written anew in its place.
    for range in $(sectors_of /mnt/old); do
        for ((sector = ${range%-*}; sector <= ${range#*-}; sector += 50)); do
            bad+=("$sector")
        done
    done
    change_disk "$type" "${bad[@]}"
    dd if=new of=/mnt/old conv=notrunc bs=64k status=none
    cp -r second /mnt/files/
    drop_caches
    cmp new /mnt/old
    diff -r second /mnt/files/second
    say "$before sectors were remapped before, now $(away "$type.store")"
    [ "$(away "$type.store")" -gt "$((before + 100))" ] ||
        fail "too few sectors were remapped later"

    part "$type: checked, and mounted anew"
    umount /mnt
    check_file_system "$type"
    mount -t "$type" "$nbd" /mnt
    cmp new /mnt/old
    diff -r first /mnt/files/first
    diff -r second /mnt/files/second

    part "$type: what is free is discarded, and used again"
    rm -r /mnt/files/first
    fstrim /mnt
    cp -r first /mnt/files/third
    umount /mnt
    check_file_system "$type"
    mount -t "$type" -o ro "$nbd" /mnt
    cmp new /mnt/old
    diff -r second /mnt/files/second
    diff -r first /mnt/files/third
    umount /mnt
    equal "the number of lost sectors" "$(lost "$type.store")" 0

    detach
    stop_server "$type"
    remapctl check "$type.store"
    remove_disk "$type"
    rm "$type.medium"
}

# Tables of inodes, which some of the bad sectors are in, are not left for later.
make_file_system ()
{
    case $1 in
        ext4) mkfs.ext4 -q -E lazy_itable_init=0 "$nbd" ;;
        xfs) mkfs.xfs -q -f "$nbd" ;;
    esac
}

check_file_system ()
{
    case $1 in
        ext4) e2fsck -fn "$nbd" ;;
        xfs) xfs_repair -n "$nbd" ;;
    esac > fsck.log 2>&1 || fail "$1 is damaged"
}

use_file_system ext4 32M
use_file_system xfs 320M
end_in_guest
