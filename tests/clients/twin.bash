# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# A disk and its twin, for tests that compare content: what a test writes to
# the disk through a server it writes to a plain file too, twin.img, with the
# same command.
#
#     start_twins disk 16M 'both 1000-1001'
#     start_server remap backing=disk.img
#     both_io 'write -P 7 500k 24k' flush
#     compare_twin remap
#
# In qemu-io's commands `write -f` is a write with FUA; others are not flushed
# but by `flush`. Beside its words, 1000s are 1000 sectors of 512 bytes, and
# `write -D 7` writes data that is different in each sector, and for each
# number.

# The answers of NBD, as qemu-io says them.
# shellcheck disable=SC2034 # for tests
eio='Input/output error'
# shellcheck disable=SC2034
enospc='No space left on device'

# make_medium FILE BYTES: data that is different everywhere, with a hole in it
# from 6 to 10 MiB.
make_medium ()
{
    awk -v last=$(($2 / 16 + 1)) -v name="$1" 'BEGIN {
        for (n = 0; n < last; n++)
            printf "%15d\n", n
    }' > "$1"
    truncate -s "$2" "$1"
    fallocate --punch-hole --offset 6M --length 4M "$1"
}

# make_data FILE NUMBER. Where it is too short it is taken again, and its length
# is no multiple of anything.
make_data ()
{
    [ -e "$1" ] || awk -v number="$2" 'BEGIN {
        for (n = 0; n < 6007; n++)
            printf "%5d %9d\n", number, n
        printf "the end\n"
    }' > "$1"
}

# start_twins NAME BYTES [FAULT...]
start_twins ()
{
    local name=$1 bytes=$2
    shift 2
    rm -f twin.img
    make_medium "$name.medium" "$bytes"
    cp --sparse=always "$name.medium" twin.img
    start_disk "$name" "$bytes" "$@"
}

# io_of SERVER-OR-FILE COMMAND...: qemu-io's commands, one connection for all
# of them; fails where one of them fails. What they say is in io.log (of a flush
# that fails, nothing).
io_of ()
{
    local to=$1 command last='' commands=() status=0
    shift
    for command; do
        while [[ $command =~ (.*\ )([0-9]+)s($|\ .*) ]]; do
            command="${BASH_REMATCH[1]}$((BASH_REMATCH[2] * 512))"
            command+=${BASH_REMATCH[3]}
        done
        if [[ $command =~ (.*)\ -D\ ([0-9]+)\ (.*) ]]; then
            make_data "data.${BASH_REMATCH[2]}" "${BASH_REMATCH[2]}"
            command="${BASH_REMATCH[1]} -s data.${BASH_REMATCH[2]} "
            command+=${BASH_REMATCH[3]}
        fi
        commands+=(-c "$command")
        last=$command
    done
    # It flushes at its end, unless it finds a sudden one.
    [ "$last" = flush ] || commands+=(-c abort)
    [ -e "$to" ] || to=$(uri_of "$to")
    (
        ulimit -c 0
        { stdbuf -oL qemu-io -f raw -t writeback "${commands[@]}" "$to"; } 2>&1
    ) > io.log 2>&1 || status=$?
    [ "$last" = flush ] || [ "$status" -ne 134 ] || status=0
    [ "$status" -eq 0 ] && ! grep -qE 'failed|error' io.log
}

# server_io COMMAND...: of the server "remap".
server_io ()
{
    io_of remap "$@" || fail "$* of the server: $(cat io.log)"
}

# both_io COMMAND...: of the server "remap", and of the twin.
both_io ()
{
    server_io "$@"
    io_of twin.img "$@" || fail "$* of the twin: $(cat io.log)"
}

# io_fails ERROR COMMAND: the client is answered so.
io_fails ()
{
    if io_of remap "$2"; then
        fail "it should have failed: $2"
    fi
    grep -qF "$1" io.log || fail "$2: not $1, but: $(cat io.log)"
}

# compare_twin SERVER [TWIN]: the whole content, as one client sees it that
# reads all, and as one sees it that believes in the holes that the server
# tells of.
compare_twin ()
{
    local uri twin=${2-twin.img} bytes option
    uri=$(uri_of "$1")
    bytes=$(nbdinfo --size "$uri")
    equal "the size of $1" "$bytes" "$(stat -c %s "$twin")"
    for option in --no-extents ''; do
        rm -f copy.img
        # shellcheck disable=SC2086 # none or one
        nbdcopy $option "$uri" copy.img
        cmp copy.img "$twin" || fail "not as its twin${option:+ ($option)}"
    done
    rm -f copy.img
}

# start_bare NAME [PARAMETER...]: the server "remap" for what lies on the medium,
# by itself, with the store of the disk. Of this file, the holes are told.
start_bare ()
{
    local name=$1
    shift
    start_server remap backing="$name.medium" spare="$name.img.remap" \
        adopt=yes "$@"
}

# should_have_holes SERVER: or nothing is proved by comparing with them left out.
should_have_holes ()
{
    nbdinfo --map "$(uri_of "$1")" | grep -q hole || fail "$1 tells no holes"
}

# touches DISK OPS FIRST [LAST]: how many requests of these kinds (r, w, z, t)
# the medium has got that touched the sectors. In the log of the disk they are
# written as support/fault-plugin.c tells.
touches ()
{
    awk -v ops="$2" -v first="$3" -v last="${4-$3}" '
        index(ops, $1) && $2 < (last + 1) * 512 && $2 + $3 > first * 512 { n++ }
        END { print n + 0 }' "$1.requests"
}

# requests DISK OPS: how many there were.
requests ()
{
    awk -v ops="$2" 'index(ops, $1) { n++ } END { print n + 0 }' \
        "$1.requests"
}

# durable DISK OFFSET: fails unless the last write that touched the byte was
# with FUA, or has a flush behind it.
durable ()
{
    awk -v offset="$2" '
        index("wzt", $1) && $2 <= offset && $2 + $3 > offset && $4 == "0" {
            ok = $5 == "fua"; met = 1
        }
        $1 == "f" { ok = 1 }
        END { exit !(met && ok) }' "$1.requests" ||
        fail "what was written at $2 of $1 is not durable"
}

# check_store STORE: sound, and closed in good order: both copies say so.
check_store ()
{
    remapctl check "$1" > check.log || fail "$(cat check.log)"
    equal "how the copies of $1 say that it was closed" \
        "$(remapctl dump "$1" | awk '$1 == "closed:" { printf "%s ", $2 }')" \
        "1 1 "
}
