# ptq info --cpu, ptq bench --table and the script of make bench-peers, from outside. PTQ is the
# tool's path. What is asked is form and checksums, never a time.
. tests/shared/cli.sh
export PTQ_SHARED="$dir/nothing" # random pixels, and weights of the project's own model
table="bench --table --batch 2 --seconds 1"

is_json() {
    command -v python3 >/dev/null 2>&1 || return 0
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$dir/out" 2>"$dir/err" ||
        wrong "the output is not JSON"
}

# Names of the instruction sets that can run here.
available() {
    "$PTQ" info --cpu 2>/dev/null | awk '$2 == "yes" { print $1 }'
}

test_cpu() {
    accepts info --cpu
    prints "^scalar .*self-test passed ([0-9]* ms)"
    [ "$(grep -c chosen "$dir/out")" -eq 1 ] || wrong "not one instruction set is chosen"
    awk '$2 == "no" && NF < 4 { exit 1 }' "$dir/out" || wrong "no reason is given"
    for isa in $(available); do
        PTQ_ISA=$isa
        export PTQ_ISA
        accepts info --cpu
        prints "^$isa .*chosen"
        prints "PTQ_ISA forces $isa"
        unset PTQ_ISA
    done
    refuses "leave out" info --cpu --fuse
    refuses "leave out" info --cpu some.safetensors
    if has_library jansson; then
        accepts info --cpu --json -
        is_json
        for key in schema_version best forced instruction_sets name compiled available chosen \
            self_test self_test_ms; do
            prints "\"$key\""
        done
    fi
}

test_bad_arguments() {
    refuses "leave out" bench --table --threads 2
    refuses "leave out" bench --table --isa scalar
    refuses "leave out" bench --table --lines
    refuses "whole number" bench --table --seconds 0
    refuses "table" bench --quantized some.safetensors
    refuses "no such model" bench --table --model "$dir/missing.safetensors"
    refuses "no such" bench --table --data "$dir/missing"
    PTQ_ISA=abacus
    export PTQ_ISA
    refuses "scalar" bench --table
    refuses "scalar" info --cpu
    unset PTQ_ISA
}

# The fastest alone, twice: by its name, and as JSON.
test_table() {
    PTQ_ISA=$(available | tail -n 1)
    export PTQ_ISA
    accepts $table
    prints "random pixels"
    prints "^int8 *$PTQ_ISA *1 *1 "
    prints "^int8 *$PTQ_ISA *2 *2 .*x$"
    prints "^int8 *$PTQ_ISA  *[0-9]*  [0-9a-f]\{16\}$"
    prints "^int8: all instruction sets.* the same checksum"
    prints "^block3.conv2 *2.359 "
    if has_library jansson; then
        accepts $table --json -
        is_json
        for key in schema_version machine load_average results precision isa checksum median_us \
            min_us lowest_median_us layers gmac_per_second share_of_peak load_plan_session_us \
            speed_up checksums_agree; do
            prints "\"$key\""
        done
    fi
    unset PTQ_ISA
}

# Where there is no model at all, one is made up.
test_no_model() {
    case $PTQ in
    /*) program=$PTQ ;;
    *) program=$PWD/$PTQ ;;
    esac
    PTQ_ISA=$(available | tail -n 1)
    export PTQ_ISA
    (cd "$dir" && "$program" $table) >"$dir/out" 2>"$dir/err" || wrong "the table needs a model"
    prints "random weights"
    unset PTQ_ISA
}

# All instruction sets, where no sanitizer makes the scalar kernels slow.
test_whole_table() {
    accepts $table
    for isa in $(available); do
        grep -q "^int8 *$isa " "$dir/out" || wrong "no line for $isa"
        grep -q "^float32 *$isa " "$dir/out" || wrong "no line for $isa in float"
    done
    [ "$(awk '$1 == "int8" && $NF ~ /^[0-9a-f]+$/ && length($NF) == 16 { print $NF }' "$dir/out" |
        sort -u | wc -l)" -eq 1 ] || wrong "the integer checksums differ"
}

test_peers() {
    sh tools/bench/bench_peers.sh "$BUILD" "$dir/nothing" x y >"$dir/out" 2>"$dir/err" &&
        wrong "missing peers go unnoticed"
    [ "$(wc -l <"$dir/err")" -eq 1 ] || wrong "missing peers are not told in one line"
    grep -q "PTQ_SHARED" "$dir/err" || wrong "missing peers come without a remedy"
}

test_cpu
test_bad_arguments
test_table
test_no_model
if [ "$BUILD" = build ]; then test_whole_table; fi
test_peers
[ $failures -eq 0 ]
