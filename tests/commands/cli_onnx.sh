# ptq import and export of ONNX, from outside, with ONNX Runtime and the official checker as judges
# where they can be had. PTQ is the tool's path, BUILD the directory of the build. ONNX Runtime is
# asked once, by the plain build with gcc; the others only import, export and run.
. tests/shared/cli.sh
train=$shared/data/cifar-10-batches-bin/data_batch_1.bin
images=$dir/images.bin
unset PYTHONPATH

# judge ARGS: asks ONNX Runtime, see ort_compare.cjs; all questions are put at the end.
judge() {
    echo "$*" >>"$dir/jobs"
}

# check FILE: what the official checker says, at the end too.
check() {
    echo "$*" >>"$dir/checks"
}

ask_judges() {
    [ -z "$python" ] || xargs "$python" tests/peers/onnx_cases.py --check <"$dir/checks" ||
        wrong "the official checker refuses an exported model"
    [ -z "$ort" ] || ORT_DIR=$ort node tests/peers/ort_compare.cjs <"$dir/jobs" ||
        wrong "ONNX Runtime computes something else"
}

find_python() {
    for python in python3 /usr/bin/python3 ""; do
        [ -z "$python" ] || ! "$python" -c 'import onnx' >/dev/null 2>&1 || return 0
    done
    echo "left out without python3-onnx: the official checker, models of all operators"
}

find_ort() {
    ort=
    if [ "$BUILD" != build ]; then return 0; fi
    if [ -n "${PTQ_TEST_QUICK:-}" ] && [ ! -f build/ort/installed ]; then
        echo "left out until make test-ci has fetched it: ONNX Runtime"
    elif reason=$(sh tests/peers/get_ort.sh build/ort); then
        ort=build/ort
    else
        echo "left out is the comparison with ONNX Runtime: $reason"
    fi
}

# Records of a label and 3072 pixels: real ones, or smooth random ones.
make_images() {
    if [ -f "$ic200" ]; then
        head -c $(($1 * 3073)) "$ic200" >"$images"
    else
        awk -v n="$1" 'BEGIN {
            srand(1)
            for (i = 0; i < n; i++) {
                printf "\\0"
                for (c = 0; c < 3; c++) {
                    a = 128 * rand(); x = 3 * rand(); y = 3 * rand()
                    for (p = 0; p < 1024; p++)
                        printf "\\%03o", int(a + x * (p % 32) + y * int(p / 32) / 2)
                }
                printf "\n" # of the last line too, or read does not give it
            }
        }' | while read -r text; do printf "$text"; done >"$images"
    fi
}

# Small models of every operator, as other programs write them.
test_cases() {
    [ -n "$python" ] || return 0
    "$python" tests/peers/onnx_cases.py "$dir" || wrong "onnx_cases.py"
    for case in "$dir"/real_*.onnx "$dir"/code_*.onnx; do
        name=${case%.onnx}
        accepts import "$case" -o "$name.safetensors"
        ! grep -q "codes of its input" "$dir/err" || wrong "a warning of the right pixels of $case"
        accepts run --model "$name.safetensors" --images "$images" --logits "$name.f32"
        case $name in
        *_exact) judge logits "$case" "$images" "$name.f32" level=all precise=1 close=0 ;;
        */code_*) judge logits "$case" "$images" "$name.f32" level=disabled agree=0.99 close=0.05 ;;
        *) judge logits "$case" "$images" "$name.f32" level=disabled close=1e-4 ;;
        esac
    done
}

# All reasons at once, each once.
test_many_refused() {
    "$PTQ" import "$dir/many.onnx" -o "$dir/no" >"$dir/out" 2>"$dir/err"
    [ $? -eq 1 ] || wrong "a file of many reasons is not refused"
    sed "s/^ptq import: .*many.onnx: node '[^']*' //" "$dir/err" >"$dir/said"
    cat >"$dir/wanted" <<end
^(Mish): this operator is not supported; .* (2 such nodes)\$
^(Clip): its lower bound lies above
^(Div): two results can be joined by Add and Mul only
^(MaxPool): dilation is supported in convolutions only
^(Einsum): this operator is not supported; .*; 1 behind it checked for unknown operators only\$
end
    while read -r words; do
        grep -q "$words" "$dir/said" || wrong "not among all reasons: $words"
    done <"$dir/wanted"
    [ "$(wc -l <"$dir/said")" -eq 5 ] || wrong "more than all reasons"
}

# What is not understood is refused with the node, the operator, the reason and the way out.
test_refused() {
    [ -n "$python" ] || return 0
    for case in "$dir"/refused_*.onnx; do
        refuses "onnx: node '[^']*' $(cat "${case%.onnx}.words")" import "$case" -o "$dir/no"
    done
    test_many_refused
    accepts import "$dir/half.onnx" -o "$dir/half.safetensors"
    warns "from node '/cast/[0-9]*' on the file computes in FLOAT16, the model in single precision"
    # -113 and 142 times 4.76 / 255
    accepts import "$dir/unit_codes.onnx" -o "$dir/unit.safetensors"
    warns "codes of its input stand for -2.109 to 2.651, but pixels 0..255 are 0 to 255"
    accepts import "$dir/unit_codes.onnx" --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4 \
        -o "$dir/unit.safetensors"
    [ ! -s "$dir/err" ] || wrong "a warning of torchvision's own numbers"
    [ ! -e "$dir/no" ] || wrong "a refused import left a file"
}

# What an export has otherwise than the file that the model came from is told by both commands.
test_interface() {
    [ -n "$python" ] || return 0
    accepts import "$dir/real_nhwc.onnx" -o "$dir/nhwc.safetensors"
    prints "input 'in', FLOAT, NHWC, N x 32 x 32 x 3;"
    prints "output '[^']*' is called '[^']*'"
    accepts export --model "$dir/nhwc.safetensors" --onnx "$dir/nhwc.onnx"
    prints "the input is 'in', FLOAT, NCHW, N x 3 x 32 x 32; .* had 'in', FLOAT, NHWC"
    ! grep -q "outputs are" "$dir/out" || wrong "an output has lost its name"
    accepts import "$dir/nhwc.onnx" -o "$dir/nhwc.safetensors"
    accepts export --model "$dir/nhwc.safetensors" --onnx "$dir/nhwc.onnx"
    ! grep -q "imported from" "$dir/out" || wrong "our own interface is told to have changed"
    for case in two_outputs interface; do # also quantized: names, order and ranks come back
        [ -f "$shared/cases/$case.onnx" ] || continue
        accepts import "$shared/cases/$case.onnx" -o "$dir/case"
        accepts export --model "$dir/case" --onnx "$dir/case.onnx"
        ! grep -q "imported from" "$dir/out" || wrong "$case comes back with another interface"
    done
    [ -f "$shared/cases/two_outputs.onnx" ] || return 0
    accepts import "$dir/case.onnx" -o "$dir/again"
    accepts import "$shared/cases/two_outputs.onnx" -o "$dir/case"
    accepts run --model "$dir/case" --images "$ic200" --output flatten_8 --logits "$dir/flat"
    prints "200 images x 8 numbers of 'flatten_8'"
    refuses "no result 'x', but gemm_11, flatten_8" run --model "$dir/case" --images "$ic200" \
        --output x --logits "$dir/flat"
    refuses "one result only" run --model "$dir/again" --images "$ic200" --output x \
        --logits "$dir/flat"
}

# Quantized by others' recipes. With optimizations off ONNX Runtime computes them in float.
test_others() {
    for from in "$shared"/models/onnx/*.onnx; do
        name=$dir/$(basename "$from" .onnx)
        accepts import "$from" -o "$name.safetensors"
        accepts run --model "$name.safetensors" --images "$images" --logits "$name.f32"
        judge logits "$from" "$images" "$name.f32" level=disabled agree=0.998
    done
}

# The float model from .onnx has the logits of the same weights from elsewhere.
test_float() {
    accepts import "$shared/models/resnet8_mlperf.onnx" -o "$dir/float.safetensors"
    accepts run --model "$dir/float.safetensors" --images "$images" --logits "$dir/float.f32"
    judge logits "$shared/models/resnet8_mlperf.onnx" "$images" "$dir/float.f32" close=1e-4
    accepts export --model "$model" --onnx "$dir/float.onnx"
    check "$dir/float.onnx"
    accepts run --model "$model" --images "$images" --logits "$dir/fused.f32"
    judge logits "$dir/float.onnx" "$images" "$dir/fused.f32" close=1e-4
    accepts import "$dir/float.onnx" -o "$dir/back.safetensors"
    accepts run --model "$dir/back.safetensors" --images "$images" --logits "$dir/back.f32"
    cmp -s "$dir/fused.f32" "$dir/back.f32" || wrong "float logits after a round trip"
}

# test_quantized NAME PRESET MODEL [OPTION]: a quantized model in both forms: every code of every
# tensor, and back to the same logits. Without the option `precise`, processors that lack VNNI
# saturate products of u8 and s8.
test_quantized() {
    q=$dir/$1
    accepts quantize --model "$3" --data "$dir/data" --samples 10 --preset "$2" -o "$q.safetensors"
    accepts run --model "$q.safetensors" --images "$images" --logits "$q.f32" \
        --tensors "$q.tensors.safetensors"
    for form in qdq qoperator; do
        accepts export --model "$q.safetensors" --onnx "$q-$form.onnx" --form $form
        check "$q-$form.onnx"
        accepts import "$q-$form.onnx" -o "$dir/back.safetensors"
        accepts run --model "$dir/back.safetensors" --images "$images" --logits "$dir/back.f32"
        cmp -s "$q.f32" "$dir/back.f32" || wrong "logits of $1 after a round trip as $form"
    done
    judge tensors "$q-qoperator.onnx" "$images" "$q.tensors.safetensors" level=extended $4
    judge logits "$q-qdq.onnx" "$images" "$q.f32" level=disabled agree=0.98
}

# Networks that take other numbers than pixels.
test_preprocessing() {
    accepts import "$model" -o "$dir/scaled.safetensors" --mean 1,2.5,3 --std 4,5,6
    grep -aq "mean=1,2.5,3 std=4,5,6" "$dir/scaled.safetensors" || wrong "--mean and --std are lost"
    refuses "mean must be one number, or one for each of 3" import "$model" \
        -o "$dir/m.safetensors" --mean 1,2
    refuses "std must be one positive number, or one for each of 3" import "$model" \
        -o "$dir/m.safetensors" --std 1,2,3,4
    refuses "std must be one positive" import "$model" -o "$dir/m.safetensors" --std 0,1,1
    accepts export --model "$dir/scaled.safetensors" --onnx "$dir/scaled.onnx"
    refuses "the file scales its pixels itself" import "$dir/scaled.onnx" -o "$dir/m.safetensors" \
        --mean 1,2,3
    accepts import "$model" -o "$dir/m.safetensors" --mean 0 --std 64
    grep -aq "std=64,64,64" "$dir/m.safetensors" || wrong "one number is not for all channels"
    # A file that scales pixels of 0..1 gives way to numbers of ours.
    accepts import "$model" -o "$dir/unit.safetensors" --mean 0.5 --std 0.25
    warns "mean 0.5 and std 0.25 are of pixels 0..1.* import it with --mean 127.5 --std 63.75"
    accepts export --model "$dir/unit.safetensors" --onnx "$dir/unit.onnx"
    accepts import "$dir/unit.onnx" -o "$dir/m.safetensors" --mean 127.5 --std 63.75
    grep -aq "mean=127.5,127.5,127.5 std=63.75" "$dir/m.safetensors" || wrong "the unit's numbers stay"
}

test_errors() {
    refuses "cannot be opened" import "$dir/missing.onnx" -o "$dir/m.safetensors"
    echo "no model at all, only text" >"$dir/text.onnx"
    refuses "cannot be read as ONNX" import "$dir/text.onnx" -o "$dir/m.safetensors"
    : >"$dir/empty.onnx"
    refuses "is an empty file, not a .h5" import "$dir/empty.onnx" -o "$dir/m.safetensors"
    refuses "unknown option" export --nonsense
    [ ! -f "$model" ] || refuses "unknown form 'other'; choose qdq or qoperator" export \
        --model "$model" --onnx "$dir/m.onnx" --form other
    [ ! -f "$dir/m.safetensors" ] || wrong "a file was written after an error"
}

if ! grep -q onnx "$BUILD/libs" 2>/dev/null; then
    refuses "libonnx-dev" import "$dir/any.onnx" -o "$dir/m.safetensors"
    echo "left out without protobuf-c and onnx.proto: ONNX"
    [ "$failures" -eq 0 ] && exit 77
    exit 1
fi
find_python
find_ort
: >"$dir/jobs"
: >"$dir/checks"
if [ -n "$ort" ]; then make_images 50; else make_images 4; fi
test_errors
test_cases
test_refused
test_interface
if [ -f "$model" ]; then
    mkdir "$dir/data" # quantize also measures on what it finds as test_batch.bin: little
    head -c $((200 * 3073)) "$train" >"$dir/data/data_batch_1.bin"
    head -c $((4 * 3073)) "$ic200" >"$dir/data/test_batch.bin"
    test_float
    test_others
    test_preprocessing
    test_quantized s8 ort-s8 "$model" ""
    if [ -n "$ort" ]; then
        test_quantized u8 ort-u8 "$model" precise=1
        test_quantized u7 fbgemm "$model" precise=1
        test_quantized channels tflite "$model" ""
    fi
    if [ -n "$ort" ] && [ -n "$python" ]; then
        test_quantized pools tflite "$dir/real_opset9.safetensors" ""
        test_quantized depthwise ort-u8 "$dir/real_nhwc.safetensors" precise=1
    fi
else
    echo "left out without PTQ_SHARED: trained models"
fi
if [ -s "$dir/jobs" ]; then ask_judges; fi
[ "$failures" -eq 0 ]
