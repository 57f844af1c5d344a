#!/bin/sh
# check_all.sh [--markdown FILE] [N [PATTERN]]
#
# ptq.h with every compiler, C library and processor that can be had here, cross-compiled and run
# under emulators where need be. Each row of the table below is compiled without a warning and run:
# vector kernels against the scalar ones on N (default 2000) random networks of each kind, fewer
# where the row says so; and the logits of integer models, which must be those of the scalar kernels
# of this machine to the byte. The networks that "ptq export --standalone" writes run on emulated
# microcontrollers. The models are ResNet8 for CIFAR-10 where PTQ_SHARED has them, else for
# Shapes-10. PATTERN: only rows whose name has that extended regular expression, and the first, the
# reference.
#
# Prints a line for each row, into FILE as a table; what the machine lacks is named. Exit status 0
# if nothing failed.
cd "$(dirname "$0")/../.." || exit 1
table=
if [ "${1:-}" = --markdown ]; then
    table=${2:?check_all.sh: name a file}
    shift 2
fi
count=${1:-2000}
pattern=${2:-}
shared=${PTQ_SHARED:-../shared}
ptq=${PTQ:-build/ptq}
dir=$PWD/build/cross
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
ran=0 compiled=0 skipped=0 failures=0

# Debian keeps Wine's program for 64 bits off the PATH.
wine=wine
[ ! -x /usr/lib/wine/wine64 ] || wine=/usr/lib/wine/wine64
export WINEPREFIX="$dir/wine" WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml=" LC_ALL=C.UTF-8

# gcc-multilib has <asm/> for 32 bits, but Debian does not install it beside cross compilers;
# gcc-12-multilib and the directory for 64 bits, looked into last, do the same.
m32="-m32 -idirafter /usr/include/x86_64-linux-gnu"

# A row: NAME; the compiler with its flags; what runs the product; whether there are vector kernels;
# the share of the random networks. To add one, add a line.
rows() {
    cat <<END
this machine    | cc -std=c99 -O2                                            |       | vector | 1
gcc c11         | gcc -std=c11 -O1                                           |       | vector | 20
gcc c17         | gcc -std=c17 -O1                                           |       | vector | 20
gcc c++11       | g++ -std=c++11 -O1                                         |       | vector | 20
gcc c++20       | g++ -std=c++20 -O1                                         |       | vector | 20
gcc O0          | gcc -std=c99 -O0                                           |       | vector | 20
gcc O3          | gcc -std=c99 -O3                                           |       | vector | 4
gcc Os          | gcc -std=c99 -Os                                           |       | vector | 20
gcc fast-math   | gcc -std=c99 -O2 -ffast-math                               |       | vector | 4
gcc fused       | gcc -std=gnu17 -O2 -mavx2 -mfma -ffp-contract=fast         |       | vector | 4
clang c99       | clang -std=c99 -O2                                         |       | vector | 4
clang c11       | clang -std=c11 -O1                                         |       | vector | 20
clang c17       | clang -std=c17 -O1                                         |       | vector | 20
clang c++11     | clang++ -std=c++11 -O1                                     |       | vector | 20
clang c++20     | clang++ -std=c++20 -O1                                     |       | vector | 20
clang O0        | clang -std=c99 -O0                                         |       | vector | 20
clang O3        | clang -std=c99 -O3                                         |       | vector | 20
clang Os        | clang -std=c99 -Os                                         |       | vector | 20
clang fast-math | clang -std=c99 -O2 -ffast-math                             |       | vector | 4
tcc             | tcc -std=c99                                               |       | scalar | 1
musl            | musl-gcc -std=c99 -O2 -static                              |       | vector | 20
32 bits, x87    | gcc $m32 -std=c99 -O2                                      |       | scalar | 1
32 bits, x87 O0 | gcc $m32 -std=gnu17 -O0                                    |       | scalar | 1
32 bits, SSE2   | gcc $m32 -msse2 -mfpmath=sse -std=c99 -O2                  |       | scalar | 1
Windows         | x86_64-w64-mingw32-gcc -std=c99 -O2                        | $wine | scalar | 1
Windows, vector | x86_64-w64-mingw32-gcc -DPTQ_MINGW_SIMD -Wa,-muse-unaligned-vector-move -std=c99 -O2 | $wine | vector | 20
arm64 gcc       | aarch64-linux-gnu-gcc -std=c99 -O2                         | qemu-aarch64 -L /usr/aarch64-linux-gnu | vector | 20
arm64 clang     | clang --target=aarch64-linux-gnu -std=c99 -O2              | qemu-aarch64 -L /usr/aarch64-linux-gnu | vector | 20
armhf neon      | arm-linux-gnueabihf-gcc -mfpu=neon -std=c99 -O2            | qemu-arm -L /usr/arm-linux-gnueabihf | vector | 20
armhf vfpv4     | arm-linux-gnueabihf-gcc -mfpu=neon-vfpv4 -std=c99 -O2      | qemu-arm -L /usr/arm-linux-gnueabihf | vector | 20
riscv64         | riscv64-linux-gnu-gcc -std=c99 -O2                         | qemu-riscv64 -L /usr/riscv64-linux-gnu | scalar | 1
s390x           | s390x-linux-gnu-gcc -std=c99 -O2                           | qemu-s390x -L /usr/s390x-linux-gnu | scalar | 1
wasm            | clang --target=wasm32-wasi -msimd128 -std=c99 -O2          | node --no-warnings tests/checks/wasi.mjs | vector | 20
wasm scalar     | clang --target=wasm32-wasi -std=c99 -O2                    | node --no-warnings tests/checks/wasi.mjs | scalar | 1
END
}

# tell NAME WHAT RUNNER RESULT: a line of output, and of the table.
tell() {
    printf '%-16s %s\n' "$1" "$4"
    echo "| $1 | \`$2\` | ${3:-itself} | $4 |" >>"$dir/table"
}

fail() { # NAME WHAT RUNNER
    failures=$((failures + 1))
    tell "$1" "$2" "$3" "**FAILED**"
    tail -n 8 "$dir/log"
}

skip() { # NAME WHAT RUNNER WHY
    skipped=$((skipped + 1))
    tell "$1" "$2" "$3" "skipped: $4"
}

wanted() { # NAME
    [ "$1" = 'this machine' ] || echo "$1" | grep -qE -- "$pattern"
}

# A float model and images for it: of CIFAR-10, or drawn on the spot.
find_data() {
    model=$shared/models/resnet8_mlperf.safetensors
    data=$(cd "$shared/data/cifar-10-batches-bin" 2>/dev/null && pwd)
    records=$shared/data/mlperf-tiny-ic200/test_batch.bin
    if [ -f "$model" ] && [ -f "$data/data_batch_1.bin" ] && [ -f "$records" ]; then
        subject="ResNet8 for CIFAR-10, MLPerf Tiny's weights and 200 images"
        return 0
    fi
    model=examples/models/resnet8-shapes10.safetensors
    data=$PWD/build/shapes10-data
    records=$data/test_batch.bin
    subject="ResNet8 for Shapes-10 (examples/models), 200 images"
    make -s "build/shapes10-data/test_batch.bin" >"$dir/log" 2>&1
}

# All 200 images go through the preset best, 20 through other kinds of codes.
make_models() {
    find_data || return 1
    head -c $((200 * 3073)) "$records" >"$dir/200.bin"
    head -c $((20 * 3073)) "$records" >"$dir/20.bin"
    others=
    for preset in w4a8 ort-s8 ort-u8 best; do
        integers=$dir/$(basename "$model" .safetensors)-$preset.safetensors
        [ "$integers" -nt "$ptq" ] || "$ptq" quantize --model "$model" --data "$data" \
            --preset $preset -o "$integers" >"$dir/log" 2>&1 || return 1
        [ $preset = best ] || others="$integers $others"
    done
    best=$integers
}

# lacks COMMAND...: says which tool is missing.
lacks() {
    for tool; do
        command -v "$tool" >/dev/null 2>&1 || {
            echo "${tool##*/} is not installed"
            return
        }
    done
}

# Compiles a source file to a program, without a warning; for Windows its name must end as it does.
build() { # COMPILER OUT SOURCE
    case $1 in
    tcc*) strict="-Wall -Werror" language= ;;
    *++*) strict=$warn language="-x c++" ;;
    *) strict=$warn language= ;;
    esac
    # shellcheck disable=SC2086
    $1 $strict -I. -c $language "$3" -o "$2.o" >"$dir/log" 2>&1 &&
        $1 "$2.o" -o "$2" -lm >"$dir/log" 2>&1
}

# Whether the compiler makes programs at all, and whether these run.
can_build() { # COMPILER
    printf '#include <stdio.h>\n#include <math.h>\nint main(void) { return puts("") < 0; }\n' \
        >"$dir/trivial.c"
    build "$1" "$dir/trivial.exe" "$dir/trivial.c"
}

# The sums of the scalar kernels' logits; that others are equal is seen to by the program itself.
sums() {
    awk '/^scalar: logits/ { print $3 }' "$dir/log"
}

run_row() { # NAME COMPILER RUNNER KERNELS SHARE
    why=$(lacks "${2%% *}")
    if [ -z "$why" ] && ! can_build "$2"; then why="${2%% *} has no C library for it"; fi
    if [ -n "$why" ]; then
        skip "$1" "$2" "${3%% *}" "$why"
        return
    fi
    name=$1 runner=$(basename "${3%% *}")
    rm -f "$dir"/kernels*
    if ! build "$2" "$dir/kernels.exe" tests/checks/kernels_main.c; then
        fail "$1" "$2" "$runner"
        return
    fi
    why=$(lacks ${3%% *})
    if [ -z "$why" ] && ! $3 "$dir/trivial.exe" >"$dir/log" 2>&1; then why="$runner cannot run it"; fi
    if [ -n "$why" ]; then
        compiled=$((compiled + 1))
        tell "$1" "$2" "$runner" "only compiled: $why"
        return
    fi
    networks=$((count / $5))
    if ! $3 "$dir/kernels.exe" $networks "$dir/200.bin" "$best" >"$dir/log" 2>&1 ||
        ! $3 "$dir/kernels.exe" 1 "$dir/20.bin" $others >"$dir/more" 2>&1; then
        cat "$dir/more" >>"$dir/log" 2>/dev/null
        fail "$1" "$2" "$runner"
        return
    fi
    cat "$dir/more" >>"$dir/log"
    isas=$(awk -F: '/: logits/ && $1 != "scalar" && !seen[$1]++ { printf " %s", $1 }' "$dir/log")
    reference=${reference-$(sums)}
    if [ "$(sums)" != "$reference" ]; then
        echo 'the logits differ from those of this machine' >>"$dir/log"
        fail "$1" "$2" "$runner"
    elif [ "$4" = vector ] && [ -z "$isas" ]; then
        echo 'there are no vector kernels, but should be' >>"$dir/log"
        fail "$1" "$2" "$runner"
    else
        ran=$((ran + 1))
        tell "$1" "$2" "$runner" "equal; scalar${isas:+, $networks networks on each of$isas}"
    fi
}

# The names of files, and the replacing of one that exists, as Windows has them; seen from outside.
check_names() { # NAME COMPILER RUNNER
    wanted "$1" || return 0
    why=$(lacks "${2%% *}" ${3:+"$3"})
    if [ -n "$why" ]; then
        skip "$1" "$2" "$(basename "$3")" "$why"
        return
    fi
    rm -rf "$dir/names"
    mkdir -p "$dir/names/Bilder 图片"
    head -c 3073 "$dir/20.bin" >"$dir/names/Bilder 图片/test_batch.bin"
    printf '%s\n' Größe b c d e f g h i j >"$dir/names/Bilder 图片/batches.meta.txt"
    if build "$2" "$dir/names/main.exe" tests/checks/file_names_main.c &&
        (cd "$dir/names" && $3 ./main.exe >"$dir/log" 2>&1) &&
        [ "$(cat "$dir/names/Größe 模型.txt" 2>>"$dir/log")" = new ] &&
        ! ls "$dir/names" | grep -q ptq-tmp; then
        ran=$((ran + 1))
        tell "$1" "$2" "$(basename "$3")" "names in UTF-8, replacing of files, folders' names"
    else
        fail "$1" "$2" "$(basename "$3")"
    fi
}

# A check that is a script of its own: it prints what it found, and exits with 77 if it cannot be
# made.
check_script() { # NAME SCRIPT RUNNER
    wanted "$1" || return 0
    BUILD=${BUILD:-build} sh "$2" >"$dir/log" 2>&1
    case $? in
    0) ran=$((ran + 1)); tell "$1" "sh $2" "$3" "$(tail -n 1 "$dir/log")" ;;
    77) skip "$1" "sh $2" "$3" "$(tail -n 1 "$dir/log" | sed 's/^skipped: //')" ;;
    *) fail "$1" "sh $2" "$3" ;;
    esac
}

# An exported network on a microcontroller: its logits, its size, and what it asks for.
check_mcu() { # NAME CPU
    wanted "$1" || return 0
    . examples/mcu/targets.sh
    target "$2"
    why=$(lacks $compiler $emulator)
    board=$(echo "$machine" | sed 's/^-machine \([a-z0-9-]*\).*/\1/')
    if [ -n "$why" ]; then
        skip "$1" "$compiler -O2" "$board" "$why"
    elif PTQ=$ptq sh examples/mcu/run.sh "$best" "$dir/200.bin" 200 "$2" >"$dir/log" 2>&1; then
        ran=$((ran + 1))
        tell "$1" "$compiler -O2" "$emulator $board" "equal; $(awk '
            /flash and RAM/ { getline; flash = $1; ram = $3 }
            /stack, bytes used/ { stack = $NF }
            /neither/ { none = substr($0, 3) }
            END { printf "flash %d, RAM %d, stack %d bytes; %s", flash, ram, stack, none }
            ' "$dir/log")"
    else
        fail "$1" "$compiler -O2" "$emulator $board"
    fi
}

version() { # COMMAND...
    "$@" 2>/dev/null | head -n 1
}

write_table() {
    cat <<END
# Compilers and processors

What \`make check-all\` found on $(date -u +%Y-%m-%d) at commit $commit. To make the table again:

    make check-all TABLE=docs/targets.md

or \`make test-all TABLE=docs/targets.md\`, which goes on to static analysis and coverage.

On Debian 12 all the compilers and emulators come from

    apt-get install g++ clang lld tcc gcc-12-multilib musl-tools gcc-mingw-w64-x86-64-posix wine64 \\
        gcc-{aarch64-linux-gnu,arm-linux-gnueabihf,riscv64-linux-gnu,s390x-linux-gnu} \\
        libc6-dev-{arm64,armhf,riscv64,s390x}-cross qemu-user wasi-libc libclang-rt-dev-wasm32 nodejs \\
        gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm \\
        gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc

*Equal*: compiled without a warning (\`$warn\`; tcc: \`-Wall -Werror\`), run,
and the logits of int8 networks are those of the scalar kernels on x86-64, to the byte: $subject, under the
preset \`best\`, and 20 images under \`ort-u8\`, \`ort-s8\` and \`w4a8\`; for the microcontrollers, 200 images under \`best\`.
Every vector kernel that the processor or its emulator can run gives the same logits, and in random networks the same codes as the scalar kernels. The
row says how many networks, of integers and of real numbers each ($count on the machine itself).

| target | compiler | run by | result |
|---|---|---|---|
$(cat "$dir/table")

$ran rows ran, $compiled could only be compiled, $skipped were skipped, $failures failed.

The machine: $(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo). $(version gcc --version); $(
        version clang --version); $(version x86_64-w64-mingw32-gcc --version); $(
        version aarch64-linux-gnu-gcc --version); $(version arm-none-eabi-gcc --version); $(
        version qemu-aarch64 --version); $(version $wine --version); node $(version node --version).

Not in the table: the compilers of Microsoft and Apple, which were not available; Emscripten, since WebAssembly is built by clang for WASI; VNNI and
AMX where the processor lacks them. \`tests/part3_speed/test_kernels_emulated.c\`, part of \`make test\`, runs those kernels with their instructions
emulated.
END
}

commit=$(git rev-parse --short HEAD 2>/dev/null)
git diff --quiet HEAD -- ptq.h tests examples tools 2>/dev/null || commit="$commit with changes"
mkdir -p "$dir" || exit 1
: >"$dir/table"
if ! make_models; then
    echo "There are no models to compare: $(tail -n 1 "$dir/log")"
    exit 1
fi
echo "Logits of $subject"
rows >"$dir/rows"
while IFS='|' read -r name compiler runner kernels share <&3; do
    name=$(echo $name)
    ! wanted "$name" || run_row "$name" "$(echo $compiler)" "$(echo $runner)" $kernels $share
done 3<"$dir/rows"
check_names 'file names' 'cc -std=c99 -O1 -DPTQ_NO_SIMD' ''
check_names 'file names, Windows' 'x86_64-w64-mingw32-gcc -std=c99 -O1 -DPTQ_NO_SIMD' "$wine"
check_script threads tests/checks/check_threads.sh ThreadSanitizer
check_script 'the page' tests/checks/check_web.sh Chromium
check_mcu Cortex-M0+ cortex-m0plus
check_mcu Cortex-M4 cortex-m4
check_mcu Cortex-M7 cortex-m7
check_mcu Cortex-M55 cortex-m55
check_mcu RV32IMAC rv32imac
echo "$ran rows ran, $compiled only compiled, $skipped skipped, $failures failed"
if [ -n "$table" ]; then
    write_table >"$table.tmp" && mv "$table.tmp" "$table"
fi
exit $((failures > 0))
