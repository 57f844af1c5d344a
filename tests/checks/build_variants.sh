#!/bin/sh
# Compiles the header in every way that it promises to be compiled, with CC and CXX; BUILD is where
# products go. PTQ_TEST_QUICK: two dialects, not all. Prints one line and fails at the first that does not work.
cc=${CC:-cc}
cxx=${CXX:-c++}
dir=${BUILD:-build}/variants
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"

rm -rf "$dir"
mkdir -p "$dir" || exit 1

fail() {
    echo "build_variants: $1"
    [ ! -s "$dir/log" ] || head -n 20 "$dir/log"
    exit 1
}

# try WHAT COMMAND...
try() {
    what=$1
    shift
    "$@" >"$dir/log" 2>&1 || fail "$what: $*"
}

# A program in two files: one holds the implementation, the other uses it.
cat >"$dir/impl.c" <<'END'
#define PTQ_IMPLEMENTATION
#include "ptq.h"
END

cat >"$dir/main.c" <<'END'
#include "ptq.h"
#include "ptq.h"
int main(void)
{
    ptq_model *model = NULL;
    ptq_plan *plan = NULL;
    ptq_session *session = NULL;
    ptq_error err;
    static const uint8_t pixels[8 * 8 * 3] = {0};
    float p[4];
    int good = !ptq_resnet8(8, 4, 4, NULL, &model, &err) &&
               !ptq_plan_create(model, NULL, &plan, &err) &&
               !ptq_session_create(plan, NULL, &session, &err) &&
               !ptq_run(session, pixels, 1, NULL, p, &err) && p[0] == 0.25f && p[3] == 0.25f;
    ptq_session_free(session);
    ptq_plan_free(plan);
    ptq_model_free(model);
    return good ? 0 : 1;
}
END

# The same in one file, for variants that have no other.
{
    echo '#define PTQ_IMPLEMENTATION'
    cat "$dir/main.c"
} >"$dir/whole.c"

# 1. No warning in any dialect, with any of the macros. What only an optimizer notices, the build of
# the tool shows.
as_c() { # STANDARD FLAGS...
    try "warnings as $*" $cc $warn -fsyntax-only -std="$@" -I. "$dir/whole.c"
}
as_cxx() { # STANDARD FLAGS...
    try "warnings as $*" $cxx $warn -fsyntax-only -std="$@" -I. -x c++ "$dir/whole.c"
}
as_c c99
as_cxx c++11 -DPTQ_THREADS
if [ -z "${PTQ_TEST_QUICK:-}" ]; then
    as_cxx c++11
    as_c c99 -DPTQ_THREADS
    for flags in -DNDEBUG -DPTQ_STATIC "-DPTQ_NO_STDIO -DPTQ_NO_SIMD"; do
        as_c c99 $flags
        as_cxx c++11 $flags
    done
    as_c c11
    as_cxx c++17
    as_c c99 "-DPTQ_MALLOC(n)=0" "-DPTQ_FREE(p)=((void)(p))"
fi
if $cc -std=c99 -I. "-DPTQ_MALLOC(n)=0" -c "$dir/impl.c" -o "$dir/o" 2>/dev/null; then
    fail "PTQ_MALLOC without PTQ_FREE is accepted"
fi

# 2. Two files, linked and run: C with C, C++ with the C object, C++ with C++, all static in one.
try "C object" $cc -std=c99 -I. -c "$dir/impl.c" -o "$dir/impl.o"
try "C++ object that uses it" $cxx -std=c++11 -I. -x c++ -c "$dir/main.c" -o "$dir/main_cxx.o"
try "link of C++ with C" $cxx "$dir/main_cxx.o" "$dir/impl.o" -lm -o "$dir/mixed"
try "run of C++ with C" "$dir/mixed"
macros="STATIC NO_SIMD"
if [ -z "${PTQ_TEST_QUICK:-}" ]; then
    try "C object that uses it" $cc -std=c99 -I. -c "$dir/main.c" -o "$dir/main.o"
    try "C++ object" $cxx -std=c++11 -I. -x c++ -c "$dir/impl.c" -o "$dir/impl_cxx.o"
    try "link of two C objects" $cc "$dir/main.o" "$dir/impl.o" -lm -o "$dir/two"
    try "run of two C objects" "$dir/two"
    try "link of two C++ objects" $cxx "$dir/main_cxx.o" "$dir/impl_cxx.o" -lm -o "$dir/cxx"
    try "run of two C++ objects" "$dir/cxx"
    macros="STATIC NO_STDIO NO_SIMD"
fi
for macro in $macros; do
    try "object with PTQ_$macro" $cc -std=c99 -I. -DPTQ_$macro -c "$dir/whole.c" -o "$dir/$macro.o"
    try "link with PTQ_$macro" $cc "$dir/$macro.o" -lm -o "$dir/variant"
    try "run with PTQ_$macro" "$dir/variant"
done

# What only runs answers as the whole does.
cat >"$dir/run.c" <<'END'
#define PTQ_IMPLEMENTATION
#include "ptq.h"
#include <stdio.h>
int main(int argc, char **argv)
{
    static uint8_t pixels[64 * 64 * 3];
    float logits[16] = {0};
    ptq_error err;
    ptq_net *net = NULL;
    size_t i;
    for (i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37 % 251);
    if (argc < 2 || ptq_net_open(argv[1], &net, &err) || ptq_net_run(net, pixels, logits, &err))
        return 1;
    ptq_net_free(net);
    for (i = 0; i < 16; i++)
        printf("%.9g\n", (double)logits[i]);
    return 0;
}
END
if [ -z "${PTQ_TEST_QUICK:-}" ]; then
    for macro in RUN_ONLY NO_SEARCH STATIC; do
        try "program with PTQ_$macro" $cc $warn -Wno-unused-function -std=c99 -O1 -DPTQ_NO_SIMD \
            -DPTQ_$macro -I. "$dir/run.c" -lm -o "$dir/runs"
        "$dir/runs" tests/data/tiny-int8.safetensors >"$dir/log" || fail "no answer with PTQ_$macro"
        cp "$dir/log" "$dir/answer.$macro"
    done
    cmp "$dir/answer.STATIC" "$dir/answer.RUN_ONLY" || fail "another answer with PTQ_RUN_ONLY"
    cmp "$dir/answer.STATIC" "$dir/answer.NO_SEARCH" || fail "another answer with PTQ_NO_SEARCH"
fi

# 3. Two private copies live side by side, and neither gives names away.
sed 's/int main/int second(void);\nint second/' "$dir/whole.c" >"$dir/second.c"
try "second static copy" $cc -std=c99 -DPTQ_STATIC -DPTQ_NO_SIMD -I. -c "$dir/second.c" \
    -o "$dir/second.o"
try "link of two static copies" $cc "$dir/STATIC.o" "$dir/second.o" -lm -o "$dir/copies"

# 4. The names that go out.
if command -v nm >/dev/null 2>&1; then
    # Not the weak ones: in C++ those are the standard library's own inline functions.
    names() { nm -g "$1" | awk 'NF == 3 && $2 ~ /[TDBRC]/ { sub(/^_/, "", $3); print $3 }'; }
    odd=$(names "$dir/impl.o" | grep -v '^ptq_[a-z0-9]' | tr '\n' ' ')
    [ -z "$odd" ] || fail "exports $odd"
    odd=$(names "$dir/impl.o" | grep '^ptq__' | tr '\n' ' ')
    [ -z "$odd" ] || fail "exports names of its own: $odd"
    if [ -f "$dir/impl_cxx.o" ]; then
        odd=$(names "$dir/impl_cxx.o" | grep -v '^ptq_[a-z0-9]' | tr '\n' ' ')
        [ -z "$odd" ] || fail "as C++ exports $odd"
    fi
    odd=$(names "$dir/second.o" | grep -v '^second$' | tr '\n' ' ')
    [ -z "$odd" ] || fail "with PTQ_STATIC exports $odd"
    nm -u "$dir/impl.o" >"$dir/log"
    if [ -f "$dir/NO_STDIO.o" ]; then
        odd=$(nm -u "$dir/NO_STDIO.o" | grep -E 'f?(open|close|read|write|printf|getc|rename|remove)$')
        [ -z "$odd" ] || fail "with PTQ_NO_STDIO needs $odd"
    fi
    : >"$dir/log"
fi

# 5. The macros that stay behind an #include: only ptq's own and those of the two headers it needs.
macros() { $cc -std=c99 -dM -E -I. -x c - | sed 's/#define \([A-Za-z0-9_]*\).*/\1/' | sort; }
printf '#include "ptq.h"\n' | macros >"$dir/after" 2>/dev/null
printf '#include <stddef.h>\n#include <stdint.h>\n' | macros >"$dir/before" 2>/dev/null
odd=$(comm -13 "$dir/before" "$dir/after" | grep -v '^PTQ_' | tr '\n' ' ')
[ -z "$odd" ] || fail "leaves the macros $odd"
odd=$(comm -13 "$dir/before" "$dir/after" | grep '^PTQ_X$')
[ -z "$odd" ] || fail "leaves its working macro $odd"

# 6. Names that <windows.h> defines as macros (rpcndr.h: small, hyper; minwindef.h: near, far, min, max;
# combaseapi.h: interface; wingdi.h: ERROR, DIFFERENCE). Other headers first, which may use them.
cat >"$dir/windows.c" <<'END'
#ifdef __x86_64__
#include <immintrin.h>
#endif
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#define small char
#define hyper long long
#define near
#define far
#define NEAR
#define FAR
#define IN
#define OUT
#define OPTIONAL
#define CONST const
#define VOID void
#define BYTE unsigned char
#define BOOL int
#define TRUE 1
#define FALSE 0
#define interface struct
#define pascal
#define cdecl
#define uuid(x)
#define ERROR 0
#define IGNORE 0
#define STRICT 1
#define DIFFERENCE 11
#define TRANSPARENT 1
#define ABSOLUTE 1
#define RELATIVE 2
#define environ (*_environ())
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
END
cat "$dir/whole.c" >>"$dir/windows.c"
try "beside the macros of windows.h" $cc -std=c99 -D_GNU_SOURCE -I. -fsyntax-only "$dir/windows.c"
[ -n "${PTQ_TEST_QUICK:-}" ] ||
    try "C++ beside them" $cxx -std=c++11 -I. -fsyntax-only -x c++ "$dir/windows.c"

# 7. A small compiler, if there is one.
if command -v tcc >/dev/null 2>&1; then
    try "tcc" tcc -std=c99 -Wall -Werror -I. "$dir/whole.c" -lm -o "$dir/tcc"
    try "run of tcc's program" "$dir/tcc"
fi
rm -rf "$dir"
