# Every example: short enough to read, compiled by itself without a warning, run. What takes seconds
# runs in the first variant alone; with PTQ_TEST_QUICK, the two that convert over and over do not.
# BUILD is where the examples and their pictures are.
. tests/shared/cli.sh
[ -z "${SAN:-}" ] || exit 77
data=$BUILD/shapes10-data
int8=build/models/resnet8-shapes10-int8.safetensors
float=examples/models/resnet8-shapes10.safetensors
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"

# runs WORDS NAME ARGS: exit status 0, nothing on standard error, WORDS in the output.
runs() {
    words=$1
    shift
    "$BUILD/$@" >"$dir/out" 2>"$dir/err" || wrong "exit status $? of $*"
    [ ! -s "$dir/err" ] || wrong "standard error of $*"
    grep -q -e "$words" "$dir/out" || wrong "$* does not print '$words': $(tail -n 3 "$dir/out")"
}

# refuses WORDS NAME ARGS: exit status 1, WORDS on standard error, nothing on standard output.
refuses() {
    words=$1
    shift
    "$BUILD/$@" >"$dir/out" 2>"$dir/err"
    status=$?
    [ $status -eq 1 ] || wrong "exit status $status of $*"
    [ ! -s "$dir/out" ] || wrong "$* fails and prints"
    grep -q -e "$words" "$dir/err" || wrong "$* does not say '$words'"
}

test_length() {
    for file in examples/*.c* examples/[0-9]*/*.[ch] examples/python/*.py; do
        [ "$(wc -l <"$file")" -lt 150 ] || wrong "$file has 150 lines or more"
        awk 'length > 100 { exit 1 }' "$file" || wrong "$file has lines of more than 100 columns"
    done
}

# As a user compiles them: with the implementation inside, which each asks for. Their own code has
# been compiled by make; two of them show that the whole goes together, in both languages.
test_alone() {
    for file in examples/0[1-9]*.c examples/1*.c examples/08_from_cpp.cpp examples/09_two_files/classifier.c; do
        grep -q '^#define PTQ_IMPLEMENTATION$' "$file" || wrong "$file has no implementation"
    done
    ${CC:-cc} -std=c99 $warn -fsyntax-only examples/01_quantize_a_tensor.c 2>"$dir/err" ||
        wrong "01_quantize_a_tensor by itself"
    ${CXX:-c++} -std=c++11 $warn -fsyntax-only examples/08_from_cpp.cpp 2>"$dir/err" ||
        wrong "08_from_cpp by itself"
}

test_quick() {
    runs "picture 2, horizontal.*which is 10.36" 00_no_library
    runs "largest error 0.00" 01_quantize_a_tensor
    "$BUILD/02_evaluate_float" "$float" "$data" 2>/dev/null | grep -q "1857 of 2000 right, 92.85" ||
        wrong "02_evaluate_float counts something else"
    runs "rounding, nothing else" 04_fold_a_batch_norm
    runs "A NaN among the values" 05_watch_an_observer
    runs "^PTQ_IO_ERROR: no-such-model" 08_from_cpp "$int8" "$data"
    refuses "missing.*cannot be opened" 08_from_cpp "$dir/missing" "$data"
    [ "$("$BUILD/08_from_cpp" "$int8" "$data" | awk '/ of / { n += $2 } END { print n }')" = 1862 ] ||
        wrong "08_from_cpp counts something else"
    runs "1862 of 2000 right" 09_two_files "$int8" "$data"
    refuses "missing.*cannot be opened" 09_two_files "$dir/missing" "$data"
    runs "equal to the last bit" 10_no_malloc "$int8"
    refuses "cannot be read" 10_no_malloc "$dir/missing"
    refuses "missing.*cannot be opened" 07_your_own_network "$dir/missing" "$data"
    runs "groups=32" 07_your_own_network --graph
}

# Nothing calls malloc but what the C library itself does for files.
test_no_malloc() {
    cat >"$dir/wrap.c" <<'WRAP'
#include <stdlib.h>
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) { (void)size; abort(); }
WRAP
    if ${CC:-cc} -std=c99 -DPTQ_IMPLEMENTATION_DONE -Wl,--wrap=malloc examples/10_no_malloc.c \
        "$dir/wrap.c" "$BUILD/ptq_impl.o" -pthread -lm -o "$dir/wrapped" 2>/dev/null; then
        "$dir/wrapped" "$int8" >"$dir/out" 2>"$dir/err" || wrong "10_no_malloc calls malloc"
    else
        echo "this linker cannot wrap malloc: not tested"
    fi
}

# A green ring of 300 x 200 pixels as JPEG, PNG and BMP.
make_pictures() {
    cat >"$dir/draw.c" <<'DRAW'
#include <stb/stb_image_write.h>
int main(void)
{
    static unsigned char p[200][300][3];
    for (int y = 0; y < 200; y++)
        for (int x = 0; x < 300; x++) {
            int r = (x - 150) * (x - 150) + (y - 100) * (y - 100), in = r < 80 * 80 && r > 45 * 45;
            p[y][x][0] = (unsigned char)(in ? 30 : 200 - y / 4);
            p[y][x][1] = (unsigned char)(in ? 150 : 190 - y / 4);
            p[y][x][2] = (unsigned char)(in ? 60 : 170);
        }
    return !(stbi_write_jpg("ring.jpg", 300, 200, 3, p, 90) &&
             stbi_write_png("ring.png", 300, 200, 3, p, 900) &&
             stbi_write_bmp("ring.bmp", 300, 200, 3, p));
}
DRAW
    ${CC:-cc} ${COVERAGE:+--coverage} -w "$dir/draw.c" "$BUILD/stb.o" -lm -o "$dir/draw" &&
        (cd "$dir" && ./draw)
}

test_pictures() {
    runs "^1. heart " 06_classify_a_picture
    runs "integers" 06_classify_a_picture
    make_pictures || wrong "no pictures"
    cp "$float" "$dir/both.safetensors"
    cp "$int8" "$dir/both-int8.safetensors"
    for kind in jpg png bmp; do
        runs "^1. ring " 06_classify_a_picture "$dir/ring.$kind" "$dir/both.safetensors" "$data"
        runs "ring.$kind, 300 x 200 pixels" 06_classify_a_picture "$dir/ring.$kind"
        [ "$(grep -c '%' "$dir/out")" -eq 5 ] || wrong "not the top five"
        grep -q "ship\|airplane\|automobile" "$dir/out" || wrong "no class of CIFAR-10"
    done
    printf 'P6\n1 1\n255\nabc' >"$dir/dot.ppm"
    runs "1 x 1 pixels" 06_classify_a_picture "$dir/dot.ppm"
    refuses "missing.png: can't fopen" 06_classify_a_picture "$dir/missing.png"
    refuses "unknown image type" 06_classify_a_picture README.md
    cp "$float" "$dir/mine.safetensors"
    refuses "ptq quantize --model $dir/mine.safetensors --data DATA -o $dir/mine-int8.safetensors" \
        06_classify_a_picture "$dir/ring.png" "$dir/mine.safetensors" "$data"
}

# The program in README.md prints what stands there; so does the picture's table, as for integers.
test_readme() {
    awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$dir/readme.c"
    ${CC:-cc} -std=c99 $warn -DPTQ_IMPLEMENTATION_DONE -I. "$dir/readme.c" "$BUILD/ptq_impl.o" \
        -pthread -lm -o "$dir/readme" 2>"$dir/err" || wrong "the program in README.md"
    grep -qxF "    $("$dir/readme")" README.md || wrong "README.md's program prints $("$dir/readme")"
    [ -x "$BUILD/06_classify_a_picture" ] || return 0
    "$BUILD/06_classify_a_picture" | awk '/^[1-5]\. / { print $1, $2, $5 }' >"$dir/now"
    awk '/^    [1-5]\. / { print $1, $2, $5 }' README.md | cmp - "$dir/now" || wrong "README.md's heart"
}

# The table is headed by what it was made of.
test_run() {
    MAKEFLAGS='' make -n run CIFAR10_DIR="$dir/data" PTQ_MODEL="$dir/model" 2>/dev/null |
        grep -q "CIFAR-10: $dir/data; model: $dir/model" || wrong "make run does not say what it takes"
}

test_slow() {
    test_readme
    test_run
    runs "^w4a8  *[0-9]* of 2000 right" 07_your_own_network
    [ -z "${PTQ_TEST_QUICK:-}" ] || return 0
    runs "^w4a8  *[0-9]* of 200 " 03_calibrate_convert_evaluate "$float" "$data" 200
    "$BUILD/shapes10" "$dir/few" --train 40 --test 200 >"$dir/out" || wrong "no few pictures"
    runs "^by search .*  [0-9]* bytes, 1[89][0-9] of 200 right" 11_mixed_bits "$float" "$dir/few"
}

test_length
[ "$BUILD" != build ] || test_alone
test_quick
[ "${CC:-cc}" = clang ] || test_no_malloc
if [ -x "$BUILD/06_classify_a_picture" ]; then
    test_pictures
else
    echo "no stb_image: 06_classify_a_picture is not tested"
fi
[ "$BUILD" != build ] || test_slow
[ $failures -eq 0 ]
