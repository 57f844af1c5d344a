#!/bin/sh
# check_all.sh [N]    The kernels of other processors, cross-compiled and run under emulators: N
#                     (default 2000) random networks of each kind against the scalar kernels, and, if
#                     PTQ_SHARED has ResNet8 and CIFAR-10, the logits of integer models against
#                     those of this machine. Prints a table; what the machine lacks is skipped by
#                     name. Exit status 0 if nothing failed.
cd "$(dirname "$0")/.." || exit 1
count=${1:-2000}
shared=${PTQ_SHARED:-../shared}
ptq=${PTQ:-build/ptq}
dir=$PWD/build/cross
flags="-std=c99 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -ffp-contract=off -I."
failures=0

# A row: NAME; the compiler with its flags; what runs the product. To add one, add a line.
rows() {
    cat <<'END'
this machine  | cc                                          |
arm64 gcc     | aarch64-linux-gnu-gcc                       | qemu-aarch64 -L /usr/aarch64-linux-gnu
arm64 clang   | clang --target=aarch64-linux-gnu            | qemu-aarch64 -L /usr/aarch64-linux-gnu
armhf neon    | arm-linux-gnueabihf-gcc -mfpu=neon          | qemu-arm -L /usr/arm-linux-gnueabihf
armhf vfpv4   | arm-linux-gnueabihf-gcc -mfpu=neon-vfpv4    | qemu-arm -L /usr/arm-linux-gnueabihf
wasm          | clang --target=wasm32-wasi -msimd128        | node --no-warnings tests/wasi.mjs
END
}

tell() { # NAME RESULT
    printf '%-14s %s\n' "$1" "$2"
}

# Integer models of several kinds of codes, and images for them.
make_models() {
    model=$shared/models/resnet8_mlperf.safetensors
    data=$(cd "$shared/data/cifar-10-batches-bin" 2>/dev/null && pwd)
    if [ ! -x "$ptq" ] || [ ! -f "$model" ] || [ -z "$data" ]; then
        tell 'logits' 'skipped: needs build/ptq, and ResNet8 and CIFAR-10 in PTQ_SHARED'
        return
    fi
    images=$data/test_batch.bin
    for preset in best ort-u8 ort-s8 w4a8; do
        "$ptq" quantize --model "$model" --data "$data" --preset $preset \
            -o "$dir/$preset.safetensors" >"$dir/$preset.log" 2>&1 || {
            tell "$preset" "FAILED: $(tail -n 1 "$dir/$preset.log")"
            failures=$((failures + 1))
            continue
        }
        images="$images $dir/$preset.safetensors"
    done
}

# Says why a row cannot run; nothing if it can.
lacks() { # COMPILER RUNNER
    for tool in ${1%% *} ${2%% *}; do
        command -v "$tool" >/dev/null 2>&1 || {
            echo "$tool is not installed"
            return
        }
    done
    echo 'int main(void) { return 0; }' >"$dir/trivial.c"
    $1 "$dir/trivial.c" -o "$dir/trivial" >"$dir/log" 2>&1 || {
        echo "${1%% *} has no C library for it"
        return
    }
    $2 "$dir/trivial" >"$dir/log" 2>&1 || echo "${2%% *} cannot run it"
}

run_row() { # NAME COMPILER RUNNER
    why=$(lacks "$2" "$3")
    if [ -n "$why" ]; then
        tell "$1" "skipped: $why"
        return
    fi
    # shellcheck disable=SC2086
    if $2 $flags tests/kernels_main.c -o "$dir/kernels" -lm >"$dir/log" 2>&1 &&
        $3 "$dir/kernels" "$count" $images >"$dir/log" 2>&1; then
        sums=$(awk '/: logits/ { print $3 }' "$dir/log" | uniq)
        reference=${reference-$sums}
        if [ "$sums" = "$reference" ]; then
            grep -v ': logits' "$dir/log" | while read -r line; do tell "$1" "$line"; done
            [ -z "$sums" ] || tell "$1" "logits equal in $(echo $sums | wc -w) models"
            return
        fi
        echo 'the logits differ from those of this machine' >>"$dir/log"
    fi
    failures=$((failures + 1))
    tell "$1" "FAILED: $(tail -n 8 "$dir/log")"
}

mkdir -p "$dir" || exit 1
images=
make_models
rows >"$dir/rows"
while IFS='|' read -r name compiler runner <&3; do
    run_row "$(echo $name)" "$(echo $compiler)" "$(echo $runner)"
done 3<"$dir/rows"
line=$(sh tests/check_threads.sh) || [ $? -eq 77 ] || failures=$((failures + 1)); tell 'threads' "$line"
exit $((failures > 0))
