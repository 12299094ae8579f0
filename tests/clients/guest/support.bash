# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What scripts in a guest have beyond clients/support.bash: disks that fail
# below the plugin, as the kernel has them; the plugin as /dev/nbd0; and at the
# end, whether the kernel is content and all is removed.
#
#     begin_in_guest
#     make_disk disk 64M 1000-1001        # /dev/mapper/disk, on a loop device
#     start_server remap backing=/dev/mapper/disk spare=store
#     attach remap                        # /dev/nbd0
#     detach
#     stop_server remap
#     remove_disk disk
#     end_in_guest

nbd=/dev/nbd0
export DM_DISABLE_UDEV=1        # dmsetup makes the device nodes itself

begin_in_guest ()
{
    begin bash nbdkit remapctl
}

# ------------------------------------------------------------------- disks --

declare -A device_of            # by name of the disk: what lies below it

# make_disk NAME SIZE [BAD...]: /dev/mapper/NAME, with sectors of 512 bytes. On
# it lies what is in the file NAME.medium, which is made where it is missing.
# BAD is a sector or FIRST-LAST.
make_disk ()
{
    local name=$1 size=$2
    shift 2
    [ -e "$name.medium" ] || truncate -s "$size" "$name.medium"
    modprobe -a loop dm-mod
    device_of[$name]=$(losetup -f)
    losetup "${device_of[$name]}" "$name.medium"
    disk_table "$name" "$@" | dmsetup create "$name"
}

# disk_table NAME [BAD...]: for device-mapper.
disk_table ()
{
    local device=${device_of[$1]}
    shift
    printf '%s\n' "$@" | sort -n |
        awk -F - -v device="$device" -v end="$(blockdev --getsz "$device")" '
        function good(until) {
            if (until > at)
                print at, until - at, "linear", device, at
        }
        BEGIN { at = 0 }
        NF > 0 && $NF >= at {
            first = $1 > at ? $1 : at
            good(first)
            print first, $NF + 1 - first, "error"
            at = $NF + 1
        }
        END { good(end) }'
}

# change_disk NAME [BAD...]: these sectors are bad from now on, and no others.
change_disk ()
{
    disk_table "$@" | load_table "$1"
}

# kill_disk NAME: every sector is.
kill_disk ()
{
    echo "0 $(blockdev --getsz "/dev/mapper/$1") error" | load_table "$1"
}

load_table ()
{
    dmsetup load "$1"
    dmsetup suspend --noflush --nolockfs "$1"
    dmsetup resume "$1"
}

remove_disk ()
{
    dmsetup remove "$1"
    losetup -d "${device_of[$1]}"
}

# --------------------------------------------------------------------- nbd --

# attach NAME: the server on NAME.sock becomes /dev/nbd0.
attach ()
{
    [ -e /sys/module/nbd ] || modprobe nbd nbds_max=2
    timeout 60 nbd-client -unix "$1.sock" "$nbd" > nbd-client.log 2>&1 ||
        fail "nbd-client attaches nothing"
    [ "$(blockdev --getsize64 "$nbd")" -gt 0 ] || fail "$nbd is empty"
}

# disconnect is for a device that is mounted: it is free when it is not.
disconnect ()
{
    timeout 60 nbd-client -d "$nbd" > nbd-client.log 2>&1 ||
        fail "nbd-client detaches nothing"
}

detach ()
{
    disconnect
    wait_until "$nbd to be free" is_detached
}

is_detached ()
{
    [ ! -e "/sys/block/$(basename "$nbd")/pid" ]
}

# read_sectors FIRST COUNT, write_sectors FIRST COUNT: of /dev/nbd0, without the
# page cache, to standard output or, as one request, from standard input. A
# minute says that it hangs.
read_sectors ()
{
    timeout 60 dd if="$nbd" iflag=direct,skip_bytes,count_bytes bs=128k \
        skip=$(($1 * 512)) count=$(($2 * 512)) status=none
}

write_sectors ()
{
    timeout 60 dd of="$nbd" iflag=fullblock oflag=direct,seek_bytes \
        bs=$(($2 * 512)) seek=$(($1 * 512)) count=1 status=none
}

# is_unreadable SECTOR: with an error, and not because it hangs.
is_unreadable ()
{
    local status=0
    read_sectors "$1" 1 > /dev/null 2> read.log || status=$?
    [ "$status" -ne 124 ] || fail "the read of sector $1 hangs"
    [ "$status" -ne 0 ] && grep -q 'Input/output error' read.log
}

# sectors FILE FIRST COUNT: of an image.
sectors ()
{
    dd if="$1" iflag=skip_bytes,count_bytes bs=128k skip=$(($2 * 512)) \
        count=$(($3 * 512)) status=none
}

# status_of DISK KEY: the number or the text of that name in remapctl status.
status_of ()
{
    remapctl status --json "$1" | sed -n 's/,$//; s/^ *"'"$2"'": *//p' |
        tr -d '"' | head -n 1
}

# waited_ms read|write: for all reads of /dev/nbd0 together, or all writes, as the
# kernel counts it.
waited_ms ()
{
    local fields
    read -r -a fields < "/sys/block/${nbd##*/}/stat"
    case $1 in
        read) echo "${fields[3]}" ;;
        write) echo "${fields[7]}" ;;
    esac
}

# ------------------------------------------------------------ file systems --

# make_files DIR [COUNT]: of random content and of all sizes, up to 512 KiB.
make_files ()
{
    local i
    mkdir -p "$1"
    for ((i = 1; i <= ${2:-24}; i++)); do
        head -c $((i * i * 900 + i)) /dev/urandom > "$1/$i"
    done
}

# sectors_of FILE: where it lies on the disk, FIRST-LAST a line.
sectors_of ()
{
    local unit
    unit=$(($(stat -f -c %S "$1") / 512))
    sync
    filefrag -e "$1" | tr -d ' ' | awk -F '[:.]+' -v unit="$unit" '
        /^[0-9]+:/ { print $4 * unit "-" ($5 + 1) * unit - 1 }'
}

drop_caches ()
{
    sync
    echo 3 > /proc/sys/vm/drop_caches
}

# ---------------------------------------------------------------- the end --

# What the kernel has said since it booted that it should not have said. The
# variable `allowed` is an extended regular expression of what it may say.
complaints ()
{
    local pattern
    pattern='WARNING|BUG|Oops|Call Trace|general protection|segfault'
    pattern+='|blocked for more than|possible .* deadlock|Out of memory'
    pattern+='|I/O error|[Cc]orrupt|EXT4-fs (error|warning)|read-only'
    pattern+='|XFS.*([Ee]rror|[Ww]arn|[Ff]ail|[Ss]hut)'
    pattern+='|nbd.*([Tt]imed ?out|[Ff]ailed)'
    # All that the kernel still has, if it has forgotten how it began.
    # (-v would take the \ out of them.)
    dmesg | pattern=$pattern allowed=${allowed:-^\$} awk '
        /as init process/ { n = 0 }
        $0 ~ ENVIRON["pattern"] && $0 !~ ENVIRON["allowed"] { line[++n] = $0 }
        END { for (i = 1; i <= n; i++) print line[i] }'
}

nothing_waits ()
{
    ! grep -s '^State:[[:space:]]*D' /proc/[0-9]*/status
}

# The kernel is content, and nothing is left of what was served.
end_in_guest ()
{
    part "all is removed, and the kernel is content"
    local module left
    left=$(pidof nbdkit nbd-client || :)
    equal "what still runs" "$left" ""
    wait_until "whatever waits in the kernel" nothing_waits
    for module in nbd dm_flakey dm_mod scsi_debug loop ext4 xfs; do
        if [ -e "/sys/module/$module" ]; then
            rmmod "$module"
        fi
    done
    left=$(complaints)
    [ -z "$left" ] || fail "the kernel complains: $left"
}
