// Accuracy against the bits of the weights: a point for each network that was tried, with its
// interval, so that the curve fills in.
import { $, percent, state } from './state.mjs';
import { shape } from './draw.mjs';

const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [230, 56, 12, 14, 40];
let width = 640; // as the page has it: letters keep their size
let points = new Map(); // "weights activations learned": what came out
let of = ''; // the network whose points they are

const xOf = (weights, activations) =>
    LEFT + 24 + ((weights - 2) / 6) * (width - LEFT - RIGHT - 48) + (8 - activations) * 6 - 8;
const yOf = (share) => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);

const label = ({ weights, activations, learned }) =>
    `${weights} bits for weights, ${activations} for activations, ` +
    `${learned ? 'learned' : 'rounded to nearest'}`;

function text(x, y, words, anchor = 'middle') {
    const made = shape('text', { x, y, 'text-anchor': anchor });
    made.textContent = words;
    return made;
}

function axes() {
    const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
        shape('line', { x1: LEFT, x2: width - RIGHT, y1: yOf(share), y2: yOf(share) }),
        text(LEFT - 8, yOf(share) + 5, `${100 * share} %`, 'end'),
    ]);
    for (let n = 2; n <= 8; n++) parts.push(text(xOf(n, 8) + 8, HEIGHT - 20, n));
    parts.push(text((LEFT + width) / 2, HEIGHT - 2, 'bits of the weights'));
    return parts;
}

function drawPoint(point) {
    const x = xOf(point.weights, point.activations);
    const [low, high] = point.interval.map(yOf);
    const mark = shape('g', { class: point.learned ? 'learned' : '' });
    const title = shape('title', {});
    title.textContent = `${label(point)}: ${percent(point.share)}`;
    const size = point.activations === 8 ? 5 : 3.5;
    const at = yOf(point.share);
    mark.append(
        title,
        shape('line', { x1: x, x2: x, y1: low, y2: high }),
        point.learned
            ? shape('rect', { x: x - size, y: at - size, width: 2 * size, height: 2 * size })
            : shape('circle', { cx: x, cy: at, r: size }),
    );
    return mark;
}

function row(cells) {
    const made = document.createElement('tr');
    for (const cell of cells) made.insertCell().textContent = cell;
    return made;
}

export function drawCurve() {
    width = Math.max($('curve').clientWidth, 260);
    $('curve').setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    const float = state.floatFound;
    const parts = axes();
    if (float) {
        const right = float.filter((c, i) => c === state.samples.labels[i]).length;
        const [low, high] = state.engine.interval(right, float.length).map(yOf);
        const place = { x: LEFT, width: width - RIGHT - LEFT };
        parts.unshift(shape('rect', { class: 'band', ...place, y: high, height: low - high }));
        const y = yOf(right / float.length);
        parts.push(shape('line', { class: 'float', x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    }
    $('curve').replaceChildren(...parts, ...[...points.values()].map(drawPoint));
    const words = (point) => [label(point), percent(point.share), point.interval.map(percent)];
    $('curve-table').replaceChildren(...[...points.values()].map((point) => row(words(point))));
}

// Of `count` pictures, `right` were.
export function addPoint(weights, activations, learned, right, count) {
    if (of !== state.name) points = new Map();
    of = state.name;
    const interval = state.engine.interval(right, count);
    const point = { weights, activations, learned, share: right / count, interval };
    points.set([weights, activations, learned].join(), point);
    drawCurve();
}

export const listenCurve = () => {
    const again = () => $('curve').clientWidth !== width && state.samples && drawCurve();
    new ResizeObserver(again).observe($('curve'));
};
