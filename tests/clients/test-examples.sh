#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The examples of README.md and of the manual that need nothing but nbdkit,
# libnbd and qemu-nbd: serve, copy, rescue, ask, disks and stores elsewhere, TLS
# with keys.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/examples.bash"
begin nbdkit nbdcopy nbdfuse nbdinfo psktool qemu-nbd

disk_sectors=65536
disk_bytes=$((disk_sectors * 512))
# Of a page of the cache: FUSE reads and writes no less.
bad='both 1000-1007'

# A port that nobody has, nor gets from the kernel.
port=$((20000 + $$ % 12000))
while (: <> "/dev/tcp/localhost/$port") 2> /dev/null; do
    port=$((port + 1))
done

# All is below this directory; the disk is a file; the other machine is here.
example_rules="
    s,/dev/sdX,$test_dir/sdX.img,g
    s,/(run|srv|etc|tmp)/(sdx|spare|remap|disk|nbdkit-remap)([./, ]|\$),$test_dir/\1/\2\3,g
    s,build/,$REMAP_BUILDDIR/,g
    s,rbd:pool/sdx-spare,$test_dir/spare.img,
    s,10809,$port,
    s,(nbds?://(alice@)?)(hostname|other|localhost)/,\1localhost:$port/,
"
mkdir -p run srv etc tmp bin

# nbdkit finds the plugin as if it were installed, and leaves its process id, as
# does qemu-nbd: the later, the greater the name of the file.
cat > bin/nbdkit <<END
#!/bin/bash
arguments=()
for argument; do
    [ "\$argument" != remap ] || argument=$remap_plugin
    arguments+=("\$argument")
done
LD_PRELOAD=\${REMAP_TEST_PRELOAD-} \
    exec $(command -v nbdkit) -P "$test_dir/pid.\$(date +%s%N)" "\${arguments[@]}"
END
cat > bin/qemu-nbd <<END
#!/bin/bash
exec $(command -v qemu-nbd) --pid-file="$test_dir/pid.\$(date +%s%N)" "\$@"
END
chmod +x bin/*
PATH=$test_dir/bin:$PATH

# shellcheck disable=SC2317 # called by support.bash
at_end ()
{
    unmount_all                 # a server waits for its clients
    end_servers
}

# All servers that examples have started, the last one first, and their sockets.
end_servers ()
{
    local files=(pid.*) n pid
    for ((n = ${#files[@]} - 1; n >= 0; n--)); do
        [ -s "${files[n]}" ] || continue
        pid=$(cat "${files[n]}")
        kill "$pid" 2> /dev/null || :
        wait_until "a server to end" has_gone "$pid"
        rm -f "${files[n]}"
    done
    rm -f run/*.sock tmp/*.sock
}

has_gone ()
{
    ! kill -0 "$1" 2> /dev/null
}

# new_disk [FAULT...]: with known data.
new_disk ()
{
    [ ! -e sdX.img ] || stop_disk sdX
    rm -rf sdX.* srv/* copy.img
    cp pattern sdX.medium
    start_disk sdX $disk_bytes "$@"
}

# Each sector is filled with its number.
awk -v n=$disk_sectors 'BEGIN { for (i = 0; i < n; i++) printf "%511d\n", i }' \
    > pattern
tac pattern > other

is_there ()
{
    [ -s disk ]
}

is_empty ()
{
    ! is_there
}

part "serve a disk, write over its bad sectors, copy it"
new_disk "$bad"
run_example serve-from-build
nbdcopy --flush other "nbd+unix:///?socket=$test_dir/run/sdx.sock"
run_example copy
cmp copy.img other
run_example status-from-build > status.txt
grep -q ': 8 sectors remapped, 0 lost' status.txt || fail "$(cat status.txt)"

part "as a file"
run_example fuse
wait_until "the file" is_there
cmp disk other
fusermount3 -u disk
wait_until "nbdfuse to end" is_empty
run_example mount-nbdfuse
wait_until "the file" is_there
cmp disk other
fusermount3 -u disk
wait_until "nbdfuse to end" is_empty
run_example ask > ask.txt
grep -q ': 8 sectors remapped, 0 lost' ask.txt || fail "$(cat ask.txt)"
end_servers

part "the same disk, by its default store"
new_disk "$bad"
ln -s sdX.img disk.img
run_example serve-file
nbdcopy --flush other "nbd+unix:///?socket=$test_dir/tmp/disk.sock"
end_servers
[ -s disk.img.remap ] || fail "no store beside the disk"
rm disk.img

# rescue_with EXAMPLE: what can be read is in the copy, the rest is zero.
rescue_with ()
{
    new_disk "$bad" 'both 65000-65007'
    run_example "$1" > rescue.txt
    grep -Eq '^1000-1007 +8 +lost' rescue.txt || fail "$(cat rescue.txt)"
    for range in 1000+8 65000+8; do
        dd if=/dev/zero of=pattern.rescued bs=512 seek="${range%+*}" \
            count="${range#*+}" conv=notrunc status=none
    done
    cmp srv/sdx.img pattern.rescued
    cmp sdX.medium pattern || fail "something was written to the disk"
}

part "rescue the data"
cp pattern pattern.rescued
rescue_with rescue-from-build
rescue_with rescue

# There and here: through a server that has the bad disk.
# far_disk THERE HERE
far_disk ()
{
    new_disk "$bad"
    run_example "$1"
    run_example "$2"
    nbdcopy --flush other "nbd+unix:///?socket=$test_dir/run/sdx.sock"
    nbdcopy "nbd+unix:///?socket=$test_dir/run/sdx.sock" copy.img
    cmp copy.img other
    equal "the number of remapped sectors" "$(remapped srv/sdx.remap)" 8
    end_servers
    forget_notes                # the next one is another disk
}

part "a disk in another machine"
mkdir etc/remap
psktool -u alice -p etc/remap/keys.psk > /dev/null
far_disk remote-disk serve-remote-disk
far_disk remote-disk serve-remote
far_disk remote-disk-tls serve-remote-disk-tls

part "a store in another machine"
new_disk "$bad"
truncate -s 16M spare.img
run_example remote-store
nbdcopy --flush other "nbd+unix:///?socket=$test_dir/run/sdx.sock"
end_servers
equal "the number of remapped sectors" "$(remapped spare.img)" 8

part "TLS, with a key"
new_disk "$bad"
run_example tls-psk-serve
nbdcopy --flush other \
    "nbds://alice@localhost:$port/?tls-psk-file=$test_dir/etc/nbdkit-remap/keys.psk"
run_example tls-psk-copy
cmp copy.img other
should_fail nbdinfo --size "nbd://localhost:$port"
sed 's/^alice/mallory/' etc/nbdkit-remap/keys.psk > mallory.psk
should_fail nbdinfo --size \
    "nbds://mallory@localhost:$port/?tls-psk-file=$test_dir/mallory.psk"
end_servers
