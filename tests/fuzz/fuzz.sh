#!/bin/sh
# fuzz.sh SECONDS TARGET...    runs each target under the sanitizers, from the seeds and from what
#                              earlier runs found in build/fuzz/TARGET. Needs clang.
# FUZZER=afl                   with AFL++ in place of libFuzzer; needs afl++.
# What crashes is kept in build/fuzz/; build/fuzz/bin/fuzz-TARGET FILE tells more of it. Once
# mended, it belongs into tests/fuzz/found/TARGET/, which the tests replay.
cd "$(dirname "$0")/../.." || exit 1
seconds=$1
shift
out=$PWD/build/fuzz
: "${FUZZER:=libfuzzer}"

# Every comparison traced costs more than half of the speed; dictionaries do instead. clang needs
# minutes for vector kernels under both sanitizers; one target is about these and has one of them.
flags_of() { # TARGET
    case $1 in
    kernels) echo "-O2 -g1 -fsanitize=address" ;;
    *) echo "-O2 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -DPTQ_NO_SIMD" ;;
    esac
}

# Small quarantine and short traces of allocations: twice the speed.
export ASAN_OPTIONS="quarantine_size_mb=2:malloc_context_size=2:allocator_may_return_null=1:\
max_allocation_size_mb=256"

# Targets that need files have them in memory where that can be.
if [ -w /dev/shm ]; then TMPDIR=/dev/shm; fi
TMPDIR=$(mktemp -d ${TMPDIR:+"$TMPDIR/ptq-fuzz-XXXXXX"}) || exit 1
export TMPDIR
seeds=$TMPDIR/seeds # its own: another run may begin meanwhile
trap 'rm -rf "$TMPDIR"' EXIT

# Libraries that a target needs; others would be built in for nothing.
libraries_of() { # TARGET
    case $1 in
    keras) echo "hdf5 jansson zlib" ;;
    *) echo jansson ;;
    esac
}

build() { # COMPILER DIR TARGET MORE-FLAGS
    make -s CC="$1" BUILD="$2" LIB_NAMES="$(libraries_of "$3")" FUZZ_DRIVER=-fsanitize=fuzzer \
        EXTRA="$(flags_of "$3") $4" "$2/fuzz-$3"
}

dictionary() { # OPTION TARGET
    [ ! -f "tests/fuzz/$2.dict" ] || echo "$1tests/fuzz/$2.dict"
}

run_libfuzzer() { # TARGET
    traced="-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp"
    [ ! -f "tests/fuzz/$1.allow" ] ||
        traced="$traced -fsanitize-coverage-allowlist=tests/fuzz/$1.allow"
    build clang "$out/bin" "$1" "$traced" || exit 1
    "$out/bin/fuzz-$1" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2000 \
        -artifact_prefix="$out/$1-" -max_len=6200 -print_final_stats=1 -close_fd_mask=3 \
        $(dictionary -dict= "$1") "$out/$1" "$seeds/$1" >"$out/$1.log" 2>&1
    status=$?
    awk -v name="$1" '
        / cov: / { split($0, at, / cov: | ft: | corp: /); cov = at[2]; ft = at[3] }
        /^stat::number_of_executed_units/ { n = $2 }
        /^Done / { seconds = $5 }
        END { print name ": " n + 0 " executions, " seconds + 0 " s, cov " cov ", ft " ft }' "$out/$1.log"
    return $status
}

# afl-fuzz's own seeds must not crash; its findings stand in OUT/afl/TARGET/default/crashes.
run_afl() { # TARGET
    AFL_QUIET=1 build afl-clang-fast "$out/afl-bin" "$1" "" || exit 1
    mkdir -p "$out/afl"
    ASAN_OPTIONS="$ASAN_OPTIONS:abort_on_error=1:symbolize=0" \
        AFL_AUTORESUME=1 AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
        AFL_NO_AFFINITY=1 \
        afl-fuzz -V "$seconds" -m none -t 20000 -i "$seeds/$1" -o "$out/afl/$1" \
        $(dictionary "-x " "$1") -- "$out/afl-bin/fuzz-$1" >"$out/$1.log" 2>&1 || return 1
    awk -F ' *: *' -v name="$1" '
        { value[$1] = $2 }
        END {
            print name ": " value["execs_done"] " executions, " value["run_time"] " s, " \
                value["edges_found"] " edges, " value["saved_crashes"] " crashes"
            exit value["saved_crashes"] + value["saved_hangs"] > 0
        }' "$out/afl/$1/default/fuzzer_stats"
}

case $FUZZER in
libfuzzer) needed=clang package="clang, libclang-rt-dev" ;;
afl) needed=afl-fuzz package=afl++ ;;
*) echo "FUZZER must be libfuzzer or afl"; exit 1 ;;
esac
if ! command -v $needed >/dev/null; then
    echo "fuzzing needs $needed (Debian: $package)"
    exit 1
fi
BUILD=build
. tests/fuzz/make_seeds.sh || exit 1
failed=0
for target; do
    mkdir -p "$out/$target"
    if ! run_$FUZZER "$target"; then
        failed=1
        tail -n 30 "$out/$target.log"
    fi
done
exit $failed
