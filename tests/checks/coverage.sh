#!/bin/sh
# coverage.sh    Runs the ordinary tests with gcc's instrumentation and tells how much of ptq.h they
#                reach: lines and branches, and the functions that lack most (all of them in
#                build/coverage/lacking.txt). Needs gcc and lcov (Debian: lcov). Exit status 0 if
#                the tests pass and the limits below are kept.
#
# Nothing is excluded, but: assertions are compiled out; what other processors and systems have
# (NEON, WebAssembly, Windows) is not compiled here and so does not count; the kernels for VNNI and
# AMX count as the ordinary tests run them, by emulation where the processor lacks them. Every
# branch of a macro counts where it is used: the loops of vector kernels, which macros write out,
# and PTQ__TRY.
cd "$(dirname "$0")/../.." || exit 1
least_lines=95
least_branches=85
build=build/coverage
export COVERAGE=1

for tool in gcc lcov; do
    command -v $tool >/dev/null 2>&1 || {
        echo "coverage needs $tool"
        exit 1
    }
done
rm -rf "$build"
failed=0
CC=gcc CXX=g++ sh tests/run.sh one || failed=1

with="--quiet --rc lcov_branch_coverage=1"
# shellcheck disable=SC2086
lcov $with --capture --directory "$build" --base-directory "$PWD" -o "$build/all.info" \
    >"$build/lcov.log" 2>&1 &&
    lcov $with --extract "$build/all.info" '*/ptq.h' -o "$build/ptq.info" >>"$build/lcov.log" 2>&1 || {
    tail -n 3 "$build/lcov.log"
    exit 1
}

# Functions with what they lack, from lines of lcov's format, the FN lines sorted and first.
{
    grep '^FN:' "$build/ptq.info" | sort -t: -k2,2n
    grep -E '^(DA|BRDA):' "$build/ptq.info"
} | sed 's/:/,/' | awk -F, '
    # The function that a line belongs to: the last one that begins before it.
    function owner(line, low, high, middle) {
        low = 1
        high = functions
        while (low < high) {
            middle = int((low + high + 1) / 2)
            if (start[middle] <= line) low = middle; else high = middle - 1
        }
        return low
    }
    $1 == "FN" { start[++functions] = $2; name[functions] = $3 }
    $1 == "DA" { f = owner($2); lines[f]++; if ($3 == 0) missed[f]++ }
    $1 == "BRDA" { f = owner($2); branches[f]++; if ($5 == "-" || $5 == 0) untaken[f]++ }
    END {
        for (f = 1; f <= functions; f++)
            if (missed[f] || untaken[f])
                printf "%s:%d lacks %d of %d branches, %d of %d lines\n", name[f], start[f],
                       untaken[f], branches[f], missed[f], lines[f]
    }' | sort -k3,3nr >"$build/lacking.txt"

echo "Functions that lack most, of $(wc -l <"$build/lacking.txt"):"
head -n 25 "$build/lacking.txt" | sed 's/^/  /'
grep -E '^(LF|LH|BRF|BRH):' "$build/ptq.info" |
    awk -F: -v l=$least_lines -v b=$least_branches '
    { sum[$1] += $2 }
    END {
        lines = 100 * sum["LH"] / sum["LF"]
        branches = 100 * sum["BRH"] / sum["BRF"]
        printf "ptq.h: lines %.1f %% (%d of %d), branches %.1f %% (%d of %d)\n", lines, sum["LH"],
               sum["LF"], branches, sum["BRH"], sum["BRF"]
        exit lines < l || branches < b
    }' || failed=1
exit $failed
