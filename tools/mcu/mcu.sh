#!/bin/sh
# mcu.sh BUILD SHARED [CPU...]
#
# Networks as "ptq export --standalone" writes them, on the microcontrollers of
# examples/mcu/targets.sh under QEMU: instructions exactly, layer by layer; flash, RAM and stack of the
# whole program; and whether the logits of IMAGES images (200) are those of "ptq run", to the byte.
# MODELS are resnet8 (of SHARED, or without it the repository's), the same as resnet8-fixed, in the
# arithmetic of codes and integers alone, kws and vww, MLPerf Tiny's keyword spotting and visual wake
# words (official int8 codes, of SHARED alone), and separable, the repository's network of depthwise
# convolutions. OPTIMIZATION is the compiler's (-O2); EXPORT holds further options of "ptq export".
set -u
build=$1 shared=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/examples/mcu
. "$here/targets.sh"
level=${OPTIMIZATION:--O2}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say_missing() { echo "mcu: $1 is left out: $2 is not installed (Debian: $3)"; }

package_of() {
    case $1 in
    arm-none-eabi-gcc) echo gcc-arm-none-eabi libnewlib-arm-none-eabi ;;
    riscv64-unknown-elf-gcc) echo gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf ;;
    qemu-system-arm) echo qemu-system-arm ;;
    *) echo qemu-system-misc ;;
    esac
}

# Each chooses a network: how it comes about, "quantized"; its images, "$work/images.bin", and the same
# as "ptq run" reads them, "$items"; options for the compiler, "$options". 2: it is not there.
choose_resnet8() { # OPTIONS...
    float=$shared/models/resnet8_mlperf.safetensors data=$shared/data/cifar-10-batches-bin
    images=$shared/data/mlperf-tiny-ic200/test_batch.bin
    if [ -f "$float" ] && [ -f "$data/data_batch_1.bin" ] && [ -f "$images" ]; then
        quantize resnet8 "$@"
    else
        choose_shapes resnet8 "$@"
    fi
}

choose_resnet8_fixed() {
    allow_more # an addition that is not fused needs both operands and its result
    choose_resnet8 --arithmetic fixed --code-logits
}

choose_separable() { choose_shapes separable; }

# More memory than the example allows.
allow_more() {
    for cpu in $mcu_cpus; do
        sed 's/= 100K/= 400K/; s/= 56K/= 160K/' "$here/$cpu.ld" >"$work/$cpu.ld"
    done
}

choose_shapes() { # NAME OPTIONS...
    float=$root/examples/models/$1-shapes10.safetensors data=$build/shapes10-data
    images=$data/test_batch.bin
    [ -f "$images" ] || "$build/shapes10" "$data" --train 2000 --test 2000 >"$work/log" || return
    quantize "$@"
}

# Quantized once, and kept as long as the tool is the same.
quantize() { # NAME OPTIONS...
    quantized=$build/mcu-$model.safetensors options= items=$work/images.bin
    what="$float, preset best; images of $images"
    shift
    head -c $((3073 * ${IMAGES:-200})) "$images" >"$work/images.bin"
    [ "$quantized" -nt "$build/ptq" ] ||
        "$build/ptq" quantize --model "$float" --data "$data" --no-measure -o "$quantized" "$@" \
            >"$work/log"
}

official() { # NAME
    quantized=$build/mcu-$1.safetensors options=-DRAW_IMAGES
    float=$shared/models/others/$1_int8.tflite
    [ -f "$float" ] && [ -f "$images" ] || return 2
    "$build/ptq" import "$float" --arithmetic onnx -o "$quantized" >"$work/log" 2>&1
}

# Features as published, which are the codes of the network's input, and as real numbers.
choose_kws() {
    images=$shared/data/mlperf-tiny-kws/features_int8.npy items=$shared/data/mlperf-tiny-kws/features.npy
    official kws || return
    what="$float; items of $items"
    tail -c +129 "$images" | head -c $((490 * ${IMAGES:-200})) >"$work/images.bin"
}

# There are no pictures for it: the bytes of CIFAR-10's are taken as they lie, 20 images at most.
choose_vww() {
    images=$shared/data/mlperf-tiny-ic200/test_batch.bin items=$work/images.npy
    official vww || return
    what="$float; bytes of $images as pixels"
    allow_more
    n=${IMAGES:-20}
    [ "$n" -le 20 ] || n=20
    head -c $((27648 * n)) "$images" >"$work/images.bin"
    {
        printf '\223NUMPY\001\000v\000'
        printf '%-117s\n' "{'descr': '|u1', 'fortran_order': False, 'shape': ($n, 96, 96, 3), }"
        cat "$work/images.bin"
    } >"$items"
}

# Results are logits, or codes of one byte each, which "ptq run" writes as four.
find_network() { # NAME
    rm -f "$work"/*.ld
    choose_$(echo "$1" | tr - _) || return
    echo
    echo "$1: $what"
    "$build/ptq" export --model "$quantized" --c-header "$work/net.h" --standalone --name net \
        ${EXPORT:-} >"$work/log" || return
    codes=
    ! grep -q NET_RESULT_ZERO_POINT "$work/net.h" || codes="--codes $work/codes.i32"
    "$build/ptq" run --model "$quantized" --images "$items" --limit ${IMAGES:-200} $codes \
        --logits "$work/wanted.f32" >"$work/log" || return
    [ -z "$codes" ] || od -An -v -tu1 -w4 "$work/codes.i32" | awk '{ print $1 }' >"$work/wanted"
}

is_equal() {
    if [ -z "$codes" ]; then
        cmp -s "$work/logits.f32" "$work/wanted.f32"
        return
    fi
    od -An -v -tu1 -w1 "$work/logits.f32" | awk '{ print $1 }' | cmp -s - "$work/wanted"
}

# Functions of the compiler's that compute with real numbers: the program has none.
calls_float() {
    ${compiler%gcc}nm "$work/net.elf" | awk '{ print $NF }' | grep -E \
        '^__aeabi_(c?[fd]|u?[il]2[fd])|^__(add|sub|mul|div|neg|fix|float|extend|trunc|[a-z]*[lg][te])[a-z]*[sd]f'
}

# A loop of three million instructions between two marks, with one before it: that is what the
# plugin has to count.
check_plugin() {
    cat >"$work/loop.c" <<'END_C'
__asm__(".syntax unified\n.globl before, after\n.type loop, %function\n.thumb_func\nloop:\n"
        "before: ldr r0, =1000000\n1: nop\n subs r0, r0, #1\n bne 1b\nafter: bx lr\n");
void loop(void);
void leave(int status);
int main(void) { loop(); return 0; }
void leave(int status)
{
    const unsigned arguments[2] = {0x20026, (unsigned)status};
    register int r0 __asm__("r0") = 0x20;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
END_C
    target cortex-m4 && command -v $compiler >"$work/log" && command -v $emulator >"$work/log" ||
        return 0
    $compiler -O1 $flags -nostartfiles -L"$here" -T "$here/cortex-m4.ld" "$work/loop.c" \
        "$here/startup.c" -o "$work/net.elf" && count before after || return
    [ "$(awk 'NR == 2 { print $2 - n } { n = $2 }' "$work/counts")" = 3000001 ] && return
    echo "mcu: the plugin counts a loop wrongly" >&2
    return 1
}

# count SYMBOL...: instructions up to each, into "$work/counts" with its name
count() {
    nm=${compiler%gcc}nm
    where=$($nm "$work/net.elf" | awk -v names="$*" 'BEGIN { n = split(names, name) }
        { for (i = 1; i <= n; i++) if ($3 == name[i]) printf ",at=0x%s", $1 }')
    emulate "$work" -plugin "$work/count.so,out=$work/reached$where" >"$work/log" || return
    $nm "$work/net.elf" | sed 's/^0*//' |
        awk 'NR == FNR { name[$1] = $3; next } { print name[$1], $2 }' - "$work/reached" \
            >"$work/counts"
}

count_images() { # as many as there are logits for
    classes=$(awk '$2 ~ /_CLASSES$/ { print $3 }' "$work/net.h")
    echo $(($(stat -c %s "$work/wanted.f32") / 4 / classes))
}

# The same program, but with a label behind each layer, which costs no instruction.
count_layers() { # CPU
    build "$1" "$level" "$work" $options '-DNET_DONE(n)=__asm__ volatile("net_done_" #n ":")' || return
    cp "$work/images.bin" "$work/all.bin"
    head -c $(($(stat -c %s "$work/all.bin") / $(count_images))) "$work/all.bin" >"$work/images.bin"
    count net_run $(awk '{ print "net_done_" NR - 1 }' "$work/nodes")
    status=$?
    mv "$work/all.bin" "$work/images.bin"
    return $status
}

# Nodes and what they multiply, in order, the input first, up to the total.
list_nodes() {
    "$build/ptq" info --model "$quantized" |
        awk '$NF == "MACs" { inside = 1; next } $1 == "total" { exit }
            inside { gsub(",", "", $NF); print $1, $NF }' >"$work/nodes"
}

table() { # CPU
    echo
    awk -v cpu="$1" '
        NR == FNR { name[NR - 1] = $1; macs[NR - 1] = $2; next }
        FNR == 1 { last = first = $2; printf "%-20s %12s %12s %8s\n", cpu, "instructions", "MACs", "a MAC"; next }
        {
            i = substr($1, 10)
            printf "%-20s %12d %12d ", i ? name[i] : "input", $2 - last, macs[i]
            printf macs[i] ? "%8.3f\n" : "%8s\n", macs[i] ? ($2 - last) / macs[i] : "-"
            last = $2; total += macs[i]
        }
        END { printf "%-20s %12d %12d %8.3f\n", "all", last - first, total, (last - first) / total }
        ' "$work/nodes" "$work/counts" | tee "$work/table"
}

measure() { # CPU MODEL
    count_layers "$1" && build "$1" "$level" "$work" $options || return
    set -- "$1" $(sizes "$work/net.elf") "$2"
    rm -f "$work/logits.f32"
    emulate "$work" >"$work/log" || return
    equal=0
    is_equal && equal=1
    calls_float && echo "mcu: the program for $1 computes with real numbers: see above" >&2 && return 1
    table "$1"
    echo "RESULT mcu=$1 model=$4 instructions_per_mac=$(awk '$1 == "all" { print $4 }' \
        "$work/table") flash=$2 ram=$3 stack=$(awk '/stack/ { print $NF }' "$work/log")" \
        "equal=$equal images=$(awk '/^images/ { print $2 }' "$work/log")"
    [ $equal = 1 ]
}

${CC:-cc} -O2 -fPIC -shared "$root/tools/mcu/count.c" -o "$work/count.so" || exit 1
check_plugin || { cat "$work/log" >&2 && exit 1; }
failed=
for model in ${MODELS:-resnet8 resnet8-fixed kws vww separable}; do
    find_network "$model"
    case $? in
    0) list_nodes ;;
    2) echo "mcu: $model is left out: $float or $images is not there" && continue ;;
    *) cat "$work/log" >&2 && exit 1 ;;
    esac
    for cpu in ${*:-$mcu_cpus}; do
        target $cpu || exit 1
        for program in $compiler $emulator; do
            command -v $program >"$work/log" && continue
            say_missing $cpu $program "$(package_of $program)"
            continue 2
        done
        measure $cpu $model || failed="$failed $cpu/$model"
    done
done
[ -z "$failed" ] || { echo "mcu: failed:$failed" >&2 && exit 1; }
