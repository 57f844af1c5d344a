# ptq import of Keras files, .h5 and .keras: models of every layer and random ones compute what
# NumPy computes, and what cannot be imported is refused by name. RANDOM_MODELS random ones, 20
# without, RANDOM_SEED chooses which.
. tests/shared/cli.sh
unset PYTHONPATH

skip() {
    echo "skipped: $*"
    exit 77
}

has_library hdf5 && has_library jansson || skip "without hdf5 and jansson there is no Keras"
for python in /usr/bin/python3 python3 ""; do
    [ -n "$python" ] || skip "Keras files are made with python3-h5py"
    ! "$python" -c 'import h5py' >/dev/null 2>&1 || break
done
make_keras() { "$python" tests/shared/make_keras.py "$@"; }

test_models() {
    make_keras models "$dir" "${RANDOM_MODELS:-20}" "${RANDOM_SEED:-1}" || wrong make_keras.py
    has_library zlib || rm -f "$dir"/*4.keras # compressed
    stems=
    for file in "$dir"/*.h5 "$dir"/*.keras; do
        stem=${file%.*}
        accepts import "$file" -o "$stem.safetensors"
        accepts run --model "$stem.safetensors" --images "$dir/images.bin" --logits "$stem.out"
        stems="$stems $stem"
    done
    # shellcheck disable=SC2086 # several names
    make_keras compare 2e-5 $stems || wrong "logits"
}

# Zeros are taken into windows where they can be, scaling into mean and std.
test_folding() {
    accepts info "$dir/residual0.safetensors" --graph
    prints "input_1 input shape=32x32x3 mean="
    prints "conv2d conv2d in=input_1 channels=8 kernel=7x7 stride=2x2 pad=3,3,3,3"
    prints "max_pooling2d max_pool in=activation kernel=3x3 stride=2x2 pad=1,1,1,1"
    ! grep -q zero_padding "$dir/out" || wrong "zeros take a node"
    accepts info "$dir/sequential2.safetensors" --graph
    prints "mean=127.5,127.5,127.5 std=127.5,127.5,127.5"
}

# Every step after the import does with such a model what it does with others.
test_quantized() {
    mkdir "$dir/data"
    cp "$dir/images.bin" "$dir/data/data_batch_1.bin"
    cp "$dir/mobile2.f32" "$dir/int8.f32"
    accepts quantize --model "$dir/mobile2.safetensors" --data "$dir/data" --preset minmax8 \
        --no-measure -o "$dir/int8.safetensors"
    accepts run --model "$dir/int8.safetensors" --images "$dir/images.bin" --logits "$dir/int8.out"
    make_keras compare 0.1 "$dir/int8" || wrong "codes far from real numbers"
}

test_small() {
    mkdir "$dir/refused"
    make_keras refused "$dir/refused" || wrong make_keras.py
    for words in "$dir/refused"/*.words; do
        for file in "${words%words}"h5 "${words%words}"keras; do
            [ ! -f "$file" ] || refuses "$(cat "$words")" import "$file" -o "$dir/no"
        done
    done
    accepts import "$dir/refused/square.h5" -o "$dir/small.safetensors"
    accepts info "$dir/small.safetensors" --graph
    prints "input_1 input shape=28x28x1 mean=0 std=255"
    prints "dense dense in=input_1 channels=16"
    accepts import "$dir/refused/row.keras" -o "$dir/small.safetensors"
    accepts info "$dir/small.safetensors" --graph
    prints "input_1 input shape=28x28x1"
    mkdir "$dir/saved"
    echo graph >"$dir/saved/saved_model.pb"
    refuses "SavedModel.*python -m tf2onnx.convert --saved-model" import "$dir/saved" -o "$dir/no"
    [ ! -e "$dir/no" ] || wrong "a refused import left a file"
}

# MLPerf's ResNet8 with Keras 3's names of weights, and a network of others in both of its files.
test_shared() {
    accepts import "$1/models/resnet8_mlperf.h5" -o "$dir/keras2.safetensors"
    accepts import "$1/cases/keras3_names.h5" -o "$dir/keras3.safetensors"
    cmp "$dir/keras2.safetensors" "$dir/keras3.safetensors" || wrong "names of Keras 3"
    for form in h5 keras onnx; do
        accepts import "$1/models/others/keras_cnn.$form" -o "$dir/cnn.safetensors"
        accepts run --model "$dir/cnn.safetensors" --images "$dir/images.bin" \
            --logits "$dir/$form.cnn"
    done
    cmp "$dir/h5.cnn" "$dir/keras.cnn" || wrong "keras_cnn.h5 and .keras"
    ! has_library onnx || cmp "$dir/h5.cnn" "$dir/onnx.cnn" || wrong "keras_cnn.h5 and .onnx"
}

test_models
test_folding
test_quantized
test_small
if [ -f "$shared/cases/keras3_names.h5" ]; then test_shared "$shared"; fi
[ $failures -eq 0 ]
