#!/bin/sh
# bench_web.sh WEB SHARED: times ptq.h in WebAssembly on node, with vector instructions and without,
# and TensorFlow Lite's build for the web turn by turn with it, ROUNDS rounds of IMAGES images (of
# TensorFlow Lite: SECONDS_EACH seconds), and prints ratios. The networks are all ResNet8 of the
# same shape: their weights do not matter to the time. TensorFlow Lite is left out where SHARED has
# no peers/tflite_bench.cjs with its model, or npm cannot get the package.
web=$1 shared=$2
rounds=${ROUNDS:-5} images=${IMAGES:-500} seconds=${SECONDS_EACH:-1}
package=@tensorflow/tfjs-tflite@0.0.1-alpha.10
tflite=$shared/models/resnet8_mlperf_int8.tflite
program=$shared/peers/tflite_bench.cjs
log=$web/bench.log

command -v node >/dev/null 2>&1 || {
    echo "bench-web: node is not installed" >&2
    exit 1
}

# Says why TensorFlow Lite cannot run; nothing if it can. Its program reads a picture from PEER_OUT.
lacks_tflite() {
    if [ ! -f "$program" ] || [ ! -f "$tflite" ]; then
        echo "$shared has no peers/tflite_bench.cjs with models/resnet8_mlperf_int8.tflite"
        return
    fi
    dd if="$web/shapes10/data_batch_1.bin" of="$web/ic01.u8" bs=1 skip=1 count=3072 2>/dev/null
    if [ -d "$web/package/wasm" ]; then return; fi
    (cd "$web" && npm pack --silent $package && tar xzf tensorflow-tfjs-tflite-*.tgz) \
        >/dev/null 2>&1 || echo "npm cannot get $package"
}

why=$(lacks_tflite)
[ -z "$why" ] || echo "TensorFlow Lite is left out: $why"
round() {
    node tools/bench/bench_web.mjs "$web/simd.wasm" ptq_simd "$web" "$images"
    [ "$1" -gt 1 ] || node tools/bench/bench_web.mjs "$web/scalar.wasm" ptq_scalar "$web" "$images"
    [ -n "$why" ] || PEER_OUT=$web BENCH_SECS=$seconds \
        node "$program" "$web/package" "$tflite" tflite_int8 1
}
for i in $(seq "$rounds"); do round "$i"; done >"$log" 2>&1
grep -q '^RESULT ptq_simd_int8' "$log" || {
    echo "bench-web: nothing was measured; see $log" >&2
    exit 1
}

echo "microseconds per image on node $(node --version), one thread, $rounds rounds; load average" \
    "$(cut -d' ' -f1 /proc/loadavg 2>/dev/null)"
awk '
    /^RESULT/ {
        for (i = 3; i <= NF; i++) {
            split($i, part, "=")
            value[part[1]] = part[2] + 0
        }
        if (!($2 in median)) {
            order[++n] = $2
            median[$2] = value["median_us"]
            least[$2] = value["min_us"]
        }
        if (value["median_us"] < median[$2]) median[$2] = value["median_us"]
        if (value["min_us"] < least[$2]) least[$2] = value["min_us"]
    }
    END {
        printf "%-18s %10s %10s %16s\n", "", "median", "min", "/ ptq_simd_int8"
        for (i = 1; i <= n; i++)
            printf "%-18s %10.1f %10.1f %16.2f\n", order[i], median[order[i]], least[order[i]],
                median[order[i]] / median["ptq_simd_int8"]
        print "median: the lowest of the rounds"
    }' "$log"
