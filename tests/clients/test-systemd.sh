#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The unit nbdkit-remap@.service, in a guest with systemd, as remap-clients(7)
# says: from the disk to a mounted file system, restarts and kills, several
# disks, TLS; and that a server can do no more than it should.

guest_seconds=${guest_seconds:-285}
. "$(dirname "$0")/guest-systemd.bash"
. "$(dirname "$0")/examples.bash"

# As in the examples; the third one's store is in another place.
first=wwn-0x5000c500a1b2c3d4
second=wwn-0x5000c500e5f60718
third=wwn-0x5000c50012345678
disk_bytes=$((16 << 20))

if on_host; then
    begin_guest_with_systemd mkfs.ext4 systemd-analyze
    guest_add_program chgrp chmod cmp dd nbdinfo psktool setpriv e2fsck fsck
    guest_add_module virtio_pci virtio_scsi sd_mod nbd ext4
    add_documents
    echo libvirt-qemu:x:64055: >> "$guest_root/etc/group"

    part "systemd knows all that is in the unit, and finds it safe"
    unit=nbdkit-remap@$(systemd-escape "$first").service
    mkdir units
    cp installed/*/*/lib/systemd/system/nbdkit-remap@.service units/ ||
        cp "$REMAP_BUILDDIR/systemd/nbdkit-remap@.service" units/
    systemd-analyze verify --man=no "units/$unit" 2>&1 | tee verify.log
    [ ! -s verify.log ] || fail "systemd-analyze verify complains"
    # Of 100. What is left is that it is root, and has a disk and a socket.
    systemd-analyze security --offline=true --threshold=10 --no-pager \
        "units/$unit" > security.log ||
        fail "not safe enough: $(tail -n 1 security.log)"

    options=()
    for disk in "$first" "$second" "$third"; do
        truncate -s $disk_bytes "$disk.medium"
        mkfs.ext4 -q "$disk.medium"
        start_medium "$disk" $disk_bytes 'both 30000-30001' 'write 31000' \
            'both 32000'
        options+=(-drive "if=none,id=$disk,file=nbd:unix:$disk-medium.sock,format=raw,rerror=report,werror=report"
            -device "scsi-hd,drive=$disk,wwn=${disk#wwn-}")
    done
    guest_run_systemd "$0" -device virtio-scsi-pci "${options[@]}"
    exit
fi

PATH=/usr/local/bin:/usr/local/sbin:$PATH
begin_in_guest
# Where the state directory is another one than the documents say.
statedir=$(sed -n 's/^RequiresMountsFor=//p' \
    "$(systemctl show -P FragmentPath nbdkit-remap@x.service)")
example_rules="s,/var/lib/nbdkit-remap,$statedir,g"

at_end ()
{
    journalctl --no-pager -b | grep -Ev " kernel: " | tail -n 60
}

unit_of ()
{
    systemd-escape --template=nbdkit-remap@.service "$1"
}

pid_of_unit ()
{
    systemctl show -P MainPID "$(unit_of "$1")"
}

state_is ()
{
    [ "$(systemctl show -P ActiveState "$2")" = "$1" ]
}

uri_of_unit ()
{
    printf 'nbd+unix:///?socket=/run/nbdkit-remap/%s/nbd.sock\n' "$1"
}

# has_restarted NAME OLD_PID: with what depends on it.
has_restarted ()
{
    local pid
    pid=$(pid_of_unit "$1")
    [ "$pid" -ne 0 ] && [ "$pid" -ne "$2" ] && state_is active "$(unit_of "$1")"
}

is_mounted ()
{
    state_is active srv-films.mount && grep -q '^/dev/nbd0 /srv/films ' /proc/mounts
}

check_films ()
{
    echo 3 > /proc/sys/vm/drop_caches
    (cd /srv/films && sha256sum -c /root/sums > /dev/null) ||
        fail "the file system has other data now"
}

# unplug NAME, plug_in NAME: a SCSI disk.
unplug ()
{
    local disk
    disk=$(basename "$(readlink -f "/dev/disk/by-id/$1")")
    echo 1 > "/sys/block/$disk/device/delete"
    wait_until "the disk to go" test ! -e "/dev/disk/by-id/$1"
    wait_until "systemd to know" state_is inactive \
        "$(systemd-escape --path --suffix=device "/dev/disk/by-id/$1")"
}

plug_in ()
{
    local host
    for host in /sys/class/scsi_host/*/scan; do
        echo "- - -" > "$host"
    done
    wait_until "the disk" test -b "/dev/disk/by-id/$1"
    udevadm settle
}

attach_second ()
{
    nbd-client -unix "/run/nbdkit-remap/$second/nbd.sock" /dev/nbd1 -timeout 300
}

# What a server could do, told by a process in its place.
probe ()
{
    mkdir -p /etc/systemd/system/nbdkit-remap@.service.d
    cat > /etc/systemd/system/nbdkit-remap@.service.d/probe.conf <<'END'
[Service]
ExecStartPre=-/guest/probe %I
END
    cat > /guest/probe <<END
#!/bin/bash
PATH=$PATH:/busybox
disk=/dev/disk/by-id/\$1
exec > $statedir/probe 2>&1
try ()
{
    if eval "\$2"; then echo "\$1: yes"; else echo "\$1: no"; fi
}
try 'read the disk' 'dd if=\$disk of=/dev/null count=1'
try 'open the disk to write' ': <> \$disk'
try 'write state' ': > $statedir/probe.file'
for other in /dev/disk/by-id/wwn-*; do
    [ "\$other" = "\$disk" ] ||
        try 'read another disk' 'dd if=\$other of=/dev/null count=1'
done
try 'make a device' 'mknod $statedir/probe.node b 8 16'
try 'write elsewhere' ': > /srv/probe || : > /etc/probe || : > /usr/probe'
try 'write to the kernel' 'echo 0 > /proc/sys/vm/drop_caches || echo 0 > /sys/block/sda/queue/nr_requests'
try 'see a home' '[ -e /root/home ]'
try 'use the network' ': > /dev/udp/127.0.0.1/9'
try 'mount' 'mount -t tmpfs none /mnt'
try 'be someone else' 'setpriv --reuid=65534 true'
try 'have a capability' '! grep -q "^CapEff:.*0000000000000000" /proc/self/status'
END
    chmod +x /guest/probe
    touch /root/home
}

part "a disk is served by the unit"
probe
systemctl daemon-reload
[ ! -e "/dev/disk/by-id/$first" ] || udevadm settle
run_example enable
run_example enable-unit         # of README.md, the same
equal "the unit" "$(systemctl is-enabled "$(unit_of $first)")" enabled
equal "the size" "$(nbdinfo --size "$(uri_of_unit $first)")" $disk_bytes
run_example status > status.txt
grep "^/dev/disk/by-id/$first: 0 sectors remapped, 0 lost; 4096 of 4096" status.txt ||
    fail "status: $(cat status.txt)"

part "it can do what it has to, and nothing else"
cat "$statedir/probe"
equal "what it can do" "$(sed -n 's/: yes$//p' "$statedir/probe")" \
    'read the disk
open the disk to write
write state'
equal "how much it cannot do" "$(grep -c ': no$' "$statedir/probe")" 10
rm /etc/systemd/system/nbdkit-remap@.service.d/probe.conf
for line in 'CapEff:	0000000000000000' 'CapBnd:	0000000000000000' \
    'NoNewPrivs:	1' 'Seccomp:	2'; do
    grep -qx "$line" "/proc/$(pid_of_unit $first)/status" ||
        fail "the server is without $line"
done

part "parameters"
write_example conf
run_example restart
tr '\0' ' ' < "/proc/$(pid_of_unit $first)/cmdline" |
    grep -q -- ' --threads=32 .* deadline=20 spare-size=16M' ||
    fail "the server does not have its parameters"
remapctl status "/dev/disk/by-id/$first" | grep -q ' 32768 of 32768 spares' ||
    fail "the store did not grow"

part "a file system in fstab"
write_example nbdtab
write_example modules-load
write_example nbd-unit
write_example fstab
# From nothing, as at boot: the file system asks for all the rest.
run_example stop
run_example mount
is_mounted || fail "not mounted"
dd if=/dev/urandom of=/srv/films/film bs=64k 2> /dev/null || : # it gets full
(cd /srv/films && sync && sha256sum film) > /root/sums
[ "$(stat -c %s /srv/films/film)" -gt 8000000 ] || fail "not much was written"
equal "the number of remapped sectors" \
    "$(remapped "/dev/disk/by-id/$first")" 4
equal "the number of lost sectors" "$(lost "/dev/disk/by-id/$first")" 0
check_films

part "an orderly restart"
pid=$(pid_of_unit $first)
run_example restart
has_restarted $first "$pid" || fail "no new server"
wait_until "the file system" is_mounted
check_films

part "the server is killed"
pid=$(pid_of_unit $first)
kill -9 "$pid"
wait_until "another server" has_restarted $first "$pid"
wait_until "the file system" is_mounted
check_films
equal "the number of remapped sectors" \
    "$(remapped "/dev/disk/by-id/$first")" 4

part "an orderly end"
run_example stop
for unit in "$(unit_of $first)" nbd@nbd0.service srv-films.mount; do
    state_is inactive "$unit" || fail "$unit is not inactive"
    equal "the result of $unit" "$(systemctl show -P Result "$unit")" success
done
[ ! -e /run/nbdkit-remap/$first ] || fail "something is left in /run"
remapctl check "$statedir"/wwn-*4 || fail "the store is not as it should be"
run_example start
is_mounted || fail "not mounted"
check_films

part "a store in another place, which has to be allowed"
echo "REMAP_OPTIONS=spare=/srv/spares/third.remap" \
    > "/etc/nbdkit-remap/$third.conf"
mkdir -p /srv/spares
should_fail systemctl start "$(unit_of $third)"
systemctl stop "$(unit_of $third)"
write_example spares-elsewhere
write_example group
write_example listen-unit
systemctl daemon-reload
systemctl start "$(unit_of $third)"
[ -s /srv/spares/third.remap ] || fail "no store in /srv/spares"
group=$(sed -n 's/^0:://p' "/proc/$(pid_of_unit $third)/cgroup")
equal "how much of a server may be swapped out" \
    "$(cat "/sys/fs/cgroup$group/memory.swap.max")" 0

part "two disks, and a group that may connect"
run_example second-enable
dd if=/srv/films/film of=data bs=1M count=4 2> /dev/null
dd if=data of=/dev/nbd1 bs=1M seek=12 oflag=direct 2> /dev/null
dd if=/dev/nbd1 bs=1M skip=12 iflag=direct 2> /dev/null | cmp - data
equal "the number of remapped sectors" \
    "$(remapped "/dev/disk/by-id/$second")" 4
run_example status-all > status.txt
equal "the disks that are served" "$(grep -c ': 4 sectors remapped, 0 lost' status.txt)" 2
check_films

socket=/run/nbdkit-remap/$second/nbd.sock
setpriv --reuid=65534 --regid=64055 --clear-groups \
    nbdinfo --size "nbd+unix:///?socket=$socket" > /dev/null ||
    fail "the group cannot connect"
should_fail setpriv --reuid=65534 --regid=65534 --clear-groups \
    nbdinfo --size "nbd+unix:///?socket=$socket"

part "another name of a disk that is served"
other=scsi-3${second#wwn-0x}
[ "/dev/disk/by-id/$other" -ef "/dev/disk/by-id/$second" ] ||
    fail "the disk has no other name: $(ls /dev/disk/by-id)"
should_fail systemctl start "$(unit_of "$other")"
systemctl stop "$(unit_of "$other")"
systemctl reset-failed
state_is active "$(unit_of $second)" || fail "the first server is not active"
nbd-client -d /dev/nbd1

part "a disk that was unplugged, and is there again"
unplug $second
plug_in $second
attach_second
should_fail dd if=/dev/nbd1 of=/dev/null bs=512 skip=20000 count=1 iflag=direct
nbd-client -d /dev/nbd1
systemctl restart "$(unit_of $second)"
attach_second
dd if=/dev/nbd1 bs=1M skip=12 iflag=direct 2> /dev/null | cmp - data
nbd-client -d /dev/nbd1

part "a disk that comes later"
systemctl stop "$(unit_of $second)"
unplug $second
plug_in $second
wait_until "its server" state_is active "$(unit_of $second)"

part "over the network, with TLS"
psktool -u alice -p /etc/nbdkit-remap/keys.psk > /dev/null
write_example listen
systemctl restart "$(unit_of $second)"
equal "the size" \
    "$(nbdinfo --size 'nbds://alice@localhost/?tls-psk-file=/etc/nbdkit-remap/keys.psk')" \
    $disk_bytes
should_fail nbdinfo --size nbd://localhost
failed=$(systemctl list-units --failed --no-legend)
equal "failed units" "$failed" ''
