// What a term means, beside it: shown under the pointer and on focus, told by screen readers.
import { all } from './state.mjs';

const terms = {
    weights: 'The numbers that training found; a layer multiplies its input by them.',
    activations: 'What a layer computes from a picture, and passes on to the next layer.',
    code: 'A whole number that stands for a real one: real = scale × (code − zero point).',
    calibration: 'Running training pictures through the float network to see which values occur.',
    rounding:
        'To nearest: each weight by itself. Learned: the weights of a channel together, so that ' +
        'the error of their sums is least.',
    error: 'The integer network’s value minus the float network’s, at the same place.',
    decibel:
        'Ten times the logarithm of signal power over error power: 20 dB is an error of a tenth, ' +
        '40 dB of a hundredth.',
    residual: 'A branch that skips some layers, and is added to their result.',
    interval:
        'Other test pictures would give another share. In 95 of 100 such experiments the ' +
        'interval contains the true one.',
};

export function explainTerms() {
    for (const [i, term] of all('dfn').entries()) {
        const tip = document.createElement('span');
        tip.className = 'tip';
        tip.id = `tip-${i}`;
        tip.setAttribute('role', 'tooltip');
        tip.textContent = terms[term.dataset.term];
        term.tabIndex = 0;
        term.setAttribute('aria-describedby', tip.id);
        term.append(tip);
        // Towards the middle of the page, so that it stays on it.
        term.onpointerenter = term.onfocus = () => {
            const { left, width } = term.getBoundingClientRect();
            tip.classList.toggle('leftwards', left + width / 2 > innerWidth / 2);
        };
        term.onkeydown = (event) => {
            if (event.key === 'Escape') term.blur();
        };
    }
}
