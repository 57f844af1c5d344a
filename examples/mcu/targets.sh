# Processors, to be read by other scripts: "target CPU" says by which compiler, and which machine of
# QEMU. Debian's arm-none-eabi-gcc; riscv64-unknown-elf-gcc with picolibc. Cortex-M0+ is compiled
# for, and executed by a Cortex-M3, which knows all its instructions: QEMU has no board with one.
mcu_cpus="cortex-m0plus cortex-m4 cortex-m7 cortex-m55 rv32imac"

target() { # CPU: sets compiler, flags, emulator, and the names of both that must be there
    compiler=arm-none-eabi-gcc emulator=qemu-system-arm
    flags="-mthumb -mcpu=$1 --specs=nano.specs"
    case $1 in
    cortex-m0plus) machine="-machine mps2-an385 -cpu cortex-m3" ;;
    cortex-m4) machine="-machine mps2-an386 -cpu cortex-m4" ;;
    cortex-m7) machine="-machine mps2-an500 -cpu cortex-m7" ;;
    cortex-m55) # without a unit for floats the compiler would leave Helium out too
        flags="$flags -mfloat-abi=hard"
        machine="-machine mps3-an547 -cpu cortex-m55"
        ;;
    rv32imac)
        compiler=riscv64-unknown-elf-gcc emulator=qemu-system-riscv32
        flags="-march=rv32imac -mabi=ilp32 --specs=picolibc.specs -Wl,--no-warn-rwx-segments"
        machine="-machine virt -bios none"
        ;;
    *) echo "no such processor: $1; there are $mcu_cpus" >&2 && return 1 ;;
    esac
    machine="$machine -nographic -monitor none -serial none"
    machine="$machine -semihosting-config enable=on,target=native"
}

# build CPU OPTIMIZATION WORK MORE...: from net.h in WORK to net.elf in WORK; $here is this folder. The
# linker script is the processor's, or one of the same name in WORK.
build() {
    target "$1" || return 1
    cpu=$1 level=$2 into=$3 script=$here/$1.ld
    [ ! -f "$into/$1.ld" ] || script=$into/$1.ld
    shift 3
    $compiler -std=c99 "$level" -Wall -Wextra $flags -I"$into" -ffunction-sections -fdata-sections \
        -Wl,--gc-sections -nostartfiles -L"$here" -T "$script" "$@" \
        "$here/main.c" "$here/startup.c" -o "$into/net.elf"
}

# emulate WORK MORE...: runs net.elf there
emulate() {
    (cd "$1" && shift && $emulator $machine -kernel net.elf "$@" 2>&1)
}

# sizes ELF: flash and RAM in bytes, the reserve of the stack not in it
sizes() {
    ${compiler%gcc}size -A "$1" | awk '
        $1 == ".text" || $1 == ".data" || $1 == ".ARM.exidx" { flash += $2 }
        $1 == ".bss" || $1 == ".data" { ram += $2 }
        END { print flash, ram }'
}
