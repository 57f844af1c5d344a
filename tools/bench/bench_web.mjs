// node bench_web.mjs WASM NAME WEB ROUNDS: times one build of the page's engine on a drawn picture,
// in float and in 8-bit integers. Prints RESULT lines, microseconds per image.
import { readFileSync } from 'node:fs';
import { Engine, readRecords, FLOAT, INTEGER } from '../../examples/web/engine.mjs';

const [wasm, name, web, rounds] = process.argv.slice(2);
const model = new URL('../../examples/models/resnet8-shapes10.safetensors', import.meta.url);
const { pixels } = readRecords(readFileSync(`${web}/shapes10/data_batch_1.bin`));
const engine = await Engine.start(readFileSync(wasm));

engine.load(FLOAT, readFileSync(model));
engine.calibrate(pixels.subarray(0, 20 * engine.pixels));
engine.convert(8, 8);
const times = engine.time(pixels.subarray(0, engine.pixels), +rounds, 1);
for (const [kind, suffix] of [
    [INTEGER, 'int8'],
    [FLOAT, 'f32'],
]) {
    const { median, least } = times[kind];
    console.log(
        `RESULT ${name}_${suffix} thr=1 batch=1 n=${rounds} ` +
            `median_us=${median.toFixed(2)} min_us=${least.toFixed(2)}`,
    );
}
