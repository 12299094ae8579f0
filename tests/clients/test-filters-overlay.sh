#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdkit's filters that keep blocks of their own, cow and cache, on top of the
# plugin, over bad sectors. Their blocks are larger than sectors, so they read
# what stands around a write; and what cache has not yet written, a client may
# believe written.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/twin.bash"
begin nbdkit nbdfuse nbdcopy nbdinfo qemu-io

bytes=$((16 << 20))
# Blocks of the filters are this large, by default.
block=$((64 << 10))

part "cow: what is remapped and lost shows through, nothing comes down"
# All of a block goes to spares, and what is on the disk stays a hole.
start_twins cow $bytes 'both 1000-1001' 'write 3000' 'read 5000' 'both 14000' \
    'write 14208-14335'
start_server remap backing=cow.img
both_io "write -D 1 499k 4k" "write -D 2 1500k 512" "write -z 7000k 512" \
    "write -D 3 14200s 140s" flush
equal "the number of remapped sectors" "$(remapped cow.img)" 132
stop_server remap
cp --sparse=always twin.img before.img
cksum cow.medium > before.cksum
writes=$(requests cow wzt)

nbdkit_options=--filter=cow start_server remap backing=cow.img
io_fails "$eio" "read 2500k 512"
equal "the number of lost sectors" "$(lost cow.img)" 1
# A part of a block: the rest of it cannot be had, and so is not made up.
io_fails "$eio" "write -D 3 2501k 512"
io_fails "$eio" "read 2500k 512"
both_io "write -D 4 $((5000 * 512 / block * block)) $block"
both_io "write -D 5 500k 512" "write -D 6 3001 7000" "write -z 1400k 300k" \
    "write -D 7 6990k 30k" "discard 8M 1M" "write -f -D 8 12M 200k" flush
compare_twin remap
equal "the number of writes that reached the disk" \
    "$(requests cow wzt)" "$writes"
stop_server remap
check_store cow.img.remap
cksum cow.medium | cmp - before.cksum || fail "the disk is not what it was"

# All is forgotten; what was lost is still lost.
start_server remap backing=cow.img
io_fails "$eio" "read 2500k 512"
server_io "write -D 9 2500k 512"
io_of before.img "write -D 9 2500k 512"
compare_twin remap before.img
equal "the number of remapped sectors" "$(remapped cow.img)" 133
stop_server remap
stop_disk cow

part "cow: of the holes of a file, remapped sectors are none"
nbdkit_options=--filter=cow start_bare cow
should_have_holes remap
compare_twin remap before.img
cp --sparse=always before.img twin.img
both_io "write -D 1 14201s 512" "write -D 2 8M 100"
compare_twin remap
stop_server remap

part "cache=writeback: what is flushed is durable, over bad sectors too"
start_twins back $bytes 'both 1000-1001' 'write 3000-3003' 'read 5000'
cache='backing=back.img cache=writeback cache-on-read=true'
# shellcheck disable=SC2086 # a list of words
nbdkit_options=--filter=cache start_server remap $cache
at=$((1000 * 512 / block * block))
io_fails "$eio" "write -D 1 500k 512"
both_io "write -D 2 $at $block" "write -D 3 3000s 2k" "write -D 4 11M 1M"
equal "the number of writes before a flush" "$(requests back wzt)" 0
server_io flush
equal "the number of remapped sectors" "$(remapped back.img)" 6
durable back $((11 << 20))
both_io "write -f -D 5 3000s 6k" "write -f -D 6 13M 4k" "write -z 500k 7k" flush
durable back $((13 << 20))
io_fails "$eio" "read 5000s 512"
both_io "write -D 7 $((5000 * 512 / block * block)) $block" flush
compare_twin remap
# What is not flushed is nobody's: it is on the disk, or it is not.
server_io "write -D 8 14M 64k"
kill_server remap
start_server remap backing=back.img
compare_twin remap
stop_server remap
check_store back.img.remap
stop_disk back

part "cache=writeback: no spare left: the flush says so, until it is true"
start_twins full $bytes 'write 8000-8063'
nbdkit_options='--filter=log --filter=cache' start_server remap \
    backing=full.img cache=writeback spare-size=16K logfile=answers
both_io "write -D 1 3968k 64k" "write -D 2 4032k 64k"
should_fail io_of remap flush
should_fail io_of remap flush
! grep -F '...Flush' answers | grep -vq 'error=ENOSPC' ||
    fail "not the right answer: $(cat answers)"
set_faults full
server_io flush
compare_twin remap
kill_server remap
start_server remap backing=full.img
compare_twin remap
stop_server remap
check_store full.img.remap
stop_disk full

part "cache=writethrough: each write is answered by the disk"
start_twins through $bytes 'both 1000-1001' 'write 8000-8063' 'read 5000'
nbdkit_options=--filter=cache start_server remap backing=through.img \
    cache=writethrough spare-size=16K
io_fails "$eio" "read 5000s 512"
both_io "write -D 1 $at $block" "write -D 2 11M 1M" "write -z 12000s 10k" \
    "write -f -D 3 13M 512"
equal "the number of remapped sectors" "$(remapped through.img)" 2
durable through $((13 << 20))
io_fails "$enospc" "write -D 4 3968k 64k"
set_faults through
both_io "write -D 5 3968k 64k" "write -D 6 2432k 128k"
compare_twin remap
# Nothing was flushed, and nothing is lost with the filter.
kill_server remap
start_server remap backing=through.img
compare_twin remap
stop_server remap
check_store through.img.remap
stop_disk through
