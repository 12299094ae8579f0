#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Sectors that are bad before the disk is opened, in a real kernel: dm-error
# below the plugin, /dev/nbd0 above it. Opening such a disk once hung for ever.
# Here the start is as quick as any, a bad sector is seen when it is met and
# remapped at once, and the analysis follows.

. "$(dirname "$0")/guest.bash"

if on_host; then
    begin_guest
    guest_add_program dmsetup nbd-client
    guest_add_module dm-mod loop nbd
    guest_run "$0"
    exit
fi

begin_in_guest
disk_sectors=32768
bad=(1000-1001 4096-4103)
for ((i = 0; i < 256; i++)); do
    bad+=($((8192 + 64 * i)))
done
bad+=(32766-32767)
nr_bad=268

part "a disk with sectors that were bad before"
head -c $((disk_sectors * 512)) /dev/urandom > disk.medium
cp disk.medium expected
make_disk disk $((disk_sectors * 512)) "${bad[@]}"
start_server remap backing=/dev/mapper/disk spare=store
attach remap
equal "the sectors of $nbd" "$(blockdev --getsz "$nbd")" $disk_sectors

part "each bad sector is seen at once, and no good one is taken for bad"
for sector in 1000 1001 4100 8192 32767; do
    is_unreadable "$sector" || fail "sector $sector can be read"
done
cmp <(read_sectors 0 1000) <(sectors expected 0 1000)
cmp <(read_sectors 1002 3094) <(sectors expected 1002 3094)
cmp <(read_sectors 4104 4088) <(sectors expected 4104 4088)
cmp <(read_sectors 8193 63) <(sectors expected 8193 63)
equal "the number of lost sectors" "$(lost store)" 5

# has_counted read|write N: errors, at least.
has_counted ()
{
    [ "$(status_of store "$1")" -ge "$2" ]
}

part "the analysis follows"
wait_until "the errors to be counted" has_counted read 5

part "a write over bad sectors remaps them, in milliseconds"
# rewrite FIRST COUNT: with something new, on the disk and as expected.
rewrite ()
{
    head -c $(($2 * 512)) /dev/urandom > new
    dd if=new of=expected bs=512 seek="$1" conv=notrunc status=none
    write_sectors "$1" "$2" < new
}
rewrite 1000 2
rewrite 32000 768
equal "the number of remapped sectors" "$(remapped store)" 4
for sector in 4096 4097 4098 4099; do
    before=$(waited_ms write)
    rewrite $sector 1
    took=$(($(waited_ms write) - before))
    say "sector $sector is remapped after $took ms"
    [ "$took" -lt 2000 ] || fail "that is too long"
done
equal "the number of remapped sectors" "$(remapped store)" 8

part "four writers at once, over bad sectors everywhere"
head -c $((disk_sectors * 512)) /dev/urandom > expected
quarter=$((disk_sectors / 4))
for ((i = 0; i < 4; i++)); do
    start writer-$i dd if=expected of="$nbd" oflag=direct bs=64k \
        skip=$((i * quarter / 128)) seek=$((i * quarter / 128)) \
        count=$((quarter / 128))
done
for ((i = 0; i < 4; i++)); do
    wait "${pid_of[writer-$i]}" || fail "writer $i"
    forget writer-$i
done
equal "the number of remapped sectors" "$(remapped store)" $nr_bad
equal "the number of lost sectors" "$(lost store)" 0
cmp <(read_sectors 0 $disk_sectors) expected
wait_until "all errors to be counted" has_counted write $((nr_bad - 5))

part "a start with all of this on the disk"
detach
stop_server remap
start_server remap backing=/dev/mapper/disk spare=store
attach remap
cmp <(read_sectors 0 $disk_sectors) expected
equal "the number of remapped sectors" "$(remapped store)" $nr_bad
equal "the errors of reads" "$(status_of store read)" 0

detach
stop_server remap
remapctl check store
remove_disk disk
allowed='nbd0, (logical block|sector) [0-9]+' end_in_guest
