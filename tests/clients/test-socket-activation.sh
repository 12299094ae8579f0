#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# systemd's sockets: the server starts when the first client comes, serves it
# over bad sectors, and ends in good order; the next client starts the next one.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/twin.bash"
begin nbdkit nbdfuse nbdcopy nbdinfo qemu-io systemd-socket-activate

bytes=$((16 << 20))

# activate NAME [PARAMETER...]: listen for it; it becomes nbdkit itself, and
# keeps its pid. It hands on no environment, but for a few variables.
activate ()
{
    local name=$1 variable settings=()
    shift
    for variable in $(compgen -e); do
        case $variable in
            *SAN_OPTIONS | LD_LIBRARY_PATH | MALLOC_PERTURB_)
                settings+=(--setenv="$variable") ;;
        esac
    done
    rm -f "$name.sock"
    # shellcheck disable=SC2086 # a list of words
    start "$name" systemd-socket-activate "${settings[@]}" \
        --setenv=LD_PRELOAD="${REMAP_TEST_PRELOAD-}" \
        --listen="$test_dir/$name.sock" \
        nbdkit -f ${nbdkit_options-} "$remap_plugin" "$@"
    wait_until "the socket of $name" listens "$name"
}

listens ()
{
    kill -0 "${pid_of[$1]}" 2>/dev/null || fail "$1 did not start"
    [ -S "$1.sock" ]
}

program_of ()
{
    cat "/proc/${pid_of[$1]}/comm"
}

start_twins disk $bytes 'both 1000-1001' 'write 8000-8063' 'read 5000' \
    'both 32767'

part "nobody comes"
activate remap backing=disk.img
[ "$(program_of remap)" != nbdkit ] || fail "the server has started already"
[ ! -e disk.img.remap ] || fail "the disk was opened already"
stop remap

part "the first client starts it, others join"
activate remap backing=disk.img
both_io "write -D 1 990s 20k" "write -f -D 2 8000s 64s" "write -D 3 32767s 512" \
    flush
equal "the program" "$(program_of remap)" nbdkit
equal "the number of remapped sectors" "$(remapped disk.img)" 67
io_fails "$eio" "read 5000s 512"
both_io "write -D 4 5000s 512"
compare_twin remap
stop_server remap
check_store disk.img.remap

part "four connections at once start it"
tr 0-9 A-J < twin.img > source.img
activate remap backing=disk.img
nbdcopy --flush --connections=4 source.img "$(uri_of remap)"
mv source.img twin.img
compare_twin remap

part "a second server for the same disk: its client is told, and goes"
activate second backing=disk.img
should_fail nbdinfo --size "$(uri_of second)" > second.out 2>&1
wait_until "the end of the second server" is_gone second
status=0
wait "${pid_of[second]}" || status=$?
forget second
[ "$status" -ne 0 ] || fail "the second server has served"
grep -q "${pid_of[remap]}" second.log ||
    fail "it does not name the first one: $(cat second.log)"
compare_twin remap

part "killed; then one server for each client"
kill_server remap
export nbdkit_options=--filter=exitlast
for n in 1 2 3; do
    activate remap backing=disk.img
    both_io "write -D 1$n 995s 8k" "write -D 2$n $((n * 100))k 4k" flush
    wait_until "the end of the server" has_ended remap
    check_store disk.img.remap
done
unset nbdkit_options
activate remap backing=disk.img
compare_twin remap
equal "the number of remapped sectors" "$(remapped disk.img)" 68
equal "the number of lost sectors" "$(lost disk.img)" 0
stop_server remap
check_store disk.img.remap
stop_disk disk
