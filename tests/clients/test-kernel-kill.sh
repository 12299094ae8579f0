#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The server is killed under a mounted file system that is written to. After a
# restart the journal is replayed, and all that fsync had acknowledged is there.

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
make_disk disk 32M "${bad[@]}"
start_server remap backing=/dev/mapper/disk spare=store
attach remap
mkfs.ext4 -q "$nbd"
mkdir sent
: > acknowledged

# write_files ROUND: until there is an error.
write_files ()
{
    local i
    for ((i = 0; ; i++)); do
        head -c $((RANDOM * 2 + 1)) /dev/urandom > "sent/$1-$i"
        dd if="sent/$1-$i" of="/mnt/$1-$i" bs=64k conv=fsync status=none ||
            return 0
        echo "$1-$i" >> acknowledged
        [ ! -e "/mnt/$1-$((i - 12))" ] || rm "/mnt/$1-$((i - 12))"
    done
}

has_acknowledged ()
{
    [ "$(grep -c "^$1-" acknowledged)" -ge "$2" ]
}

has_ended ()
{
    ! kill -0 "${pid_of[$1]}" 2>/dev/null
}

for round in 1 2 3; do
    part "round $round: killed under a writer"
    mount -t ext4 "$nbd" /mnt
    start writer write_files $round
    wait_until "the writer to get on" has_acknowledged $round 12
    before=$(remapped store)
    kill_server remap
    # Without a -timeout, requests that have no answer wait until then.
    disconnect
    wait_until "the writer to end" has_ended writer
    forget writer
    umount /mnt
    wait_until "$nbd to be free" is_detached

    part "round $round: what was acknowledged is there"
    start_server remap backing=/dev/mapper/disk spare=store
    attach remap
    [ "$(remapped store)" -ge "$before" ] || fail "remaps are forgotten"
    mount -t ext4 "$nbd" /mnt
    tail -n 8 acknowledged > latest
    while read -r name; do
        cmp "sent/$name" "/mnt/$name"
    done < latest
    umount /mnt
    e2fsck -fn "$nbd" > fsck.log 2>&1 || fail "the file system is damaged"
done
say "$(wc -l < acknowledged) files, $(remapped store) sectors remapped"
[ "$(remapped store)" -gt 0 ] || fail "no sector was remapped"
equal "the number of lost sectors" "$(lost store)" 0

detach
stop_server remap
remapctl check store
remove_disk disk
allowed='nbd0' end_in_guest
