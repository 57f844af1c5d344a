# ptq export --tflite and ptq import of such files: what is written comes back as the same network;
# official models give TensorFlow Lite's codes, where they are at hand; and what cannot be is refused
# by name.
. tests/shared/cli.sh

float=examples/models/resnet8-shapes10.safetensors
"$BUILD/shapes10" "$dir/data" --train 100 --test 20 >"$dir/out" 2>&1 || wrong "shapes10"

# same NAME FLAGS...: logits of both models, run so, are equal to the last bit.
same() {
    name=$1
    shift
    accepts run --model "$dir/$name" --images "$dir/data" --logits "$dir/a" "$@"
    accepts run --model "$dir/back" --images "$dir/data" --logits "$dir/b" "$@"
    cmp -s "$dir/a" "$dir/b" || wrong "$name: logits differ after the way to .tflite and back"
}

there_and_back() { # NAME
    accepts export --model "$dir/$1" --tflite "$dir/$1.tflite"
    accepts import "$dir/$1.tflite" -o "$dir/back"
}

test_float() {
    cp "$float" "$dir/float"
    there_and_back float
    accepts info --graph "$dir/back"
    prints "conv1 conv2d in=input channels=16 kernel=3x3"
    prints "block1.add.relu"
    same float
}

quantize() { # NAME ARGS...
    name=$1
    shift
    accepts quantize --model "$float" --data "$dir/data" --no-measure --preset tflite "$@" \
        -o "$dir/$name"
}

test_integers() {
    for arithmetic in xnnpack fixed; do
        quantize $arithmetic --arithmetic $arithmetic --code-logits
        there_and_back $arithmetic
        accepts info "$dir/back"
        prints "arithmetic: $arithmetic"
        same $arithmetic
        PTQ_ISA=scalar "$PTQ" run --model "$dir/$arithmetic" --images "$dir/data" \
            --logits "$dir/b" >"$dir/out" || wrong "scalar $arithmetic"
        cmp -s "$dir/a" "$dir/b" || wrong "$arithmetic: scalar logits differ"
    done
    "$PTQ" run --model "$dir/xnnpack" --images "$dir/data" --logits "$dir/b" >"$dir/out"
    ! cmp -s "$dir/a" "$dir/b" || wrong "both arithmetics give the same logits"
}

# Operators without weights, each of them: to .tflite and back, on real numbers and on codes.
test_operators() {
    cc=${CC:-cc} sanitize=
    if [ -n "${SAN:-}" ]; then sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"; fi
    $cc -std=c99 $sanitize -I. tests/shared/make_operators.c "$BUILD/ptq_impl.o" -lm -pthread \
        -o "$dir/make_operators" >"$dir/err" 2>&1 && "$dir/make_operators" "$dir" ||
        wrong "make_operators"
    for name in ops_float ops_xnnpack ops_fixed; do
        there_and_back $name
        same $name
        same $name --no-fuse
        same $name --output mean
    done
    accepts info --graph "$dir/back"
    prints "^tanh function .*q=s8:8:0.0078125:0"
    for arithmetic in xnnpack fixed; do alone ops_$arithmetic $arithmetic; done
}

# alone MODEL ARITHMETIC FLAGS...: the header of a model, compiled on its own, agrees with its test
# vector, which holds what the library gives; one of `fixed` has no type of real numbers.
alone() {
    name=$1 arithmetic=$2
    shift 2
    accepts export --model "$dir/$name" --c-header "$dir/net.h" --standalone --test-vector "$@"
    { $cc -std=c99 -O1 $warn $sanitize -I"$dir" "$dir/vector.c" -o "$dir/vector" &&
        "$dir/vector"; } >"$dir/err" 2>&1 || wrong "$name $*: the header gives other results"
    { $cxx -x c++ -std=c++11 $warn -I"$dir" -c "$dir/vector.c" -o "$dir/vector.o"; } \
        >"$dir/err" 2>&1 || wrong "$name $*: the header is no C++"
    [ "$arithmetic" = xnnpack ] || ! grep -qw 'float\|double' "$dir/net.h" ||
        wrong "$name $*: real numbers in integers"
}

test_standalone() {
    cc=${CC:-cc} cxx=${CXX:-c++}
    warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror" sanitize=
    if [ -n "${SAN:-}" ]; then sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"; fi
    printf '#define NET_TEST\n#define NET_IMPLEMENTATION\n#include "net.h"\n%s\n' \
        'int main(void) { return net_test(); }' >"$dir/vector.c"
    for arithmetic in xnnpack fixed; do
        alone $arithmetic $arithmetic
        alone $arithmetic $arithmetic --small
    done
    [ -z "${PTQ_TEST_QUICK:-}" ] || return 0
    for name in kws_int8 vww_int8 ad_int8; do
        [ -f "$shared/models/others/$name.tflite" ] || continue
        accepts import "$shared/models/others/$name.tflite" --arithmetic fixed -o "$dir/$name"
        alone $name fixed
    done
}

test_refused() {
    quantize plain --code-logits
    refuses "quantize with --arithmetic xnnpack" export --model "$dir/plain" --tflite "$dir/no"
    refuses "write it with --tflite" export --model "$dir/xnnpack" --onnx "$dir/no"
    quantize real --arithmetic xnnpack --float-logits
    refuses "quantize with --code-logits" export --model "$dir/real" --tflite "$dir/no"
    quantize real --arithmetic fixed --float-logits
    refuses "quantize with --code-logits" export --model "$dir/real" --standalone --c-header "$dir/no"
    quantize u8 --arithmetic xnnpack --code-logits --activation-type u8
    refuses "quantize with --activation-type s8" export --model "$dir/u8" --tflite "$dir/no"
    refuses "onnx, xnnpack or fixed" quantize --model "$float" --data "$dir/data" \
        --arithmetic gemmlowp -o "$dir/no"
    refuses "leave out --arithmetic" import "$dir/float.tflite" --arithmetic fixed -o "$dir/no"
    head -c 8 "$dir/xnnpack.tflite" >"$dir/short.tflite"
    refuses "cut off or damaged" import "$dir/short.tflite" -o "$dir/no"
    head -c 20000 "$dir/xnnpack.tflite" >"$dir/cut.tflite"
    refuses "cut off or damaged" import "$dir/cut.tflite" -o "$dir/no"
    [ ! -e "$dir/no" ] || wrong "what was refused was written"
}

# Codes of TensorFlow Lite itself: right answers of MLPerf Tiny's official models.
test_official() {
    features=$shared/data/mlperf-tiny-kws
    [ -f "$features/features.npy" ] || return 0
    [ -z "${PTQ_TEST_QUICK:-}${SAN:-}" ] || return 0
    for kind in "float 454" "int8 453" "int8 452 --arithmetic fixed"; do
        # shellcheck disable=SC2086 # words
        set -- $kind
        file=$shared/models/others/kws_$1.tflite right=$2
        shift 2
        accepts import "$file" "$@" -o "$dir/kws"
        accepts eval --model "$dir/kws" --data "$features/features.npy" \
            --labels "$features/labels.npy"
        prints "$right of 500 right"
    done
    for name in ad vww ic; do
        accepts import "$shared/models/others/${name}_float.tflite" -o "$dir/$name"
    done
    for file in others/ad_int8 others/vww_int8 resnet8_mlperf_int8; do
        accepts import "$shared/models/$file.tflite" -o "$dir/official"
    done
}

test_float
test_integers
test_standalone
test_operators
test_refused
test_official
[ $failures -eq 0 ]
