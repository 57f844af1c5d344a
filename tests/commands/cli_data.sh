# The programs that make data: shapes10, and images2cifar where it could be built. BUILD is their
# directory. Needs no data and no model from elsewhere.
. tests/shared/cli.sh

# accepts PROGRAM ARGS: exit status 0 and nothing on standard error.
accepts() {
    "$BUILD/$@" >"$dir/out" 2>"$dir/err" || wrong "exit status $? of $*"
    [ ! -s "$dir/err" ] || wrong "standard error of $*"
}

# refuses WORDS PROGRAM ARGS: exit status 1; one line on standard error, besides those of files
# skipped, begins with the program's name and holds WORDS.
refuses() {
    words=$1
    shift
    "$BUILD/$@" >"$dir/out" 2>"$dir/all"
    status=$?
    grep -v ": skipped " "$dir/all" >"$dir/err"
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

# Records to PNG files and back are the same records.
test_round_trip() {
    accepts images2cifar --reverse "$dir/shapes" "$dir/pictures"
    prints "200 train pictures"
    [ "$(ls "$dir/pictures/test/heart" | wc -l)" -eq 4 ] || wrong "pictures of a class"
    accepts images2cifar --keep-order "$dir/pictures" "$dir/back"
    prints "^heart  *20  *4$"
    prints "^0 skipped"
    for name in data_batch_1.bin test_batch.bin batches.meta.txt; do
        cmp "$dir/shapes/$name" "$dir/back/$name" || wrong "$name differs after a round trip"
    done
    accepts images2cifar "$dir/pictures" "$dir/shuffled"
    accepts images2cifar "$dir/pictures" "$dir/again" --seed 1
    accepts images2cifar "$dir/pictures" "$dir/seed2" --seed 2
    cmp "$dir/shuffled/data_batch_1.bin" "$dir/again/data_batch_1.bin" || wrong "another order"
    cmp -s "$dir/shuffled/data_batch_1.bin" "$dir/seed2/data_batch_1.bin" && wrong "the same order"
    for name in back shuffled; do
        od -An -v -tx1 -w3073 "$dir/$name/data_batch_1.bin" | sort >"$dir/$name.sorted"
    done
    cmp "$dir/back.sorted" "$dir/shuffled.sorted" || wrong "shuffling changes the records"
    refuses "is there already" images2cifar --reverse "$dir/shapes" "$dir/pictures"
    refuses "holds data already" images2cifar "$dir/pictures" "$dir/back"
    rm -rf "$dir/pictures/train"
    accepts images2cifar "$dir/pictures" "$dir/test-only"
    [ ! -e "$dir/test-only/data_batch_1.bin" ] || wrong "training data from nowhere"
    accepts images2cifar --reverse "$dir/test-only" "$dir/test-pictures"
}

# ppm FILE WIDTH HEIGHT: black on the left half, white on the right; odd widths have grey between.
ppm() {
    printf 'P6\n%d %d\n255\n' "$2" "$3" >"$1"
    row=$(awk -v w="$2" 'BEGIN { for (x = 0; x < w; x++) for (c = 0; c < 3; c++)
        printf "%s", (x < w - 1 - x ? "\\000" : x > w - 1 - x ? "\\377" : "\\200") }')
    y=0
    while [ $y -lt "$3" ]; do
        printf "$row"
        y=$((y + 1))
    done >>"$1"
}

# pixel FILE COLUMN: red in the first line of the first record.
pixel() {
    od -An -tu1 -j $((1 + $2)) -N 1 "$1" | tr -d ' '
}

# Sizes are reduced by averaging areas, by hand: a 3x3 picture's middle column is grey (128).
test_sizes() {
    mkdir -p "$dir/sizes/train/a"
    ppm "$dir/sizes/train/a/1.ppm" 64 32
    accepts images2cifar "$dir/sizes" "$dir/cut"
    [ "$(pixel "$dir/cut/data_batch_1.bin" 15)$(pixel "$dir/cut/data_batch_1.bin" 16)" = 0255 ] ||
        wrong "the square is not cut from the middle"
    ppm "$dir/sizes/train/a/1.ppm" 3 3
    accepts images2cifar "$dir/sizes" "$dir/three"
    # 32 pixels over 3: number 10 lies from 0.9375 to 1.03125, two thirds of it in the black one.
    set -- 0 0 10 43 11 128 20 128 21 213 22 255
    while [ $# -gt 0 ]; do
        [ "$(pixel "$dir/three/data_batch_1.bin" "$1")" = "$2" ] ||
            wrong "pixel $1 is $(pixel "$dir/three/data_batch_1.bin" "$1"), not $2"
        shift 2
    done
    ppm "$dir/sizes/train/a/1.ppm" 65 2
    accepts images2cifar --stretch "$dir/sizes" "$dir/squeezed"
    [ "$(pixel "$dir/squeezed/data_batch_1.bin" 15)" = 32 ] || wrong "the picture is not squeezed"
    accepts images2cifar "$dir/sizes" "$dir/uncut"
    [ "$(pixel "$dir/uncut/data_batch_1.bin" 0)" = 0 ] || wrong "an odd picture's middle"
}

# What is no picture is named and skipped; whatever happens, no data are left of a failed run.
test_hostile_pictures() {
    mkdir -p "$dir/bad/train/cat" "$dir/bad/train/dog"
    png=$(ls "$dir"/test-pictures/test/heart/*.png | head -n 1)
    cp "$png" "$dir/bad/train/cat/good.png"
    cp "$png" "$dir/bad/train/dog/good.png"
    size=$(wc -c <"$png")
    for part in 1 7 8 20 33 60 400 1500; do
        head -c $((size < part ? size : part)) "$png" >"$dir/bad/train/cat/short$part.png"
    done
    echo 'no picture' >"$dir/bad/train/cat/text.jpg"
    : >"$dir/bad/train/cat/empty.png"
    printf 'P6\n16385 1\n255\n' >"$dir/bad/train/cat/wide.ppm"
    printf 'P6\n16000 16000\n255\n' >"$dir/bad/train/cat/large.ppm"
    printf 'P6\n0 5\n255\n' >"$dir/bad/train/cat/flat.ppm"
    printf 'BM\377\377\377\377\0\0\0\0\066\0\0\0\050\0\0\0\377\377\377\177\377\377\377\177' \
        >"$dir/bad/train/cat/huge.bmp"
    printf 'GIF89a\377\377\377\377\200\0\0' >"$dir/bad/train/cat/huge.gif"
    mkdir "$dir/bad/train/cat/folder"
    mkfifo "$dir/bad/train/cat/pipe"
    : >"$dir/bad/train/.hidden"
    "$BUILD/images2cifar" "$dir/bad" "$dir/bad-data" >"$dir/out" 2>"$dir/err" ||
        wrong "a folder with some pictures is refused"
    prints "^cat  *1  *0$"
    prints "^17 skipped"
    for name in short1.png text.jpg empty.png wide.ppm large.ppm flat.ppm huge.bmp huge.gif folder \
        pipe; do
        grep -q "^images2cifar: skipped .*cat/$name" "$dir/err" || wrong "$name is not named"
    done
    [ "$(wc -l <"$dir/err")" -eq 17 ] || wrong "one line for each file skipped"
    rm "$dir/bad/train/cat/good.png"
    refuses "class train/cat has no picture" images2cifar "$dir/bad" "$dir/none"
    [ -z "$(ls "$dir/none" 2>/dev/null)" ] || wrong "a failed conversion left files"
}

test_hostile_folders() {
    refuses "cannot list\|neither train" images2cifar "$dir/missing" "$dir/none"
    mkdir -p "$dir/odd/train"
    refuses "no classes" images2cifar "$dir/odd" "$dir/none"
    mkdir "$dir/odd/train/cat"
    refuses "cat is empty" images2cifar "$dir/odd" "$dir/none"
    cp "$png" "$dir/odd/train/cat"
    mkdir -p "$dir/odd/test/dog"
    cp "$png" "$dir/odd/test/dog"
    refuses "test/cat" images2cifar "$dir/odd" "$dir/none"
    mkdir "$dir/odd/test/cat"
    cp "$png" "$dir/odd/test/cat"
    refuses "dog is a class that train/ has not" images2cifar "$dir/odd" "$dir/none"
    rm -r "$dir/odd/test"
    mkdir "$dir/odd/train/01234567890123456789012345678901"
    refuses "rename it" images2cifar "$dir/odd" "$dir/none"
    rm -r "$dir/odd/train/0123"*
    for class in 0 1 2 3 4 5 6 7 8 9; do mkdir "$dir/odd/train/$class"; done
    refuses "more than 10 classes" images2cifar "$dir/odd" "$dir/none"
    refuses "two directories" images2cifar "$dir/odd"
    refuses "whole number" images2cifar --seed x "$dir/odd" "$dir/none"
    refuses "unknown argument" images2cifar --nonsense
    refuses "no data_batch_1.bin\|no test_batch.bin" images2cifar --reverse "$dir/odd" "$dir/none"
    mkdir "$dir/escape"
    cp "$dir/shapes/test_batch.bin" "$dir/escape"
    sed 's/arrow/..\/..\/escaped/' "$dir/shapes/batches.meta.txt" >"$dir/escape/batches.meta.txt"
    refuses "cannot name a directory" images2cifar --reverse "$dir/escape" "$dir/none"
    [ ! -e "$dir/escaped" ] || wrong "a class name led out of the directory"
}

test_shapes10
test_class_names
test_model_lookup
[ "$BUILD" != build ] || test_default_model
if [ -x "$BUILD/images2cifar" ]; then
    accepts images2cifar --help
    prints Example
    test_round_trip
    test_sizes
    test_hostile_pictures
    test_hostile_folders
else
    echo "no stb_image: images2cifar is not tested"
fi
[ $failures -eq 0 ]
