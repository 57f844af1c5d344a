#!/bin/sh
# run.sh MODEL IMAGES [COUNT [CPU]]
#
# Exports MODEL (quantized, integers throughout), builds it for every processor of targets.sh (or the
# one that CPU names), runs it in QEMU on the first COUNT (3) records of IMAGES, a CIFAR-10 .bin
# file, and compares the logits with those of the tool. Sees to it that the program has no heap, no
# standard I/O and no arithmetic in double precision. PTQ is the tool (default: build/ptq above this
# directory), OPTIMIZATION the compiler's (-O2).
set -eu
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
ptq=${PTQ:-$here/../../build/ptq}
. "$here/targets.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

head -c $((${3:-3} * 3073)) "$2" >"$work/images.bin"
"$ptq" export --model "$1" --c-header "$work/net.h" --standalone --name net
"$ptq" run --model "$1" --images "$work/images.bin" --logits "$work/wanted.f32"

# Every function that the linked program has, and every instruction: neither malloc nor printf nor
# the like, none of the compiler's helpers for double precision, no instruction on it.
needs_little() { # ELF
    ${compiler%gcc}nm "$1" | awk '{ print $NF }' >"$work/names"
    ${compiler%gcc}objdump -d "$1" >"$work/code"
    if grep -xE '_*(m|c|re)alloc(_r)?|_*free(_r)?|_*sbrk(_r)?' "$work/names" ||
        grep -E 'printf|scanf|^_*f?(open|close|read|write|puts?|putc|getc|putchar)(_r)?$' \
            "$work/names" ||
        grep -E '^__aeabi_(d|c?d|[a-z]*2d)|^__[a-z]*df[0-9a-z]*$' "$work/names" ||
        grep -E '\.f64|	f[a-z]*\.d	' "$work/code"; then
        echo "the program has what stands above"
        return 1
    fi
    echo "  $(grep -c . "$work/names") symbols: neither heap nor stdio nor double precision"
}

for cpu in ${4:-$mcu_cpus}; do
    build "$cpu" "${OPTIMIZATION:--O2}" "$work"
    echo "$cpu: flash and RAM (the image included, the stack not)"
    echo "  $(sizes "$work/net.elf" | sed 's/ / and /') bytes"
    needs_little "$work/net.elf"
    emulate "$work" | sed 's/^/  /'
    cmp "$work/logits.f32" "$work/wanted.f32"
    echo "  logits equal those of 'ptq run' to the byte"
    rm "$work/logits.f32"
done
