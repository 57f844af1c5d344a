# Replays the fuzz targets' seeds, truncated and damaged forms of them, and every input that was
# ever found to crash one (tests/fuzz/found/TARGET/). For 'make fuzz' itself, see
# tests/fuzz/fuzz.sh.
set -u
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

seeds=$BUILD/fuzz-seed
. tests/fuzz/make_seeds.sh || exit 1
for folder in "$seeds"/*; do
    target=$(basename "$folder")
    [ "$target" != kernels ] || continue # the tests compare kernels in their own way
    for seed in "$folder"/*; do damage "$seed"; done
    make -s CC="$CC" SAN="$SAN" "$BUILD/fuzz-$target" || exit 1
    # Tools print; what a target itself has to say comes last.
    "$BUILD/fuzz-$target" "$folder"/* $(find tests/fuzz/found/$target -type f 2>/dev/null) \
        >"$seeds/$target.log" 2>&1 || failures=$((failures + 1))
    echo "$target: $(tail -n 3 "$seeds/$target.log")"
done
[ $failures -eq 0 ]
