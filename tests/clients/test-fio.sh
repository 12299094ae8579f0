#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# fio, with ioengine=nbd: all that it writes over bad sectors, it reads back.

. "$(dirname "$0")/support.bash"
begin fio nbdkit nbdfuse

disk_bytes=$((64 << 20))
bad='1000-1001 9003 40000-40007 70000 100000 131071'

# run_fio NAME OPTION...: fails where anything that was read is not what was
# written; fio ends with an error then.
run_fio ()
{
    local name=$1
    shift
    fio --name="$name" --ioengine=nbd --uri="$(uri_of remap)" \
        --output="fio-$name.log" \
        --size=$((disk_bytes / 4)) --offset_increment=$((disk_bytes / 4)) \
        --numjobs=4 --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
        --group_reporting "$@" ||
        fail "fio $name"
}

faults=()
for range in $bad; do
    faults+=("both $range")
done
start_disk disk $disk_bytes "${faults[@]}"
start_server remap backing=disk.img

part "four jobs, at random, each sector once"
run_fio random --rw=randwrite --bsrange=512-64k --blockalign=512 \
    --iodepth=8
equal "the number of remapped sectors" "$(remapped disk.img)" 14
equal "the number of lost sectors" "$(lost disk.img)" 0

part "four jobs, one after the other, over the remapped sectors"
run_fio sequential --rw=write --bs=128k --iodepth=4

part "the same data after a kill and a restart"
kill_server remap
start_server remap backing=disk.img
run_fio sequential --rw=write --bs=128k --iodepth=4 --verify_only=1

part "reads and writes, mixed"
run_fio mixed --rw=randrw --rwmixread=70 --bs=4k --iodepth=16 --fsync=8
equal "the number of remapped sectors" "$(remapped disk.img)" 14
stop_server remap
