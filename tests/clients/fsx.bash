# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Random operations (fsx.c) on a file system, mounted from a loop device, over
# nbdfuse, over the server, over a disk whose sectors go bad meanwhile. A test
# says which file system: it sets $fs and $fs_bytes, and defines
#
#     make_fs DEVICE
#     check_fs DEVICE       # fails if anything is wrong
#     mount_fs DEVICE DIRECTORY
#
# and calls run_fsx_test TOOL... (which those use). REMAP_TEST_SEED=N repeats
# what fsx does; what it meets where depends on when the kernel writes.

fsx=$REMAP_BUILDDIR/tests/clients/fsx
seed=${REMAP_TEST_SEED:-$RANDOM}
loop=

at_end ()
{
    [ -z "$loop" ] || kernel_complaints
}

# attach: the disk of the server "remap", as $loop.
attach ()
{
    : > served.img
    start_until served-fuse served-fuse.pid \
        nbdfuse -P served-fuse.pid served.img "$(uri_of remap)"
    loop=$(losetup --find --show --direct-io=on served.img) ||
        skip "no loop device with direct I/O here"
}

detach ()
{
    losetup --detach "$loop"
    loop=
    wait_until "the loop device to let go" unmount_served
    wait "${pid_of[served-fuse]}" || :
    forget served-fuse
}

unmount_served ()
{
    umount served.img 2>/dev/null
}

# What the kernel has said of the device since `listen_to_kernel`. (ext4 warns
# of "data that will be lost" when it finds a page dirty that holds nothing of a
# file.)
kernel_mark=
listen_to_kernel ()
{
    kernel_mark="$test_name $$ $RANDOM"
    echo "$kernel_mark" > /dev/kmsg
}

kernel_complaints ()
{
    dmesg | awk -v mark="$kernel_mark" -v device="${loop##*/}" '
        mark != "" && index($0, mark) { on = 1; next }
        on && $0 ~ device "[^0-9]" && /[Ee]rror|warning|WARN|orrupt/ &&
            !/data will be lost/
        END { if (mark != "" && !on) print "what it said is not to be had" }'
}

# faults_under KIND NUMBER DIRECTORY...: so many places of the disk, where data
# of files lies at this moment; "KIND FIRST-LAST" for each. A block is hit
# whole or in part.
faults_under ()
{
    local kind=$1 number=$2
    shift 2
    # Files come and go.
    { find "$@" -type f -exec filefrag -s -e -b512 {} + 2>/dev/null || :; } |
        sed 's/[.:]/ /g' |
        awk -v seed=$RANDOM -v kind="$kind" -v number="$number" '
            BEGIN { srand(seed); n = 0 }
            $1 ~ /^[0-9]+$/ && $6 > 0 && !/unknown_loc|delalloc/ {
                first[n] = $4; last[n++] = $5
            }
            END {
                for (i = 0; n > 0 && i < number; i++) {
                    k = int(rand() * n)
                    from = first[k] + int(rand() * (last[k] - first[k] + 1))
                    to = from + int(rand() * rand() * 24)
                    if (to > last[k])
                        to = last[k]
                    print kind, from "-" to
                }
            }'
}

# What is remapped is not touched any more: from now on, nothing there works.
ruin_remapped ()
{
    remapctl list --csv disk.img |
        awk -F, '$3 == "remapped" { print "all", $1 "-" $1 + $2 - 1 }'
}

# start_fsx NAME OPTION...: in mnt/NAME, beginning with what it has left there;
# in the end its model is NAME.model.
start_fsx ()
{
    local name=$1 load=()
    shift
    mkdir -p "mnt/$name"
    if [ -d "$name.model" ]; then
        rm -rf "$name.before"
        mv "$name.model" "$name.before"
        load=(--load="$name.before")
    fi
    start "$name" "$fsx" "${load[@]}" --save="$name.model" "$@" "mnt/$name"
}

# Is one of them still at it?
running ()
{
    local name
    for name; do
        ! is_gone "$name" || continue
        return 0
    done
    return 1
}

finish_fsx ()
{
    local name
    for name; do
        status=0
        wait "${pid_of[$name]}" || status=$?
        forget "$name"
        grep -h '^fsx: ' "$name.log" | tail -n 2
        [ "$status" -eq 0 ] || fail "$name: status $status"
    done
}

# All of it, after it was unmounted, checked and mounted.
compare_fsx ()
{
    local name
    umount mnt
    check_fs "$loop"
    mount_fs "$loop" mnt
    for name; do
        diff -r "$name.model" "mnt/$name" || fail "$name is not as it should be"
    done
}

# places NUMBER: "FIRST-LAST" anywhere on the disk.
places ()
{
    local n at
    for ((n = 0; n < $1; n++)); do
        at=$(((RANDOM * 32768 + RANDOM) % (fs_bytes / 512 - 8)))
        echo "$at-$((at + RANDOM % 8))"
    done
}

run_fsx_test ()
{
    need_root "for a loop device and a mount"
    begin nbdkit nbdfuse losetup filefrag mount umount find dmesg "$@"
    grep -qw "$fs" /proc/filesystems || modprobe -q "$fs" 2>/dev/null ||
        skip "no $fs in this kernel"
    RANDOM=$seed
    say "REMAP_TEST_SEED=$seed"
    mkdir mnt
    places 60 | sed 's/^/write /' > faults.first
    mapfile -t faults < faults.first
    start_disk disk "$fs_bytes" "${faults[@]}"
    start_server remap backing=disk.img
    attach

    part "a file system over bad sectors"
    listen_to_kernel
    make_fs "$loop"
    check_fs "$loop"
    mount_fs "$loop" mnt

    part "sectors that do not work at all are written before they are read"
    fallocate --length 4M mnt/reserve
    faults_under both 40 mnt/reserve >> faults.first
    mapfile -t faults < faults.first
    set_faults disk "${faults[@]}"
    head -c 4M /dev/urandom > reserve
    dd if=reserve of=mnt/reserve bs=64k conv=notrunc,fsync status=none
    [ "$(remapped disk.img)" -ge 40 ] || fail "hardly a sector is remapped"

    part "sectors go bad under live files, and cannot be written"
    start_fsx one --seed="$seed" --seconds="${fsx_seconds:-6}"
    start_fsx two --seed=$((seed + 1)) --seconds="${fsx_seconds:-6}"
    while running one two; do
        faults_under write 8 mnt >> faults.more
        ruin_remapped > faults.ruined
        mapfile -t faults < <(cat faults.first faults.more faults.ruined)
        set_faults disk "${faults[@]}"
        sleep 0.2               # for files to move on
    done
    finish_fsx one two
    compare_fsx one two
    cmp reserve mnt/reserve
    equal "the number of lost sectors" "$(lost disk.img)" 0
    say "$(remapped disk.img) sectors are remapped"
    [ "$(remapped disk.img)" -ge 20 ] || fail "the faults were hardly met"

    part "the same, mounted again and again"
    cat > remount <<END_OF_SCRIPT
#!/bin/bash
set -e
umount mnt
$(declare -f check_fs mount_fs)
check_fs $loop > remount.log 2>&1
mount_fs $loop mnt
END_OF_SCRIPT
    chmod +x remount
    start_fsx one --seed="$seed" --seconds=$((${fsx_seconds:-6} / 2)) \
        --remount="cd '$test_dir' && ./remount"
    finish_fsx one
    compare_fsx one two
    equal "the number of lost sectors" "$(lost disk.img)" 0
    equal "what the kernel says" "$(kernel_complaints)" ""

    # What is lost of files that are removed then, others get, and tools that
    # check a file system read ahead over it: so it is not checked any more.
    part "sectors go bad that hold data: EIO, but never wrong data"
    faults_under both 20 mnt/one > faults.data
    umount mnt
    mount_fs "$loop" mnt
    mapfile -t faults < <(cat faults.first faults.ruined faults.data)
    set_faults disk "${faults[@]}"
    start_fsx one --seed="$seed" --seconds=$((${fsx_seconds:-6} / 2)) \
        --read-errors
    finish_fsx one
    ! tail -n 1 one.log | grep -q ' 0 errors' || fail "no read has failed"
    umount mnt
    mount_fs "$loop" mnt
    start_fsx one --seed="$seed" --seconds=0 --read-errors
    finish_fsx one
    umount mnt
    detach
    stop_server remap
    remapctl check disk.img.remap
    stop_disk disk
}
