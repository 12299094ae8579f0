#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# README.md's way from the source to a served disk, in a copy of the tree:
# ./bootstrap, and by hand.

. "$(dirname "$0")/support.bash"
. "$(dirname "$0")/examples.bash"
begin autoreconf make gcc nbdkit nbdcopy nbdinfo

# Tested is the way, not the compiler.
export CFLAGS=-O0
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
mkdir tree
for file in .ci HACKING.md LICENSE Makefile.am NEWS README.md bootstrap \
    common-rules.mk configure.ac ctl demo lib man plugin run.in systemd tests; do
    cp -r "$REMAP_SRCDIR/$file" tree/
done
chmod -R u+w tree               # it may be read-only there

truncate -s 32M sdX.medium
start_disk sdX 32M 'both 1000-1007'
head -c 32M /dev/urandom > data
# The packages are there, or this test is not run: see ./bootstrap. The suite
# is what CI runs.
example_rules="
    s,/dev/sdX,$test_dir/sdX.img,
    s,apt-get install,dpkg-query -W,
    s,make install,make install DESTDIR=$test_dir/installed,
    s,^ldconfig.*,:,
    s,make check,:,
    s,nbdkit -U disk.sock,& -P pid,"
cd tree

part "the demonstration"
# Spares are given in the order in which writes arrive, of which several are
# under way.
without_spares ()
{
    sed -E 's/^([0-9-]+ +[0-9]+  remapped) .*/\1/'
}
run_example bootstrap > ../output.full 2>&1 || fail "$(tail ../output.full)"
without_spares < ../output.full > ../output
example demonstration | without_spares > ../expected
# Every line of README.md, in this order. Some are left out there.
awk 'FNR == NR { if ($0 != "..." && $0 != "") line[++n] = $0; next }
     k < n && $0 == line[k + 1] { k++ }
     END {
         if (k == n && n > 10)
             exit 0
         print "not in the output, or not there: " line[k + 1]
         exit 1
     }' ../expected ../output || fail "README.md shows something else"

part "a disk of one's own"
cd ..
: > serving.log
start serving bash -c "cd tree && exec $(example bootstrap-disk)"
wait_until "the server" grep -q 'nbd+unix' serving.log
uri=$(grep -m 1 -o 'nbd+unix://[^ ]*' serving.log)
nbdcopy --flush data "$uri"
nbdcopy "$uri" back
cmp data back
equal "the number of remapped sectors" "$(remapped sdX.img)" 8
stop serving
wait_until "the socket to go" test ! -e "${uri#*socket=}"

part "by hand"
rm -rf tree/build
cd tree
truncate -s 32M disk.img
example_rules+="
    s,\./remap.so disk.img,./remap.so ../disk.img,"
run_example build-by-hand > ../build.log 2>&1 ||
    fail "$(tail ../build.log)"
cd build
equal "the size" "$(nbdinfo --size "nbd+unix:///?socket=$PWD/disk.sock")" \
    $((32 << 20))
kill "$(cat pid)"
run_example install > ../../install.log 2>&1 ||
    fail "$(tail ../../install.log)"
cd ../../installed
for name in remapctl nbdkit-remap-plugin.so remap-clients.7 \
    nbdkit-remap@.service; do
    [ -n "$(find . -name $name)" ] || fail "$name is not installed"
done

part "all tests"
command=$(example check)
grep -qx "step [a-z]* $command" "$REMAP_SRCDIR/.ci/run" ||
    fail "CI does not run $command"
