// Runs a program for wasm32-wasip1 under Node's WASI: node .ci/wasi.mjs FILE ARGUMENTS
import { readFile } from "node:fs/promises";
import { env, argv } from "node:process";
import { WASI } from "node:wasi";

const [, , file, ...rest] = argv;
const wasi = new WASI({ version: "preview1", args: [file, ...rest], env, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(file));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
process.exit(wasi.start(instance));
