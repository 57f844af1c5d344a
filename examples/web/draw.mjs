// Pictures, maps of activations and histograms: everything that is drawn.

export const SIZE = 32; // of a picture that the networks see

const stop = (text) => text.match(/../g).map((part) => parseInt(part, 16));
const ramps = {
    values: ['141b33', '214a70', '288080', '70b680', 'f5ecb4'].map(stop),
    light: ['2a78d6', 'f3f2ee', 'd03b3b'].map(stop), // differences, on a light page ...
    dark: ['5aa0ee', '2a2a27', 'f07a76'].map(stop), // ... and on a dark one
};

// The colour of a ramp at 0..1.
function colourAt(ramp, at) {
    const place = at * (ramp.length - 1);
    const k = Math.min(Math.floor(place), ramp.length - 2);
    return ramp[k].map((from, i) => from + (ramp[k + 1][i] - from) * (place - k));
}

export function drawPicture(canvas, pixels) {
    const image = new ImageData(SIZE, SIZE);
    for (let i = 0; i < 4 * SIZE * SIZE; i++)
        image.data[i] = i % 4 < 3 ? pixels[3 * (i >> 2) + (i % 4)] : 255;
    canvas.width = canvas.height = SIZE;
    canvas.getContext('2d').putImageData(image, 0, 0);
}

// The middle square of an image as 32x32 pixels, each the mean of what lies under it, on white
// where the image is transparent. The browser itself scales only to 32 times a power of two.
export function shrink(bitmap) {
    const side = Math.min(bitmap.width, bitmap.height);
    let scale = 1;
    while (2 * scale * SIZE <= side && scale < 32) scale *= 2;
    const canvas = document.createElement('canvas');
    const size = (canvas.width = canvas.height = scale * SIZE);
    const to = canvas.getContext('2d', { willReadFrequently: true });
    const [x, y] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
    to.imageSmoothingQuality = 'high';
    to.fillStyle = '#fff';
    to.fillRect(0, 0, size, size);
    to.drawImage(bitmap, x, y, side, side, 0, 0, size, size);
    const { data } = to.getImageData(0, 0, size, size);
    const sums = new Float64Array(3 * SIZE * SIZE);
    for (let i = 0; i < size * size; i++) {
        const row = Math.floor(i / size / scale);
        const column = Math.floor((i % size) / scale);
        for (let c = 0; c < 3; c++) sums[3 * (row * SIZE + column) + c] += data[4 * i + c];
    }
    return Uint8Array.from(sums, (sum) => Math.round(sum / scale ** 2));
}

// Where the channels of a tensor lie, as tiles of a square, one pixel apart.
export function tiles({ height, width, channels }) {
    const columns = Math.ceil(Math.sqrt(channels));
    const rows = Math.ceil(channels / columns);
    const gap = width > 1 ? 1 : 0;
    const edge = Math.max(columns * (width + gap), rows * (height + gap)) - gap;
    return { columns, gap, edge };
}

// The pixel of the map that element (y, x, c) is.
export function pixelOf(tensor, { y, x, c }) {
    const { columns, gap } = tiles(tensor);
    return {
        row: Math.floor(c / columns) * (tensor.height + gap) + y,
        column: (c % columns) * (tensor.width + gap) + x,
    };
}

// The other way round; of a gap or an empty tile, the element that is nearest.
export function elementAt(tensor, row, column) {
    const { columns, gap } = tiles(tensor);
    const { height, width, channels } = tensor;
    const within = (value, end) => Math.max(0, Math.min(end - 1, value));
    const down = Math.floor(row / (height + gap));
    const across = within(Math.floor(column / (width + gap)), columns);
    return {
        c: within(down * columns + across, channels),
        y: within(row - down * (height + gap), height),
        x: within(column - across * (width + gap), width),
    };
}

const tables = {};
const tableOf = (ramp) =>
    (tables[ramp] ??= Array.from({ length: 256 }, (_, i) => [
        ...colourAt(ramps[ramp], i / 255).map(Math.round),
        255,
    ]));

// The colour of a ramp, by its name, at 0..1, and the one of text upon it.
export function colours(ramp, at) {
    const [r, g, b] = tableOf(ramp)[Math.round(255 * Math.max(0, Math.min(1, at)))];
    const light = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    return [`rgb(${r} ${g} ${b})`, light > 0.18 ? '#000' : '#fff'];
}

const linear = (part) => {
    const v = part / 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
};

// A tensor's channels as tiles. `shade` makes 0..1 of a value; `ramp` is a name from above.
export function drawMap(canvas, tensor, shade, ramp) {
    const { edge } = tiles(tensor);
    const { channels, width } = tensor;
    const image = new ImageData(edge, edge);
    const table = tableOf(ramp);
    tensor.values.forEach((value, i) => {
        const c = i % channels;
        const x = Math.floor(i / channels) % width;
        const y = Math.floor(i / channels / width);
        const { row, column } = pixelOf(tensor, { y, x, c });
        const at = Math.round(255 * Math.max(0, Math.min(1, shade(value))));
        image.data.set(table[at], 4 * (row * edge + column));
    });
    canvas.width = canvas.height = edge;
    canvas.getContext('2d').putImageData(image, 0, 0);
}

// One channel of a tensor.
export function drawChannel(canvas, tensor, c, shade, ramp) {
    const { height, width, channels, values } = tensor;
    const one = { height, width, channels: 1, values: [] };
    for (let i = c; i < values.length; i += channels) one.values.push(values[i]);
    drawMap(canvas, one, shade, ramp);
}

export function drawScale(box, ends, ramp) {
    const stops = ramps[ramp].map((colour) => `rgb(${colour})`);
    box.style.setProperty('--ramp', `linear-gradient(90deg, ${stops})`);
    drawEnds(box, ends);
}

export function drawEnds(box, ends) {
    box.replaceChildren(
        ...ends.map((end) => {
            const text = document.createElement('span');
            text.textContent = end;
            return text;
        }),
    );
}

export function shape(name, attributes) {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
}

// The bars of counts at whole numbers least..most, each as wide as a code, and before them the finer
// counts of what was rounded: `fine` to a code. The picture is 720 x 170.
export function drawWeights(svg, { least, most, codes, fine, real }) {
    const wide = 720 / (most - least + 1);
    const bars = (counts, step, name, inset) => {
        const tallest = Math.log1p(Math.max(...counts)) || 1;
        return counts.map((count, i) => {
            const height = (150 * Math.log1p(count)) / tallest;
            const place = { x: i * step + inset, width: Math.max(step - 2 * inset, 0.5) };
            return shape('rect', { class: name, ...place, y: 164 - height, height });
        });
    };
    svg.replaceChildren(
        ...bars(codes, wide, 'range', wide > 8 ? 1 : 0),
        ...bars(real, wide / fine, 'in', 0.25),
    );
}

// Bars as high as the logarithm of their counts; behind them the range low..high that codes reach,
// with the codes themselves where there are few, `scale` apart. The picture is 720 x 170.
export function drawHistogram(svg, counts, { from, to, low, high, scale }) {
    const at = (value) => (720 * (value - from)) / (to - from);
    const wide = 720 / counts.length;
    const tallest = Math.log1p(Math.max(...counts)) || 1;
    const parts = [];
    if (scale)
        parts.push(
            shape('rect', {
                class: 'range',
                x: at(low),
                y: 0,
                width: at(high) - at(low),
                height: 170,
            }),
        );
    counts.forEach((count, i) => {
        const middle = (i + 0.5) * wide;
        const inside = !scale || (middle >= at(low) && middle <= at(high));
        const height = (150 * Math.log1p(count)) / tallest;
        const place = { x: i * wide + 0.5, width: wide - 1, y: 164 - height, height };
        parts.push(shape('rect', { class: inside ? 'in' : 'out', ...place }));
    });
    const codes = scale ? Math.round((high - low) / scale) + 1 : 0;
    for (let code = 0; code < codes && codes <= 32; code++) {
        const x = at(low + code * scale);
        parts.push(shape('line', { x1: x, x2: x, y1: 164, y2: 170, 'stroke-width': 2 }));
    }
    svg.replaceChildren(...parts);
}
