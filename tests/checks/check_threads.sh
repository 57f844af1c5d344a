#!/bin/sh
# check_threads.sh    Many threads under ThreadSanitizer, with clang or gcc. Prints one line; exit
#                     status 0 if nothing raced and every result was that of one thread, 77 if the
#                     machine cannot do it. Takes a minute to compile.
cd "$(dirname "$0")/../.." || exit 1
dir=${BUILD:-build}/cross
mkdir -p "$dir"
for cc in clang gcc; do
    echo 'int main(void) { return 0; }' >"$dir/trivial.c"
    if $cc -fsanitize=thread "$dir/trivial.c" -o "$dir/trivial" >"$dir/log" 2>&1 &&
        "$dir/trivial" >"$dir/log" 2>&1; then
        break
    fi
    cc=
done
if [ -z "$cc" ]; then
    echo 'skipped: no compiler here has ThreadSanitizer'
    exit 77
fi
$cc -std=c99 -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -ffp-contract=off -I. \
    -D_POSIX_C_SOURCE=200809L -fsanitize=thread tests/checks/threads_main.c -o "$dir/threads" -pthread -lm \
    >"$dir/log" 2>&1 && TSAN_OPTIONS=halt_on_error=1 "$dir/threads" >"$dir/log" 2>&1 || {
    echo "FAILED: $(tail -n 40 "$dir/log")"
    exit 1
}
echo "$(cat "$dir/log") ($cc)"
