# Makes the fuzz targets' seeds anew in the directory $seeds. Read with "." by replay.sh and fuzz.sh,
# with BUILD, and CC and SAN set or not. What the tool can export becomes seeds of the import;
# command lines are those of arguments.txt, one argument a line; Keras's
# configurations are the lines of keras.txt.
make_seeds() {
    rm -rf "$seeds"
    make -s ${CC:+CC="$CC"} SAN="${SAN:-}" "$BUILD/fuzz-seeds" "$BUILD/ptq" &&
        "$BUILD/fuzz-seeds" "$seeds" || return 1
    mkdir "$seeds/arguments"
    awk -v to="$seeds/arguments/" '{
        file = to $1 NR
        gsub(/ /, "\n")
        print >file
        close(file)
    }' tests/fuzz/arguments.txt
    if grep -q hdf5 "$BUILD/libs" && grep -q jansson "$BUILD/libs"; then
        mkdir "$seeds/keras"
        awk -v to="$seeds/keras/" '{ printf "%s", $0 >(to NR); close(to NR) }' tests/fuzz/keras.txt
    fi
    mkdir "$seeds/tflite"
    for model in float lite; do
        "$BUILD/ptq" export --model "$seeds/model/$model" --tflite "$seeds/tflite/$model" \
            >/dev/null || return 1
    done
    grep -q onnx "$BUILD/libs" || return 0
    mkdir "$seeds/onnx"
    for model in all fused best fbgemm ort-u8 ort-s8 tested; do
        for form in qdq qoperator; do
            "$BUILD/ptq" export --model "$seeds/model/$model" --form $form \
                --onnx "$seeds/onnx/$model.$form" >/dev/null || return 1
        done
    done
}

make_seeds
