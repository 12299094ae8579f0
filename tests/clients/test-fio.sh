#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# fio, with ioengine=nbd: all that it writes over bad sectors, it reads back.
# Each job has a connection of its own, and its own part of the disk.

. "$(dirname "$0")/support.bash"
begin fio jq nbdkit nbdfuse remapctl

disk_bytes=$((64 << 20))
sectors=$((disk_bytes / 512))
bad='1000-1001 9003 40000-40007 70000 100000 131071'
nr_bad=14

# fio_job NAME OPTION...: fails where anything that is read is not what was
# written; fio ends with an error then.
fio_job ()
{
    local name=$1
    shift
    fio --name="$name" --ioengine=nbd --uri="$(uri_of remap)" \
        --output="fio-$name.log" --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 --group_reporting "$@"
}

# Four times the same, each on a quarter of the disk.
fio_jobs ()
{
    fio_job "$@" --numjobs=4 --size=$((disk_bytes / 4)) \
        --offset_increment=$((disk_bytes / 4))
}

run_fio ()
{
    fio_jobs "$@" || fail "fio $1"
}

# A job of each kind, at the same time.
write_job_file ()
{
    cat > all.fio <<END
[global]
ioengine=nbd
uri=$(uri_of remap)
size=16m
verify=crc32c
verify_fatal=1
verify_state_save=0

[random]
rw=randwrite
bsrange=512-64k
blockalign=512
iodepth=16

[sequential]
offset=16m
rw=write
bs=128k
iodepth=4
end_fsync=1

[mixed]
offset=32m
rw=randrw
rwmixread=70
bs=4k
iodepth=16
fsync=8

[rewritten]
offset=48m
rw=randwrite
blockalign=512
bssplit=512/30:1k/20:3584/30:7k/20
iodepth=8
loops=2
END
}

restart ()
{
    kill_server remap
    start_server remap "${parameters[@]}"
}

remapped_is ()
{
    equal "the number of remapped sectors" "$(away store)" "$1"
    equal "the number of lost sectors" "$(lost store)" 0
}

# requests OP: that the disk was asked for.
requests ()
{
    grep -c "^$1 " disk.requests || :
}

faults=()
for range in $bad; do
    faults+=("both $range")
done

start_disk disk $disk_bytes "${faults[@]}"
parameters=(backing=disk.img spare=store "logfile=$test_dir/connections")
nbdkit_options=--filter=log
start_server remap "${parameters[@]}"

part "four jobs, at random, each sector once"
run_fio random --rw=randwrite --bsrange=512-64k --blockalign=512 --iodepth=8
remapped_is $nr_bad
# One connection before, to ask for the size.
[ "$(grep -c ' Connect ' connections)" -ge 4 ] ||
    fail "$(grep -c ' Connect ' connections) connections"

part "the same data after a kill"
restart
run_fio random --rw=randwrite --bsrange=512-64k --blockalign=512 --iodepth=8 \
    --verify_only=1

part "four jobs, one block after the other"
run_fio sequential --rw=write --bs=128k --iodepth=4
restart
run_fio sequential --rw=write --bs=128k --iodepth=4 --verify_only=1
remapped_is $nr_bad

part "jobs of all kinds at the same time"
nbdkit_options=
parameters=(backing=disk.img spare=store)
restart
write_job_file
before=$(requests f)
fio --output=fio-all.log all.fio || fail "fio all.fio"
# 4096 blocks, of which 30 in 100 are written, and a flush for 8 of these.
[ "$(requests f)" -ge $((before + 100)) ] || fail "flushes are missing"
remapped_is $nr_bad

# The disk is slow until the sectors turn bad, so that it is not all over then.
# Each sector is written twice.
part "sectors turn bad, while it writes"
set_faults disk "${faults[@]}" "both 0-$((sectors - 1)) errno=0 delay-ms=10"
before=$(requests w)
start fio fio_jobs turning --rw=randwrite --bs=16k --iodepth=4 --loops=2
has_written ()
{
    [ "$(requests w)" -gt $((before + 100)) ]
}
wait_until "fio to write" has_written
for ((sector = 300; sector < sectors; sector += 3000)); do
    faults+=("write $sector-$((sector + sector % 5))")
    nr_bad=$((nr_bad + sector % 5 + 1))
done
for range in 20000-20063 52000-52031 130000-130007; do
    faults+=("write $range")
done
nr_bad=$((nr_bad + 64 + 32 + 8))
set_faults disk "${faults[@]}"
wait "${pid_of[fio]}" || fail "fio: $(cat fio-turning.log)"
forget fio
remapped_is $nr_bad
restart
run_fio turning --rw=randwrite --bs=16k --iodepth=4 --verify_only=1

part "fio would notice"
stop_server remap
printf '%s' "not what was written" |
    dd of=disk.medium bs=1 seek=$((60000 * 512)) conv=notrunc status=none
start_server remap "${parameters[@]}"
# With one request at a time: some versions of nbdkit (1.32) abort if a client
# goes with several under way.
should_fail fio_jobs turning --rw=randwrite --bs=16k --iodepth=1 \
    --verify_only=1 2> fio-error.log
grep -q 'verify' fio-error.log fio-turning.log || fail "$(cat fio-error.log)"

part "reads of lost sectors, and of no others, fail"
set_faults disk "${faults[@]}" 'read 3000-3001' 'read 80000'
# When they are met, and when they are known.
for n in 1 2; do
    fio --name=lost --ioengine=nbd --uri="$(uri_of remap)" --rw=randread \
        --bs=4k --iodepth=8 --size=$disk_bytes --continue_on_error=read \
        --output-format=json --output=fio-lost.json > /dev/null 2>&1 || :
    equal "the reads that failed, time $n" \
        "$(jq '.jobs[0].total_err' fio-lost.json)" 2
    equal "their error" "$(jq '.jobs[0].first_error' fio-lost.json)" 5
    equal "the reads" "$(jq '.jobs[0].read.total_ios' fio-lost.json)" \
        $((disk_bytes / 4096))
done
equal "the number of lost sectors" "$(lost store)" 3
run_fio again --rw=randwrite --bs=8k --iodepth=8
equal "the number of lost sectors" "$(lost store)" 0
stop_server remap
stop_disk disk

# A disk that can discard: what is discarded, is zero.
part "trim"
rm -f store disk.medium
faults=()
for range in $bad; do
    faults+=("all $range")
done
start_disk disk $disk_bytes "${faults[@]}"
parameters=("backing=nbd+unix:///?socket=$test_dir/disk-medium.sock"
    spare="$test_dir/store")
start_server remap "${parameters[@]}"
run_fio written --rw=randwrite --bs=16k --iodepth=8
remapped_is 14
run_fio trimmed --rw=randtrim --bs=16k --iodepth=8 --verify=0
[ "$(requests t)" -ge $((disk_bytes / 16384)) ] || fail "$(requests t) trims"
restart
run_fio zeroes --rw=write --bs=64k --iodepth=4 --verify=pattern \
    --verify_pattern=0x00 --verify_only=1
remapped_is 14
# One after the other: with more in flight, the trim may be the last.
part "trim, and a write to the same place"
run_fio trimwrite --rw=trimwrite --bs=32k --iodepth=1
remapped_is 14
stop_server remap
remapctl check store > /dev/null
