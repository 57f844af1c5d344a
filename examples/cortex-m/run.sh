#!/bin/sh
# run.sh MODEL IMAGES [COUNT [CPU]]
#
# Exports MODEL (quantized, integers throughout), builds it for Cortex-M4 and Cortex-M55 (or the one
# that CPU names: cortex-m4, cortex-m55), runs it in QEMU on the first COUNT (3) records of IMAGES,
# a CIFAR-10 .bin file, and compares the logits with those of the tool. Sees to it that the program
# has no heap, no standard I/O and no arithmetic in double precision. PTQ is the tool (default:
# build/ptq above this directory).
set -eu
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
ptq=${PTQ:-$here/../../build/ptq}
only=${4:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

head -c $((${3:-3} * 3073)) "$2" >"$work/images.bin"
"$ptq" export --model "$1" --c-header "$work/net.h" --standalone
"$ptq" run --model "$1" --images "$work/images.bin" --logits "$work/wanted.f32"

# Every function that the linked program has, and every instruction: neither malloc nor printf nor
# the like, none of the compiler's helpers for double precision, no instruction on it.
needs_little() { # ELF
    arm-none-eabi-nm "$1" | awk '{ print $NF }' >"$work/names"
    arm-none-eabi-objdump -d "$1" >"$work/code"
    if grep -xE '_*(m|c|re)alloc(_r)?|_*free(_r)?|_*sbrk(_r)?' "$work/names" ||
        grep -E 'printf|scanf|^_*f?(open|close|read|write|puts?|putc|getc|putchar)(_r)?$' \
            "$work/names" ||
        grep -E '^__aeabi_(d|c?d|[a-z]*2d)|^__[a-z]*df[0-9a-z]*$' "$work/names" ||
        grep -E '\.f64' "$work/code"; then
        echo "the program has what stands above"
        return 1
    fi
    echo "  $(grep -c . "$work/names") symbols: neither heap nor stdio nor double precision"
}

# on CPU MACHINE
on() {
    case ${only:-$1} in "$1") ;; *) return 0 ;; esac
    arm-none-eabi-gcc -std=c99 -Os -Wall -Wextra -mthumb -mcpu="$1" -I"$work" \
        -ffunction-sections -fdata-sections -Wl,--gc-sections \
        -nostartfiles --specs=nano.specs -T "$here/cortex-m.ld" \
        "$here/main.c" "$here/startup.c" -o "$work/net.elf"
    echo "$1: flash and RAM (the stack's reserve and the image included)"
    arm-none-eabi-size -A "$work/net.elf" | awk '
        $1 == ".text" || $1 == ".data" || $1 == ".ARM.exidx" { flash += $2 }
        $1 == ".bss" || $1 == ".data" || $1 == ".stack" { ram += $2 }
        END { print "  " flash " and " ram " bytes" }'
    needs_little "$work/net.elf"
    (cd "$work" && qemu-system-arm -machine "$2" -cpu "$1" -kernel net.elf -nographic \
        -monitor none -serial none -semihosting-config enable=on,target=native 2>&1 | sed 's/^/  /')
    cmp "$work/logits.f32" "$work/wanted.f32"
    echo "  logits equal those of 'ptq run' to the byte"
    rm "$work/logits.f32"
}

on cortex-m4 mps2-an386
on cortex-m55 mps3-an547
