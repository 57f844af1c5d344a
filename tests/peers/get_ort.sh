#!/bin/sh
# get_ort.sh DIRECTORY   installs ONNX Runtime for node into DIRECTORY, about 290 MB, unless it is
# there. Install scripts are not run: the package holds its library ready. Fails with one line where
# node or npm is missing or the package cannot be had.
set -u
package=onnxruntime-node@1.30.0
dir=$1
[ ! -f "$dir/installed" ] || exit 0
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    echo "node or npm is not installed"
    exit 1
fi
mkdir -p "$dir" && cd "$dir" || exit 1
echo '{"private": true}' >package.json
if ! timeout 300 npm install --ignore-scripts --no-audit --no-fund --silent $package >npm.log 2>&1 ||
    ! node -e 'require("onnxruntime-node")' >npm.log 2>&1; then
    echo "npm cannot install $package; see $dir/npm.log"
    exit 1
fi
touch installed
