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

// The channels of a tensor as tiles of a square, one pixel apart. `ramp` is a name from above.
export function drawMap(canvas, { height, width, channels, values }, low, high, ramp) {
    const columns = Math.ceil(Math.sqrt(channels));
    const rows = Math.ceil(channels / columns);
    const gap = width > 1 ? 1 : 0;
    const edge = Math.max(columns * (width + gap), rows * (height + gap)) - gap;
    const image = new ImageData(edge, edge);
    const table = Array.from({ length: 256 }, (_, i) => [...colourAt(ramps[ramp], i / 255), 255]);
    const step = 255 / (high - low || 1);
    values.forEach((value, i) => {
        const c = i % channels;
        const x = Math.floor(i / channels) % width;
        const y = Math.floor(i / channels / width);
        const row = Math.floor(c / columns) * (height + gap) + y;
        const column = (c % columns) * (width + gap) + x;
        const shade = Math.max(0, Math.min(255, Math.round((value - low) * step)));
        image.data.set(table[shade], 4 * (row * edge + column));
    });
    canvas.width = canvas.height = edge;
    canvas.getContext('2d').putImageData(image, 0, 0);
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

function shape(name, attributes) {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
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
