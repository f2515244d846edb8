// Times llama.cpp: bench.mjs FOLDER llama.cpp|llama.cpp-fa PROMPT TOKENS, the second with flash attention. Prints what
// `bench --of` prints; attention's part is not known.
// The core is that of the process that starts this one.
import {readFileSync} from "node:fs";
import {resolve} from "node:path";

const [folder, of] = [resolve(process.argv[2]), process.argv[3]];
const [prompt, tokens] = process.argv.slice(4).map(Number);
const {getLlama} = await import(`${folder}/node_modules/node-llama-cpp/dist/index.js`);
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1});
console.error(llama.systemInfo);
// As the others, weights are read before the time begins, not mapped.
const model = await llama.loadModel({modelPath: `${folder}/smollm2.gguf`, gpuLayers: 0, useMmap: false});
const context = await model.createContext({
    contextSize: prompt + tokens, batchSize: prompt, threads: 1,
    experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32",
    flashAttention: of === "llama.cpp-fa",
});
const read = Array.from({length: prompt}, (_, i) => 1000 + i * 37 % 40000);
const written = context.getSequence().evaluate(read, {temperature: 0, yieldEogToken: true});

let begin = performance.now();
// Each step is given the likeliest token of the one before, and returns the likeliest after it.
const first = (await written.next()).value;
const ofPrompt = performance.now() - begin;
begin = performance.now();
const likeliest = [first];
for (let i = 0; i < tokens; i++)
    likeliest.push((await written.next()).value);
const ofWritten = performance.now() - begin;
console.error(likeliest.join(" "));
const [, peak] = readFileSync("/proc/self/status", "utf8").match(/VmHWM:\s+(\d+) kB/);
console.log(ofPrompt / 1e3, 0, ofWritten / 1e3, 0, peak / 1e3);
process.exit();
