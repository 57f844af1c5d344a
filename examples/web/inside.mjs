// The network from within: the graph with its maps, one map in float and in integers, one element of
// it with its arithmetic, and histograms.
import { $, argmax, bits, dark, number, pause, percent, say, short } from './state.mjs';
import { signed, state } from './state.mjs';
import { drawChannel, drawEnds, drawHistogram, drawMap, drawScale } from './draw.mjs';
import { drawWeights, elementAt, pixelOf, tiles } from './draw.mjs';
import { blockOf, drawEdges, layout } from './graph.mjs';
import { minus, showArithmetic, showInput } from './arithmetic.mjs';
import { FLOAT, INTEGER, PROBE } from './engine.mjs';

let graph = { places: [], edges: [] };
let nodes = {}; // of the integer network, by name
let seen = new Map(); // what both networks make of the picture, by the result's name
let alone = null; // by a node's name: the share of float's answer if it alone has few bits

const rangeOf = (values) =>
    values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [0, 0]);

// ---- The results of both networks ----

// How a node codes its result, and the one before a fused addition.
const coding = (text) => {
    const [, , scale, zero] = (text ?? ':::').split(':');
    return { scale: Math.fround(+scale) || 0, zero: +zero || 0 };
};

const inputOf = () => {
    const input = Object.values(nodes).find(({ op }) => op === 'input');
    const list = (text, otherwise) => (text ?? otherwise).split(',').map(Number);
    const [height, width, channels] = input.shape.split('x').map(Number);
    const [mean, std] = [list(input.mean, '0'), list(input.std, '1')].map((of) =>
        of.map(Math.fround),
    );
    return { name: input.name, height, width, channels, mean, std, ...coding(input.q) };
};

// Rounds halves to even.
function even(value) {
    const low = Math.floor(value);
    if (value - low !== 0.5) return Math.round(value);
    return low % 2 ? low + 1 : low;
}

const ofChannel = (list, c) => list[c % list.length];

// The picture as it is preprocessed, and in the codes of the input.
function inputValues() {
    const input = inputOf();
    const { height, width, channels } = input;
    const shape = { height, width, channels };
    const float = [...state.picture].map((pixel, i) => {
        const c = i % channels;
        return Math.fround((pixel - ofChannel(input.mean, c)) / ofChannel(input.std, c));
    });
    const integer = float.map((value) => {
        const code = even(Math.fround(value / input.scale)) + input.zero;
        return input.scale * (Math.max(0, Math.min(255, code)) - input.zero);
    });
    return [
        { ...shape, values: float },
        { ...shape, values: integer },
    ];
}

// Both networks' values of a result, their difference, the signal-to-noise ratio in decibels, and
// the step of the codes; of real numbers, a 255th of the range on the calibration pictures.
function compare(name, tensor) {
    const [float, integer] =
        tensor < 0
            ? inputValues()
            : [FLOAT, INTEGER].map((kind) => state.engine.values(kind, tensor));
    const range = tensor < 0 ? null : state.engine.range(tensor);
    const step = range ? range.scale || (range.max - range.min) / 255 || 1 : inputOf().scale;
    const difference = { ...float, values: integer.values.map((v, i) => v - float.values[i]) };
    const power = (values) => values.reduce((sum, v) => sum + v * v, 0);
    const noise = power(difference.values);
    const sqnr = noise ? 10 * Math.log10(power(float.values) / noise) : Infinity;
    return { name, tensor, float, integer, difference, sqnr, step, coded: !range || range.scale };
}

// ---- The graph ----

// The channel that says most: of the largest spread.
function liveliest({ values, channels }) {
    const sums = Array.from({ length: channels }, () => [0, 0]);
    values.forEach((v, i) => {
        sums[i % channels][0] += v;
        sums[i % channels][1] += v * v;
    });
    const n = values.length / channels;
    const spread = sums.map(([sum, squares]) => squares / n - (sum / n) ** 2);
    return spread.indexOf(Math.max(...spread));
}

const shades = (values) => {
    const [low, high] = rangeOf(values);
    return (value) => (value - low) / (high - low || 1);
};

// What a node says below its name, and the length of its bar.
function levelOf(name) {
    const { sqnr } = seen.get(name);
    const words = Number.isFinite(sqnr) ? `${Math.round(sqnr)} dB` : '–';
    return [sqnr === Infinity ? 'equal' : words, Math.min(Math.max(sqnr / 50, 0.01), 1)];
}

function blameOf(name) {
    const place = graph.places.find((one) => one.name === name);
    const share = place.op === 'add' ? undefined : alone.get(place.node);
    return share === undefined ? ['–', 0] : [`${Math.round(100 * share)} %`, share];
}

function nodeChoice({ name, label, step, lane }) {
    const item = document.createElement('label');
    item.className = 'node';
    item.innerHTML =
        '<input type="radio" name="layer" class="hidden"><span class="chip"><canvas></canvas>' +
        '<b></b><small></small><i aria-hidden="true"></i></span>';
    item.style.setProperty('--step', Math.round(2 * step) + 1);
    item.style.setProperty('--lane', lane + 1);
    item.querySelector('b').textContent = label;
    item.title = name;
    item.firstChild.value = name;
    item.firstChild.onchange = () => chooseLayer(name);
    return item;
}

function blockLabels() {
    const blocks = new Map();
    for (const { name, step, lane } of graph.places) {
        if (lane || !blockOf(name)) continue;
        const [from] = blocks.get(blockOf(name)) ?? [step];
        blocks.set(blockOf(name), [from, step]);
    }
    return [...blocks].map(([block, [from, to]]) => {
        const title = document.createElement('p');
        title.className = 'block';
        title.textContent = block.replace('block', 'block ');
        title.style.setProperty('--step', 2 * from + 1);
        title.style.setProperty('--span', 2 * (to - from) + 2);
        return title;
    });
}

const elements = () =>
    new Map([...$('graph').querySelectorAll('.node')].map((node) => [node.firstChild.value, node]));

export const drawLines = () => drawEdges($('edges'), $('graph'), graph.edges, elements());

function showGraph() {
    const names = graph.places.map(({ name }) => name).join();
    if ($('graph').dataset.names !== names) {
        $('graph').dataset.names = names;
        const made = graph.places.map(nodeChoice);
        $('graph').replaceChildren($('edges'), ...blockLabels(), ...made);
        new ResizeObserver(drawLines).observe($('graph'));
    }
    for (const [name, item] of elements()) {
        const { integer } = seen.get(name);
        const [words, share] = alone ? blameOf(name) : levelOf(name);
        item.firstChild.checked = name === state.tensor;
        item.querySelector('small').textContent = words;
        item.querySelector('i').style.transform = `scaleX(${share})`;
        const flat = integer.height === 1;
        const canvas = item.querySelector('canvas');
        const shade = shades(integer.values);
        if (flat) drawMap(canvas, integer, shade, 'values');
        else drawChannel(canvas, integer, liveliest(integer), shade, 'values');
    }
    drawLines();
}

// ---- One map ----

const MOST_STEPS = 64;

// Where a difference in steps of the code lies between 0 and 1: as its logarithm, which shows one
// step and fifty; the same in every layer, for every picture.
const shadeOfSteps = (steps) =>
    0.5 + (0.5 * Math.sign(steps) * Math.log1p(Math.abs(steps))) / Math.log1p(MOST_STEPS);

function showMaps({ name, float, integer, difference, step, coded }) {
    const range = rangeOf(float.values);
    const shade = shades(float.values);
    const most = largest(difference.values) / step;
    drawMap($('float-map'), float, shade, 'values');
    drawMap($('integer-map'), integer, shade, 'values');
    drawMap($('difference-map'), difference, (v) => shadeOfSteps(v / step), signed());
    drawScale($('float-scale'), range.map(short).map(minus), 'values');
    drawScale($('integer-scale'), range.map(short).map(minus), 'values');
    drawScale($('difference-scale'), ['−64', '−7', '0', '7', '64'], signed());
    const unit = coded ? 'steps of the code' : 'steps of a 255th of the range';
    say('difference-unit', `${unit}, each ${short(step)}; here at most ${short(most)}`);
    const size = `${float.channels} channels of ${float.height} by ${float.width}`;
    $('float-map').ariaLabel = `${name} in float: ${size}, ${range.map(short).join(' to ')}`;
    $('integer-map').ariaLabel = `${name} in integers, on the same scale`;
    $('difference-map').ariaLabel = `Difference: at most ${short(most)} ${unit}`;
}

const largest = (values) => values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

// A frame round the element in each of the three maps.
function markSpot({ float }) {
    const { edge } = tiles(float);
    const { row, column } = pixelOf(float, state.spot);
    for (const frame of document.querySelectorAll('.spot')) {
        frame.style.left = `${(100 * column) / edge}%`;
        frame.style.top = `${(100 * row) / edge}%`;
        frame.style.width = frame.style.height = `${100 / edge}%`;
    }
    for (const [id, key, end] of [
        ['row', 'y', float.height],
        ['column', 'x', float.width],
        ['channel', 'c', float.channels],
    ]) {
        $(id).value = state.spot[key];
        $(id).max = end - 1;
    }
}

// ---- One element ----

function explainInput({ c }, at) {
    const input = inputOf();
    const value = seen.get(state.tensor).integer.values[at];
    showInput($('arithmetic'), {
        pixel: state.picture[at],
        mean: Math.fround(ofChannel(input.mean, c)),
        std: Math.fround(ofChannel(input.std, c)),
        scale: input.scale,
        zero: input.zero,
        code: even(value / input.scale) + input.zero,
        value: Math.fround(value),
    });
}

export function showElement() {
    const { float, tensor } = seen.get(state.tensor);
    const { y, x, c } = state.spot;
    const at = (y * float.width + x) * float.channels + c;
    const place = graph.places.find(({ name }) => name === state.tensor);
    markSpot(seen.get(state.tensor));
    say('element', `${state.tensor} at row ${y}, column ${x}, channel ${c}`);
    $('source').hidden = tensor < 0;
    if (tensor < 0) return explainInput(state.spot, at);
    const e = state.engine.explain(place.node, y, x, c);
    state.inputChannel = Math.min(state.inputChannel, e.channels - 1);
    showArithmetic($('arithmetic'), e, {
        added: place.op === 'add',
        float: float.values[at],
        scheme: signed(),
        chosen: state.inputChannel,
        choose: (i) => {
            state.inputChannel = i;
            showElement();
            $('input-channel').focus();
        },
    });
    showSource(place, e);
}

// The channel that the window shows, and the window in it.
function showSource(place, e) {
    const name = graph.edges.find(([, to]) => to === ownResult(place))[0];
    const { integer } = seen.get(name);
    const dense = place.op === 'dense';
    const c = dense ? 0 : e.channel + state.inputChannel;
    if (dense) drawMap($('source-map'), integer, shades(integer.values), 'values');
    else drawChannel($('source-map'), integer, c, shades(integer.values), 'values');
    say('source-name', dense ? `All of ${name}` : `Channel ${c} of ${name}, and the window`);
    const box = dense ? pixelOf(integer, { y: 0, x: 0, c: state.inputChannel }) : null;
    const { edge } = dense ? tiles(integer) : { edge: integer.height };
    const frame = $('source-window').style;
    frame.left = `${(100 * (dense ? box.column : e.left)) / edge}%`;
    frame.top = `${(100 * (dense ? box.row : e.top)) / edge}%`;
    frame.width = `${(100 * (dense ? 1 : e.width)) / edge}%`;
    frame.height = `${(100 * (dense ? 1 : e.height)) / edge}%`;
}

// A sum is explained with the convolution that takes it in.
const ownResult = (place) => (place.op === 'add' ? nodes[place.node].name : place.name);

export function chooseElement(spot) {
    const { float } = seen.get(state.tensor);
    const within = (value, end) => Math.max(0, Math.min(end - 1, Math.trunc(value) || 0));
    state.spot = {
        y: within(spot.y, float.height),
        x: within(spot.x, float.width),
        c: within(spot.c, float.channels),
    };
    showElement();
}

// The same place, as a share of the size, in another layer.
export function chooseLayer(name) {
    const before = seen.get(state.tensor)?.float;
    const { float } = seen.get(name);
    const { y, x, c } = state.spot;
    state.tensor = name;
    const scale = before ? float.height / before.height : 1;
    showLayer();
    chooseElement({ y: y * scale, x: x * scale, c });
}

// ---- Which layer did it ----

// Each layer alone with the bits that all have now, the others with 8. Returns the one that leaves
// least of float's answer: { name, result, answer, share }.
export async function blame() {
    const { engine, picture, turn } = state;
    const [weights, activations] = [$('weight-bits').value, $('activation-bits').value].map(Number);
    const wanted = argmax([...engine.run(FLOAT, picture).probabilities]);
    const found = new Map();
    let worst = null;
    for (const { name, node, op } of graph.places) {
        if (op !== 'conv2d' && op !== 'dense') continue;
        say('graph-note', `Trying ${node} alone …`);
        await pause();
        if (state.turn !== turn) return worst;
        engine.convertOne(node, weights, activations);
        const shares = [...engine.run(PROBE, picture).probabilities];
        const share = shares[wanted];
        found.set(node, share);
        if (!worst || share < worst.share)
            worst = { name: node, result: name, answer: state.classes[argmax(shares)], share };
    }
    alone = found;
    showGraph();
    for (const [name, item] of elements()) item.classList.toggle('guilty', name === worst.result);
    say(
        'graph-note',
        `Percentages: how sure of ${state.classes[wanted]} the network is if this layer alone ` +
            `has ${bits(weights)} for weights and ${activations} for activations, and all others ` +
            `8. ${worst.name} hurts most.`,
    );
    return worst;
}

// The element of the chosen layer that is furthest from float.
export function chooseWorst() {
    const { name, difference, step } = seen.get(state.tensor);
    const { width, channels, values } = difference;
    const most = largest(values);
    const at = values.findIndex((v) => Math.abs(v) === most);
    const place = Math.floor(at / channels);
    state.inputChannel = 0;
    chooseElement({ y: Math.floor(place / width), x: place % width, c: at % channels });
    return { name, steps: short(most / step) };
}

// ---- Histograms ----

function rangeText({ low, high, scale, bits: width, clipped, zeros }) {
    const share = clipped < 1e-4 ? 'less than 0.01 %' : `${(100 * clipped).toFixed(2)} %`;
    const codes = scale
        ? `${number(1 << width)} codes, ${short(scale)} apart, reach from ${short(low)} to ` +
          `${short(high)}; ${clipped ? share : 'none'} of the values lie outside and are clipped.`
        : 'These are real numbers in both networks.';
    return `${codes} ${percent(zeros)} are exactly 0, and not shown. Heights are logarithmic.`;
}

function showHistogram({ tensor }) {
    $('values').hidden = tensor < 0;
    if (tensor < 0) return;
    const range = state.engine.range(tensor);
    const from = Math.min(range.min, range.low);
    const to = Math.max(range.max, range.high);
    const counts = state.engine.histogram(tensor, from, to, 120);
    drawHistogram($('histogram'), counts, { from, to, ...range });
    drawEnds($('axis'), [from, to].map(short).map(minus));
    say('range', rangeText(range));
    $('histogram').ariaLabel =
        `Values from ${short(range.min)} to ${short(range.max)}. ${rangeText(range)}`;
}

// Real weights in steps of their code, finer than the codes where these are few, and the codes that
// they became.
function showWeights({ node }) {
    const found = state.engine.weights(node);
    $('weights').hidden = !found;
    if (!found) return;
    const { steps, codes } = found;
    const least = Math.min(...codes, ...steps.map(Math.round));
    const most = Math.max(...codes, ...steps.map(Math.round));
    const fine = Math.max(1, Math.floor(120 / (most - least + 1)));
    const real = Array((most - least + 1) * fine).fill(0);
    const coded = Array(most - least + 1).fill(0);
    for (const step of steps)
        real[Math.min(real.length - 1, Math.max(0, Math.floor((step - least + 0.5) * fine)))]++;
    for (const code of codes) coded[code - least]++;
    drawWeights($('weight-histogram'), { least, most, codes: coded, fine, real });
    drawEnds($('weight-axis'), [least, 0, most].map(minus));
    const moved = codes.filter((code, i) => Math.abs(code - steps[i]) > 0.5).length;
    const text =
        `${number(codes.length)} weights of ${node} in steps of their output channel's scale, ` +
        `and behind them the ${number(new Set(codes).size)} codes in use` +
        (moved ? `; ${number(moved)} were not rounded to the nearest code` : '') +
        '. Heights are logarithmic.';
    say('weight-range', text);
    $('weight-histogram').ariaLabel = text;
}

// ---- All of it ----

function showLayer() {
    const found = seen.get(state.tensor);
    showMaps(found);
    showHistogram(found);
    showWeights(graph.places.find(({ name }) => name === state.tensor));
}

export function showInside() {
    alone = null;
    say('graph-note', '');
    for (const item of elements().values()) item.classList.remove('guilty');
    const list = state.engine.nodes;
    state.engine.look(state.picture);
    nodes = Object.fromEntries(list.map((node) => [node.name, node]));
    graph = layout(list);
    const tensors = state.engine.tensorNames;
    seen = new Map(graph.places.map(({ name }) => [name, compare(name, tensors.indexOf(name))]));
    if (!seen.has(state.tensor)) state.tensor = graph.places[1].name;
    showGraph();
    showLayer();
    chooseElement(state.spot);
}

// Clicks on the maps, arrow keys on them, and the fields beside.
export function listenInside() {
    for (const id of ['float-map', 'integer-map', 'difference-map']) {
        $(id).onclick = (event) => {
            const { float } = seen.get(state.tensor) ?? {};
            if (!float) return;
            const frame = $(id).getBoundingClientRect();
            const { edge } = tiles(float);
            const place = (at, from, size) => Math.floor(((at - from) / size) * edge);
            const row = place(event.clientY, frame.top, frame.height);
            chooseElement(elementAt(float, row, place(event.clientX, frame.left, frame.width)));
        };
        $(id).onkeydown = (event) => {
            const { y, x, c } = state.spot;
            const moved = {
                ArrowUp: { y: y - 1, x, c },
                ArrowDown: { y: y + 1, x, c },
                ArrowLeft: { y, x: x - 1, c },
                ArrowRight: { y, x: x + 1, c },
                PageUp: { y, x, c: c - 1 },
                PageDown: { y, x, c: c + 1 },
            }[event.key];
            if (!moved || !seen.size) return;
            event.preventDefault();
            chooseElement(moved);
        };
    }
    for (const id of ['row', 'column', 'channel'])
        $(id).onchange = () =>
            chooseElement({ y: +$('row').value, x: +$('column').value, c: +$('channel').value });
    dark.onchange = () => seen.size && showInside();
}
