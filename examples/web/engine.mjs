// ptq.h in WebAssembly, for JavaScript: the page uses it, and node in the tests. See ptq_web.c.

export const FLOAT = 0,
    INTEGER = 1,
    PROBE = 2;

// What the module says of an element, in its order: see arithmetic.h.
const EXPLAINED =
    'channels height width top left channel inputZero inputScale weightScale bias sum multiplier ' +
    'scaled coded scale zero low high code value adds ownFirst residual residualValue ratio0 ' +
    'ratio1 shift addedLow addedHigh addedCode addedValue';

// The smallest module that uses a 128-bit instruction: valid only where those are known.
const simdProbe = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253,
    15, 253, 98, 11,
]);

export const hasSimd = () => WebAssembly.validate(simdProbe);

// Records of CIFAR-10's form: a label, then planes of red, green and blue. Gives labels, and pixels
// with the channels innermost.
export function readRecords(bytes, plane = 1024) {
    const count = (bytes.length / (3 * plane + 1)) | 0;
    const labels = new Uint8Array(count),
        pixels = new Uint8Array(count * 3 * plane);
    for (let i = 0; i < count; i++) {
        const start = i * (3 * plane + 1);
        labels[i] = bytes[start];
        for (let c = 0; c < 3; c++)
            for (let p = 0; p < plane; p++)
                pixels[(i * plane + p) * 3 + c] = bytes[start + 1 + c * plane + p];
    }
    return { count, labels, pixels };
}

export class Engine {
    // `wasm`: the bytes of a build of ptq_web.c.
    static async start(wasm) {
        const { instance } = await WebAssembly.instantiate(wasm, {});
        return new Engine(instance.exports);
    }

    constructor(wasm) {
        this.wasm = wasm;
    }

    // ---- Memory of the module ----

    text(pointer) {
        const memory = new Uint8Array(this.wasm.memory.buffer);
        return new TextDecoder().decode(memory.slice(pointer, memory.indexOf(0, pointer)));
    }

    check(status) {
        if (status) throw new Error(this.text(this.wasm.problem()));
    }

    // Calls `work` with the addresses of new memory of the given sizes, and releases it.
    borrow(sizes, work) {
        const at = sizes.map((size) => this.wasm.reserve(size));
        try {
            if (at.includes(0)) throw new Error('the page has run out of memory');
            return work(...at);
        } finally {
            at.forEach((pointer) => this.wasm.release(pointer));
        }
    }

    // The same with a copy of `bytes` in it.
    lend(bytes, work) {
        return this.borrow([bytes.length], (at) => {
            new Uint8Array(this.wasm.memory.buffer, at, bytes.length).set(bytes);
            return work(at);
        });
    }

    // The same with a text.
    name(text, work) {
        return this.lend(new TextEncoder().encode(`${text}\0`), work);
    }

    read(Type, at, count) {
        return new Type(this.wasm.memory.buffer, at, count).slice();
    }

    // ---- Networks ----

    get isa() {
        return this.text(this.wasm.isa());
    }

    // From the bytes of a model file, the float network first.
    load(kind, model) {
        if (kind === INTEGER) this.need(FLOAT);
        this.lend(model, (at) => this.check(this.wasm.load(kind, at, model.length)));
        this.classes = this.wasm.classes();
        this.pixels = this.wasm.pixels();
    }

    has(kind) {
        return this.wasm.ready(kind) === 1;
    }

    need(kind) {
        if (!this.has(kind))
            throw new Error(`there is no ${kind === FLOAT ? 'float' : 'integer'} network yet`);
    }

    // May be called again with more pictures.
    calibrate(pictures) {
        this.need(FLOAT);
        this.lend(pictures, (at) =>
            this.check(this.wasm.calibrate(at, pictures.length / this.pixels)),
        );
    }

    readCalibration(bytes) {
        this.lend(bytes, (at) => this.check(this.wasm.read_calibration(at, bytes.length)));
    }

    get calibrationImages() {
        return this.wasm.calibration_images();
    }

    // Rounds to nearest; or learns the rounding, which takes seconds, from pictures that were
    // calibrated on.
    convert(weightBits, activationBits, pictures = null) {
        this.need(FLOAT);
        const convert = (at, count) =>
            this.check(this.wasm.convert(weightBits, activationBits, at, count));
        if (pictures) this.lend(pictures, (at) => convert(at, pictures.length / this.pixels));
        else convert(0, 0);
    }

    // One layer with these bits, all others with 8: runs as PROBE.
    convertOne(layer, weightBits, activationBits) {
        this.name(layer, (at) => this.check(this.wasm.convert_one(at, weightBits, activationBits)));
    }

    parameterBytes(kind) {
        this.need(kind);
        return this.wasm.parameter_bytes(kind);
    }

    // The integer network as the bytes of a model file.
    save() {
        this.need(INTEGER);
        return this.borrow([4], (size) => {
            const at = this.wasm.save(size);
            if (!at) this.check(1);
            const bytes = this.read(Uint8Array, at, this.read(Uint32Array, size, 1)[0]);
            this.wasm.release(at);
            return bytes;
        });
    }

    // ---- Running ----

    // Logits and probabilities of one or more pictures.
    run(kind, pictures) {
        this.need(kind);
        const count = pictures.length / this.pixels,
            n = count * this.classes;
        return this.lend(pictures, (at) =>
            this.borrow([4 * n, 4 * n], (logits, shares) => {
                this.check(this.wasm.run(kind, at, count, 1, logits, shares));
                return {
                    logits: this.read(Float32Array, logits, n),
                    probabilities: this.read(Float32Array, shares, n),
                };
            }),
        );
    }

    // Microseconds that a picture takes in each network: { least, median } of `rounds`, of `repeat`
    // runs each. The networks take turns, so that what else the machine does falls on both; the
    // first round, in which the browser's compiler takes its time, does not count.
    time(picture, rounds, repeat) {
        this.need(FLOAT);
        this.need(INTEGER);
        const times = [[], []];
        this.lend(picture, (at) => {
            for (let i = 0; i <= rounds; i++)
                for (const kind of [FLOAT, INTEGER]) {
                    const start = performance.now();
                    this.check(this.wasm.run(kind, at, 1, repeat, 0, 0));
                    if (i) times[kind].push(((performance.now() - start) * 1000) / repeat);
                }
        });
        return times.map((list) => {
            list.sort((a, b) => a - b);
            return { least: list[0], median: list[rounds >> 1] };
        });
    }

    // ---- Looking inside ----

    look(picture) {
        this.need(INTEGER);
        this.lend(picture, (at) => this.check(this.wasm.look(at)));
    }

    get tensorNames() {
        return Array.from({ length: this.wasm.tensors() }, (_, i) =>
            this.text(this.wasm.tensor_name(i)),
        );
    }

    // Of the last picture looked at, by the tensor's number.
    values(kind, tensor, most = 1 << 18) {
        return this.borrow([4 * most, 12], (values, shape) => {
            this.check(this.wasm.tensor_values(kind, tensor, values, shape));
            const [height, width, channels] = this.read(Int32Array, shape, 3);
            return {
                height,
                width,
                channels,
                values: this.read(Float32Array, values, height * width * channels),
            };
        });
    }

    range(tensor) {
        return this.borrow([64], (at) => {
            this.wasm.describe_range(tensor, at);
            const [low, high, scale, bits, min, max, clipped, zeros] = this.read(
                Float64Array,
                at,
                8,
            );
            return { low, high, scale, bits, min, max, clipped, zeros };
        });
    }

    histogram(tensor, from, to, columns) {
        return this.borrow([8 * columns], (at) => {
            this.wasm.histogram(tensor, from, to, columns, at);
            return this.read(Float64Array, at, columns);
        });
    }

    // The nodes of the integer network: { name, op, inputs, out, and what else its line says }.
    // `out` is the result after a fused addition.
    get nodes() {
        this.need(INTEGER);
        const at = this.wasm.graph();
        const text = this.text(at);
        this.wasm.release(at);
        return text
            .trim()
            .split('\n')
            .slice(1)
            .map((line) => {
                const [name, op, ...rest] = line.split(' ');
                const values = Object.fromEntries(rest.map((part) => part.split('=')));
                return { name, out: name, op, ...values, inputs: values.in?.split(',') ?? [] };
            });
    }

    // Weights of a node in steps of their codes, and the codes, or null where it has none.
    weights(node, most = 1 << 16) {
        return this.name(node, (name) =>
            this.borrow([4 * most, 4 * most], (steps, codes) => {
                const count = this.wasm.weights(name, steps, codes, most);
                return count
                    ? {
                          steps: this.read(Float32Array, steps, count),
                          codes: this.read(Int32Array, codes, count),
                      }
                    : null;
            }),
        );
    }

    // The 95 % interval of a share of which k of n were seen.
    interval(k, n) {
        return this.borrow([16], (at) => {
            this.wasm.interval(k, n, at);
            return [...this.read(Float64Array, at, 2)];
        });
    }

    // The arithmetic of one element of the last picture looked at: EXPLAINED, and the codes less
    // their zero points, channels x height x width; `weights` is null in an average.
    explain(node, y, x, c) {
        this.name(node, (at) => this.check(this.wasm.explain(at, y, x, c)));
        const keys = EXPLAINED.split(' ');
        const numbers = this.read(Float64Array, this.wasm.explained_numbers(), keys.length);
        const found = Object.fromEntries(keys.map((key, i) => [key, numbers[i]]));
        const count = found.channels * found.height * found.width;
        const list = (pointer) => pointer && this.read(Int32Array, pointer, count);
        return {
            ...found,
            inputs: list(this.wasm.explained_inputs()),
            weights: list(this.wasm.explained_weights()) || null,
        };
    }
}
