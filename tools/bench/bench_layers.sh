#!/bin/sh
# bench_layers.sh PROGRAM...: layers of ImageNet networks, one image on one thread, in bench_layers
# and, turn by turn with it, in what is named besides, which prints lines of the same form; ROUNDS
# rounds (2) of SECONDS_EACH seconds a layer (0.2). Prints the lowest median of the rounds.
set -eu
ISA=${PTQ_ISA:-}
unset PTQ_ISA
export OMP_NUM_THREADS=1
pin=
command -v taskset >/dev/null && pin='taskset -c 0'
first=$1
for round in $(seq "${ROUNDS:-2}"); do
    for program; do
        isa=
        [ "$program" != "$first" ] || isa=$ISA
        $pin "$program" "${SECONDS_EACH:-0.2}" $isa
    done
done | awk '
    $1 == "LAYER" {
        name = $8
        for (i = 9; i <= NF; i++) name = name " " $i
        at = $2 " " $3 " " name
        if (!(name in seen)) { seen[name] = 1; order[++n] = name }
        if ($2 != "ptq") peer = $2
        if (!(at in low) || $4 < low[at]) { low[at] = $4; rate[at] = $6; share[at] = $7 }
    }
    function one(kind, name,    at, beside) {
        at = "ptq " kind " " name
        beside = peer " " kind " " name
        printf " %10.1f %8.1f %6s", low[at], rate[at],
            (share[at] > 0 ? sprintf("%.0f %%", share[at]) : "")
        if (peer) printf " %10.1f %7.2f", low[beside], low[beside] / low[at]
    }
    END {
        if (!n) { print "bench_layers: nothing was measured" > "/dev/stderr"; exit 1 }
        printf "\nLayers of ImageNet networks; of peak: the multiply-add instruction alone\n"
        extra = peer ? sprintf(" %10s %7s", peer, "ratio") : ""
        printf "%-24s %10s %8s %6s%s %10s %8s %6s%s\n", "microseconds", "int8", "GMAC/s", "peak",
            extra, "float", "GMAC/s", "peak", extra
        for (i = 1; i <= n; i++) {
            printf "%-24s", order[i]
            one("int8", order[i])
            one("float", order[i])
            printf "\n"
        }
    }'
