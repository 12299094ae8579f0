#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# What `make install` has installed is all there, and others can use it: nbdkit
# finds the plugin, a program is compiled and linked as libremap(3) tells. Run
# by `make installcheck` alone.

set -u

[ "${REMAP_TEST_INSTALLED-}" = 1 ] || {
    echo "run this through make installcheck"
    exit 1
}
srcdir=${REMAP_SRCDIR:?}
bindir=${REMAP_TEST_BINDIR:?}
includedir=${REMAP_TEST_INCLUDEDIR:?}
libdir=${REMAP_TEST_LIBDIR:?}
mandir=${REMAP_TEST_MANDIR:?}
plugindir=${REMAP_TEST_PLUGINDIR:?}
nbdkit=${NBDKIT:-nbdkit}
CC=${CC:-cc}
status=0

fail ()
{
    echo "test-installed: $*"
    status=1
}

# equal WHAT IS SHOULD_BE
equal ()
{
    [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

for tool in "$nbdkit" "${CC%% *}" cmp ldd pkg-config realpath; do
    command -v "$tool" >/dev/null || { echo "no $tool here"; exit 77; }
done
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
version=$(sed -n 's/^AC_INIT(\[remap\], \[\(.*\)\])$/\1/p' "$srcdir/configure.ac")

# library_of FILE: the libremap that it is linked to when it is run.
library_of ()
{
    realpath "$(ldd "$1" | awk '$1 ~ /^libremap\.so\./ { print $3 }')"
}

# -------------------------------------------------------- plugin, remapctl ----

library=$(realpath "$libdir"/libremap.so.0)
LD_PRELOAD=${REMAP_TEST_PRELOAD-} ASAN_OPTIONS=detect_leaks=0 \
    "$nbdkit" "$REMAP_PLUGIN" --dump-plugin > "$tmp/dump" ||
    fail "nbdkit $REMAP_PLUGIN --dump-plugin"
equal "the place of the plugin" \
    "$(realpath "$(sed -n 's/^path=//p' "$tmp/dump")")" \
    "$(realpath "$plugindir/nbdkit-remap-plugin.so")"
equal "the version of the plugin" \
    "$(sed -n 's/^remap_version=//p' "$tmp/dump")" "$version"
equal "the library of the plugin" \
    "$(library_of "$plugindir/nbdkit-remap-plugin.so")" "$library"

equal "the place of remapctl" "$(command -v remapctl)" "$bindir/remapctl"
equal "the version of remapctl" "$(remapctl --version)" "remapctl $version"
equal "the library of remapctl" "$(library_of "$bindir/remapctl")" "$library"

[ ! -e "$plugindir/nbdkit-remap-plugin.la" ] ||
    fail "nbdkit-remap-plugin.la is of no use"

# ---------------------------------------------------------------- the manual --

# As they are, or compressed by a packager.
for page in man1/nbdkit-remap-plugin.1 man1/remapctl.1 man3/libremap.3 \
            man5/remap-store.5 man7/remap-clients.7; do
    for file in "$mandir/$page"*; do
        [ -s "$file" ] || fail "no $mandir/$page"
    done
done

# -------------------------------------------------------------- libremap.pc --

# With no other .pc file beside it: remap.h needs no other header.
mkdir "$tmp/pkgconfig"
cp "$libdir/pkgconfig/libremap.pc" "$tmp/pkgconfig/" || fail "no libremap.pc"
PKG_CONFIG_LIBDIR=$tmp/pkgconfig
PKG_CONFIG_PATH=
export PKG_CONFIG_LIBDIR PKG_CONFIG_PATH
equal "the version in libremap.pc" "$(pkg-config --modversion libremap)" \
    "$version"
cflags=$(pkg-config --cflags libremap) || fail "no --cflags of libremap"
libs=$(pkg-config --libs libremap) || fail "no --libs of libremap"

cat > "$tmp/prog.c" <<'END'
#include <remap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
fail (void)
{
  fprintf (stderr, "%s\n", remap_error ());
  return EXIT_FAILURE;
}

int
main (int argc, char *argv[])
{
  struct remap_options options;
  struct remap_disk *disk;
  char data[1000], back[1000], *json;

  if (argc != 2)
    return EXIT_FAILURE;
  memset (data, 'x', sizeof data);
  remap_options_init (&options, sizeof options);
  options.backing = argv[1];
  disk = remap_open (&options);
  if (disk == NULL || remap_start (disk) == -1)
    return fail ();
  if (remap_pwrite (disk, data, sizeof data, 5000, 0) == -1 ||
      remap_flush (disk) == -1 ||
      remap_pread (disk, back, sizeof back, 5000) == -1 ||
      remap_query (argv[1], "status", NULL, &json) == -1)
    return fail ();
  puts (json);
  free (json);
  remap_close (disk);
  return memcmp (data, back, sizeof data) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
END
cd "$tmp" || exit 1
# The run path: make installcheck may be for a place that ld.so does not know.
# shellcheck disable=SC2086 # lists of words
$CC -Wall -Werror -o prog prog.c $cflags $libs -Wl,-rpath,"$libdir" ||
    fail "a program with libremap was not made"
# shellcheck disable=SC2086 # a list of words
$CC -M $cflags prog.c | tr ' ' '\n' | grep -xF "$includedir/remap.h" ||
    fail "the header is not $includedir/remap.h"
equal "the library of the program" "$(library_of ./prog)" "$library"

truncate -s 1M disk.img
head -c 1000 /dev/zero | tr '\0' x > data
./prog disk.img > status.json || fail "the program with libremap"
grep -q '"remapped"' status.json || fail "no status: $(cat status.json)"
tail -c +5001 disk.img | head -c 1000 | cmp - data ||
    fail "the program with libremap wrote something else"
remapctl check disk.img.remap || fail "the store of the program"

exit $status
