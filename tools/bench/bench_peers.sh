#!/bin/sh
# bench_peers.sh BUILD PEERS FLOATMODEL INTMODEL: times other engines on the same network, turn by
# turn with every instruction set of ptq (ROUNDS rounds of SECONDS each), and prints ratios.
build=$1 peers=$2 float=$3 integer=$4
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-1}

give_up() {
    echo "bench-peers: $*" >&2
    exit 1
}

[ -x "$peers/run.sh" ] ||
    give_up "no peers at $peers; set PTQ_SHARED to the directory that has them"
[ -f "$float" ] || give_up "no model; set PTQ_MODEL to a .safetensors file of ResNet8"
[ -f "$integer" ] ||
    give_up "no CIFAR-10 training images to quantize with; 'make data' downloads them"
absolute() {
    echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
}
ptq=$(absolute "$build/ptq")
float=$(absolute "$float")
integer=$(absolute "$integer")
[ -z "$CIFAR10_DIR" ] || export CIFAR10_DIR="$(absolute "$CIFAR10_DIR")"
log=$(absolute "$build/bench_peers.log")
unset PTQ_ISA

isas=$("$ptq" info --cpu | awk '$2 == "yes" { print $1 }')
[ -n "$isas" ] || give_up "'ptq info --cpu' names no instruction set"
OURS="true"
for isa in $isas; do
    for model in "$float" "$integer"; do
        OURS="$OURS; '$ptq' bench --model '$model' --isa $isa --seconds $seconds --lines"
    done
done
export OURS
# Its status says nothing: its last step may need instructions that this processor lacks.
"$peers/run.sh" "$build/peers" "$rounds" "$seconds" >"$log" 2>&1
grep -q '^RESULT' "$log" || give_up "the peers measured nothing; see $log"

echo "microseconds per image, batch 1, one thread, $rounds rounds; load average" \
    "$(cut -d' ' -f1 /proc/loadavg 2>/dev/null)"
awk '
    /^RESULT/ {
        name = $2
        median = min = ""
        for (i = 3; i <= NF; i++) {
            split($i, part, "=")
            if (part[1] == "batch") batch = part[2]
            if (part[1] == "median_us") median = part[2] + 0
            if (part[1] == "min_us") min = part[2] + 0
        }
        if (batch + 0 != 1 || median <= 0) next
        if (!(name in low)) {
            order[++n] = name
            low[name] = median
            least[name] = min
        }
        if (median < low[name]) low[name] = median
        if (min < least[name]) least[name] = min
    }
    function is_integer(name) { return name ~ /int8/ }
    END {
        for (i = 1; i <= n; i++) {
            name = order[i]
            kind = is_integer(name)
            if (name ~ /^ptq_/ && (!(kind in best) || low[name] < low[best[kind]]))
                best[kind] = name
        }
        if (!(0 in best) || !(1 in best)) {
            print "bench-peers: our own lines are missing from the log" > "/dev/stderr"
            exit 1
        }
        printf "%-28s %10s %10s %10s %10s\n", "engine", "median", "min", "/ int8", "/ float"
        for (i = 1; i <= n; i++) {
            name = order[i]
            printf "%-28s %10.1f %10.1f %10.2f %10.2f\n", name, low[name], least[name],
                low[name] / low[best[1]], low[name] / low[best[0]]
        }
        printf "median: the lowest of the rounds; ratios to ours: %s, %s\n", best[1], best[0]
    }' "$log"
