#!/bin/sh
# Installs the Debian packages that the tests use, where that is allowed. It never fails: what
# cannot be had is named, and the tests that need it are left out.

# Prints "PACKAGE what it is for" for everything that is missing.
missing() {
    has() { command -v "$1" >/dev/null 2>&1; }
    lib() { pkg-config --exists "$1" 2>/dev/null; }
    sanitizes() {
        echo 'int main(void) { return 0; }' |
            clang -fsanitize=address -x c - -o /dev/null >/dev/null 2>&1
    }
    compiles_wasm() {
        echo 'int main(void) { return 0; }' |
            clang --target=wasm32-wasi -x c - -o /dev/null >/dev/null 2>&1
    }
    has pkg-config || echo "pkg-config finding the libraries"
    lib cmocka || echo "libcmocka-dev the unit tests"
    lib hdf5 || echo "libhdf5-dev importing Keras files"
    lib jansson || echo "libjansson-dev JSON and importing Keras files"
    lib librsvg-2.0 || echo "librsvg2-dev single figures of ptq report as PNG"
    lib zlib || echo "zlib1g-dev compressed data: .npz, .gz"
    lib stb || echo "libstb-dev data sets of pictures"
    lib libprotobuf-c || echo "libprotobuf-c-dev ONNX"
    has protoc-c || echo "protobuf-c-compiler ONNX"
    [ -f /usr/include/onnx/onnx.proto ] || echo "libonnx-dev ONNX"
    /usr/bin/python3 -c 'import onnx' 2>/dev/null || echo "python3-onnx the official checker of ONNX"
    /usr/bin/python3 -c 'import h5py' 2>/dev/null || echo "python3-h5py the tests of Keras files"
    for module in numpy cffi setuptools wheel pytest; do
        /usr/bin/python3 -c "import $module" 2>/dev/null || echo "python3-$module the package for Python"
    done
    /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || echo "python3-venv the package for Python"
    has g++ || echo "g++ the checks as C++"
    has clang || echo "clang the tests with clang"
    sanitizes || echo "libclang-rt-dev the tests with clang's sanitizers"
    has node || echo "nodejs the tests of the page in WebAssembly"
    has wasm-ld || has wasm-ld-14 || echo "lld the page in WebAssembly"
    [ -d /usr/include/wasm32-wasi ] || echo "wasi-libc the page in WebAssembly"
    compiles_wasm || echo "libclang-rt-dev-wasm32 the page in WebAssembly"
    aspell dicts 2>/dev/null | grep -qx en_GB-ize || echo "aspell-en spelling of the pages"
    has tcc || echo "tcc the checks with tcc"
}

wanted=$(missing | cut -d' ' -f1)
[ -n "$wanted" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing" $wanted
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update >/dev/null 2>&1
    apt-get -qq install -y --no-install-recommends $wanted >/dev/null 2>&1
fi

missing | while read -r package purpose; do
    echo "$package is not installed: left out is $purpose"
done
exit 0
