// The page: what is shown, and when. engine.mjs computes.
import { Engine, readRecords, hasSimd, FLOAT, INTEGER } from './engine.mjs';

const SIZE = 32;
const $ = (id) => document.getElementById(id);
const pause = () => new Promise((resume) => setTimeout(resume));
const number = (value) => value.toLocaleString('en');
const short = (value) => +value.toPrecision(3) + '';
const percent = (share) => (100 * share).toFixed(1) + ' %';
const bits = (n) => `${n} bits`;

// A file that the page carries, as bytes.
function embedded(id) {
    const text = atob($(id).textContent),
        bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
}

const networks = {
    shapes10: {
        about: 'Knows ten drawn shapes; calibrated in this page on 100 training pictures.',
        classes: () => new TextDecoder().decode(embedded('shapes10-classes')).trim().split('\n'),
        calibration: 'shapes10-train',
        samples: 'shapes10-test',
    },
    cifar10: {
        about:
            'Knows airplanes, automobiles, birds, cats, deer, dogs, frogs, horses, ships and ' +
            'trucks, one filling the picture. Choose a photograph of yours.',
        classes: () => [
            'airplane',
            'automobile',
            'bird',
            'cat',
            'deer',
            'dog',
            'frog',
            'horse',
            'ship',
            'truck',
        ],
        statistics: 'cifar10-calibration',
    },
};

// `turn` counts what the reader asked for: work that goes on over pauses stops when it is not the
// latest any more.
const state = {
    engine: null,
    build: '',
    worker: null,
    name: '',
    classes: [],
    samples: null,
    picture: null,
    caption: '',
    tensor: 3,
    turn: 0,
    sample: -1,
    floatFound: null,
};

const isCurrent = (turn) => turn === state.turn;

function fail(problem) {
    $('verdict').textContent = problem.message ?? String(problem);
}

// ---- Answers ----

const argmax = (values) => values.indexOf(Math.max(...values));

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
    const said = (shares) => `${state.classes[argmax(shares)]} (${percent(Math.max(...shares))})`;
    if (!integer) return `Float says ${said(float)}.`;
    return argmax(float) === argmax(integer)
        ? `Both say ${state.classes[argmax(float)]}: float ${percent(Math.max(...float))}, ` +
              `integer ${percent(Math.max(...integer))}.`
        : `Float says ${said(float)}, integer ${said(integer)}.`;
}

function showAnswers() {
    const shares = (kind) =>
        state.engine.has(kind) && [...state.engine.run(kind, state.picture).probabilities];
    const float = shares(FLOAT),
        integer = shares(INTEGER);
    showTop($('float-top'), float);
    if (integer) showTop($('integer-top'), integer);
    else $('integer-top').replaceChildren();
    $('verdict').textContent = verdict(float, integer);
    performance.mark(integer ? 'both answers' : 'float answer');
}

const inTime = (micro) =>
    micro < 1000 ? `${micro.toFixed(0)} µs` : `${(micro / 1000).toFixed(1)} ms`;

async function showTimes(turn) {
    for (const [kind, id] of [
        [FLOAT, 'float-cost'],
        [INTEGER, 'integer-cost'],
    ]) {
        await pause();
        if (!isCurrent(turn)) return;
        const { median } = state.engine.time(kind, state.picture, 9, 3);
        $(id).textContent = `${inTime(median)} for the picture`;
    }
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
        weights === activations
            ? bits(weights)
            : `${weights}-bit weights, ${activations}-bit activations`;
}

function fact(id, value, remark) {
    $(id).innerHTML = '<span></span> <small></small>';
    $(id).children[0].textContent = value;
    $(id).children[1].textContent = remark;
}

// Runs a network over the samples, a few at a time; the class that it gives to each.
async function classify(kind, turn) {
    const { engine, samples } = state,
        step = 10,
        found = [];
    for (let i = 0; i < samples.count && isCurrent(turn); i += step) {
        const { logits } = engine.run(
            kind,
            samples.pixels.subarray(
                i * engine.pixels,
                Math.min(i + step, samples.count) * engine.pixels,
            ),
        );
        for (let k = 0; k < logits.length; k += engine.classes)
            found.push(argmax([...logits.subarray(k, k + engine.classes)]));
        await pause();
    }
    return found;
}

async function showFacts(turn) {
    const { engine, samples } = state;
    const bytes = engine.parameterBytes(INTEGER),
        before = engine.parameterBytes(FLOAT);
    fact('size', `${number(bytes)} bytes`, `of ${number(before)}, ${percent(bytes / before)}`);
    if (!samples) return;
    const float = state.floatFound ?? (await classify(FLOAT, turn));
    if (!isCurrent(turn)) return;
    state.floatFound = float;
    const integer = await classify(INTEGER, turn);
    if (!isCurrent(turn)) return;
    const count = (test) => integer.filter((_, i) => test(i)).length;
    fact(
        'right',
        `${count((i) => float[i] === samples.labels[i])} → ` +
            `${count((i) => integer[i] === samples.labels[i])}`,
        `of ${samples.count} test pictures`,
    );
    fact(
        'same',
        count((i) => integer[i] === float[i]),
        `of ${samples.count}`,
    );
}

const scales = () =>
    `Scales from ${number(state.engine.calibrationImages)} training pictures, ` +
    'one for each output channel of the weights; ';

// The integer network anew, and all that shows it.
async function requantize() {
    const turn = ++state.turn;
    state.worker?.terminate();
    showBits();
    await pause();
    if (!isCurrent(turn) || !state.engine?.calibrationImages) return;
    state.engine.convert(...chosenBits());
    $('made').textContent =
        scales() +
        (networks[state.name].calibration
            ? 'each weight rounded to the nearest code. Learning chooses all codes of a channel together.'
            : 'each weight rounded to the nearest code.');
    $('learn').disabled = !networks[state.name].calibration;
    await showAll(turn);
}

// What the worker runs, after the text of engine.mjs: the whole way again, with learned rounding.
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
        `onmessage = ({ data }) => (${learnInWorker})(data).catch((problem) => postMessage(problem));`;
    const url = URL.createObjectURL(new Blob([text], { type: 'text/javascript' }));
    const worker = new Worker(url);
    URL.revokeObjectURL(url);
    worker.postMessage(message);
    return worker;
}

// Learning takes seconds, so that it happens beside the page, in an engine of its own.
async function learn() {
    const turn = ++state.turn,
        begun = performance.now();
    $('learn').disabled = true;
    $('made').textContent =
        'Learning: all codes of a channel are chosen together, so that the ' +
        'error of each layer on the calibration pictures is least …';
    state.worker = startWorker({
        wasm: embedded(state.build),
        model: embedded(`${state.name}-model`),
        chosen: chosenBits(),
        pictures: readRecords(embedded(networks[state.name].calibration)).pixels,
    });
    const made = await new Promise((accept, refuse) => {
        state.worker.onmessage = ({ data }) => accept(data);
        state.worker.onerror = (event) => refuse(new Error(event.message));
    });
    state.worker.terminate();
    if (made instanceof Error) throw made;
    if (!isCurrent(turn)) return;
    state.engine.load(INTEGER, made);
    $('made').textContent =
        scales() +
        'codes learned in ' +
        `${((performance.now() - begun) / 1000).toFixed(1)} seconds. Moving a slider rounds anew.`;
    await showAll(turn);
}

async function showAll(turn) {
    showAnswers();
    await pause();
    if (!isCurrent(turn)) return;
    if (!state.engine.has(INTEGER)) return;
    showInside();
    $('save').disabled = $('measure').disabled = false;
    await showTimes(turn);
    if (isCurrent(turn)) await showFacts(turn);
}

async function calibrate(network, turn) {
    if (network.statistics) {
        state.engine.readCalibration(embedded(network.statistics));
        return;
    }
    const { count, pixels } = readRecords(embedded(network.calibration)),
        step = 10;
    for (let i = 0; i < count && isCurrent(turn); i += step) {
        $('integer-cost').textContent = `Calibrating: ${i} of ${count} pictures`;
        await pause();
        if (isCurrent(turn))
            state.engine.calibrate(
                pixels.subarray(i * state.engine.pixels, (i + step) * state.engine.pixels),
            );
    }
}

async function openNetwork(name) {
    const turn = ++state.turn,
        network = networks[name];
    state.worker?.terminate();
    $('learn').disabled = true;
    Object.assign(state, {
        name,
        classes: network.classes(),
        floatFound: null,
        samples: network.samples ? readRecords(embedded(network.samples)) : null,
    });
    $('about').textContent = network.about;
    for (const part of document.querySelectorAll('#samples, .of-samples'))
        part.hidden = !state.samples;
    if (!state.picture) choosePicture(0);
    state.engine.load(FLOAT, embedded(`${name}-model`));
    showAnswers();
    await pause();
    if (!isCurrent(turn)) return;
    showSamples();
    await calibrate(network, turn);
    if (!isCurrent(turn)) return;
    await requantize();
}

// ---- Pictures ----

function draw(canvas, pixels) {
    const image = new ImageData(SIZE, SIZE);
    for (let i = 0; i < 4 * SIZE * SIZE; i++)
        image.data[i] = i % 4 < 3 ? pixels[3 * (i >> 2) + (i % 4)] : 255;
    canvas.width = canvas.height = SIZE;
    canvas.getContext('2d').putImageData(image, 0, 0);
}

function setPicture(pixels, caption) {
    Object.assign(state, { picture: pixels, caption });
    draw($('picture'), pixels);
    $('picture').ariaLabel = `${caption}, as the network sees it: 32 by 32 pixels`;
    $('caption').textContent = caption;
}

function choosePicture(i) {
    const { pixels, labels } = state.samples;
    state.sample = i;
    setPicture(
        pixels.slice(i * SIZE * SIZE * 3, (i + 1) * SIZE * SIZE * 3),
        `Sample: ${state.classes[labels[i]]}`,
    );
}

// Two of each class.
function showSamples() {
    const seen = {},
        box = document.querySelector('.thumbs');
    box.replaceChildren();
    for (let i = 0; i < (state.samples?.count ?? 0); i++) {
        const label = state.samples.labels[i];
        seen[label] = (seen[label] ?? 0) + 1;
        if (seen[label] > 2) continue;
        const item = document.createElement('label');
        item.innerHTML = '<input type="radio" name="sample" class="hidden"><canvas></canvas>';
        item.firstChild.ariaLabel = `${state.classes[label]} ${seen[label]}`;
        item.firstChild.checked = state.sample === i;
        item.firstChild.onchange = () => {
            choosePicture(i);
            refresh();
        };
        draw(item.lastChild, state.samples.pixels.subarray(i * 3072, (i + 1) * 3072));
        box.append(item);
    }
}

const refresh = () => showAll(++state.turn).catch(fail);

// The middle square, halved step by step so that every pixel counts, on white where transparent.
function shrink(bitmap) {
    const side = Math.min(bitmap.width, bitmap.height);
    let size = SIZE;
    while (2 * size <= side) size *= 2;
    const canvas = Object.assign(document.createElement('canvas'), { width: size, height: size });
    const to = canvas.getContext('2d', { willReadFrequently: true });
    to.imageSmoothingQuality = 'high';
    to.fillStyle = '#fff';
    to.fillRect(0, 0, size, size);
    to.drawImage(
        bitmap,
        (bitmap.width - side) / 2,
        (bitmap.height - side) / 2,
        side,
        side,
        0,
        0,
        size,
        size,
    );
    to.globalCompositeOperation = 'copy';
    for (; size > SIZE; size /= 2) to.drawImage(canvas, 0, 0, size, size, 0, 0, size / 2, size / 2);
    return to.getImageData(0, 0, SIZE, SIZE).data.filter((_, i) => i % 4 < 3);
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
    setPicture(new Uint8Array(shrink(bitmap)), file.name || 'Pasted picture');
    state.sample = -1;
    if (state.name === 'cifar10') return refresh();
    document.querySelector('[name=network][value=cifar10]').checked = true;
    await openNetwork('cifar10');
}

// ---- Inside ----

// Colours between stops, as [r, g, b] for 0..1.
function between(stops, at) {
    const place = Math.min(Math.max(at, 0), 1) * (stops.length - 1),
        k = Math.min(place | 0, stops.length - 2);
    return stops[k].map((from, i) => from + (stops[k + 1][i] - from) * (place - k));
}
const css = (stops) => `linear-gradient(90deg, ${stops.map((c) => `rgb(${c})`)})`;
const ramp = [
    [20, 27, 51],
    [33, 74, 112],
    [40, 128, 128],
    [112, 182, 128],
    [245, 236, 180],
];
const dark = matchMedia('(prefers-color-scheme: dark)');
const signedRamp = () =>
    dark.matches
        ? [
              [90, 160, 238],
              [42, 42, 39],
              [240, 122, 118],
          ]
        : [
              [42, 120, 214],
              [243, 242, 238],
              [208, 59, 59],
          ];

// The channels of a tensor as tiles of a square, one pixel apart.
function drawMap(canvas, { height, width, channels, values }, low, high, stops) {
    const columns = Math.ceil(Math.sqrt(channels)),
        gap = width > 1 ? 1 : 0;
    const across = columns * (width + gap) - gap;
    const down = Math.ceil(channels / columns) * (height + gap) - gap,
        edge = Math.max(across, down);
    const image = new ImageData(edge, edge),
        step = 255 / (high - low || 1);
    const table = Array.from({ length: 256 }, (_, i) => [...between(stops, i / 255), 255]);
    values.forEach((value, i) => {
        const c = i % channels,
            x = ((i / channels) | 0) % width,
            y = (i / channels / width) | 0;
        const at =
            (((c / columns) | 0) * (height + gap) + y) * edge + (c % columns) * (width + gap) + x;
        image.data.set(table[Math.max(0, Math.min(255, Math.round((value - low) * step)))], 4 * at);
    });
    canvas.width = canvas.height = edge;
    canvas.getContext('2d').putImageData(image, 0, 0);
}

function showScale(id, stops, ends) {
    $(id).style.setProperty('--ramp', css(stops));
    $(id).replaceChildren(
        ...ends.map((end) =>
            Object.assign(document.createElement('span'), { textContent: short(end) }),
        ),
    );
}

const rangeOf = (values) =>
    values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [0, 0]);

// Both networks' values of a tensor, their difference, and the signal-to-noise ratio in decibels.
function compare(tensor) {
    const float = state.engine.values(FLOAT, tensor),
        integer = state.engine.values(INTEGER, tensor);
    const difference = { ...float, values: integer.values.map((v, i) => v - float.values[i]) };
    const power = (values) => values.reduce((sum, v) => sum + v * v, 0);
    return {
        float,
        integer,
        difference,
        sqnr: 10 * Math.log10(power(float.values) / power(difference.values)),
    };
}

function showLayers(names, compared) {
    const box = document.querySelector('.layers');
    if (box.children.length !== names.length || box.dataset.network !== state.name) {
        box.dataset.network = state.name;
        box.replaceChildren(
            ...names.map((name, i) => {
                const item = document.createElement('label');
                item.innerHTML =
                    '<input type="radio" name="layer" class="hidden">' +
                    '<span class="chip"><b></b><small></small><i aria-hidden="true"></i></span>';
                item.querySelector('b').textContent = name;
                item.firstChild.checked = i === state.tensor;
                item.firstChild.onchange = () => {
                    state.tensor = i;
                    showInside();
                };
                return item;
            }),
        );
    }
    compared.forEach(({ float, sqnr }, i) => {
        const shape = `${float.height}×${float.width}×${float.channels}`;
        const item = box.children[i];
        item.querySelector('small').innerHTML =
            `<span>${shape}</span> <span>${sqnr.toFixed(1)} dB</span>`;
        item.querySelector('i').style.transform =
            `scaleX(${Math.min(Math.max(sqnr / 50, 0.01), 1)})`;
    });
}

function showInside() {
    state.engine.look(state.picture);
    const names = state.engine.tensorNames,
        compared = names.map((_, i) => compare(i));
    const { float, integer, difference } = compared[state.tensor],
        name = names[state.tensor];
    const [low, high] = rangeOf(float.values),
        [least, most] = rangeOf(difference.values);
    const largest = Math.max(-least, most);
    showLayers(names, compared);
    drawMap($('float-map'), float, low, high, ramp);
    drawMap($('integer-map'), integer, low, high, ramp);
    drawMap($('difference-map'), difference, -largest, largest, signedRamp());
    showScale('float-scale', ramp, [low, high]);
    showScale('integer-scale', ramp, [low, high]);
    showScale('difference-scale', signedRamp(), [-largest, 0, largest]);
    $('float-map').ariaLabel =
        `${name} in float: ${float.channels} channels, ${short(low)} to ${short(high)}`;
    $('integer-map').ariaLabel = `${name} in integers, on the same scale`;
    $('difference-map').ariaLabel = `Difference: at most ${short(largest)}`;
    showHistogram(state.tensor);
}

function svg(name, attributes) {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
}

// Bars as high as the logarithm of the count; the range that codes reach behind them, with the codes
// themselves where they can be told apart.
function showHistogram(tensor) {
    const { low, high, scale, bits: width, min, max, clipped, zeros } = state.engine.range(tensor);
    const coded = width > 0,
        from = Math.min(min, low),
        to = Math.max(max, high),
        columns = 120;
    const counts = state.engine.histogram(tensor, from, to, columns);
    const tallest = Math.log1p(Math.max(...counts)) || 1,
        at = (v) => (720 * (v - from)) / (to - from);
    const parts = coded
        ? [
              svg('rect', {
                  class: 'range',
                  x: at(low),
                  y: 0,
                  width: at(high) - at(low),
                  height: 170,
              }),
          ]
        : [];
    counts.forEach((count, i) => {
        const middle = from + ((to - from) * (i + 0.5)) / columns,
            tall = (150 * Math.log1p(count)) / tallest;
        const inside = !coded || (middle >= low && middle <= high);
        parts.push(
            svg('rect', {
                class: inside ? 'in' : 'out',
                x: 6 * i + 0.5,
                width: 5,
                y: 164 - tall,
                height: tall,
            }),
        );
    });
    for (let code = 0; coded && width <= 5 && code < 1 << width; code++) {
        const x = at(low + code * scale);
        parts.push(svg('line', { x1: x, x2: x, y1: 164, y2: 170, 'stroke-width': 2 }));
    }
    $('histogram').replaceChildren(...parts);
    $('axis').replaceChildren(
        ...[from, to].map((end) =>
            Object.assign(document.createElement('span'), { textContent: short(end) }),
        ),
    );
    const share =
        clipped === 0
            ? 'none'
            : clipped < 1e-4
              ? 'less than 0.01 %'
              : `${(100 * clipped).toFixed(2)} %`;
    $('range').textContent =
        (coded
            ? `${number(1 << width)} codes, ${short(scale)} apart, reach from ${short(low)} to ${short(high)}; ` +
              `of the values ${share} lie beyond and are clipped. `
            : 'These are real numbers in both networks. ') +
        `${percent(zeros)} are exactly 0 and left out. Heights are logarithmic.`;
    $('histogram').ariaLabel =
        `Values from ${short(min)} to ${short(max)}. ${$('range').textContent}`;
}

// ---- Speed ----

async function measure() {
    const cells = [...document.querySelectorAll('#speed td')],
        times = [];
    const model = embedded(`${state.name}-model`),
        integer = state.engine.save();
    $('measure').disabled = true;
    for (const [column, build] of ['simd', 'scalar'].entries()) {
        if (build === 'simd' && !hasSimd()) continue;
        const engine = await Engine.start(embedded(build));
        engine.load(FLOAT, model);
        engine.load(INTEGER, integer);
        for (const kind of [FLOAT, INTEGER]) {
            $('measured').textContent = `Measuring ${build} …`;
            await pause();
            times[kind] = engine.time(kind, state.picture, 60, 5).median;
            cells[2 * kind + column].textContent = times[kind].toFixed(0);
        }
        cells[4 + column].textContent = (times[FLOAT] / times[INTEGER]).toFixed(2);
    }
    $('measured').textContent = hasSimd()
        ? 'Measured.'
        : 'Measured. This browser has no vector instructions in WebAssembly.';
    $('measure').disabled = false;
}

function save() {
    const [weights, activations] = chosenBits();
    const url = URL.createObjectURL(new Blob([state.engine.save()]));
    Object.assign(document.createElement('a'), {
        href: url,
        download: `resnet8-${state.name}-w${weights}a${activations}.safetensors`,
    }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- The page ----

function listen() {
    const guard =
        (work) =>
        (...args) =>
            Promise.resolve(work(...args)).catch(fail);
    $('weight-bits').oninput = $('activation-bits').oninput = guard(requantize);
    $('file').onchange = guard(() => takeFile($('file').files[0]));
    for (const choice of document.querySelectorAll('[name=network]'))
        choice.onchange = guard(() => openNetwork(choice.value));
    $('learn').onclick = guard(learn);
    $('save').onclick = guard(save);
    $('measure').onclick = guard(measure);
    dark.onchange = () => state.engine?.has(INTEGER) && showInside();
    document.onpaste = guard((e) => takeFile([...e.clipboardData.files][0]));
    document.ondragover = (e) => {
        e.preventDefault();
        document.body.classList.add('dragging');
    };
    document.ondragleave = (e) => {
        if (!e.relatedTarget) document.body.classList.remove('dragging');
    };
    document.ondrop = guard((e) => {
        e.preventDefault();
        document.body.classList.remove('dragging');
        return takeFile(e.dataTransfer.files[0]);
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
