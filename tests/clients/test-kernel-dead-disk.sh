#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The whole disk turns to errors under a mounted file system, and comes back:
# no spare is spent, nothing is lost, and then it goes on.

. "$(dirname "$0")/guest.bash"

if on_host; then
    begin_guest
    guest_add_program dmsetup e2fsck mkfs.ext4 nbd-client
    guest_add_module dm-mod ext4 loop nbd
    guest_run "$0"
    exit
fi

begin_in_guest
bad=(1000-1001)
for ((i = 2000; i < 60000; i += 200)); do
    bad+=("$i")
done
make_files first 16
make_files second 16
make_disk disk 32M "${bad[@]}"
start_server remap backing=/dev/mapper/disk spare=store
attach remap
# What is left to be done later would be written when the disk dies.
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$nbd"
mount -t ext4 "$nbd" /mnt
cp -r first /mnt/
drop_caches

breaker_is ()
{
    [ "$(status_of store breaker)" = "$1" ]
}

part "the disk dies"
[ "$(remapped store)" -gt 0 ] || fail "no sector was remapped"
kill_disk disk
list=$(remapctl list --csv store)
should_fail dd if=/dev/urandom of=/mnt/file bs=64k count=64 conv=fsync
should_fail read_sectors 20000 256 > /dev/null
should_fail read_sectors 40000 64 > /dev/null
head -c 65536 /dev/zero | should_fail write_sectors 65408 128
wait_until "the breaker to open" breaker_is open
equal "what is remapped and lost" "$(remapctl list --csv store)" "$list"

part "it comes back"
umount /mnt
change_disk disk "${bad[@]}"
wait_until "the breaker to close" breaker_is closed
equal "what is remapped and lost" "$(remapctl list --csv store)" "$list"
status=0
e2fsck -fp "$nbd" > fsck.log 2>&1 || status=$?
[ "$status" -le 1 ] || fail "the file system is damaged"
mount -t ext4 "$nbd" /mnt
diff -r first /mnt/first

part "it goes on"
before=$(remapped store)
cp -r second /mnt/
umount /mnt
e2fsck -fn "$nbd" > fsck.log 2>&1 || fail "the file system is damaged"
mount -t ext4 -o ro "$nbd" /mnt
diff -r first /mnt/first
diff -r second /mnt/second
umount /mnt
[ "$(remapped store)" -gt "$before" ] || fail "no sector was remapped"
equal "the number of lost sectors" "$(lost store)" 0

detach
stop_server remap
remapctl check store
remove_disk disk
allowed='nbd0' end_in_guest
