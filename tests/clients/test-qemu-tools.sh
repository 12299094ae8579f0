#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# qemu-io and qemu-img, over bad sectors, before they are remapped, after, and
# after a kill. (tests/test-qemu-io.c is about single requests; here are many
# at a time, and whole images.)

. "$(dirname "$0")/support.bash"
begin jq nbdkit nbdfuse qemu-img qemu-io remapctl

disk_bytes=$((16 << 20))

# The bad sectors of the beginning: the first one, the last one, on both sides
# of the borders of requests, alone and side by side.
first_faults=('both 0' 'both 511-512' 'write 2040-2055' 'both 9003'
    'all 20000-20007' 'both 32767')
nr_bad=$((1 + 2 + 16 + 1 + 8 + 1))

# io COMMAND...: all of them have to succeed. qemu-io's exit status does not
# tell of aio commands. "7s" means 7 sectors.
io ()
{
    run_io "$@" || fail "qemu-io ended with $?: $(grep failed io.log)"
    no_failure
}

no_failure ()
{
    if grep failed io.log; then
        fail "qemu-io failed"
    fi
}

run_io ()
{
    local arguments=() command
    for command; do
        while [[ $command =~ (.*\ )([0-9]+)s(.*) ]]; do
            command=${BASH_REMATCH[1]}$((BASH_REMATCH[2] * 512))
            command+=${BASH_REMATCH[3]}
        done
        arguments+=(-c "$command")
    done
    # Without -t, it would write each time with FUA.
    qemu-io -t writeback -f raw "${arguments[@]}" "$(uri_of remap)" \
        > io.log 2>&1
}

# io_fails COMMAND: with EIO.
io_fails ()
{
    should_fail run_io "$1"
    grep -q 'Input/output error' io.log || fail "qemu-io: $(cat io.log)"
}

# Of each 256 KiB of the disk, one request.
aio_requests ()
{
    local command=$1 n
    aio=()
    for ((n = 0; n < disk_bytes >> 18; n++)); do
        aio+=("$command -P $((n + 1)) $((n << 8))k 256k")
    done
    aio+=("aio_flush")
}

# are_away FIRST LAST: these and all between them do not live on the disk.
are_away ()
{
    equal "the number of remapped sectors from $1 to $2" \
        "$(away store "$1" "$2")" $(($2 - $1 + 1))
}

restart ()
{
    kill_server remap
    start_server remap "${parameters[@]}"
}

# new_faults FAULT...: beside those that there are.
new_faults ()
{
    faults+=("$@")
    set_faults disk "${faults[@]}"
}

requests_in_flight ()
{
    part "$kind: the whole disk is written and read, many requests at a time"
    aio_requests aio_write
    io "${aio[@]}"
    equal "the number of remapped sectors" "$(remapped store)" $nr_bad
    equal "the number of lost sectors" "$(lost store)" 0
    aio_requests aio_read
    io "${aio[@]}"

    part "$kind: the same after a kill"
    restart
    io "${aio[@]}"
    equal "the number of remapped sectors" "$(remapped store)" $nr_bad

    # Two requests, each with a part of one bad sector that can be read.
    part "$kind: parts of a bad sector, at a time"
    new_faults 'write 12000-12003'
    io "aio_write -P 0xa1 $((12000 * 512 - 100)) 200" \
        "aio_write -P 0xa2 $((12000 * 512 + 100)) 300" \
        "aio_write -P 0xa3 $((12000 * 512 + 400)) 700" \
        "aio_flush" \
        "aio_read -P $((6000 / 256 + 1)) $((12000 * 512 - 512)) 412" \
        "aio_read -P 0xa1 $((12000 * 512 - 100)) 200" \
        "aio_read -P 0xa2 $((12000 * 512 + 100)) 300" \
        "aio_read -P 0xa3 $((12000 * 512 + 400)) 700" \
        "aio_read -P $((6000 / 256 + 1)) $((12000 * 512 + 1100)) 436" \
        "aio_flush"
    equal "the number of remapped sectors" "$(remapped store)" $((nr_bad + 3))

    part "$kind: vectors"
    io "writev -P 0xb1 250k 512 4k 100 8092" \
        "readv -P 0xb1 250k 8092 100 512 4k" \
        "writev -P 1 0 256k" "writev -P 2 256k 256k"
}

# Whatever zeroes, by itself or with unmap: on sectors with a spare, on bad
# ones that have none yet, and on both sides of them.
zeroes ()
{
    local flags first=24000
    for flags in "" -u -f; do
        part "$kind: write -z $flags"
        new_faults "all $first-$((first + 3))"
        io "write -P 0xc1 $((first - 8))s 24s" \
            "write -z $flags $((first + 1))s 10s" \
            "read -P 0xc1 $((first - 8))s 9s" \
            "read -P 0 $((first + 1))s 10s" \
            "read -P 0xc1 $((first + 11))s 5s" \
            "write -z $flags $((first + 40))s 8s" \
            "read -P 0 $((first + 40))s 8s"
        are_away $first $((first + 3))
        first=$((first + 100))
        new_faults "all $first-$((first + 3))"
        io "write -z $flags $((first - 8))s 24s" \
            "read -P 0 $((first - 8))s 24s"
        are_away $first $((first + 3))
        io "write -P 0xc2 $((first + 1))s 1s" \
            "read -P 0xc2 $((first + 1))s 1s" \
            "read -P 0 $((first + 2))s 14s"
        first=$((first + 100))
    done

    # It is all or nothing, and zeroes or an error that says so.
    part "$kind: write -z -n, which may be refused"
    io "write -P 0xc3 $((first - 8))s 24s"
    new_faults "all $first-$((first + 3))"
    if run_io "write -z -n $((first - 8))s 24s"; then
        io "read -P 0 $((first - 8))s 24s"
        are_away $first $((first + 3))
    else
        grep -q 'not supported' io.log || fail "qemu-io: $(cat io.log)"
        set_faults disk
        io "read -P 0xc3 $((first - 8))s 24s"
        set_faults disk "${faults[@]}"
    fi

    # What is discarded reads as what it likes, all else as before.
    part "$kind: discard"
    first=$((first + 100))
    new_faults "all $first-$((first + 3))"
    io "write -P 0xc4 $((first - 8))s 24s" \
        "discard $((first - 4))s 10s" \
        "read -P 0xc4 $((first - 8))s 4s" \
        "read $((first - 4))s 10s" \
        "read -P 0xc4 $((first + 6))s 10s" \
        "write -P 0xc5 $((first - 4))s 10s" \
        "read -P 0xc5 $((first - 4))s 10s"
    are_away $first $((first + 3))
    restart
    io "read -P 0xc4 $((first - 8))s 4s" \
        "read -P 0xc5 $((first - 4))s 10s" \
        "read -P 0xc4 $((first + 6))s 10s"

    # Where there is no spare yet, and the disk cannot be asked.
    part "$kind: discard over bad sectors"
    first=$((first + 100))
    io "write -P 0xc6 $((first - 8))s 24s"
    new_faults "all $first-$((first + 3))"
    io "discard $((first - 4))s 10s" \
        "read -P 0xc6 $((first - 8))s 4s" \
        "read -P 0xc6 $((first + 6))s 10s" \
        "write -P 0xc7 $((first - 4))s 10s" \
        "read -P 0xc7 $((first - 4))s 10s"
    are_away $first $((first + 3))
}

# lines_of_requests COMMAND...: what the medium is asked by a client that does
# this, and is gone without a last flush.
requests_of ()
{
    local before
    before=$(wc -l < disk.requests)
    run_io "$@" "sigraise 9" 2> /dev/null || :
    tail -n "+$((before + 1))" disk.requests
}

# A flush, or FUA with the write itself, comes to the medium.
durability ()
{
    local first=$((6 << 20))
    part "$kind: FUA and flush"
    requests_of "write -P 0xd1 $first 4k" > plain.requests
    requests_of "write -f -P 0xd2 $first 4k" > fua.requests
    requests_of "write -P 0xd3 $first 4k" "flush" > flush.requests
    for name in plain fua flush; do
        grep -q "^w $first 4096 0" $name.requests ||
            fail "no such write: $(cat $name.requests)"
    done
    if grep -q '^f\| fua$' plain.requests; then
        fail "this does not tell: $(cat plain.requests)"
    fi
    grep -q "^w $first 4096 0 fua\|^f" fua.requests ||
        fail "FUA is not durable: $(cat fua.requests)"
    tail -n 1 flush.requests | grep -q '^f 0 0 0' ||
        fail "no flush: $(cat flush.requests)"
    io "read -P 0xd3 $first 4k"
}

bench ()
{
    part "$kind: bench, that writes"
    new_faults 'both 28001-28002' 'write 28100' 'write 28640-28649'
    qemu-img bench -f raw -c 256 -d 32 -s 4k -S 4k -o $((28000 * 512)) \
        -w --pattern=0xe1 --flush-interval=64 "$(uri_of remap)"
    io "read -P 0xe1 28000s 1M"
    # 150 steps of 5 KiB, in no sector's step, one over the other.
    qemu-img bench -f raw -c 150 -d 16 -s 6000 -S 5000 -o $((28000 * 512)) \
        -w --pattern=0xe2 --flush-interval=20 --no-drain "$(uri_of remap)"
    io "read -P 0xe2 28000s $((149 * 5000 + 6000))" \
        "read -P 0xe1 $((28000 * 512 + 149 * 5000 + 6000)) 1k"
    are_away 28001 28002
    are_away 28100 28100
    are_away 28640 28649

    part "$kind: bench, that reads"
    qemu-img bench -f raw -c 512 -d 64 -s 64k -S 20k "$(uri_of remap)"
}

# The image that is copied: data, holes, zeroes that are written, data.
make_source ()
{
    head -c 5M /dev/urandom > source.img
    truncate -s 9M source.img
    head -c 1M /dev/zero >> source.img
    head -c 6M /dev/urandom >> source.img
    equal "the size of the source" "$(stat -c %s source.img)" $disk_bytes
    qemu-img convert -f raw -O qcow2 -c source.img source.qcow2
}

same_as_source ()
{
    qemu-img compare -q -f raw -F raw source.img "$(uri_of remap)" ||
        fail "it is not what was copied: $(qemu-img compare -f raw -F raw \
            source.img "$(uri_of remap)" 2>&1)"
}

convert ()
{
    local target
    target=driver=raw,file.driver=nbd,file.server.type=unix
    target+=,file.server.path=$PWD/remap.sock

    part "$kind: convert to the disk"
    io "write -P 0xf1 0 16M"
    new_faults 'both 5000-5001' 'write 10001' 'write 19000' 'all 16000-16001'
    qemu-img convert -n -f raw -O raw -W -m 16 source.img "$(uri_of remap)"
    same_as_source
    are_away 5000 5001
    are_away 10001 10001
    are_away 16000 16001
    are_away 19000 19000
    restart
    same_as_source

    part "$kind: convert from a compressed qcow2 image"
    io "write -P 0xf2 0 16M"
    new_faults 'both 6000' 'write 20500'
    qemu-img convert -n -f qcow2 --target-image-opts source.qcow2 "$target"
    same_as_source
    are_away 6000 6000
    are_away 20500 20500

    part "$kind: convert from the disk"
    qemu-img convert --image-opts -O qcow2 "$target" copy.qcow2
    qemu-img compare -q -f raw -F qcow2 source.img copy.qcow2 ||
        fail "the copy is not the same"
    qemu-img convert -f raw -O raw -W "$(uri_of remap)" copy.img
    cmp source.img copy.img

    part "$kind: compare sees one byte in a remapped sector"
    io "write -P 0xff $((9003 * 512 + 17)) 1"
    io "write -P 0xfe $((9003 * 512 + 18)) 1"
    local status=0
    qemu-img compare -f raw -F raw source.img "$(uri_of remap)" \
        > compare.log || status=$?
    equal "the exit status of compare" "$status" 1
    grep -q "Content mismatch at offset $((9003 * 512))" compare.log ||
        fail "$(cat compare.log)"
    qemu-img convert -n -f raw -O raw source.img "$(uri_of remap)"
    same_as_source
}

# What cannot be read is an error, and nothing else is.
rescue ()
{
    part "$kind: lost sectors"
    new_faults 'read 30000-30001' 'read 31003'
    cp source.img rescued.img
    dd if=/dev/zero of=rescued.img conv=notrunc bs=512 seek=30000 count=2 \
        status=none
    dd if=/dev/zero of=rescued.img conv=notrunc bs=512 seek=31003 count=1 \
        status=none
    should_fail qemu-img convert -f raw -O raw "$(uri_of remap)" copy.img
    should_fail qemu-img compare -f raw -F raw source.img "$(uri_of remap)"
    qemu-img convert --salvage -f raw -O raw "$(uri_of remap)" copy.img \
        2> salvage.log
    cmp rescued.img copy.img
    equal "the number of lost sectors" "$(lost store)" 3
    io_fails "read 30000s 1s"
    io_fails "read 29990s 20s"
    io_fails "write -P 1 $((30001 * 512 + 1)) 10"

    part "$kind: with on-lost=zero"
    stop_server remap
    start_server remap "${parameters[@]}" on-lost=zero
    qemu-img convert -f raw -O raw "$(uri_of remap)" copy.img
    cmp rescued.img copy.img
    stop_server remap
    start_server remap "${parameters[@]}"

    part "$kind: they are written anew"
    qemu-img convert -n -f raw -O raw source.img "$(uri_of remap)"
    same_as_source
    equal "the number of lost sectors" "$(lost store)" 0
    are_away 30000 30001
    are_away 31003 31003
}

# A qcow2 image right on the disk; qemu writes metadata over bad sectors.
image_on_the_disk ()
{
    local uri
    uri=$(uri_of remap)
    part "$kind: a qcow2 image on the disk"
    new_faults 'write 1-7' 'write 128-131' 'write 256' 'write 384' \
        'write 640-660'
    qemu-img create -q -f qcow2 "$uri" 8M
    qemu-io -f qcow2 -c "write -P 0x41 1M 2M" "$uri" > /dev/null
    qemu-img snapshot -c before "$uri"
    qemu-io -f qcow2 -c "write -P 0x42 2M 2M" -c "discard 1M 64k" "$uri" \
        > /dev/null
    qemu-img check -q -f qcow2 "$uri"
    are_away 128 131
    are_away 256 256
    are_away 384 384
    restart
    qemu-img check -q -f qcow2 "$uri"
    qemu-io -f qcow2 -c "read -P 0x42 2M 2M" "$uri" > io.log
    qemu-img snapshot -a before "$uri"
    qemu-img check -q -f qcow2 "$uri"
    qemu-io -f qcow2 -c "read -P 0x41 1M 2M" -c "read -P 0 3M 1M" "$uri" \
        >> io.log
    no_failure
}

all_of_it ()
{
    requests_in_flight
    zeroes
    durability
    bench
    convert
    rescue
    image_on_the_disk
    stop_server remap
    remapctl check store > /dev/null
}

make_source

# state_of SECTOR: "data" or "hole".
state_of ()
{
    jq -r --argjson at $(($1 * 512)) \
        '.[] | select(.start <= $at and $at < .start + .length)
             | if .data then "data" else "hole" end' map.json
}

# map_is SECTORS STATE...
map_is ()
{
    local sector state
    qemu-img map --output=json -f raw "$(uri_of remap)" > map.json
    equal "what the map covers" "$(jq 'map(.length) | add' map.json)" \
        $disk_bytes
    while [ $# -gt 0 ]; do
        for sector in $(eval "echo $1"); do
            state=$(state_of "$sector")
            equal "sector $sector in the map" "$state" "$2"
        done
        shift 2
    done
}

# Of a disk that knows its holes.
map ()
{
    local all_bad="0 {511..512} {2040..2055} 9003 {20000..20007} 32767"

    part "$kind: the map of an empty disk"
    map_is "$all_bad 1 510 1000 9002 32766" hole

    # Each of them in a hole of the disk.
    part "$kind: the map of remapped sectors"
    for sector in 0 511 512 {2040..2055} 9003 {20000..20007} 32767; do
        io "write -P 0x51 ${sector}s 1s"
    done
    equal "the number of remapped sectors" "$(remapped store)" $nr_bad
    map_is "$all_bad" data "1 510 513 2039 2056 9002 9004 32766" hole
    restart
    map_is "$all_bad" data "1 510 513 2039 2056 9002 9004 32766" hole

    part "$kind: what the map calls holes is not copied"
    qemu-img convert -f raw -O raw -S 0 "$(uri_of remap)" dense.img
    qemu-img convert -f raw -O qcow2 "$(uri_of remap)" sparse.qcow2
    qemu-img compare -q -f raw -F qcow2 dense.img sparse.qcow2 ||
        fail "the map hides data"
    for sector in 0 511 2055 9003 20007 32767; do
        qemu-io -f qcow2 -c "read -P 0x51 $((sector * 512)) 512" \
            sparse.qcow2 > io.log
        no_failure
    done

    part "$kind: the map of lost sectors, and of written ones"
    new_faults 'read 25000' 'read 25003'
    io_fails "read 25000s 4s"
    io "write -P 0x52 26000s 8s"
    map_is "25000 25003 {26000..26007} $all_bad" data "25001 25002" hole
    io "write -P 0x53 25000s 4s" "discard 26000s 8s"
    map_is "{25000..25003} $all_bad" data "{26000..26007}" hole
    io "read -P 0x53 25000s 4s" "read -P 0 26000s 8s"
}

# On FUSE, with the errors of system calls.
kind="file"
faults=("${first_faults[@]}")
start_disk disk $disk_bytes "${faults[@]}"
parameters=(backing=disk.img spare=store)
start_server remap "${parameters[@]}"
all_of_it
stop_disk disk

# The same disk behind NBD, which has trim, zero and holes.
kind=nbd
rm -f store disk.medium
faults=("${first_faults[@]}")
start_disk disk $disk_bytes "${faults[@]}"
parameters=("backing=nbd+unix:///?socket=$test_dir/disk-medium.sock"
    spare="$test_dir/store")
start_server remap "${parameters[@]}"
map
stop_server remap
rm -f store
faults=("${first_faults[@]}")
set_faults disk "${faults[@]}"
start_server remap "${parameters[@]}" new-store=yes
all_of_it
