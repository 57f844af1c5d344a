# Files of other programs where a model belongs: every option of every command that takes a model says
# what each is, by its content, and how a model is made of it. PTQ is the tool's path.
. tests/shared/cli.sh
own_model=examples/models/resnet8-shapes10.safetensors
kinds=$dir/kinds # "NAME SENTENCE": a file in $dir/foreign and what is said of it

# kind NAME SENTENCE
kind() {
    echo "$*" >>"$kinds"
}

# zip_of MEMBER FILE: what the ends of a ZIP archive say of its one member.
zip_of() {
    printf "PK\003\004%26s%s" "" "$1" >"$2"
    printf "PK\001\002%24s\\$(printf %o ${#1})\\0%16s%s" "" "" "$1" >>"$2"
}

# A field of a protocol buffer: its key, its length, its bytes.
field() {
    printf "\\$(printf %o "$1")\\$(printf %o ${#2})%s" "$2"
}

# The names say nothing, or something wrong: only the content counts.
make_kinds() {
    import="convert it with 'ptq import [^ ]*/NAME -o MODEL.safetensors'"
    mkdir -p "$dir/foreign/saved" "$dir/foreign/directory" "$dir/data"
    head -c $((20 * 3073)) /dev/zero >"$dir/data/test_batch.bin"
    cp "$dir/data/test_batch.bin" "$dir/data/data_batch_1.bin"
    cd "$dir/foreign" || exit 1
    kind directory "a directory, .*; name the model file in it"
    echo graph >saved/saved_model.pb
    kind saved "a TensorFlow SavedModel, .*tf2onnx.convert --saved-model [^ ]*/saved "
    : >empty
    kind empty "an empty file"
    { printf '\010\010' && field 18 pytorch && field 58 graph && field 66 opset; } >onnx
    kind onnx "an ONNX file, .*$import"
    printf '\211HDF\r\n\032\n%99s' "" >hdf5.safetensors
    kind hdf5.safetensors "an HDF5 file, as Keras writes it (.h5), .*$import"
    header='{"bn1.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}'
    printf "\\$(printf %o ${#header})\0\0\0\0\0\0\0%s%8s" "$header" "" >torch.safetensors
    kind torch.safetensors "a PyTorch state dict, .*$import"
    zip_of model.weights.h5 keras
    kind keras "a Keras archive (.keras), .*'ptq import .*keras -o MODEL.safetensors'"
    zip_of archive/data.pkl pth
    kind pth "a PyTorch file (.pth), .*torch.onnx.export.*safetensors.torch.save_file.* 'ptq import'"
    printf '\200\002}q\001.%99s' "" >old.pth
    kind old.pth "a PyTorch file (.pth), .* 'ptq import'"
    printf '\034\0\0\0TFL3%99s' "" >tflite
    kind tflite "a TensorFlow Lite file (.tflite), .*$import"
    zip_of weight.npy npz
    kind npz "an archive of numpy arrays (.npz), .* 'ptq import'"
    printf '\223NUMPY\001\0v\0%99s' "" >npy
    kind npy "a numpy array (.npy)"
    zip_of readme.txt zip
    kind zip "a ZIP archive, .*unpack"
    printf '\037\213\010%99s' "" >gzip
    kind gzip "a compressed file (gzip), .*unpack"
    printf '\211PNG\r\n\032\n%99s' "" >png
    kind png "a picture"
    printf '\377\330\377\340%99s' "" >jpeg
    kind jpeg "a picture"
    printf '{"format": "calibration"}' >json
    kind json "a text in JSON"
    printf 'ptq-graph 1\ninput input shape=8x8x3\n' >graph
    kind graph "the text of a network, .*ptq train --graph [^ ]*/graph --data"
    cd "$OLDPWD" || exit 1
}

# Each option that takes a model, as in --help, and a call in which MODEL stands for its value.
calls="info --model MODEL
export --model MODEL --onnx NEW
export --model MODEL --c-header NEW
calibrate --model MODEL --data DATA -o NEW
quantize --model MODEL --data DATA -o NEW
eval --model MODEL --data DATA
eval --baseline MODEL --model OWN --data DATA
run --model MODEL --images DATA/test_batch.bin --logits NEW
run --side-by-side MODEL --model OWN --images DATA/test_batch.bin
bench --model MODEL
bench --quantized MODEL --table
sweep --model MODEL --data DATA -o NEW
report --model MODEL --baseline OWN --data DATA -o NEW
report --baseline MODEL --model OWN --data DATA -o NEW
train --model MODEL --data DATA -o NEW
train --qat MODEL --model OWN --data DATA -o NEW
sensitivity --model MODEL --data DATA
mistake --model MODEL relu-range --data DATA"

# No option is left out above.
test_options() {
    commands=$("$PTQ" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p')
    [ "$(echo $commands | wc -w)" -ge 13 ] || wrong "ptq --help lists too few commands: $commands"
    for command in $commands; do
        "$PTQ" "$command" --help |
            sed -nE 's/^  .*(--[a-z-]*) (MODEL|QUANTIZED) .*/\1/p' | grep -v output |
            sed "s/^/$command /"
    done | sort -u >"$dir/options"
    echo "$calls" | cut -d " " -f 1,2 | sort -u | diff "$dir/options" - >"$dir/err" ||
        wrong "options that take a model are not those that are tested"
}

# refused SENTENCE NAME CALL
refused() {
    refuses "$dir/foreign/$2 is $1" $(echo "$3" | sed "s, MODEL, $dir/foreign/$2,
        s, OWN, $own_model,; s, NEW, $dir/no.h,; s, DATA, $dir/data,")
}

test_kinds() {
    echo "$calls" >"$dir/calls"
    while read -r name sentence; do
        sentence=$(echo "$sentence" | sed "s,/NAME,/$name,")
        while read -r call; do
            refused "$sentence" "$name" "$call"
        done <"$dir/calls"
        export PTQ_MODEL="$dir/foreign/$name"
        refused "$sentence" "$name" "eval --data DATA"
        unset PTQ_MODEL
    done <"$kinds"
    [ ! -e "$dir/no.h" ] || wrong "a file is left behind"
}

# A model file begins with the length of its header, which may be the first bytes of any other kind.
test_lengths() {
    header=$(od -An -tu8 -N8 "$own_model" | tr -d ' ')
    for first in 200:002 200:005 037:213 120:113 110:104; do
        length=$((0${first#*:} * 256 + 0${first%:*}))
        while [ $length -lt "$header" ]; do length=$((length + 65536)); done
        {
            printf "\\${first%:*}\\${first#*:}\\$(printf %o $((length / 65536)))\0\0\0\0\0"
            tail -c +9 "$own_model" | head -c "$header"
            head -c $((length - header)) /dev/zero | tr '\0' ' '
            tail -c +$((header + 9)) "$own_model"
        } >"$dir/first"
        accepts info "$dir/first"
    done
}

# What real programs write, where the tool has them; and the ending in any case.
test_real() {
    cp "$own_model" "$dir/m.SafeTensors"
    accepts info "$dir/m.SafeTensors"
    accepts run --model "$dir/m.SafeTensors" --images "$dir/data/test_batch.bin" --logits "$dir/l.f32"
    if has_library onnx; then
        accepts export --model "$own_model" --onnx "$dir/real"
        refuses "real is an ONNX file" info "$dir/real"
    fi
    [ ! -f "$shared/models/resnet8_mlperf.h5" ] ||
        refuses "is an HDF5 file" info "$shared/models/resnet8_mlperf.h5"
    [ ! -f "$shared/models/resnet8_mlperf_int8.tflite" ] ||
        refuses "is a TensorFlow Lite file" info "$shared/models/resnet8_mlperf_int8.tflite"
    for file in "$shared"/models/*.onnx "$shared"/models/onnx/*.onnx "$shared"/models/others/*.onnx \
        "$shared"/cases/*.onnx; do
        [ ! -f "$file" ] || refuses "is an ONNX file" info "$file"
    done
    for file in "$shared"/models/*.safetensors examples/models/*.safetensors; do
        [ ! -f "$file" ] || accepts info "$file"
    done
}

make_kinds
test_options
test_kinds
test_lengths
test_real
[ $failures -eq 0 ]
