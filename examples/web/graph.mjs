// The network as a graph: a node for each result, with its map, and lines for what it is made of.
// Beside each other where there is room, else below each other.
import { shape } from './draw.mjs';

// Where the nodes stand: `step` along the main way, `lane` 0 on it and 1 beside it, where the
// residuals are; and the edges, as pairs of names. A convolution that takes in an addition is two
// nodes: its own result, and the sum.
export function layout(nodes) {
    const places = new Map();
    const result = {}; // of a node's name: the name of its result
    const edges = [];
    const put = (name, label, op, step, lane, node) =>
        places.set(name, { name, label, op, step, lane, node });
    const stepOf = (name) => places.get(result[name]).step;
    for (const node of nodes) {
        const [first, residual] = node.inputs;
        if (node.op === 'softmax') continue;
        const own = node.add ? node.name : node.out;
        const side = /shortcut/.test(node.name);
        const step = first === undefined ? 0 : stepOf(first) + 1;
        const label = node.name.replace(/^.*\./, '');
        put(own, label, node.op, side ? step + 0.5 : step, side ? 1 : 0, node.name);
        if (first !== undefined) edges.push([result[first], own]);
        result[node.name] = own;
        if (!node.add) continue;
        put(node.out, 'add', 'add', step + 1, 0, node.name);
        edges.push([own, node.out], [result[residual], node.out]);
        result[node.name] = node.out;
    }
    return { places: [...places.values()], edges };
}

export const blockOf = (name) => /^(block\d+)\./.exec(name)?.[1] ?? '';

// Lines between the elements of the nodes, drawn anew where the page changes its width. A line that
// skips nodes goes round them.
export function drawEdges(svg, box, edges, elements) {
    const frame = box.getBoundingClientRect();
    const down = getComputedStyle(box).getPropertyValue('--down').trim() === '1';
    const side = (element, end) => {
        const r = element.getBoundingClientRect();
        const [x, y] = [r.left - frame.left, r.top - frame.top];
        if (down) return [x + r.width / 2, end ? y + r.height : y];
        return [end ? x + r.width : x, y + r.height / 2];
    };
    svg.setAttribute('viewBox', `0 0 ${frame.width} ${frame.height}`);
    svg.replaceChildren(
        ...edges.map(([from, to]) => {
            const [x1, y1] = side(elements.get(from), true);
            const [x2, y2] = side(elements.get(to), false);
            const long = down ? y2 - y1 : x2 - x1;
            const straight = down ? Math.abs(x1 - x2) < 2 : Math.abs(y1 - y2) < 2;
            const { width, height } = elements.get(from).getBoundingClientRect();
            const beside = (down ? width : height) / 2 + 12; // the curve goes 3/4 of this far
            const bow = straight && long > 40 ? beside / 0.75 : 0;
            const half = Math.max(long / 2, 4);
            const path = down
                ? `M${x1} ${y1}C${x1 + bow} ${y1 + half} ${x2 + bow} ${y2 - half} ${x2} ${y2}`
                : `M${x1} ${y1}C${x1 + half} ${y1 + bow} ${x2 - half} ${y2 + bow} ${x2} ${y2}`;
            return shape('path', { d: path, class: bow ? 'skips' : '' });
        }),
    );
}
