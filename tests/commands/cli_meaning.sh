# What ptq says of results in words: the last line, and warnings with what to do. PTQ is the tool's path.
. tests/shared/cli.sh
model=examples/models/resnet8-shapes10.safetensors
"$BUILD/shapes10" "$dir/data" --train 200 --test 200 >"$dir/log" || wrong "no pictures"
mkdir "$dir/train"
cp "$dir/data/data_batch_1.bin" "$dir/train"
data=$dir/data

quiet() {
    ! grep -v "Only [0-9]* images" "$dir/err" || wrong "a warning without need"
}

# last WORDS: the last line, its paragraph joined, says so.
last() {
    awk '/^In short: / { line = $0; next } line { line = line " " $0 } END { print line }' \
        "$dir/out" | grep -q -e "$1" || wrong "the last line does not say '$1'"
}

quantize() {
    accepts quantize --model "$model" --samples 100 -o "$dir/q" "$@"
}

# Eight bits lose nothing that would be worth a warning; three bits with one scale do, and what helps
# comes in the order in which it is worth trying.
test_quantize() {
    quantize --data "$data" --preset minmax8 --margin 5
    last "^In short: on these images it is as good as the float model, to within 5 points\.$"
    quiet
    quantize --data "$data" --preset minmax8 --margin 0.01
    last "are too few to say whether it is as good as the float model; about [0-9,]* would do"
    quantize --data "$data" --weight-bits 3 --per-tensor --rounding nearest
    last "worse than the float model: [0-9.]* points are lost\.$"
    warns "points are lost; what helps, in this order: (1) one scale a channel, --per-channel; (2) .* --preset best; (3) .*ptq sensitivity --model $model.*--node LAYER=w8.*; (4) .*ptq train --model $model --qat $dir/q"
    accepts eval --model "$dir/q" --baseline "$model" --data "$data"
    last "worse than the float model"
    warns "(1) one scale a channel"
    quantize --data "$data" --weight-bits 2 --activation-bits 3 --rounding nearest --no-equalize \
        --no-fit-ranges
    warns "it is right on [0-9]* % of what the float model is right on; the usual causes: .*random, or too few (here 100); a wrong mean and std; the wrong --padding.*'ptq quantize --model $model --preset minmax8' tells them"
    ! grep "per-channel" "$dir/err" || wrong "a remedy that is taken already"
}

# Without test images those that were calibrated on are looked at; --no-measure looks at none.
test_calibration_images() {
    quantize --data "$dir/train" --weight-bits 3 --per-tensor --rounding nearest
    prints "^measured  on 100 of the calibration images"
    warns "points are lost on calibration images"
    last "these images were calibrated on, others may fare worse\.$"
    quantize --data "$dir/train" --weight-bits 3 --per-tensor --rounding nearest --no-measure
    prints "^accuracy  not measured$"
    quiet
}

# A model of other pixels: import has said so, and the later commands say it again.
test_pixels() {
    # Numbers of as many digits, so that the file's header keeps its length.
    LC_ALL=C sed 's/mean=[0-9.]*,[0-9.]*,[0-9.]*/mean=0.5000000,0.5000000,0.5000000/
        s/std=[0-9.]*,[0-9.]*,[0-9.]*/std=0.250000,0.250000,0.250000/' "$model" >"$dir/scaled"
    for command in "quantize --preset minmax8 --samples 100 -o $dir/q" eval; do
        accepts $command --model "$dir/scaled" --data "$data"
        warns "are of pixels 0..1, but they are applied to pixels 0..255; import it again with --mean 127.5 --std 63.75"
    done
    other=examples/models/resnet8-cifar10.safetensors
    accepts eval --model $other --baseline $other --data "$data"
    warns "the float model itself is right on [0-9.]* %, no better than guessing"
}

test_sweep() {
    accepts sweep --model "$model" --data "$data" --presets minmax8 --weight-bits 8,2 --samples 50 \
        --seeds 1 --limit 100 -o "$dir/s.csv"
    last "minmax8 8x8 "
    accepts sweep --model "$model" --data "$data" --presets minmax8 --weight-bits 2 --samples 50 \
        --seeds 1 --limit 100 -o "$dir/t.csv"
    last "all of them lose a point or more; minmax8 2x8 loses least, [0-9.]*\.$"
    warns "every combination loses more than 2 points; add --presets best"
}

test_json() {
    accepts eval --model "$model" --baseline "$model" --data "$data" --margin 5 --json -
    prints '"in_short": "on these images it is as good'
}

test_quantize
test_calibration_images
test_pixels
test_sweep
if has_library jansson; then test_json; fi
[ $failures -eq 0 ]
