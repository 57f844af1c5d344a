# Data: shapes10, which draws some, and every form in which the tool reads them. BUILD is the
# directory of the programs. Needs no data and no model from elsewhere.
. tests/shared/cli.sh

# accepts PROGRAM ARGS: exit status 0 and nothing on standard error but warnings.
accepts() {
    "$BUILD/$@" >"$dir/out" 2>"$dir/err" || wrong "exit status $? of $*"
    ! grep -qv ": warning: " "$dir/err" || wrong "standard error of $*"
}

# refuses WORDS PROGRAM ARGS: exit status 1; one line on standard error, besides warnings, begins
# with the program's name and holds WORDS.
refuses() {
    words=$1
    shift
    "$BUILD/$@" >"$dir/out" 2>"$dir/all"
    status=$?
    grep -v ": warning: " "$dir/all" >"$dir/err"
    [ $status -eq 1 ] || wrong "exit status $status of $*"
    [ "$(wc -l <"$dir/err")" -eq 1 ] || wrong "standard error of $* is not one line"
    grep -q -e "^$1[a-z ]*: .*$words" "$dir/err" || wrong "$* does not say '$words'"
}

checksum() {
    cksum <"$1" | cut -d' ' -f1,2
}

# The same bytes everywhere: POSIX's checksum of the first records, which any change would move.
test_shapes10() {
    accepts shapes10 --help
    prints Example
    accepts shapes10 "$dir/shapes" --train 200 --test 40
    [ "$(checksum "$dir/shapes/data_batch_1.bin")" = "4139313565 614600" ] ||
        wrong "training pictures differ: $(checksum "$dir/shapes/data_batch_1.bin")"
    [ "$(checksum "$dir/shapes/test_batch.bin")" = "863622650 122920" ] ||
        wrong "test pictures differ: $(checksum "$dir/shapes/test_batch.bin")"
    [ "$(wc -l <"$dir/shapes/batches.meta.txt")" -eq 10 ] || wrong "names of ten classes"
    # In every ten pictures each class comes once.
    od -An -v -tu1 -w3073 "$dir/shapes/data_batch_1.bin" | awk '
        { n[int((NR - 1) / 10) " " $1]++ }
        END { for (k in n) if (n[k] != 1) bad++; exit bad > 0 || NR != 200 || length(n) != 200 }' ||
        wrong "classes are not balanced"
    accepts shapes10 "$dir/longer" --train 210 --test 0
    cmp -n $((200 * 3073)) "$dir/shapes/data_batch_1.bin" "$dir/longer/data_batch_1.bin" ||
        wrong "a larger set does not begin with the smaller one"
    [ ! -e "$dir/longer/test_batch.bin" ] || wrong "an empty test set"
    accepts shapes10 "$dir/other" --train 10 --test 10 --seed 2
    cmp -s -n 30730 "$dir/shapes/data_batch_1.bin" "$dir/other/data_batch_1.bin" &&
        wrong "the seed changes nothing"
    cmp -s "$dir/other/data_batch_1.bin" "$dir/other/test_batch.bin" &&
        wrong "training and test pictures are the same"
    refuses "holds data already" shapes10 "$dir/shapes"
    refuses "cannot make the directory" shapes10 "$dir/no/such/place"
    refuses "no directory" shapes10
    refuses "no pictures" shapes10 "$dir/none" --train 0 --test 0
    for number in -1 x 1x "" 990001 99999999999999999999999; do
        refuses "whole number" shapes10 "$dir/none" --train "$number"
    done
    refuses "whole number" shapes10 "$dir/none" --test
    refuses "unknown argument" shapes10 "$dir/none" "$dir/more"
    refuses "unknown argument" shapes10 --nonsense
    [ ! -e "$dir/none" ] || wrong "a refused request left a directory"
}

# The tool names the classes that the data have.
test_class_names() {
    accepts ptq eval --help
    "$BUILD/ptq" eval --model examples/models/resnet8-shapes10.safetensors --data "$dir/shapes" \
        --limit 10 >"$dir/out" 2>"$dir/err" || wrong "ptq eval on these data"
    prints "^triangle "
}

# Where no model is named, one is found that knows the classes: none of Shapes-10 for CIFAR-10.
test_model_lookup() {
    accepts ptq eval --data "$dir/shapes" --limit 10
    prints "^model  *examples/models/resnet8-shapes10.safetensors"
    mkdir "$dir/cifar" "$dir/others"
    cp "$dir/shapes/test_batch.bin" "$dir/cifar"
    PTQ_SHARED=$dir "$BUILD/ptq" eval --data "$dir/cifar" --limit 10 >"$dir/out" 2>"$dir/err"
    grep -q "no model here knows the classes\|resnet8-cifar10" "$dir/out" "$dir/err" ||
        wrong "a model for CIFAR-10"
    grep -q "resnet8-shapes10" "$dir/out" && wrong "a model of Shapes-10 for CIFAR-10"
    cp "$dir/shapes/test_batch.bin" "$dir/others"
    sed 's/arrow/apple/' "$dir/shapes/batches.meta.txt" >"$dir/others/batches.meta.txt"
    refuses "no model here knows the classes" ptq eval --data "$dir/others/test_batch.bin"
}

# right: how many the last evaluation counted; its line "accuracy  N of M right".
right() {
    awk '$1 == "accuracy" { print $2 }' "$dir/out"
}

# The stored model, on pictures that it was not trained on: it must know them, keep that in 8 bits,
# and show what carelessness costs: 4 bits with one scale for each tensor, each weight rounded for
# itself.
test_default_model() {
    model=examples/models/resnet8-shapes10.safetensors
    accepts shapes10 "$dir/unseen" --train 200 --test 500 --seed 20
    accepts ptq eval --model "$model" --data "$dir/unseen"
    float=$(right)
    [ "${float:-0}" -ge 440 ] || wrong "the float model has only $float of 500 right"
    "$BUILD/ptq" quantize --model "$model" --data "$dir/unseen" --samples 200 -o "$dir/best" \
        >"$dir/out" 2>"$dir/err" || wrong "quantizing the stored model"
    accepts ptq eval --model "$dir/best" --data "$dir/unseen"
    best=$(right)
    [ "${best:-0}" -ge $((float - 10)) ] || wrong "8 bits: $best of 500 right, float $float"
    "$BUILD/ptq" quantize --model "$model" --data "$dir/unseen" --samples 200 -o "$dir/careless" \
        --per-tensor --weight-bits 4 --rounding nearest --weight-range minmax --no-measure \
        >"$dir/out" 2>"$dir/err" || wrong "quantizing to 4 bits"
    accepts ptq eval --model "$dir/careless" --data "$dir/unseen"
    careless=$(right)
    [ "${careless:-500}" -le $((float - 10)) ] || wrong "4 bits cost nothing: $careless of 500"
}


# ---- Data in every form ----

tool() { # WORDS OF A COMMAND: ptq, whose standard error holds nothing but warnings
    accepts ptq "$@"
}

# The same images in the same order: the same logits, bit for bit, and the same accuracy.
test_forms() {
    mkdir "$dir/forms"
    "$dir/make_data" "$dir/unseen/test_batch.bin" 10 "$dir/forms" || wrong "make_data"
    (
        cd "$dir/forms" || exit 1
        mkdir npy idx folder bin
        ln x.npy npy/x_test.npy
        ln y.npy npy/y_test.npy
        ln x-images-idx3-ubyte idx/t10k-images-idx3-ubyte
        ln x-labels-idx1-ubyte idx/t10k-labels-idx1-ubyte
        cp sorted.bin bin/test_batch.bin
        [ ! -d png ] || mv png folder/test
    )
    tool run --model "$model" --images "$dir/forms/sorted.bin" --logits "$dir/wanted"
    tool eval --model "$model" --data "$dir/forms/sorted.bin"
    grep "^accuracy" "$dir/out" >"$dir/accuracy"
    forms="bin npy idx stored.npz x-images-idx3-ubyte"
    ! has_library zlib || forms="$forms packed.npz"
    ! has_library stb || forms="$forms folder"
    for form in $forms; do
        tool run --model "$model" --images "$dir/forms/$form" --logits "$dir/logits"
        cmp "$dir/wanted" "$dir/logits" || wrong "the logits of $form differ"
        tool eval --model "$model" --data "$dir/forms/$form"
        grep "^accuracy" "$dir/out" | cmp - "$dir/accuracy" || wrong "the accuracy of $form"
    done
    for labels in y.npy x-labels-idx1-ubyte; do
        tool eval --model "$model" --data "$dir/forms/x.npy" --labels "$dir/forms/$labels"
        grep "^accuracy" "$dir/out" | cmp - "$dir/accuracy" || wrong "the accuracy with $labels"
    done
    if has_library zlib; then
        tool run --model "$model" --images "$dir/forms/gz/x-images-idx3-ubyte.gz" \
            --logits "$dir/logits"
        cmp "$dir/wanted" "$dir/logits" || wrong "the logits of a .gz file differ"
    fi
    tool run --model "$model" --images "$dir/forms/x.npy" --logits "$dir/logits.npy"
    tail -c +129 "$dir/logits.npy" | cmp - "$dir/wanted" || wrong "logits as .npy"
    head -c 128 "$dir/logits.npy" | grep -q "'<f4', 'fortran_order': False, 'shape': (500, 10)" ||
        wrong "the header of logits as .npy"
}

# A part of a file, and of its labels.
test_parts() {
    set -- --model "$model" --images "$dir/forms/x.npy"
    tool run "$@" --skip 100 --limit 7 --logits "$dir/logits"
    tail -c +4001 "$dir/wanted" | head -c 280 | cmp - "$dir/logits" || wrong "a part of the items"
    set -- --model "$model" --data "$dir/forms/x.npy" --labels "$dir/forms/y.npy"
    tool eval "$@" --skip 490 # the last class has fifty, and nothing else is left
    prints " of 10 right"
    prints "^9  *[0-9]*  *10 "
    refuses "leaves none" ptq eval "$@" --skip 500
    refuses "there is no image 3" ptq run --model "$model" --images "$dir/forms/x.npy" --limit 3 \
        --image 3 --explain conv1,0,0,0
}

# What needs no labels takes data without.
test_unlabelled() {
    x=$dir/forms/x.npy
    tool calibrate --model "$model" --data "$x" --samples 100 -o "$dir/c.json"
    tool quantize --model "$model" --data "$x" --samples 100 --preset tflite -o "$dir/q"
    prints "not measured: there are no test images with labels"
    tool sensitivity --model "$model" --data "$x" --samples 20 --measure 10
    tool bench --model "$model" --data "$x" --seconds 1
    prints "^images  *200$"
    tool run --model "$dir/q" --images "$x" --side-by-side "$model"
    tool run --model "$dir/q" --images "$x" --explain conv1,0,0,0
    refuses "no labels to compare with" ptq eval --model "$model" --data "$x"
    refuses "no labels to learn" ptq train --data "$x" -o "$dir/no"
    refuses "that names one .npy" ptq eval --model "$model" --data "$dir/unseen" --labels "$x"
    refuses "give that too" ptq calibrate --model "$model" --labels "$x" -o "$dir/no"
}

# Both parts of an archive, through commands that need training and test images.
test_chain() {
    set -- --data "$dir/forms/stored.npz" --samples 100 -t 1
    refuses "500 of the 500 test images were calibrated on" ptq report -m "$dir/q" -b "$model" \
        --data "$dir/forms/stored.npz" -o "$dir/no"
    mkdir "$dir/split"
    for part in train test; do
        number=$(($(echo $part | wc -c) - 5)) # 1 and 0
        [ $number = 1 ] && file=$dir/unseen/data_batch_1.bin || file=$dir/unseen/test_batch.bin
        mkdir "$dir/made"
        "$dir/make_data" "$file" 10 "$dir/made" || wrong "make_data"
        mv "$dir/made/x.npy" "$dir/split/x_$part.npy"
        mv "$dir/made/y.npy" "$dir/split/y_$part.npy"
        rm -rf "$dir/made"
    done
    set -- --data "$dir/split"
    tool quantize --model "$model" "$@" --samples 100 --preset tflite -o "$dir/q"
    prints "^accuracy  [0-9]* of 500"
    tool report -m "$dir/q" -b "$model" "$@" --samples 100 --limit 50 -o "$dir/page"
    tool sweep --model "$model" "$@" --presets tflite --samples 50 --seeds 1 --limit 40 \
        -o "$dir/sweep.csv"
    tool train "$@" --epochs 1 --batch 32 -o "$dir/trained"
    tool eval --model "$dir/trained" "$@"
    tool mistake few-images --model "$model" "$@" --samples 20 --limit 20
}

# 25 classes: whether the right one is among the first five, counted again from the logits.
test_top_five() {
    awk 'BEGIN { for (i = 0; i < 500; i++) printf "\\%03o", i % 25 }' >"$dir/escapes"
    # shellcheck disable=SC2059
    printf "$(cat "$dir/escapes")" | npy "$dir/y25.npy" "(500,)" "|u1"
    set -- --data "$dir/forms/x.npy" --labels "$dir/y25.npy"
    tool train "$@" --epochs 2 --batch 32 --rate 0.02 -o "$dir/m25"
    tool run --model "$dir/m25" --images "$dir/forms/x.npy" --logits "$dir/logits"
    five=$(od -An -v -tf4 -w100 "$dir/logits" | awk '{
        label = (NR - 1) % 25 + 1
        before = 0
        for (c = 1; c <= 25; c++) before += $c > $label || ($c == $label && c < label)
        five += before < 5
    } END { print five }')
    tool eval --model "$dir/m25" "$@"
    prints "$five of 500 have the right one among the first five"
    [ "$five" -gt 60 ] && [ "$five" -lt 440 ] || wrong "top five counts $five, which tells nothing"
    if has_library jansson; then
        tool eval --model "$dir/m25" "$@" --json -
        tr -d ' \n' <"$dir/out" >"$dir/json"
        grep -q "\"top5_correct\":$five,\"top5_accuracy\":0\." "$dir/json" || wrong "top5 in JSON"
        tool eval --model "$model" --data "$dir/unseen" --json -
        ! grep -q top5 "$dir/out" || wrong "top5 of ten classes"
    fi
}

# features: 120 items of 6 x 5 real numbers, in three classes that a ramp tells apart.
write_features() {
    awk 'BEGIN { for (i = 0; i < 120; i++) printf "%c", 65 + i % 3 }' | tr 'ABC' '\000\001\002' |
        npy "$dir/fy.npy" "(120,)" "|u1"
    # float32 from 0.5 to 2 by its upper bytes: 0x3f00 + steps.
    awk 'BEGIN { for (i = 0; i < 120; i++) for (y = 0; y < 6; y++) for (x = 0; x < 5; x++)
        printf "%c%c%c%c", 65, 66 + i % 7,
            48 + (i % 3 == 0 ? y * 8 : i % 3 == 1 ? x * 8 : 20) + i % 5, 63 }' | npy "$dir/fx.npy" "(120, 6, 5)" "<f4"
}

# Real numbers, from training to code for a microcontroller, which takes the codes of the input.
test_features() {
    write_features
    set -- --data "$dir/fx.npy" --labels "$dir/fy.npy"
    tool train "$@" --limit 90 --epochs 8 --batch 15 --rate 0.02 -o "$dir/f"
    tool info "$dir/f"
    prints "6x5x1"
    tool quantize --model "$dir/f" "$@" --limit 90 --preset tflite -o "$dir/f8"
    tool eval --model "$dir/f8" --baseline "$dir/f" "$@" --skip 90
    prints " of 30 right"
    tool run --model "$dir/f8" --images "$dir/fx.npy" --logits "$dir/wanted"
    tool run --model "$dir/f8" --images "$dir/fx.npy" --tensors "$dir/tensors"
    tool sensitivity --model "$dir/f" --data "$dir/fx.npy" --samples 40 --measure 20
    tool bench --model "$dir/f8" --seconds 1
    prints "random numbers"
    mkdir "$dir/fd"
    for part in train test; do
        cp "$dir/fx.npy" "$dir/fd/x_$part.npy"
        cp "$dir/fy.npy" "$dir/fd/y_$part.npy"
    done
    # The last bytes of the test items, so that they are not those that were calibrated on.
    printf '\000\000\300\177' | dd of="$dir/fd/x_test.npy" bs=1 conv=notrunc \
        seek=$(($(wc -c <"$dir/fd/x_test.npy") - 4)) 2>/dev/null
    refuses "x_test.npy: item 119 has NaN" ptq eval --model "$dir/f8" --data "$dir/fd"
    tool export --model "$dir/f8" --c-header "$dir/net.h" --standalone
    cat >"$dir/driver.c" <<'END'
#include <math.h>
#include <stdio.h>
#define NET_IMPLEMENTATION
#include "net.h"
int main(void)
{
    const float mean[] = NET_INPUT_MEAN, std[] = NET_INPUT_STD;
    float x, logits[NET_CLASSES];
    uint8_t codes[NET_PIXELS];
    int i = 0;
    while (fread(&x, 4, 1, stdin) == 1) {
        float y = (x - mean[0]) / std[0], code = rintf(y / NET_INPUT_SCALE) + NET_INPUT_ZERO_POINT;
        code = code < NET_INPUT_LOW ? NET_INPUT_LOW : code > NET_INPUT_HIGH ? NET_INPUT_HIGH : code;
        codes[i++] = (uint8_t)(int)code;
        if (i == NET_PIXELS) {
            net_run(codes, logits);
            fwrite(logits, 4, NET_CLASSES, stdout);
            i = 0;
        }
    }
    return 0;
}
END
    head=$(($(wc -c <"$dir/fx.npy") - 120 * 120))
    if ${CC:-cc} -std=c99 -O1 -ffp-contract=off "$dir/driver.c" -lm -o "$dir/driver"; then
        tail -c +$((head + 1)) "$dir/fx.npy" | "$dir/driver" >"$dir/logits"
        cmp "$dir/logits" "$dir/wanted" || wrong "the standalone header from real numbers"
    else
        wrong "the standalone header does not compile"
    fi
}

# Bad data are named, with what would do.
test_bad_arrays() {
    head -c 100000 "$dir/forms/x.npy" >"$dir/cut.npy"
    refuses "cut.npy is cut off" ptq run --model "$model" --images "$dir/cut.npy" --logits "$dir/no"
    refuses "holds 500 labels for 20 items" ptq eval --model "$model" \
        --data "$dir/few.npy" --labels "$dir/forms/y.npy"
    refuses "20 has label 99; the model has 10 classes" ptq eval --model "$model" \
        --data "$dir/forms/x.npy" --labels "$dir/high.npy"
    refuses "items are 32x32x1, the model takes 32x32x3" ptq run --model "$model" \
        --images "$dir/grey.npy" --logits "$dir/no"
    refuses "C x H x W, 3x32x32; save them as H x W x C" ptq run --model "$model" \
        --images "$dir/planes.npy" --logits "$dir/no"
    refuses "item 1 has NaN" ptq run --model "$model" --images "$dir/nan.npy" --logits "$dir/no"
    head -c 200000 "$dir/forms/stored.npz" >"$dir/cut.npz"
    refuses "no list of members" ptq run --model "$model" --images "$dir/cut.npz" --logits "$dir/no"
    mkdir "$dir/empty"
    refuses "no test_batch.bin there, and no other data" ptq eval --model "$model" \
        --data "$dir/empty"
    [ ! -e "$dir/no" ] || wrong "a refused run left a file"
}

# npy FILE SHAPE TYPE: the header; elements come from standard input.
npy() {
    header="{'descr': '$3', 'fortran_order': False, 'shape': $2, }"
    {
        printf '\223NUMPY\001\000'
        printf "\\$(printf %03o $((${#header} % 256)))\\$(printf %03o $((${#header} / 256)))"
        printf '%s' "$header"
        cat
    } >"$1"
}

make_bad_arrays() {
    head -c 61440 /dev/zero | npy "$dir/few.npy" "(20, 32, 32, 3)" "|u1"
    head -c 1024 /dev/zero | npy "$dir/grey.npy" "(1, 32, 32, 1)" "|u1"
    head -c 3072 /dev/zero | npy "$dir/planes.npy" "(1, 3, 32, 32)" "|u1"
    { head -c 20 /dev/zero; printf c; head -c 479 /dev/zero; } |
        npy "$dir/high.npy" "(500,)" "|u1"
    { head -c 12300 /dev/zero; printf '\000\000\300\177'; head -c 12272 /dev/zero; } |
        npy "$dir/nan.npy" "(2, 32, 32, 3)" "<f4"
}

# ---- Pictures ----

# Three classes in train/ and test/, as JPEG; names tell the classes, in whatever order.
test_pictures() {
    mkdir "$dir/mine" "$dir/mine.train" "$dir/mine.test"
    "$dir/make_data" "$dir/unseen/data_batch_1.bin" 3 "$dir/mine.train" || wrong "make_data"
    "$dir/make_data" "$dir/unseen/test_batch.bin" 3 "$dir/mine.test" || wrong "make_data"
    mv "$dir/mine.train/jpeg" "$dir/mine/train"
    mv "$dir/mine.test/jpeg" "$dir/mine/test"
    set -- --data "$dir/mine"
    tool train "$@" --epochs 2 --batch 16 --holdout 6 -o "$dir/three"
    tool quantize --model "$dir/three" "$@" --preset tflite -o "$dir/three8"
    prints "^accuracy  [0-9]* of 150"
    tool eval --model "$dir/three8" --baseline "$dir/three" "$@" --confusion
    prints "^c2 "
    tool report -m "$dir/three8" -b "$dir/three" "$@" -o "$dir/page.html"
    grep -q ">c1<" "$dir/page.html" || wrong "no names of classes in the report"
    one=$(ls "$dir"/mine/test/c1/*.jpg | head -n 1)
    tool run --model "$dir/three8" --images "$one" --logits "$dir/one.npy"
    prints "^written .*: 1 images x 3 logits"
    refuses "is read and would be overwritten" ptq report -m "$dir/three8" -b "$dir/three" "$@" \
        --png "$dir/mine/test/../test/c1/$(basename "$one")"
    [ -s "$one" ] || wrong "a picture was overwritten"
}

# tensor_of FILE TENSOR: its bytes in a safetensors file; bytes_of: their checksum.
bytes_of() {
    tensor_of "$@" | cksum
}
tensor_of() {
    head=$(od -An -tu4 -N4 "$1" | tr -d ' ')
    # shellcheck disable=SC2046
    set -- "$1" $(tail -c +9 "$1" | head -c "$head" | tr -d '\000' |
        sed -n "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),\([0-9]*\)\].*/\1 \2/p")
    tail -c +$((9 + head + $2)) "$1" | head -c $(($3 - $2))
}

# Another number of classes: the body stays, and is trained on or not; the last layer is new.
test_transfer() {
    set -- --model "$model" --data "$dir/mine" --epochs 1 --batch 16
    tool train "$@" --freeze -o "$dir/frozen"
    prints "new head  3 classes in place of 10"
    [ "$(bytes_of "$dir/frozen" conv1.weight)" = "$(bytes_of "$model" conv1.weight)" ] ||
        wrong "a frozen layer was trained"
    [ "$(bytes_of "$dir/frozen" bn1.running_mean)" = "$(bytes_of "$model" bn1.running_mean)" ] ||
        wrong "the statistics of a frozen layer moved"
    tool train "$@" -o "$dir/tuned"
    [ "$(bytes_of "$dir/tuned" conv1.weight)" != "$(bytes_of "$model" conv1.weight)" ] ||
        wrong "the body was not trained"
    tool eval --model "$dir/frozen" --data "$dir/mine"
    prints "^c1 "
    tool train --model "$dir/three" --data "$dir/mine" --epochs 1 --batch 16 -o "$dir/more"
    ! grep -q "new head" "$dir/out" || wrong "a new head for the same classes"
    tool train --model "$dir/three" --data "$dir/mine" --epochs 1 --new-head -o "$dir/more"
    prints "new head  3 classes in place of 3"
    refuses "give one, without --qat" ptq train --data "$dir/mine" --freeze -o "$dir/no"
}

# A model that has names takes labels by them: of two classes, in whatever order.
test_names() {
    mkdir -p "$dir/two/test"
    cp -r "$dir/mine/test/c2" "$dir/mine/test/c1" "$dir/two/test"
    tool eval --model "$dir/three" --data "$dir/mine"
    grep "^c[12] " "$dir/out" >"$dir/lines"
    tool eval --model "$dir/three" --data "$dir/two"
    grep "^c[12] " "$dir/out" | cmp - "$dir/lines" || wrong "classes are not told by their names"
    prints "^c0  *0  *0 "
    tool run --model "$dir/three" --images "$dir/two" --limit 2 --top 2
    grep -q "^1  c[0-2] [0-9.]* %  c[0-2] [0-9.]* %$" "$dir/out" || wrong "the names of answers"
    mv "$dir/two/test/c2" "$dir/two/test/c3"
    refuses "the class c3 is none of the model's 3, c0 to c2" ptq eval --model "$dir/three" \
        --data "$dir/two"
}

# A camera that was held upright says so: 6, the picture is to be turned to the right; 3, it is upside
# down.
test_orientation() {
    tool run --model "$dir/three" --images "$one" --tensors "$dir/t"
    tensor_of "$dir/t" input | od -An -v -tf4 -w12 >"$dir/lying"
    for mark in 6 3; do
        {
            head -c 2 "$one"
            printf '\377\341\000\042Exif\000\000MM\000\052\000\000\000\010\000\001'
            printf '\001\022\000\003\000\000\000\001\000'"\\00$mark"'\000\000\000\000\000\000'
            tail -c +3 "$one"
        } >"$dir/marked.jpg"
        tool run --model "$dir/three" --images "$dir/marked.jpg" --tensors "$dir/t"
        awk -v mark=$mark '{ pixel[NR - 1] = $0 } END {
            for (y = 0; y < 32; y++)
                for (x = 0; x < 32; x++)
                    print pixel[mark == 6 ? (31 - x) * 32 + y : (31 - y) * 32 + 31 - x]
        }' "$dir/lying" >"$dir/upright"
        tensor_of "$dir/t" input | od -An -v -tf4 -w12 | cmp - "$dir/upright" ||
            wrong "orientation $mark is not obeyed"
    done
}

# Crop or stretch is kept with the model: of a wide picture, black at the left and white at the
# right, one sees the middle, the other all.
test_resize() {
    mkdir -p "$dir/wide/train/a" "$dir/wide/train/b"
    for class in a b; do
        {
            printf 'P6\n64 32\n255\n'
            y=0
            while [ $y -lt 32 ]; do
                head -c 96 /dev/zero
                head -c 96 /dev/zero | tr '\000' '\377'
                y=$((y + 1))
            done
        } >"$dir/wide/train/$class/1.ppm"
    done
    for rule in crop stretch; do
        tool train --data "$dir/wide" --epochs 1 --resize $rule --mean 0 --std 1 -o "$dir/$rule"
        tool run --model "$dir/$rule" --images "$dir/wide/train/a/1.ppm" --tensors "$dir/t.$rule"
        # Both rules end in one black and one white half of 32 pixels.
        [ "$(bytes_of "$dir/t.$rule" input)" = "$(bytes_of "$dir/t.crop" input)" ] ||
            wrong "the picture by $rule"
    done
    {
        printf 'P6\n128 32\n255\n'
        y=0
        while [ $y -lt 32 ]; do # black in the middle half
            head -c 96 /dev/zero | tr '\000' '\377'
            head -c 192 /dev/zero
            head -c 96 /dev/zero | tr '\000' '\377'
            y=$((y + 1))
        done
    } >"$dir/wide.ppm"
    for rule in crop stretch; do
        tool run --model "$dir/$rule" --images "$dir/wide.ppm" --tensors "$dir/t.$rule"
    done
    [ "$(bytes_of "$dir/t.crop" input)" = "$(head -c 12288 /dev/zero | cksum)" ] ||
        wrong "the middle is not black"
    [ "$(bytes_of "$dir/t.stretch" input)" != "$(bytes_of "$dir/t.crop" input)" ] ||
        wrong "a squeezed picture is cut"
    refuses "crop or stretch" ptq train --data "$dir/wide" --resize fit -o "$dir/no"
}

# MNIST's shape, and a hundred classes in CIFAR-100's form.
make_others() {
    mkdir "$dir/mnist" "$dir/hundred"
    for part in train t10k; do
        {
            printf '\000\000\010\003\000\000\000\310\000\000\000\034\000\000\000\034'
            awk -v part=$part 'BEGIN { for (i = 0; i < 156800; i++) {
                row = (1 + (part == "train")) * int(i / 28) % 20
                printf "%c", 64 + row + i % 28 + int(i / 784) % 7
            } }'
        } >"$dir/mnist/$part-images-idx3-ubyte"
        {
            printf '\000\000\010\001\000\000\000\310'
            awk 'BEGIN { for (i = 0; i < 20; i++) printf "0123456789" }' | tr '0-9' '\000-\011'
        } >"$dir/mnist/$part-labels-idx1-ubyte"
    done
    for part in train test; do
        # Coarse label, fine label 32 + i % 60, pixels.
        awk -v part=$part 'BEGIN { for (i = 0; i < 120; i++) {
            printf "%c%c", 65, 32 + i % 60
            for (p = 0; p < 3072; p++) {
                row = (1 + (part == "train")) * int(p / 32) % 16
                printf "%c", 64 + row + p % 32 + i % 11
            }
        } }' >"$dir/hundred/$part.bin"
    done
}

# Networks for these are made here, or come from elsewhere.
test_others() {
    make_others
    for data in mnist hundred; do
        tool train --data "$dir/$data" --epochs 1 --batch 40 -o "$dir/m"
        tool quantize --model "$dir/m" --data "$dir/$data" --preset tflite -o "$dir/m8"
        tool report -m "$dir/m8" -b "$dir/m" --data "$dir/$data" --limit 40 -o "$dir/page.html"
        tool eval --model "$dir/m8" --data "$dir/$data"
    done
    prints "^99  *0  *0 "
    rm "$dir/hundred/test.bin"
    refuses "no test.bin\|no test_batch.bin" ptq eval --model "$dir/m8" --data "$dir/hundred"
    "$BUILD/shapes10" "$dir/tens" --train 0 --test 10 >"$dir/out"
    refuses "the data have 10 classes, the model has 100" ptq eval --model "$dir/m8" \
        --data "$dir/tens"
}

test_cases() {
    rm -rf "$dir/mnist" "$dir/hundred"
    make_others
    for case in mnist_28x28x1:mnist classes_100:hundred; do
        data=$dir/${case#*:} name=$dir/${case%:*}
        tool import "$shared/cases/${case%:*}.onnx" -o "$name"
        tool calibrate --model "$name" --data "$data" -o "$name.json"
        tool quantize --model "$name" --data "$data" --calibration "$name.json" --preset tflite \
            -o "$name.int8" && tool eval --model "$name.int8" --baseline "$name" --data "$data"
        tool run --model "$name.int8" --images "$data" --logits "$name.npy"
    done
    prints "120 images x 100 logits"
}

# Pictures of folders without parts are divided by their names: always alike, none is in both.
test_division() {
    tool calibrate --model "$dir/three" --data "$dir/mine/train" -o "$dir/c.json"
    train=$(sed -n 's/^written .*: \([0-9]*\) images,.*/\1/p' "$dir/out")
    tool eval --model "$dir/three" --data "$dir/mine/train"
    test=$(sed -n 's/^accuracy  [0-9]* of \([0-9]*\) .*/\1/p' "$dir/out")
    [ $((train + test)) -eq 60 ] || wrong "$train and $test pictures of 60"
    [ "$test" -ge 3 ] && [ "$test" -le 27 ] || wrong "$test of 60 pictures are for testing"
}

# What is no picture is named and skipped.
test_hostile_pictures() {
    mkdir -p "$dir/bad/train/c0" "$dir/bad/train/c1" "$dir/bad/train/c2"
    png=$(ls "$dir"/forms/folder/test/c1/*.png | head -n 1)
    for class in 0 1 2; do cp "$png" "$dir/bad/train/c$class/good.png"; done
    size=$(wc -c <"$png")
    for part in 1 7 8 20 33 60 400 1500; do
        head -c $((size < part ? size - 20 : part)) "$png" >"$dir/bad/train/c0/short$part.png"
    done
    echo 'no picture' >"$dir/bad/train/c0/text.jpg"
    : >"$dir/bad/train/c0/empty.png"
    printf 'P6\n16385 1\n255\n' >"$dir/bad/train/c0/wide.ppm"
    printf 'P6\n16000 16000\n255\n' >"$dir/bad/train/c0/large.ppm"
    printf 'P6\n0 5\n255\n' >"$dir/bad/train/c0/flat.ppm"
    printf 'BM\377\377\377\377\0\0\0\0\066\0\0\0\050\0\0\0\377\377\377\177\377\377\377\177' \
        >"$dir/bad/train/c0/huge.bmp"
    printf 'GIF89a\377\377\377\377\200\0\0' >"$dir/bad/train/c0/huge.gif"
    mkdir "$dir/bad/train/c0/folder"
    mkfifo "$dir/bad/train/c0/pipe"
    : >"$dir/bad/train/.hidden"
    tool calibrate --model "$dir/three" --data "$dir/bad" -o "$dir/c.json"
    for name in short1.png text.jpg empty.png wide.ppm large.ppm flat.ppm huge.bmp huge.gif folder \
        pipe; do
        grep -q "warning: skipped .*c0/$name: " "$dir/err" || wrong "$name is not named"
    done
    [ "$(grep -c "warning: skipped " "$dir/err")" -eq 17 ] || wrong "one line for each file skipped"
    grep -q "17 files skipped, 3 pictures read" "$dir/err" || wrong "no count of files skipped"
    rm "$dir/bad/train/c0/good.png"
    refuses_with_warnings "c0: no picture that can be read" calibrate --model "$dir/three" \
        --data "$dir/bad" -o "$dir/no"
    [ ! -e "$dir/no" ] || wrong "a failed calibration left a file"
}

test_hostile_folders() {
    set -- ptq calibrate --model "$dir/three" -o "$dir/no" --data
    mkdir -p "$dir/odd/train"
    refuses "no classes" "$@" "$dir/odd"
    mkdir "$dir/odd/train/c0"
    refuses "c0: no picture" "$@" "$dir/odd"
    cp "$png" "$dir/odd/train/c0"
    mkdir -p "$dir/odd/test/c1"
    cp "$png" "$dir/odd/test/c1"
    refuses "test/c1 is a class that .*train has not" "$@" "$dir/odd"
    mkdir "$dir/odd/train/c1"
    cp "$png" "$dir/odd/train/c1"
    refuses "train/c0 is a class that .*test has not" "$@" "$dir/odd"
    rm -r "$dir/odd/test"
    mv "$dir/odd/train/c1" "$dir/odd/train/c9"
    refuses "the class c9 is none of the model's 3" "$@" "$dir/odd"
    refuses "the data have 2 classes, the model has 10" ptq calibrate --model "$model" \
        --data "$dir/odd" -o "$dir/no"
    mkdir "$dir/odd/train/$(printf %0100d 0)"
    refuses "rename it" "$@" "$dir/odd"
}


refuses_with_warnings() { # as refuses of a tool
    words=$1
    shift
    "$BUILD/ptq" "$@" >"$dir/out" 2>"$dir/err" && wrong "ptq $* is accepted"
    tail -n 1 "$dir/err" | grep -q "$words" || wrong "ptq $* does not say '$words'"
}

test_shapes10
test_class_names
test_model_lookup
model=examples/models/resnet8-shapes10.safetensors
[ "$BUILD" != build ] || test_default_model
[ -d "$dir/unseen" ] || accepts shapes10 "$dir/unseen" --train 200 --test 500 --seed 20
flags=$(for name in stb zlib; do ! has_library $name || echo -DPTQ_HAVE_$name; done)
[ "${BUILD#*san}" = "$BUILD" ] || sanitize="-fsanitize=address,undefined"
if ${CC:-cc} -std=c99 ${sanitize:-} $flags tests/shared/make_data.c \
    $(! has_library stb || echo "$BUILD/stb.o") $(! has_library zlib || echo -lz) -lm \
    -o "$dir/make_data"; then
    test_forms
    test_parts
    test_unlabelled
    test_features
    make_bad_arrays
    test_bad_arrays
    if [ -z "${PTQ_TEST_QUICK:-}" ]; then
        test_chain
        test_top_five
        test_others
    fi
    if [ -d "$shared/cases" ] && has_library onnx; then test_cases; fi
    if has_library stb; then
        test_pictures
        test_division
        [ -n "${PTQ_TEST_QUICK:-}" ] || test_transfer
        test_names
        test_orientation
        test_resize
        test_hostile_pictures
        test_hostile_folders
    else
        echo "no stb_image: pictures are not tested"
    fi
else
    wrong "make_data"
fi
[ $failures -eq 0 ]
