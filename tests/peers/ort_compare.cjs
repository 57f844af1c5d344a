// Runs ONNX models in ONNX Runtime and compares them with what ptq computed.
//
//   node ort_compare.cjs <JOBS          one comparison a line:
//
//   tensors MODEL.onnx IMAGES.bin TENSORS.safetensors [OPTION=VALUE ...]
//   logits  MODEL.onnx IMAGES.bin LOGITS.f32 [OPTION=VALUE ...]
//
// tensors: every tensor of `ptq run --tensors` against the tensor of the same name (codes of T are
// "T.codes"). logits: the first output against `ptq run --logits`. IMAGES are CIFAR-10 records.
// Options: level=disabled|basic|extended|all (default all); precise=1: eight-bit products without
// saturation on processors that lack VNNI (u8 activations only; needs level=extended or all);
// close=X: largest difference of real numbers that passes; agree=X: least share of equal
// predictions. Codes must all be equal. Prints a line for each and exits with 0 if all is well.
'use strict';
const fs = require('fs');
const path = require('path');
const ort = require(path.resolve(process.env.ORT_DIR || 'build/ort', 'node_modules/onnxruntime-node'));

const pixels = 32 * 32, record = 1 + 3 * pixels, batch = 100;

// ---- A model with every named tensor as an output ----

function varint(n) {
    const bytes = [];
    for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
    return Buffer.from([...bytes, n]);
}

function field(number, content) { // a length-delimited field of a protobuf message
    return Buffer.concat([varint(number * 8 + 2), varint(content.length), content]);
}

// Protobuf merges a message that occurs twice, so outputs can be appended to the file:
// ModelProto.graph = 7, GraphProto.output = 12, ValueInfoProto.name = 1, .type = 2,
// TypeProto.tensor_type = 1, Tensor.elem_type = 1.
function exposed(model, tensors) {
    const type = { U8: 2, I8: 3, F32: 1 };
    const outputs = tensors.map(({ onnxName, dtype }) =>
        field(12, Buffer.concat([field(1, Buffer.from(onnxName)),
            field(2, field(1, Buffer.from([8, type[dtype]])))])));
    return Buffer.concat([model, field(7, Buffer.concat(outputs))]);
}

// ---- What ptq wrote ----

function readTensors(file) {
    const bytes = fs.readFileSync(file);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    const array = { U8: Uint8Array, I8: Int8Array, F32: Float32Array };
    delete header.__metadata__;
    return Object.entries(header).map(([name, { dtype, shape, data_offsets: [from, to] }]) => ({
        name, dtype, shape,
        onnxName: dtype === 'F32' ? name : `${name}.codes`,
        data: new array[dtype](new Uint8Array(bytes.subarray(8 + length + from, 8 + length + to)).buffer),
    }));
}

function planes(images, first, count) { // the records' own layout is C x H x W
    const out = new Float32Array(count * 3 * pixels);
    for (let i = 0; i < count; i++)
        out.set(images.subarray((first + i) * record + 1, (first + i + 1) * record), i * 3 * pixels);
    return new ort.Tensor('float32', out, [count, 3, 32, 32]);
}

function interleaved(images, first, count) { // codes, or NHWC
    const out = new Uint8Array(count * 3 * pixels);
    for (let i = 0; i < count; i++)
        for (let c = 0; c < 3; c++)
            for (let p = 0; p < pixels; p++)
                out[(i * pixels + p) * 3 + c] = images[(first + i) * record + 1 + c * pixels + p];
    return out;
}

function feed(session, images, first, count) {
    const meta = (session.inputMetadata || [])[0] || {};
    const shape = meta.shape || [];
    if (shape[3] !== 3) return planes(images, first, count);
    const data = interleaved(images, first, count);
    return meta.type === 'uint8' ? new ort.Tensor('uint8', data, [count, 32, 32, 3])
        : new ort.Tensor('float32', Float32Array.from(data), [count, 32, 32, 3]);
}

function argmax(row) {
    return row.reduce((best, x, i) => (x > row[best] ? i : best), 0);
}

// ---- Comparing ----

function compareTensor(sum, ours, theirs, first, count) {
    const [, height, width, channels] = ours.shape;
    const flip = ours.dtype === 'F32' ? 0 : 1;
    for (let n = 0; n < count; n++)
        for (let c = 0; c < channels; c++)
            for (let p = 0; p < height * width; p++) {
                const a = ours.data[((first + n) * height * width + p) * channels + c];
                const b = theirs[(n * channels + c) * height * width + p];
                const difference = Math.abs(a - b);
                sum.codes += flip;
                if (!flip) sum.real = Math.max(sum.real, Number.isNaN(difference) ? Infinity : difference);
                else if (difference) {
                    sum.different++;
                    sum.worst = Math.max(sum.worst, difference);
                    sum.wrong[ours.name] = (sum.wrong[ours.name] || 0) + 1;
                }
            }
}

function compareLogits(sum, ours, theirs, classes, first, count) {
    for (let n = 0; n < count; n++) {
        const a = ours.subarray((first + n) * classes, (first + n + 1) * classes);
        const b = theirs.subarray(n * classes, (n + 1) * classes);
        sum.agree += argmax(a) === argmax(b);
        for (let c = 0; c < classes; c++) sum.real = Math.max(sum.real, Math.abs(a[c] - b[c]));
    }
}

async function compare([mode, modelPath, imagesPath, oursPath, ...rest]) {
    const option = Object.fromEntries(rest.map((pair) => pair.split('=')));
    const sum = { tensors: 0, codes: 0, different: 0, worst: 0, real: 0, images: 0, agree: 0, wrong: {} };
    const images = fs.readFileSync(imagesPath);
    const total = images.length / record;
    const tensors = mode === 'tensors' ? readTensors(oursPath) : [];
    const logits = mode === 'logits' ? new Float32Array(new Uint8Array(fs.readFileSync(oursPath)).buffer) : null;
    const settings = { graphOptimizationLevel: option.level || 'all', intraOpNumThreads: 1 };
    if (option.precise) settings.extra = { session: { x64quantprecision: '1' } };
    // The input, and what is an output already, cannot be one again.
    const plain = await ort.InferenceSession.create(modelPath, settings);
    const taken = [...plain.inputNames, ...plain.outputNames];
    const classes = logits ? logits.length / total : 0;
    const missing = tensors.filter((t) => !taken.includes(t.onnxName));
    const session = missing.length
        ? await ort.InferenceSession.create(exposed(fs.readFileSync(modelPath), missing), settings)
        : plain;
    const compared = tensors.filter((t) => session.outputNames.includes(t.onnxName));

    sum.tensors = compared.length;
    for (let first = 0; first < total; first += batch) {
        const count = Math.min(batch, total - first);
        const result = await session.run({ [session.inputNames[0]]: feed(session, images, first, count) });
        for (const ours of compared) compareTensor(sum, ours, result[ours.onnxName].data, first, count);
        if (logits) compareLogits(sum, logits, result[session.outputNames[0]].data, classes, first, count);
        sum.images += count;
    }
    const agreement = logits ? sum.agree / sum.images : 1;
    const good = sum.real <= Number(option.close ?? Infinity) && !sum.different &&
        agreement >= Number(option.agree ?? 0) && sum.images > 0 &&
        (logits || compared.length > 0);
    console.log(`${path.basename(modelPath)}: ${sum.images} images, ` + (logits
        ? `agreement ${(100 * agreement).toFixed(2)} %, logits differ by at most ${sum.real.toPrecision(3)}`
        : `${sum.tensors} tensors, ${sum.different} of ${sum.codes} codes differ` +
          (sum.different ? ` (by at most ${sum.worst}; ${JSON.stringify(sum.wrong)})` : '') +
          `, real numbers by at most ${sum.real.toPrecision(3)}`) +
        (rest.length ? ` [${rest.join(' ')}]` : '') + (good ? '' : '  WRONG'));
    return good;
}

async function main() {
    const jobs = fs.readFileSync(0, 'utf8').split('\n').filter((line) => line.trim());

    for (const job of jobs) {
        const good = await compare(job.trim().split(/\s+/)).catch((error) => {
            console.log(`${job}: ${error.message}  WRONG`);
            return false;
        });
        if (!good) process.exitCode = 1;
    }
    if (!jobs.length) process.exitCode = 1;
}

main();
