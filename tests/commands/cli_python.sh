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
import classify
import ptq

path, model_path, logits_path, array_path = sys.argv[1:]
images, labels = classify.read_cifar10(path)
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
model = ptq.Model(model_path)
model.close()
for use in (lambda: session.run(images), lambda: ptq.Plan(model)):
    try:
        use()
        raise SystemExit("what is closed is used")
    except ValueError as error:
        assert "is closed" in str(error), error

# As many bytes in another shape are other pixels.
for bad, kind, words in (
    (images.astype(np.float32), TypeError, "uint8"),
    (images[:, :8], ValueError, "N x 32 x 32 x 3, channels last; these are (300, 8, 32, 3)"),
    (images.transpose(0, 3, 1, 2), ValueError, "channels last; these are (300, 3, 32, 32)"),
    (images[0], ValueError, "these are (32, 32, 3)"),
    (images.reshape(300, -1), ValueError, "these are (300, 3072)"),
    (images.reshape(300, 16, 64, 3), ValueError, "these are (300, 16, 64, 3)"),
    (images[0, 0, 0, 0], ValueError, "these are ()"),
):
    try:
        ptq.Session(ptq.Plan(ptq.Model(model_path))).run(bad)
        raise SystemExit("taken: %s %s" % (bad.dtype, bad.shape))
    except kind as error:
        assert words in str(error), error
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
# Variables that live until the script ends, also in a cycle, where Python chooses the order. What
# was made last must go first: the other way round memory is read after it was freed, which may
# crash or not; hence the order itself is looked at.
cat >"$dir/globals.py" <<'TEST'
import os
import sys
import numpy as np
import ptq

def told(name, write=os.write):
    release = getattr(ptq._lib, name)
    def call(pointer):
        write(1, name.encode() + b" ")
        release(pointer)
    return call

for kind in ("model", "plan", "session"):
    setattr(ptq._lib, "ptq_%s_free" % kind, told("ptq_%s_free" % kind))
model = ptq.Model(sys.argv[1])
plan = ptq.Plan(model)
session = ptq.Session(plan)
if sys.argv[2] == "cycle":
    model.cycle = plan.cycle = session.cycle = globals()
session.run(np.zeros((1, 32, 32, 3), np.uint8))
TEST
for run in 1 2 3 4 5 6 7 8 9 10; do
    for how in plain cycle; do
        PYTHONHASHSEED=$run $python "$dir/globals.py" "$int8" $how >"$dir/out" 2>"$dir/err" ||
            wrong "exit status $? at the end of a script"
        # The first is the model as loaded, before it is fused.
        prints "^ptq_model_free ptq_session_free ptq_plan_free ptq_model_free $"
    done
done
classifies "^same class on" "$dir/images.npy" "$float" "$int8"
! grep -q right "$dir/out" || wrong "an array has no labels"
if PTQ_LIBRARY=$dir/none.so $python -c 'import ptq' 2>"$dir/err"; then
    wrong "a library that is missing"
fi
grep -q "'make lib' builds it" "$dir/err" || wrong "the message for a missing library"
[ $failures -eq 0 ]
