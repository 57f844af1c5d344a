#!/bin/sh
# analyze.sh [FLAGS...]    Static analysis of ptq.h, tools/ and examples/: clang-tidy with clang's
#                          analyzer, cppcheck, gcc -fanalyzer. FLAGS are those that the tools are
#                          compiled with. Prints what is found; exit status 0 if that is nothing.
#                          Takes some ten minutes, most of them for ptq.h.
#
# What clang-tidy leaves out stands in .clang-tidy, what cppcheck does in the list below, each with
# its reason. Without the vector kernels: analyzers follow every path through a function, and there
# are too many through loops that are written out.
cd "$(dirname "$0")/../.." || exit 1
dir=build/analyze
header="-x c -std=c99 -DPTQ_IMPLEMENTATION -DPTQ_THREADS -DPTQ_NO_SIMD -I."
tools=$(find tools/data tools/docs -name '*.c' | sort)
failed=0
rm -rf "$dir"
mkdir -p "$dir" || exit 1

# Analyzers do not look into functions of variable arguments, and so take it for possible that one
# that reports an error returns PTQ_OK, and go on from there. In copies they are told what it
# returns.
sed 's/ptq_error_set(err, PTQ_/PTQ__TOLD(err, PTQ_/' ptq.h >"$dir/ptq.h"
told="-DPTQ__TOLD(err,status,...)=(ptq_error_set(err,status,__VA_ARGS__),(status))"
fails="-DTOOL_FAILS(...)=(fail(__VA_ARGS__),1)"
refuses="-DTOOL_REFUSES(...)=(refuse(__VA_ARGS__),1)"
for file in $(find tools/ptq -name '*.[ch]' | sort); do
    mkdir -p "$dir/$(dirname "$file")"
    sed 's/\<fail("/TOOL_FAILS("/; s/\<refuse(im, "/TOOL_REFUSES(im, "/' "$file" >"$dir/$file"
    case $file in
    *.h) continue ;;
    *onnx*) [ -d build/onnx ] || continue ;;
    esac
    tools="$tools $dir/$file"
done
set -- "-I$dir/tools/ptq" "$@"
examples=$(ls examples/*.c)

# run NAME COMMAND...: shows what the command finds.
run() {
    name=$1
    shift
    start=$(date +%s)
    if "$@" >"$dir/log" 2>&1 && ! grep -q 'warning:' "$dir/log"; then
        echo "$name: clean, $(($(date +%s) - start)) s"
    else
        echo "$name:"
        grep -v 'warnings\{0,1\} \(generated\|treated\)' "$dir/log"
        failed=1
    fi
}

has() {
    command -v "$1" >/dev/null 2>&1 || {
        echo "$1: not installed, left out"
        return 1
    }
}

# cppcheck:
# variableScope         declarations that several parts of a block share stand at its top
# shadowFunction        a member or local named as a function of the same file, not called there
# uninitvar             ptq__full_name: the text is put into it through a pointer
# knownConditionTrueFalse  ptq__quoted: it follows one call only
# arrayIndexThenCheck   ptq__statistics_agree: the index is compared with another, not with its limit
# It is told which libraries there are, else it takes what does without them for all there is.
libraries=
for flag; do
    case $flag in -DPTQ_HAVE_*) libraries="$libraries $flag" ;; esac
done
for_cppcheck() {
    # shellcheck disable=SC2086
    cppcheck --quiet --error-exitcode=1 --std=c99 --enable=warning,performance,portability,style \
        --inline-suppr --max-configs=1 -D__linux__ $libraries "-I$dir/tools/ptq" -I. \
        --suppress=variableScope --suppress=shadowFunction \
        --suppress=uninitvar:ptq.h --suppress=knownConditionTrueFalse:ptq.h \
        --suppress=arrayIndexThenCheck:ptq.h "$@"
}

if has clang-tidy; then
    run 'clang-tidy ptq.h' clang-tidy --quiet "$dir/ptq.h" -- $header "$told"
    for file in $tools $examples; do
        run "clang-tidy $file" clang-tidy --quiet "$file" -- -DPTQ_NO_SIMD \
            -DPTQ_IMPLEMENTATION_DONE "$fails" "$refuses" "$@"
    done
fi
if has cppcheck; then
    run 'cppcheck ptq.h' for_cppcheck -DPTQ_IMPLEMENTATION -DPTQ_NO_SIMD tools/ptq_impl.c
    run 'cppcheck tools, examples' for_cppcheck -DPTQ_IMPLEMENTATION_DONE "$fails" "$refuses" $tools $examples
fi
# gcc 12 takes memory for lost that is kept in a struct within an array, as in
# tools/ptq/bench.c; in the tools the leaks are left to the tests under AddressSanitizer. In
# ptq.h it finds none. Nor does it see that ptq_run fills the logits that tools/ptq/run.c writes;
# clang's analyzer looks for such too.
if has gcc; then
    # shellcheck disable=SC2086
    run 'gcc -fanalyzer ptq.h' gcc $header "$told" -O1 -fanalyzer -c "$dir/ptq.h" -o /dev/null
    for file in $tools; do
        run "gcc -fanalyzer $file" gcc "$@" "$fails" "$refuses" -O1 -fanalyzer \
            -Wno-analyzer-malloc-leak -Wno-analyzer-use-of-uninitialized-value -c "$file" -o /dev/null
    done
fi
exit $failed
