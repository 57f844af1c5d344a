# The tool killed at several moments, on full disks, where nothing can be written. What was there
# before survives, no half of a file is left, and going on gives what an unbroken run gives. PTQ is
# the tool's path. Nothing here depends on the compiler: once is enough.
if [ "$BUILD" != build ]; then
    echo "skipped: runs in build/ only"
    exit 77
fi
. tests/shared/cli.sh

# N records of every class in turn: slopes with a little noise.
records() {
    awk -v n="$1" 'BEGIN {
        srand(1)
        for (i = 0; i < n; i++) {
            line = sprintf("\\0%o", i % 10)
            for (p = 0; p < 3072; p++)
                line = line sprintf("\\0%o", 9 + 2 * (p % 32) + i % 10 * int(p / 200) + int(rand() * 9))
            print line
        }
    }' | while read -r line; do printf '%b' "$line"; done
}

make_inputs() {
    mkdir "$dir/data"
    records 60 >"$dir/data/data_batch_1.bin"
    records 63 | tail -c $((3 * 3073)) >"$dir/data/test_batch.bin"
    cat >"$dir/graph" <<'GRAPH'
ptq-graph 1
input input shape=32x32x3
a conv2d in=input channels=4 kernel=3x3 stride=4x4
r relu in=a
d dense in=r channels=10
GRAPH
    accepts train --data "$dir/data" --graph "$dir/graph" --epochs 1 --batch 20 -o "$dir/m.safetensors"
    accepts quantize --model "$dir/m.safetensors" --data "$dir/data" --samples 50 --preset tflite \
        --no-measure -o "$dir/q.safetensors"
}

# killed SECONDS ARGS: starts the tool and kills it; it may have come to its end before.
killed() {
    seconds=$1
    shift
    "$PTQ" "$@" >"$dir/out" 2>&1 &
    pid=$!
    sleep "$seconds"
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    wait $pid 2>/dev/null
}

same() { # A B WHAT
    cmp -s "$1" "$2" || wrong "$3"
}

test_killed_calibration() {
    set -- calibrate --model "$dir/m.safetensors" --data "$dir/data" --samples 50 -t 1
    accepts "$@" -o "$dir/whole.json"
    for seconds in 0 0.005 0.01 0.015 0.02 0.03 0.04; do
        echo old >"$dir/part.json"
        killed $seconds "$@" -o "$dir/part.json"
        [ "$(cat "$dir/part.json")" = old ] || same "$dir/part.json" "$dir/whole.json" \
            "a calibration killed after $seconds s left half a file"
    done
    accepts "$@" -o "$dir/part.json"
    same "$dir/part.json" "$dir/whole.json" "calibrating again after a kill gives something else"
}

# The file has every row that was finished, and the others come when the sweep is started again.
test_killed_sweep() {
    set -- sweep --model "$dir/m.safetensors" --data "$dir/data" --presets tflite,best --samples 20 \
        --seeds 1,2 --weight-bits 8,5,3 --limit 20 -t 1
    accepts "$@" -o "$dir/whole.csv"
    for seconds in 0.01 0.02 0.03 0.05 0.08 0.1; do
        killed $seconds "$@" -o "$dir/part.csv"
        [ ! -e "$dir/part.csv" ] || head -n "$(wc -l <"$dir/part.csv")" "$dir/whole.csv" |
            cmp -s - "$dir/part.csv" || wrong "a sweep killed after $seconds s left other rows"
    done
    accepts "$@" -o "$dir/part.csv"
    same "$dir/part.csv" "$dir/whole.csv" "a sweep that was killed ends otherwise"
}

test_killed_training() {
    set -- train --data "$dir/data" --graph "$dir/graph" --batch 10 --epochs 12 --holdout 10 --shift 1
    accepts "$@" -o "$dir/whole.safetensors" --log "$dir/whole.log"
    set -- "$@" -o "$dir/part.safetensors" --checkpoint "$dir/ck" --log "$dir/part.log" --resume
    for seconds in 0.005 0.01 0.02 0.03 0.03 0.04; do
        killed $seconds "$@"
    done
    accepts "$@"
    same "$dir/part.safetensors" "$dir/whole.safetensors" "training that was killed ends otherwise"
    same "$dir/part.log" "$dir/whole.log" "training that was killed tells otherwise"
}

# full OUTPUT ARGS: no file may grow, as on a full disk; the tool says so and keeps the old file.
full() {
    output=$1
    shift
    echo old >"$dir/$output"
    : >"$dir/before"
    ls "$dir" | grep -v '^err$' >"$dir/before"
    said=$(
        trap '' XFSZ
        ulimit -f 0
        "$PTQ" "$@" 2>&1 >/dev/null
        echo "status $?"
    )
    echo "$said" | grep -v ": warning: " >"$dir/err"
    [ "$(wc -l <"$dir/err")" -eq 2 ] || wrong "not one line of error on a full disk: ptq $*"
    grep -q "^ptq.*$output.*disk" "$dir/err" || wrong "a full disk is not named: ptq $*"
    [ "$(tail -n 1 "$dir/err")" = "status 1" ] || wrong "a full disk goes unnoticed: ptq $*"
    [ "$(cat "$dir/$output")" = old ] || wrong "a full disk takes the old file: ptq $*"
    ls "$dir" | grep -v '^err$' | cmp -s - "$dir/before" ||
        wrong "something is left on the full disk: ptq $*"
}

test_full_disk() {
    m=$dir/m.safetensors q=$dir/q.safetensors
    rm -f "$dir/err"
    full x.safetensors import "$m" -o "$dir/x.safetensors"
    full x.json calibrate --model "$m" --data "$dir/data" --samples 50 -o "$dir/x.json"
    full x.safetensors quantize --model "$m" --data "$dir/data" --samples 50 --preset tflite \
        --no-measure -o "$dir/x.safetensors"
    rm "$dir/x.safetensors"
    full x.f32 run --model "$q" --images "$dir/data/test_batch.bin" --logits "$dir/x.f32"
    full x.t run --model "$q" --images "$dir/data/test_batch.bin" --tensors "$dir/x.t"
    full x.h export --model "$q" --c-header "$dir/x.h"
    full x.ck train --data "$dir/data" --graph "$dir/graph" --epochs 1 --batch 20 \
        -o "$dir/y.safetensors" --checkpoint "$dir/x.ck"
    full x.html report --model "$q" --baseline "$m" --data "$dir/data" --samples 50 -o "$dir/x.html"
    if has_library jansson; then
        full x.js eval --model "$q" --data "$dir/data" --json "$dir/x.js"
    fi
    if has_library onnx; then full x.onnx export --model "$q" --onnx "$dir/x.onnx"; fi
}

# Devices stay what they are, even for root; a folder without files in it takes none.
test_odd_places() {
    accepts import "$dir/m.safetensors" -o /dev/null
    [ -c /dev/null ] || wrong "a file took the place of /dev/null"
    if [ -c /dev/full ]; then
        refuses "disk" import "$dir/m.safetensors" -o /dev/full
        [ -c /dev/full ] || wrong "a file took the place of /dev/full"
    fi
    if [ -d /proc/self ]; then
        refuses "cannot" import "$dir/m.safetensors" -o /proc/self/x.safetensors
    fi
}

kills=0
make_inputs
test_killed_calibration
test_killed_sweep
test_killed_training
test_full_disk
test_odd_places
echo "$kills kills hit a running tool"
[ $kills -gt 3 ] || wrong "hardly a kill came in time"
[ $failures -eq 0 ]
