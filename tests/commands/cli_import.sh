# ptq import of safetensors files that other programs wrote: names, types, shapes, networks, and
# files that are wrong. PTQ is the tool's path, BUILD holds the library's object.
. tests/shared/cli.sh
cc=${CC:-cc}
sanitize=${COVERAGE:+--coverage}
if [ -n "${SAN:-}" ]; then sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"; fi

# says WORDS: so does the last refusal, too.
says() {
    grep -q -e "$1" "$dir/err" || wrong "no '$1' in the message"
}

equals() {
    cmp "$1" "$2" >/dev/null 2>&1 || wrong "$2 is not $1"
}

# A safetensors file of zeros: write HEADER BYTES FILE.
write() {
    {
        # The length of the header, least significant byte first.
        printf "\\$(printf %o $((${#1} % 256)))\\$(printf %o $((${#1} / 256)))\0\0\0\0\0\0"
        printf '%s' "$1"
        head -c "$2" /dev/zero
    } >"$3"
}

test_names() {
    cat >"$dir/map" <<'END'
# what wraps the network
module.blocks.1.skip.* = -   # there is none, which is no matter
module.blocks.* = block*
	module.stem.* = *
END
    accepts import "$dir/resnet8.torch.safetensors" --map "$dir/map" -o "$dir/out.safetensors"
    equals "$dir/resnet8.safetensors" "$dir/out.safetensors"
    # Windows ends lines otherwise; the last line needs no end.
    sed 's/$/\r/' "$dir/map" | head -c -1 >"$dir/crlf"
    accepts import "$dir/resnet8.torch.safetensors" --map "$dir/crlf" -o "$dir/out.safetensors"
    equals "$dir/resnet8.safetensors" "$dir/out.safetensors"
    accepts info "$dir/resnet8.safetensors" --graph
    cp "$dir/out" "$dir/graph"
    accepts import "$dir/resnet8.torch.safetensors" --map "$dir/map" --graph "$dir/graph" \
        -o "$dir/out.safetensors"
    equals "$dir/resnet8.safetensors" "$dir/out.safetensors"
    accepts import "$dir/resnet8.torch.safetensors" --map "$dir/map" --epsilon 0.25 \
        -o "$dir/out.safetensors"
    accepts info "$dir/out.safetensors" --graph
    grep -q 'bn1 batch_norm in=conv1 epsilon=0.25' "$dir/out" || wrong "--epsilon is not heeded"
    refuses "resnet8.safetensors has a graph of its own" import "$dir/resnet8.safetensors" \
        --map "$dir/map" -o "$dir/no"
    refuses "go with .safetensors" import "$dir/missing.h5" --map "$dir/map" -o "$dir/no"
    for epsilon in x "" -1 0 nan 1e-5x 2; do
        refuses "epsilon of batch norm" import "$dir/resnet8.torch.safetensors" --map "$dir/map" \
            --epsilon "$epsilon" -o "$dir/no"
    done
}

# What was assumed is one line, and can be chosen: PyTorch's files get PyTorch's padding and epsilon,
# others Keras's.
test_assumed() {
    torch=$dir/resnet8.torch.safetensors
    accepts import "$torch" --map "$dir/map" -o "$dir/out.safetensors"
    [ "$(grep -c assumed "$dir/out")" -eq 1 ] || wrong "what was assumed is not one line"
    prints "assumed: padding pytorch, epsilon 1e-05 (both PyTorch's, for .* num_batches_tracked), "
    prints "pixels 0..255, mean 0, std 1 (default), weights O x I x H x W, 4 classes by number"
    accepts info "$dir/out.safetensors" --graph
    prints "block2.conv1 conv2d .*kernel=3x3 stride=2x2 pad=1,1,1,1"
    accepts import "$torch" --map "$dir/map" --padding tensorflow --std 64 -o "$dir/tf.safetensors"
    prints "assumed: padding tensorflow (as said), epsilon 1e-05 (PyTorch's, for the file"
    prints "mean 0, std 64 (as said)"
    accepts info "$dir/tf.safetensors" --graph
    ! grep -q "pad=" "$dir/out" || wrong "TensorFlow's padding is not taken"
    accepts import "$dir/tf.safetensors" -o "$dir/again.safetensors"
    equals "$dir/tf.safetensors" "$dir/again.safetensors"
    prints "assumed: padding and epsilon by the graph, .* std 64 (by the file)"
    accepts import "$torch" --map "$dir/map" --graph "$dir/graph" -o "$dir/out.safetensors"
    prints "assumed: padding and epsilon by the graph, pixels 0..255, mean 0, std 1 (default)"
    refuses "padding is tensorflow or pytorch, not 'keras'" import "$torch" --map "$dir/map" \
        --padding keras -o "$dir/no"
    refuses "graph says itself how the network pads" import "$torch" --map "$dir/map" \
        --graph "$dir/graph" --padding pytorch -o "$dir/no"
    refuses "graph says itself how the network pads" import "$torch" --map "$dir/map" \
        --graph "$dir/graph" --epsilon 0.1 -o "$dir/no"
    sed 's/shape=32x32x3/& mean=1,2,3 std=64,64,64/' "$dir/graph" >"$dir/scaled"
    refuses "$dir/scaled scales its pixels itself" import "$torch" \
        --map "$dir/map" --graph "$dir/scaled" --mean 1 -o "$dir/no"
}

# Files that tell of their origin otherwise: without biases, by their format, or not at all.
test_origin() {
    plain=$dir/plain.safetensors
    LC_ALL=C sed 's/num_batches_tracked/running_batch_count/g' "$dir/resnet8.torch.safetensors" \
        >"$plain"
    printf '*.running_batch_count = -\n' | cat - "$dir/map" >"$dir/plain.map"
    accepts import "$plain" --map "$dir/plain.map" -o "$dir/out.safetensors"
    equals "$dir/resnet8.safetensors" "$dir/out.safetensors"
    prints "padding pytorch, epsilon 1e-05 (both PyTorch's, for conv1 has no bias in the file)"
    accepts import "$plain" --map "$dir/plain.map" --epsilon 0.25 --padding tensorflow \
        -o "$dir/out.safetensors"
    prints "padding tensorflow, epsilon 0.25 (both as said)"
    accepts import "$dir/biased.torch.safetensors" --map "$dir/map" -o "$dir/out.safetensors"
    equals "$dir/biased.safetensors" "$dir/out.safetensors"
    prints "padding tensorflow, epsilon 0.001 (both Keras's, for nothing in the file is PyTorch's)"
    LC_ALL=C sed 's/"writer":"nobody"/"format":"pt"    /' "$dir/biased.torch.safetensors" >"$plain"
    accepts import "$plain" --map "$dir/map" -o "$dir/out.safetensors"
    prints "padding pytorch, epsilon 1e-05 (both PyTorch's, for the file's format is pt)"
}

# scaled MEAN STD: our model as if it had been imported with these, each of as many characters.
scaled() {
    LC_ALL=C sed "s/mean=118.65398,118.80392,118.85643 std=69.81714,69.89857,69.37924/mean=$1 std=$2/" \
        examples/models/resnet8-shapes10.safetensors >"$dir/scaled.safetensors"
    accepts import "$dir/scaled.safetensors" -o "$dir/out.safetensors"
}

warns_once() {
    warns "$1"
    [ "$(grep -c warning: "$dir/err")" -eq 1 ] || wrong "not one warning but more"
}

# Numbers that give away that a network gets pixels in another scale than in training. A batch norm
# behind a convolution that saw pixels / 70 gets 70 times more from pixels as they are.
test_pixels() {
    for right in examples/models/*.safetensors; do
        accepts import "$right" -o "$dir/out.safetensors"
        [ ! -s "$dir/err" ] || wrong "a warning of $right"
    done
    scaled 0.0000000,0.0000000,0.0000000 1.000000,1.000000,1.000000
    warns_once "batch norm bn1 has seen numbers about [3-9]. times smaller than pixels 0..255"
    warns "import it with --mean and --std of the training.*(--std 255 for pixels 0..1"
    scaled 0.4653097,0.4659000,0.4660000 0.273793,0.273793,0.273793
    warns_once "mean 0.4653,0.4659,0.466 and std 0.2738 are of pixels 0..1"
    warns "import it with --mean 118.7,118.8,118.8 --std 69.82$"
    scaled 0.4653097,0.4659000,0.4660000 69.81714,69.89857,69.37924
    warns_once "import it with --mean 118.7,118.8,118.8 --std 69.82,69.9,69.38$"
    scaled 118.65398,118.80392,118.85643 9999.999,9999.999,9999.999
    warns_once "has seen numbers about 2.. times larger than pixels 0..255"
    # Without a batch norm there are the weights: three of up to 4, for pixels of up to 255.
    accepts import "$dir/flat.safetensors" -o "$dir/out.safetensors"
    warns_once "layer 0 has weights of a size for pixels of 0..1, but it gets 0..255"
    accepts import "$dir/flat.safetensors" --mean 0 --std 255 -o "$dir/out.safetensors"
    [ ! -s "$dir/err" ] || wrong "a warning of a network that gets 0..1"
}

# Files are known by their content, whatever they are called.
test_content() {
    cp "$dir/resnet8.safetensors" "$dir/named.SafeTensors"
    accepts import "$dir/named.SafeTensors" -o "$dir/out.safetensors"
    equals "$dir/resnet8.safetensors" "$dir/out.safetensors"
    printf '\211PNG\r\n\032\n%99s' "" >"$dir/named.onnx"
    refuses "named.onnx is a picture, not a .h5, .keras, .onnx, .tflite or .safetensors file" \
        import "$dir/named.onnx" -o "$dir/no"
    printf '\034\0\0\0TFL3%99s' "" >"$dir/named.h5"
    refuses "named.h5: .* cut off or damaged" import "$dir/named.h5" -o "$dir/no"
    refuses "is a directory" import "$dir" -o "$dir/no"
    printf '\211HDF\r\n\032\n%99s' "" >"$dir/named.safetensors"
    refuses "hdf5\|HDF5" import "$dir/named.safetensors" -o "$dir/no"
    if has_library onnx; then
        accepts export --model "$dir/resnet8.safetensors" --onnx "$dir/network"
        accepts import "$dir/network" -o "$dir/out.safetensors"
        prints "assumed: padding and epsilon by the file, .* input 'input', FLOAT, NCHW"
    fi
}

# refused_rules WORDS TEXT
refused_rules() {
    printf '%b' "$2" >"$dir/rules"
    refuses "$1" import "$dir/resnet8.torch.safetensors" --map "$dir/rules" -o "$dir/no"
}

test_rules() {
    refused_rules "line 2: a rule is" 'a = b\nmodule.stem\n'
    refused_rules "line 1: a rule is" 'a = b = c\n'
    refused_rules "line 1: a name is missing" ' = b\n'
    refused_rules "line 3: a name is missing" '\n\na = # nothing\n'
    refused_rules "line 1: at most" 'a.* = *.*\n'
    refused_rules "line 1: at most" '********* = a\n'
    refused_rules "line 1: is not text" 'a\001 = b\n'
    refused_rules "is not a text file" 'a = b\n\0'
    refused_rules "line 2: no tensor is called nobody" 'module.* = *\nnobody = conv1\n'
    refused_rules "module.stem.bn1.weight and module.stem.bn1.bias would both be called x" \
        'module.stem.bn1.* = x\n'
    refused_rules "(module.stem.conv1.weight and others) are not called as ResNet8" '# empty\n'
    refuses "missing.map" import "$dir/resnet8.torch.safetensors" --map "$dir/missing.map" \
        -o "$dir/no"
    # Many stars on long names: an answer, and soon.
    refused_rules "no tensor" '*e*e*e*e*e*e*e*z = *\n'
}

# Everything that does not fit is named, in one line.
test_misfits() {
    printf 'module.stem.bn1.bias = -\nmodule.stem.* = *\nmodule.blocks.2.conv1.* = extra.*\n' \
        >"$dir/rules"
    printf 'module.blocks.3.conv2.weight=block3.shortcut.weight\n' >>"$dir/rules"
    printf 'module.blocks.3.shortcut.weight=block3.conv2.weight\nmodule.blocks.*=block*' \
        >>"$dir/rules"
    refuses "missing: bn1.bias, block2.conv1.weight; not of the network: extra.weight" \
        import "$dir/resnet8.torch.safetensors" --map "$dir/rules" -o "$dir/no"
    says "block3.conv2.weight \[12,6,1,1\] where the network has \[12,12,3,3\]"
    says "block3.shortcut.weight \[12,12,3,3\] where"
    refuses "map: the graph text begins with" import "$dir/resnet8.torch.safetensors" \
        --graph "$dir/map" -o "$dir/no"
}

test_flat() {
    accepts info "$dir/flat.safetensors" --graph
    cp "$dir/out" "$dir/graph"
    accepts import "$dir/flat.torch.safetensors" --graph "$dir/graph" -o "$dir/out.safetensors"
    equals "$dir/flat.safetensors" "$dir/out.safetensors"
    printf 'ptq-graph 1\nimage input shape=3x2x3\n0 conv2d in=nowhere channels=4 kernel=1x1\n' \
        >"$dir/graph"
    refuses "graph line 3" import "$dir/flat.torch.safetensors" --graph "$dir/graph" -o "$dir/no"
    refuses "missing.graph" import "$dir/flat.torch.safetensors" --graph "$dir/missing.graph" \
        -o "$dir/no"
    printf 'ptq-graph 1\nimage input shape=3x2x3\n0 conv2d in=image channels=4 kernel=1x1 w=f16\n' \
        >"$dir/graph"
    refuses "node 0 has quantized weights" import "$dir/flat.torch.safetensors" \
        --graph "$dir/graph" -o "$dir/no"
}

test_hostile() {
    bad=$dir/bad.safetensors
    write '{}' 0 "$bad"
    refuses "none and others" import "$bad" -o "$dir/no"
    write '{"conv1.weight":{"dtype":"I32","shape":[2,3,3,3],"data_offsets":[0,216]},"fc.weight":{"dtype":"F32","shape":[2,8],"data_offsets":[216,280]}}' \
        280 "$bad"
    refuses "conv1.weight (real numbers are needed)" import "$bad" -o "$dir/no"
    says "missing: bn1.weight, bn1.bias"
    says "fc.bias"
    write '{"a\nb":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' 4 "$bad"
    refuses "tensor 0 has a name that is not text" import "$bad" -o "$dir/no"
    write '{"conv1.weight":{"dtype":"BF16","shape":[99999,3,3,3],"data_offsets":[0,4]},"fc.weight":{"dtype":"F32","shape":[2,8],"data_offsets":[4,68]}}' \
        68 "$bad"
    refuses "do not agree" import "$bad" -o "$dir/no"
    write '{"conv1.weight":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"fc.weight":{"dtype":"F32","shape":[2,8],"data_offsets":[8,72]}}' \
        72 "$bad"
    refuses "not called as ResNet8" import "$bad" -o "$dir/no"
    write '{"conv1.weight":{"dtype":"F32","shape":[1,1,1,1],"data_offsets":[0,4]},"fc.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}}' \
        8 "$bad"
    refuses "" import "$bad" -o "$dir/no"
    head -c 999 "$dir/flat.torch.safetensors" >"$bad"
    refuses "" import "$bad" -o "$dir/no"
    [ ! -e "$dir/no" ] || wrong "a refused import left a file"
}

# Input of two numbers -> dense layer that passes them on; weights 1 0 0 1, and in front the bias, 0.
write_pair() {
    write '{"fc.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"fc.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}}' \
        8 "$dir/pair.safetensors"
    printf '\0\0\200\077\0\0\0\0\0\0\0\0\0\0\200\077' >>"$dir/pair.safetensors"
    printf 'ptq-graph 1\ninput input shape=1x2x1\nfc dense in=input channels=2\n' >"$dir/pair.txt"
    pair="$dir/pair.safetensors --graph $dir/pair.txt -o $dir/pair"
}

# What a file does not tell: real numbers instead of pixels, names of classes, the rule for pictures.
test_facts() {
    write_pair
    accepts import $pair
    grep -q '"format_version":"1"' "$dir/pair" || wrong "pixels are not version 1"
    accepts import $pair --input f32 --mean 1 --std 2 --classes 'kite,"owl"' --resize crop
    grep -q '"format_version":"2"' "$dir/pair" || wrong "real numbers are not version 2"
    grep -qF '"class_names":"[\"kite\",\"\\\"owl\\\"\"]"' "$dir/pair" || wrong "names of classes"
    grep -q '"resize":"crop"' "$dir/pair" || wrong "no rule for pictures"
    accepts info "$dir/pair" --graph
    prints "^input input shape=1x2x1 type=f32 mean=1 std=2$"
    printf 'kite\r\n\nowl' >"$dir/names"
    accepts import $pair --input u8 --classes "$dir/names" --resize stretch
    grep -qF '"class_names":"[\"kite\",\"owl\"]"' "$dir/pair" || wrong "names of classes in a file"
    rm "$dir/pair"
    refuses "u8 (pixels) or f32" import $pair --input f64
    refuses "crop or stretch, not 'zoom'" import $pair --resize zoom
    refuses "gives 3 names, the model has 2 classes" import $pair --classes a,b,c
    refuses "name of a file" import $pair --classes "$dir/none"
    refuses "1 to 63 bytes" import $pair --classes ,a
    [ ! -e "$dir/pair" ] || wrong "a refused import left a file"
}

# A header for a model of real numbers takes floats, and the standalone one says that there is none.
test_header_of_reals() {
    write_pair
    accepts import $pair --input f32 --mean 1 --std 2
    accepts export --model "$dir/pair" --c-header "$dir/net.h"
    cat >"$dir/driver.c" <<'END'
#include <stdio.h>
#define NET_IMPLEMENTATION
#include "net.h"
int main(void)
{
    static float input[NET_PIXELS] = {0.5f, -3};
    float logits[NET_CLASSES];
    ptq_error err;
    if (net_run(input, logits, &err))
        return fprintf(stderr, "%s\n", err.text), 1;
    return printf("%g %g\n", (double)logits[0], (double)logits[1]) < 0;
}
END
    if $cc -std=c99 -Wall -Wextra -Werror $sanitize -I. -I"$dir" "$dir/driver.c" \
        "$BUILD/ptq_impl.o" -lm -pthread -o "$dir/driver" 2>"$dir/err"; then
        [ "$("$dir/driver")" = "-0.25 -2" ] || wrong "the header's logits"
    else
        wrong "the header of real numbers does not compile"
    fi
    refuses "computes on real numbers, which --standalone" export --model "$dir/pair" --standalone --c-header \
        "$dir/no.h"
}

if $cc -std=c99 $sanitize -I. tests/shared/make_tensors.c "$BUILD/ptq_impl.o" -lm -pthread \
    -o "$dir/make_tensors" && "$dir/make_tensors" "$dir"; then
    test_names
    test_assumed
    test_origin
    test_pixels
    test_content
    test_rules
    test_misfits
    test_flat
    test_hostile
    test_facts
    test_header_of_reals
else
    wrong "make_tensors"
fi
[ $failures -eq 0 ]
