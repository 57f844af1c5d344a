# The tool as a program: its help, completion, man page, installation, and what it writes to
# terminals. PTQ is the tool's path, BUILD where it was built. In the first variant alone: compilers
# do not matter.
. tests/shared/cli.sh
if [ "$BUILD" != build ]; then
    echo "skipped: runs in build/ only"
    exit 77
fi
commands=$("$PTQ" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p')

# Options of a subcommand as its help lists them, one a line; `values` with their placeholders.
options() {
    "$PTQ" "$1" --help | sed -n 's/^  \(-[a-z],\|   \) \(--[a-z-]*\).*/\2/p'
}

# Every subcommand has an example, and one that this very subcommand understands.
test_help() {
    [ "$(echo $commands | wc -w)" -ge 12 ] || wrong "subcommands: $commands"
    for command in $commands; do
        "$PTQ" $command --help >"$dir/help"
        sed -n '/^Example:/,$p' "$dir/help" | grep "^  ptq " >"$dir/examples"
        [ -s "$dir/examples" ] || wrong "ptq $command --help has no example"
        grep -v "^  ptq $command" "$dir/examples" && wrong "example of another subcommand"
        for option in $(tr ' ' '\n' <"$dir/examples" | grep '^--[a-z]'); do
            options $command | grep -qxe "$option" || wrong "ptq $command has no $option"
        done
        for letter in $(tr ' ' '\n' <"$dir/examples" | grep -x '\-[a-z]'); do
            grep -q "^  $letter, " "$dir/help" || wrong "ptq $command has no $letter"
        done
    done
}

# offers WORDS...: what bash would offer for the last of them, in $dir/offer.
offers() {
    bash -c '
        . tools/install/ptq.bash
        program=$1
        shift
        COMP_WORDS=(ptq "$@")
        COMP_CWORD=$#
        _ptq "$program" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$PTQ" "$@" >"$dir/offer" 2>"$dir/err" ||
        wrong "completion of ptq $*"
    [ ! -s "$dir/err" ] || wrong "completion of ptq $* writes to standard error"
}

has() {
    grep -qxe "$1" "$dir/offer" || wrong "'$1' is not offered"
}

test_bash() {
    command -v bash >/dev/null 2>&1 || return 0
    offers ''
    for command in $commands --help; do has "$command"; done
    offers qu
    [ "$(cat "$dir/offer")" = quantize ] || wrong "ptq qu becomes $(cat "$dir/offer")"
    for command in $commands; do
        offers $command --
        options $command >"$dir/options"
        [ "$(wc -l <"$dir/options")" -gt 2 ] || wrong "options of $command"
        cmp "$dir/options" "$dir/offer" || wrong "options offered for $command"
    done
    mkdir "$dir/place"
    : >"$dir/place/net.safetensors"
    for words in "eval --model" "eval -m" "info" "quantize --json" "report -o"; do
        offers $words "$dir/place/n"
        has "$dir/place/net.safetensors"
    done
    offers quantize --samples ''
    [ -z "$(cat "$dir/offer")" ] || wrong "a number is completed"
}

# The help of a subcommand, what goes on in the next line joined.
unfolded() {
    "$PTQ" "$1" --help | awk '/^                    / { line = line $0; next } { print line; line = $0 }
        END { print line }'
}

# Values that are offered are values that the program knows: those that its help or its errors name.
test_values() {
    command -v bash >/dev/null 2>&1 || return 0
    offers quantize -p ''
    for preset in best ort-u8 ort-s8 fbgemm tflite dynamic fp16 w4a8; do has $preset; done
    offers bench --isa ''
    "$PTQ" bench --isa nonsense 2>&1 | sed 's/.*choose one of //; s/, /\n/g' | cmp - "$dir/offer" ||
        wrong "instruction sets"
    for pair in quantize:weight-range quantize:activation-range quantize:activation-type \
        quantize:rounding quantize:refit quantize:bias-correction sweep:scales sweep:activation-ranges \
        train:optimizer train:isa export:form; do
        offers ${pair%%:*} --${pair#*:} ''
        [ "$(wc -l <"$dir/offer")" -ge 2 ] || wrong "no values for --${pair#*:}"
        for value in $(cat "$dir/offer"); do
            unfolded ${pair%%:*} | grep -e "--${pair#*:} " | grep -qw -e "$value" ||
                wrong "--${pair#*:} $value is not in the help"
        done
    done
    offers report --figure ''
    has frontier
    has histogram
}

test_man() {
    sh tools/install/manpage.sh "$PTQ" >"$dir/ptq.1" || wrong "the man page cannot be made"
    for command in $commands; do
        sed -n "/^\.SS ptq $command\$/,/^\.S[SH]/p" "$dir/ptq.1" | sed 's/\\-/-/g' >"$dir/section"
        for option in $(options $command); do
            grep -q -e "$option" "$dir/section" || wrong "the man page lacks $command $option"
        done
        grep -q "^ptq $command" "$dir/section" || wrong "no example of $command in the man page"
    done
    if ! command -v man >/dev/null 2>&1; then
        echo "man is not installed: the man page is not formatted"
        return
    fi
    LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l "$dir/ptq.1" >"$dir/page" 2>"$dir/err" </dev/null
    [ ! -s "$dir/err" ] || wrong "the man page has mistakes"
    [ "$(wc -l <"$dir/page")" -gt 300 ] || wrong "the man page is short"
}

# The program that a user of an installed header writes; the library's object stands for the
# implementation, which takes long to compile.
write_program() {
    cat >"$dir/app.c" <<'APP'
#include <stdio.h>
#include <string.h>
#include <ptq.h>
int main(void) { return puts(ptq_version()) < 0 || strcmp(ptq_version(), PTQ_VERSION) != 0; }
APP
}

test_install() {
    version=$("$PTQ" --version | cut -d' ' -f2)
    make -s install PREFIX="$dir/usr" >"$dir/out" 2>"$dir/err" || wrong "make install"
    make -s install PREFIX=/opt/ptq DESTDIR="$dir/stage" >"$dir/out" 2>"$dir/err" ||
        wrong "make install with DESTDIR"
    [ "$(wc -l <"$dir/out")" -eq 8 ] || wrong "make install does not tell what it installs"
    (cd "$dir/usr" && find . -type f) | sort >"$dir/one"
    (cd "$dir/stage/opt/ptq" && find . -type f) | sort | cmp - "$dir/one" || wrong "DESTDIR"
    ! grep -rq "$dir" "$dir/stage" || wrong "DESTDIR stands in an installed file"
    cmp ptq.h "$dir/usr/include/ptq.h" || wrong "the header installed"
    [ "$("$dir/usr/bin/ptq" --version)" = "ptq $version" ] || wrong "the program installed"
    write_program
    export PKG_CONFIG_PATH="$dir/usr/share/pkgconfig"
    [ "$(pkg-config --modversion ptq)" = "$version" ] || wrong "pkg-config's version"
    ${CC:-cc} "$dir/app.c" $(pkg-config --cflags ptq) "$BUILD/ptq_impl.o" -pthread \
        $(pkg-config --libs ptq) -o "$dir/app" 2>"$dir/err" && "$dir/app" >/dev/null ||
        wrong "a program with pkg-config"
    test_cmake
    make -s uninstall PREFIX="$dir/usr" || wrong "make uninstall"
    [ -z "$(find "$dir/usr" -type f)" ] || wrong "make uninstall leaves files"
    ! make -s install PREFIX=relative >"$dir/out" 2>"$dir/err" || wrong "a relative PREFIX"
}

test_cmake() {
    if ! command -v cmake >/dev/null 2>&1; then
        echo "cmake is not installed: find_package is not tested"
        return
    fi
    mkdir -p "$dir/project"
    cp "$dir/app.c" "$dir/project"
    cat >"$dir/project/CMakeLists.txt" <<LISTS
cmake_minimum_required(VERSION 3.5)
project(app C)
find_package(ptq $version REQUIRED)
find_package(ptq 99 QUIET)
if(ptq_FOUND)
    message(FATAL_ERROR "a version of the future is found")
endif()
find_package(ptq REQUIRED)
add_executable(app app.c $PWD/$BUILD/ptq_impl.o)
target_link_libraries(app ptq::ptq -pthread)
LISTS
    cmake -S "$dir/project" -B "$dir/project/build" -DCMAKE_PREFIX_PATH="$dir/usr" \
        >"$dir/err" 2>&1 && cmake --build "$dir/project/build" >>"$dir/err" 2>&1 &&
        "$dir/project/build/app" >/dev/null || wrong "a program with find_package"
}

# On a terminal progress overwrites its line; nowhere is there colour, and a file gets neither.
test_terminal() {
    if ! script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
        echo "script is not installed: terminals are not tested"
        return
    fi
    command="$PTQ eval --model build/models/resnet8-shapes10-int8.safetensors"
    command="$command --data build/shapes10-data --limit 1500 --threads 1"
    escape=$(printf '\033')
    TERM=xterm script -qec "$command" /dev/null >"$dir/xterm" 2>/dev/null </dev/null
    TERM=dumb script -qec "$command" /dev/null >"$dir/dumb" 2>/dev/null </dev/null
    TERM=xterm $command >"$dir/file" 2>&1
    grep -q "${escape}\[K" "$dir/xterm" || wrong "no progress on a terminal"
    ! grep -q "${escape}\[[0-9;]*m" "$dir/xterm" || wrong "colour"
    for name in dumb file; do
        ! grep -q "$escape" "$dir/$name" || wrong "escape sequences in $name"
        grep -q "of 1500 right" "$dir/$name" || wrong "no result in $name"
    done
}

test_help
test_bash
test_values
test_man
[ ! -x "$(command -v zsh)" ] || zsh -n tools/install/_ptq || wrong "the completion for zsh"
if command -v pkg-config >/dev/null 2>&1; then test_install; fi
test_terminal
[ $failures -eq 0 ]
