#!/bin/sh
# get_cifar10.sh [DIR]: fetches CIFAR-10's binary version from the data set's own home page
# (https://www.cs.toronto.edu/~kriz/cifar.html) into DIR/cifar-10-batches-bin.
# CIFAR10_URL and CIFAR10_MD5 name another copy.
set -eu

url=${CIFAR10_URL:-https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz}
md5=${CIFAR10_MD5:-c32a1d4ab5d03f1284b67883e8d87530}
dir=${1:-data}
name=cifar-10-batches-bin
part=$dir/cifar-10-binary.tar.gz.part
unpacked=$dir/unpacking.$$

fail() {
    echo "make data: $*" >&2
    exit 1
}

checksum() {
    if command -v md5sum >/dev/null; then md5sum <"$1" | cut -d' ' -f1; else md5 -q "$1"; fi
}

# A complete file must not be asked for again: servers answer such a resume with an error.
complete() {
    [ -f "$part" ] && [ "$(checksum "$part")" = "$md5" ]
}

download() {
    if command -v curl >/dev/null; then
        curl -fL -C - --retry 3 --connect-timeout 20 -o "$part" "$url"
    elif command -v wget >/dev/null; then
        wget -c --tries=3 --connect-timeout=20 -O "$part" "$url"
    else
        fail "neither curl nor wget is installed; install one of them"
    fi
}

if [ -f "$dir/$name/test_batch.bin" ]; then
    echo "CIFAR-10 is already in $dir/$name"
    exit 0
fi
mkdir -p "$dir"

if ! complete; then
    echo "Downloading $url"
    download || fail "cannot download $url; what arrived is kept, run 'make data' again to resume"
    if ! complete; then
        rm -f "$part"
        fail "the download's MD5 is not $md5; the file was removed, run 'make data' again"
    fi
fi

trap 'rm -rf "$unpacked"' EXIT
mkdir "$unpacked"
tar -xzf "$part" -C "$unpacked" || fail "cannot unpack $part"
[ -f "$unpacked/$name/test_batch.bin" ] || fail "the archive holds no $name/test_batch.bin"
rm -rf "${dir:?}/$name"
mv "$unpacked/$name" "$dir/$name"
rm -f "$part"
echo "CIFAR-10 is in $dir/$name"
