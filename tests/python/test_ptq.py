"""tools/python, run by tests/commands/cli_python.sh. Expected values are the command-line tool's,
or are worked out here with numpy. PTQ_TOOL names the tool, PTQ_SHAPES a folder of drawn pictures."""

import gc
import itertools
import os
import pickle
import subprocess
import threading
import time
import warnings

import numpy as np
import pytest

import ptq

TOOL = os.environ["PTQ_TOOL"]
SHAPES = os.environ["PTQ_SHAPES"]
FLOAT = "examples/models/resnet8-shapes10.safetensors"


def tool(*arguments):
    return subprocess.run([TOOL, *map(str, arguments)], check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def model():
    return ptq.Model.load(FLOAT)


@pytest.fixture(scope="session")
def test_set():
    return ptq.cifar10(SHAPES, "test")


@pytest.fixture(scope="session")
def chosen():
    train = ptq.cifar10(SHAPES, "train")
    return train.images[ptq.sample(train.labels, 100)]


@pytest.fixture(scope="session")
def small(model, chosen):
    return ptq.quantize(model, chosen, "minmax8")


@pytest.fixture(scope="session")
def coarse(model, chosen):
    return ptq.quantize(model, chosen, "minmax8", weight_bits=2)


# ---- The same as the tool's, to the last bit ----


QUICK = bool(os.environ.get("PTQ_TEST_QUICK"))


@pytest.mark.parametrize("scheme", ["minmax8", "ort-u8"] + ([] if QUICK else ["w4a8"]))
def test_bytes(model, chosen, scheme, tmp_path):
    made = tmp_path / "tool.safetensors"
    options = ["--samples", 100, "--preset", scheme, "--no-measure", "-o", made]
    tool("quantize", "--model", FLOAT, "--data", SHAPES, *options)
    ours = ptq.quantize(model, chosen, scheme)
    assert ours.to_bytes() == made.read_bytes()
    ours.save(tmp_path / "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == made.read_bytes()
    assert ptq.quantize(model, chosen[::-1], scheme, threads=1).to_bytes() == ours.to_bytes()


def test_bits_and_nodes(model, chosen, small, tmp_path):
    made = tmp_path / "tool.safetensors"
    options = ["--samples", 100, "--preset", "minmax8", "--weight-bits", 5, "--no-measure"]
    options += ["--node", "fc=float", "--node", "block3.*=tflite", "-o", made]
    tool("quantize", "--model", FLOAT, "--data", SHAPES, *options)
    nodes = {"fc": "float", "block3.*": "tflite"}
    ours = ptq.quantize(model, chosen, "minmax8", weight_bits=5, nodes=nodes)
    assert ours.to_bytes() == made.read_bytes()
    assert ours.parameter_bytes < small.parameter_bytes


def test_logits_and_evaluation(small, model, test_set, tmp_path):
    path, logits = tmp_path / "small.safetensors", tmp_path / "logits.npy"
    small.save(path)
    tool("run", "--model", path, "--images", SHAPES, "--limit", 200, "--logits", logits)
    images, labels = test_set.images[:200], test_set.labels[:200]
    ours = small.run(images)
    assert ours.dtype == np.float32 and np.array_equal(ours, np.load(logits))
    result = small.evaluate(images, labels, baseline=model)
    right, other = ours.argmax(1) == labels, model.run(images).argmax(1)
    assert np.array_equal(result.logits, ours) and result.correct == right.sum()
    assert np.array_equal(result.predictions, ours.argmax(1))
    assert result.confusion.sum() == 200 and np.trace(result.confusion) == result.correct
    both = result.comparison
    assert both.agreement == np.mean(other == ours.argmax(1))
    assert both.won - both.lost == result.correct - both.baseline_correct
    assert both.interval_pp[0] <= both.delta_pp <= both.interval_pp[1]
    shares = small.run(images, probabilities=True)
    assert np.allclose(shares, np.exp(ours) / np.exp(ours).sum(1, keepdims=True), atol=1e-6)


def test_sample_is_the_tools(test_set):
    labels = ptq.cifar10(SHAPES, "train").labels
    chosen = ptq.sample(labels, 40)
    assert np.array_equal(np.bincount(labels[chosen]), np.full(10, 4))
    assert np.array_equal(chosen, np.sort(chosen)) and not np.array_equal(
        chosen, ptq.sample(labels, 40, seed=1)
    )


# ---- Looking inside ----


@pytest.mark.parametrize(
    "node, at", [("conv1", (0, 31, 2)), ("block2.conv2", (7, 8, 31)), ("fc", (0, 0, 9))]
)
def test_explain(coarse, test_set, node, at):
    image = test_set.images[3]
    e = coarse.explain(image, node, *at)
    assert e.accumulator == e.bias + int((e.inputs * e.weights).sum())
    scaled = np.float32(e.accumulator) * np.float32(e.multiplier)
    assert np.float32(e.scaled) == scaled and "accumulator %d" % e.accumulator in str(e)
    values = coarse.activations(image)
    if node == "fc":
        assert e.code is None and np.float32(e.value) == values["fc"][at]
        assert np.array_equal(values["fc"].ravel(), coarse.run(image[np.newaxis])[0])
        return
    code = np.clip(np.rint(scaled), e.low - e.zero_point, e.high - e.zero_point) + e.zero_point
    assert code == e.code and np.float32(e.value) == values[node][at]
    if e.addition:
        assert e.addition.value == values["block2.add.relu"][at]
        assert e.code in (e.addition.first, e.addition.second)
    else:
        row, column, channel = e.corner  # the window is cut out of the input, padding aside
        inside = e.inputs[:, 1:, :2]
        codes = np.rint(values["input"][0:2, 30:32] / e.input_scale).astype(int)
        assert (row, column, channel) == (-1, 30, 0)
        assert np.array_equal(inside, codes.transpose(2, 0, 1)) and not e.inputs[:, 0].any()


def test_average(small, test_set):
    e = small.explain(test_set.images[0], "pool", channel=5)
    assert e.inputs.shape == (1, 8, 8) and e.accumulator == e.inputs.sum()
    with pytest.raises(ptq.Error, match="'input' is no integer"):
        small.explain(test_set.images[0], "input")


def test_what_it_is(model, small):
    assert model.input_shape == (32, 32, 3) and model.input_dtype == np.uint8
    assert small.classes == 10 and "minmax" in small.metadata["scheme"]
    assert "float" in repr(model) and "quantized" in repr(small)
    assert small.graph.startswith("ptq-graph 1\n") and "block1.add.relu" in small.tensors
    assert small.activation_bytes < model.activation_bytes
    assert list(ptq.PRESETS)[0] == "best" and os.path.exists(ptq.get_include() + "/ptq.h")
    assert ptq.__version__ == tool("--version").split()[1].decode()


# ---- Images in every form ----


def test_iterables(model, small, chosen):
    wanted = small.to_bytes()
    batches = (chosen[i : i + 30] for i in range(0, 100, 30))
    for images in (list(chosen), iter(chosen), batches, np.asfortranarray(chosen)):
        assert ptq.quantize(model, images, "minmax8").to_bytes() == wanted


def test_floats(small, chosen):
    """Floats are preprocessed: the first layer's input, taken back from its codes."""
    images = chosen[:3]
    floats = np.stack([small.activations(image)["input"] for image in images]).astype(np.float64)
    assert np.array_equal(small.run(floats), small.run(images))
    with pytest.raises(TypeError, match="pass images.astype"):
        small.run(images.astype(np.float32))


@pytest.mark.parametrize(
    "bad, kind, words",
    [
        (lambda x: x.transpose(0, 3, 1, 2), ValueError, "pass images.transpose(0, 2, 3, 1)"),
        (
            lambda x: x[0],
            ValueError,
            "these are 32 x 32 x 3: one image alone is images[np.newaxis]",
        ),
        (lambda x: x[:, :8], ValueError, "these are 100 x 8 x 32 x 3"),
        (lambda x: x.reshape(100, -1), ValueError, "these are 100 x 3072"),
        (lambda x: x[0, 0, 0, 0], ValueError, "a single number"),
        (lambda x: x.astype(int), TypeError, "not int64"),
        (lambda x: x > 3, TypeError, "not bool"),
    ],
)
def test_layouts(small, chosen, bad, kind, words):
    with pytest.raises(kind) as caught:
        small.run(bad(chosen))
    assert words in str(caught.value)


def test_what_is_no_image(model, chosen):
    for images, kind, words in (
        ([], ValueError, "empty"),
        (zip(chosen, itertools.repeat(0)), TypeError, "images alone"),
        ([chosen[0], chosen[1].astype(float)], TypeError, "alike"),
    ):
        with pytest.raises(kind, match=words):
            ptq.quantize(model, images)
    assert model.run(chosen[:0]).shape == (0, 10)
    with pytest.raises(ValueError, match="100 images and 99 labels"):
        model.evaluate(chosen, np.zeros(99, int))
    with pytest.raises(TypeError, match="labels must be N integers"):
        model.evaluate(chosen, np.zeros((100, 10)))


# ---- Errors are the library's sentences ----


def test_errors(model, small, chosen, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (100, 32, 32, 3), np.uint8)
    for work, status, words in (
        (
            lambda: ptq.Model.load("missing.safetensors"),
            "PTQ_IO_ERROR",
            "missing.*cannot be opened",
        ),
        (lambda: ptq.Model.load("missing.onnx"), "PTQ_IO_ERROR", "there is no such file"),
        (lambda: ptq.Model.from_bytes(b"abc"), "PTQ_BAD_FILE", "3 bytes"),
        (lambda: small.save(tmp_path / "no" / "x"), "PTQ_IO_ERROR", "cannot be written"),
        (lambda: ptq.quantize(model, chosen, "bst"), "PTQ_INVALID_ARGUMENT", "there are: best, "),
        (lambda: ptq.quantize(model, chosen, weight_bits=9), "PTQ_INVALID_ARGUMENT", "2 to 8"),
        (lambda: ptq.quantize(small, chosen), "PTQ_INVALID_ARGUMENT", "quantized already"),
        (lambda: ptq.quantize(model, noise), "PTQ_BAD_DATA", "look random"),
        (lambda: ptq.cifar10("README.md", "test"), "PTQ_BAD_DATA", "README.md"),
        (lambda: ptq.sample([0, 1], 3), "PTQ_BAD_DATA", "3 of 2"),
        (lambda: small.activations(chosen[0], ["nobody"]), "PTQ_INVALID_ARGUMENT", "nobody"),
    ):
        with pytest.raises(ptq.Error, match=words) as caught:
            work()
        assert caught.value.status == status
    assert pickle.loads(pickle.dumps(caught.value)).status == status
    with pytest.warns(UserWarning, match="Only 20 images"):
        ptq.quantize(model, chosen[:20], "minmax8")
    with pytest.warns(UserWarning, match="100 of the 100 images were calibrated on"):
        small.evaluate(chosen, np.zeros(100, int))


def test_import(monkeypatch, tmp_path):
    path = tmp_path / "net.onnx"
    tool("export", "--model", FLOAT, "--onnx", path)
    with pytest.warns(UserWarning, match="assumed: "):
        imported = ptq.Model.load(path)
    image = np.full((1, 32, 32, 3), 7, np.uint8)
    assert np.allclose(imported.run(image), ptq.Model.load(FLOAT).run(image), atol=1e-3)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ptq.Error, match="net.onnx"):
        ptq.Model.load(path)
    monkeypatch.delenv("PTQ_TOOL")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="read by the command-line tool ptq"):
        ptq.Model.load(path)


# ---- Time and memory ----


def test_progress(model, chosen):
    seen = []
    ptq.quantize(model, chosen, "minmax8", progress=lambda *at: seen.append(at))
    assert (100, 100) in seen
    with pytest.raises(ptq.Error, match="cancelled") as caught:
        ptq.quantize(model, chosen, progress=lambda *at: True)
    assert caught.value.status == "PTQ_CANCELLED"
    with pytest.raises(ZeroDivisionError):
        ptq.quantize(model, chosen, progress=lambda *at: 1 / 0)


def test_lock_is_released(model, test_set):
    ended = threading.Event()
    count = 0
    work = threading.Thread(target=lambda: (model.run(test_set.images), ended.set()))
    work.start()
    while not ended.is_set():
        count += 1
        time.sleep(0.001)
    work.join()
    assert count > 3  # this thread went on while the other one was inside the library


def test_threads_share_a_model(small, test_set):
    images, found = test_set.images[:200], [None] * 4
    wanted = small.run(images)

    def run(i):
        found[i] = small.run(images)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, wanted) for one in found)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_memory(small, chosen):
    data = small.to_bytes()

    def churn(times):
        for _ in range(times):
            one = ptq.Model.from_bytes(data)
            one.explain(chosen[0], "fc")
            one.evaluate(chosen[:1], [0])
        return resident()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = churn(10)
        assert churn(60) < first + 500  # pages: each model has 20 or more


def test_any_order(small, chosen):
    """Parts of a model die in every order, in a cycle too, where Python chooses."""
    for order in itertools.permutations(["_model", "_fused", "_plan", "_info"]):
        one = pickle.loads(pickle.dumps(small))
        session = one._session(False)
        one.cycle = one
        for name in order:
            delattr(one, name)
        del session, one
    gc.collect()
    again = pickle.loads(pickle.dumps(small))
    assert np.array_equal(again.run(chosen), small.run(chosen))
