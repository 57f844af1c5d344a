// The page: what is shown, and when. engine.mjs computes, draw.mjs draws.
import { Engine, readRecords, hasSimd, FLOAT, INTEGER } from './engine.mjs';
import { $, all, argmax, bits, embedded, fail, guard, isCurrent } from './state.mjs';
import { number, pause, percent, say, state } from './state.mjs';
import { SIZE, shrink, drawPicture } from './draw.mjs';
import { blame, listenInside, showInside } from './inside.mjs';
import { addPoint, drawCurve, listenCurve } from './curve.mjs';
import { endStory, hands, startStory, tellBack, tellNext } from './story.mjs';
import { explainTerms } from './terms.mjs';
import { scenes } from './scenes.mjs';

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
            'trucks, if one fills the picture. The samples are drawn, and too few to count right ' +
            'answers; choose a photograph of your own.',
        classes: () => 'airplane automobile bird cat deer dog frog horse ship truck'.split(' '),
        calibration: 'cifar10-calibration',
    },
};

function newTurn() {
    $('facts').ariaBusy = 'true';
    return ++state.turn;
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

async function showTimes(turn) {
    await pause();
    if (!isCurrent(turn)) return;
    state.engine.time(state.picture, 9, 3).forEach(({ least }, kind) => {
        const time = least < 1000 ? `${least.toFixed(0)} µs` : `${(least / 1000).toFixed(1)} ms`;
        say(kind === FLOAT ? 'float-cost' : 'integer-cost', `${time} for the picture`);
    });
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
    addPoint(...chosenBits(), state.learned, right(integer), samples.count);
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
    `Ranges from ${number(state.engine.calibrationImages)} training pictures; one scale for ` +
    'each output channel of the weights; ';

// The integer network anew, rounded to nearest, and all that shows it.
async function requantize() {
    const turn = newTurn();
    state.giveUp();
    showBits();
    await pause();
    if (!isCurrent(turn) || !state.engine?.calibrationImages) return;
    state.engine.convert(...chosenBits());
    state.learned = false;
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

// What the worker makes; null where the work was given up, which state.giveUp does.
const answerOf = (worker) =>
    new Promise((accept, refuse) => {
        worker.onmessage = ({ data }) => (data instanceof Error ? refuse(data) : accept(data));
        worker.onerror = (event) => refuse(new Error(event.message));
        state.giveUp = () => accept(null);
    }).finally(() => worker.terminate());

// Learning takes seconds, so that it happens beside the page, in an engine of its own.
async function learn() {
    const begun = performance.now();
    $('learn').disabled = true;
    const tick = () => {
        const seconds = Math.round((performance.now() - begun) / 1000);
        $('made').textContent =
            'Learning: the codes of a channel are chosen together, layer by layer, so that the ' +
            `error on the calibration pictures is least … ${seconds} s`;
    };
    const ticking = setInterval(tick, 1000);
    tick();
    const worker = startWorker({
        wasm: embedded(state.build),
        model: embedded(`${state.name}-model`),
        pictures: trainingPictures(),
        chosen: chosenBits(),
    });
    const made = await answerOf(worker).finally(() => clearInterval(ticking));
    if (!made) return;
    state.engine.load(INTEGER, made);
    state.learned = true;
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    say(
        'made',
        `${scalesFrom()}codes learned in ${seconds} seconds. ` +
            'Moving a slider rounds to nearest again.',
    );
    $('learn').disabled = false;
    await showAll(newTurn());
}

// One number of bits after the other; ends with the one that was chosen before.
async function fillCurve() {
    const before = $('weight-bits').value;
    const [, activations] = chosenBits();
    $('fill').disabled = true;
    for (let n = 2; n <= 8; n++) await setBits(n, activations);
    await setBits(before, activations);
    $('fill').disabled = false;
}

// ---- Pictures and networks ----

async function showAll(turn) {
    showAnswers();
    await pause();
    if (!isCurrent(turn) || !state.engine.has(INTEGER)) return;
    showInside();
    for (const id of ['save', 'measure', 'fill', 'blame']) $(id).disabled = false;
    await showTimes(turn);
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

// Pictures to choose from: of test pictures two of each class, else drawn scenes, one of each.
function picturesOf({ classes, samples }) {
    if (!samples)
        return classes.map((name) => ({
            name,
            caption: `Drawn: ${name}`,
            pixels: drawScene(name),
        }));
    const seen = {};
    const size = 3 * SIZE * SIZE;
    return [...samples.labels].flatMap((label, i) => {
        seen[label] = (seen[label] ?? 0) + 1;
        const name = `${classes[label]} ${seen[label]}`;
        const pixels = samples.pixels.slice(i * size, (i + 1) * size);
        return seen[label] > 2 ? [] : [{ name, caption: `Sample: ${classes[label]}`, pixels }];
    });
}

function drawScene(name) {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = 512;
    const to = canvas.getContext('2d');
    to.scale(8, 8);
    scenes[name](to);
    return shrink(canvas);
}

function choosePicture(i) {
    const { pixels, caption } = state.choices[i];
    setPicture(pixels, caption, i);
}

function sampleChoice({ name, pixels }, i) {
    const item = document.createElement('label');
    item.innerHTML = '<input type="radio" name="sample" class="hidden"><canvas></canvas>';
    item.firstChild.ariaLabel = name;
    item.firstChild.checked = state.sample === i;
    item.firstChild.onchange = () => {
        choosePicture(i);
        showAll(newTurn()).catch(fail);
    };
    drawPicture(item.lastChild, pixels);
    return item;
}

function showSamples() {
    document.querySelector('.thumbs').replaceChildren(...state.choices.map(sampleChoice));
    for (const part of all('.of-samples')) part.hidden = !state.samples;
    if (state.samples) drawCurve();
}

async function openNetwork(name) {
    const turn = newTurn();
    const network = networks[name];
    state.giveUp();
    const samples = network.samples ? readRecords(embedded(network.samples)) : null;
    Object.assign(state, { name, samples, classes: network.classes(), floatFound: null });
    state.choices = picturesOf(state);
    for (const id of ['learn', 'save', 'measure', 'fill', 'blame']) $(id).disabled = true;
    $('about').textContent = network.about;
    if (!state.picture || state.sample >= 0) choosePicture(0); // a picture of one's own stays
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
        throw new Error(
            `${file.name} is not a picture that this browser can read; try PNG or JPEG.`,
        );
    }
    endStory();
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
        say('measured', `Measuring ${build} …`);
        await pause();
        const times = engine.time(state.picture, 60, 5).map(({ least }) => least);
        times.forEach((time, kind) => (cells[2 * kind + column].textContent = time.toFixed(0)));
        cells[4 + column].textContent = (times[FLOAT] / times[INTEGER]).toFixed(2);
    }
    const missing = hasSimd() ? '' : ' This browser has no vector instructions in WebAssembly.';
    say('measured', `Measured.${missing}`);
    $('measure').disabled = false;
}

// ---- The page ----

// As the sliders do; where the bits are chosen already, and rounded to nearest, nothing is done.
async function setBits(weights, activations) {
    const same = String(chosenBits()) === String([+weights, +activations]) && !state.learned;
    if (same && state.engine.has(INTEGER)) return;
    $('weight-bits').value = weights;
    $('activation-bits').value = activations;
    await requantize();
}

async function settled() {
    while ($('facts').ariaBusy === 'true') await new Promise((resume) => setTimeout(resume, 20));
}

function save() {
    const [weights, activations] = chosenBits();
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([state.engine.save()]));
    link.download = `resnet8-${state.name}-w${weights}a${activations}.safetensors`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function listen() {
    const dragging = (yes) => document.body.classList.toggle('dragging', yes);
    $('weight-bits').oninput = $('activation-bits').oninput = guard('bits', requantize);
    $('file').onchange = guard('picture', () => takeFile($('file').files[0]));
    for (const choice of all('[name=network]'))
        choice.onchange = guard('picture', () => {
            endStory();
            return openNetwork(choice.value);
        });
    $('learn').onclick = guard('bits', learn);
    $('save').onclick = guard('bits', save);
    $('measure').onclick = guard('speed', measure);
    listenInside();
    listenCurve();
    explainTerms();
    Object.assign(hands, { setBits, learn, settled });
    $('next').onclick = guard('story', tellNext);
    $('back').onclick = guard('story', tellBack);
    $('skip').onclick = endStory;
    $('again').onclick = guard('story', async () => {
        await openStory();
        scrollTo(0, 0);
    });
    $('blame').onclick = guard('inside', blame);
    $('fill').onclick = guard('bits', fillCurve);
    document.onpaste = guard('picture', (event) => takeFile(event.clipboardData.files[0]));
    document.ondragover = (event) => {
        event.preventDefault();
        dragging(true);
    };
    document.ondragleave = (event) => event.relatedTarget || dragging(false);
    document.ondrop = guard('picture', (event) => {
        event.preventDefault();
        dragging(false);
        return takeFile(event.dataTransfer.files[0]);
    });
}

// The story is that of a drawn picture.
async function openStory() {
    document.querySelector('[name=network][value=shapes10]').checked = true;
    if (state.name !== 'shapes10') await openNetwork('shapes10');
    choosePicture(0);
    showSamples();
    await showAll(newTurn());
    await startStory();
}

// #scalar in the address asks for the build without vector instructions.
async function start() {
    listen();
    showBits();
    state.build = hasSimd() && location.hash !== '#scalar' ? 'simd' : 'scalar';
    state.engine = await Engine.start(embedded(state.build));
    await openNetwork('shapes10');
    if (!$('story').hidden) await startStory();
}

start().catch((problem) => fail(problem));
