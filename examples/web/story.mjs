// A story to begin with: what float says, what 8 bits leave of that, what 2 bits break, which layer
// did it, one number of that layer, and what learning mends. Each step works the page as a reader
// could; its sentence is written from what came out.
import { $, argmax, number, percent, state } from './state.mjs';
import { blame, chooseLayer, chooseWorst } from './inside.mjs';
import { FLOAT, INTEGER } from './engine.mjs';

// Set by page.mjs: what a reader does by hand.
export const hands = { setBits: null, learn: null, settled: null };

const shares = (kind) => [...state.engine.run(kind, state.picture).probabilities];
const best = (list) => state.classes[argmax(list)];
const sure = (list) => percent(Math.max(...list));
const facts = (id) => $(id).textContent.replace(/\s+/g, ' ').trim();

const tale = [
    {
        title: 'A network looks at a picture',
        see: 'answers',
        act: () => hands.setBits(8, 8),
        tell: () => {
            const said = shares(FLOAT);
            const bytes = number(state.engine.parameterBytes(FLOAT));
            return (
                `It was trained in 32-bit numbers, ${bytes} bytes of them. About this picture ` +
                `it says: ${best(said)}, with ${sure(said)}.`
            );
        },
    },
    {
        title: '8 bits: each number becomes one of at most 256 codes',
        see: 'answers',
        act: () => hands.setBits(8, 8),
        tell: () => {
            const said = shares(INTEGER);
            return (
                `The integer network says ${best(said)}, with ${sure(said)}. It takes ` +
                `${facts('size')}, and gives float’s answer for ${facts('same')} test pictures.`
            );
        },
    },
    {
        title: '2 bits for the weights: only −1, 0 and 1 are left',
        see: 'bits',
        act: () => hands.setBits(2, 8),
        tell: () => {
            const [float, integer] = [shares(FLOAT), shares(INTEGER)];
            const said =
                best(float) === best(integer)
                    ? `Both still say ${best(float)}, but integer with ${sure(integer)}`
                    : `Float says ${best(float)}, integer ${best(integer)}`;
            return `${said}. Right answers, float → integer: ${facts('right')}.`;
        },
    },
    {
        title: 'Which layer did it?',
        see: 'inside',
        act: async () => {
            await hands.setBits(2, 8);
            return blame();
        },
        tell: ({ name, answer, share }) =>
            `Give one layer 2 bits, and all others 8: the percentages below tell how sure of ` +
            `${best(shares(FLOAT))} the network still is. ${name} hurts most: ` +
            `${percent(share)}, and the answer is ${answer}.`,
    },
    {
        title: 'One number of that layer',
        see: 'element-title',
        act: async () => {
            await hands.setBits(2, 8);
            const { result } = await blame();
            chooseLayer(result);
            return chooseWorst();
        },
        tell: ({ name, steps: off }) =>
            `This is the pixel of ${name} that is furthest from float, by ${off} steps of its ` +
            `code. Below you see its window, multiplied by weights that are −1, 0 or 1; the ` +
            `products are added, scaled, clamped and rounded. You can choose any pixel of any map.`,
    },
    {
        title: 'Learning the rounding',
        see: 'bits',
        act: async () => {
            await hands.setBits(2, 8);
            const before = facts('right');
            await hands.learn();
            return before;
        },
        tell: (before) =>
            `With each weight rounded by itself: ${before}. With the codes of a channel chosen ` +
            `together, so that its sums come out right on the calibration pictures: ` +
            `${facts('right')}. The bits are the same. Now it is your turn.`,
    },
];

let at = 0;

async function show(step) {
    at = step;
    const last = at === tale.length - 1;
    const { title, see, act, tell } = tale[at];
    for (const id of ['back', 'next']) $(id).disabled = true;
    $('story-title').textContent = `${at + 1} of ${tale.length}. ${title}`;
    $('story-text').textContent = '…';
    $('story').ariaBusy = 'true';
    const found = await act();
    await hands.settled();
    if (at !== step || $('story').hidden) return;
    $('story-text').textContent = tell(found);
    $('story').ariaBusy = 'false';
    $('back').disabled = at === 0;
    $('next').disabled = false;
    $('next').textContent = last ? 'Play on' : 'Next';
    if (step) lead($(see));
}

// Brings what the step is about into view, below the story, which stays at the top.
function lead(element) {
    const top = element.getBoundingClientRect().top - $('story').offsetHeight - 24;
    const smooth = !matchMedia('(prefers-reduced-motion: reduce)').matches;
    scrollBy({ top, behavior: smooth ? 'smooth' : 'instant' });
}

export function endStory() {
    $('story').hidden = true;
    $('again').hidden = false;
}

export function startStory() {
    $('story').hidden = false;
    $('again').hidden = true;
    return show(0);
}

export const tellNext = () => (at === tale.length - 1 ? endStory() : show(at + 1));
export const tellBack = () => show(Math.max(0, at - 1));
