#!/bin/sh
# onnx_nodes.sh PTQ    ONNX's own tests of operators, where a Python has them; 77: none has.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import onnx, numpy' >/dev/null 2>&1; then
        "$python" "$(dirname "$0")/onnx_nodes.py" "$1" "$dir"
        exit
    fi
done
echo "skipped: ONNX's tests of operators need python3-onnx"
exit 77
