# ptq train from outside: a tiny network on tiny data, killed and resumed, quantization-aware
# training of it, and what must be refused. PTQ is the tool's path.
. tests/shared/cli.sh

same() {
    cmp -s "$1" "$2" || wrong "$1 and $2 differ: $3"
}

# N records: class k is a bright patch at a place of its own over noise.
records() {
    awk -v n="$1" 'BEGIN {
        srand(1)
        for (i = 0; i < n; i++) {
            label = i % 10
            line = sprintf("\\0%o", label)
            for (p = 0; p < 3072; p++) {
                value = 64 + int(rand() * 64)
                if (int(p / 96) % 10 == label) value += 100
                line = line sprintf("\\0%o", value)
            }
            print line
        }
    }' | while read -r line; do printf '%b' "$line"; done
}

cat >"$dir/graph" <<'GRAPH'
ptq-graph 1
input input shape=32x32x3
conv conv2d in=input channels=4 kernel=3x3 stride=4x4
bn batch_norm in=conv epsilon=0.001
relu relu in=bn
fc dense in=relu channels=10
softmax softmax in=fc
GRAPH
mkdir "$dir/data"
records 120 >"$dir/data/data_batch_1.bin"
[ "$(wc -c <"$dir/data/data_batch_1.bin")" -eq $((120 * 3073)) ] || wrong "size of the test data"

train() { # OUTPUT OPTIONS
    output=$1
    shift
    set -- train --data "$dir/data" --graph "$dir/graph" --batch 16 --epochs 6 --holdout 20 \
        --rate 0.05 --mirror --shift 1 --cutout 4 --seed 3 -o "$output" "$@"
    accepts "$@"
}

# An unbroken run; another with one thread; one that is killed in the middle and resumed.
train "$dir/a.safetensors" --threads 2 --log "$dir/a.csv"
grep -q "epoch 6 of 6: loss" "$dir/out" || wrong "no progress lines"
[ "$(wc -l <"$dir/a.csv")" -eq 7 ] || wrong "lines of the log"
train "$dir/b.safetensors" --threads 1 --log "$dir/b.csv"
same "$dir/a.safetensors" "$dir/b.safetensors" "threads change the weights"
"$PTQ" train --data "$dir/data" --graph "$dir/graph" --batch 16 --epochs 6 --holdout 20 --rate 0.05 \
    --mirror --shift 1 --cutout 4 --seed 3 -o "$dir/c.safetensors" --checkpoint "$dir/c.ck" \
    --log "$dir/c.csv" >"$dir/out" 2>"$dir/err" &
pid=$!
while [ ! -e "$dir/c.ck" ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
[ -e "$dir/c.ck" ] || wrong "no checkpoint"
train "$dir/c.safetensors" --checkpoint "$dir/c.ck" --resume --log "$dir/c.csv"
same "$dir/a.safetensors" "$dir/c.safetensors" "an interruption changes the weights"
same "$dir/a.csv" "$dir/c.csv" "an interruption changes the log"

# Killed politely in the middle of an epoch, which the checkpoint must tell: EPOCH STEP ..., step
# not 0. The moment is not in our hands, so more than one attempt may be needed.
middle() {
    grep -a -o '"position":"[0-9]* [0-9]*' "$dir/m.ck" 2>/dev/null | grep -q ' [1-9]'
}
train "$dir/l.safetensors" --batch 1 --log "$dir/l.csv"
attempts=0
until middle || [ $attempts -eq 20 ]; do
    attempts=$((attempts + 1))
    rm -f "$dir/m.ck" "$dir/m.csv" "$dir/m.safetensors"
    "$PTQ" train --data "$dir/data" --graph "$dir/graph" --epochs 6 --holdout 20 --rate 0.05 --mirror \
        --shift 1 --cutout 4 --seed 3 --batch 1 -o "$dir/m.safetensors" --checkpoint "$dir/m.ck" \
        --log "$dir/m.csv" >"$dir/out" 2>"$dir/err" &
    pid=$!
    while [ ! -e "$dir/m.csv" ] && kill -0 $pid 2>/dev/null; do sleep 0.001; done
    kill $pid 2>/dev/null
    wait $pid 2>/dev/null
done
middle || wrong "no checkpoint in the middle of an epoch in $attempts attempts"
grep -q "interrupted in epoch .*--resume" "$dir/err" || wrong "what an interrupted run says"
[ ! -e "$dir/m.safetensors" ] || wrong "an interrupted run left a model"
train "$dir/m.safetensors" --batch 1 --checkpoint "$dir/m.ck" --resume --log "$dir/m.csv"
same "$dir/l.safetensors" "$dir/m.safetensors" "an interruption in an epoch changes the weights"
same "$dir/l.csv" "$dir/m.csv" "an interruption in an epoch changes the log"
train "$dir/d.safetensors" --seed 4
cmp -s "$dir/a.safetensors" "$dir/d.safetensors" && wrong "the seed changes nothing"
train "$dir/e.safetensors" --optimizer adamw --average 0 --smoothing 0.1 --rate 0.01

# Weights that grow without bound stop the run at once, and leave nothing behind.
if "$PTQ" train --data "$dir/data" --graph "$dir/graph" --batch 16 --epochs 2 --rate 1000 --decay 1000 \
    --warmup 0 --checkpoint "$dir/x.ck" -o "$dir/x" >"$dir/out" 2>"$dir/err"; then
    wrong "a run that diverged succeeded"
fi
[ "$(wc -l <"$dir/err")" -eq 1 ] || wrong "lines of the error of a run that diverged"
grep -q "epoch 1, step [0-9]*: node [a-z]*: .* not a number any more; use a smaller --rate" "$dir/err" ||
    wrong "what a run that diverged says: $(cat "$dir/err")"
[ ! -e "$dir/x.ck" ] || wrong "a run that diverged left a checkpoint"

# The model is an ordinary one; the quantized model made of it is trained on.
accepts quantize --model "$dir/a.safetensors" --data "$dir/data" --samples 100 --weight-bits 3 \
    --activation-bits 3 --no-measure -o "$dir/q.safetensors"
accepts train --qat "$dir/q.safetensors" --model "$dir/a.safetensors" --data "$dir/data" --batch 16 \
    --epochs 2 --holdout 20 -o "$dir/qat.safetensors"
grep -q "; 20 of 20 held-out answers are the same" "$dir/out" || wrong "integers answer otherwise"
accepts eval --model "$dir/qat.safetensors" --data "$dir/data/data_batch_1.bin"

# Preset best-high learns on from best's codes, the same with one thread and two, killed or not; what
# it writes diverges less from float than best's model on the images held out, or is best's.
before= # exec: in place of the shell, so that a signal reaches it
high() { # OUTPUT OPTIONS...
    $before "$PTQ" quantize --preset best-high --model "$dir/a.safetensors" --data "$dir/data" --samples 120 \
        --weight-bits 2 --activation-bits 3 --no-measure -o "$@" >"$dir/out" 2>"$dir/err"
}
high "$dir/h1.safetensors" --threads 2 --json "$dir/h.json" || wrong "learning on fails"
prints "learned   500 steps at rate .*: KL .* on 24 images held out"
grep -q '"kept": true' "$dir/h.json" || wrong "nothing was learned"
awk -F'[:,]' '/"kl_before"/ { before = $2 } /"kl_after"/ { after = $2 }
    END { exit !(after > 0 && after < before) }' "$dir/h.json" || wrong "the divergence did not fall"
grep -aq "learned on: 500 steps, rate" "$dir/h1.safetensors" || wrong "the model does not say how it was made"
accepts eval --model "$dir/h1.safetensors" --data "$dir/data/data_batch_1.bin"
high "$dir/h2.safetensors" --threads 1 || wrong "learning on fails with one thread"
same "$dir/h1.safetensors" "$dir/h2.safetensors" "threads change what is learned"
(before=exec && high "$dir/h3.safetensors" --checkpoint "$dir/h.ck") &
pid=$!
while [ ! -e "$dir/h.ck" ] && kill -0 $pid 2>/dev/null; do sleep 0.001; done
kill $pid 2>/dev/null
wait $pid 2>/dev/null
[ -e "$dir/h.ck" ] || wrong "no checkpoint of learning on"
high "$dir/h3.safetensors" --checkpoint "$dir/h.ck" --resume || wrong "learning on is not resumed"
same "$dir/h1.safetensors" "$dir/h3.safetensors" "an interruption changes what is learned"
not_high() { # WORDS OPTIONS...
    words=$1
    shift
    refuses "$words" quantize --preset best-high --model "$dir/a.safetensors" --data "$dir/data" \
        --no-measure -o "$dir/x" "$@"
}
not_high "other settings" --checkpoint "$dir/h.ck" --resume --seed 7
not_high "needs --checkpoint" --resume
not_high "is not a number over 0" --minutes 0
not_high "at least 100 calibration images" --samples 99
not_high "belong to --preset best-high" --preset best --minutes 1

refuses "no subcommand\|is needed" train
refuses "must be a number" train -o "$dir/x" --rate fast
refuses "unknown optimizer" train -o "$dir/x" --optimizer adagrad
refuses "no such directory" train -o "$dir/x" --data "$dir/nowhere"
refuses "cannot write\|no such" train -o "$dir/no/such/place/x" --data "$dir/data"
refuses "all 120 images\|too few\|has" train -o "$dir/x" --data "$dir/data" --holdout 120
refuses "needs --model" train -o "$dir/x" --data "$dir/data" --qat "$dir/q.safetensors"
refuses "own graph" train -o "$dir/x" --data "$dir/data" --model "$dir/a.safetensors" --graph "$dir/graph"
refuses "float origin" train -o "$dir/x" --data "$dir/data" --model "$dir/q.safetensors"
refuses "other settings" train -o "$dir/x" --data "$dir/data" --graph "$dir/graph" --resume \
    --checkpoint "$dir/c.ck"

# The preprocessing: the data's own, unless the graph's text or an option says another.
pixels() { # WORDS OPTIONS...
    words=$1
    shift
    accepts train --data "$dir/data" --epochs 1 -o "$dir/p.safetensors" "$@"
    grep -aq "shape=32x32x3 $words" "$dir/p.safetensors" || wrong "no '$words' after $*"
}
sed 's/32x32x3/& mean=1,2,3.5 std=40,50,60/' "$dir/graph" >"$dir/scaled"
pixels "mean=1[0-9][0-9][.0-9]*,1[0-9][0-9]" --graph "$dir/graph"
pixels "mean=1,2,3.5 std=40,50,60" --graph "$dir/scaled"
pixels "mean=7,7,7 std=40,50,60" --graph "$dir/scaled" --mean 7
: >"$dir/empty.bin"
refuses "" train -o "$dir/x" --data "$dir/empty.bin"
head -c 1000 "$dir/c.ck" >"$dir/cut.ck"
refuses "" train -o "$dir/x" --data "$dir/data" --graph "$dir/graph" --resume \
    --checkpoint "$dir/cut.ck"
[ ! -e "$dir/x" ] || wrong "a failed run left a model"
[ $failures -eq 0 ]
