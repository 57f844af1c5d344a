"""ONNX's own tests of operators, as they are and behind a convolution that changes nothing.

    python3 onnx_nodes.py PTQ DIRECTORY

Taken are those of the installed package whose first input is a float tensor of four dimensions; their
other inputs become constants. ptq import must refuse a model by name, or what ptq run writes must be
what the test expects. Prints what is wrong, why the others are refused, and counts in the end; exit
status 1 if anything is wrong, or if next to nothing was compared.
"""
import collections
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

for plain in (float, int, bool, object):  # names that the tests use and newer numpy has no more
    if plain.__name__ not in np.__dict__:
        setattr(np, plain.__name__, plain)
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

LEAST_RIGHT = 50


def cases():
    try:
        found = collect_testcases(None)
    except TypeError:  # before 1.13
        found = collect_testcases()
    for case in found:
        inputs, outputs = case.data_sets[0]
        kind = case.model.graph.input[0].type.tensor_type if case.model.graph.input else None
        if kind and kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4:
            if all(isinstance(a, np.ndarray) for a in list(inputs) + list(outputs)):
                yield case.name, case.model, inputs, outputs


def with_constants(model, inputs):
    """The model with one input, whose number of images is open."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    for given, array in list(zip(graph.input, inputs))[1:]:
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), given.name))
    del graph.input[1:]
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    return out


def behind_convolution(model, channels):
    name = model.graph.input[0].name
    for node in model.graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = "same"
    weight = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(weight, "same.weight"))
    model.graph.node.insert(0, helper.make_node("Conv", [name, "same.weight"], ["same"]))
    return model


def channels_last(array):
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


class Checker:
    def __init__(self, ptq, directory):
        self.ptq, self.directory = ptq, directory
        self.counts, self.reasons = collections.Counter(), collections.Counter()

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, *args):
        return subprocess.run([self.ptq, *args], capture_output=True, text=True)

    def check(self, name, model, images, outputs):
        onnx.save(model, self.path("m.onnx"))
        np.save(self.path("x.npy"), np.ascontiguousarray(channels_last(images)))
        done = self.run("import", self.path("m.onnx"), "--input", "f32", "-o", self.path("m"))
        if done.returncode:
            reason = re.sub(r"^.*?m\.onnx: |'[^']*'|\d+", "", done.stderr.splitlines()[0])
            named = len(done.stderr.splitlines()) > 0 and "m.onnx" in done.stderr
            self.reasons[reason[:90]] += 1
            return "refused" if named and done.returncode == 1 else "refused without a name"
        done = self.run("run", "--model", self.path("m"), "--images", self.path("x.npy"),
                        "--logits", self.path("y"))
        if done.returncode:
            return "wrong: " + done.stderr.strip()[:200]
        ours = np.fromfile(self.path("y"), np.float32)
        return self.compare(ours, outputs)

    def compare(self, ours, outputs):
        """One of the outputs: a model here may have fewer."""
        for wanted in outputs:
            wanted = np.asarray(wanted, np.float32)
            flat = channels_last(wanted).reshape(-1)
            if flat.size == ours.size and np.allclose(ours, flat, rtol=1e-3, atol=1e-5):
                return "right"
        return "wrong: %d numbers are not %s" % (ours.size, [list(o.shape) for o in outputs])

    def count(self, name, form, *args):
        found = self.check(name, *args)
        self.counts[found.split(":")[0]] += 1
        if found not in ("right", "refused"):
            print("WRONG: %s, %s: %s" % (name, form, found))


def main():
    warnings.simplefilter("ignore")
    checker = Checker(*sys.argv[1:3])
    for name, model, inputs, outputs in cases():
        images = inputs[0]
        checker.count(name, "as it is", with_constants(model, inputs), images, outputs)
        checker.count(name, "behind a convolution",
                      behind_convolution(with_constants(model, inputs), images.shape[1]), images,
                      outputs)
    for reason, times in checker.reasons.most_common(40):
        print("refused %4d  %s" % (times, reason))
    counts = checker.counts
    right, refused, total = counts["right"], counts["refused"], sum(counts.values())
    print("%d models of ONNX's tests of operators: %d right, %d refused by name, %d wrong"
          % (total, right, refused, total - right - refused))
    return total != right + refused or right < LEAST_RIGHT


if __name__ == "__main__":
    sys.exit(main())
