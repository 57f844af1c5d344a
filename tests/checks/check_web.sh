#!/bin/sh
# check_web.sh BUILD    Builds the page and opens it in Chromium without a window: nothing said in
#                       the console, the answers of the native program, the arithmetic of pixels
#                       that are clicked, the story, sliders by keyboard, names for screen readers,
#                       contrast and sizes at three widths, light and dark. Pictures of the page go
#                       to BUILD/web. What the machine lacks is named, and skips it.
cd "$(dirname "$0")/../.." || exit 1
build=${1:-${BUILD:-build}}
ptq=$build/ptq
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset PTQ_ISA PTQ_MODEL CIFAR10_DIR

. tests/web/lacks.sh
why=$(lacks_web)
browser=
for name in ${CHROMIUM:-chromium chromium-browser google-chrome}; do
    if command -v "$name" >/dev/null 2>&1; then browser=$name && break; fi
done
[ -n "$browser" ] || why="chromium is not installed"
if [ -n "$why" ]; then
    echo "skipped: $why"
    exit 77
fi

make -s "$build/web/ptq.html" >"$dir/log" 2>&1 || {
    echo "web            FAILED: $(tail -n 8 "$dir/log")"
    exit 1
}
for build_of in simd scalar; do
    for bits in "8 8" "3 4"; do
        # shellcheck disable=SC2086
        node tests/web/engine.mjs quantize "$build/web/$build_of.wasm" \
            examples/models/resnet8-shapes10.safetensors "$build/web/shapes10/data_batch_1.bin" \
            $bits "$build/web/shapes10/test_batch.bin" "$dir/model" "$dir/web.f32" &&
            "$ptq" run --model "$dir/model" --images "$build/web/shapes10/test_batch.bin" \
                --logits "$dir/native.f32" >/dev/null &&
            cmp "$dir/web.f32" "$dir/native.f32" || {
            echo "web $build_of FAILED: logits with $bits bits differ from the native program's"
            exit 1
        }
    done
    printf '%-14s %s\n' "web $build_of" "logits equal to the native program's"
done
node tests/web/page.mjs "$browser" "$build/web" "$ptq" "$dir"
