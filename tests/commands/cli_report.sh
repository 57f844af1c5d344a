# ptq report: the page, single figures, and what it refuses.
. tests/shared/cli.sh
train=$shared/data/cifar-10-batches-bin/data_batch_1.bin
samples=100
[ -z "${SAN:-}" ] || samples=10

make_models() {
    mkdir "$dir/data"
    head -c $((3073 * 1000)) "$train" >"$dir/data/data_batch_1.bin"
    head -c $((3073 * 40)) "$ic200" >"$dir/data/test_batch.bin"
    accepts quantize --model "$model" --data "$dir/data" --samples $samples --preset tflite \
        --no-measure -o "$dir/one.safetensors"
    accepts quantize --model "$model" --data "$dir/data" --samples $samples --preset ort-u8 \
        --weight-bits 2 --no-measure -o "$dir/tw<o.safetensors"
    accepts quantize --model "$model" --data "$dir/data" --preset dynamic --no-measure \
        -o "$dir/dynamic.safetensors"
}

report() {
    accepts report -m "$dir/one.safetensors" -m "$dir/tw<o.safetensors" \
        -m "$dir/dynamic.safetensors" -b "$model" --data "$dir/data" --samples $samples "$@"
}

# How often a string stands in the page.
occurs() {
    grep -o -e "$1" "$dir/page.html" | wc -l
}

test_page() {
    report -o "$dir/page.html"
    grep -q "ptq report --advice" "$dir/page.html" || wrong "how to get advice is not said"
    prints "^written .*page.html: 3 models, 40 test images"
    [ "$(occurs "<svg")" -eq "$(occurs "</svg>")" ] || wrong "svg elements do not close"
    [ "$(occurs "<svg")" -gt 40 ] || wrong "only $(occurs "<svg") figures"
    [ "$(occurs "tw&lt;o")" -gt 3 ] || wrong "the second model's name is not escaped"
    # A figure of one model says of which.
    ! grep -q "first model" "$dir/page.html" || wrong "every model is called the first"
    for name in one "tw&lt;o"; do
        grep -q "<figcaption>confusion matrix: $name" "$dir/page.html" ||
            wrong "no confusion matrix of $name"
    done
    [ "$(occurs "tw<o")" -eq 0 ] || wrong "a name breaks the page"
    [ "$(occurs "<script\|https\?://[^w]\|-nan\|nan \|inf ")" -eq 0 ] ||
        wrong "scripts, addresses or numbers that are none"
    # The verdicts agree with ptq eval.
    accepts eval --model "$dir/tw<o.safetensors" --baseline "$model" \
        --data "$dir/data/test_batch.bin"
    right=$(sed -n 's/^accuracy *\([0-9]* of 40\) right.*/\1/p' "$dir/out")
    grep -q "answers $right images right" "$dir/page.html" || wrong "accuracy '$right' is not there"
    mv "$dir/page.html" "$dir/again.html"
    SOURCE_DATE_EPOCH=86400 report -o "$dir/page.html"
    grep -q "<dd>1970-01-02</dd>" "$dir/page.html" || wrong "SOURCE_DATE_EPOCH is not heeded"
    sed 's/<dd>[-0-9]*<\/dd>//' "$dir/page.html" >"$dir/one.html"
    sed 's/<dd>[-0-9]*<\/dd>//' "$dir/again.html" | cmp - "$dir/one.html" ||
        wrong "two pages of the same models differ"
    # How to make it again: command, seed, schemes, hashes.
    grep -q "<code>ptq report -m $dir/one.safetensors -m '$dir/tw&lt;o.safetensors' " "$dir/page.html" ||
        wrong "the command is not there"
    grep -q "drawn with seed 42" "$dir/page.html" || wrong "the seed is not there"
    grep -q "<dt>one</dt><dd>w8 per-channel minmax.*; hash [0-9a-f]\{16\};" "$dir/page.html" ||
        wrong "scheme and hash are not there"
    # What to conclude, beside the figures; how it prints; no small text.
    grep -q "<figcaption>confusion matrix: one\. .* mixed up\|What grew most" "$dir/page.html" ||
        wrong "the confusion matrix says nothing"
    grep -q "Least, in red: " "$dir/page.html" || wrong "the SQNR says nothing"
    grep -q "@media print" "$dir/page.html" || wrong "nothing is said of paper"
    [ "$(sed -n 's/.*font-size:\([0-9.]*\)px.*/\1/p' "$dir/page.html" | sort -n | head -n 1)" -ge 12 ] ||
        wrong "small text"
    [ "$(occurs " by 1 points")" -eq 0 ] || wrong "1 points"
    [ "$(occurs " by 1 point[ ;:]")" -ge 1 ] || wrong "the margin is not said"
}

# What advice says is measured on calibration images, has its interval, and says of what it is.
test_advice() {
    report --advice --margin 2 -o "$dir/page.html"
    [ "$(occurs " by 2 points[ ;:]")" -ge 1 ] || wrong "a margin of 2 is not of points"
    grep -q "of the calibration images against float; .* interval is Wilson's" "$dir/page.html" ||
        wrong "the advice does not say on which images it was measured"
    [ "$(occurs "would win back")" -eq \
        "$(occurs "would win back [0-9.]* ([cb][^)]* of the network)")" ] ||
        wrong "an advice does not say of what its numbers are"
    occurs "<td>[0-9.]* %</td><td>[0-9.]*[.][.][0-9.]*</td>" >"$dir/out"
    [ "$(cat "$dir/out")" -ge 10 ] || wrong "agreements without intervals"
}

test_refusals() {
    refuses "name the quantized model" report -o "$dir/none.html"
    refuses "say where" report -m "$dir/one.safetensors" -b "$model"
    refuses "no-such" report -m "$dir/one.safetensors" -b "$dir/no-such" --data "$dir/data" -o "$dir/none.html"
    refuses "no labelled test images" report -m "$dir/one.safetensors" -b "$model" \
        --data "$dir/alone" -o "$dir/none.html"
    [ ! -e "$dir/none.html" ] || wrong "a failed report left a file"
}

test_png() {
    report --png "$dir/figure.png" --figure histogram --tensor conv1.relu
    [ "$(head -c 4 "$dir/figure.png" | tail -c 3)" = PNG ] || wrong "no PNG"
    refuses "no figure 'pie'" report -m "$dir/one.safetensors" -b "$model" --png "$dir/no.png" \
        --figure pie
    refuses "no tensor 'nowhere'" report -m "$dir/one.safetensors" -b "$model" \
        --data "$dir/data" --samples $samples --png "$dir/no.png" --figure histogram \
        --tensor nowhere
    [ ! -e "$dir/no.png" ] || wrong "a failed report left a file"
}

accepts report --help
prints "histogram "
if [ ! -f "$model" ] || [ ! -f "$train" ]; then
    echo "no reference model in $shared: tested with the project's own"
    model=examples/models/resnet8-shapes10.safetensors
    "$BUILD/shapes10" "$dir/shapes" --train 1000 --test 40 || wrong "no pictures"
    train=$dir/shapes/data_batch_1.bin
    ic200=$dir/shapes/test_batch.bin
fi
make_models
mkdir "$dir/alone"
cp "$dir/data/data_batch_1.bin" "$dir/alone"
test_page
test_advice
test_refusals
# The libraries behind librsvg keep what they allocated until the end, which sanitizers call a leak.
if [ -z "${SAN:-}" ] && has_library librsvg; then test_png; fi
[ $failures -eq 0 ]
