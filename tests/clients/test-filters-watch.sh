#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdkit's filters that watch requests, hold them up, repeat them or end the
# server, rate, stats, log, exitlast and retry-request, on top of the plugin,
# over bad sectors.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/twin.bash"
begin nbdkit nbdfuse nbdcopy nbdinfo qemu-io

bytes=$((16 << 20))

part "rate: requests wait, repairs are made, all is right"
start_twins rate $bytes 'both 1000-1001' 'write 3000-3003' 'read 5000'
# A bucket of two seconds is full at the start: 8 MiB of the copy wait.
nbdkit_options=--filter=rate start_server remap backing=rate.img rate=32M
make_medium source.img $bytes
tr 0-9 A-J < source.img > twin.img
begun=$SECONDS
nbdcopy --flush twin.img "$(uri_of remap)"
[ $((SECONDS - begun)) -ge 1 ] || fail "16 MiB were copied at once"
equal "the number of remapped sectors" "$(remapped rate.img)" 6
stop_server remap
# 5000 was written in place, and cannot be read.
nbdkit_options=--filter=rate start_server remap backing=rate.img rate=2G
io_fails "$eio" "read 5000s 512"
both_io "write -D 1 5000s 512"
compare_twin remap
stop_server remap
check_store rate.img.remap
stop_disk rate

part "stats: each request counts once, whatever became of it below"
start_twins stats $bytes 'both 1000-1001' 'write 3000-3003'
nbdkit_options=--filter=stats start_server remap backing=stats.img \
    statsfile=numbers
both_io "write -D 1 1000s 64k" "write -D 2 2990s 32k" "write -f -D 3 11M 160k" \
    "write -z 12M 1M" flush
server_io "read 0 128k" "read 1000s 64k" "read 3000s 1k" flush
# counted OP: by the filter, at its end
counted ()
{
    sed -n "s/^$1: \\([0-9]* ops\\), [0-9.]* s, \\([0-9.]* [KM]*iB\\),.*/\\1 \\2/p" \
        numbers
}
equal "the number of remapped sectors" "$(remapped stats.img)" 6
stop_server remap
equal "what was written" "$(counted write)" "3 ops 256.00 KiB"
equal "what was read" "$(counted read)" "3 ops 193.00 KiB"
equal "what was zeroed" "$(counted zero)" "1 ops 1.00 MiB"
grep -q '^flush: [2-9] ops' numbers || fail "the flushes: $(cat numbers)"
start_server remap backing=stats.img
compare_twin remap
stop_server remap
check_store stats.img.remap
stop_disk stats

part "log: what the client asked, and what it was answered"
start_twins log $bytes 'both 1000' 'read 5000' 'write 8000-8063'
nbdkit_options=--filter=log start_server remap backing=log.img \
    spare-size=16K logfile=answers
# answered REQUEST ANSWER: in the connection that made the request
answered ()
{
    local by
    by=$(sed -n "s/.* \(connection=[0-9]*\) $1 \.\.\.\$/\1/p" answers)
    [ -n "$by" ] || fail "no request \"$1\" in the log: $(cat answers)"
    grep -q " $by \.\.\.$2\$" answers ||
        fail "no answer \"$2\" for $by: $(cat answers)"
}
both_io "write -f -D 1 1000s 512"
answered 'Write id=1 offset=0x7d000 count=0x200 fua=1' \
    'Write id=1 return=0'
io_fails "$eio" "read 5000s 512"
answered 'Read id=1 offset=0x271000 count=0x200' \
    'Read id=1 return=-1 error=EIO'
io_fails "$enospc" "write -D 2 8000s 64s"
answered 'Write id=1 offset=0x3e8000 count=0x8000 fua=0' \
    'Write id=1 return=-1 error=ENOSPC'
server_io "read 1000s 512"
set_faults log
both_io "write -D 3 8000s 64s" "write -D 4 5000s 512"
compare_twin remap
stop_server remap
grep -q ' Disconnect ' answers || fail "no end in the log"
check_store log.img.remap
stop_disk log

part "exitlast: the last client's end is the server's, in good order"
start_twins last $bytes 'both 1000-1001' 'write 3000'
nbdkit_options=--filter=exitlast start_server remap backing=last.img
both_io "write -D 1 990s 32k" "write -D 2 3000s 512"
wait_until "the end of the server" has_ended remap
check_store last.img.remap
equal "the number of remapped sectors" "$(remapped last.img)" 3
start_server remap backing=last.img
compare_twin remap
stop_server remap
stop_disk last

part "retry-request: a bad sector is not touched for each attempt"
start_twins retry $bytes 'both 1000-1001' 'read 5000-5001' 'read 6000 times=2' \
    'write 8000-8063'
nbdkit_options=--filter=retry-request start_server remap backing=retry.img \
    spare-size=16K retry-request-retries=2 retry-request-delay=1
before=$(requests retry f)
io_fails "$eio" "read 4990s 16k"
for sector in 5000 5001; do
    # The request, its pieces, the sector: see retries= in the manual.
    n=$(touches retry r $sector)
    [ "$n" -le 3 ] || fail "sector $sector was read $n times"
done
equal "the number of lost sectors" "$(lost retry.img)" 2
server_io "read 6000s 512"
both_io "write -D 1 990s 16k" "write -D 2 5000s 2s"
[ "$(touches retry w 1000)" -le 3 ] || fail "sector 1000 was written too often"
io_fails "$enospc" "write -D 3 8000s 64s"
n=$(touches retry w 8063)
# Each attempt writes it anew, in hope: the request, a piece, the sector.
[ "$n" -le $((3 * 3)) ] || fail "sector 8063 was written $n times"
equal "the number of lost sectors" "$(lost retry.img)" 0
set_faults retry
both_io "write -f -D 4 8000s 64s" flush
[ "$(requests retry f)" -gt "$before" ] || fail "nothing was flushed"
compare_twin remap
stop_server remap
check_store retry.img.remap
stop_disk retry
