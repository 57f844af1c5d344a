#!/bin/sh
# fuzz.sh SECONDS TARGET...: runs each target with libFuzzer and the sanitizers, from the seeds and
# from what earlier runs found in build/fuzz/TARGET. Needs clang. What crashes is kept there; put it
# into tests/fuzz/found/TARGET/, which the tests replay.
cd "$(dirname "$0")/../.." || exit 1
seconds=$1
shift
if ! command -v clang >/dev/null; then
    echo "fuzzing needs clang (Debian: clang, libclang-rt-dev)"
    exit 1
fi
make -s build/fuzz-seeds && build/fuzz-seeds build/fuzz-seed || exit 1
failed=0
for target; do
    # clang needs minutes to instrument the vector kernels; the one target that is about them
    # compares results, and goes without the sanitizers (the tests run them under GCC's).
    sanitizers="fuzzer,address,undefined -fno-sanitize-recover=all -DPTQ_NO_SIMD"
    if [ "$target" = kernels ]; then sanitizers=fuzzer; fi
    mkdir -p "build/fuzz/$target"
    clang -g -O1 -fsanitize=$sanitizers -I. "tests/fuzz/$target.c" -lm -o "build/fuzz/run-$target" || exit 1
    if ! "build/fuzz/run-$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2000 \
        -artifact_prefix="build/fuzz/$target-" -max_len=40000 -print_final_stats=1 \
        "build/fuzz/$target" "build/fuzz-seed/$target" >"build/fuzz/$target.log" 2>&1; then
        failed=1
        tail -n 30 "build/fuzz/$target.log"
    fi
    awk -v name="$target" '/stat::number_of_executed_units/ { print name ": " $2 " executions" }' \
        "build/fuzz/$target.log"
done
exit $failed
