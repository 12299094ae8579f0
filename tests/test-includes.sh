#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# Who may include what, and who may take which lock, is as HACKING.md says.

set -u

srcdir=${REMAP_SRCDIR:?run this through make check}
cd "$srcdir" || exit 1
status=0

wrong ()
{
    echo "test-includes: $*"
    status=1
}

# none WHAT FOUND: nothing was found; what was found is wrong.
none ()
{
    [ -z "$2" ] || wrong "$1:
$2"
}

# includes FILE...: FILE:LINE:NAME of each header, "..." and <...> alike.
includes ()
{
    grep -HnE '^[[:space:]]*#[[:space:]]*include' "$@" |
        sed -E 's/^([^:]*:[0-9]+):[^<"]*[<"]([^>"]*).*/\1:\2/'
}

# If this is empty, none of what follows has looked at anything.
[ "$(includes lib/*.[ch] | wc -l)" -gt 100 ] || wrong "no #include in lib/?"

# ----------------------------------------------------------- directories ----

none "lib/ knows nothing of nbdkit" \
    "$(includes lib/*.[ch] | grep -i nbdkit)"
none "ctl/ knows nothing of nbdkit" \
    "$(includes ctl/*.[ch] | grep -i nbdkit)"
none "remap.h is for api.c and query.c" \
    "$(includes lib/*.[ch] | grep ':remap\.h$' |
       grep -vE '^lib/(api|query)\.c:')"

# Of lib/, plugin/ and ctl/ see remap.h alone.
for header in lib/*.h; do
    name=$(basename "$header")
    [ "$name" != remap.h ] || continue
    none "plugin/ and ctl/ use lib/ through remap.h" \
        "$(includes plugin/*.[ch] ctl/*.[ch] | grep -E "[:/]$name\$")"
done
none "plugin/ and ctl/ leave their directory for nothing" \
    "$(includes plugin/*.[ch] ctl/*.[ch] | grep -F ../)"

# ---------------------------------------------------------------- levels ----

# The modules of HACKING.md: "    LEVEL  MODULE, MODULE  what they are".
# Prints LEVEL LINE MODULE, and "pure" where that is a word of the rest.
modules ()
{
    awk '/^    [0-6]  / {
        split(substr($0, 5), field, /  +/)
        n = split(field[2], names, /, */)
        for (i = 1; i <= n; i++)
            print field[1], NR, names[i], field[3] ~ /(^|[ ;])pure([ ;,]|$)/ ? "pure" : ""
    }' HACKING.md
}

# Module of a file: lib/map.c and map.h are map. dev-file.c implements dev.h.
module_of ()
{
    basename "$1" | sed -E 's/\.[ch]$//; s/^dev-.*/dev/'
}

levels=$(modules)
[ -n "$levels" ] || wrong "HACKING.md has no table of modules"

for file in lib/*.[ch]; do
    self=$(module_of "$file")
    [ "$self" != remap ] || continue
    printf '%s\n' "$levels" | grep -q " $self " ||
        wrong "$file: HACKING.md does not name the module $self"
done
for self in $(printf '%s\n' "$levels" | awk '{ print $3 }'); do
    [ -f "lib/$self.h" ] || [ -f "lib/$self.c" ] ||
        wrong "HACKING.md names a module $self, which is not there"
done

# A module includes lower levels, and what stands on its own line of the table.
climbers ()
{
    grep -nE '^#include "' lib/*.[ch] |
        sed -E 's/^([^:]*:[0-9]+):.*"([^"]*)".*/\1 \2/' |
        while read -r place header; do
            self=$(module_of "${place%:*}")
            other=$(module_of "$header")
            case $other in "$self" | remap) continue ;; esac
            printf '%s\n' "$levels" | awk -v self="$self" -v other="$other" \
                -v place="$place" '
                $3 == self { self_level = $1; self_line = $2 }
                $3 == other { other_level = $1; other_line = $2 }
                END {
                    if (self_line != other_line && self_level <= other_level)
                        print place ": " self " (level " self_level \
                            ") includes " other " (level " other_level ")"
                }'
        done
}

none "a module includes lower levels only" "$(climbers)"

# Pure modules: no I/O, no threads, no clock.
pure=$(printf '%s\n' "$levels" | awk '$4 == "pure" { print $3 }')
[ -n "$pure" ] || wrong "HACKING.md calls no module pure"
impure_includes ()
{
    for self in $pure; do
        for file in "lib/$self.h" "lib/$self.c"; do
            [ ! -f "$file" ] || includes "$file"
        done
    done | grep -E ':(unistd|fcntl|pthread|time|ev|poll|signal|sys/.*|dev|lock|log|rcu)\.h$'
}
none "pure modules do no I/O, have no threads, know no time" \
    "$(impure_includes)"

# ------------------------------------------------------ locks and threads ----

# In code, not in comments; FILE:LINE:TEXT.
uses ()
{
    word=$1
    shift
    grep -HnE "$word" "$@" | grep -vE '^[^:]*:[0-9]+: *(/\*| \*)'
}

[ -n "$(uses 'pthread_mutex_lock' lib/lock.c)" ] || wrong "lock.c locks nothing?"
[ -n "$(uses 'RANK_HEALTH' lib/worker.c)" ] || wrong "worker.c has no mutex?"
none "mutexes are taken through lock.h" \
    "$(uses 'pthread_(mutex|rwlock|spin)_' lib/*.[ch] plugin/*.[ch] ctl/*.[ch] |
       grep -vE '^lib/lock\.[ch]:')"
none "the health mutex belongs to worker.c" \
    "$(uses 'RANK_HEALTH|health_mutex' lib/*.[ch] plugin/*.[ch] ctl/*.[ch] |
       grep -vE '^lib/(worker\.c|lock\.h):')"

none "errors are named with errno_text: strerror is not for threads" \
    "$(uses '\<strerror \(' lib/*.[ch])"

exit $status
