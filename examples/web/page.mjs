// The page: what is shown, and when. engine.mjs computes, draw.mjs draws.
import { Engine, readRecords, hasSimd, FLOAT, INTEGER } from './engine.mjs';
import { SIZE, shrink, drawPicture, drawMap, drawScale, drawEnds, drawHistogram } from './draw.mjs';

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const pause = () => new Promise((resume) => setTimeout(resume));
const dark = matchMedia('(prefers-color-scheme: dark)');

const number = (value) => value.toLocaleString('en');
const short = (value) => String(+value.toPrecision(3));
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const bits = (n) => `${n} bits`;
const argmax = (values) => values.indexOf(Math.max(...values));

// A file that the page carries, as bytes.
function embedded(id) {
    const text = atob($(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
}

// The networks; other keys are ids of embedded files. One is calibrated here, on pictures that the
// page carries; of the other's, which may not be passed on, it has what calibration keeps.
const networks = {
    shapes10: {
        about: 'Knows ten drawn shapes; calibrated in this page on 100 training pictures.',
        classes: () => new TextDecoder().decode(embedded('shapes10-classes')).trim().split('\n'),
        training: 'shapes10-train',
        samples: 'shapes10-test',
    },
    cifar10: {
        about:
            'Knows airplanes, automobiles, birds, cats, deer, dogs, frogs, horses, ships and ' +
            'trucks, one filling the picture. Choose a photograph of yours.',
        classes: () => 'airplane automobile bird cat deer dog frog horse ship truck'.split(' '),
        calibration: 'cifar10-calibration',
    },
};

// `turn` counts what the reader asked for: work that goes on over pauses stops when it is not the
// latest any more. Learning goes on until bits or network change.
const state = {
    turn: 0,
    build: '',
    engine: null,
    worker: null, // while it learns
    name: '', // of the network
    classes: [],
    samples: null,
    floatFound: null, // the float network's class of every sample
    picture: null,
    sample: -1, // which one the picture is
    tensor: 3, // looked at
};

const isCurrent = (turn) => turn === state.turn;

function newTurn() {
    $('facts').ariaBusy = 'true';
    return ++state.turn;
}

// Screen readers say what changes: then only what does.
function say(id, text) {
    if ($(id).textContent !== text) $(id).textContent = text;
}

function fail(problem) {
    say('verdict', problem.message ?? String(problem));
    $('facts').ariaBusy = 'false';
}

// ---- Answers ----

function showTop(list, shares) {
    const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, 5);
    const items = order.map((c) => {
        const item = document.createElement('li');
        item.innerHTML =
            '<span></span> <span></span><div class="bar" aria-hidden="true"><i></i></div>';
        item.children[0].textContent = state.classes[c];
        item.children[1].textContent = percent(shares[c]);
        item.querySelector('i').style.transform = `scaleX(${shares[c]})`;
        return item;
    });
    list.replaceChildren(...items);
}

function verdict(float, integer) {
    const best = (shares) => state.classes[argmax(shares)];
    const sure = (shares) => percent(Math.max(...shares));
    if (!integer.length) return `Float says ${best(float)}: ${sure(float)}.`;
    if (best(float) === best(integer))
        return `Both say ${best(float)}: float ${sure(float)}, integer ${sure(integer)}.`;
    const said = (shares) => `${best(shares)} (${sure(shares)})`;
    return `Float says ${said(float)}, integer ${said(integer)}.`;
}

function showAnswers() {
    const [float, integer] = [FLOAT, INTEGER].map((kind) =>
        state.engine.has(kind) ? [...state.engine.run(kind, state.picture).probabilities] : [],
    );
    showTop($('float-top'), float);
    showTop($('integer-top'), integer);
    say('verdict', verdict(float, integer));
    performance.mark(integer.length ? 'both answers' : 'float answer');
}

async function showTime(id, kind, turn) {
    await pause();
    if (!isCurrent(turn)) return;
    const { median } = state.engine.time(kind, state.picture, 9, 3);
    const time = median < 1000 ? `${median.toFixed(0)} µs` : `${(median / 1000).toFixed(1)} ms`;
    say(id, `${time} for the picture`);
}

// ---- Facts ----

function fact(id, value, remark) {
    $(id).innerHTML = '<span></span> <small></small>';
    $(id).children[0].textContent = value;
    $(id).children[1].textContent = remark;
}

// Runs a network over the samples, a few at a time; the class that it gives to each.
async function classify(kind, turn) {
    const { engine, samples } = state;
    const found = [];
    for (let i = 0; i < samples.count && isCurrent(turn); i += 10) {
        const some = samples.pixels.subarray(i * engine.pixels, (i + 10) * engine.pixels);
        const { logits } = engine.run(kind, some);
        for (let k = 0; k < logits.length; k += engine.classes)
            found.push(argmax([...logits.subarray(k, k + engine.classes)]));
        await pause();
    }
    return found;
}

function showSize() {
    const bytes = state.engine.parameterBytes(INTEGER);
    const before = state.engine.parameterBytes(FLOAT);
    fact('size', `${number(bytes)} bytes`, `of ${number(before)}, ${percent(bytes / before)}`);
}

async function showAccuracy(turn) {
    const { samples } = state;
    const float = state.floatFound ?? (await classify(FLOAT, turn));
    if (!isCurrent(turn)) return;
    state.floatFound = float;
    const integer = await classify(INTEGER, turn);
    if (!isCurrent(turn)) return;
    const right = (found) => found.filter((c, i) => c === samples.labels[i]).length;
    const same = integer.filter((c, i) => c === float[i]).length;
    fact('right', `${right(float)} → ${right(integer)}`, `of ${samples.count} test pictures`);
    fact('same', same, `of ${samples.count}`);
}

// ---- Quantization ----

const chosenBits = () => [+$('weight-bits').value, +$('activation-bits').value];

function showBits() {
    const [weights, activations] = chosenBits();
    $('weight-shown').textContent = bits(weights);
    $('activation-shown').textContent = bits(activations);
    $('weight-bits').ariaValueText = bits(weights);
    $('activation-bits').ariaValueText = bits(activations);
    $('integer-bits').textContent =
        weights === activations ? bits(weights) : `w${weights} a${activations}`;
}

const trainingPictures = () => readRecords(embedded(networks[state.name].training)).pixels;

// A few pictures at a time.
async function calibrate(turn) {
    const { engine } = state;
    const network = networks[state.name];
    if (network.calibration) return engine.readCalibration(embedded(network.calibration));
    const pixels = trainingPictures();
    const count = pixels.length / engine.pixels;
    for (let i = 0; i < count && isCurrent(turn); i += 10) {
        say('integer-cost', `Calibrating: ${i} of ${count} pictures`);
        await pause();
        if (isCurrent(turn))
            engine.calibrate(pixels.subarray(i * engine.pixels, (i + 10) * engine.pixels));
    }
}

const scalesFrom = () =>
    `Scales from ${number(state.engine.calibrationImages)} training pictures, one for each ` +
    'output channel of the weights; ';

// The integer network anew, rounded to nearest, and all that shows it.
async function requantize() {
    const turn = newTurn();
    state.worker?.terminate();
    showBits();
    await pause();
    if (!isCurrent(turn) || !state.engine?.calibrationImages) return;
    state.engine.convert(...chosenBits());
    const learns = Boolean(networks[state.name].training);
    say(
        'made',
        `${scalesFrom()}each weight rounded to the nearest code.` +
            (learns ? ' Learning chooses the codes of a channel together.' : ''),
    );
    $('learn').hidden = !learns;
    $('learn').disabled = false;
    await showAll(turn);
}

// What the worker runs, behind the text of engine.mjs: all of it again, with learned rounding.
async function learnInWorker({ wasm, model, pictures, chosen }) {
    const engine = await Engine.start(wasm);
    engine.load(FLOAT, model);
    engine.calibrate(pictures);
    engine.convert(...chosen, pictures);
    postMessage(engine.save());
}

function startWorker(message) {
    const text =
        $('engine').textContent.replaceAll(/^export /gm, '') +
        `onmessage = ({ data }) => (${learnInWorker})(data).catch(postMessage);`;
    const url = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
    const worker = new Worker(url);
    worker.postMessage(message);
    return worker;
}

const answerOf = (worker) =>
    new Promise((accept, refuse) => {
        worker.onmessage = ({ data }) => (data instanceof Error ? refuse(data) : accept(data));
        worker.onerror = (event) => refuse(new Error(event.message));
    });

// Learning takes seconds, so that it happens beside the page, in an engine of its own.
async function learn() {
    const begun = performance.now();
    $('learn').disabled = true;
    say(
        'made',
        'Learning: the codes of a channel are chosen together, layer by layer, so that the ' +
            'error on the calibration pictures is least …',
    );
    state.worker = startWorker({
        wasm: embedded(state.build),
        model: embedded(`${state.name}-model`),
        pictures: trainingPictures(),
        chosen: chosenBits(),
    });
    const made = await answerOf(state.worker);
    state.worker.terminate();
    state.engine.load(INTEGER, made);
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say('made', `${scalesFrom()}codes learned in ${seconds} seconds. Moving a slider rounds anew.`);
    $('learn').disabled = false;
    await showAll(newTurn());
}

// ---- Inside ----

const rangeOf = (values) =>
    values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [0, 0]);

// Both networks' values of a tensor, their difference, and the signal-to-noise ratio in decibels.
function compare(tensor) {
    const float = state.engine.values(FLOAT, tensor);
    const integer = state.engine.values(INTEGER, tensor);
    const difference = { ...float, values: integer.values.map((v, i) => v - float.values[i]) };
    const power = (values) => values.reduce((sum, v) => sum + v * v, 0);
    const noise = power(difference.values);
    const sqnr = noise ? 10 * Math.log10(power(float.values) / noise) : Infinity;
    return { float, integer, difference, sqnr };
}

function layerChoice(name, tensor) {
    const item = document.createElement('label');
    item.innerHTML =
        '<input type="radio" name="layer" class="hidden">' +
        '<span class="chip"><b></b><small></small><i aria-hidden="true"></i></span>';
    item.querySelector('b').textContent = name;
    item.firstChild.checked = tensor === state.tensor;
    item.firstChild.onchange = () => {
        state.tensor = tensor;
        showInside();
    };
    return item;
}

function showLayers(names, compared) {
    const box = document.querySelector('.layers');
    if (box.children.length === 0) box.replaceChildren(...names.map(layerChoice));
    compared.forEach(({ float, sqnr }, i) => {
        const item = box.children[i];
        const level = Number.isFinite(sqnr) ? `${sqnr.toFixed(1)} dB` : 'no signal';
        item.querySelector('small').innerHTML =
            `<span>${float.height}×${float.width}×${float.channels}</span> ` +
            `<span>${sqnr === Infinity ? 'equal' : level}</span>`;
        const share = Math.min(Math.max(sqnr / 50, 0.01), 1);
        item.querySelector('i').style.transform = `scaleX(${share})`;
    });
}

function showMaps(name, { float, integer, difference }) {
    const [low, high] = rangeOf(float.values);
    const [least, most] = rangeOf(difference.values);
    const largest = Math.max(-least, most);
    const signed = dark.matches ? 'dark' : 'light';
    drawMap($('float-map'), float, low, high, 'values');
    drawMap($('integer-map'), integer, low, high, 'values');
    drawMap($('difference-map'), difference, -largest, largest, signed);
    drawScale($('float-scale'), [low, high].map(short), 'values');
    drawScale($('integer-scale'), [low, high].map(short), 'values');
    drawScale($('difference-scale'), [-largest, 0, largest].map(short), signed);
    $('float-map').ariaLabel =
        `${name} in float: ${float.channels} channels, ${short(low)} to ${short(high)}`;
    $('integer-map').ariaLabel = `${name} in integers, on the same scale`;
    $('difference-map').ariaLabel = `Difference: at most ${short(largest)}`;
}

function rangeText({ low, high, scale, bits: width, clipped, zeros }) {
    const share = clipped < 1e-4 ? 'less than 0.01 %' : `${(100 * clipped).toFixed(2)} %`;
    const codes = scale
        ? `${number(1 << width)} codes, ${short(scale)} apart, reach from ${short(low)} to ` +
          `${short(high)}; of the values ${clipped ? share : 'none'} lie beyond and are clipped.`
        : 'These are real numbers in both networks.';
    return `${codes} Exactly 0, and left out, are ${percent(zeros)}. Heights are logarithmic.`;
}

function showHistogram(tensor) {
    const range = state.engine.range(tensor);
    const from = Math.min(range.min, range.low);
    const to = Math.max(range.max, range.high);
    const counts = state.engine.histogram(tensor, from, to, 120);
    drawHistogram($('histogram'), counts, { from, to, ...range });
    drawEnds($('axis'), [from, to].map(short));
    say('range', rangeText(range));
    $('histogram').ariaLabel =
        `Values from ${short(range.min)} to ${short(range.max)}. ${rangeText(range)}`;
}

function showInside() {
    state.engine.look(state.picture);
    const names = state.engine.tensorNames;
    const compared = names.map((_, i) => compare(i));
    showLayers(names, compared);
    showMaps(names[state.tensor], compared[state.tensor]);
    showHistogram(state.tensor);
}

// ---- Pictures and networks ----

async function showAll(turn) {
    showAnswers();
    await pause();
    if (!isCurrent(turn) || !state.engine.has(INTEGER)) return;
    showInside();
    $('save').disabled = $('measure').disabled = false;
    await showTime('float-cost', FLOAT, turn);
    await showTime('integer-cost', INTEGER, turn);
    if (!isCurrent(turn)) return;
    showSize();
    if (state.samples) await showAccuracy(turn);
    if (isCurrent(turn)) $('facts').ariaBusy = 'false';
}

function setPicture(pixels, caption, sample) {
    Object.assign(state, { picture: pixels, sample });
    drawPicture($('picture'), pixels);
    $('picture').ariaLabel = `${caption}, as the network sees it: 32 by 32 pixels`;
    $('caption').textContent = caption;
}

function choosePicture(i) {
    const { pixels, labels } = state.samples;
    const size = 3 * SIZE * SIZE;
    setPicture(pixels.slice(i * size, (i + 1) * size), `Sample: ${state.classes[labels[i]]}`, i);
}

function sampleChoice(i, name) {
    const item = document.createElement('label');
    item.innerHTML = '<input type="radio" name="sample" class="hidden"><canvas></canvas>';
    item.firstChild.ariaLabel = name;
    item.firstChild.checked = state.sample === i;
    item.firstChild.onchange = () => {
        choosePicture(i);
        showAll(newTurn()).catch(fail);
    };
    drawPicture(item.lastChild, state.samples.pixels.subarray(3 * SIZE * SIZE * i));
    return item;
}

// Two of each class.
function showSamples() {
    const seen = {};
    const choices = [];
    state.samples?.labels.forEach((label, i) => {
        seen[label] = (seen[label] ?? 0) + 1;
        if (seen[label] <= 2)
            choices.push(sampleChoice(i, `${state.classes[label]} ${seen[label]}`));
    });
    document.querySelector('.thumbs').replaceChildren(...choices);
    for (const part of all('#samples, .of-samples')) part.hidden = !state.samples;
}

async function openNetwork(name) {
    const turn = newTurn();
    const network = networks[name];
    state.worker?.terminate();
    const samples = network.samples ? readRecords(embedded(network.samples)) : null;
    Object.assign(state, { name, samples, classes: network.classes(), floatFound: null });
    $('learn').disabled = $('save').disabled = $('measure').disabled = true;
    $('about').textContent = network.about;
    if (!state.picture) choosePicture(0);
    state.engine.load(FLOAT, embedded(`${name}-model`));
    showAnswers();
    await pause();
    if (!isCurrent(turn)) return;
    showSamples();
    await calibrate(turn);
    if (isCurrent(turn)) await requantize();
}

// A picture of the reader's is a photograph as a rule: then the network for these is chosen.
async function takeFile(file) {
    if (!file) return;
    let bitmap;
    try {
        bitmap = await createImageBitmap(file);
    } catch {
        fail(`${file.name} is no picture that this browser can read; try a PNG or a JPEG.`);
        return;
    }
    setPicture(shrink(bitmap), file.name || 'Pasted picture', -1);
    document.querySelector('[name=network][value=cifar10]').checked = true;
    if (state.name === 'cifar10') await showAll(newTurn());
    else await openNetwork('cifar10');
}

// ---- Speed ----

async function measure() {
    const cells = all('#speed td');
    const integer = state.engine.save();
    $('measure').disabled = true;
    for (const [column, build] of ['simd', 'scalar'].entries()) {
        if (build === 'simd' && !hasSimd()) continue;
        const engine = await Engine.start(embedded(build));
        engine.load(FLOAT, embedded(`${state.name}-model`));
        engine.load(INTEGER, integer);
        const times = [];
        for (const kind of [FLOAT, INTEGER]) {
            say('measured', `Measuring ${build} …`);
            await pause();
            times[kind] = engine.time(kind, state.picture, 60, 5).median;
            cells[2 * kind + column].textContent = times[kind].toFixed(0);
        }
        cells[4 + column].textContent = (times[FLOAT] / times[INTEGER]).toFixed(2);
    }
    const missing = hasSimd() ? '' : ' This browser has no vector instructions in WebAssembly.';
    say('measured', `Measured.${missing}`);
    $('measure').disabled = false;
}

// ---- The page ----

function save() {
    const [weights, activations] = chosenBits();
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([state.engine.save()]));
    link.download = `resnet8-${state.name}-w${weights}a${activations}.safetensors`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function listen() {
    const guard = (work) => async (event) => {
        try {
            await work(event);
        } catch (problem) {
            fail(problem);
        }
    };
    const dragging = (yes) => document.body.classList.toggle('dragging', yes);
    $('weight-bits').oninput = $('activation-bits').oninput = guard(requantize);
    $('file').onchange = guard(() => takeFile($('file').files[0]));
    for (const choice of all('[name=network]'))
        choice.onchange = guard(() => openNetwork(choice.value));
    $('learn').onclick = guard(learn);
    $('save').onclick = guard(save);
    $('measure').onclick = guard(measure);
    dark.onchange = guard(() => state.engine?.has(INTEGER) && showInside());
    document.onpaste = guard((event) => takeFile(event.clipboardData.files[0]));
    document.ondragover = (event) => {
        event.preventDefault();
        dragging(true);
    };
    document.ondragleave = (event) => event.relatedTarget || dragging(false);
    document.ondrop = guard((event) => {
        event.preventDefault();
        dragging(false);
        return takeFile(event.dataTransfer.files[0]);
    });
}

// #scalar in the address asks for the build without vector instructions.
async function start() {
    listen();
    showBits();
    state.build = hasSimd() && location.hash !== '#scalar' ? 'simd' : 'scalar';
    state.engine = await Engine.start(embedded(state.build));
    await openNetwork('shapes10');
}

start().catch(fail);
