# tools/python: the package and its example. In the first variant alone; as a user installs it, from
# the folder and from the source distribution, away from this project, or, without venv, around the
# library that is compiled already.
. tests/shared/cli.sh
if [ "$BUILD" != build ]; then
    echo "skipped: runs in build/ only"
    exit 77
fi
python=/usr/bin/python3
for module in numpy cffi setuptools wheel pytest; do
    if ! $python -c "import $module" 2>/dev/null; then
        echo "python3-$module is not installed: tools/python is not tested"
        exit 77
    fi
done
export PYTHONDONTWRITEBYTECODE=1
PTQ_TOOL=$PWD/$PTQ
PTQ_SHAPES=build/shapes10-data
export PTQ_TOOL PTQ_SHAPES

# For other languages there is the library by itself.
make -s lib >"$dir/err" 2>&1 || wrong "make lib"
$python -c 'import ctypes; f = ctypes.CDLL("build/libptq.so").ptq_version
f.restype = ctypes.c_char_p; print(f().decode())' >"$dir/out" 2>"$dir/err" || wrong "libptq.so"
prints "^$($PTQ --version | cut -d' ' -f2)$"

if ! $python -c 'import ensurepip' 2>/dev/null; then
    echo "python3-venv is not installed: pip is not tried"
    (cd tools/python && PTQ_OBJECT=$PWD/../../build/ptq_impl.o $python setup.py -q build \
        --build-base "$dir/work" --build-lib "$dir/package") >"$dir/out" 2>"$dir/err" ||
        wrong "the package does not build"
    export PYTHONPATH=$dir/package
else
    pip="$dir/venv/bin/pip --quiet --disable-pip-version-check"
    cp -R tools/python "$dir/python"
    for name in build dist ptq.egg-info ptq/c; do rm -rf "$dir/python/$name"; done
    $python -m venv --system-site-packages "$dir/venv" >"$dir/out" 2>"$dir/err" || wrong "venv"
    ! (cd "$dir/python" && $python setup.py -q sdist) >"$dir/out" 2>"$dir/err" ||
        wrong "a folder without the project is packed"
    grep -q "is built inside the project" "$dir/err" || wrong "the message without the project"
    $pip install --no-index --no-build-isolation ./tools/python >"$dir/out" 2>"$dir/err" ||
        wrong "pip install ./tools/python"
    (cd tools/python && $python setup.py -q sdist --dist-dir "$dir/dist") >"$dir/out" \
        2>"$dir/err" || wrong "sdist"
    (cd "$dir" && $pip install --no-index --no-build-isolation --force-reinstall --no-deps \
        dist/ptq-*.tar.gz) >"$dir/out" 2>"$dir/err" || wrong "pip install of the source"
    cmp ptq.h "$dir"/venv/lib/python3*/site-packages/ptq/c/ptq.h || wrong "another ptq.h"
    python=$dir/venv/bin/python
fi

# pytest's own words are the log.
$python -m pytest -q -p no:cacheprovider tests/python || wrong "pytest"

# The example prints what the tool prints.
$python examples/python/quantize.py minmax8 >"$dir/out" 2>"$dir/err" || wrong "the example"
prints "^float  *1857 of 2000 right, 92.85 %"
prints "^accumulator "
! $python examples/python/quantize.py bst >"$dir/out" 2>"$dir/err" || wrong "a wrong preset"
grep -q "^quantize.py: there is no preset 'bst'" "$dir/err" && [ "$(wc -l <"$dir/err")" -eq 1 ] ||
    wrong "the example's error"
[ $failures -eq 0 ]
