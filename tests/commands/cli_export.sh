# ptq export --c-header: what it writes is compiled as C99 and C++11 without warnings, run, and must
# give the library's logits to the byte. PTQ is the tool's path, BUILD holds the library's object.
# Random networks; with PTQ_SHARED also ResNet8 under every preset.
. tests/shared/cli.sh
cifar=$shared/data/cifar-10-batches-bin
cc=${CC:-cc}
cxx=${CXX:-c++}
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
sanitize=${COVERAGE:+--coverage}
if [ -n "${SAN:-}" ]; then sanitize="-g1 -fsanitize=address,undefined -fno-sanitize-recover=all"; fi

# Runs net.h over a file: bare pixels, or CIFAR-10 records where RECORD is 1, the bytes of a label.
write_driver() {
    cat >"$dir/driver.c" <<'END'
#include <stdio.h>
#define NET_IMPLEMENTATION
#include "net.h"
#include "net.h"
#ifndef RECORD
#define RECORD 0
#endif
int main(int argc, char **argv)
{
    static uint8_t bytes[RECORD + NET_PIXELS], pixels[NET_PIXELS];
    FILE *in = argc > 2 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
    float logits[NET_CLASSES];
    size_t i, c, channels = NET_CHANNELS, plane = NET_PIXELS / NET_CHANNELS;
    if (!out)
        return 1;
    while (fread(bytes, 1, sizeof bytes, in) == sizeof bytes) {
        for (i = 0; i < plane; i++)
            for (c = 0; c < channels; c++)
                pixels[i * channels + c] = RECORD ? bytes[RECORD + c * plane + i]
                                                  : bytes[i * channels + c];
#ifdef PTQ_H
        {
            ptq_error err;
            if (net_run(pixels, logits, &err))
                return fprintf(stderr, "%s\n", err.text), 1;
        }
#else
        net_run(pixels, logits);
#endif
        if (fwrite(logits, sizeof logits, 1, out) != 1)
            return 1;
    }
    return fclose(out) != 0;
}
END
}

# runs NAME INPUT WANTED COMPILER ARGS: compiles the driver, runs it, compares the logits.
runs() {
    name=$1 input=$2 wanted=$3
    shift 3
    if ! "$@" $warn $sanitize -I. -I"$dir" "$dir/driver.c" -x none ${object:-} -lm -pthread \
        -o "$dir/driver" >"$dir/err" 2>&1; then
        wrong "$name does not compile with $*"
    elif ! "$dir/driver" "$input" "$dir/logits" >"$dir/err" 2>&1; then
        wrong "$name does not run, compiled with $*"
    elif ! cmp "$dir/logits" "$wanted" >"$dir/err" 2>&1; then
        wrong "$name gives other logits, compiled with $*"
    fi
}

# In C++ the file is a .cpp: clang would warn of C.
as_c() { # NAME INPUT WANTED FLAGS...
    name=$1 input=$2 wanted=$3
    shift 3
    runs "$name" "$input" "$wanted" $cc -std=c99 "$@"
}
as_cxx() {
    name=$1 input=$2 wanted=$3
    shift 3
    runs "$name" "$input" "$wanted" $cxx -x c++ -std=c++11 "$@"
}

# What an object asks of others: memory functions, which compilers bring in themselves, at most.
needs_nothing() {
    command -v nm >/dev/null 2>&1 || return 0
    printf '#define NET_IMPLEMENTATION\n#include "net.h"\n' >"$dir/alone.c"
    $cc -std=c99 -O2 -I"$dir" -c "$dir/alone.c" -o "$dir/alone.o" || wrong "alone.c"
    odd=$(nm -u "$dir/alone.o" | awk '{ print $NF }' | grep -vxE '_?(memcpy|memset|memmove)' |
        grep -v 'GLOBAL_OFFSET_TABLE\|stack_chk')
    [ -z "$odd" ] || wrong "$1 needs $odd"
    [ "$(nm -g "$dir/alone.o" | awk 'NF == 3 { print $3 }' | sed 's/^_//')" = net_run ] ||
        wrong "$1 exports more than net_run"
}

test_usage() {
    accepts export --help
    refuses "unknown option --nonsense" export --nonsense
    refuses "say what to write" export
    refuses "go with --c-header" export --onnx "$dir/net.onnx" --standalone
    refuses "go with --standalone" export --c-header "$dir/net.h" --small
    refuses "go with --standalone" export --c-header "$dir/net.h" --ram 40000
    refuses "goes with --onnx" export --c-header "$dir/net.h" --form qdq
    refuses "no such model" export --model "$dir/missing" --c-header "$dir/net.h"
}

test_refusals() {
    for name in 1net "a b" "" 'x*/' "$(printf '%041d' 0 | tr 0 a)"; do
        refuses "name must be" export --model "$dir/best.safetensors" --c-header "$dir/no.h" \
            --name "$name"
    done
    refuses "belong to ptq.h" export --model "$dir/best.safetensors" --c-header "$dir/no.h" \
        --name ptq_net
    refuses "belong to ptq.h" export --model "$dir/best.safetensors" --c-header "$dir/ptq.h"
    refuses "node wide (conv2d) computes on real numbers" export --standalone --c-header \
        "$dir/no.h" --model "$dir/dynamic.safetensors"
    refuses "computes on real numbers" export --standalone --c-header "$dir/no.h" \
        --model "$dir/fp16.safetensors"
    refuses "overwritten" export --model "$dir/best.safetensors" --c-header "$dir/best.safetensors"
    refuses "; " export --model "$dir/best.safetensors" --c-header "$dir/no/such/net.h"
    [ ! -e "$dir/no.h" ] || wrong "a refused export left a file"
}

test_names() {
    accepts export --model "$dir/w4.safetensors" --c-header "$dir/8-bit net.v2.h" --standalone
    grep -q '^void net_8_bit_net_run(' "$dir/8-bit net.v2.h" || wrong "name made from a file's"
    accepts export --model "$dir/w4.safetensors" --c-header "$dir/one.h" --standalone --name tiny
    accepts export --model "$dir/w3.safetensors" --c-header "$dir/two.h" --standalone --name Other
    cat >"$dir/both.c" <<'END'
#define TINY_IMPLEMENTATION
#include "one.h"
#define OTHER_IMPLEMENTATION
#include "two.h"
int main(void)
{
    static uint8_t pixels[TINY_PIXELS + OTHER_PIXELS];
    float logits[TINY_CLASSES], others[OTHER_CLASSES];
    tiny_run(pixels, logits);
    Other_run(pixels, others);
    return !(logits[0] < 1e9f && others[0] < 1e9f);
}
END
    { $cc -std=c99 $warn $sanitize -I"$dir" "$dir/both.c" -o "$dir/both" && "$dir/both"; } \
        >"$dir/err" 2>&1 || wrong "two networks in one file"
}

# Under the slow sanitizers one of each kind of weights is enough.
test_standalone() {
    if [ -n "${SAN:-}" ]; then
        nets="best ort-u8 w2 w5"
    else
        nets="best ort-u8 ort-s8 fbgemm tflite w4a8 w2 w5 w6"
    fi
    for net in $nets; do
        path=$dir/$net.safetensors
        accepts export --model "$path" --c-header "$dir/net.h" --standalone
        as_c "$net" "$dir/$net.pixels" "$dir/$net.f32" -O1
        case ${SAN:-}$net in best | w5) ;; *) continue ;; esac
        needs_nothing "$net"
        as_c "$net" "$dir/$net.pixels" "$dir/$net.f32" -O3 -ffast-math
        as_cxx "$net" "$dir/$net.pixels" "$dir/$net.f32" -O0
        accepts export --model "$path" --c-header "$dir/net.h" --standalone --small
        as_c "$net, small" "$dir/$net.pixels" "$dir/$net.f32" -O1
    done
}

# What the header needs is told before it is compiled, and refused where it is too much.
test_budget() {
    accepts export --model "$dir/best.safetensors" --c-header "$dir/net.h" --standalone \
        --flash 1000000 --ram 100000
    prints "^all  *[0-9][0-9]*  *[0-9][0-9]*$"
    refuses "more than the 1000 of --flash" export --model "$dir/best.safetensors" --c-header \
        "$dir/no.h" --standalone --flash 1000
    refuses "more than the 1000 of --ram: .* most at node .* live" export --model \
        "$dir/best.safetensors" --c-header "$dir/no.h" --standalone --ram 1000
    [ ! -e "$dir/no.h" ] || wrong "a refused export left a file"
}

# A header that checks itself, and one whose logits are wrong.
test_vector() {
    accepts export --model "$dir/best.safetensors" --c-header "$dir/net.h" --standalone \
        --test-vector
    printf '#define NET_TEST\n#define NET_IMPLEMENTATION\n#include "net.h"\n%s\n' \
        'int main(void) { return net_test(); }' >"$dir/vector.c"
    { $cc -std=c99 $warn $sanitize -I"$dir" "$dir/vector.c" -o "$dir/vector" &&
        "$dir/vector"; } >"$dir/err" 2>&1 || wrong "the test vector does not agree"
    sed 's/^\(static const uint8_t net_test_input.*\)$/\1 255 -/' "$dir/net.h" >"$dir/other" &&
        mv "$dir/other" "$dir/net.h"
    { $cc -std=c99 $sanitize -I"$dir" "$dir/vector.c" -o "$dir/vector" && ! "$dir/vector"; } \
        >"$dir/err" 2>&1 || wrong "a wrong image goes unnoticed"
}

# The forms for microcontrollers, whose instructions tests/shared/acle works out.
test_forms() {
    nets="best tflite w4a8"
    [ -z "${PTQ_TEST_QUICK:-}" ] || nets=w4a8
    for net in $nets; do
        for small in "" --small; do
            accepts export --model "$dir/$net.safetensors" --c-header "$dir/net.h" --standalone \
                $small
            as_c "$net $small by DSP instructions" "$dir/$net.pixels" "$dir/$net.f32" -O1 \
                -Itests/shared/acle -D__ARM_FEATURE_DSP -D__ARM_FEATURE_SIMD32
            as_c "$net $small by Helium" "$dir/$net.pixels" "$dir/$net.f32" -O1 \
                -Itests/shared/acle -D__ARM_FEATURE_MVE
        done
    done
}

test_with_library() {
    object=$BUILD/ptq_impl.o
    for net in best dynamic; do
        accepts export --model "$dir/$net.safetensors" --c-header "$dir/net.h"
        as_c "$net with ptq.h" "$dir/$net.pixels" "$dir/$net.f32" -O1
    done
    accepts export --model "$dir/w7.safetensors" --c-header "$dir/net.h"
    if [ -z "${SAN:-}" ]; then as_cxx "w7 with ptq.h" "$dir/w7.pixels" "$dir/w7.f32" -O1; fi
    sed 's/MEMORY_BYTES [0-9]*/MEMORY_BYTES 4000/' "$dir/net.h" >"$dir/small" &&
        mv "$dir/small" "$dir/net.h"
    { $cc -std=c99 $sanitize -I. -I"$dir" "$dir/driver.c" $object -lm -pthread -o "$dir/driver" &&
        ! "$dir/driver" "$dir/w7.pixels" "$dir/logits" >"$dir/out" 2>&1 &&
        grep -q "no memory" "$dir/out"; } || wrong "too little memory goes unnoticed"
    object=
}

# Exported with one name, so that the driver serves all.
test_resnet8() {
    accepts calibrate --model "$model" --data "$cifar" --samples $samples -o "$dir/c.json"
    presets="best ort-u8 ort-s8 fbgemm tflite w4a8"
    [ -z "${PTQ_TEST_QUICK:-}" ] || presets="ort-u8 w4a8"
    for preset in $presets; do
        if [ $preset = best ]; then count=200; else count=20; fi
        head -c $((count * 3073)) "$ic200" >"$dir/images.bin"
        accepts quantize --model "$model" --data "$cifar" --preset $preset --calibration \
            "$dir/c.json" --samples $samples --no-measure -o "$dir/resnet8"
        accepts export --model "$dir/resnet8" --c-header "$dir/net.h" --standalone
        accepts run --model "$dir/resnet8" --images "$dir/images.bin" --logits "$dir/wanted"
        as_c "ResNet8 $preset" "$dir/images.bin" "$dir/wanted" -O3 -DRECORD=1
        bytes=$(sed -n 's/.*ARENA_BYTES //p' "$dir/net.h")
        [ "$bytes" -le 53248 ] || wrong "the arena of ResNet8 $preset has $bytes bytes"
    done
}

write_driver
test_usage
if $cc -std=c99 $sanitize -I. tests/shared/make_networks.c "$BUILD/ptq_impl.o" -lm -pthread \
    -o "$dir/make_networks" && "$dir/make_networks" "$dir"; then
    test_refusals
    test_names
    test_standalone
    test_forms
    test_budget
    test_vector
    test_with_library
else
    wrong "make_networks"
fi
if [ -f "$model" ] && [ -f "$cifar/data_batch_1.bin" ] && [ "$BUILD" = build ]; then
    samples=20
    test_resnet8
else
    echo "ResNet8 left out"
fi
[ $failures -eq 0 ]
