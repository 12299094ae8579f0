#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A guest in qemu whose disks are two servers of ours: one with -drive
# file=nbd:unix:..., one with -blockdev driver=nbd. It writes and verifies over
# bad sectors, with flushes and discards. Meanwhile more sectors turn bad, a
# server is killed and starts again, and a whole disk fails and comes back: the
# guest stands still (werror=stop), and then goes on.
#
# The guest asks for these with a word on ttyS3, and waits for the answer.

. "$(dirname "$0")/guest.bash"

drive_bytes=$((16 << 20))       # told apart by their sizes
blockdev_bytes=$((32 << 20))

# ---------------------------------------------------------------- the host --

host ()
{
    begin_guest jq nbdcopy nbdfuse remapctl
    guest_add_program blkdiscard cmp mkfs.ext4 e2fsck
    guest_add_module virtio_pci virtio_blk ext4
    mkfifo words.in words.out qmp.in qmp.out
    exec 3<> words.out 4<> words.in 5<> qmp.out 6<> qmp.in

    # (Sector 0 is read by the kernel when it looks for partitions.)
    drive_faults=('write 0' 'both 1000-1001' 'write 20000-20063' 'all 30000-30007'
        "both $((drive_bytes / 512 - 1))")
    start_disk drive $drive_bytes "${drive_faults[@]}"
    start_server drive backing=drive.img
    blockdev_faults=('write 16' 'both 520-527' 'both 9000-9031'
        'all 50000-50063')
    start_disk blockdev $blockdev_bytes "${blockdev_faults[@]}"
    start_server blockdev backing=blockdev.img

    guest_run "$0" \
        -chardev pipe,id=words,path=words -serial chardev:words \
        -chardev pipe,id=qmp,path=qmp -mon chardev=qmp,mode=control \
        -drive "file=nbd:unix:$PWD/drive.sock,format=raw,if=virtio,cache=none,discard=unmap,werror=report,rerror=report" \
        -blockdev "driver=nbd,node-name=server,server.type=unix,server.path=$PWD/blockdev.sock,reconnect-delay=60,discard=unmap,cache.direct=on" \
        -blockdev driver=raw,node-name=disk,file=server,discard=unmap,cache.direct=on \
        -device virtio-blk-pci,drive=disk,werror=stop,rerror=stop

    part "the disks are as the guest has left them"
    equal "what was asked of the host" "$changes" \
        " more-bad-sectors kill dead flush-fails unreadable"
    are_away drive 0 0 1000 1001 20000 20063 30000 30007 8200 8207 9000 9000 \
        10000 10063 12001 12001
    are_away blockdev 16 16
    [ "$(away blockdev.img 30000 49999)" -ge 100 ] ||
        fail "nothing was remapped while ext4 was in use"
    for disk in drive blockdev; do
        stop_server $disk
        start_server $disk backing=$disk.img
        nbdcopy "$(uri_of $disk)" - | sha256sum > $disk.sum
        cmp $disk.sum out/$disk.sum
        equal "the lost sectors of $disk" "$(lost $disk.img)" 0
        stop_server $disk
        remapctl check $disk.img.remap > /dev/null
    done
}

# are_away DISK FIRST LAST...
are_away ()
{
    local disk=$1.img
    shift
    while [ $# -gt 0 ]; do
        equal "the remapped sectors of $disk from $1 to $2" \
            "$(away "$disk" "$1" "$2")" $(($2 - $1 + 1))
        shift 2
    done
}

# What the guest asks for.
# shellcheck disable=SC2317 # called by guest_boot
beside_guest ()
{
    local word
    changes=
    qmp qmp_capabilities
    while kill -0 "${pid_of[guest]}" 2>/dev/null; do
        if next_line 3; then
            word=${line//$'\r'/}
            changes+=" $word"
            say "the guest asks: $word"
            "change_$word"
        fi
    done
}

# next_line FD: $line, if it is there within a second. What has come of it by
# then is kept for the next time: a busy guest takes seconds to write a line.
declare -A begun_line
next_line ()
{
    local text
    if IFS= read -r -t 1 -u "$1" text; then
        line=${begun_line[$1]-}$text
        begun_line[$1]=
    else
        begun_line[$1]+=$text
        return 1
    fi
}

answer ()
{
    echo "yes" >&4
}

# shellcheck disable=SC2317 # called by beside_guest, as all of these
change_more-bad-sectors ()
{
    drive_faults+=('both 8200-8207' 'all 9000' 'write 10000-10063')
    set_faults drive "${drive_faults[@]}"
    for ((i = 30000; i < 50000; i += 16)); do
        blockdev_faults+=("write $i-$((i + 1))")
    done
    set_faults blockdev "${blockdev_faults[@]}"
    answer
}

# The guest is writing; it will wait.
# shellcheck disable=SC2317
change_kill ()
{
    kill_server blockdev
    answer
    start_server blockdev backing=blockdev.img
}

# The disk answers nothing but EIO; no sector of it is to blame. When it is
# back, so is the guest.
# shellcheck disable=SC2317
change_dead ()
{
    local before
    before=$(away blockdev.img)
    set_faults blockdev "all 0-$((blockdev_bytes / 512 - 1))"
    answer
    qmp_until '"event": "STOP"'
    wait_until "the breaker to open" breaker_is open
    equal "the remapped sectors" "$(away blockdev.img)" "$before"
    equal "the lost sectors" "$(lost blockdev.img)" 0
    set_faults blockdev "${blockdev_faults[@]}"
    wait_until "the disk to be back" breaker_is closed
    qmp cont
    qmp_until '"event": "RESUME"'
}

# One flush fails, and the guest stands still. Nobody can say whether all that
# was written before is durable, so no other flush succeeds, until the server
# starts anew.
# shellcheck disable=SC2317
change_flush-fails ()
{
    set_faults blockdev "${blockdev_faults[@]}" flush
    answer
    qmp_until '"event": "STOP"'
    set_faults blockdev "${blockdev_faults[@]}"
    qmp cont
    qmp_until '"event": "RESUME"'
    qmp_until '"event": "STOP"'
    kill_server blockdev        # it would wait for its client to go
    start_server blockdev backing=blockdev.img
    qmp cont
    qmp_until '"event": "RESUME"'
}

# shellcheck disable=SC2317
breaker_is ()
{
    [ "$(remapctl status --json blockdev.img | jq -r .breaker)" = "$1" ]
}

# shellcheck disable=SC2317
change_unreadable ()
{
    drive_faults+=('read 12001')
    set_faults drive "${drive_faults[@]}"
    answer
}

qmp ()
{
    printf '{ "execute": "%s" }\n' "$1" >&6
}

# qmp_until PATTERN: qemu says it.
qmp_until ()
{
    local n
    for ((n = 0; n < 60; n++)); do
        while next_line 5; do
            printf '%s\n' "$line" >> qmp.log
            if [[ $line == *$1* ]]; then
                return 0
            fi
        done
        kill -0 "${pid_of[guest]}" || return 0
    done
    fail "qemu does not say $1"
}

# --------------------------------------------------------------- the guest --

# ask WORD: and wait until it is so.
ask ()
{
    local answer
    echo "$1" >&3
    read -r -t 60 answer <&3 || fail "no answer to $1"
    equal "the answer to $1" "$answer" "yes"
}

find_disks ()
{
    local device
    for device in /sys/block/vd?; do
        case $(cat "$device/size") in
            $((drive_bytes / 512))) drive=/dev/${device##*/} ;;
            $((blockdev_bytes / 512))) blockdev=/dev/${device##*/} ;;
        esac
    done
}

# same OFFSET LENGTH FILE: what is on the drive is in the file, at that place.
same ()
{
    cmp <(dd if="$drive" bs=64k iflag=direct,skip_bytes,count_bytes skip="$1" \
            count="$2" status=none) \
        <(dd if="$3" bs=64k iflag=skip_bytes,count_bytes skip="$1" \
            count="$2" status=none)
}

# write OFFSET LENGTH FILE [CONV]: the other way round.
write ()
{
    dd if="$3" of="$drive" bs=64k oflag=direct,seek_bytes \
        iflag=skip_bytes,count_bytes skip="$1" seek="$1" count="$2" \
        conv="notrunc${4:+,$4}" status=none
}

guest ()
{
    begin_in_guest
    modprobe -a virtio_pci virtio_blk ext4
    stty -F /dev/ttyS3 raw -echo
    exec 3<> /dev/ttyS3
    find_disks
    raw_disk
    file_system
    lost_sectors
    sync
    sha256sum < "$drive" > /out/drive.sum
    sha256sum < "$blockdev" > /out/blockdev.sum
    # The reads that were to fail.
    # shellcheck disable=SC2034 # for end_in_guest
    allowed="I/O error, dev ${drive#/dev/}, sector 12000 .*READ"
    end_in_guest
}

raw_disk ()
{
    local queue=/sys/block/${drive#/dev/}/queue pids=() n
    part "a disk as qemu gives it"
    equal "the cache of $drive" "$(cat "$queue/write_cache")" "write back"
    [ "$(cat "$queue/discard_max_bytes")" -gt 0 ] || fail "no discard"
    [ "$(cat "$queue/write_zeroes_max_bytes")" -gt 0 ] || fail "no zeroes"

    part "writes and reads over bad sectors"
    head -c $drive_bytes /dev/urandom > data
    write 0 $drive_bytes data fsync
    same 0 $drive_bytes data

    part "more of them, with four writers"
    ask more-bad-sectors
    head -c $drive_bytes /dev/urandom > data
    for n in 0 1 2 3; do
        write $((n * drive_bytes / 4)) $((drive_bytes / 4)) data fsync &
        pids+=($!)
    done
    wait_for_all "${pids[@]}"
    same 0 $drive_bytes data

    part "discard and zeroes"
    blkdiscard -o $((8192 * 512)) -l $((64 * 512)) "$drive"
    blkdiscard -z -o $((9984 * 512)) -l $((128 * 512)) "$drive"
    same 0 $((8192 * 512)) data
    same $((8256 * 512)) $(((9984 - 8256) * 512)) data
    same $((10112 * 512)) $((drive_bytes - 10112 * 512)) data
    dd if=/dev/zero of=data bs=512 seek=9984 count=128 conv=notrunc status=none
    same $((9984 * 512)) $((128 * 512)) data
    write $((8192 * 512)) $((64 * 512)) data
    same 0 $drive_bytes data
}

wait_for_all ()
{
    local pid
    for pid; do
        wait "$pid" || fail "a writer failed"
    done
}

# write_files FIRST LAST: with their sums.
write_files ()
{
    local n
    for ((n = $1; n <= $2; n++)); do
        head -c $(((n * n * 7919) % 400000 + 1)) /dev/urandom > "mnt/file$n"
        (cd mnt && sha256sum "file$n") >> sums
    done
}

check_files ()
{
    (cd mnt && sha256sum -c ../sums) > check.log || fail "$(grep -v ': OK' check.log)"
}

file_system ()
{
    part "ext4 over bad sectors"
    mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 "$blockdev"
    mkdir mnt
    mount -t ext4 -o discard,errors=remount-ro "$blockdev" mnt
    write_files 1 15
    sync

    part "the server is killed, and starts again"
    (for n in {16..30}; do
        write_files "$n" "$n"
        sync
    done) &
    ask kill
    wait $! || fail "the writer failed"
    sync
    echo 3 > /proc/sys/vm/drop_caches
    check_files
    rm mnt/file?
    sed -i '/ file.$/d' sums
    fstrim mnt

    part "the disk fails as a whole, and comes back"
    sync
    ask dead
    write_files 31 35
    sync

    part "a flush fails"
    write_files 36 40
    ask flush-fails
    sync
    echo 3 > /proc/sys/vm/drop_caches
    check_files
    umount mnt
    e2fsck -fn "$blockdev" > fsck.log 2>&1 || fail "$(cat fsck.log)"
}

lost_sectors ()
{
    part "a sector that cannot be read"
    ask unreadable
    # When it is met, and when it is known.
    for _ in 1 2; do
        should_fail dd if="$drive" of=/dev/null bs=4k skip=1500 count=1 \
            iflag=direct status=none
    done
    same 0 $((12000 * 512)) data
    same $((12008 * 512)) $((drive_bytes - 12008 * 512)) data
    write $((12000 * 512)) 4096 data
    same $((12000 * 512)) 4096 data
}

if on_host; then
    host
else
    guest
fi
