// What the parts of the page share: its state, and how things are said.
export const $ = (id) => document.getElementById(id);
export const all = (selector) => [...document.querySelectorAll(selector)];
export const pause = () => new Promise((resume) => setTimeout(resume));
export const dark = matchMedia('(prefers-color-scheme: dark)');
export const signed = () => (dark.matches ? 'dark' : 'light'); // the ramp of differences

export const number = (value) => value.toLocaleString('en');
export const short = (value) => String(+value.toPrecision(3));
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const bits = (n) => `${n} bits`;
export const argmax = (values) => values.indexOf(Math.max(...values));

// `turn` counts what the reader asked for: work that goes on over pauses stops when it is not the
// latest any more. Learning goes on until bits or network change.
export const state = {
    turn: 0,
    build: '',
    engine: null,
    giveUp: () => {}, // ends learning, where it goes on
    name: '', // of the network
    classes: [],
    samples: null, // test pictures, of which right answers are counted; or none
    choices: [], // pictures to choose from: { name, caption, pixels }
    floatFound: null, // the float network's class of every sample
    picture: null,
    sample: -1, // which one the picture is
    tensor: 'conv1.relu', // looked at
    spot: { y: 16, x: 16, c: 0 }, // the element of it that is explained
    inputChannel: 0, // of its window
    learned: false, // the codes of the integer network
};

export const isCurrent = (turn) => turn === state.turn;

// A file that the page carries, as bytes.
export function embedded(id) {
    const text = atob($(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
}

// Screen readers say what changes: then only what does.
export function say(id, text) {
    if ($(id).textContent !== text) $(id).textContent = text;
}

// An error stands in the card where it arose, until the next one goes well there.
export function fail(problem, card = 'answers') {
    say(`${card}-problem`, problem.message ?? String(problem));
    $('facts').ariaBusy = 'false';
}

export const guard = (card, work) => async (event) => {
    try {
        say(`${card}-problem`, '');
        await work(event);
    } catch (problem) {
        fail(problem, card);
    }
};
