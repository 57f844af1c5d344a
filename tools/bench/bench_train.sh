#!/bin/sh
# bench_train.sh PTQ SHAPES10 [ROUNDS]: images per second of ptq train and of PyTorch, in turns on
# the same network, batch and threads; the median of each and their ratio. PYTHON names an
# interpreter that has torch; BATCH, THREADS and STEPS are those of bench_train_torch.py.
set -eu

ptq=$1 shapes=$2 rounds=${3:-5}
batch=${BATCH:-128} threads=${THREADS:-2} steps=${STEPS:-30}
here=$(dirname "$0")

for python in "${PYTHON:-}" python3 /usr/bin/python3 ''; do
    [ -n "$python" ] && "$python" -c 'import torch' 2>/dev/null && break
done
if [ -z "$python" ]; then
    echo "bench-train: skipped: no Python with PyTorch (Debian: python3-torch; PYTHON names one)"
    exit 0
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
"$shapes" "$dir/data" --train $((batch * steps)) --test 0 >"$dir/out"

ours() {
    "$ptq" train --data "$dir/data" --epochs 1 --batch "$batch" --threads "$threads" -o "$dir/model" \
        >"$dir/out"
    sed -n 's/^epoch 1 of 1: .* \([0-9]*\) images\/s.*/ptq \1/p' "$dir/out"
}

theirs() {
    "$python" "$here/bench_train_torch.py" "$batch" "$threads" "$steps" |
        sed 's/^\(torch [^ ]* [^ ]*\): \([0-9]*\) images\/s.*/\1 \2/'
}

# NAME ... FIGURE, in the order in which the names first came.
medians() {
    awk '{
        name = $1
        for (i = 2; i < NF; i++) name = name " " $i
        if (!(name in count)) order[++names] = name
        value[name, ++count[name]] = $NF
    }
    function median(name,    i, k, swap, n) {
        n = count[name]
        for (i = 1; i < n; i++)
            for (k = i + 1; k <= n; k++)
                if (value[name, k] < value[name, i]) {
                    swap = value[name, i]; value[name, i] = value[name, k]; value[name, k] = swap
                }
        return (value[name, int((n + 1) / 2)] + value[name, int(n / 2) + 1]) / 2
    }
    END {
        own = median(order[1])
        for (i = 1; i <= names; i++)
            printf "%-32s %6.0f images/s%s\n", order[i], median(order[i]),
                (i > 1 ? sprintf("; ptq train is %.2f times as fast", own / median(order[i])) : "")
    }'
}

echo "ResNet8, batches of $batch, $threads threads, $steps steps; medians of $rounds rounds in turns"
for round in $(seq "$rounds"); do
    ours
    theirs
done >"$dir/figures"
medians <"$dir/figures"
