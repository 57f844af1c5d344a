"""Files of other frameworks, which the command-line tool imports."""

import os
import shutil
import subprocess
import tempfile
import warnings

from ptq._library import Error

FOREIGN = (".h5", ".hdf5", ".keras", ".onnx", ".tflite")


def _find_tool(path: str) -> str:
    tool = os.environ.get("PTQ_TOOL") or shutil.which("ptq")
    if tool:
        return tool
    raise FileNotFoundError(
        "%s is read by the command-line tool ptq, which is not on the PATH: 'make install' in"
        " ptq.h's folder puts it there, and PTQ_TOOL may name it" % path
    )


def import_bytes(path: str, *options: str) -> bytes:
    """The model file that `ptq import PATH OPTIONS` writes. What it assumed becomes a warning."""
    if not os.path.exists(path):
        raise Error("PTQ_IO_ERROR", "%s: there is no such file" % path)
    tool = _find_tool(path)
    with tempfile.TemporaryDirectory(prefix="ptq-") as folder:
        out = os.path.join(folder, "model.safetensors")
        command = [tool, "import", *options, "-o", out, os.path.abspath(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise FileNotFoundError("%s cannot be run: %s" % (tool, error.strerror)) from None
        said = [line.partition("ptq import: ")[2] or line for line in done.stderr.splitlines()]
        if done.returncode:
            raise Error("PTQ_BAD_FILE", said[-1] if said else "ptq import failed without a word")
        said += [line for line in done.stdout.splitlines() if ": assumed: " in line]
        for line in said:
            warnings.warn(line.replace("warning: ", "", 1), stacklevel=4)
        with open(out, "rb") as file:
            return file.read()
