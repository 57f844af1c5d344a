#!/bin/sh
# run.sh test            what a person runs all day: one compiler, every test program and script
#                        once
# run.sh ci              what `test` leaves out: the second compiler, both under all sanitizers, and
#                        what takes long
# run.sh one [SAN]       everything with one compiler; SAN=1: under its sanitizers
#
# CC and CXX name the compiler (without them gcc, else cc), ONLY='NAME...' the tests to run, JOBS
# how many at a time. A test is: a test in a cmocka program tests/*/test_*.c; a script
# tests/checks/build_*.sh, run with CC, CXX and BUILD; a script tests/commands/cli_*.sh, or the
# replay of fuzzing, run with PTQ, the path of the command-line tool, as well. A script that exits
# with 77 is skipped; why says its last line. What failed is told at the end; the last line is
# "N passed, N failed, N skipped".
cd "$(dirname "$0")/.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL
export PTQ_SHARED="${PTQ_SHARED:-../shared}"
limit="timeout 600"

# What does not depend on the compiler: the first one is enough.
once="cli_data cli_docs cli_faults cli_foreign cli_install cli_keras cli_manifest cli_onnx_random cli_python cli_web"

# Left to `ci`, where `test` would take more than three minutes on a slow machine. WebAssembly needs
# clang, the second compiler, for ten seconds; files of other programs in every command are 300 calls
# of it; sanitizers need a second build of everything, and what fuzzing found is replayed in that. Of
# the pages, `test` checks all but what their commands print (30 s of processor time); of the
# examples, it does not run the two that convert over and over (16 s); of the dialects and macros of
# the header it tries two, of the data no training and no sweep, of random networks a part, of the
# presets not the slowest, and neither the Python package nor `bench`; kernels of other processors
# are emulated by test_manifest alone; and ONNX Runtime takes part only where `ci` has fetched it
# (290 MB). A test named with ONLY is run whole.
later="build_variants cli_data cli_docs cli_examples cli_export cli_foreign cli_manifest cli_onnx
    cli_python cli_tflite cli_web test_kernels_emulated"
not_in_test="cli_bench cli_foreign cli_python cli_web replay test_kernels_emulated"

# Longest first, so that all processors end together. After the first run its times are known.
longest="test_manifest test_memory build_variants cli_examples cli_docs cli_export cli_onnx
    cli_manifest cli_web test_kernels_emulated
    cli_basic replay test_convert cli_bench test_kernels cli_quantize cli_install cli_report"

is_in() { # NAME NAMES...
    one_of=$1
    shift
    case " $* " in *" $one_of "*) return 0 ;; *) return 1 ;; esac
}

# ---- One test ----

# A program that dies early, or reports no test at all, is a failure of its own.
run_program() {
    CMOCKA_MESSAGE_OUTPUT=TAP $limit "$BUILD/$name" >"$log" 2>&1
    status=$?
    # shellcheck disable=SC2046
    set -- $(awk '
        /^1\.\.[0-9]+/ { planned += substr($0, 4) }
        /^(not )?ok .*# SKIP/ { skipped++; next } # cmocka 1.1.5 says "not ok" even then
        /^ok / { passed++ }
        /^not ok / { failed++ }
        END { print passed + 0, failed + 0, skipped + 0, planned + 0 }' "$log")
    passed=$1 failed=$2 skipped=$3 planned=$4
    if [ $status -ne 0 ] && [ "$failed" -eq 0 ] ||
        [ $((passed + failed + skipped)) -lt "$planned" ] || [ "$planned" -eq 0 ]; then
        failed=$((failed + 1))
        echo "exit status $status, $planned tests planned" >>"$log"
    fi
    broken=$(sed -n 's/^not ok [0-9]* - //p' "$log" | paste -sd' ' -)
    reason=$(sed -n 's/^\(not \)\{0,1\}ok [0-9]*.*# SKIP *//p' "$log" | paste -sd, -)
}

run_script() { # SCRIPT
    $limit sh "$1" >"$log" 2>&1
    case $? in
    0) passed=1 ;;
    77) skipped=1 reason=$(tail -n 1 "$log" | sed 's/^skipped: //') ;;
    *) failed=1 ;;
    esac
}

# What make said: the warnings of a compiler are a failure, too.
run_build() {
    read -r status seconds <"$BUILD/build.status"
    start=$((start - seconds))
    if [ "$status" != 0 ]; then
        failed=1 broken="make failed"
    elif grep -qv " is left out: " "$log"; then
        failed=1 broken="there are warnings"
    else
        passed=1
    fi
}

# Leaves a line in results/, tells it, and shows the output where something failed.
report() {
    case $failed.$passed.$skipped in
    0.0.*) result="skipped: $reason" ;;
    0.*.0) result="$passed passed" ;;
    0.*) result="$passed passed, $skipped skipped: $reason" ;;
    *) result="$failed FAILED" ;;
    esac
    seconds=$(($(date +%s) - start))
    echo "$passed $failed $skipped $seconds $BUILD $name $broken" >"$state/results/$id"
    line=$(printf '%-18s %-22s %3d s  %s' "$BUILD" "$name" $seconds "$result")
    [ "$failed" -eq 0 ] || line="$line
$(tail -n 60 "$log" | sed 's/^/    /')"
    if [ -z "$live" ]; then
        echo "$line"
    elif [ $((failed + skipped)) -gt 0 ]; then
        printf '\r\033[K%s\n' "$line"
    fi
    rm -f "$state/running/$id"
    show_running
}

# On a terminal: one line of what runs at this moment.
show_running() {
    [ -n "$live" ] || return 0
    printf '\r\033[K%s' "$(echo "$(ls "$state/results" | wc -l) of $(wc -l <"$state/jobs"):" \
        "$(ls "$state/running" | sed 's/^[0-9]*\.//' | tr '\n' ' ')" | cut -c "1-$live")"
}

# Runs in a process of its own, with what the first one exports.
run_one() { # NUMBER-OF-BUILD NAME
    id=$1.$2 name=$2
    . "$state/build.$1"
    export CC CXX SAN BUILD
    export PTQ="$BUILD/ptq"
    passed=0 failed=0 skipped=0 broken='' reason='' log=$BUILD/$name.log
    start=$(date +%s)
    : >"$state/running/$id"
    show_running
    case $name in
    build) run_build ;;
    test_*) run_program ;;
    replay) run_script tests/fuzz/replay.sh ;;
    build_*) run_script "tests/checks/$name.sh" ;;
    *) run_script "tests/commands/$name.sh" ;;
    esac
    report
}

# ---- What is to be run ----

can_sanitize() { # CC
    echo 'int main(void) { return 0; }' |
        "$1" -fsanitize=address,undefined -x c - -o /dev/null >/dev/null 2>&1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Names of tests, the wanted ones among them.
names() { # NAME...
    for name; do
        # shellcheck disable=SC2086
        if [ -z "${ONLY:-}" ] || is_in "$name" $ONLY; then echo "$name"; fi
    done
}

# Those of NAME... that are in a list, and those that are not.
among() { # LIST NAME...
    list=$1
    shift
    # shellcheck disable=SC2086
    for one; do ! is_in "$one" $list || echo "$one"; done
}
but() { # LIST NAME...
    list=$1
    shift
    # shellcheck disable=SC2086
    for one; do is_in "$one" $list || echo "$one"; done
}

# All tests that there are for a build.
everything() {
    make -s --no-print-directory CC="$CC" SAN="$SAN" print-tests
    for script in tests/checks/build_*.sh tests/commands/cli_*.sh; do
        name=$(basename "$script" .sh)
        case $SAN$name in
        1build_*) ;; # compiles only
        # Under clang's sanitizers, without vector kernels (see tests.mk), networks take minutes:
        # only what reads files runs there. Under gcc's everything does.
        1cli_data | 1cli_import | 1cli_onnx) echo "$name" ;;
        # Learning, timing and drawing take their time there and read nothing new.
        1cli_bench | 1cli_examples | 1cli_meaning | 1cli_report | 1cli_train) ;;
        1cli_*) case $CC in *clang*) ;; *) echo "$name" ;; esac ;;
        *) echo "$name" ;;
        esac
    done
    echo replay
}

# Which targets make needs for a test.
target_of() { # NAME
    case $1 in
    test_*) echo "$BUILD/$1" ;;
    build_*) ;;
    replay) echo test-fuzz ;;
    cli_import) echo "$BUILD/ptq" ;;
    cli_onnx_random) echo "$BUILD/ptq" onnx-run ;;
    cli_manifest) [ -n "$SAN" ] || echo "$BUILD/ptq-scalar" && echo tools test-programs ;;
    cli_python) echo lib tools "$SHAPES" ;;
    *) if [ -n "$SAN" ]; then echo tools; else echo all; fi ;; # examples show nothing more there
    esac
}

# A build with the tests that run in it: CC, CXX and SAN are set, and the command that runs
# one of its tests, `again`.
plan() { # NAME...
    # shellcheck disable=SC2046
    set -- $(names "$@")
    [ $# -gt 0 ] || return 0
    builds=$((builds + 1))
    BUILD=$(make -s --no-print-directory CC="$CC" SAN="$SAN" print-build)
    SHAPES=$BUILD/shapes10-data/test_batch.bin
    mkdir -p "$BUILD"
    for name; do rm -f "$BUILD/$name.log"; done
    targets=$(for name; do target_of "$name"; done | sort -u)
    # The programs that have the vector kernels inside compile longest: they come first.
    targets=$(echo "$targets" | grep kernels; echo "$targets" | grep -v kernels)
    targets=$(echo "$targets" | tr '\n' ' ')
    cat >"$state/build.$builds" <<VARIABLES
CC='$CC' CXX='$CXX' SAN='$SAN' BUILD='$BUILD' AGAIN="$again"
VARIABLES
    # Under make's own -j, so that no processor waits while one build has more to do than another.
    {
        printf 'all: b%d\nb%d:\n' $builds $builds
        printf "\t+@start=\$\$(date +%%s); \$(MAKE) -s -k --no-print-directory -f Makefile"
        printf " CC='%s' CXX='%s' SAN='%s'" "$CC" "$CXX" "$SAN"
        printf " %s >%s/build.log 2>&1; " "$targets" "$BUILD"
        printf "echo \$\$? \$\$((\$\$(date +%%s) - start)) >%s/build.status\n" "$BUILD"
    } >>"$state/builds.mk"
    echo "1000 $builds build" >>"$state/jobs" # told first
    for name; do
        seconds=$(awk -v b="$BUILD" -v n="$name" '$1 == b && $2 == n { s = $3 } END { print s }' \
            build/test.times 2>/dev/null)
        # shellcheck disable=SC2086
        [ -n "$seconds" ] || ! is_in "$name" $longest || seconds=$(echo $longest | tr ' ' '\n' |
            awk -v n="$name" '$0 == n { print 100 - NR }')
        echo "${seconds:-1} $builds $name" >>"$state/jobs"
    done
}

# shellcheck disable=SC2046
plan_test() {
    again="make test$given"
    SAN=
    if [ -n "${ONLY:-}" ]; then plan $(everything); else plan $(but "$not_in_test" $(everything)); fi
}

# shellcheck disable=SC2046
plan_ci() {
    first=$CC first_cxx=$CXX
    case $CC in *clang*) second=gcc second_cxx=g++ ;; *) second=clang second_cxx=clang++ ;; esac
    for SAN in 1 ''; do
        for CC in "$first" $second; do
            if [ "$CC" = "$first" ]; then CXX=$first_cxx; else CXX=$second_cxx; fi
            again="make test CC='$CC' SAN=$SAN"
            if ! has "${CC%% *}"; then
                [ -n "$SAN" ] || echo "left out: $CC is not installed"
            elif [ -n "$SAN" ] && ! can_sanitize "$CC"; then
                echo "left out: $CC has no sanitizers here"
            elif [ -z "$SAN" ] && [ "$CC" = "$first" ]; then
                again="make test-ci$given"
                plan $(among "$later" $(everything))
            else
                plan $(but "$once" $(everything))
            fi
        done
    done
    CC=$first CXX=$first_cxx
}

plan_one() {
    again="make test CC='$CC' SAN=$SAN"
    # shellcheck disable=SC2046
    plan $(everything)
}

# ---- From the start to the last line ----

minutes() { # SECONDS
    if [ "$1" -lt 60 ]; then echo "$1 s"; else echo "$(($1 / 60)) min $(($1 % 60)) s"; fi
}

announce() {
    case $mode in
    test) what="every test once with $CC" ;;
    ci) what="the second compiler, all sanitizers, and what takes long" ;;
    one) what="every test with $CC${SAN:+ under its sanitizers}" ;;
    esac
    last=$(cat "build/test.$mode.seconds" 2>/dev/null)
    [ -z "${ONLY:-}" ] || what="$ONLY" last=
    echo "$what; $jobs at a time.${last:+ Last time it took $(minutes "$last").}"
}

# The command that runs a test alone, in the build that it failed in.
command_for() { # ID
    . "$state/build.${1%%.*}"
    case $1 in
    *.build) echo "make CC=$CC SAN=$SAN all test-programs" ;;
    *) echo "$AGAIN ONLY=${1#*.}" ;;
    esac
}

# What failed, and the sum.
close() {
    for result in "$state"/results/*; do
        [ -f "$result" ] || continue
        read -r passed failed skipped seconds BUILD name broken <"$result"
        [ "$failed" -eq 0 ] || printf 'FAILED in %s: %s (%s); alone: %s\n' "$BUILD" "$name" \
            "${broken:-see $BUILD/$name.log}" "$(command_for "${result##*/}")"
    done
    cat "$state"/results/* </dev/null 2>/dev/null | awk '
        { passed += $1; failed += $2; skipped += $3 }
        END {
            printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
            exit failed > 0 || passed == 0
        }'
}

# How long each test took, for the order of the next run; and the whole.
keep_times() {
    {
        cat build/test.times 2>/dev/null
        awk '{ print $5, $6, $4 }' "$state"/results/*
    } | awk '{ s[$1 " " $2] = $3 } END { for (n in s) print n, s[n] }' >"$state/times"
    mv "$state/times" build/test.times
    [ -n "${ONLY:-}" ] || echo $(($(date +%s) - began)) >"build/test.$mode.seconds"
}

if [ "$1" = --job ]; then
    run_one "$2" "$3"
    exit 0
fi

mode=$1 builds=0 began=$(date +%s)
if [ -z "${CC:-}" ]; then
    if has gcc; then CC=gcc; else CC=cc; fi
    given=
else
    given=" CC='$CC'"
fi
case $CC in *clang*) CXX=${CXX:-clang++} ;; *) CXX=${CXX:-g++} ;; esac
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
live=
[ ! -t 1 ] || live=$(stty size 2>/dev/null <&1 | awk '{ c = $2 } END { print (c > 1 ? c : 80) - 1 }')
PTQ_TEST_QUICK=
[ "$mode" != test ] || [ -n "${ONLY:-}" ] || PTQ_TEST_QUICK=1
state=$PWD/build/testing/$mode
export live state PTQ_TEST_QUICK
rm -rf "$state"
mkdir -p "$state/results" "$state/running"
: >"$state/jobs"

for name in ${ONLY:-}; do
    [ "$name" = replay ] || [ -n "$(find tests -name "$name.*")" ] || {
        echo "ONLY: there is no test '$name': name files of tests/ without folder and ending, or replay"
        exit 1
    }
done
case $mode in
test) plan_test ;;
ci) plan_ci ;;
one) SAN=${2:-} && plan_one ;;
*) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 1 ;;
esac
if [ $builds -eq 0 ]; then
    echo "Nothing to run: ${ONLY:-every test} is left out here"
    exit 1
fi
announce
pkg-config --exists cmocka 2>/dev/null || echo "left out: test programs need cmocka (libcmocka-dev)"
[ -z "$live" ] || printf 'compiling'
make -s -k -j "$jobs" -f "$state/builds.mk" all
sort -k1,1nr "$state/jobs" | cut -d' ' -f2- | xargs -P "$jobs" -L 1 sh tests/run.sh --job
[ -z "$live" ] || printf '\r\033[K'
keep_times
close
