#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# TLS, with keys that both sides have: nbdcopy and qemu over a Unix socket and
# over TCP; whoever has not the key is not let in.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/twin.bash"
begin nbdkit nbdfuse nbdcopy nbdinfo psktool qemu-io
[[ $(nbdkit --dump-config) == *tls=yes* ]] || skip "no TLS in this nbdkit"

bytes=$((16 << 20))
faults=('both 0' 'both 1000-1001' 'write 8000-8063' 'both 32767')
mkdir keys others
psktool -u alice -p keys/keys.psk > psktool.log 2>&1
psktool -u alice -p others/keys.psk >> psktool.log 2>&1
psktool -u bob -p others/bob.psk >> psktool.log 2>&1
export nbdkit_options='--tls=require --tls-psk=keys/keys.psk'

# copy_both_ways FILE URI: with several connections.
copy_both_ways ()
{
    nbdcopy --flush --connections=4 "$1" "$2"
    nbdcopy --connections=4 "$2" copy.img
    cmp copy.img "$1" || fail "the copy is another one"
    rm copy.img
}

# not_let_in URI: a client that has no right to, hears nothing of the disk.
not_let_in ()
{
    should_fail nbdinfo --size "$1" > refused.out 2>> refused.log
    should_fail nbdcopy "$1" refused.img > /dev/null 2>> refused.log
    [ ! -s refused.out ] || fail "it was told: $(cat refused.out)"
}

# uri USER KEYS: $scheme and $place tell where the server is.
uri ()
{
    printf '%s://%s@%stls-psk-file=%s\n' "$scheme" "$1" "$place" "$2"
}

# refused PLAIN-URI, and whoever has another key, another name, or both.
refused ()
{
    not_let_in "$1"
    not_let_in "$(uri alice others/keys.psk)"
    not_let_in "$(uri bob others/bob.psk)"
    not_let_in "$(uri bob keys/keys.psk)"
}

# qemu_io SERVER COMMAND: with qemu's TLS; SERVER in qemu's words.
qemu_io ()
{
    local creds=tls-creds-psk,id=tls,endpoint=client
    local nbd=file.driver=nbd,file.tls-creds=tls
    qemu-io --object $creds,dir=keys,username=alice --image-opts -c "$2" \
        "driver=raw,$nbd,$1" > io.log 2>&1
    ! grep -qE 'failed|error' io.log
}

start_twins disk $bytes "${faults[@]}"
tr 0-9 A-J < twin.img > first.img
tr 0-9 a-j < twin.img > second.img
fallocate --punch-hole --offset 2M --length 1M second.img

part "a Unix socket"
start_server remap backing=disk.img
scheme=nbds+unix
place="/?socket=$test_dir/remap.sock&"
refused "$(uri_of remap)"
copy_both_ways first.img "$(uri alice keys/keys.psk)"
equal "the number of remapped sectors" "$(remapped disk.img)" 68
server=file.server.type=unix,file.server.path=$test_dir/remap.sock
qemu_io "$server" "read -P 0x20 500k 1" || fail "qemu: $(cat io.log)"
set_faults disk "${faults[@]}" 'read 20'
should_fail qemu_io "$server" "read 10k 512"
grep -qF "$eio" io.log || fail "not $eio: $(cat io.log)"
equal "the number of lost sectors" "$(lost disk.img)" 1
kill_server remap

part "TCP, after a kill"
export nbdkit_listen='-i 127.0.0.1 -p 0'
start_server remap backing=disk.img
port=$(port_of remap)
[ -n "$port" ] || fail "it listens nowhere"
scheme=nbds
place="127.0.0.1:$port/?"
refused "nbd://127.0.0.1:$port/"
server=file.server.type=inet,file.server.host=127.0.0.1,file.server.port=$port
qemu_io "$server" "write -P 0x41 10k 512" || fail "qemu: $(cat io.log)"
printf '%0512d' 0 | tr 0 A |
    dd of=first.img bs=512 seek=20 conv=notrunc status=none
nbdcopy "$(uri alice keys/keys.psk)" copy.img
cmp copy.img first.img || fail "not the same after a kill"
copy_both_ways second.img "$(uri alice keys/keys.psk)"
equal "the number of lost sectors" "$(lost disk.img)" 0
stop_server remap
equal "the number of times that the key is in a log" \
    "$(cat ./*.log | grep -cF "$(cut -d: -f2 keys/keys.psk)" || :)" 0

part "what was copied is what is there"
unset nbdkit_options nbdkit_listen
start_server remap backing=disk.img
mv second.img twin.img
compare_twin remap
stop_server remap
check_store disk.img.remap
stop_disk disk
