#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# The manual pages name what is there, all of it, and nothing else.

set -u

srcdir=${REMAP_SRCDIR:?run this through make check}
nbdkit=${NBDKIT:-nbdkit}
name=${REMAP_PLUGIN:?run this through make check}
man=$srcdir/man
page=$man/nbdkit-remap-plugin.pod
status=0

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

# A sanitizer's runtime goes into nbdkit alone; what nbdkit does not free
# before it exits is not looked for here.
plugin ()
{
    LD_PRELOAD=${REMAP_TEST_PRELOAD-} ASAN_OPTIONS=detect_leaks=0 \
        "$nbdkit" "$name" "$@"
}

# same WHAT FILE FILE: both lists have the same lines, and there are some.
same ()
{
    if [ ! -s "$2" ] || ! diff -u "$2" "$3"; then
        echo "test-docs: $1 differ, or there are none"
        status=1
    fi
}

# section NAME FILE: the lines under one =head1.
section ()
{
    awk -v name="$1" '/^=head1 / { inside = $0 == "=head1 " name }
                      inside' "$2"
}

command -v "$nbdkit" >/dev/null || { echo "no $nbdkit here"; exit 77; }

# ---------------------------------------------------- nbdkit-remap-plugin ----

plugin --help > "$tmp/help" || exit 1
sed -nE 's/^\[?([a-z][a-z-]*)=.*/\1/p' "$tmp/help" | sort > "$tmp/1"
section PARAMETERS "$page" |
    sed -nE 's/^=item \[?B<([a-z][a-z-]*)=>.*/\1/p' > "$tmp/unsorted"
sort "$tmp/unsorted" > "$tmp/2"
same "the parameters in --help and in the page" "$tmp/1" "$tmp/2"
same "the parameters and their alphabetical order" "$tmp/2" "$tmp/unsorted"

plugin --dump-plugin > "$tmp/dump" || exit 1
sed -nE 's/^(remap_[a-z_]*)=.*/\1/p' "$tmp/dump" | sort > "$tmp/1"
section '--dump-plugin OUTPUT' "$page" |
    sed -nE 's/^=item B<(remap_[a-z_]*)=.*/\1/p' | sort > "$tmp/2"
same "the lines of --dump-plugin and those in the page" "$tmp/1" "$tmp/2"

nm -D --defined-only "$(sed -n 's/^path=//p' "$tmp/dump")" |
    sed -nE 's/.* remap_debug_([a-z_]*)$/-D remap.\1/p' | sort > "$tmp/1"
section 'DEBUG FLAGS' "$page" |
    sed -nE 's/^=item B<(-D remap\.[a-z_]*)=.*/\1/p' | sort > "$tmp/2"
same "the debug flags of the plugin and those in the page" "$tmp/1" "$tmp/2"

cat > "$tmp/1" <<'END'
NAME
SYNOPSIS
DESCRIPTION
EXAMPLES
PARAMETERS
NOTES
--dump-plugin OUTPUT
DEBUG FLAGS
FILES
VERSION
SEE ALSO
AUTHORS
END
sed -n 's/^=head1 //p' "$page" > "$tmp/2"
same "the sections that the page should have and those that it has" \
     "$tmp/1" "$tmp/2"

# ---------------------------------------------------------------- libremap ----

# Functions that are declared; comments speak of others.
sed -e 's,/\*.*\*/,,' -e '/\/\*/,/\*\//d' "$srcdir/lib/remap.h" |
    grep -oE 'remap_[a-z0-9_]+ \(' | sed 's/ (//' | sort > "$tmp/1"
section FUNCTIONS "$man/libremap.pod" |
    sed -nE 's/^=(item|head2) .*\b(remap_[a-z0-9_]+) \(.*/\2/p' | sort > "$tmp/2"
same "the functions in remap.h and in libremap(3)" "$tmp/1" "$tmp/2"

# ---------------------------------------------------------------- remapctl ----

remapctl --help > "$tmp/help" || exit 1
sed -nE 's/^  (remap[a-z]*|[a-z]+)  +[a-z].*/\1/p' "$tmp/help" | sort > "$tmp/1"
sed -nE 's/^=head2 remapctl ([a-z]+).*/\1/p' "$man/remapctl.pod" |
    sort -u > "$tmp/2"
same "the commands in remapctl --help and in the page" "$tmp/1" "$tmp/2"

# ---------------------------------------------------------------- examples ----

# Each has a mark (see tests/examples.awk), and each mark is in a test: after
# `run_example`, `write_example`, `example` or `check_example`, or in a list of
# them, `for id in ID...`.
marks ()
{
    awk "$@" > "$tmp/marks" || status=1
    cut -d ' ' -f 1 "$tmp/marks"
}
marks -f "$srcdir/tests/examples.awk" "$srcdir/README.md" > "$tmp/unsorted"
marks -f "$srcdir/tests/examples.awk" "$man/remap-clients.pod" \
    >> "$tmp/unsorted"
marks -v sections='EXAMPLES|NOTES' -f "$srcdir/tests/examples.awk" "$page" \
    >> "$tmp/unsorted"
sort "$tmp/unsorted" > "$tmp/1"
if [ -n "$(uniq -d "$tmp/1")" ]; then
    echo "test-docs: two examples have the mark" "$(uniq -d "$tmp/1")"
    status=1
fi
cat "$srcdir"/tests/clients/test-*.sh |
    sed -nE -e 's/#.*//' \
        -e 's/.*\b(run_|write_|check_|)example ([a-z][a-z-]*).*/\2/p' \
        -e 's/.*\bfor id in ([a-z -]*);.*/\1/p' \
        -e 's/.*\b(rescue_with|far_disk) ([a-z][a-z -]*)/\2/p' |
    tr ' ' '\n' | grep . | sort -u > "$tmp/2"
same "the examples in the documents and those that tests run" "$tmp/1" "$tmp/2"

# ---------------------------------------------------------- all the pages ----

version=$(sed -n 's/^remap_version=//p' "$tmp/dump")
for pod in "$man"/*.pod; do
    for name in NAME DESCRIPTION 'SEE ALSO' AUTHORS; do
        if [ -z "$(section "$name" "$pod")" ]; then
            echo "test-docs: $(basename "$pod") has no section $name"
            status=1
        fi
    done
done
if ! grep -q "^remap $version " "$srcdir/NEWS"; then
    echo "test-docs: NEWS says nothing of version $version"
    status=1
fi

exit $status
