#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdinfo tells what the plugin promises, and nbdcopy copies both ways with
# several connections. (tests/test-nbdcopy.c copies with one command line over
# each kind of disk.)

. "$(dirname "$0")/support.bash"
begin cmp jq nbdcopy nbdfuse nbdinfo nbdkit remapctl

disk_bytes=$((16 << 20))
sectors=$((disk_bytes / 512))
first_faults=('both 0' 'both 511-512' 'write 2040-2055' 'both 9003'
    'all 20000-20007' 'both 30000' "both $((sectors - 1))")
nr_bad=$((1 + 2 + 16 + 1 + 8 + 1 + 1))

# ---------------------------------------------------------------- nbdinfo --

# can WHAT...: by the exit status, 0 or 2, as by what is printed.
can ()
{
    local what
    for what; do
        nbdinfo --can "$what" "$(uri_of remap)" ||
            fail "it cannot do $what: $?"
    done
}

cannot ()
{
    local what status
    for what; do
        status=0
        nbdinfo --can "$what" "$(uri_of remap)" || status=$?
        equal "the exit status of nbdinfo --can $what" $status 2
    done
}

# is FILTER VALUE: of the only export.
is ()
{
    equal "$1" "$(jq -r ".exports[0].$1" info.json)" "$2"
}

promises ()
{
    nbdinfo --json "$(uri_of remap)" > info.json
    equal "the number of exports" "$(jq '.exports | length' info.json)" 1
    equal "structured replies" "$(jq .structured info.json)" true
    is '"export-size"' "$1"
    equal "the size" "$(nbdinfo --size "$(uri_of remap)")" "$1"
    is block_size_minimum 1
    is block_size_maximum $((32 << 20))
    is description "$2, with bad sectors remapped"
    is 'contexts | join(",")' base:allocation
    can multi-conn df
}

info ()
{
    part "nbdinfo: flags and block sizes"
    start_disk disk $disk_bytes "${first_faults[@]}"
    start_server remap backing=disk.img
    promises $disk_bytes "$test_dir/disk.img"
    is block_size_preferred 512
    can connect read write flush fua zero fast-zero trim
    equal "read-only" "$(jq '.exports[0].is_read_only' info.json)" false
    should_fail nbdinfo --is read-only "$(uri_of remap)"
    nbdinfo --list "$(uri_of remap)" > list.log
    equal "the exports listed" "$(grep -c '^export=' list.log)" 1
    # FUSE has no holes, so all is data.
    equal "the map" "$(nbdinfo --map --totals "$(uri_of remap)" |
        awk '{ print $1, $3, $4 }')" "$disk_bytes 0 data"
    stop_server remap

    part "nbdinfo: of a disk that is read only"
    nbdkit_options=-r start_server remap backing=disk.img
    promises $disk_bytes "$test_dir/disk.img"
    nbdinfo --is read-only "$(uri_of remap)"
    cannot write fua zero trim fast-zero
    stop_server remap
    stop_disk disk

    part "nbdinfo: of a disk of an odd size"
    truncate -s 1000001 odd.img
    start_server remap backing=odd.img
    promises 1000001 "$test_dir/odd.img"
    stop_server remap
}

# state_at BYTE: what nbdinfo --map says.
state_at ()
{
    awk -v at="$1" '$1 <= at && at < $1 + $2 { print $4 }' map
}

map_is ()
{
    local sector state=$1
    shift
    for sector; do
        equal "sector $sector in the map" "$(state_at $((sector * 512)))" \
            "$state"
    done
}

# Of a disk with holes.
map ()
{
    local bad=(0 511 512 {2040..2055} 9003 {20000..20007} 30000
        $((sectors - 1))) sector
    part "nbdinfo: the map"
    start_disk disk $disk_bytes "${first_faults[@]}"
    start_server remap "${parameters[@]}"
    nbdinfo --map "$(uri_of remap)" > map
    map_is hole,zero "${bad[@]}" 1 2039
    for sector in "${bad[@]}"; do
        head -c 512 /dev/urandom | tee -a written |
            dd of=sparse.img bs=512 seek="$sector" conv=notrunc status=none
    done
    truncate -s $disk_bytes sparse.img

    part "nbdcopy, sparse, to a disk that is all zero"
    nbdcopy --destination-is-zero --connections=4 --flush sparse.img \
        "$(uri_of remap)"
    nbdinfo --map "$(uri_of remap)" > map
    map_is data "${bad[@]}"
    map_is hole,zero 3000 9100 15000 25000 31000
    equal "what the map covers" "$(awk '{ n += $2 } END { print n }' map)" \
        $disk_bytes
    nbdcopy --connections=4 "$(uri_of remap)" copy.img
    cmp sparse.img copy.img
    equal "the number of remapped sectors" "$(remapped store)" ${#bad[@]}
    # The copy has holes, where the disk says so.
    [ "$(du -k copy.img | cut -f 1)" -lt 4096 ] || fail "the copy is not sparse"

    part "the map after a kill"
    kill_server remap
    start_server remap "${parameters[@]}"
    nbdinfo --map "$(uri_of remap)" > map
    map_is data "${bad[@]}"
    map_is hole,zero 3000 9100 15000 25000 31000
    nbdinfo --map --totals "$(uri_of remap)" > totals
    equal "the lines of the totals" "$(wc -l < totals)" 2
    equal "the total" "$(awk '{ n += $1 } END { print n }' totals)" \
        $disk_bytes
    nbdcopy "$(uri_of remap)" copy.img
    cmp sparse.img copy.img
    stop_server remap
    stop_disk disk
}

# ---------------------------------------------------------------- nbdcopy --

make_source ()
{
    head -c 4M /dev/urandom > source.img
    truncate -s 8M source.img
    head -c 1M /dev/zero >> source.img
    head -c 7M /dev/urandom >> source.img
    equal "the size of the source" "$(stat -c %s source.img)" $disk_bytes
}

# What is on the disk is what was copied: read with other sizes and orders.
same_as_source ()
{
    nbdcopy --threads=4 --connections=4 --requests=16 --request-size=65536 \
        "$(uri_of remap)" copy.img
    cmp source.img copy.img
    nbdcopy --connections=1 --requests=1 --request-size=1048576 --allocated \
        "$(uri_of remap)" - | cmp source.img -
}

copy ()
{
    local sector=12000 options
    part "$kind: nbdcopy, four connections"
    : > connections
    nbdcopy --threads=4 --connections=4 --requests=32 --request-size=32768 --flush \
        source.img "$(uri_of remap)"
    equal "the number of connections of nbdcopy" \
        "$(grep -c ' Connect ' connections)" 4
    tail -n 1 disk.requests | grep -q '^f 0 0 0' || fail "--flush did not"
    equal "the number of remapped sectors" \
        "$(away store)" $nr_bad
    same_as_source
    kill_server remap
    start_server remap "${parameters[@]}"
    same_as_source
    equal "the number of remapped sectors" "$(away store)" $nr_bad

    # Over random data, so that holes have to become zeroes; with new bad
    # sectors in the data, in the hole, and in the zeroes.
    faults=("${first_faults[@]}")
    for options in "--allocated" "--sparse=0" "--synchronous" \
        "--threads=1 --connections=1 --queue-size=1048576" \
        "--connections=4 --request-size=8388608"; do
        part "$kind: nbdcopy $options"
        head -c $disk_bytes /dev/urandom > noise.img
        nbdcopy noise.img "$(uri_of remap)"
        nbdcopy "$(uri_of remap)" - | cmp noise.img -
        faults+=("both $((sector - 9000))" "all $sector-$((sector + 8))"
            "all $((sector + 5000))" "write $((sector + 12000))")
        set_faults disk "${faults[@]}"
        # shellcheck disable=SC2086 # a list of words
        nbdcopy $options source.img "$(uri_of remap)"
        equal "the number of sectors remapped with $options" \
            "$(($(away store $((sector - 9000))) +
                $(away store $sector $((sector + 8))) +
                $(away store $((sector + 5000))) +
                $(away store $((sector + 12000)))))" 12
        same_as_source
        sector=$((sector + 200))
    done

    part "$kind: nbdcopy from a pipe"
    nbdcopy noise.img "$(uri_of remap)"
    nbdcopy - "$(uri_of remap)" < source.img
    same_as_source
}

# From one failing disk to another.
from_disk_to_disk ()
{
    local status n
    part "nbdcopy from one bad disk to another"
    start_disk other $disk_bytes 'both 77-79' 'write 5000-5063' 'both 32000'
    start_server target backing=other.img spare=other.store
    nbdcopy --threads=4 --connections=4 --requests=64 --flush "$(uri_of remap)" \
        "$(uri_of target)"
    equal "the number of remapped sectors" "$(away other.store)" 68
    kill_server target
    start_server target backing=other.img spare=other.store
    nbdcopy --connections=4 "$(uri_of target)" copy.img
    cmp source.img copy.img

    part "nbdcopy from a disk with lost sectors"
    faults+=('read 31000-31001')
    set_faults disk "${faults[@]}"
    # When they are met, and when they are known. One request at a time: some
    # versions of nbdkit (1.32) abort if a client goes with several under way.
    for n in 1 2; do
        status=0
        nbdcopy --synchronous "$(uri_of remap)" copy.img 2> error.log ||
            status=$?
        equal "the exit status of nbdcopy, time $n" $status 1
        grep -q 'Input/output error' error.log || fail "$(cat error.log)"
    done
    equal "the number of lost sectors" "$(lost store)" 2
    nbdcopy "$(uri_of target)" "$(uri_of remap)"
    equal "the number of lost sectors" "$(lost store)" 0
    same_as_source
    stop_server target
    stop_disk other
}

make_source
parameters=("backing=nbd+unix:///?socket=$test_dir/disk-medium.sock"
    "spare=$test_dir/store")
info
rm -f disk.medium
map
rm -f store disk.medium

nbdkit_options=--filter=log
kind="nbd"
start_disk disk $disk_bytes "${first_faults[@]}"
parameters+=("logfile=$test_dir/connections")
start_server remap "${parameters[@]}" new-store=yes
copy
stop_server remap
remapctl check store > /dev/null
stop_disk disk
rm -f store disk.medium

kind="file"
start_disk disk $disk_bytes "${first_faults[@]}"
parameters=(backing=disk.img spare=store "logfile=$test_dir/connections")
start_server remap "${parameters[@]}"
copy
nbdkit_options=
from_disk_to_disk
stop_server remap
remapctl check store > /dev/null
