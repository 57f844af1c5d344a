# Random ONNX models, float and quantized: what ptq imports computes what ONNX Runtime computes, and
# the rest is refused by name. RANDOM_MODELS of them, 100 without, RANDOM_SEED chooses which. BUILD is
# the directory of the build.
. tests/shared/cli.sh
unset PYTHONPATH

skip() {
    echo "skipped: $*"
    exit 77
}

has_library onnx || skip "without protobuf-c and onnx.proto there is no ONNX"
for python in python3 /usr/bin/python3 ""; do
    [ -n "$python" ] || skip "random ONNX models need python3-onnx"
    ! "$python" -c 'import onnx' >/dev/null 2>&1 || break
done
if [ -n "${PTQ_TEST_QUICK:-}" ] && [ ! -f build/ort/installed ]; then
    skip "until make test-ci has fetched it: ONNX Runtime"
fi
reason=$(sh tests/peers/get_ort.sh build/ort) || skip "$reason"
"$python" tests/peers/onnx_random.py "$dir" "${RANDOM_MODELS:-100}" "${RANDOM_SEED:-1}" ||
    wrong "onnx_random.py"
ORT_DIR=build/ort node tests/peers/ort_random.cjs "$dir" "$BUILD/onnx-run" ||
    wrong "models that are neither right nor refused"
[ "$failures" -eq 0 ]
