#!/bin/sh
# run.sh MODEL IMAGES [COUNT]
#
# Exports MODEL (quantized, integers throughout), builds it for Cortex-M4 and Cortex-M55, runs it in
# QEMU on the first COUNT (3) records of IMAGES, a CIFAR-10 .bin file, and compares the logits with
# those of the tool. PTQ is the tool (default: build/ptq above this directory).
set -eu
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" && exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
ptq=${PTQ:-$here/../../build/ptq}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

head -c $((${3:-3} * 3073)) "$2" >"$work/images.bin"
"$ptq" export --model "$1" --c-header "$work/net.h" --standalone
"$ptq" run --model "$1" --images "$work/images.bin" --logits "$work/wanted.f32"

# on CPU MACHINE
on() {
    arm-none-eabi-gcc -std=c99 -Os -Wall -Wextra -mthumb -mcpu="$1" -I"$work" \
        -ffunction-sections -fdata-sections -Wl,--gc-sections \
        -nostartfiles --specs=nano.specs -T "$here/cortex-m.ld" \
        "$here/main.c" "$here/startup.c" -o "$work/net.elf"
    echo "$1: flash and RAM (the stack's reserve and the image included)"
    arm-none-eabi-size -A "$work/net.elf" | awk '
        $1 == ".text" || $1 == ".data" || $1 == ".ARM.exidx" { flash += $2 }
        $1 == ".bss" || $1 == ".data" || $1 == ".stack" { ram += $2 }
        END { print "  " flash " and " ram " bytes" }'
    (cd "$work" && qemu-system-arm -machine "$2" -cpu "$1" -kernel net.elf -nographic \
        -monitor none -serial none -semihosting-config enable=on,target=native 2>&1 | sed 's/^/  /')
    cmp "$work/logits.f32" "$work/wanted.f32"
    echo "  logits equal those of 'ptq run' to the byte"
    rm "$work/logits.f32"
}

on cortex-m4 mps2-an386
on cortex-m55 mps3-an547
