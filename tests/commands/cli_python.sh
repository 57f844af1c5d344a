# The example for Python: ctypes and numpy on the shared library. In the first variant alone.
. tests/shared/cli.sh
if [ "$BUILD" != build ]; then
    echo "skipped: runs in build/ only"
    exit 77
fi
python=/usr/bin/python3
if ! $python -c 'import numpy' 2>/dev/null; then
    echo "python3-numpy is not installed: examples/python is not tested"
    exit 77
fi
float=examples/models/resnet8-shapes10.safetensors
int8=build/models/resnet8-shapes10-int8.safetensors
images=$dir/images.bin
export PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=examples/python

# classifies WORDS ARGS: the example prints WORDS.
classifies() {
    words=$1
    shift
    $python examples/python/classify.py "$@" >"$dir/out" 2>"$dir/err" || wrong "classify.py $*"
    prints "$words"
}

# fails WORDS ARGS: one line on standard error, exit status 1.
fails() {
    words=$1
    shift
    ! $python examples/python/classify.py "$@" >"$dir/out" 2>"$dir/err" || wrong "no failure of $*"
    [ "$(wc -l <"$dir/err")" -eq 1 ] && grep -q "^classify.py: .*$words" "$dir/err" ||
        wrong "classify.py $* does not say '$words'"
}

make -s lib >"$dir/err" 2>&1 || wrong "make lib"
head -c $((300 * 3073)) build/shapes10-data/test_batch.bin >"$images"
classifies "^integers 1862 of 2000 right, 93.10 %"
prints "^float    1857 of 2000 right"
prints "^same class on 99.60 %"
fails "missing.bin" "$dir/missing.bin" "$float" "$int8"
fails "records of 3,073 bytes" README.md "$float" "$int8"
fails "cannot be opened" "$images" "$dir/missing" "$int8"

# The same logits as the tool's to the last bit, whatever the layout of the array.
accepts run --model "$int8" --images "$images" --logits "$dir/logits.f32"
$python - "$images" "$int8" "$dir/logits.f32" "$dir/images.npy" >"$dir/out" 2>"$dir/err" <<'TEST' || wrong "ptq.py"
import sys
import numpy as np
import ptq

path, model_path, logits_path, array_path = sys.argv[1:]
images, labels = ptq.read_cifar10(path)
wanted = np.fromfile(logits_path, dtype=np.float32).reshape(-1, 10)
assert images.shape == (300, 32, 32, 3) and labels.max() == 9
np.save(array_path, np.ascontiguousarray(images))

# Objects go in any order; what is needed stays.
session = ptq.Session(ptq.Plan(ptq.Model(model_path)))
assert np.array_equal(session.run(images), wanted)
assert np.array_equal(session.run(images[::2]), wanted[::2])
assert np.array_equal(session.run(np.asfortranarray(images)), wanted)
assert session.run(images[:0]).shape == (0, 10)
session.close()
session.close()

for bad, kind in ((images.astype(np.float32), TypeError), (images[:, :8], ValueError)):
    try:
        ptq.Session(ptq.Plan(ptq.Model(model_path))).run(bad)
        raise SystemExit("taken: %s %s" % (bad.dtype, bad.shape))
    except kind:
        pass
try:
    ptq.Model("no-such-file")
    raise SystemExit("a missing file is a model")
except ptq.Error as error:
    assert error.status == "PTQ_IO_ERROR" and "no-such-file" in str(error)

# What is dropped is freed: the resident size stops growing.
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def churn(times):
    for _ in range(times):
        ptq.Session(ptq.Plan(ptq.Model(model_path))).run(images[:1])
    return resident()

first = churn(20)
assert churn(200) < first + 1000, "memory grows"
TEST
classifies "^same class on" "$dir/images.npy" "$float" "$int8"
! grep -q right "$dir/out" || wrong "an array has no labels"
if PTQ_LIBRARY=$dir/none.so $python -c 'import ptq' 2>"$dir/err"; then
    wrong "a library that is missing"
fi
grep -q "'make lib' builds it" "$dir/err" || wrong "the message for a missing library"
[ $failures -eq 0 ]
