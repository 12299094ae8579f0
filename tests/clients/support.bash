# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the tests with real clients share. A test is a bash script that tests/
# run-test runs:
#
#     . "$(dirname "$0")/support.bash"
#     begin fio nbdkit            # the tools that it needs
#     start_disk disk 64M 'both 1000-1001'
#     start_server remap backing=disk.img
#     fio --ioengine=nbd --uri="$(uri_of remap)" ...
#     stop_server remap
#
# It stands in a directory of its own, which is removed at the end, whatever
# the end is, after all that start_* has started is killed (by pid) and all
# that is mounted there is unmounted. A command that fails ends the test
# (set -e), as does `fail`.
#
# A disk that fails is an nbdkit server with tests/support/fault-plugin.c, on
# FUSE: NAME.img gives real EIO from real system calls, NAME.medium is what
# lies on it. support/fault-plugin.c tells what a fault looks like.

set -euo pipefail

: "${REMAP_BUILDDIR:?run this through make check-clients}"
remap_plugin=${REMAP_PLUGIN:?run this through make check-clients}
fault_plugin=${REMAP_FAULT_PLUGIN:-$REMAP_BUILDDIR/tests/.libs/fault-plugin.so}
test_name=$(basename "$0" .sh)
PATH=$PATH:/usr/sbin:/sbin

test_dir=
test_part=
test_output=2                   # wherever a command's messages go
started=()                      # pids, the last one first
declare -A pid_of               # by name

# ---------------------------------------------------------------- verdicts --

say ()
{
    printf '%s: %s\n' "$test_name" "$*"
}

# part TEXT: what the test is at, from here on.
part ()
{
    test_part=$*
    say "-- $*"
}

fail ()
{
    say "FAILED${test_part:+ ($test_part)}: $*" >&$test_output
    exit 1
}

skip ()
{
    say "skipped: $*"
    exit 77
}

# Why set -e ended the test.
# shellcheck disable=SC2317 # called by a trap
report_command ()
{
    say "FAILED${test_part:+ ($test_part)}: line $1: $2" >&$test_output
}

# should_fail COMMAND...: it has to, by itself: not because it hangs, crashes, or
# is not there.
should_fail ()
{
    local status=0
    "$@" || status=$?
    case $status in
        0) fail "this should have failed: $*" ;;
        124) fail "this should have failed, and hangs: $*" ;;
        126 | 127) fail "this cannot be run: $*" ;;
        12[89] | 1[3-9]? | 2??) fail "this ended with $status: $*" ;;
    esac
}

# equal WHAT IS SHOULD_BE
equal ()
{
    [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

# ------------------------------------------------------- beginning and end --

# shellcheck disable=SC2317 # called by a trap
clean_up ()
{
    local status=$? pid log
    trap - ERR
    set +e
    trap '' INT TERM HUP
    exec >&$test_output 2>&1
    if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
        for log in "$test_dir"/*.log; do
            [ -s "$log" ] || continue
            printf -- '---- %s\n' "$(basename "$log")"
            tail -n 60 "$log"
        done
    fi
    # In a shell of its own: what fails there, ends only that.
    if declare -F at_end >/dev/null; then
        (at_end)
    fi
    cd /
    unmount_all
    kill "${started[@]}" 2>/dev/null
    for pid in "${started[@]}"; do
        kill_if_stuck "$pid"
        wait "$pid" 2>/dev/null
    done
    unmount_all
    forget_notes
    if [ -n "${REMAP_TEST_KEEP-}" ]; then
        say "kept: $test_dir"
    elif [ ! -e /guest/is-guest ]; then
        rm -rf --one-file-system "$test_dir"
    fi
    exit "$status"
}

# What a test has left that was killed with SIGKILL: for tests/run-test, in a
# shell of its own. All that the test has started has $REMAP_TEST_RUN in its
# environment; or, what libvirt starts, names its directory.
clean_up_after_kill ()
{
    local process
    set +e
    for process in /proc/[0-9]*; do
        if [ "${process#/proc/}" != $$ ] &&
           { grep -qzxF "REMAP_TEST_RUN=$REMAP_TEST_RUN" "$process/environ" ||
             grep -qF "/$REMAP_TEST_RUN." "$process/cmdline"; }; then
            kill -9 "${process#/proc/}"
        fi
    done 2>/dev/null
    for test_dir in "$(temporary_dir)/$REMAP_TEST_RUN".*/; do
        test_dir=${test_dir%/}
        [ -d "$test_dir" ] || continue
        unmount_all
        forget_notes
        rm -rf --one-file-system "$test_dir"
    done
}

# A server that does not end by itself, ends now.
# shellcheck disable=SC2317 # called by a trap
kill_if_stuck ()
{
    local n
    for ((n = 0; n < 50; n++)); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$1" 2>/dev/null
}

# Everything mounted in the directory of this test, the last one first, and the
# loop devices on files there, as soon as they are not mounted.
# shellcheck disable=SC2317 # called by a trap
unmount_all ()
{
    local dir
    grep -lsF "$test_dir/" /sys/block/loop*/loop/backing_file |
        cut -d / -f 4 | while read -r dir; do
        losetup -d "/dev/$dir" 2>/dev/null
    done
    awk -v dir="$test_dir/" 'index($2, dir) == 1 { print $2 }' /proc/mounts |
        tac | while read -r dir; do
        umount -l "$dir" 2>/dev/null || fusermount3 -uz "$dir" 2>/dev/null
    done
}

# Servers note in the state directory which store an NBD export has, and those
# that were killed leave a lock there. Those of this test go.
forget_notes ()
{
    local file
    for file in "${REMAP_STATEDIR-}"/nbd-*; do
        if grep -qsF "$test_dir" "$file"; then
            rm -f "$file"
        fi
    done
}

# $TMPDIR, where it has no links in it, as /proc/mounts names it. It has to fit
# into URIs as it is, and into the name of a socket, which has 107 bytes; where
# it does not, /tmp.
temporary_dir ()
{
    local dir
    dir=$(cd "${TMPDIR:-/tmp}" && pwd -P)
    if [ ${#dir} -gt 32 ] || [[ $dir == *[!A-Za-z0-9/._-]* ]]; then
        dir=/tmp
    fi
    printf '%s\n' "$dir"
}

# begin TOOL...: of each tool that is not there, the test tells, and is skipped.
begin ()
{
    local tool
    for tool; do
        command -v "$tool" >/dev/null || skip "no $tool here"
    done
    test_dir=$(mktemp -d "$(temporary_dir)/${REMAP_TEST_RUN:-$test_name}.XXXXXX")
    exec 9>&2
    test_output=9
    trap clean_up EXIT
    trap 'report_command "$LINENO" "$BASH_COMMAND"' ERR
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    set -E
    cd "$test_dir"
}

need_root ()
{
    [ "$(id -u)" -eq 0 ] || skip "this needs root${1:+: $1}"
}

# --------------------------------------------------------------- processes --

# wait_until WHAT COMMAND...: at most a minute, which a busy machine may take.
wait_until ()
{
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        [ $SECONDS -le $end ] || fail "waited a minute for $what"
        sleep 0.1
    done
}

# start NAME COMMAND...: in the background; its output goes to NAME.log.
start ()
{
    local name=$1
    shift
    "$@" >> "$name.log" 2>&1 < /dev/null 9>&- &
    pid_of[$name]=$!
    started=("$!" "${started[@]}")
}

# start_until NAME FILE COMMAND...: and wait until it has written FILE.
start_until ()
{
    local name=$1 file=$2
    shift 2
    rm -f "$file"
    start "$name" "$@"
    wait_until "$name to start" has_begun "$name" "$file"
}

has_begun ()
{
    kill -0 "${pid_of[$1]}" 2>/dev/null || fail "$1 did not start"
    [ -s "$2" ]
}

is_gone ()
{
    ! kill -0 "${pid_of[$1]}" 2>/dev/null
}

# has_ended NAME: by itself, and well.
has_ended ()
{
    is_gone "$1" || return 1
    wait "${pid_of[$1]}" || fail "$1 ended with status $?"
    forget "$1"
}

# stop NAME [SIGNAL]: and wait for its end. What it ended with is in
# $stop_status.
stop ()
{
    local pid=${pid_of[$1]}
    kill -0 "$pid" 2>/dev/null || fail "$1 has ended by itself"
    kill -"${2:-TERM}" "$pid"
    stop_status=0
    wait "$pid" 2>/dev/null || stop_status=$?
    forget "$1"
}

# It has ended, or is to go on without us.
forget ()
{
    local pid others=()
    for pid in "${started[@]}"; do
        [ "$pid" = "${pid_of[$1]}" ] || others+=("$pid")
    done
    started=("${others[@]}")
    unset "pid_of[$1]"
}

# ------------------------------------------------------------------- disks --

# start_medium NAME SIZE [FAULT...]: what is in NAME.medium, which is made where
# it is missing, with these faults, as an NBD server on NAME-medium.sock.
start_medium ()
{
    local name=$1 size=$2
    shift 2
    [ -e "$name.medium" ] || truncate -s "$size" "$name.medium"
    [ -e "$fault_plugin" ] || fail "$fault_plugin is not built"
    rm -f "$name-medium.sock"   # of one that was stopped
    printf '%s\n' "$@" > "$name.faults"
    start_until "$name-medium" "$name-medium.pid" \
        nbdkit -f -P "$name-medium.pid" -U "$name-medium.sock" \
        "$fault_plugin" file="$name.medium" faults="$name.faults" \
        log="$name.requests"
}

# start_disk NAME SIZE [FAULT...]: the same as a file, NAME.img.
start_disk ()
{
    local name=$1
    (exec 3<> /dev/fuse) 2>/dev/null || skip "no /dev/fuse here"
    start_medium "$@"
    : > "$name.img"
    start_until "$name-fuse" "$name-fuse.pid" \
        nbdfuse -P "$name-fuse.pid" "$name.img" \
        "nbd+unix:///?socket=$name-medium.sock"
}

# set_faults NAME [FAULT...]: these, and no others, from now on.
set_faults ()
{
    local name=$1
    shift
    sleep 0.02                  # a time of change of its own
    printf '%s\n' "$@" > "$name.faults.new"
    mv "$name.faults.new" "$name.faults"
}

stop_disk ()
{
    fusermount3 -u "$1.img" 2>/dev/null || umount "$1.img"
    wait "${pid_of[$1-fuse]}" || :
    forget "$1-fuse"
    stop "$1-medium"
}

# ------------------------------------------------------------------ server --

# start_server NAME [PARAMETER...]: nbdkit with the plugin on NAME.sock;
# $nbdkit_options come before the plugin (filters, TLS); $nbdkit_listen says
# where it listens, if not there.
start_server ()
{
    local name=$1
    shift
    rm -f "$name.sock"          # of one that was killed
    # The runtime of a sanitizer goes into nbdkit alone: see tests/run-test.
    # shellcheck disable=SC2086 # a list of words
    start_until "$name" "$name.pid" \
        env LD_PRELOAD="${REMAP_TEST_PRELOAD-}" \
        nbdkit -f -P "$name.pid" ${nbdkit_listen--U "$name.sock"} \
        ${nbdkit_options-} "$remap_plugin" "$@"
    check_installed "$name"
}

# With `make installcheck` nothing of the build tree may be what is tested.
check_installed ()
{
    local maps=/proc/${pid_of[$1]}/maps file
    [ "${REMAP_TEST_INSTALLED-}" = 1 ] || return 0
    for file in nbdkit-remap-plugin.so libremap.so.; do
        grep -qF "/$file" "$maps" || fail "$1 has not loaded $file"
    done
    for file in plugin lib; do
        should_fail grep -F "$REMAP_BUILDDIR/$file/" "$maps"
    done
}

# port_of NAME: of one that listens on -p 0, the port that the kernel chose.
port_of ()
{
    local fd inode
    for fd in "/proc/${pid_of[$1]}"/fd/*; do
        inode=$(readlink "$fd") || continue
        inode=${inode#socket:[} inode=${inode%]}
        awk -v inode="$inode" '
            $10 == inode && $4 == "0A" { sub (/.*:/, "", $2); print $2 }
            ' /proc/net/tcp
    done | while read -r port; do
        echo $((16#$port))
    done
}

uri_of ()
{
    printf 'nbd+unix:///?socket=%s/%s.sock\n' "$test_dir" "$1"
}

# As it should end: by itself, with all that it has open closed.
stop_server ()
{
    stop "$1"
    equal "the exit status of $1" "$stop_status" 0
}

kill_server ()
{
    stop "$1" KILL
}

# remapped DISK [FIRST [LAST]]: the number of remapped sectors, of all of the
# disk or of these; lost likewise, and away, which counts the zeroed ones with
# the remapped ones.
remapped ()
{
    remap_state '^remapped$' "$@"
}

lost ()
{
    remap_state '^lost$' "$@"
}

away ()
{
    remap_state '^(remapped|zeroed)$' "$@"
}

remap_state ()
{
    remapctl list --csv "$2" |
        awk -F, -v state="$1" -v first="${3:-0}" -v last="${4:-${3:-}}" '
            $3 ~ state {
                from = $1 > first + 0 ? $1 + 0 : first + 0
                to = $1 + $2 - 1
                if (last != "" && to > last + 0)
                    to = last + 0
                if (to >= from)
                    n += to - from + 1
            }
            END { print n + 0 }'
}
