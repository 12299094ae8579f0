#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# fsx on ext4 on /dev/nbd0, over sectors that do not work at all: files are
# written, mapped, moved and removed at random, and nobody notices.

. "$(dirname "$0")/guest.bash"

if on_host; then
    begin_guest
    guest_add_program dmsetup e2fsck filefrag mkfs.ext4 nbd-client
    guest_add_module dm-mod ext4 loop nbd
    guest_add_binary "$REMAP_BUILDDIR/tests/clients/fsx" /usr/bin/fsx
    guest_run "$0"
    exit
fi

begin_in_guest
make_disk disk 48M
start_server remap backing=/dev/mapper/disk spare=store
attach remap
mkfs.ext4 -q -b 1024 -J size=4 \
    -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$nbd"
mount -t ext4 -o errors=remount-ro,discard "$nbd" /mnt

part "sectors that do not work at all are written before they are read"
# Of a file whose blocks are allocated, and not written: nearly all there are.
size=$((($(stat -f -c '%a * %S' /mnt) - (1 << 20)) >> 16 << 16))
fallocate -l $size /mnt/reserve
bad=()
for range in $(sectors_of /mnt/reserve); do
    for ((at = ${range%-*}; at <= ${range#*-}; at += 101)); do
        bad+=("$at")
    done
done
change_disk disk "${bad[@]}"
head -c $size /dev/urandom > reserve
dd if=reserve of=/mnt/reserve bs=64k conv=notrunc,fsync status=none
equal "the number of remapped sectors" "$(remapped store)" "${#bad[@]}"
drop_caches
cmp reserve /mnt/reserve
# Other files get these blocks.
rm reserve /mnt/reserve
sync

# run_fsx OPTION...: in /mnt/files; the model is in the directory model.
run_fsx ()
{
    rm -rf before
    [ ! -d model ] || mv model before
    timeout 200 fsx --save=model "$@" /mnt/files || fail "fsx"
}

part "random operations where sectors are remapped"
mkdir /mnt/files
run_fsx --seconds=8
drop_caches
run_fsx --seconds=5 --load=before
umount /mnt
e2fsck -fn "$nbd" > fsck.log 2>&1 || fail "$(cat fsck.log)"

part "after a kill, all is as it should be"
kill_server remap
detach
start_server remap backing=/dev/mapper/disk spare=store
attach remap
mount -t ext4 "$nbd" /mnt
diff -r model /mnt/files || fail "not what it should be"
run_fsx --seconds=1 --load=before
umount /mnt
equal "the number of lost sectors" "$(lost store)" 0
detach
stop_server remap
remapctl check store
remove_disk disk
# Of the server that was killed.
allowed='nbd0: (Receive control|Send disconnect) failed' end_in_guest
