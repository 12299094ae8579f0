#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# remap.h compiles alone, as C99 and as C++, and what it declares is what
# libremap.syms lists and what libremap.so exports.

set -u

srcdir=${REMAP_SRCDIR:?run this through make check}
builddir=${REMAP_BUILDDIR:?run this through make check}
header=$srcdir/lib/remap.h
CC=${CC:-cc}
status=0

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

fail ()
{
    echo "test-public-header: $*"
    status=1
}

for tool in nm "${CC%% *}"; do
    command -v "$tool" >/dev/null || { echo "no $tool here"; exit 77; }
done

# --------------------------------------------------------------- compilers ----

# It is the first that is included, and it is included twice. What a program
# does with it is a little of everything.
cat > "$tmp/use.c" <<'END'
#include "remap.h"
#include "remap.h"

static void
say (int level, const char *message)
{
  (void) level;
  (void) message;
}

int use (char *buf);

int
use (char *buf)
{
  struct remap_options options;
  struct remap_disk *disk;
  int r;

  remap_set_log (say);
  remap_options_init (&options, sizeof options);
  options.backing = "disk.img";
  options.on_lost = REMAP_ON_LOST_ZERO;
  options.direct = REMAP_DIRECT_OFF;
  disk = remap_open (&options);
  if (disk == NULL)
    return remap_errno ();
  r = remap_pwrite (disk, buf, 512, 0, REMAP_FLAG_FUA);
  remap_close (disk);
  return r;
}
END
cp "$tmp/use.c" "$tmp/use.cc"

warnings='-Wall -Wextra -Wshadow -Wundef -Werror -fsyntax-only'
# shellcheck disable=SC2086 # lists of words
{
    $CC -std=c99 -pedantic-errors $warnings -Wstrict-prototypes \
        -I "$srcdir/lib" "$tmp/use.c" || fail "it is not C99"
    $CC -std=c11 -pedantic-errors $warnings -I "$srcdir/lib" "$tmp/use.c" ||
        fail "it is not C11"
}
CXX=${CXX:-$(command -v g++ || command -v clang++ || command -v c++)}
if [ -n "$CXX" ]; then
    for std in c++98 c++17; do
        # shellcheck disable=SC2086 # lists of words
        $CXX -std=$std -pedantic-errors -Wno-c++11-long-long -Wno-long-long \
            $warnings -I "$srcdir/lib" "$tmp/use.cc" || fail "it is not $std"
    done
elif [ "${REMAP_TEST_STRICT-}" = 1 ]; then
    fail "no C++ compiler here"
else
    echo "test-public-header: no C++ compiler here: not tested"
fi

# ------------------------------------------------------------------- names ----

# As the compiler sees them, without comments.
# shellcheck disable=SC2086 # a list of words
$CC -E -P "$header" | grep -oE '\bremap_[a-z0-9_]+ *\(' | sed 's/ *($//' |
    LC_ALL=C sort > "$tmp/header"
sed -nE 's/^ *(remap_[a-z0-9_]+);.*/\1/p' "$srcdir/lib/libremap.syms" \
    > "$tmp/unsorted"
LC_ALL=C sort "$tmp/unsorted" > "$tmp/syms"
nm -D --defined-only "$builddir/lib/.libs/libremap.so" |
    awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    LC_ALL=C sort > "$tmp/exported"
nm -D --defined-only "$builddir/remap.so" |
    awk '{ print $3 }' | grep -v '^remap_debug_' > "$tmp/plugin"

[ -s "$tmp/header" ] || fail "remap.h declares nothing"
diff -u "$tmp/header" "$tmp/syms" ||
    fail "remap.h (-) and libremap.syms (+) differ"
diff -u "$tmp/syms" "$tmp/exported" ||
    fail "libremap.syms (-) and what libremap.so exports (+) differ"
diff -u "$tmp/unsorted" "$tmp/syms" || fail "libremap.syms is not sorted"
echo plugin_init | diff -u - "$tmp/plugin" ||
    fail "remap.so exports other than plugin_init and remap_debug_*"

# Every exported name has the version of its library.
nm -D --defined-only "$builddir/lib/.libs/libremap.so" |
    awk '$2 != "A" && $3 !~ /@@LIBREMAP_[0-9.]+$/' > "$tmp/unversioned"
[ ! -s "$tmp/unversioned" ] || fail "without a version: $(cat "$tmp/unversioned")"

exit $status
