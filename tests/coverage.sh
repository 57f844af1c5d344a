#!/bin/sh
# coverage.sh    Runs the ordinary tests with gcc's instrumentation and tells how much of ptq.h they
#                reach: lines and branches, function by function where something lacks. Needs gcc and
#                lcov (Debian: lcov). Exit status 0 if the tests pass and the limits below are kept.
#
# What is not compiled on this processor (NEON, WebAssembly, Windows) does not count. The kernels for
# VNNI and AMX count as the ordinary tests run them: by emulation where the processor lacks them.
cd "$(dirname "$0")/.." || exit 1
lines=95
branches=85
build=build/coverage
export COVERAGE=1

for tool in gcc lcov; do
    command -v $tool >/dev/null 2>&1 || {
        echo "coverage needs $tool"
        exit 1
    }
done
rm -rf "$build"
sh tests/run.sh gcc g++ '' || exit 1
