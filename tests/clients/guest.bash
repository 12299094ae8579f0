# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# A Linux kernel to test with: Debian's newest that is installed, in qemu, with
# an initramfs made of installed programs, of modules of that kernel, and of
# the plugin and remapctl as they are here. No KVM, no network, no root.
#
# A test of the kernel is one script that runs twice, on the host and in the
# guest:
#
#     . "$(dirname "$0")/guest.bash"
#     if on_host; then
#         begin_guest             # or: guest_memory=1G begin_guest
#         guest_add_program mkfs.ext4 e2fsck
#         guest_add_module ext4 scsi_debug
#         guest_run "$0"          # or: guest_run "$0" -drive file=...
#         exit
#     fi
#     begin_in_guest              # here is the guest, and we are root
#     ...                         # the commands of guest/support.bash
#     end_in_guest                # is the kernel content?
#
# or a script of its own for the guest: guest_run clients/guest/SCRIPT.
#
# The guest has bash, busybox for the rest, nbdkit, and this directory as
# /clients. What the script says appears with the messages of the kernel in the
# file `console` of the test, and is shown where the test fails. The guest has
# succeeded if the script ended with 0; a panic, a hang, a qemu that ends are
# failures. What the script leaves in /out is in the directory `out` of the test
# afterwards.

. "$(dirname "${BASH_SOURCE[0]}")/support.bash"

clients_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

on_host ()
{
    [ ! -e /guest/is-guest ]
}

if ! on_host; then
    . "$clients_dir/guest/support.bash"
    return 0
fi

guest_memory=${guest_memory:-1G}
guest_cpus=${guest_cpus:-2}
guest_seconds=${guest_seconds:-280} # it hangs, if it takes longer
guest_root=                     # what becomes the initramfs
guest_kernel=
guest_release=

# begin_guest [TOOL...]: instead of begin.
begin_guest ()
{
    begin qemu-system-x86_64 busybox cpio depmod modprobe ldd nbdkit "$@"
    find_kernel
    guest_root=$test_dir/root
    local dir
    for dir in bin sbin lib lib64; do
        mkdir -p "$guest_root/usr/$dir"
        ln -s "usr/$dir" "$guest_root/$dir"
    done
    mkdir -p "$guest_root"/{busybox,dev,etc,guest,mnt,out,proc,root,run,sys,tmp,var}
    guest_add_busybox
    guest_add_program bash dd env nbdkit timeout
    guest_add_plugin
    guest_add_file "$clients_dir" /clients
    mv "$guest_root/clients/guest/"{init,main} "$guest_root/guest/"
    ln -s guest/init "$guest_root/init"
    : > "$guest_root/guest/is-guest"
}

find_kernel ()
{
    local release
    for release in $(cd /lib/modules && printf '%s\n' * | sort -V); do
        if [ -r "/boot/vmlinuz-$release" ]; then
            guest_kernel=/boot/vmlinuz-$release
            guest_release=$release
        fi
    done
    [ -n "$guest_kernel" ] || skip "no kernel in /boot with its modules"
}

# The programs of busybox stand last in PATH. But what busybox itself starts
# (timeout, env, xargs) is always its own, where it has that.
guest_add_busybox ()
{
    guest_add_file "$(command -v busybox)" /usr/bin/busybox
    busybox --list | while read -r name; do
        ln -s /bin/busybox "$guest_root/busybox/$name"
    done
    ln -s busybox "$guest_root/bin/sh"
    ln -s ../bin/busybox "$guest_root/sbin/modprobe"
}

# At the same paths as here: the plugin finds its library by that, as does
# remapctl where it is installed. In the build tree remapctl is a script of
# libtool; this one is faster.
guest_add_plugin ()
{
    local path real library=$REMAP_BUILDDIR/lib/.libs
    path=$(command -v remapctl) || fail "no remapctl here"
    real=$(dirname "$path")/.libs/remapctl
    guest_add_binary "$remap_plugin"
    if [ -e "$real" ]; then
        guest_add_binary "$real"
        guest_script "$path" \
            "LD_LIBRARY_PATH='$library' exec '$real' \"\$@\""
    else
        guest_add_binary "$path"
    fi
}

# guest_script PATH_THERE LINE...
guest_script ()
{
    local there=$guest_root$1
    shift
    mkdir -p "$(dirname "$there")"
    printf '%s\n' '#!/bin/sh' "$@" > "$there"
    chmod +x "$there"
}

# guest_add_file PATH [PATH_THERE]: a file or a directory, as it is. A link
# becomes what it points to.
guest_add_file ()
{
    local there=$guest_root${2:-$1}
    mkdir -p "$(dirname "$there")"
    cp -rLT --remove-destination "$1" "$there"
    # The source tree may be read-only.
    [ ! -d "$there" ] || chmod -R u+w "$there"
}

# guest_add_binary PATH [PATH_THERE]: a program or a library, and the libraries
# that it needs.
guest_add_binary ()
{
    guest_add_file "$@"
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$guest_root$library" ] || guest_add_file "$library"
    done
}

# guest_add_program NAME...: as they are in PATH here.
guest_add_program ()
{
    local name path
    for name; do
        path=$(command -v "$name") || skip "no $name here"
        guest_add_binary "$path"
    done
}

# guest_add_module NAME...: and what it depends on. They are loaded when the
# kernel or a script asks for them.
guest_add_module ()
{
    local name path
    for name; do
        modprobe -S "$guest_release" --show-depends "$name" > modules ||
            skip "the kernel $guest_release has no module $name"
        while read -r _ path _; do
            [ ! -e "$path" ] || guest_add_file "$path"
        done < modules
    done
}

# guest_run SCRIPT [QEMU_OPTION...]: in a guest, with all that was added.
# guest_init is what the kernel starts; another one than /guest/init has to
# run /guest/main in the end.
# beside_guest, if the test has that function, runs meanwhile, on the host.
guest_run ()
{
    local script
    script=$(basename "$1")
    shift
    [ -e "$guest_root/clients/$script" ] || script=guest/$script
    mkdir -p "$guest_root/lib/modules/$guest_release"
    depmod -b "$guest_root" "$guest_release" 2>/dev/null
    guest_environment > "$guest_root/guest/environment"
    printf '%s\n' "/clients/$script" > "$guest_root/guest/script"
    (cd "$guest_root" && find . | cpio --quiet -o -H newc -R 0:0) > initramfs
    part "a kernel $guest_release boots, and runs $script"
    guest_boot "$@"
    guest_verdict
}

# The variables that scripts have in the guest.
guest_environment ()
{
    cat <<END
PATH='$(dirname "$(command -v remapctl)"):/usr/sbin:/usr/bin:/busybox'
REMAP_BUILDDIR='$REMAP_BUILDDIR'
REMAP_PLUGIN='$remap_plugin'
REMAP_STATEDIR='${REMAP_STATEDIR-}'
test_name='$test_name'
guest_modules='$guest_release'
END
}

# A host that is busy lets a guest wait for seconds: the kernel is not to take
# that for a broken timer or a stuck CPU. An oops ends the guest.
kernel_parameters ()
{
    echo console=ttyS0 loglevel=5 panic=-1 oops=panic no_timer_check \
        nowatchdog rcupdate.rcu_cpu_stall_suppress=1 \
        rdinit="${guest_init:-/guest/init}"
}

# ttyS0 is the console, ttyS1 for the exit status, ttyS2 for files.
guest_boot ()
{
    guest_status=0
    ln -sf console console.log  # shown, too, if the test does not get further
    # In the process group of the test: who kills that, kills the guest.
    start guest timeout --foreground --kill-after=5 "$guest_seconds" \
        qemu-system-x86_64 -accel tcg -cpu max -m "$guest_memory" \
        -smp "$guest_cpus" -display none -nodefaults -no-user-config \
        -no-reboot -kernel "$guest_kernel" -initrd initramfs \
        -append "$(kernel_parameters)" \
        -chardev file,id=console,path=console -serial chardev:console \
        -serial file:result -serial file:out.tar "$@"
    if declare -F beside_guest >/dev/null; then
        beside_guest
    fi
    wait "${pid_of[guest]}" || guest_status=$?
    forget guest
    rm console.log
}

guest_verdict ()
{
    if [ "$(tr -d '\r' < result)" != "end 0" ]; then
        say "---- what the guest said:"
        cat console
        [ "$guest_status" -ne 124 ] ||
            fail "the guest hung: not done within $guest_seconds seconds"
        fail "the guest failed: '$(cat result)'; qemu ended with $guest_status"
    fi
    tr -d '\r' < console | grep "^$test_name: " || :
    mkdir -p out
    [ ! -s out.tar ] || tar -xf out.tar -C out
}
