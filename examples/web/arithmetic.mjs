// One element of a map, in numbers and in colour: its window, the products, the sum, and what
// becomes of that. All numbers are the library's.
import { colours } from './draw.mjs';

// A float in single precision with as many digits as it needs, as the library writes it.
function exact(value) {
    for (let digits = 1; digits <= 9; digits++) {
        const text = value.toPrecision(digits);
        if (Math.fround(+text) === value) return String(+text);
    }
    return String(value);
}

export const minus = (text) => String(text).replace('-', '−');
const figure = (value) => minus(exact(value));

function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
}

// A table of numbers, as coloured as they are large; `largest` has the full colour.
function grid(title, values, width, largest, scheme) {
    const rows = [];
    for (let i = 0; i < values.length; i += width)
        rows.push(
            make(
                'tr',
                {},
                ...[...values.slice(i, i + width)].map((value) => {
                    const [back, ink] = colours(scheme, 0.5 + value / (2 * largest || 1));
                    const style = `background:${back};color:${ink}`;
                    return make('td', { style }, minus(value));
                }),
            ),
        );
    return make('figure', {}, make('figcaption', {}, title), make('table', {}, ...rows));
}

// The sums of the products of every input channel, as bars; the chosen one is shown above.
function channelBars(sums, chosen, choose) {
    const largest = Math.max(1, ...sums.map(Math.abs));
    const bars = sums.map((sum, i) => {
        const bar = make('button', {
            type: 'button',
            class: `${sum < 0 ? 'less' : ''} ${i === chosen ? 'chosen' : ''}`,
            title: `input channel ${i}: ${sum}`,
            tabindex: -1,
            'aria-hidden': true,
            style: `--share:${Math.abs(sum) / largest}`,
        });
        bar.onclick = () => choose(i);
        return bar;
    });
    return make('div', { class: 'channel-bars' }, ...bars);
}

const largestOf = (values) => values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

function windowPart(e, chosen, choose, scheme) {
    const area = e.height * e.width;
    const products = e.inputs.map((x, k) => x * (e.weights ? e.weights[k] : 1));
    const sums = Array.from({ length: e.channels }, (_, i) =>
        products.slice(i * area, (i + 1) * area).reduce((sum, v) => sum + v, 0),
    );
    const cut = (values) => [...values.slice(chosen * area, (chosen + 1) * area)];
    const parts = [grid('Input − zero point', cut(e.inputs), e.width, largestOf(e.inputs), scheme)];
    if (e.weights) {
        const weights = grid('Weight', cut(e.weights), e.width, largestOf(e.weights), scheme);
        const made = grid('Product', cut(products), e.width, largestOf(products), scheme);
        parts.push(make('span', { class: 'sign' }, '×'), weights);
        parts.push(make('span', { class: 'sign' }, '='), made);
    }
    const box = make('div', { class: 'window' }, ...parts);
    if (e.channels === 1) return [box];
    const pick = make('input', { type: 'number', min: 0, max: e.channels - 1, value: chosen });
    pick.id = 'input-channel';
    pick.onchange = () => choose(Math.max(0, Math.min(e.channels - 1, Math.trunc(+pick.value))));
    const label = make('label', { for: pick.id }, 'Input channel ');
    const said = ` of ${e.channels}: its products add up to ${minus(sums[chosen])}`;
    return [
        make('p', { class: 'pick' }, label, pick, said),
        box,
        make('p', { class: 'muted small' }, 'What every input channel adds to the sum:'),
        channelBars(sums, chosen, choose),
    ];
}

function step(name, formula, remark = '') {
    const row = make('div', {}, make('dt', {}, name), make('dd', {}, make('b', {}, formula)));
    if (remark) row.lastChild.append(make('small', {}, ` ${remark}`));
    return row;
}

// From the sum to the code.
function steps(e) {
    const taps = e.channels * e.height * e.width;
    const products = e.sum - e.bias;
    const list = [];
    if (e.weights)
        list.push(
            step(
                'Sum',
                `${minus(products)} + bias ${minus(e.bias)} = ${minus(e.sum)}`,
                `of ${taps} products, an integer of 32 bits`,
            ),
        );
    else list.push(step('Sum', minus(e.sum), `of ${taps} codes minus their zero point`));
    const of = e.weights
        ? `input scale ${figure(e.inputScale)} × weight scale ${figure(e.weightScale)}`
        : `input scale ${figure(e.inputScale)} / ${taps} positions`;
    const over = e.coded ? ` / output scale ${figure(e.scale)}` : '';
    list.push(
        step(
            'Multiplier',
            `${minus(e.sum)} × ${figure(e.multiplier)} = ${figure(e.scaled)}`,
            `${of}${over}`,
        ),
    );
    if (!e.coded) return [...list, step('Result', figure(e.scaled), 'a real number: a logit')];
    const [low, high] = [e.low - e.zero, e.high - e.zero];
    const clamped = Math.max(low, Math.min(high, e.scaled));
    list.push(
        step(
            'Clamp',
            figure(Math.fround(clamped)),
            `to ${minus(low)}..${minus(high)}` + (clamped === e.scaled ? ', already inside' : ''),
        ),
        step('Round', minus(e.code - e.zero), 'to the nearest, halves to even'),
        step(
            'Code',
            `${minus(e.code - e.zero)} + zero point ${e.zero} = ${minus(e.code)}`,
            `stands for ${figure(e.value)}`,
        ),
    );
    return list;
}

function addition(e) {
    const [first, second] = e.ownFirst ? [e.code, e.residual] : [e.residual, e.code];
    return step(
        'Residual',
        `${minus(first)} × ${figure(e.ratio0)} + (${minus(second)} × ${figure(e.ratio1)} + ` +
            `${figure(e.shift)}) → ${minus(e.addedCode)}`,
        `the other branch has code ${minus(e.residual)}, which stands for ` +
            `${figure(e.residualValue)}; rounded, within ${minus(e.addedLow)}..` +
            `${minus(e.addedHigh)}: stands for ${figure(e.addedValue)}`,
    );
}

// Fills `box`. `added`: with the addition that is fused behind the convolution. `float` is what the
// float network has there.
export function showArithmetic(box, e, { added, float, scheme, chosen, choose }) {
    const list = steps(e);
    if (added) list.push(addition(e));
    list.push(step('Float gives', figure(float)));
    box.replaceChildren(
        ...windowPart(e, chosen, choose, scheme),
        make('dl', { class: 'steps' }, ...list),
    );
}

// The picture itself: a pixel becomes a code of the input.
export function showInput(box, { pixel, mean, std, scale, zero, code, value }) {
    box.replaceChildren(
        make(
            'dl',
            { class: 'steps' },
            step('Pixel', String(pixel), 'of 0..255'),
            step(
                'Preprocessed',
                `(${pixel} − ${figure(mean)}) / ${figure(std)}`,
                'as the network was trained',
            ),
            step('Code', minus(code), `scale ${figure(scale)}, zero point ${zero}`),
            step('Stands for', figure(value)),
        ),
    );
}
