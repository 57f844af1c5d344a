# The page's WebAssembly on node, without a browser: integer models give the logits of the native
# program, byte for byte, whichever of the two made them. Compiling for WebAssembly takes longest,
# so that it is done for one compiler only; the build without vector instructions, and the page
# itself, are for 'make check-web'.
. tests/shared/cli.sh
float=examples/models/resnet8-shapes10.safetensors
photographs=examples/models/resnet8-cifar10

skip() {
    echo "skipped: $*"
    exit 77
}

[ -z "${SAN:-}" ] || skip "the build under sanitizers does the same"
[ -z "${COVERAGE:-}" ] || skip "coverage is counted in native code"
case $(basename "${CC:-cc}") in
cc | gcc) ;;
*) skip "the other compiler does the same" ;;
esac
. tests/web/lacks.sh
why=$(lacks_web)
[ -z "$why" ] || skip "$why"

make -s "$BUILD/web/simd.wasm" "$BUILD/shapes10" || wrong "the WebAssembly build"
wasm=$BUILD/web/simd.wasm
"$BUILD/shapes10" "$dir/shapes" --train 100 --test 40 || wrong "shapes10"
train=$dir/shapes/data_batch_1.bin images=$dir/shapes/test_batch.bin

engine() {
    node tests/web/engine.mjs "$@" >"$dir/out" 2>"$dir/err" || wrong "engine.mjs $*"
}

# native MODEL: its logits by the native program, in $dir/native.
native() {
    accepts run --model "$1" --images "$images" --logits "$dir/native"
}

same_logits() { # WHAT
    cmp -s "$dir/native" "$dir/web" || wrong "the logits of $1 differ in WebAssembly"
}

engine refuse "$wasm" "$float"
for preset in tflite ort-u8; do
    accepts quantize --model "$float" --data "$dir/shapes" --samples 100 --preset $preset \
        --no-measure -o "$dir/made.safetensors"
    engine run "$wasm" "$float" "$dir/made.safetensors" "$images" "$dir/web"
    prints '^wasm$'
    native "$dir/made.safetensors"
    same_logits "preset $preset"
done
for bits in "8 8" "4 5"; do
    # shellcheck disable=SC2086
    engine quantize "$wasm" "$float" "$train" $bits "$images" "$dir/made.safetensors" "$dir/web"
    native "$dir/made.safetensors"
    same_logits "a model made in WebAssembly with $bits bits"
done

# From the same calibration file both make a model with the same logits. The file is the page's.
engine quantize "$wasm" $photographs.safetensors $photographs.calibration.json 5 6 "$images" \
    "$dir/made.safetensors" "$dir/web"
accepts quantize --model $photographs.safetensors --calibration $photographs.calibration.json \
    --rounding nearest --equalize no --fit-ranges no --confirm no --weight-bits 5 --activation-bits 6 --no-measure \
    -o "$dir/native.safetensors"
native "$dir/native.safetensors"
same_logits "the network for photographs"

[ $failures -eq 0 ]
