#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A SCSI disk with medium errors, as the SCSI layer reports them, with a WWN
# and a serial number, and with nothing said of where the store is. In the end
# it is pulled out.

. "$(dirname "$0")/guest.bash"

first_bad=4660 nr_bad=10        # sectors; scsi_debug counts so, too
disk_sectors=32768
if on_host; then
    begin_guest
    guest_add_program nbd-client
    guest_add_module nbd scsi_debug sd_mod
    guest_run "$0"
    exit
fi

begin_in_guest
modprobe sd_mod
modprobe scsi_debug dev_size_mb=16 opts=2 delay=0 lbprz=0 \
    medium_error_start=$first_bad medium_error_count=$nr_bad
wait_until "the disk to appear" test -b /dev/sda
equal "the sectors of the disk" "$(blockdev --getsz /dev/sda)" $disk_sectors
head -c $((disk_sectors * 512)) /dev/urandom > expected
dd if=expected of=/dev/sda oflag=direct bs=64k status=none

part "it is known by its name"
mkdir -p "$(dirname "$REMAP_STATEDIR")"
start_server remap backing=/dev/sda
attach remap
store=$(status_of /dev/sda store)
equal "the folder of the store" "$(dirname "$store")" "$REMAP_STATEDIR"
[ -n "$(status_of /dev/sda identity)" ] || fail "the disk has no identity"

part "medium errors are errors of these sectors alone"
end_bad=$((first_bad + nr_bad))
for ((sector = first_bad; sector < end_bad; sector++)); do
    is_unreadable "$sector" || fail "sector $sector can be read"
done
cmp <(read_sectors 0 $first_bad) <(sectors expected 0 $first_bad)
cmp <(read_sectors $end_bad 2048) <(sectors expected $end_bad 2048)
equal "the number of lost sectors" "$(lost /dev/sda)" $nr_bad
equal "the number of remapped sectors" "$(remapped /dev/sda)" 0

part "a write heals them"
head -c 512 /dev/urandom > new
write_sectors $((first_bad + 3)) 1 < new
cmp <(read_sectors $((first_bad + 3)) 1) new
equal "the number of lost sectors" "$(lost /dev/sda)" $((nr_bad - 1))
equal "the number of remapped sectors" "$(remapped /dev/sda)" 1
head -c $((nr_bad * 512 + 1024)) /dev/urandom > new
dd if=new of=expected bs=512 seek=$((first_bad - 1)) conv=notrunc status=none
write_sectors $((first_bad - 1)) $((nr_bad + 2)) < new
cmp <(read_sectors 0 $disk_sectors) expected
equal "the number of lost sectors" "$(lost /dev/sda)" 0
equal "the number of remapped sectors" "$(remapped /dev/sda)" $nr_bad

part "and a restart keeps them, by the same name"
detach
stop_server remap
should_fail cmp -s /dev/sda expected
start_server remap backing=/dev/sda
attach remap
equal "the store" "$(status_of /dev/sda store)" "$store"
cmp <(read_sectors 0 $disk_sectors) expected

part "the disk is pulled out: no sector is at fault"
list=$(remapctl list --csv "$store")
echo 1 > /sys/block/sda/device/delete
should_fail write_sectors 2000 16 < expected
should_fail read_sectors 20000 16 > read.log
cmp <(read_sectors $first_bad $nr_bad) \
    <(sectors expected $first_bad $nr_bad)
equal "what is remapped and lost" "$(remapctl list --csv "$store")" "$list"

detach
stop_server remap
remapctl check "$store"
allowed='dev sda|\[sda\]|nbd0, (sector|logical)' end_in_guest
