#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# dm-flakey: a disk that answers nothing every other second, and one that takes
# no writes and then does again. Whoever writes until there is success, finds
# all of it again; few sectors, or none, are blamed for it.

. "$(dirname "$0")/guest.bash"

if on_host; then
    begin_guest
    guest_add_program dmsetup nbd-client
    guest_add_module dm-flakey dm-mod loop nbd
    guest_run "$0"
    exit
fi

begin_in_guest
disk_sectors=32768
head -c $((disk_sectors * 512)) /dev/urandom > disk.medium
cp disk.medium expected
make_disk disk $((disk_sectors * 512)) 1000-1001
modprobe dm-flakey

# make_flakey UP DOWN [FEATURE...]: seconds.
make_flakey ()
{
    local up=$1 down=$2
    shift 2
    echo "0 $disk_sectors flakey ${device_of[disk]} 0 $up $down $# $*" |
        load_table disk
}

breaker_is ()
{
    [ "$(status_of store breaker)" = "$1" ]
}

# write_at SECTOR: 128 of them.
write_at ()
{
    write_sectors "$1" 128 < new 2>> write.log
}

# rewrite SECTOR: until it succeeds.
rewrite ()
{
    head -c 65536 /dev/urandom > new
    dd if=new of=expected conv=notrunc bs=64k seek=$(($1 / 128)) status=none
    if ! write_at "$1"; then
        nr_failed=$((nr_failed + 1))
        wait_until "sector $1 to be written" write_at "$1"
    fi
}

flush ()
{
    dd of="$nbd" conv=fsync,notrunc count=0 status=none 2>> flush.log
}

start_server remap backing=/dev/mapper/disk spare=store
attach remap
nr_failed=0
rewrite 896
equal "the number of remapped sectors" "$(remapped store)" 2

part "no answer every other second"
make_flakey 1 1
for ((n = 0; n < 1000 && nr_failed < 3; n++)); do
    rewrite $((n * 37 % 256 * 128))
done
change_disk disk 1000-1001
wait_until "the breaker to close" breaker_is closed
cmp <(read_sectors 0 $disk_sectors) expected
say "$nr_failed of $n writes failed, $(remapped store) sectors are remapped"
equal "the writes that failed" $nr_failed 3
# An answer that comes between a write and the look at the rest of the disk.
[ "$(remapped store)" -le $((2 + 128 * nr_failed)) ] ||
    fail "the sectors are blamed"
equal "the number of lost sectors" "$(lost store)" 0

part "no writes, but reads"
list=$(remapctl list --csv store)
make_flakey 0 1 error_writes
head -c 65536 /dev/urandom > new
should_fail write_at 10240
should_fail write_at 20480
wait_until "the breaker to see it" breaker_is read-only
cmp <(read_sectors 0 10240) <(sectors expected 0 10240)
cmp <(read_sectors 20608 12160) <(sectors expected 20608 12160)
equal "what is remapped and lost" "$(remapctl list --csv store)" "$list"
change_disk disk 1000-1001
wait_until "the breaker to close" breaker_is closed
rewrite 10240
rewrite 20480
cmp <(read_sectors 0 $disk_sectors) expected
flush

part "a flush that failed is not forgotten"
rewrite 0
make_flakey 0 1 error_writes
should_fail flush
change_disk disk 1000-1001
should_fail flush
equal "flush_failed" "$(status_of store flush_failed)" true
detach
stop_server remap
start_server remap backing=/dev/mapper/disk spare=store
attach remap
flush
equal "flush_failed" "$(status_of store flush_failed)" false
cmp <(read_sectors 0 $disk_sectors) expected

detach
stop_server remap
remapctl check store
remove_disk disk
allowed='nbd0, (sector|logical)' end_in_guest
