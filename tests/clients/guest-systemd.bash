# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# A guest (see guest.bash) with systemd, udev, and remap as `make install` puts
# it there. It begins with begin_guest_with_systemd, and is run by
# guest_run_systemd SCRIPT.

. "$(dirname "${BASH_SOURCE[0]}")/guest.bash"

if ! on_host; then
    return 0
fi

# What the guest is made of: Debian's packages, with their files where they are.
guest_packages='dmsetup kmod mount nbd-client systemd udev util-linux'

begin_guest_with_systemd ()
{
    local package
    begin_guest dpkg-query make "$@"
    guest_add_file "$(command -v ldconfig)"
    guest_add_file /etc/ld.so.conf
    guest_add_file /etc/ld.so.conf.d
    for package in $guest_packages; do
        guest_add_package "$package"
    done
    guest_install_remap
    guest_add_users
    guest_add_units
}

# guest_add_package NAME: all of its files but documents, with the libraries
# that they need.
guest_add_package ()
{
    local files=package-$1.files path library
    dpkg-query -L "$1" > "$files" 2>/dev/null || skip "no package $1 here"
    grep -Ev '^/usr/share/|/hwdb\.d/|/locale/|^/etc/init\.d/' "$files" |
        while read -r path; do
            if [ ! -d "$path" ] && [ -e "$path" ]; then
                printf '%s\n' "$path"
            fi
        done > "$files.there"
    xargs -r ldd < "$files.there" 2>/dev/null |
        awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\/.*\.so/) print $i }' |
        grep -v ':$' | sort -u > "$files.libraries" || :
    # Links stay links here: units are linked to units.
    tar -cf - --no-recursion -T "$files.there" 2>/dev/null |
        tar -xf - -C "$guest_root" --keep-directory-symlink
    while read -r library; do
        [ -e "$guest_root$library" ] || guest_add_file "$library"
    done < "$files.libraries"
}

# The plugin is taken as it is: to install it, libtool moves that of the build
# tree away for a moment, which other tests may be about to load.
guest_install_remap ()
{
    local dir plugin plugins
    for dir in lib ctl systemd; do
        make -s -C "$REMAP_BUILDDIR/$dir" install \
            DESTDIR="$test_dir/installed" >> install.log 2>&1 ||
            fail "make install: $(tail -n 3 install.log)"
    done
    cp -r installed/. "$guest_root"
    plugin=$(sed -n 's,^ExecStart=.* \(/[^ ]*/nbdkit-remap-plugin.so\) .*,\1,p' \
        "$REMAP_BUILDDIR/systemd/nbdkit-remap@.service")
    [ -n "$plugin" ] || fail "the unit names no plugin"
    guest_add_file "$remap_plugin" "$plugin"
    # `nbdkit remap` looks there.
    plugins=$(nbdkit --dump-config | sed -n "s,^plugindir=,,p")
    mkdir -p "$guest_root$plugins"
    [ -e "$guest_root$plugins/nbdkit-remap-plugin.so" ] ||
        ln -s "$plugin" "$guest_root$plugins/"
}

guest_add_users ()
{
    mkdir -p "$guest_root/etc"
    cat > "$guest_root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
END
    # The groups that udev gives devices to.
    awk -F: -v OFS=: '{ print $1, "x", $3, "" }' /etc/group \
        > "$guest_root/etc/group"
    printf "%s\n" "passwd: files" "group: files" "hosts: files" \
        > "$guest_root/etc/nsswitch.conf"
    echo 127.0.0.1 localhost > "$guest_root/etc/hosts"
    echo 0123456789abcdef0123456789abcdef > "$guest_root/etc/machine-id"
}

# Boot as far as multi-user.target, and then run /guest/main, which ends it.
guest_add_units ()
{
    local units=$guest_root/etc/systemd/system unit
    mkdir -p "$units/multi-user.target.wants" "$guest_root"/var/{lib,log,tmp}
    for unit in getty.target getty-static.service systemd-networkd.service \
        systemd-resolved.service systemd-timesyncd.service \
        systemd-update-utmp.service systemd-update-utmp-runlevel.service \
        systemd-logind.service systemd-firstboot.service \
        systemd-random-seed.service; do
        ln -sf /dev/null "$units/$unit"
    done
    ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
    # /tmp is not to be emptied.
    mkdir -p "$guest_root/etc/tmpfiles.d"
    ln -s /dev/null "$guest_root/etc/tmpfiles.d/tmp.conf"
    mkdir -p "$guest_root/etc/systemd/system.conf.d"
    printf "%s\n" "[Manager]" ShowStatus=no DefaultTimeoutStartSec=180 \
        > "$guest_root/etc/systemd/system.conf.d/guest.conf"
    cat > "$units/guest-main.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/guest/main
END
    ln -s ../guest-main.service "$units/multi-user.target.wants/"
}

# guest_run_systemd SCRIPT [QEMU_OPTION...]
guest_run_systemd ()
{
    guest_script /guest/init-systemd "/sbin/ldconfig" \
        "exec /lib/systemd/systemd"
    guest_init=/guest/init-systemd
    guest_run "$@"
}
