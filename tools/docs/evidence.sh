#!/bin/sh
# evidence.sh PTQ [OPTIONS OF ptq quantize]: what each step of best and best-high adds, as a table in
# Markdown: mean points of accuracy lost, and mean agreement with float, on the test images.
#
#     sh tools/docs/evidence.sh build/ptq --data cifar-10-batches-bin --model net.safetensors
#
# BITS (weights x activations), SEEDS (of the calibration images) and STEPS choose less. With the
# usual ones it takes an hour or two; every figure is printed as soon as it is there.
set -eu

ptq=$1
shift
bits=${BITS:-8x8 4x8 8x4 4x4} seeds=${SEEDS:-42 43 44}
steps=${STEPS:-plain range equalization bias rounding refit fitting best logits}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

# What a step is, on top of the one before: the options that say all of it. The bias is corrected
# where weights are rounded to nearest; learned rounding has that in it.
options() {
    nearest="--weight-range mse --activation-range mse"
    learned="$nearest --equalize yes --rounding learned"
    case $1 in
    plain) echo "--preset minmax8" ;;
    range) echo "--preset minmax8 $nearest" ;;
    equalization) echo "--preset minmax8 $nearest --equalize yes" ;;
    bias) echo "--preset minmax8 $nearest --equalize yes --bias-correction empirical" ;;
    rounding) echo "--preset minmax8 $learned --refit never" ;;
    refit) echo "--preset minmax8 $learned --refit always" ;;
    fitting) echo "--preset minmax8 $learned --refit always --fit-ranges yes" ;;
    best) echo "--preset best" ;;
    logits) echo "--preset best-high" ;;
    *) echo "evidence: no step '$1'" >&2 && exit 1 ;;
    esac
}

# POINTS AGREEMENT of one model.
measure() { # STEP BITS SEED OPTIONS...
    how=$(options "$1") width=$2 seed=$3
    shift 3
    # Options are words.
    # shellcheck disable=SC2086
    "$ptq" quantize "$@" $how --weight-bits "${width%x*}" --activation-bits "${width#*x}" \
        --seed "$seed" -o "$dir/model" --json "$dir/json" >"$dir/out"
    awk -F'[:,]' '/^  "agreement":/ { agreement = $2 } /^  "delta_pp":/ { delta = $2 }
        END { printf "%.6f %.6f\n", -delta, 100 * agreement }' "$dir/json"
}

cell() { # STEP BITS OPTIONS...
    step=$1 width=$2
    shift 2
    for seed in $seeds; do measure "$step" "$width" "$seed" "$@"; done |
        awk '{ points += $1; agreement += $2 }
            END { printf " %.2f, %.2f %% |", points / NR, agreement / NR }'
}

printf '| points lost, agreement |'
for width in $bits; do printf ' %s |' "$width"; done
printf '\n|---|'
for width in $bits; do printf '%s' '---|'; done
printf '\n'
for step in $steps; do
    printf '| %s |' "$step"
    for width in $bits; do cell "$step" "$width" "$@"; done
    printf '\n'
done
