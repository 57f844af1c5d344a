# lacks_web: says what the machine lacks to build and run WebAssembly; nothing if it has all.
lacks_web() {
    for tool in clang wasm-ld node base64; do
        if ! command -v $tool >/dev/null 2>&1 &&
            ! { [ $tool = wasm-ld ] && clang -print-prog-name=wasm-ld | grep -q /; }; then
            echo "$tool is not installed"
            return
        fi
    done
    echo 'int main(void) { return 0; }' >"${dir:?}/trivial.c"
    clang --target=wasm32-wasi "$dir/trivial.c" -o "$dir/trivial" 2>/dev/null ||
        echo "clang has no C library for WebAssembly (Debian: wasi-libc libclang-rt-dev-wasm32)"
}
