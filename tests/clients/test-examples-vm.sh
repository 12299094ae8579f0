#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The examples with virtual machines: one has a disk from each of those with
# qemu, writes over bad sectors, and reads what it wrote. Another one is a
# domain of libvirt.

. "$(dirname "$0")/guest.bash"
. "$(dirname "$0")/examples.bash"

# Of each disk the guest uses 1 MiB, which has four bad sectors.
nr_disks=5
mib=$((1 << 20))

if ! on_host; then
    begin_in_guest
    modprobe virtio_pci
    modprobe virtio_blk
    disks=(/dev/vd?)
    wait_until "the disks" test -b "${disks[-1]}"
    equal "the number of disks" ${#disks[@]} "$(cat /guest/disks)"
    for n in "${!disks[@]}"; do
        dd if=/dev/urandom of=data bs=$mib count=1 2> /dev/null
        dd if=data of="${disks[n]}" bs=$mib seek="$n" count=1 oflag=direct \
            2> /dev/null || fail "cannot write"
        dd if="${disks[n]}" bs=$mib skip="$n" count=1 iflag=direct \
            2> /dev/null | cmp - data || fail "other data is read"
        cat data >> /out/data
        blockdev --flushbufs "${disks[n]}"
    done
    exit
fi

begin_guest psktool nbdcopy virt-qemu-run virt-xml-validate
guest_add_program blockdev cmp dd
guest_add_module virtio_pci virtio_blk
chmod 755 "$test_dir"           # libvirt runs as someone else

port=$((20000 + $$ % 12000))
while (: <> "/dev/tcp/localhost/$port") 2> /dev/null; do
    port=$((port + 1))
done
example_rules="
    s,/run/sdx.sock,$test_dir/remap.sock,
    s,/etc/nbdkit-remap,$test_dir/keys,
    s,10809,$port,"

options=()
# shellcheck disable=SC2317 # called by eval
qemu-system-x86_64 ()
{
    options+=("$@")
}

faults=()
for ((n = 0; n < nr_disks; n++)); do
    faults+=("both $((n * 2048 + 100))-$((n * 2048 + 102))" \
        "write $((n * 2048 + 2047))")
done

# check_disks NUMBER NAME...: each MiB that the guest wrote is on one of them.
check_disks ()
{
    local nr=$1 name n found
    shift
    for name; do
        nbdcopy "$(uri_of "$name")" "$name.copy"
        equal "the number of lost sectors" "$(lost "$name.remap")" 0
    done
    for ((n = 0; n < nr; n++)); do
        found=
        for name; do
            if cmp -s -n $mib "$name.copy" out/data $((n * mib)) $((n * mib))
            then
                found=$name
            fi
        done
        [ -n "$found" ] || fail "the data of disk $n is nowhere"
    done
}

part "qemu"
mkdir keys
psktool -u alice -p keys/keys.psk > /dev/null
start_medium near-disk $((8 * mib)) "${faults[@]}"
start_medium far-disk $((8 * mib)) "${faults[@]}"
start_server remap backing="$(uri_of near-disk-medium)" spare=remap.remap
start_until far far.pid nbdkit -f -P far.pid \
    -p "$port" --tls=require --tls-psk=keys/keys.psk \
    "$remap_plugin" backing="$(uri_of far-disk-medium)" spare=far.remap
for id in qemu qemu-drive-nbd qemu-drive qemu-blockdev tls-psk-qemu; do
    eval "$(example $id)"
done
unset -f qemu-system-x86_64
echo $nr_disks > "$guest_root/guest/disks"
guest_run "$0" "${options[@]}"
stop_server far
start_server far backing="$(uri_of far-disk-medium)" spare=far.remap
check_disks $nr_disks remap far
equal "the number of remapped sectors" "$(remapped remap.remap)" 16
equal "the number of remapped sectors, with TLS" "$(remapped far.remap)" 4
stop_server remap
stop_server far
stop near-disk-medium
forget_notes

part "libvirt"
rm -f near-disk.medium remap.remap
start_medium near-disk $((8 * mib)) "${faults[@]}"
start_server remap backing="$(uri_of near-disk-medium)" spare=remap.remap
chmod 777 remap.sock            # as ExecStartPost= of the unit does it
cat > domain.xml <<END
<domain type='qemu'>
  <name>guest</name>
  <memory unit='GiB'>1</memory>
  <vcpu>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>$guest_kernel</kernel>
    <initrd>$test_dir/initramfs</initrd>
    <cmdline>console=ttyS0 loglevel=5 panic=-1 no_timer_check rdinit=/guest/init</cmdline>
  </os>
  <features>
    <acpi/>
  </features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>$(command -v qemu-system-x86_64)</emulator>
$(example libvirt)
    <serial type='file'><source path='$test_dir/console'/></serial>
    <serial type='file'><source path='$test_dir/result'/></serial>
    <serial type='file'><source path='$test_dir/out.tar'/></serial>
  </devices>
</domain>
END
virt-xml-validate domain.xml domain
mkdir -p libvirt/etc libvirt/home
echo 'security_driver = "none"
stdio_handler = "file"' > libvirt/etc/qemu.conf
rm -rf console result out.tar out
touch console result out.tar

# The driver of libvirt in a process of its own. As root it would need libvirt's
# user.
# shellcheck disable=SC2317 # called by guest_run
guest_boot ()
{
    local as=()
    if [ "$(id -u)" -eq 0 ]; then
        chown -R 65534 libvirt console result out.tar
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fi
    guest_status=0
    start guest env HOME="$test_dir/libvirt/home" \
        XDG_RUNTIME_DIR="$test_dir/libvirt/home" "${as[@]}" \
        timeout --kill-after=5 "$guest_seconds" \
        virt-qemu-run --root="$test_dir/libvirt" domain.xml
    # It outlives its guest.
    while kill -0 "${pid_of[guest]}" 2> /dev/null &&
          ! grep -q "^end" result; do
        sleep 0.2
    done
    kill "${pid_of[guest]}" 2> /dev/null || :
    wait "${pid_of[guest]}" || guest_status=$?
    forget guest
}
echo 1 > "$guest_root/guest/disks"
guest_run "$0"
check_disks 1 remap
equal "the number of remapped sectors" "$(remapped remap.remap)" 4
stop_server remap
