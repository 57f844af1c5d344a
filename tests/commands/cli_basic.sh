# The command-line tool, from outside: help, errors, import, eval, run, bench. PTQ is its path.
# Without reference weights and images (PTQ_SHARED) the project's own stand in: pictures that
# shapes10 draws and a model trained on such.
. tests/shared/cli.sh
keras=$shared/models/resnet8_mlperf.h5
own_model=examples/models/resnet8-shapes10.safetensors
images=$dir/images.bin # the first of ic200: all, or few under the slow sanitizers
count=200
[ -z "${SAN:-}" ] || count=8

test_usage() {
    accepts --help
    prints Example
    prints '^  train  '
    cp "$dir/out" "$dir/usage"
    for words in "" -h help "help help"; do
        accepts $words
        cmp -s "$dir/out" "$dir/usage" || wrong "'ptq $words' does not show the help"
    done
    accepts --version
    for command in $(sed -n 's/^  \([a-z]*\)  .*/\1/p' "$dir/usage"); do
        accepts $command --help
        prints Example
        [ "$(awk 'length > 80' "$dir/out" | wc -l)" -eq 0 ] || wrong "the help of $command is wide"
        cp "$dir/out" "$dir/help"
        for words in "$command -h" "help $command"; do
            accepts $words
            cmp -s "$dir/out" "$dir/help" || wrong "ptq $words"
        done
        misuses "unknown option --nonsense" $command --nonsense
    done
    misuses "unknown subcommand 'xylophone'; see" xylophone
    misuses "unknown subcommand 'evla'; did you mean eval?" evla
    misuses "did you mean quantize?" help quantise
    misuses "unknown option --basline; did you mean --baseline?" eval --basline x
    misuses "unknown option -z" eval -z
    misuses "may be any of --weight-bits, --weight-range" quantize --weight 3
    misuses "takes no value" eval --no-fuse=yes
    misuses "needs a value" eval --model
    misuses "unexpected argument" eval surplus
    misuses "whole number" eval --limit 0
    misuses "whole number" eval --limit 12x
    misuses "whole number" eval --threads 99999999999999999999
    misuses "batch" bench --threads 2
    misuses "are needed" run --images x.bin
    ends_with 1 "no such model" info "$dir/missing.safetensors"
    ends_with 1 "no such" eval --model "$0" --data "$dir/missing"
}

# terminal COLUMNS COMMAND: what it prints on a terminal of that width, line by line.
terminal() {
    TERM=${term:-xterm} script -qc "stty cols $1; $2" /dev/null </dev/null | tr '\r' '\n'
}

# Colour where a terminal has it, nowhere else; progress as words.
test_terminal() {
    command -v script >/dev/null 2>&1 || return 0
    escape=$(printf '\033')
    terminal 80 "'$PTQ' evla" | grep -q "$escape\[31m" || wrong "an error is not red"
    NO_COLOR=1 terminal 80 "'$PTQ' evla" | grep "$escape" && wrong "NO_COLOR is not heeded"
    term=dumb terminal 80 "'$PTQ' evla" | grep "$escape" && wrong "colours on a dumb terminal"
    terminal 80 "'$PTQ' evla | cat" | grep -q "$escape" || wrong "standard error is no terminal"
    terminal 80 "'$PTQ' evla 2>&1 | cat" | grep "$escape" && wrong "colours in a pipe"
    terminal 80 "'$PTQ' eval --model '$own_model' --data '$images' --threads 1" >"$dir/seen"
    grep -q "eval: .* of $count" "$dir/seen" || wrong "no progress on a terminal"
}

test_bad_imports() {
    echo nonsense >"$dir/bad.h5"
    cp "$dir/bad.h5" "$dir/bad.safetensors"
    : >"$dir/empty.h5"
    refuses "" import "$dir/bad.h5" -o "$dir/out.safetensors"
    refuses "" import "$dir/empty.h5" -o "$dir/out.safetensors"
    refuses "" import "$dir/missing.h5" -o "$dir/out.safetensors"
    refuses "" import "$dir/bad.safetensors" -o "$dir/out.safetensors"
    refuses "bad.onnx" import "$dir/bad.onnx" -o "$dir/out.safetensors"
    refuses "must end in" import "$dir/bad.txt" -o "$dir/out.safetensors"
    refuses "are needed" import "$dir/bad.h5"
    [ ! -e "$dir/out.safetensors" ] || wrong "a failed import left a file"
}

# The tensors of a safetensors file, without its header.
tensors() {
    header=$(od -An -tu8 -N8 "$1" | tr -d ' ')
    tail -c +$((header + 9)) "$1"
}

# A file with a hole in the right place may still hold every weight; whatever happens, it is
# answered by a model or by one line.
try_damaged() {
    "$PTQ" import "$1" -o "$dir/damaged.safetensors" >"$dir/out" 2>"$dir/err"
    status=$?
    [ $status -le 1 ] || wrong "exit status $status for $2"
    [ "$(wc -l <"$dir/err")" -eq $status ] || wrong "standard error for $2"
}

test_keras_import() {
    accepts import "$keras" -o "$dir/keras.safetensors"
    prints "assumed: padding tensorflow, epsilon 0.001 (both by the file), pixels 0..255, mean 0, std 1"
    accepts import "$keras" --epsilon 0.25 -o "$dir/epsilon.safetensors"
    prints "padding tensorflow (by the file), epsilon 0.25 (as said)"
    accepts info "$dir/epsilon.safetensors" --graph
    [ "$(grep -c "epsilon=0.25" "$dir/out")" -eq 7 ] || wrong "--epsilon is not heeded"
    accepts import "$model" -o "$dir/same.safetensors"
    tensors "$dir/keras.safetensors" >"$dir/keras.bytes"
    tensors "$dir/same.safetensors" >"$dir/same.bytes"
    cmp "$dir/keras.bytes" "$dir/same.bytes" || wrong "imported weights differ"
    accepts import "$keras" --padding pytorch -o "$dir/padding.safetensors"
    accepts info "$dir/padding.safetensors" --graph
    prints "block3.conv1 conv2d .*stride=2x2 pad=1,1,1,1"
    others=$shared/models/others/keras_cnn.h5
    for option in --epsilon --padding; do
        [ ! -f "$others" ] || refuses "leave out --padding" import "$others" $option 1 -o "$dir/no"
    done
    third=$shared/cases/keras3_names.h5
    if [ -f "$third" ]; then
        accepts import "$third" -o "$dir/third.safetensors"
        cmp "$dir/keras.safetensors" "$dir/third.safetensors" || wrong "Keras 3's names"
    fi
    refuses "" import "$keras" -o "$dir/no/such/place.safetensors"
    size=$(wc -c <"$keras")
    for part in 1 2 4 8 16 32 48 60 63; do
        head -c $((size * part / 64)) "$keras" >"$dir/damaged.h5"
        refuses "" import "$dir/damaged.h5" -o "$dir/damaged.safetensors"
        cp "$keras" "$dir/damaged.h5"
        chmod u+w "$dir/damaged.h5"
        printf 'xxxxxxxx' | dd of="$dir/damaged.h5" bs=1 seek=$((size * part / 640)) conv=notrunc \
            2>/dev/null
        try_damaged "$dir/damaged.h5" "damage at $part/640"
    done
    sed 's/"kernel_size": \[1, 1\]/"kernel_size": [5, 5]/' "$keras" >"$dir/damaged.h5"
    refuses "layer 'conv2d" import "$dir/damaged.h5" -o "$dir/damaged.safetensors"
}

test_model() {
    accepts info "$model"
    prints "block3.conv2"
    prints "^block2.conv1  *conv2d 3x3/2  *16x16x32  *4,640  *18,560  *1,179,648$"
    prints "^total  *[0-9,]*  *[0-9,]*  *[0-9,]*$"
    accepts info "$model" --fuse
    prints "block3.add"
    refuses "scalar" bench --model "$model" --isa nonsense
    PTQ_ISA=nonsense
    export PTQ_ISA
    refuses "scalar" info "$model"
    PTQ_ISA=scalar
    accepts bench --model "$model" --seconds 1 --lines
    prints "^RESULT [a-z0-9_]* thr=1 batch=1 n=[0-9]* median_us=[0-9.]* min_us=[0-9.]*$"
    unset PTQ_ISA
    accepts bench --model "$model" --seconds 1 --batch 2 --threads 2
    prints checksum
    if [ -c /dev/full ]; then
        "$PTQ" info "$model" >/dev/full 2>"$dir/err" && wrong "a full disk goes unnoticed"
    fi
}

test_eval() {
    accepts eval --model "$model" --data "$images" --confusion
    [ "$model" = "$own_model" ] || [ $count -lt 200 ] || prints "171 of 200 right, 85.50 %"
    prints "of $count right"
    prints "^truck"
    accepts eval --model "$model" --data "$images" --baseline "$model" --no-fuse --limit 5
    prints "agreement 100.00 %"
    refuses "" eval --model "$model" --data "$model"
}

test_json() {
    accepts eval --model "$model" --data "$images" --baseline "$model" --limit 5 --json -
    [ "$(head -c 1 "$dir/out")" = "{" ] || wrong "standard output is not JSON alone"
    for key in schema_version backend model_path data_dir overall per_class class_name correct \
        accuracy baseline agreement delta_pp '"total": 5'; do
        prints "$key"
    done
    accepts eval --model "$model" --data "$images" --limit 5 --json "$dir/eval.json"
    prints "of 5 right"
    grep -q '"total": 5' "$dir/eval.json" || wrong "no JSON file"
    accepts info "$model" --fuse --json -
    prints '"arena_bytes"'
    accepts bench --model "$model" --seconds 1 --json -
    prints '"median_us"'
    "$PTQ" eval --model "$model" --data "$images" --json "$dir/no/such/place.json" --limit 1 \
        >"$dir/out" 2>"$dir/err" && wrong "JSON that cannot be written goes unnoticed"
}

# compare ONE OTHER: two files of logits, 1e-3 absolute.
compare() {
    od -An -v -tf4 -w4 "$1" >"$dir/a"
    od -An -v -tf4 -w4 "$2" >"$dir/b"
    paste "$dir/a" "$dir/b" | awk '
        { d = $1 - $2; if (d < 0) d = -d; if (NF < 2 || !(d <= 1e-3)) bad++ }
        END { exit bad > 0 || NR == 0 }' || wrong "logits of $1 are not those of $2"
}

test_run() {
    accepts run --model "$model" --images "$images" --logits "$dir/logits.f32"
    [ "$(wc -c <"$dir/logits.f32")" -eq $((count * 40)) ] || wrong "size of the logits"
    if [ "$model" != "$own_model" ]; then
        head -c $((count * 40)) "$shared/golden/ic200.logits.f32" >"$dir/golden.f32"
        compare "$dir/logits.f32" "$dir/golden.f32"
    fi
    accepts run --model "$model" --images "$images" --logits "$dir/one.f32" --threads 1
    cmp "$dir/logits.f32" "$dir/one.f32" || wrong "logits depend on the threads"
    refuses "" run --model "$model" --images "$dir/missing.bin" --logits "$dir/none.f32"
    [ ! -e "$dir/none.f32" ] || wrong "a failed run left a file"
}

# Only where it is quick: once, without sanitizers.
test_whole_set() {
    accepts eval --model "$model" --data "$shared/data/cifar-10-batches-bin"
    prints "4371 of 5000 right, 87.42 %"
}

# no_place COMMAND ARGS OPTION: what cannot be written is known before anything is read.
no_place() {
    refuses "cannot write to $dir/none: No such file or directory; choose" "$@" "$dir/none/file"
    refuses "$dir/in is a directory; name a file to write" "$@" "$dir/in"
    refuses "the name of the output is empty" "$@" ""
}

# Every command with every option that names an output.
test_outputs() {
    mkdir -p "$dir/in"
    : >"$dir/empty"
    no_place import "$dir/empty" -o
    for output in -o --json; do
        no_place quantize --model "$dir/empty" $output
        no_place sweep --model "$dir/empty" $output
        no_place calibrate --model "$dir/empty" $output
    done
    for command in info eval bench sensitivity; do no_place $command --json; done
    for output in --logits --codes --tensors; do no_place run --model "$dir/empty" $output; done
    for output in --onnx --c-header; do no_place export --model "$dir/empty" $output; done
    for output in -o --png; do no_place report --model "$dir/empty" $output; done
    for output in -o --checkpoint --log; do no_place train $output; done
}

# spares OPTION COMMAND ARGS: the command, which reads $dir/in/model, is refused for that file as
# OPTION's, by each of its names, and for a file of the data; both stay as they are.
spares() {
    option=$1
    shift
    for spelling in in/model.safetensors in/../in//model.safetensors in/symbolic in/hard; do
        refuses "$spelling is read and would be overwritten" "$@" "$option" "$dir/$spelling"
    done
    case " $* " in
    *" --data "*)
        refuses "is read and would be overwritten" "$@" "$option" "$dir/in/data/data_batch_1.bin"
        ;;
    esac
    cmp -s "$own_model" "$dir/in/model.safetensors" || wrong "ptq $* $option lost its input"
    [ "$(cat "$dir/in/data/data_batch_1.bin")" = pixels ] || wrong "ptq $* $option lost its data"
}

# Every command with every option that names an output. The check comes before anything is read, so
# the data need not be images.
test_overwriting() {
    file=$dir/in/model.safetensors
    mkdir -p "$dir/in/data"
    cp "$own_model" "$file"
    echo pixels >"$dir/in/data/data_batch_1.bin"
    ln -s model.safetensors "$dir/in/symbolic"
    ln "$file" "$dir/in/hard"
    data=$dir/in/data
    spares -o import "$file"
    spares --json info "$file"
    for input in --model --baseline --calibration; do spares --json eval $input "$file"; done
    for input in --model --quantized; do spares --json bench $input "$file" --data "$data"; done
    spares --json sensitivity --model "$file" --data "$data"
    for output in -o --json; do
        for input in --model --calibration; do
            spares $output quantize $input "$file" --data "$data"
        done
        spares $output sweep --model "$file" --data "$data"
    done
    spares -o calibrate --model "$file" --data "$data"
    spares -o calibrate --merge "$file" "$file"
    spares --json calibrate --inspect "$file"
    for output in --logits --codes --tensors; do
        for input in --model --images --side-by-side; do spares $output run $input "$file"; done
    done
    for output in --onnx --c-header; do spares $output export --model "$file"; done
    for output in -o --png; do
        for input in --model --baseline; do spares $output report $input "$file"; done
        spares $output report -m "$own_model" -m "$file" --data "$data"
    done
    for output in -o --checkpoint --log; do
        for input in --model --graph --qat; do
            spares $output train $input "$file" --data "$data"
        done
    done
    spares -o import --map "$file" x.safetensors
    spares -o import --graph "$file" x.safetensors
    (
        export PTQ_MODEL="$file" CIFAR10_DIR="$data"
        spares --onnx export
        spares -o quantize
        [ $failures -eq 0 ]
    ) || failures=$((failures + 1))
    refuses "named for two outputs" run --model "$own_model" --images "$own_model" \
        --logits "$dir/same" --codes "$dir/in/../same"
    [ ! -e "$dir/same" ] || wrong "a refused run left a file"
}

test_usage
test_outputs
test_overwriting
test_bad_imports
if [ -f "$model" ]; then
    head -c $((count * 3073)) "$ic200" >"$images"
    if has_library hdf5 && has_library jansson; then test_keras_import; fi
    if [ "$BUILD" = build ]; then test_whole_set; fi
else
    echo "no reference model in $shared: tested with the project's own"
    model=$own_model
    "$BUILD/shapes10" "$dir/shapes" --train 0 --test $count || wrong "no pictures"
    mv "$dir/shapes/test_batch.bin" "$images"
fi
test_model
test_terminal
test_eval
test_run
if has_library jansson; then test_json; fi
[ $failures -eq 0 ]
