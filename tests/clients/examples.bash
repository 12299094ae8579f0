# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# The examples of the documents, for tests that run them: see tests/
# examples.awk. They are run as they stand there, but for what $example_rules,
# a script for sed, says of places that a test has in another place.
# tests/test-docs.sh sees to it that some test runs each of them.

documents=${REMAP_SRCDIR:-/documents}
example_rules=

# example ID: print it.
example ()
{
    local page=$documents/man/nbdkit-remap-plugin.pod
    {
        find_example "$1" "$documents/README.md" ||
            find_example "$1" "$documents/man/remap-clients.pod" ||
            find_example "$1" "$page" -v sections="EXAMPLES|NOTES" ||
            fail "no example $1 in the documents"
    } | sed -E "$example_rules"
}

# find_example ID FILE [OPTION...]
find_example ()
{
    local id=$1 file=$2
    shift 2
    grep -Eq "^(=for example|<!-- example:) $id( |\$)" "$file" &&
        awk -v want="$id" "$@" -f "$documents/tests/examples.awk" "$file"
}

# run_example ID: its commands, in this directory. It fails where one of them
# fails.
run_example ()
{
    local text
    text=$(example "$1")
    [ -n "$text" ] || fail "the example $1 is empty"
    printf '%s\n' "$text" | sed 's/^/$ /'
    bash -eu -o pipefail -c "$text"
}

# write_example ID [ROOT]: into the file that it is of, below ROOT.
write_example ()
{
    local path text
    text=$(example "$1")
    path=$(sed -nE "s/^=for example $1 (.*)/\1/p" "$documents"/man/*.pod)
    [ -n "$path" ] || fail "the example $1 names no file"
    mkdir -p "${2-}$(dirname "$path")"
    printf '%s\n' "$text" > "${2-}$path"
}

# On the host: for a guest, at the same place as $documents is there.
add_documents ()
{
    guest_add_file "$REMAP_SRCDIR/README.md" /documents/README.md
    guest_add_file "$REMAP_SRCDIR/man" /documents/man
    guest_add_file "$REMAP_SRCDIR/tests/examples.awk" \
        /documents/tests/examples.awk
}
