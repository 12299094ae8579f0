#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The tarball of `make dist`, as a Debian package: it is built, installed, does
# its work where it is installed, and is removed, and leaves nothing but the
# stores of disks. $REMAP_TEST_TARBALL may name another tarball.
#
# It is installed on the machine that this runs on, but for this test alone: in
# a mount namespace of its own /etc, /usr and /var are overlays, and what is
# written there goes to memory.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/examples.bash"
begin dh dpkg-buildpackage lintian make nbdcopy nbdkit nsenter pkg-config \
    unshare
need_root "for a mount namespace"

packages=(libremap-dev libremap0 nbdkit-plugin-remap)
state_dir=/var/lib/nbdkit-remap
man_index=/var/lib/man-db/auto-update
build_dir=${REMAP_BUILDDIR:?}
strict=${REMAP_TEST_STRICT-}
multiarch=$(dpkg-architecture -q DEB_HOST_MULTIARCH)
lib_dir=/usr/lib/$multiarch
plugin=$lib_dir/nbdkit/plugins/nbdkit-remap-plugin.so
library=$lib_dir/libremap.so.0.0.0
unit=/lib/systemd/system/nbdkit-remap@.service

# plain COMMAND...: with nothing of the environment of the tests, nor of make.
plain ()
{
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME="$test_dir" LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        DEB_BUILD_OPTIONS="nocheck noautodbgsym parallel=2" "$@"
}

# ---------------------------------------------------- a machine of our own --

# inside COMMAND...: where the packages are installed.
inside ()
{
    plain "${enter[@]}" "$@"
}

has_own_mounts ()
{
    [ "$(readlink "/proc/${pid_of[machine]}/ns/mnt")" != \
      "$(readlink /proc/self/ns/mnt)" ]
}

# What is not a link into /usr.
overlaid_dirs ()
{
    local dir
    for dir in /bin /etc /lib /lib32 /lib64 /libx32 /sbin /usr /var; do
        [ ! -d "$dir" ] || [ -L "$dir" ] || printf '%s\n' "$dir"
    done
}

# What is changed in /usr is then in $test_dir/machine/upper/usr. There, a
# device 0:0 is what is not to be seen any more: from the start the stores of
# this machine, and what has the index of all manuals made again and again.
start_machine ()
{
    local dir dirs file top=$test_dir/machine
    mapfile -t dirs < <(overlaid_dirs)
    mkdir "$top"
    start machine unshare -m --propagation private sleep infinity
    enter=(nsenter -t "${pid_of[machine]}" -m)
    wait_until "a mount namespace" has_own_mounts
    inside mount -t tmpfs -o mode=755 remap-test "$top"
    for file in "$state_dir" "$man_index"; do
        if [ -e "$file" ]; then
            inside mkdir -p "$top/upper$(dirname "$file")"
            inside mknod "$top/upper$file" c 0 0
        fi
    done
    for dir in "${dirs[@]}"; do
        inside mkdir -p "$top/upper$dir" "$top/work$dir"
        inside mount -t overlay -o "lowerdir=$dir,upperdir=$top/upper$dir,workdir=$top/work$dir" \
            remap-test "$dir" || skip "no overlayfs here"
    done
    own_tests
}

# installcheck writes logs, and builds what is not built: in a copy. Those of the
# build tree are of other runs, that may go on.
own_tests ()
{
    local tests=$test_dir/machine/tests
    inside mkdir "$tests"
    (cd "$build_dir/tests" && tar --format=posix --exclude='*.log*' \
        --exclude='*.trs*' --exclude='*.reports' -cf - .) |
        inside tar -xf - -C "$tests"
    inside mount --bind "$tests" "$build_dir/tests"
}

# left_behind: what was changed on this machine, and is not dpkg's, nor made of
# what is installed.
left_behind ()
{
    local type path top=$test_dir/machine/upper
    inside find "$top" -mindepth 1 -printf '%y %P\n' |
        while read -r type path; do
            case /$path in
                /etc/ld.so.cache | /var/cache/ldconfig/aux-cache) ;;
                /var/cache/debconf/* | /var/cache/man/*) ;;
                /var/lib/dpkg/*remap*) printf '%s\n' "/$path" ;;
                /var/lib/dpkg/* | /var/log/dpkg.log) ;;
                "$state_dir" | "$man_index")
                    inside test ! -e "/$path" || printf '%s\n' "/$path" ;;
                *) [ "$type" = d ] && [ -d "/$path" ] || printf '%s\n' "/$path" ;;
            esac
        done | LC_ALL=C sort
}

install_packages ()
{
    inside dpkg -i "${debs[@]}" || fail "dpkg -i"
}

# remove_packages OPTION: dpkg -r or -P; what it says is in removal.log.
remove_packages ()
{
    inside dpkg "$1" "${packages[@]}" > removal.log 2>&1 ||
        fail "dpkg $1: $(< removal.log)"
}

# installcheck [VARIABLE=VALUE]: make installcheck, of what is installed there.
# (Indented, its results are not counted among those of make check-clients.)
installcheck ()
{
    inside env REMAP_TEST_STRICT="$strict" TMPDIR="$(dirname "$test_dir")" \
        make -s -C "$build_dir/tests" installcheck \
        bindir=/usr/bin includedir=/usr/include libdir="$lib_dir" \
        mandir=/usr/share/man plugindir="$(dirname "$plugin")" \
        "$@" 2>&1 | sed 's/^/    /'
}

# replaced FILE BY: installcheck notices.
replaced ()
{
    local file=$1 by=$2
    part "installcheck, and $file is replaced"
    inside mv "$file" "$file.good"
    inside cp "$by" "$file"
    should_fail installcheck installed_tests=test-write-over-bad-sectors
    inside mv "$file.good" "$file"
}

# -------------------------------------------------------------------- build --

# version_of DIRECTORY
version_of ()
{
    sed -n 's/^AC_INIT(\[remap\], \[\(.*\)\])$/\1/p' "$1/configure.ac"
}

part "build the package from the tarball"
tarball=${REMAP_TEST_TARBALL-}
if [ -z "$tarball" ]; then
    plain make -s -C "$build_dir" dist > dist.log 2>&1 || fail "make dist"
    tarball=$build_dir/remap-$(version_of "${REMAP_SRCDIR:?}").tar.gz
fi
mkdir package
cp "$tarball" package/
cd package
# What it needs is there, and what it makes is installed further down.
example_rules='
    s,apt-get install \.\./,ls ../,
    s,apt-get install,dpkg-query -W,'
example debian > build.sh
plain bash -eux -o pipefail build.sh > ../build.log 2>&1 ||
    fail "dpkg-buildpackage"
cd remap-*/
version=$(plain dpkg-parsechangelog -S Version)
equal "the version of the package" "$version" \
    "$(version_of .)"
cd "$test_dir"
debs=()
for package in "${packages[@]}"; do
    debs+=("$(echo "$test_dir/package/${package}_${version}"_*.deb)")
done

part "lintian"
plain lintian --allow-root --tag-display-limit 0 --display-info \
    --fail-on error,warning,info package/*.changes > lintian.out ||
    fail "lintian: $(< lintian.out)"

# ------------------------------------------------------------------ install --

part "install"
start_machine
if inside dpkg-query -W "${packages[@]}" 2>/dev/null; then
    skip "remap is installed here as a package"
fi
install_packages
for package in "${packages[@]}"; do
    # shellcheck disable=SC2016 # a format of dpkg-query
    equal "the state of $package" \
        "$(inside dpkg-query -W -f '${db:Status-Status}' "$package")" installed
done
inside dpkg -V "${packages[@]}" > differences || fail "$(< differences)"
equal "what differs from the packages" "$(< differences)" ""
for file in "$plugin" "$library" "$unit" /usr/bin/remapctl \
            /usr/include/remap.h "$state_dir"; do
    inside dpkg -S "$file" || fail "$file is in no package"
done
equal "the plugin that nbdkit finds" \
    "$(inside nbdkit remap --dump-plugin | sed -n 's/^path=//p')" "$plugin"
inside grep -q "^ExecStart=.* $plugin " "$unit" ||
    fail "$unit serves with another plugin"

part "installcheck"
installcheck VERBOSE=1

replaced "$plugin" "$(dirname "$plugin")/nbdkit-memory-plugin.so"
replaced "$library" "$lib_dir/libnbd.so.0"
replaced /usr/bin/remapctl /bin/true

part "purge"
remove_packages -P
equal "what is left" "$(left_behind)" ""

# ------------------------------------------------------------- the stores ----

# notes: what is noted in the state directory, and where.
notes ()
{
    inside grep -r . "$state_dir"
}

part "an upgrade leaves servers alone"
install_packages
start_until export export.pid \
    nbdkit -f -P export.pid -U export.sock memory 1M
start_until server server.pid \
    "${enter[@]}" nbdkit -f -P "$test_dir/server.pid" -U "$test_dir/server.sock" \
    remap "$(uri_of export)" spare="$test_dir/store.remap" direct=on
printf 'some data' | nbdcopy - "$(uri_of server)"
install_packages
nbdcopy "$(uri_of server)" back
equal "what was written" "$(head -c 9 back)" "some data"
stop server
equal "the exit status of nbdkit" "$stop_status" 0

part "remove, and keep what is noted of disks"
notes_before=$(notes) || fail "no note of the disk"
remove_packages -r
equal "the notes of disks" "$(notes)" "$notes_before"
for file in "$plugin" "$library" /usr/bin/remapctl; do
    should_fail inside test -e "$file"
done

part "purge, and keep what is noted of disks"
remove_packages -P
equal "the notes of disks" "$(notes)" "$notes_before"
grep -q "^nbdkit-plugin-remap: .*$state_dir" removal.log ||
    fail "nothing is said of what is kept: $(< removal.log)"
equal "what is left" "$(left_behind)" \
    "$(inside find "$state_dir" | LC_ALL=C sort)"
