# The command-line tool on quantized models, from outside: calibrate, quantize, and eval, run and
# info on what they make. PTQ is its path. The data are few and small, so that the sanitizers are
# done in time; the whole data set is for 'make run'. Without reference weights and images
# (PTQ_SHARED) the project's own stand in: pictures that shapes10 draws and a model trained on such.
. tests/shared/cli.sh
train=$shared/data/cifar-10-batches-bin/data_batch_1.bin
samples=100
count=100 # test images
largest=84400 # bytes of a model of 8 bits
if [ -n "${SAN:-}" ]; then samples=10 count=10; fi

test_usage() {
    for command in calibrate quantize eval run info; do
        accepts $command --help
        prints Example
        refuses "unknown option --nonsense" $command --nonsense
    done
    refuses "o FILE is needed" calibrate
    refuses "unexpected argument" calibrate surplus.json -o "$dir/c.json"
    refuses "at least two" calibrate --merge one.json -o "$dir/c.json"
    refuses "only shows" calibrate --inspect one.json -o "$dir/c.json"
    refuses "missing.json" calibrate --inspect "$dir/missing.json"
    refuses "missing.json" calibrate --merge "$dir/missing.json" "$dir/missing.json" -o "$dir/c.json"
    echo '{"images": nonsense' >"$dir/bad.json"
    refuses "bad.json" calibrate --inspect "$dir/bad.json"
    refuses "OUT is needed" quantize
    refuses "no preset 'nonsense'; there are: best" quantize --preset nonsense --dry-run
    refuses "exclude each other" quantize --per-tensor --per-channel --dry-run
    refuses "2 to 8" quantize --weight-bits 9 --dry-run
    refuses "whole number" quantize --weight-bits 1 --dry-run
    refuses "one scale for the tensor" quantize --weight-affine --dry-run
    refuses "no rule 'nonsense'; there are minmax" quantize --activation-range nonsense --dry-run
    refuses "over 50" quantize --percentile 20 --dry-run
    refuses "goes with" quantize --percentile 99 --activation-range mse --dry-run
    refuses "u8 or s8" quantize --activation-type u9 --dry-run
    refuses "nearest or learned" quantize --rounding up --dry-run
    refuses "no integers" quantize --preset fp16 --weight-bits 4 --dry-run
    refuses "only weights" quantize --preset dynamic --activation-bits 4 --dry-run
    refuses "baseline" eval --flips
    refuses "are needed" run --images x.bin
}

# records FILE FIRST COUNT: the given records of each class, counted from 0.
records() {
    head -c $((600 * 3073)) "$train" | od -An -v -tu1 -w3073 | awk '{ print $1 }' |
        awk -v first="$1" -v count="$2" '
            { k = seen[$1]++ } k >= first && k < first + count { print NR - 1 }' |
        while read -r at; do dd if="$train" bs=3073 skip="$at" count=1 2>/dev/null; done
}

make_data() {
    for part in first second both; do mkdir -p "$dir/$part"; done
    half=$((samples / 20))
    [ $half -gt 0 ] || half=1
    records 0 $half >"$dir/first/data_batch_1.bin"
    records $half $half >"$dir/second/data_batch_1.bin"
    cat "$dir/second/data_batch_1.bin" "$dir/first/data_batch_1.bin" >"$dir/both/data_batch_1.bin"
    half=$((10 * half))
    head -c $((count * 3073)) "$ic200" >"$dir/both/test_batch.bin"
    images=$dir/both/test_batch.bin
}

# Parts merged, in either order, with one thread or two, are the whole.
test_calibrate() {
    accepts calibrate --model "$model" --data "$dir/first" --samples $half -o "$dir/1.json"
    warns "use at least 100"
    accepts calibrate --model "$model" --data "$dir/second" --samples $half -o "$dir/2.json" -t 1
    accepts calibrate --model "$model" --data "$dir/both" --samples $((2 * half)) --threads 2 \
        -o "$dir/c.json"
    accepts calibrate --merge "$dir/1.json" "$dir/2.json" -o "$dir/12.json"
    accepts calibrate --merge "$dir/2.json" "$dir/1.json" -o "$dir/21.json"
    cmp "$dir/12.json" "$dir/c.json" || wrong "merged parts are not the whole"
    cmp "$dir/21.json" "$dir/c.json" || wrong "the order of merging matters"
    accepts calibrate --merge "$dir/1.json" "$dir/1.json" -o "$dir/11.json"
    warns "more than once"
    accepts calibrate --inspect "$dir/c.json"
    prints "block3.add.relu"
    prints "entropy .* clips"
    refuses "" calibrate --model "$model" --data "$dir/both" --samples 9999 -o "$dir/no.json"
    refuses "directory" calibrate --model "$model" --data "$dir/both" -o "$dir"
    refuses "overwritten" calibrate --model "$model" --data "$dir/both" -o "$model"
    cp "$images" "$dir/second/test_batch.bin"
    cp "$images" "$dir/second/data_batch_1.bin"
    # The smallest class of the test images decides how many can be drawn; one of each class can.
    if [ $count -ge 100 ]; then
        refuses "test images were calibrated on" calibrate --model "$model" --data "$dir/second" \
            --samples 10 -o "$dir/no.json"
        refuses "test images were calibrated on" quantize --model "$model" --data "$dir/second" \
            --samples 10 -o "$dir/no.json"
    fi
    [ ! -e "$dir/no.json" ] || wrong "a refused calibration left a file"
}

quantize() {
    out=$1
    shift
    accepts quantize --model "$model" --data "$dir/both" --calibration "$dir/c.json" \
        --samples $((2 * half)) -o "$dir/$out" "$@"
}

test_quantize() {
    quantize best
    prints "agreement [0-9.]* %"
    prints "McNemar"
    [ "$(wc -c <"$dir/best")" -le $largest ] || wrong "the model of preset best is too large"
    accepts quantize --model "$model" --data "$dir/both" --samples $((2 * half)) -o "$dir/again" -t 1
    cmp "$dir/best" "$dir/again" || wrong "calibrating at once gives another model"
    # Another sample than that of the calibration.
    refuses "not calibrated on" quantize --model "$model" --data "$dir/both" --calibration \
        "$dir/1.json" --samples $((2 * half)) -o "$dir/no"
    accepts info "$dir/best"
    prints "all 11 nodes from the pixels to the logits really run on integers"
    prints "self-test: passed"
    prints "accuracy: [0-9]* of $count, float [0-9]*, agree [0-9]*$"
    quantize u8 --preset ort-u8 --no-measure
    prints "not measured"
    quantize w4 --rounding nearest --weight-bits 4 --no-measure
    [ "$(wc -c <"$dir/w4")" -le 50000 ] || wrong "4-bit weights are not packed"
    accepts info "$dir/w4"
    prints "precision: w4a8; all 11 nodes"
    quantize mixed --preset tflite --node 'block3.*=w4a6' --node 'fc=float' --node 'conv?=fp16' \
        --no-measure
    accepts info "$dir/mixed"
    prints "9 of 11 nodes run on integers; not: conv1 (half), fc (float); . conversion"
    quantize choices --no-measure --rounding nearest --per-tensor --weight-affine --weight-range \
        minmax --activation-type s8 --symmetric --percentile 99.9 --activation-bits 7 --code-logits \
        --equalize no --fit-ranges no
    accepts info "$dir/choices"
    prints "w8 per-tensor affine minmax, a7 s8 symmetric percentile 99.9, logits coded"
    accepts quantize --model "$model" --data "$dir/both" --preset dynamic --no-measure -o "$dir/dyn"
    refuses "already" quantize --model "$dir/u8" --data "$dir/both" --samples 10 -o "$dir/no"
    refuses "no node" quantize --model "$model" --data "$dir/both" --node 'stem=w4' -o "$dir/no"
    refuses "no preset" quantize --model "$model" --data "$dir/both" --node 'fc=w9' -o "$dir/no"
    refuses "PATTERN=HOW" quantize --model "$model" --data "$dir/both" --node 'fc' -o "$dir/no"
    for name in "$dir" "$dir/no/such/place" "$dir/$(printf '%0300d' 0)" \
        "$dir/$(printf '%0250d' 0)" ""; do
        refuses "; " quantize --model "$model" --data "$dir/both" -o "$name"
    done
    [ ! -e "$dir/no" ] || wrong "a refused conversion left a file"
}

# Fewer images than the usual thousand: all of them, unless somebody asked for more.
test_few_images() {
    "$BUILD/shapes10" "$dir/few" --train 75 --test 10 >"$dir/out" 2>&1 || wrong "shapes10"
    accepts calibrate --model examples/models/resnet8-shapes10.safetensors --data "$dir/few" \
        -o "$dir/few.json"
    prints "^written .*few.json: 75 images"
    refuses "cannot sample 80 of 75 images" calibrate \
        --model examples/models/resnet8-shapes10.safetensors --data "$dir/few" --samples 80 \
        -o "$dir/few80.json"
}

test_dry_run() {
    accepts quantize --model "$model" --data "$dir/both" --calibration "$dir/c.json" --dry-run \
        -o "$dir/dry" --node 'block?.shortcut=float'
    prints "block2.shortcut  *float"
    prints "inserted"
    prints "dry run"
    [ ! -e "$dir/dry" ] || wrong "a dry run wrote a file"
}

test_eval() {
    accepts eval --model "$dir/best" --baseline "$model" --data "$images" --confusion --flips \
        --layers 2 --calibration "$dir/c.json"
    prints "ptq [a-z0-9]* int8, [0-9,]* bytes"
    prints "(95 % interval"
    prints "block3.conv2 .* %"
    accepts eval --model "$dir/w4" --baseline "$model" --data "$images"
    refuses "calibrated on" eval --model "$dir/best" --data "$dir/both/data_batch_1.bin" \
        --calibration "$dir/c.json"
    LC_ALL=C sed 's/"self_test":"1/"self_test":"2/' "$dir/best" >"$dir/broken"
    refuses "self-test" eval --model "$dir/broken" --data "$images"
    refuses "self-test" run --model "$dir/broken" --images "$images" --logits "$dir/no"
}

test_run() {
    accepts run --model "$dir/u8" --images "$images" --logits "$dir/l.f32" --codes "$dir/l.s32"
    # Logits are the codes less the zero point, times the scale.
    od -An -v -tf4 -w4 "$dir/l.f32" >"$dir/a"
    od -An -v -td4 -w4 "$dir/l.s32" >"$dir/b"
    accepts info "$dir/u8"
    set -- $(awk '$1 == "fc" && $2 ~ /^[us]8$/ { print $3, $4 }' "$dir/out")
    paste "$dir/a" "$dir/b" | awk -v scale="$1" -v zero="$2" '
        { d = $1 - scale * ($2 - zero); if (d < 0) d = -d; if (NF < 2 || !(d <= 1e-4)) bad++ }
        END { exit bad > 0 || NR == 0 }' || wrong "logits are not what their codes stand for"
    accepts run --model "$dir/u8" --images "$images" --logits "$dir/one.f32" --threads 1
    cmp "$dir/l.f32" "$dir/one.f32" || wrong "logits depend on the threads"
    refuses "real numbers" run --model "$dir/best" --images "$images" --codes "$dir/no"
    accepts run --model "$dir/best" --images "$images" --explain block1.conv2,3,4,5 --image 1
    prints "accumulator"
    prints "residual code"
    refuses "NODE,Y,X,C" run --model "$dir/best" --images "$images" --explain conv1
    refuses "no integer" run --model "$dir/best" --images "$images" --explain conv1,0,0,16
    refuses "there is no image" run --model "$dir/best" --images "$images" --explain conv1,0,0,0 \
        --image $count
    accepts run --model "$dir/best" --images "$images" --side-by-side "$model" --image 2
    prints "<- label"
}

test_json() {
    accepts eval --model "$dir/best" --baseline "$model" --data "$images" --layers 1 --json -
    [ "$(head -c 1 "$dir/out")" = "{" ] || wrong "standard output is not JSON alone"
    for key in schema_version '"backend": "ptq [a-z0-9]* int8"' model_path data_dir overall per_class \
        class_name correct accuracy baseline agreement delta_pp interval right_to_wrong mcnemar_p \
        file_bytes sqnr_db "\"total\": $count"; do
        prints "$key"
    done
    accepts calibrate --inspect "$dir/c.json" --json -
    prints '"histogram"'
    accepts info "$dir/best" --json -
    for key in '"zero_point"' '"before_addition"' '"self_test": "passed"' '"computes": "integer"'; do
        prints "$key"
    done
    accepts quantize --model "$model" --data "$dir/both" --calibration "$dir/c.json" --dry-run \
        --json -
    prints '"becomes"'
    accepts quantize --model "$model" --data "$dir/both" --preset fp16 -o "$dir/half" --json -
    prints '"agreement"'
    prints '"file_bytes"'
}

# island NODES: a network with these lines in its middle, trained a little, as $dir/island.
island() {
    printf "ptq-graph 1\ninput input shape=32x32x3\nconv conv2d in=input channels=4 kernel=3x3 stride=4x4\n$1\n" \
        >"$dir/graph"
    accepts train --graph "$dir/graph" --data "$dir/hundred.bin" --epochs 1 --batch 50 -o "$dir/island"
}

# quantizes ARGS: what stays in float is in $dir/floats, a line for each node, whole again.
quantizes() {
    accepts quantize --data "$dir/hundred.bin" --samples 10 --no-measure -o "$dir/island.q" "$@"
    awk 'length > 80 && !/^(model|written|scheme) /' "$dir/out" >"$dir/wide"
    [ ! -s "$dir/wide" ] || wrong "over 80 columns: $(head -n 1 "$dir/wide")"
    awk '/^float /{ printf "%s%s", sep, $0; sep = "\n"; on = 1; next }
         on && /^          /{ sub(/^ +/, " "); printf "%s", $0; next } { on = 0 }
         END { printf "%s", sep }' "$dir/out" >"$dir/floats"
}

# stay COUNT [PATTERN]: so many nodes were named, one of them so.
stay() {
    [ "$(wc -l <"$dir/floats")" -eq "$1" ] || wrong "not $1 nodes: $(cat "$dir/floats")"
    [ $# -eq 1 ] || grep -q "^float     $2" "$dir/floats" || wrong "no '$2'"
}

# What stays in float is named, with the reason and what would help; nothing else is. Advice is not to
# do what was done.
test_floats() {
    head -c $((100 * 3073)) "$train" >"$dir/hundred.bin"
    island "act relu in=conv\nnorm batch_norm in=act epsilon=0.001\nmost max_pool in=norm kernel=2x2
pool global_avg_pool in=most\nfc dense in=pool channels=10\nclass softmax in=fc"
    quantizes --model "$dir/island"
    stay 0
    accepts export --model "$dir/island.q" --c-header "$dir/yes.h" --standalone
    quantizes --model "$dir/island" --node conv=dynamic --node fc=fp16
    stay 2 "conv (conv2d) stays: its scheme says so; leave out the --node that asks for it"
    refuses "node conv (conv2d) computes on real numbers.*without a --node that asks for" \
        export --model "$dir/island.q" --c-header "$dir/no.h" --standalone
    refuses "quantize it by a scheme of fixed ranges" export --model "$dir/island.q" --onnx "$dir/no"
    quantizes --model "$dir/island" --average-bits 6 # which may leave a layer of few weights alone
    ! grep -qv "the search chose so" "$dir/floats" || wrong "$(cat "$dir/floats")"
    island "pool global_avg_pool in=conv\nfc dense in=pool channels=10\nlast relu in=fc"
    quantizes --model "$dir/island"
    stay 0
    refuses "logits with an activation.*quantize with --code-logits" \
        export --model "$dir/island.q" --c-header "$dir/no.h" --standalone
    quantizes --model "$dir/island" --code-logits
    accepts export --model "$dir/island.q" --c-header "$dir/yes.h" --standalone
    for preset in ort-u8 ort-s8 fbgemm tflite minmax8 w4a8 best; do
        quantizes --model "$dir/island" --preset $preset
        stay 0
    done
    quantizes --model "$dir/island" --preset dynamic
    stay 1 "the results between layers, as preset dynamic asks"
}

test_usage
if [ ! -f "$model" ] || [ ! -f "$train" ]; then
    echo "no reference model in $shared: tested with the project's own"
    model=examples/models/resnet8-shapes10.safetensors
    "$BUILD/shapes10" "$dir/shapes" --train 600 --test 200 || wrong "no pictures"
    largest=84700 # it has preprocessing in its metadata
    train=$dir/shapes/data_batch_1.bin
    ic200=$dir/shapes/test_batch.bin
fi
make_data
test_calibrate
test_quantize
test_few_images
test_dry_run
test_floats
test_eval
test_run
if has_library jansson; then test_json; fi
[ $failures -eq 0 ]
