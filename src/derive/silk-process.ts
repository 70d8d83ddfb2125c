import { readFile, writeFile } from 'node:fs/promises';
import { decode } from 'silk-wasm';

/**
 * The program that `decodeSilk` starts: `silk-process <input> <output> <sample rate>`. Like a worker it runs on import, and
 * nothing imports it.
 */
const [input = '', output = '', sampleRate] = process.argv.slice(2);
const { data } = await decode(await readFile(input), Number(sampleRate));
await writeFile(output, data, { flag: 'wx' });
