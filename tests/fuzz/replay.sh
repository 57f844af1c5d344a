# Replays the fuzz targets' seeds, truncated and damaged forms of them, and every input that was ever
# found to crash one (tests/fuzz/found/TARGET/). For 'make fuzz' itself, see tests/fuzz/fuzz.sh.
set -u
seeds=$BUILD/fuzz-seed
failures=0

# Every seed cut off at several places, and with single bytes changed.
damage() { # FILE
    size=$(wc -c <"$1")
    for part in 1 3 7 9; do
        head -c $((size * part / 10)) "$1" >"$1.cut$part"
        head -c $((size * part / 10)) "$1" >"$1.byte$part"
        printf '\377' >>"$1.byte$part"
        tail -c +$((size * part / 10 + 2)) "$1" >>"$1.byte$part"
    done
}

make -s CC="$CC" SAN="$SAN" "$BUILD/fuzz-seeds" || exit 1
rm -rf "$seeds"
"$BUILD/fuzz-seeds" "$seeds" || exit 1
for target in model graph cifar10 calibration; do
    for seed in "$seeds/$target"/*; do damage "$seed"; done
    make -s CC="$CC" SAN="$SAN" "$BUILD/fuzz-$target" || exit 1
    "$BUILD/fuzz-$target" "$seeds/$target"/* $(find tests/fuzz/found/$target -type f 2>/dev/null) ||
        failures=$((failures + 1))
done
[ $failures -eq 0 ]
