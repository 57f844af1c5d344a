# ptq sensitivity, ptq sweep and the goals of ptq quantize, from outside. PTQ is the tool's path.
# The data are few, so that the sanitizers are done in time. Without reference weights and images
# (PTQ_SHARED) only what needs neither is tested.
. tests/shared/cli.sh
train=$shared/data/cifar-10-batches-bin/data_batch_1.bin
record=3073

test_usage() {
    for command in sensitivity sweep; do
        accepts $command --help
        prints Example
        refuses "unknown option --nonsense" $command --nonsense
    done
    refuses "OUT.csv is needed" sweep
    refuses "not a number from 2 to 8" sweep -o "$dir/s.csv" --weight-bits 8,9
    refuses "empty or too long" sweep -o "$dir/s.csv" --seeds 1,,2
    refuses "no preset 'nonsense'" sweep -o "$dir/s.csv" --presets best,nonsense
    refuses "no range 'nonsense'" sweep -o "$dir/s.csv" --activation-ranges nonsense
    refuses "neither channel nor tensor" sweep -o "$dir/s.csv" --scales layer
    refuses "does not compute on integers" sensitivity --preset fp16
    refuses "leave out --weight-bits" quantize -o "$dir/no" --average-bits 4 --weight-bits 4
    refuses "no bits to choose" quantize -o "$dir/no" --average-bits 4 --preset fp16
    refuses "not a number over 0" quantize -o "$dir/no" --accuracy-drop 0
    refuses "leave out --dry-run" quantize --budget 50000 --dry-run
    refuses "leave out --budget" quantize -o "$dir/no" --budget 50000 --flash 50000
}

# wilson COUNT: the output has rows with an agreement seen on COUNT images, "90.00 %  59.58..98.21", and
# the two numbers are Wilson's, computed here: (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2/4)) / (n + z^2).
wilson() {
    awk -v n="$1" '
        function off(a, b) { return a - b > 0.006 || b - a > 0.006 }
        match($0, /[0-9.]+( %)? +[0-9.]+[.][.][0-9.]+/) {
            split(substr($0, RSTART, RLENGTH), part, /( %)? +/)
            at = index(part[2], "..")
            z = 1.959964; k = int(n * part[1] / 100 + 0.5)
            half = z * sqrt(k * (n - k) / n + z * z / 4)
            rows++
            bad += off(substr(part[2], 1, at - 1), 100 * (k + z * z / 2 - half) / (n + z * z))
            bad += off(substr(part[2], at + 2), 100 * (k + z * z / 2 + half) / (n + z * z))
        }
        END { exit !rows || bad }' "$dir/out" || wrong "intervals of agreement are not Wilson's"
}

# narrow: no line of the table or of an advice is wider than a terminal.
narrow() {
    awk 'length > 80 && !/^(model|written|scheme) /' "$dir/out" >"$dir/wide"
    [ ! -s "$dir/wide" ] || wrong "over 80 columns: $(head -n 1 "$dir/wide")"
}

# 60 training images, of which 20 are calibrated on.
make_data() {
    mkdir "$dir/data"
    head -c $((60 * record)) "$train" >"$dir/data/data_batch_1.bin"
}

# A row that is there is not measured again; a file of something else is refused.
test_sweep() {
    set -- sweep --model "$model" --data "$dir/data" -o "$dir/s.csv" --presets tflite --samples 20 \
        --limit 20 -t 1
    accepts "$@" --seeds 1 --weight-bits 8,4
    prints "tflite    *4x8 channel"
    prints "^measured  the whole network, on training images not calibrated on; agreement"
    wilson 20
    [ "$(wc -l <"$dir/s.csv")" -eq 3 ] || wrong "not two rows"
    sed '2s/,[0-9]*,[0-9]*,[0-9]*$/,7,7,7/' "$dir/s.csv" >"$dir/t.csv"
    cp "$dir/t.csv" "$dir/s.csv"
    accepts "$@" --seeds 1,2 --weight-bits 8,4
    [ "$(wc -l <"$dir/s.csv")" -eq 5 ] || wrong "the sweep did not go on"
    head -n 3 "$dir/s.csv" | cmp - "$dir/t.csv" || wrong "measured again what was there"
    echo "surplus" >>"$dir/s.csv"
    refuses "line 6 is not of a sweep" "$@" --seeds 1
    echo "something,else" >"$dir/s.csv"
    refuses "line 1 is not of a sweep" "$@" --seeds 1
    accepts sweep --model "$model" --data "$dir/data" -o "$dir/v.csv" --presets minmax8 --seeds 1 -t 1
    grep -q ',,30,1,30,' "$dir/v.csv" || wrong "the default is not half of 60 images"
    refuses "cannot sample 61 of 60" sweep --model "$model" --data "$dir/data" -o "$dir/w.csv" \
        --samples 61 --seeds 1
    refuses "no test images" sweep --model "$model" --data "$dir/data" -o "$dir/u.csv" --test
}

# Images that are measured on must not have been calibrated on.
test_overlap() {
    mkdir "$dir/same"
    cp "$dir/data/data_batch_1.bin" "$dir/same"
    cp "$dir/data/data_batch_1.bin" "$dir/same/test_batch.bin"
    set -- --model "$model" --data "$dir/same" --samples 20 -t 1
    refuses "20 of the 60 test images" sweep "$@" --test -o "$dir/no.csv"
    refuses "test images were calibrated on" quantize "$@" --average-bits 4 -o "$dir/no"
    refuses "test images were calibrated on" report -m "$model" -b "$model" --data "$dir/same" \
        --samples 20 -o "$dir/no"
    [ ! -e "$dir/no" ] || wrong "a model was made and measured on what it learned from"
}

# Each switch alone, on few images; the text of the scheme tells what was used.
test_switches() {
    set -- quantize --model "$model" --data "$dir/data" --samples 20 --no-measure -t 1 \
        -o "$dir/switch" --preset tflite --float-logits
    accepts "$@" --weight-bits 4 --bias-correction analytic
    prints "w4 per-channel minmax, a8 s8 minmax; biases: analytic"
    accepts "$@" --weight-bits 4 --bias-correction empirical
    prints "bias-empirical"
    accepts "$@" --activation-bits 4 --fit-ranges yes
    prints "a4 s8 minmax fitted"
    refuses "none, empirical or analytic, not 'both'" "$@" --bias-correction both
    refuses "goes with rounding to nearest" "$@" --rounding learned --bias-correction analytic
}

test_sensitivity() {
    accepts sensitivity --model "$model" --data "$dir/data" --samples 20 --measure 10 \
        --preset ort-s8 --weight-bits 4 -t 1
    prints "block3.conv2 "
    prints "all of them"
    prints "would win back"
    prints "^measured  on 10 of 20 calibration images, ranked by KL"
    narrow
    tr -s '\n ' ' ' <"$dir/out" >"$dir/flat"
    advices=$(grep -o " would win back " "$dir/flat" | wc -l)
    scopes=$(grep -Eo " win back [0-9.]+ \((cost of the layer alone, gain|both) of the network\)" "$dir/flat" | wc -l)
    [ "$advices" -gt 0 ] && [ "$scopes" -eq "$advices" ] ||
        wrong "an advice does not say of what its numbers are"
    wilson 10
    accepts quantize --model "$model" --data "$dir/data" --samples 20 --preset tflite \
        --average-bits 4 --no-measure -o "$dir/mixed" -t 1
    prints "^frontier  of the whole network; agreement with float and Wilson's interval"
    narrow
    wilson 5
    if has_library jansson; then
        accepts quantize --model "$model" --data "$dir/data" --samples 20 --preset tflite \
            --average-bits 4 --no-measure -o "$dir/mixed" -t 1 --json -
        prints '"frontier"'
        prints '"agreement_interval"'
        prints '"met": true'
        prints '"bits":'
    fi
}

# What is chosen for a flash is what the exported header is said to take.
test_flash() {
    set -- quantize --model "$model" --data "$dir/data" --samples 20 --preset tflite --no-measure \
        -t 1
    accepts "$@" --flash 60000 -o "$dir/fits"
    prints "^flash .* of 60000 bytes"
    accepts export --model "$dir/fits" --c-header "$dir/net.h" --standalone --flash 60000
    refuses "no choice of bits fits --flash 20000: .* 'ptq export --small'" "$@" --flash 20000 \
        -o "$dir/none"
    [ ! -e "$dir/none" ] || wrong "a model that does not fit was written"
}

test_usage
if [ -f "$model" ] && [ -f "$train" ]; then
    make_data
    test_sweep
    test_overlap
    test_switches
    if [ -z "${SAN:-}" ]; then
        test_sensitivity
        test_flash
    fi
else
    echo "no reference model in $shared: tested without it"
fi
[ $failures -eq 0 ]
