// node page.mjs CHROMIUM WEB PTQ DIR: WEB/ptq.html in a browser, against the native program. Writes
// what it checked, a line each; exit status 0 if nothing failed. DIR is for scratch files.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { pixelOf, tiles } from '../../examples/web/draw.mjs';
import { readRecords } from '../../examples/web/engine.mjs';
import { Browser } from './browser.mjs';

const [program, web, ptq, dir] = process.argv.slice(2).map((path, i) => (i ? resolve(path) : path));
const url = pathToFileURL(join(web, 'ptq.html')).href;
const models = fileURLToPath(new URL('../../examples/models', import.meta.url));
const samples = join(web, 'shapes10/test_batch.bin');
const desktop = { width: 1280, height: 900 };
const sizes = { desktop, tablet: { width: 800, height: 1100 }, phone: { width: 390, height: 844 } };
const photographed = 'airplane automobile bird cat deer dog frog horse ship truck'.split(' ');
let failures = 0;

function tell(what, problems) {
    const wrong = [problems].flat().filter(Boolean);
    failures += wrong.length > 0;
    const result = wrong.length ? `FAILED: ${wrong.slice(0, 5).join('; ')}` : 'right';
    console.log(`web page       ${what}: ${result}`);
}

const equal = (got, wanted, what) =>
    JSON.stringify(got) !== JSON.stringify(wanted) &&
    `${what} is ${JSON.stringify(got)}, not ` + JSON.stringify(wanted);

// ---- The native program ----

// The five best classes of every record of a file with their probabilities, in percent.
function nativeTop(model, images, classes) {
    const path = join(dir, 'logits.f32');
    execFileSync(ptq, ['run', '--model', model, '--images', images, '--logits', path]);
    const bytes = readFileSync(path),
        n = classes.length;
    const logits = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    return Array.from({ length: logits.length / n }, (_, i) => {
        const row = [...logits.subarray(i * n, (i + 1) * n)],
            top = Math.max(...row);
        const powers = row.map((x) => Math.exp(x - top)),
            sum = powers.reduce((a, b) => a + b);
        return [...row.keys()]
            .sort((a, b) => row[b] - row[a])
            .slice(0, 5)
            .map((c) => [classes[c], (100 * powers[c]) / sum]);
    });
}

// The page rounds to a tenth, from single precision; classes that tie there may change places.
function sameTop(shown, wanted, tolerance = 0.0501) {
    if (shown.length !== 5) return `${shown.length} classes are shown`;
    return shown
        .map(([name, text], i) => {
            const [best, share] = wanted[i];
            if (Math.abs(parseFloat(text) - share) > tolerance)
                return `${name} has ${text}, not ${share}`;
            return (
                name !== best && share > tolerance + 0.01 && `${name} stands in place of ${best}`
            );
        })
        .find(Boolean);
}

// ---- What the page shows ----

const top = (page, kind) =>
    page.value(`[...document.querySelectorAll('#${kind}-top li')].map((li) =>
    [li.children[0].textContent, li.children[1].textContent])`);

const settled = `document.getElementById('facts').ariaBusy === 'false'`;

const shown = (page, id) => page.value(`document.getElementById('${id}').textContent.trim()`);

// Saves the integer network as a reader would; the path of the file.
async function saved(page, name) {
    await page.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: dir });
    await page.value(`document.getElementById('save').click()`);
    for (let i = 0; i < 200; i++) {
        if (existsSync(join(dir, name))) return join(dir, name);
        await new Promise((wait) => setTimeout(wait, 50));
    }
    throw new Error(`${name} was not saved`);
}

// A 32x32 picture as a BMP file of 96x64: every pixel four times, with red margins that the page
// must cut off. In the file rows begin below, and blue comes first.
function bitmap(pixels) {
    const file = Buffer.alloc(54 + 3 * 96 * 64);
    const fields = [
        [2, file.length],
        [10, 54],
        [14, 40],
        [18, 96],
        [22, 64],
        [34, 3 * 96 * 64],
    ];
    file.write('BM');
    for (const [at, value] of fields) file.writeUInt32LE(value, at);
    file.writeUInt16LE(1, 26);
    file.writeUInt16LE(24, 28);
    for (let y = 0; y < 64; y++) {
        for (let x = 0; x < 96; x++) {
            const from = 3 * ((y >> 1) * 32 + ((x - 16) >> 1));
            const colour = x < 16 || x >= 80 ? [255, 0, 0] : pixels.subarray(from, from + 3);
            for (let c = 0; c < 3; c++) file[54 + 3 * ((63 - y) * 96 + x) + 2 - c] = colour[c];
        }
    }
    return file;
}

// ---- Checks ----

async function checkAnswers(page, classes) {
    const float = nativeTop(join(models, 'resnet8-shapes10.safetensors'), samples, classes);
    const integer = nativeTop(
        await saved(page, 'resnet8-shapes10-w8a8.safetensors'),
        samples,
        classes,
    );
    const { labels } = readRecords(readFileSync(samples)),
        seen = {},
        wrong = [];
    const chosen = [...labels.keys()].filter(
        (i) => (seen[labels[i]] = (seen[labels[i]] ?? 0) + 1) < 3,
    );
    for (const [k, i] of chosen.entries()) {
        await page.value(`document.querySelectorAll('[name=sample]')[${k}].click()`);
        await page.until(`document.querySelectorAll('[name=sample]')[${k}].checked && ${settled}`);
        wrong.push(
            sameTop(await top(page, 'float'), float[i]),
            sameTop(await top(page, 'integer'), integer[i]),
        );
    }
    tell(`answers to ${chosen.length} samples are the native program's`, wrong);
}

async function checkSlider(page, classes) {
    await page.value(`document.getElementById('weight-bits').focus()`);
    await page.press('ArrowLeft', 5);
    await page.until(
        `document.getElementById('size').textContent.startsWith('31,792') && ${settled}`,
    );
    const file = await saved(page, 'resnet8-shapes10-w3a8.safetensors');
    const at = await page.value(`[...document.querySelectorAll('[name=sample]')]
        .findIndex((sample) => sample.checked)`);
    await page.value(`document.querySelectorAll('[name=sample]')[0].click()`);
    await page.until(settled);
    tell('the slider, by keyboard, makes 3-bit weights', [
        equal(await shown(page, 'weight-shown'), '3 bits', 'the label'),
        equal(at < 0, false, 'a lost sample'),
        sameTop(await top(page, 'integer'), nativeTop(file, samples, classes)[0]),
    ]);
}

async function checkLearning(page, classes) {
    const right = async () => parseInt((await shown(page, 'right')).split('→')[1]);
    await page.value(`document.getElementById('weight-bits').focus()`);
    await page.press('ArrowLeft');
    await page.until(settled);
    const before = await right();
    await page.value(`document.getElementById('learn').click()`);
    await page.until(`document.getElementById('made').textContent.includes('learned in')`, 120);
    await page.until(settled);
    const file = await saved(page, 'resnet8-shapes10-w2a8.safetensors');
    tell('learned rounding mends 2-bit weights', [
        (await right()) < before + 30 && `${before} samples right before, ${await right()} after`,
        sameTop(await top(page, 'integer'), nativeTop(file, samples, classes)[0]),
    ]);
}

// ---- One pixel, as the tool explains it ----

// Presses where an element of a map lies, as a mouse does.
async function press(page, canvas, tensor, { y, x, c }) {
    const { row, column } = pixelOf(tensor, { y, x, c });
    const { edge } = tiles(tensor);
    const frame = await page.value(`(() => {
        document.getElementById('${canvas}').scrollIntoView({ block: 'center' });
        const { left, top, width } = document.getElementById('${canvas}').getBoundingClientRect();
        return { left, top, width };
    })()`);
    const place = {
        x: frame.left + ((column + 0.5) / edge) * frame.width,
        y: frame.top + ((row + 0.5) / edge) * frame.width,
        button: 'left',
        clickCount: 1,
    };
    for (const type of ['mousePressed', 'mouseReleased'])
        await page.send('Input.dispatchMouseEvent', { type, ...place });
}

// The numbers of `ptq run --explain`, as the page must show them.
function nativeNumbers(model, image, node, { y, x, c }) {
    const explain = ['--image', image, '--explain', [node, y, x, c].join()];
    const text = execFileSync(ptq, ['run', '--model', model, '--images', samples, ...explain]);
    const found = (pattern) => pattern.exec(text)?.slice(1) ?? [];
    return [
        ...found(/accumulator (-?\d+)/),
        ...found(/multiplier (\S+) =/),
        ...found(/ \* \S+ = (\S+); clamped/),
        ...found(/zero point \d+: code (\d+)/),
        ...found(/code stands for (\S+)/),
        ...found(/result \S+ \* \S+ = (\S+), a real number/),
        ...found(/half to even: code (\d+), stands for/),
    ];
}

// The code that a pixel of the picture becomes, as the middle tap of the first convolution has it.
function nativeInput(model, image, { y, x, c }) {
    const explain = ['--image', image, '--explain', ['conv1', y, x, 0].join()];
    const text = execFileSync(ptq, ['run', '--model', model, '--images', samples, ...explain]);
    const taps = [...String(text).matchAll(/\(x - zx\) (-?\d+) /g)].map((found) => +found[1]);
    const graph = String(execFileSync(ptq, ['info', '--model', model, '--graph']));
    return taps[9 * c + 4] + +/^input .* q=u8:8:[^:]+:(\d+)/m.exec(graph)[1];
}

async function checkPixels(page) {
    const model = await saved(page, 'resnet8-shapes10-w8a8.safetensors');
    const image = await page.value(`(() => {
        document.querySelectorAll('[name=sample]')[0].click();
        return 0;
    })()`);
    await page.until(settled);
    const wrong = [];
    for (const [layer, node, canvas, height, channels, spot] of [
        ['conv1.relu', 'conv1', 'float-map', 32, 16, { y: 0, x: 31, c: 5 }],
        ['block2.shortcut', 'block2.shortcut', 'integer-map', 16, 32, { y: 7, x: 3, c: 30 }],
        ['block3.add.relu', 'block3.conv2', 'difference-map', 8, 64, { y: 7, x: 0, c: 63 }],
        ['pool', 'pool', 'integer-map', 1, 64, { y: 0, x: 0, c: 40 }],
        ['fc', 'fc', 'float-map', 1, 10, { y: 0, x: 0, c: 7 }],
    ]) {
        await page.value(`document.querySelector('[name=layer][value="${layer}"]').click()`);
        await press(page, canvas, { height, width: height, channels }, spot);
        const said = `${layer} at row ${spot.y}, column ${spot.x}, channel ${spot.c}`;
        const text = (await shown(page, 'arithmetic')).replaceAll('−', '-');
        const wanted = nativeNumbers(model, image, node, spot);
        wrong.push(
            equal(await shown(page, 'element'), said, 'the element'),
            wanted.length < 3 && `ptq says little of ${layer}`,
            ...wanted.map((part) => !text.includes(part) && `${layer} lacks ${part}: ${text}`),
        );
    }
    await page.value(`document.querySelector('[name=layer][value=input]').click()`);
    const pixel = { y: 20, x: 9, c: 2 };
    await press(page, 'float-map', { height: 32, width: 32, channels: 3 }, pixel);
    const code = await page.value(`[...document.querySelectorAll('#arithmetic dt')]
        .find((term) => term.textContent === 'Code').nextSibling.firstChild.textContent`);
    wrong.push(equal(+code, nativeInput(model, image, pixel), 'the code of a pixel'));
    await page.value(`document.querySelector('[name=layer][value="block1.conv2"]').click()`);
    await page.value(`document.getElementById('integer-map').focus()`);
    const before = await page.value(`+document.getElementById('column').value`);
    await page.press('ArrowRight');
    const after = await page.value(`+document.getElementById('column').value`);
    wrong.push(equal(after, Math.min(before + 1, 31), 'the column after an arrow key'));
    tell('pixels of six layers have the arithmetic of ptq run --explain', wrong);
}

// ---- The story ----

const told = `document.getElementById('story').ariaBusy !== 'true' &&
    !document.getElementById('next').disabled`;

async function checkStory(page) {
    const wrong = [];
    await page.until(told);
    for (const [number, pattern] of [
        [1, /It was trained.*it says: ring, with 99/],
        [2, /says ring, .*of 310,824.*float’s answer for (9\d|100) of 100/],
        [3, /Float says ring, integer crescent/],
        [4, /block1.conv1 hurts most: \d+\.\d %, and the answer is crescent/],
        [5, /the pixel of block1.conv1.relu that is furthest from float, by \d+/],
        [6, /rounded by itself: 94 → 2\d.*calibration pictures: 94 → [6-9]\d/],
    ]) {
        const text = await shown(page, 'story-text');
        const title = await shown(page, 'story-title');
        if (!title.startsWith(`${number} of 6`) || !pattern.test(text))
            wrong.push(`step ${number} says '${title} ${text}'`);
        if (number === 4)
            wrong.push(
                equal(
                    await page.value(`document.querySelector('.guilty input').value`),
                    'block1.conv1.relu',
                    'the guilty layer',
                ),
            );
        await page.value(`document.getElementById('next').click()`);
        if (number < 6) await page.until(told, 180);
    }
    wrong.push(
        !(await page.value(`document.getElementById('story').hidden`)) && 'it does not end',
        equal(await page.value(`document.querySelectorAll('#curve g').length`), 3, 'the curve'),
    );
    tell('the story tells what the page shows', wrong);
}

// Back to 8 bits, and every number of bits tried: a point for each.
async function checkCurve(page) {
    await page.value(`document.getElementById('weight-bits').focus()`);
    await page.press('ArrowRight', 6);
    await page.until(
        `document.getElementById('size').textContent.startsWith('80,128') && ${settled}`,
    );
    const start = Date.now();
    await page.value(`document.getElementById('fill').click()`);
    await page.until(`!document.getElementById('fill').disabled && ${settled}`, 120);
    const rows = await page.value(`[...document.querySelectorAll('#curve-table tr')]
        .map((row) => row.textContent)`);
    tell(`the curve fills in, in ${((Date.now() - start) / 1000).toFixed(1)} s`, [
        equal(rows.length, 8, 'the number of points'),
        equal(await shown(page, 'weight-shown'), '8 bits', 'the slider afterwards'),
        rows.some((row) => !/\d %\d.*% ?\d|%.*%.*%/.test(row)) && `a row is ${rows[0]}`,
    ]);
}

// The answers for a record of the samples in a file of its own, by the network for photographs.
async function checkOwn(page, what, record, classes, integer) {
    const own = join(dir, 'own.bin');
    writeFileSync(own, readFileSync(samples).subarray(record * 3073, (record + 1) * 3073));
    tell(`${what} goes to the network for photographs`, [
        equal(await shown(page, 'caption'), `${what}.bmp`, 'the caption'),
        sameTop(
            await top(page, 'float'),
            nativeTop(join(models, 'resnet8-cifar10.safetensors'), own, classes)[0],
        ),
        sameTop(await top(page, 'integer'), nativeTop(integer, own, classes)[0]),
    ]);
}

// The drawn scenes: the float network knows each.
async function checkScenes(page, classes) {
    await page.value(`document.querySelector('[name=network][value=cifar10]').click()`);
    await page.until(`document.querySelectorAll('[name=sample]').length === 10 && ${settled}`);
    const wrong = [];
    for (const [i, name] of classes.entries()) {
        await page.value(`document.querySelectorAll('[name=sample]')[${i}].click()`);
        await page.until(settled);
        wrong.push(
            equal(await shown(page, 'caption'), `Drawn: ${name}`, 'the caption'),
            equal((await top(page, 'float'))[0][0], name, 'the first class'),
        );
    }
    wrong.push(
        (await page.value(`document.getElementById('fill').checkVisibility()`)) &&
            'ten scenes are counted',
    );
    tell('the network for photographs knows its ten scenes', wrong);
}

// Files that are chosen, dropped and pasted.
async function checkFiles(page, classes) {
    const picture = (record) =>
        bitmap(readRecords(readFileSync(samples)).pixels.subarray(3072 * record));
    writeFileSync(join(dir, 'a chosen file.bmp'), picture(1));
    await page.chooseFile('#file', join(dir, 'a chosen file.bmp'));
    await page.until(`document.getElementById('caption').textContent === 'a chosen file.bmp'`);
    await page.until(settled);
    const integer = await saved(page, 'resnet8-cifar10-w2a8.safetensors');
    await checkOwn(page, 'a chosen file', 1, classes, integer);
    for (const [record, what, event, key] of [
        [2, 'a dropped file', 'DragEvent("drop"', 'dataTransfer'],
        [3, 'a pasted file', 'ClipboardEvent("paste"', 'clipboardData'],
    ]) {
        await page.value(`(() => {
            const files = new DataTransfer();
            files.items.add(new File([Uint8Array.from(atob('${picture(record).toString('base64')}'),
                (c) => c.charCodeAt(0))], '${what}.bmp', { type: 'image/bmp' }));
            document.dispatchEvent(new ${event}, { ${key}: files, cancelable: true }));
        })()`);
        await page.until(`document.getElementById('caption').textContent === '${what}.bmp'`);
        await page.until(settled);
        await checkOwn(page, what, record, classes, integer);
    }
    writeFileSync(join(dir, 'broken.png'), 'no picture');
    await page.chooseFile('#file', join(dir, 'broken.png'));
    await page.until(
        `document.getElementById('picture-problem').textContent.includes('broken.png')`,
        10,
    );
    tell('a file that is no picture is named', []);
}

// Every control has a name, and Tab reaches sliders, choices and buttons.
async function checkNames(page) {
    const { nodes } = await page.send('Accessibility.getFullAXTree');
    const nameless = nodes.filter(
        (node) =>
            !node.ignored &&
            !node.name?.value &&
            ['button', 'radio', 'slider', 'img', 'image', 'link', 'group'].includes(
                node.role?.value,
            ),
    );
    const reached = new Set();
    await page.value(`document.querySelector('.skip').focus()`);
    for (let i = 0; i < 40; i++) {
        await page.press('Tab');
        reached.add(await page.value(`document.activeElement.id || document.activeElement.name`));
    }
    tell('controls have names, and the keyboard reaches them', [
        ...nameless.map((node) => `a ${node.role.value} without a name`),
        ...[
            'file',
            'network',
            'sample',
            'weight-bits',
            'activation-bits',
            'save',
            'layer',
            'float-map',
            'row',
            'blame',
            'measure',
        ]
            .filter((id) => !reached.has(id))
            .map((id) => `Tab does not reach ${id}`),
    ]);
}

// Contrast of every text with what lies behind it, by WCAG 2.1 (1.4.3): at least 4.5.
const lowContrast = `(() => {
    const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => {
        const v = c[i] / 255;
        return sum + part * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    }, 0);
    const colour = (text) => text.match(/[0-9.]+/g).map(Number);
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const c = colour(getComputedStyle(element).backgroundColor);
            if (c.length < 4 || c[3] === 1) return c;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        if (![...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) ||
            !element.checkVisibility() || element.closest('script, .hidden, #drop')) continue;
        const [a, b] = [colour(getComputedStyle(element).color), behind(element)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const text = element.textContent.trim().slice(0, 30);
        if (ratio < 4.5) found.push(text + ' ' + ratio.toFixed(2));
    }
    return found;
})()`;

// Texts of at least 12 pixels; what is pressed, of 24 (WCAG 2.2, 2.5.8). The bars of channels do
// what the field beside them does.
const tooSmall = `(() => {
    const scaleOf = (svg) => (svg ? svg.getScreenCTM().a : 1);
    const shown = (element) => element.checkVisibility({ visibilityProperty: true }) &&
        !element.closest('script, style, .hidden, .skip, #drop');
    const texts = [...document.querySelectorAll('body *')].filter((element) => shown(element) &&
        [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) &&
        parseFloat(getComputedStyle(element).fontSize) * scaleOf(element.ownerSVGElement) < 12);
    const buttons = 'button, input:not(.hidden), .node, .thumbs label';
    const pressed = [...document.querySelectorAll(buttons)]
        .filter((element) => shown(element) && !element.closest('.channel-bars'))
        .filter((element) => {
            const { width, height } = element.getBoundingClientRect();
            return width < 24 || height < 24;
        });
    return [...texts, ...pressed].map((e) => (e.id || e.className || e.tagName) + ' ' +
        e.textContent.trim().slice(0, 20));
})()`;

// Every tip, shown by focus, lies on the page.
const tipsBeside = `[...document.querySelectorAll('dfn')].map((term) => {
    term.focus();
    const { left, right, width } = term.querySelector('.tip').getBoundingClientRect();
    return width > 0 && left >= 0 && right <= innerWidth ? '' : term.dataset.term;
})`;

async function checkLooks(browser) {
    for (const [name, size] of Object.entries(sizes)) {
        for (const scheme of ['light', 'dark']) {
            const page = await browser.open(url, { ...size, scheme });
            await page.until(settled);
            await page.until(told);
            writeFileSync(join(web, `${name}-${scheme}.png`), await page.picture());
            const width = await page.value(`document.scrollingElement.scrollWidth`);
            tell(`${name}, ${scheme}: contrast, sizes, width, console`, [
                ...(await page.value(lowContrast)).map((text) => `low contrast: ${text}`),
                ...(await page.value(tooSmall)).map((text) => `too small: ${text}`),
                ...(await page.value(tipsBeside)).map((term) => term && `the tip of ${term}`),
                width > size.width && `it is ${width} pixels wide`,
                ...page.problems,
            ]);
            await page.close();
        }
    }
}

// It calibrates by float kernels of its own, so that ranges may differ in their last digits.
async function checkScalar(browser, wanted) {
    const near = (list) => list.map(([name, text]) => [name, parseFloat(text)]);
    const page = await browser.open(`${url}#scalar`, desktop);
    await page.until(settled, 120);
    tell('the build without vector instructions answers alike', [
        sameTop(await top(page, 'float'), near(wanted.float), 0.11),
        sameTop(await top(page, 'integer'), near(wanted.integer), 1),
        ...page.problems,
    ]);
    await page.close();
}

async function checkSpeed(page) {
    await page.value(`document.getElementById('measure').click()`);
    await page.until(`document.getElementById('measured').textContent.startsWith('Measured')`, 120);
    const cells = await page.value(`[...document.querySelectorAll('#speed td')]
        .map((td) => td.textContent)`);
    tell('speed is measured', cells.some((cell) => !(parseFloat(cell) > 0)) && cells.join(' '));
    console.log(
        `web page       microseconds, SIMD and scalar: float ${cells.slice(0, 2).join(' ')}, ` +
            `integer ${cells.slice(2, 4).join(' ')}`,
    );
}

async function checkAll(browser) {
    const page = await browser.open(url, desktop);
    await page.until(settled);
    const marks = await page.value(`performance.getEntriesByType('mark').map((m) => m.startTime)`);
    console.log(
        `web page       milliseconds from opening: float answer ${marks[0].toFixed(0)}, ` +
            `integer answer ${marks[1].toFixed(0)}`,
    );
    const first = { float: await top(page, 'float'), integer: await top(page, 'integer') };
    const classes = readFileSync(join(web, 'shapes10/batches.meta.txt'), 'utf8').trim().split('\n');
    await checkStory(page);
    await checkCurve(page);
    await checkAnswers(page, classes);
    await checkPixels(page);
    await checkNames(page);
    await checkSlider(page, classes);
    await checkLearning(page, classes);
    await checkScenes(page, photographed);
    await checkFiles(page, photographed);
    await checkSpeed(page);
    tell('nothing is said in the console', page.problems);
    tell(
        'nothing is asked of the network',
        page.requests.filter((address) => address !== url && !/^(data|blob):/.test(address)),
    );
    await page.close();
    await checkScalar(browser, first);
    await checkLooks(browser);
}

const browser = new Browser(program);
try {
    await checkAll(browser);
} catch (problem) {
    tell('the check itself', problem.message);
} finally {
    await browser.close();
}
process.exitCode = failures > 0 ? 1 : 0;
