#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# nbdfuse, a loop device on top of it, and on that a mounted file system: where
# there is no /dev/nbd0, this is how a disk is used. The disk has bad sectors
# where ext4 has its metadata, its journal and its files.

. "$(dirname "$0")/support.bash"
begin cmp debugfs e2fsck losetup mkfs.ext4 mount nbdfuse nbdkit remapctl \
    sha256sum umount
need_root "to mount"

disk_bytes=$((96 << 20))
loop=

# The kernel's own messages are not ours alone; ext4 counts its errors.
mount_disk ()
{
    mount -t ext4 -o errors=remount-ro "$loop" mnt
}

unmount_disk ()
{
    equal "the errors that ext4 has met" \
        "$(cat "/sys/fs/ext4/$(basename "$loop")/errors_count")" 0
    umount mnt
}

attach ()
{
    : > client.img
    start_until client client.pid \
        nbdfuse -P client.pid client.img "$(uri_of remap)"
    equal "the size of the file" "$(stat -c %s client.img)" $disk_bytes
    loop=$(losetup --find --show --direct-io=on client.img) ||
        skip "no loop device for direct I/O here"
    equal "direct I/O of $loop" "$(losetup -nO DIO "$loop" | tr -d ' ')" 1
}

# When it is gone, the next may have its name.
detach ()
{
    losetup -d "$loop"
    wait_until "$loop to go" loop_is_gone
    loop=
    fusermount3 -u client.img
    wait "${pid_of[client]}" || fail "nbdfuse ended with $?"
    forget client
}

loop_is_gone ()
{
    ! losetup -nO BACK-FILE "$loop" 2>/dev/null | grep -q "$test_dir/"
}

# write_files FIRST LAST: from one sector to a megabyte each; their sums go to
# the list.
write_files ()
{
    local n
    for ((n = $1; n <= $2; n++)); do
        head -c $(((n * n * 7919) % 900000 + 1)) /dev/urandom > "mnt/file$n"
    done
    (cd mnt && sha256sum $(seq -f 'file%g' "$1" "$2")) >> sums
}

check_files ()
{
    (cd mnt && sha256sum --quiet -c ../sums) || fail "files are damaged"
    cmp mnt/dir/copy source
}

# sector_of FILE BLOCK: where it is on the disk.
sector_of ()
{
    echo $(($(debugfs -R "bmap /$1 $2" "$loop" 2>/dev/null) * 8))
}

# A block of file40 that has no remapped sector: $block, from sector $first on.
find_good_block ()
{
    for ((block = 1; block < 20; block++)); do
        first=$(sector_of file40 $block)
        if [ "$(away disk.img "$first" $((first + 7)))" -eq 0 ]; then
            return
        fi
    done
    fail "all blocks of file40 are remapped"
}

# In each group of ext4, and in what is written of it: superblock, descriptors,
# bitmaps, tables, journal, data. (The first 4 KiB are written in parts, so the
# kernel has to read them first.)
faults=('write 2-3' 'both 8-15' 'write 16' 'both 40-47')
for ((sector = 517; sector < disk_bytes / 512; sector += 1021)); do
    faults+=("both $sector-$((sector + sector % 3))")
done

part "ext4 is made over bad sectors"
head -c 3M /dev/urandom > source
start_disk disk $disk_bytes "${faults[@]}"
start_server remap backing=disk.img
attach
mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 "$loop"
e2fsck -fn "$loop" > fsck.log 2>&1
[ "$(away disk.img 2 47)" -ge 10 ] || fail "nothing was written over bad sectors"

part "files over bad sectors"
mkdir mnt
: > sums
mount_disk
write_files 1 40
mkdir mnt/dir
cp source mnt/dir/copy
sync -f mnt/dir/copy
unmount_disk
mount_disk
check_files
before=$(away disk.img)
[ "$before" -ge 100 ] || fail "only $before sectors were remapped"

part "more bad sectors, while it is mounted"
for ((sector = 300; sector < disk_bytes / 512; sector += 613)); do
    faults+=("write $sector-$((sector + 1))")
done
set_faults disk "${faults[@]}"
rm mnt/file1 mnt/file2 mnt/file3
sed -i '/ file[123]$/d' sums
write_files 41 70
# What lies there already is written anew.
dd if=source of=mnt/dir/copy bs=64k conv=notrunc,fsync status=none
sync -f mnt/dir/copy
unmount_disk
e2fsck -fn "$loop" > fsck.log 2>&1
[ "$(away disk.img)" -gt $((before + 50)) ] || fail "nothing new was remapped"
equal "the number of lost sectors" "$(lost disk.img)" 0

part "all is there after a kill and a restart"
detach
kill_server remap
start_server remap backing=disk.img
attach
e2fsck -fn "$loop" > fsck.log 2>&1
mount_disk
check_files

part "a file with a sector that cannot be read"
find_good_block
faults+=("read $((first + 3))")
set_faults disk "${faults[@]}"
umount mnt
mount_disk
should_fail sha256sum mnt/file40 2> error.log
should_fail dd if=mnt/file40 of=/dev/null bs=4k skip=$block count=1 \
    status=none 2> error.log
grep -q 'Input/output error' error.log || fail "$(cat error.log)"
equal "the number of lost sectors" "$(lost disk.img)" 1
sed -i '/ file40$/d' sums
check_files
# Written anew, in place, it is as good as any other.
size=$(stat -c %s mnt/file40)
head -c "$size" source > new
dd if=new of=mnt/file40 bs=64k conv=notrunc,fsync status=none
unmount_disk
mount_disk
cmp new mnt/file40
equal "the number of lost sectors" "$(lost disk.img)" 0
check_files
unmount_disk
e2fsck -fn "$loop" > fsck.log 2>&1
detach
stop_server remap
remapctl check disk.img.remap > /dev/null
