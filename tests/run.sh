#!/bin/sh
# run.sh               builds and tests with every compiler at hand, plain and under sanitizers
# run.sh CC CXX SAN    with one compiler; SAN is 1 or empty
#
# A test is: a test in a cmocka program tests/test_*.c; a script tests/build_*.sh, run with CC, CXX
# and BUILD; a script tests/cli_*.sh, or the replay of fuzzing, run with PTQ, the path of the
# command-line tool, as well. A script that exits with 77 is skipped. The last line is "N passed, N
# failed".
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL
export PTQ_SHARED="${PTQ_SHARED:-../shared}"
limit="timeout 600"

# Counts what one test did, tells it, and shows the output where something failed.
report() { # BUILD NAME PASSED FAILED SKIPPED LOG
    echo "$3 $4 $5" >>"$1/test.count"
    if [ "$4" -gt 0 ]; then
        result="$4 FAILED
$(tail -n 60 "$6")"
    elif [ "$3" -eq 0 ]; then
        result="skipped"
    else
        result="$3 passed"
    fi
    printf '%-16s %-20s %3d s  %s\n' "$1" "$2" $(($(date +%s) - start)) "$result"
}

# A program that dies early, or reports no test at all, is a failure of its own.
run_program() { # BUILD NAME
    log=$1/$2.log
    start=$(date +%s)
    CMOCKA_MESSAGE_OUTPUT=TAP $limit "$1/$2" >"$log" 2>&1
    status=$?
    set -- "$1" "$2" $(awk '
        /^1\.\.[0-9]+/ { planned += substr($0, 4) }
        /^(not )?ok .*# SKIP/ { skipped++; next } # cmocka 1.1.5 says "not ok" even then
        /^ok / { passed++ }
        /^not ok / { failed++ }
        END { print passed + 0, failed + 0, skipped + 0, planned + 0 }' "$log")
    passed=$3 failed=$4 skipped=$5 planned=$6
    if [ $status -ne 0 ] && [ "$failed" -eq 0 ] ||
        [ $((passed + failed + skipped)) -lt "$planned" ] || [ "$planned" -eq 0 ]; then
        failed=$((failed + 1))
        echo "exit status $status, $planned tests planned" >>"$log"
    fi
    report "$1" "$2" "$passed" "$failed" "$skipped" "$log"
}

run_script() { # BUILD SCRIPT
    name=$(basename "$2" .sh)
    log=$1/$name.log
    start=$(date +%s)
    $limit sh "$2" >"$log" 2>&1
    case $? in
    0) report "$1" "$name" 1 0 0 "$log" ;;
    77) report "$1" "$name" 0 0 1 "$log" ;;
    *) report "$1" "$name" 0 1 0 "$log" ;;
    esac
}

# Under clang's sanitizers, without vector kernels (see Makefile), networks take minutes: only what
# reads files runs there. Under gcc's everything does.
is_slow() { # BUILD SCRIPT
    case $1/${2##*/} in
    build/clang-san/cli_data.sh | build/clang-san/cli_import.sh | build/clang-san/cli_onnx.sh) return 1 ;;
    build/clang-san/cli_*) ;;
    *) return 1 ;;
    esac
}

test_one() { # CC CXX SAN
    CC=$1 CXX=$2 SAN=$3
    BUILD=$(make -s --no-print-directory CC="$CC" SAN="$SAN" print-build)
    PTQ=$BUILD/ptq
    export CC CXX SAN BUILD PTQ
    start=$(date +%s)
    mkdir -p "$BUILD"
    rm -f "$BUILD/test.count" "$BUILD"/test_*
    # Under sanitizers the examples take long to build and show nothing that the tests do not.
    if [ -n "$SAN" ]; then targets=tools; else targets=all; fi
    if pkg-config --exists cmocka 2>/dev/null; then targets="$targets test-programs"; fi
    if ! make -s -k CC="$CC" SAN="$SAN" $targets >"$BUILD/build.log" 2>&1; then
        report "$BUILD" build 0 1 0 "$BUILD/build.log"
    elif grep -qv " is left out: " "$BUILD/build.log"; then
        report "$BUILD" warnings 0 1 0 "$BUILD/build.log"
    else
        report "$BUILD" build 1 0 0 "$BUILD/build.log"
    fi
    for program in "$BUILD"/test_*; do
        if [ -x "$program" ]; then run_program "$BUILD" "$(basename "$program")"; fi
    done
    for script in tests/build_*.sh; do
        if [ -f "$script" ] && [ -z "$SAN" ]; then run_script "$BUILD" "$script"; fi
    done
    for script in tests/cli_*.sh tests/fuzz/replay.sh; do
        if [ -x "$PTQ" ] && ! is_slow "$BUILD" "$script"; then run_script "$BUILD" "$script"; fi
    done
}

can_sanitize() { # CC
    echo 'int main(void) { return 0; }' |
        "$1" -fsanitize=address,undefined -x c - -o /dev/null >/dev/null 2>&1
}

# Lines of CC CXX SAN; those that take longest come first, so that two at a time end together.
variants() {
    for san in 1 ""; do
        for pair in "gcc g++" "clang clang++"; do
            compiler=${pair%% *}
            if ! command -v "$compiler" >/dev/null 2>&1; then continue; fi
            if [ -z "$san" ] || can_sanitize "$compiler"; then echo "$pair" $san; fi
        done
    done
}

if [ $# -gt 0 ]; then
    test_one "$1" "$2" "$3"
    [ -z "$PTQ_TEST_PART" ] || exit 0
    counts=$BUILD/test.count
else
    rm -f build/test.count build/*/test.count
    export PTQ_TEST_PART=1
    variants | xargs -P 2 -L 1 sh -c 'sh tests/run.sh "$1" "$2" "$3"' run
    counts=$(ls build/test.count build/*/test.count 2>/dev/null)
fi
cat $counts </dev/null | awk '
    { passed += $1; failed += $2; skipped += $3 }
    END {
        line = (passed + 0) " passed, " (failed + 0) " failed"
        print skipped ? line ", " skipped " skipped" : line
        exit failed > 0 || passed == 0
    }'
