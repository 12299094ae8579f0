#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The examples with nbd-client, as the documents have them: attach and detach, a
# server that is killed, certificates.

. "$(dirname "$0")/guest.bash"
. "$(dirname "$0")/examples.bash"

disk_bytes=$((16 << 20))

if on_host; then
    begin_guest mkfs.ext4
    guest_add_program certtool cmp dd e2fsck mkfs.ext4 nbd-client nbdinfo readlink
    guest_add_module virtio_pci virtio_blk nbd ext4
    add_documents
    truncate -s $disk_bytes disk.medium
    mkfs.ext4 -q disk.medium
    start_medium disk $disk_bytes 'both 30000-30001' 'write 31000' 'both 32000'
    truncate -s $disk_bytes new.medium
    start_medium new $disk_bytes 'both 2-3' 'both 9000-9007' 'write 131'
    guest_run "$0" -drive \
        if=virtio,file=nbd:unix:disk-medium.sock,format=raw,rerror=report,werror=report \
        -drive \
        if=virtio,file=nbd:unix:new-medium.sock,format=raw,rerror=report,werror=report
    exit
fi

begin_in_guest
modprobe virtio_pci
modprobe virtio_blk
modprobe ext4
wait_until "the disk" test -b /dev/vda
ln -s vda /dev/sdX
ifconfig lo 127.0.0.1 up
echo '127.0.0.1 localhost' > /etc/hosts
mkdir -p /srv
plugins=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')
mkdir -p "$plugins"
ln -s "$remap_plugin" "$plugins/nbdkit-remap-plugin.so"
# 1: e2fsck has mended something.
example_rules='s/^e2fsck .*/& || [ $? -eq 1 ]/'

# Those of the server, and a few sockets more.
connections ()
{
    readlink /proc/"$(pidof nbdkit)"/fd/* | grep -c ^socket:
}

# The server ends by itself, when all clients have left.
end_server ()
{
    kill "$(pidof nbdkit)"
    wait_until "the server to end" no_server
    rm -f /run/sdx.sock
}

no_server ()
{
    ! pidof nbdkit > /dev/null
}

kill_it ()
{
    kill -9 "$(pidof nbdkit)"
    wait_until "the server to end" no_server
}

check_film ()
{
    echo 3 > /proc/sys/vm/drop_caches
    cmp film /mnt/film
}

# (A device without a client has no size.)
reads ()
{
    [ "$(dd if=/dev/nbd0 bs=4096 count=1 iflag=direct 2> /dev/null | wc -c)" = 4096 ]
}

part "attach a disk, and fill it"
run_example serve
run_example attach
[ "$(connections)" -ge 6 ] || fail "there are no four connections"
dd if=/dev/urandom of=/mnt/film bs=64k 2> /dev/null || : # it gets full
sync
cp /mnt/film .
[ "$(stat -c %s film)" -gt 8000000 ] || fail "not much was written"
run_example ask > status
grep -q ': 4 sectors remapped, 0 lost' status || fail "$(cat status)"
check_film

part "detach it"
run_example detach
should_fail nbd-client -c /dev/nbd0
end_server

part "the server is killed"
run_example serve-drive
run_example attach-nbd-client
check_film
kill_it
echo 3 > /proc/sys/vm/drop_caches
should_fail cmp film /mnt/film
run_example reattach
check_film
run_example detach
end_server

part "README"
run_example serve
run_example attach-and-mount
check_film
run_example stop-using
should_fail nbd-client -c /dev/nbd0
end_server

part "certificates"
run_example tls-certificates
run_example tls-certificates-serve
run_example tls-certificates-attach
wait_until "the device" reads
mount /dev/nbd0 /mnt
check_film
umount /mnt
should_fail nbdinfo --size nbd://localhost
should_fail nbdinfo --size nbds://localhost
nbd-client -d /dev/nbd0
end_server
equal "the number of remapped sectors" "$(remapped /srv/sdx.remap)" 4

part "a file system on a new disk, whose first sectors are bad"
wait_until "the disk" test -b /dev/vdb
ln -sfn vdb /dev/sdX
nbdkit -U /run/sdx.sock remap /dev/sdX spare=/srv/new.remap
nbd-client -unix /run/sdx.sock /dev/nbd0 -timeout 300
should_fail mkfs.ext4 -q -E nodiscard /dev/nbd0
[ "$(lost /srv/new.remap)" -ge 1 ] || fail "no sector was lost"
run_example make-file-system
equal "the number of lost sectors" "$(lost /srv/new.remap)" 0
mount /dev/nbd0 /mnt
head -c 4000000 film > /mnt/film
echo 3 > /proc/sys/vm/drop_caches
head -c 4000000 film | cmp - /mnt/film
umount /mnt
e2fsck -fn /dev/nbd0 || fail "the file system is damaged"
nbd-client -d /dev/nbd0
end_server
