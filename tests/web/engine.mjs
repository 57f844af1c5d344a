// The page's engine on node, for tests/commands/cli_web.sh and tests/check_web.sh.
//   node engine.mjs run WASM FLOAT INTEGER IMAGES LOGITS
//       writes the logits of an integer model file, prints the instruction set
//   node engine.mjs quantize WASM FLOAT CALIBRATION W A IMAGES MODEL LOGITS
//       quantizes as the page does, CALIBRATION being a calibration file (.json) or pictures
//       (.bin), and writes the integer model and its logits
//   node engine.mjs refuse WASM FLOAT
//       what must fail does, with a sentence
import { readFileSync, writeFileSync } from 'node:fs';
import { Engine, readRecords, FLOAT, INTEGER } from '../../examples/web/engine.mjs';

const [task, wasm, float, ...rest] = process.argv.slice(2);
const engine = await Engine.start(readFileSync(wasm));

function writeLogits(images, path) {
    const { logits } = engine.run(INTEGER, readRecords(readFileSync(images)).pixels);
    writeFileSync(path, new Uint8Array(logits.buffer));
}

function run(integer, images, path) {
    engine.load(FLOAT, readFileSync(float));
    engine.load(INTEGER, readFileSync(integer));
    writeLogits(images, path);
    console.log(engine.isa);
}

// The same pictures in two parts must do the same as at once: the page calibrates bit by bit.
function calibrate(path) {
    if (path.endsWith('.json')) return engine.readCalibration(readFileSync(path));
    const { pixels, count } = readRecords(readFileSync(path));
    const middle = (count >> 1) * engine.pixels;
    engine.calibrate(pixels.subarray(0, middle));
    engine.calibrate(pixels.subarray(middle));
    if (engine.calibrationImages !== count)
        throw new Error(`${engine.calibrationImages} pictures counted, not ${count}`);
}

function quantize(calibration, weightBits, activationBits, images, model, path) {
    engine.load(FLOAT, readFileSync(float));
    calibrate(calibration);
    engine.convert(+weightBits, +activationBits);
    writeFileSync(model, engine.save());
    writeLogits(images, path);
}

function fails(what, words, work) {
    try {
        work();
    } catch (problem) {
        if (problem.message.includes(words)) return;
        throw new Error(`${what}: '${problem.message}' does not say '${words}'`);
    }
    throw new Error(`${what} is accepted`);
}

function refuse() {
    const file = readFileSync(float);
    fails('a truncated model', 'truncated', () => engine.load(FLOAT, file.subarray(0, 5000)));
    fails('a network that is missing', 'no float network', () =>
        engine.run(FLOAT, new Uint8Array(3072)),
    );
    fails('an integer network first', 'no float network', () => engine.load(INTEGER, file));
    engine.load(FLOAT, file);
    fails('saving too early', 'no integer network', () => engine.save());
    fails('quantization before calibration', 'calibrat', () => engine.convert(8, 8));
    fails('a broken calibration', 'calibration', () =>
        engine.readCalibration(file.subarray(0, 99)),
    );
    fails('a picture of noise', 'random', () => engine.calibrate(noise()));
    engine.calibrate(ramp());
    fails('nine bits', '2 to 8', () => engine.convert(9, 8));
    engine.convert(2, 2);
}

function noise() {
    let state = 1;
    return Uint8Array.from({ length: 3072 }, () => (state = (state * 48271) % 2147483647) >> 8);
}

const ramp = () => Uint8Array.from({ length: 3072 }, (_, i) => i / 12);

const tasks = { run, quantize, refuse };
try {
    tasks[task](...rest);
} catch (problem) {
    console.error(problem.message);
    process.exitCode = 1;
}
