# What the tool writes for fixed inputs, and which tests there are, against tests/manifest:
#
#   files.txt    NAME HASH, SHA-256 of quantized models, calibrations, ONNX files and C headers made
#                from examples/models and a few pictures of Shapes-10
#   tests.txt    PROGRAM/TEST or SCRIPT/FUNCTION
#   removed.txt  PROGRAM/TEST: why it is gone. Without such a line a test that is missing fails
#
# With --write it makes files.txt and tests.txt anew and says what changed; a test that is gone
# without a reason stays in the list.
#
# Calibration computes on real numbers, whose last bits differ from one instruction set to the next:
# what calibrates and converts is ptq-scalar, the tool without vector kernels. Left out of the bytes
# is what may change freely: the version, and in headers that go together with ptq.h the lines that
# call it.
. tests/shared/cli.sh
manifest=tests/manifest
scalar=$BUILD/ptq-scalar
list=$dir/files.txt

# hash_of FILE: that of what may not change in it.
hash_of() {
    version=$("$PTQ" --version | sed 's/^ptq //; s/\./[.]/g')
    case $1 in
    *.onnx) LC_ALL=C sed "s/\(ptq..\)$version/\1VERSION/" "$1" ;; # producer_name, _version
    *standalone.h) sed "s/^\(   Written by .*\) ($version)\. /\1 /" "$1" ;;
    *.h) sed '/ptq_/d; /^   Written by /d' "$1" ;;
    *) cat "$1" ;;
    esac | sha256sum | cut -d' ' -f1
}

# makes FILE TOOL ARGS: what the tool writes into the file, or that it refuses to.
makes() {
    file=$dir/$1
    shift
    rm -f "$file"
    if "$@" >"$dir/out" 2>"$dir/err"; then
        echo "${file#"$dir"/} $(hash_of "$file")" >>"$list"
    else
        grep -q '^ptq [a-z]*: ' "$dir/err" || wrong "exit status of $*"
        echo "${file#"$dir"/} refused" >>"$list"
    fi
}

# exports NAME MODEL: in every form that there is.
exports() {
    makes "$1.h" "$PTQ" export --model "$2" --name net --c-header "$dir/$1.h"
    makes "$1.standalone.h" "$PTQ" export --model "$2" --name net --standalone \
        --c-header "$dir/$1.standalone.h"
    if has_library onnx; then
        makes "$1.qdq.onnx" "$PTQ" export --model "$2" --form qdq --onnx "$dir/$1.qdq.onnx"
        makes "$1.qoperator.onnx" "$PTQ" export --model "$2" --form qoperator \
            --onnx "$dir/$1.qoperator.onnx"
    fi
}

# quantizes NAME FROM ARGS: and exports the result.
quantizes() {
    from=$2
    makes "$1.safetensors" "$scalar" quantize --model "$from" --no-measure \
        -o "$dir/$1.safetensors" $3
    if [ -f "$dir/$1.safetensors" ]; then exports "$1" "$dir/$1.safetensors"; fi
}

# Learning without vector kernels takes ResNet8 ten seconds: not in `make test`.
is_late() { # NAME/PRESET
    [ -n "${PTQ_TEST_QUICK:-}" ] || return 1
    case $1 in resnet8*/best* | resnet8*/w4a8*) return 0 ;; *) return 1 ;; esac
}

make_files() {
    presets=$("$PTQ" quantize --help |
        sed -n '/^Presets:$/,/--model/s/^  \([a-z][^ ]*\) .*/\1/p' | grep -vx best-high)
    [ "$(echo "$presets" | wc -l)" -ge 9 ] || wrong "presets in the help of quantize"
    "$BUILD/shapes10" "$dir/data" --train 40 --test 10 >"$dir/out" 2>&1 || wrong "shapes10"
    mkdir "$dir/resnet8-shapes10" "$dir/separable-shapes10" "$dir/resnet8-cifar10"
    for name in resnet8-shapes10 separable-shapes10; do
        float=examples/models/$name.safetensors
        exports $name/float $float
        makes $name/calibration.json "$scalar" calibrate --model $float --data "$dir/data" \
            --samples 40 -o "$dir/$name/calibration.json"
        for preset in $presets; do
            ! is_late $name/$preset || continue
            quantizes $name/$preset $float "--preset $preset --data $dir/data --samples 40"
        done
    done
    for bits in 2 3 4 5 6 7; do
        quantizes separable-shapes10/w$bits examples/models/separable-shapes10.safetensors \
            "--preset tflite --weight-bits $bits --activation-bits 7 --data $dir/data --samples 40"
    done
    # From a kept calibration, without images: so nothing can be learned from them.
    for preset in $presets; do
        case $preset in best* | w4a8) continue ;; esac
        quantizes resnet8-cifar10/$preset examples/models/resnet8-cifar10.safetensors \
            "--preset $preset --calibration examples/models/resnet8-cifar10.calibration.json"
    done
}

# The programs tell their tests, and what could not be built here counts as it stands in the list.
list_tests() {
    for source in tests/*/test_*.c; do
        program=$(basename "$source" .c)
        if [ -x "$BUILD/$program" ]; then
            TEST_LIST=1 "$BUILD/$program" | sed "s,^,$program/,"
        else
            echo "left out is $program, which was not built" >&2
            grep "^$program/" $manifest/tests.txt
        fi
    done
    for script in tests/commands/cli_*.sh tests/checks/build_*.sh tests/checks/check_*.sh \
        tests/fuzz/*.sh; do
        [ -f "$script" ] || continue
        name=${script#tests/c*/}
        name=${name#tests/}
        echo "$name"
        sed -n "s,^\(test_[a-z0-9_]*\)() .*,$name/\1,p" "$script"
    done
    for target in tests/fuzz/*.c; do echo "${target#tests/}"; done
}

# differences OLD NEW: lines of "changed NAME", "new NAME", "missing NAME". A name reaches to the
# last blank before a hash, which lists of tests do not have.
differences() {
    awk '
        function name_of(line) { sub(/ ([0-9a-f]+|refused)$/, "", line); return line }
        FILENAME == ARGV[1] { old[name_of($0)] = $0; next }
        { name = name_of($0) }
        !(name in old) { print "new", name; next }
        old[name] != $0 { print "changed", name }
        { delete old[name] }
        END { for (name in old) print "missing", name }' "$1" "$2" | LC_ALL=C sort
}

# The names of tests that are missing, each without a reason.
without_reason() {
    sed -n 's/^missing //p' "$1" | while read -r name; do
        awk -v name="$name: " 'index($0, name) == 1 && length($0) > length(name) { found = 1 }
            END { exit !found }' $manifest/removed.txt || echo "$name"
    done
}

# A manifest written anew, in one step.
put() { # FILE NAME
    cp "$1" "$manifest/$2.part" && mv "$manifest/$2.part" "$manifest/$2"
}

write_all() {
    sed "s,^,$manifest/files.txt: ," "$dir/files.diff"
    sed "s,^,$manifest/tests.txt: ," "$dir/tests.diff"
    without_reason "$dir/tests.diff" >"$dir/kept"
    if [ -s "$dir/kept" ]; then
        sed "s,.*,$manifest/removed.txt has no reason why this is gone: &," "$dir/kept"
        failures=1
    fi
    cat "$dir/tests.txt" "$dir/kept" | LC_ALL=C sort >"$dir/tests.all"
    put "$list" files.txt
    put "$dir/tests.all" tests.txt
    echo "$manifest/files.txt: $(wc -l <"$list") files; tests.txt: $(wc -l <"$dir/tests.all") names"
}

compare_all() {
    : >"$dir/err"
    while read -r what name; do
        wrong "file $name: $what, by $manifest/files.txt"
    done <"$dir/files.diff"
    sed -n 's/^new //p' "$dir/tests.diff" >"$dir/added"
    while read -r name; do wrong "test $name is new: not in $manifest/tests.txt"; done <"$dir/added"
    without_reason "$dir/tests.diff" >"$dir/lost"
    while read -r name; do
        wrong "test $name is missing, and $manifest/removed.txt has no reason"
    done <"$dir/lost"
    [ $failures -eq 0 ] || echo 'Where that is meant, "make manifest" writes the lists anew.'
}

write=
[ "${1:-}" != --write ] || write=1
if ! command -v sha256sum >/dev/null 2>&1 || [ ! -x "$scalar" ]; then
    echo "left out: needs sha256sum and $scalar"
    exit 77
fi
: >"$list"
make_files
list_tests 2>"$dir/left-out" | LC_ALL=C sort >"$dir/tests.txt"
cat "$dir/left-out"
while read -r name hash; do
    is_late "$name" || echo "$name $hash"
done <$manifest/files.txt >"$dir/files.old" 2>/dev/null
if ! has_library onnx; then
    [ -z "$write" ] || { echo "make manifest needs protobuf-c and onnx.proto"; exit 1; }
    echo "left out without protobuf-c and onnx.proto: ONNX"
    grep -v '\.onnx ' "$dir/files.old" >"$dir/files.new"
    mv "$dir/files.new" "$dir/files.old"
fi
cat $manifest/tests.txt >"$dir/tests.old" 2>/dev/null
LC_ALL=C sort -o "$list" "$list"
differences "$dir/files.old" "$list" >"$dir/files.diff"
differences "$dir/tests.old" "$dir/tests.txt" >"$dir/tests.diff"
if [ -n "$write" ]; then write_all; else compare_all; fi
[ $failures -eq 0 ]
