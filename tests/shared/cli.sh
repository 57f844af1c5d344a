# What the tests of the command-line tool share; they read it with ". tests/shared/cli.sh". PTQ is the
# tool's path, BUILD the directory it was built in.
set -u
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failures=0
shared=${PTQ_SHARED:-../shared}
model=$shared/models/resnet8_mlperf.safetensors
ic200=$shared/data/mlperf-tiny-ic200/test_batch.bin
unset PTQ_ISA PTQ_MODEL CIFAR10_DIR

wrong() {
    echo "WRONG: $*"
    [ ! -s "$dir/err" ] || head -n 5 "$dir/err"
    failures=$((failures + 1))
}

# accepts ARGS: exit status 0; on standard error nothing but warnings.
accepts() {
    "$PTQ" "$@" >"$dir/out" 2>"$dir/err" || wrong "exit status $? of ptq $*"
    ! grep -qv "^ptq [a-z]*: warning: " "$dir/err" || wrong "standard error of ptq $*"
}

# refuses WORDS ARGS: exit status 1, or 2 where the command line itself is wrong, and one line on
# standard error, warnings aside, that begins "ptq" and holds WORDS. misuses: status 2.
refuses() { ends_with "[12]" "$@"; }
misuses() { ends_with 2 "$@"; }

ends_with() { # STATUS WORDS ARGS
    expected=$1
    words=$2
    shift 2
    "$PTQ" "$@" >"$dir/out" 2>"$dir/all"
    status=$?
    grep -v ": warning: " "$dir/all" >"$dir/err"
    expr $status : "$expected\$" >/dev/null || wrong "exit status $status of ptq $*"
    [ "$(wc -l <"$dir/err")" -eq 1 ] || wrong "standard error of ptq $* is not one line"
    grep -q "^ptq.*: .*$words" "$dir/err" || wrong "ptq $* does not say '$words'"
    [ ! -s "$dir/out" ] || wrong "ptq $* fails and writes to standard output"
}

# prints WORDS: the last accepted command did.
prints() {
    grep -q -e "$1" "$dir/out" || wrong "no '$1' in the output"
}

warns() {
    grep -q -e "warning: .*$1" "$dir/err" || wrong "no warning '$1'"
}

# has_library NAME: the tool was built with it.
has_library() {
    [ -f "$BUILD/libs" ] && grep -q "$1" "$BUILD/libs"
}
