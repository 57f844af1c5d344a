// Compares what ptq and ONNX Runtime make of random models (onnx_random.py).
//
//   node ort_random.cjs DIRECTORY ONNX-RUN
//
// A model must be refused, in lines of a reason each that name the file and a node or an output, or
// compute the same: real numbers within 1e-4 of the largest, codes equal; in QDQ form, where ONNX Runtime
// computes in float, most codes, and the others within two: one code on a border moves all behind it. Each output beside the last must be told
// to be dropped, or be a result of ours too, or the logits. Prints what is wrong and one line in the end.
'use strict';
const fs = require('fs');
const path = require('path');
const { execFileSync } = require('child_process');
const ort = require(path.resolve(process.env.ORT_DIR || 'build/ort', 'node_modules/onnxruntime-node'));

const [directory, program] = process.argv.slice(2);
const file = (model, suffix) => path.join(directory, model.name + suffix);

function runOurs(models) {
    const lines = models.map((m) => `${file(m, '.onnx')} ${file(m, '.u8')} ${file(m, '.f32')} ${m.images}\n`);
    const said = execFileSync(program, { input: lines.join(''), maxBuffer: 1 << 28 }).toString();
    let told = [];

    for (const line of said.split('\n')) {
        const [, word, name] = /^(ran|refused) (\S+)$/.exec(line) || [];
        const model = models.find((m) => file(m, '.onnx') === name);
        if (!model) {
            told.push(line);
            continue;
        }
        Object.assign(model, { refused: word === 'refused', told });
        told = [];
    }
}

function feed(model) {
    const { images: n, height: h, width: w, channels: c } = model;
    const pixels = fs.readFileSync(file(model, '.u8'));
    const planes = new Uint8Array(pixels);
    if (model.layout === 'nchw')
        for (let i = 0; i < n; i++)
            for (let p = 0; p < h * w; p++)
                for (let k = 0; k < c; k++) planes[(i * c + k) * h * w + p] = pixels[(i * h * w + p) * c + k];
    const dims = model.layout === 'nchw' ? [n, c, h, w] : [n, h, w, c];
    return model.type === 'uint8' ? new ort.Tensor('uint8', planes, dims)
        : new ort.Tensor('float32', Float32Array.from(planes), dims);
}

// The order in which a model here has it.
function channelsLast(tensor, order) {
    if (order !== 'nchw' || tensor.dims.length !== 4) return tensor.data;
    const [n, c, h, w] = tensor.dims;
    const out = new Float32Array(tensor.data.length);
    for (let i = 0; i < n; i++)
        for (let k = 0; k < c; k++)
            for (let p = 0; p < h * w; p++) out[(i * h * w + p) * c + k] = tensor.data[(i * c + k) * h * w + p];
    return out;
}

// What is wrong with our numbers, or ''.
function compare(model, ours, tensor, order) {
    const theirs = channelsLast(tensor, order);
    if (ours.length !== theirs.length || tensor.dims[0] !== model.images)
        return `${ours.length} numbers, ONNX Runtime has ${tensor.dims}`;
    const most = theirs.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const unit = model.kind === 'real' ? 1e-4 * most + 1e-6 : model.step / 2;
    let different = 0, worst = 0;
    for (let i = 0; i < ours.length; i++) {
        const difference = Math.abs(ours[i] - theirs[i]);
        different += !(difference <= unit);
        worst = Math.max(worst, Number.isNaN(difference) ? Infinity : difference);
    }
    const few = model.kind === 'qdq' && worst < 2.5 * model.step && different <= 2 + ours.length / 3;
    return !different || few ? '' : `${different} of ${ours.length} numbers differ, by at most ${worst} of ${most}`;
}

function wrongRefusal(model) {
    const told = model.told.filter((line) => !line.includes(': warning: '));
    const named = (line) => line.includes(file(model, '.onnx')) && /(node|output|input|tensor) '.*; /.test(line);
    return told.length > 0 && told.every(named) && new Set(told).size === told.length
        ? '' : `refused with '${told.join('; ')}'`;
}

async function check(model) {
    const settings = { graphOptimizationLevel: model.kind === 'codes' ? 'extended' : 'disabled',
        intraOpNumThreads: 1, logSeverityLevel: 4 };
    if (model.refused) return wrongRefusal(model);
    if (model.kind === 'codes' && !model.signed) settings.extra = { session: { x64quantprecision: '1' } };
    let session, result;
    try {
        session = await ort.InferenceSession.create(file(model, '.onnx'), settings);
        result = await session.run({ x: feed(model) });
    } catch (error) {
        model.strange = true; // ONNX Runtime refuses what ptq takes
        return process.env.STRANGE ? error.message : '';
    }
    const both = new Float32Array(new Uint8Array(fs.readFileSync(file(model, '.f32'))).buffer);
    const logits = both.subarray(0, both.length / 2), last = both.subarray(both.length / 2);
    const names = session.outputNames.filter((name) => name !== model.output &&
        !model.told.some((line) => line.includes(`warning: ${file(model, '.onnx')}: output '${name}' is dropped`)));
    const other = (name) => alike(model, name, result[name]) && compare(model, last, result[name], model.order[name]) &&
        compare(model, logits, result[name], model.order[name]);
    return names.map(other).find((text) => text) ||
        compare(model, last, result[model.output], model.order[model.output]);
}

// What is wrong with a further result of ours, or '': real numbers, or those that codes stand for.
function alike(model, name, tensor) {
    const line = model.told.find((text) => /^also \d+ /.test(text) && text.split(' ')[2] === name);
    if (!line) return 'it is none of our results';
    const bytes = new Uint8Array(fs.readFileSync(`${file(model, '.f32')}.${line.split(' ')[1]}`));
    const ours = new Float32Array(bytes.buffer), theirs = channelsLast(tensor, model.order[name]);
    const most = theirs.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    let different = 0;
    for (let i = 0; i < theirs.length; i++) different += !(Math.abs(ours[i] - theirs[i]) <= 1e-4 * most + 1e-6);
    const few = model.kind === 'qdq' && different <= 2 + theirs.length / 3;
    return ours.length === theirs.length && (!different || few) ? ''
        : `output ${name}: ${different} of ${theirs.length} numbers differ, ours are ${ours.length}`;
}

async function main() {
    const models = JSON.parse(fs.readFileSync(path.join(directory, 'models.json')));
    let wrong = 0;

    runOurs(models);
    for (const model of models) {
        const text = await check(model);
        if (text) console.log(`WRONG: ${model.name}.onnx (${model.kind}): ${text}`);
        wrong += text !== '';
    }
    const ran = models.filter((m) => !m.refused).length;
    const strange = models.filter((m) => m.strange).length;
    console.log(`${models.length} random models: ${ran - strange} computed as ONNX Runtime does, ` +
        `${models.length - ran} refused by name, ${strange} that ONNX Runtime refuses, ${wrong} wrong`);
    // A test that refuses everything, or compares nothing, is none.
    if (wrong || ran < 0.4 * models.length || strange > 0.05 * models.length) process.exitCode = 1;
}

main();
