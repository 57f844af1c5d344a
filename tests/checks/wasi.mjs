// node tests/checks/wasi.mjs PROGRAM.wasm ARGUMENTS: runs a WebAssembly program that sees all files.
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const args = process.argv.slice(2);
const wasi = new WASI({ version: 'preview1', args, preopens: { '/': '/' }, returnOnExit: true });
const module = await WebAssembly.compile(readFileSync(args[0]));
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
process.exitCode = wasi.start(await WebAssembly.instantiate(module, imports));
