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
    refuses "real numbers.*models of pixels" export --model "$dir/pair" --standalone --c-header \
        "$dir/no.h"
}

if $cc -std=c99 $sanitize -I. tests/shared/make_tensors.c "$BUILD/ptq_impl.o" -lm -pthread \
    -o "$dir/make_tensors" && "$dir/make_tensors" "$dir"; then
    test_names
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
