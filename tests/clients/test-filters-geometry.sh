#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdkit's filters that give the disk another shape, blocksize, partition and
# truncate, on top of the plugin, over bad sectors: the right bytes at the right
# place, sizes, ends, and errors that go through.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/twin.bash"
begin nbdkit nbdfuse nbdcopy nbdinfo qemu-io sfdisk

bytes=$((16 << 20))

part "blocksize: blocks of 4 KiB of a disk of an odd size"
start_twins block $((bytes + 700)) 'both 1000-1001' 'write 3000' 'read 5000' \
    'both 24000-24003' 'both 32768-32769' 'write 14000-14003'
nbdkit_options=--filter=blocksize start_server remap backing=block.img \
    minblock=4K maxdata=64K maxlen=1M
truncate -s $bytes twin.img             # the last block is not whole
# Its neighbours in the block can be read, 5000 cannot.
io_fails "$eio" "write -D 1 5001s 512"
equal "the number of lost sectors" "$(lost block.img)" 1
both_io "write -D 2 5000s 4k"
both_io "write -D 3 992s 1m" "write -D 4 1003s 100" "write -D 5 3001s 700" \
    "write -z 11M 3M" "write -D 6 $((24001 * 512 + 7)) 300" \
    "write -f -D 7 13000s 513" "write -f -D 8 2M 300k" \
    "write -D 9 14000s 4s"
durable block $((13000 * 512))
durable block $((2 << 20))
server_io flush
compare_twin remap
equal "the number of requests of more than 64 KiB" \
    "$(awk '$1 ~ /[rw]/ && $3 > 65536 { n++ } END { print n + 0 }' \
        block.requests)" 0
equal "the number of lost sectors" "$(lost block.img)" 0
stop_server remap
start_server remap backing=block.img
equal "the number of remapped sectors" "$(remapped block.img)" 12
# The end, which the filter has hidden.
server_io "write -D 9 $bytes 700"
io_of twin.img "truncate $((bytes + 700))" "write -D 9 $bytes 700"
equal "the number of remapped sectors" "$(remapped block.img)" 14
compare_twin remap
stop_server remap
check_store block.img.remap
stop_disk block
nbdkit_options=--filter=blocksize start_bare block minblock=4K
truncate -s $bytes twin.img
should_have_holes remap
compare_twin remap
stop_server remap

part "partition: the tables themselves are on bad sectors"
start_twins part $bytes 'both 0-1' 'both 4095-4097' 'write 20000' \
    'read 10000 until-write' "both $((bytes / 512 - 1))"
sfdisk --quiet --label=gpt --no-reread twin.img <<'TABLE'
start=4096, size=8192
start=20000, size=2000
TABLE
start_server remap backing=part.img
nbdcopy --flush twin.img "$(uri_of remap)"
compare_twin remap
# What stood at 10000 was written before anyone has read it.
equal "the number of lost sectors" "$(lost part.img)" 0
spare=$(remapped part.img)
[ "$spare" -ge 7 ] || fail "only $spare sectors are remapped"
stop_server remap

# bytes_of FIRST COUNT: of the twin, in sectors
bytes_of ()
{
    dd if=twin.img of=part.twin bs=512 skip="$1" count="$2" status=none
}
for n in 1 2; do
    nbdkit_options=--filter=partition start_server remap \
        backing=part.img partition=$n
    if [ $n = 1 ]; then
        bytes_of 4096 8192
        mark=4096
    else
        bytes_of 20000 2000
        mark=20000
    fi
    compare_twin remap part.twin
    commands=("write -D 1$n 0 1000" "write -f -D 2$n 5000 600k"
        "write -z 300k 30k" flush)
    server_io "${commands[@]}"
    io_of part.twin "${commands[@]}"
    durable part $((mark * 512 + 5000))
    compare_twin remap part.twin
    # Not a byte beyond it.
    should_fail io_of remap "read $(stat -c %s part.twin) 1"
    dd if=part.twin of=twin.img bs=512 seek=$mark conv=notrunc status=none
    stop_server remap
done
start_server remap backing=part.img
compare_twin remap
set_faults part 'read 4200'
nbdkit_options='' stop_server remap
nbdkit_options=--filter=partition start_server remap backing=part.img \
    partition=1
io_fails "$eio" "read $(((4200 - 4096) * 512)) 512"
server_io "read $(((4201 - 4096) * 512)) 512"
stop_server remap
remapctl list --csv part.img | grep -q '^4200,1,lost,' ||
    fail "sector 4200 is not lost"
check_store part.img.remap
stop_disk part

part "truncate: shorter, longer, and rounded"
start_twins trunc $((bytes + 700)) 'both 20479-20481' \
    'both 32768-32769' 'write 14000-14003'
nbdkit_options=--filter=truncate start_server remap backing=trunc.img \
    truncate=10M
cp twin.img long.img
truncate -s 10M twin.img
both_io "write -D 1 20000s 480s" "write -z 7M 2M" \
    "write -D 2 14001s 2s" flush
compare_twin remap
should_fail io_of remap "write 20480s 1s"
equal "the number of remapped sectors" "$(remapped trunc.img)" 3
stop_server remap

# 20480 and 20481 are as bad as ever, and not known yet.
dd if=twin.img of=long.img bs=1M conv=notrunc status=none
mv long.img twin.img
truncate -s 20M twin.img
nbdkit_options=--filter=truncate start_server remap backing=trunc.img \
    truncate=20M
both_io "write -D 2 20470s 30s" "write -z $((bytes - 100)) 3M" \
    "write -D 3 $((bytes - 50)) 750"
compare_twin remap
io_fails "$enospc" "write -D 4 $((bytes + 700)) 1"
io_fails "$enospc" "write -D 5 19M 1M"
stop_server remap
equal "the number of remapped sectors" "$(remapped trunc.img)" 7
truncate -s 17M twin.img
set_faults trunc 'read 32768' 'both 32769' 'read 100'
nbdkit_options=--filter=truncate start_server remap backing=trunc.img \
    round-up=1M
io_fails "$eio" "read 100s 1s"
both_io "write -D 6 100s 1s"
compare_twin remap
stop_server remap
check_store trunc.img.remap
stop_disk trunc
nbdkit_options=--filter=truncate start_bare trunc truncate=18M
truncate -s 18M twin.img
should_have_holes remap
compare_twin remap
stop_server remap
