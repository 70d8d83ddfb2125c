import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SECOND } from '../time.ts';
import { type Confinement, confined } from './confinement.ts';
import { SILK_SAMPLE_RATE } from './recipes.ts';
import { runTool, type ToolEnd } from './run-tool.ts';
import { silkPackets } from './silk-packets.ts';

/** The decoder, as lineage names it: the version that package.json pins. */
export const SILK_TOOL = 'silk-wasm 3.7.1';

/** Of 64 KiB each. Enough for ten minutes twice over, which is how often it holds them. */
const MAX_WASM_PAGES = 1024;
const MAX_HEAP_MIB = 128;
const MAX_PCM_BYTES = 64 * 1024 * 1024;

export interface SilkRun {
  readonly inputPath: string;
  /** Takes 16-bit samples of one channel, lowest byte first. Must not be there yet. */
  readonly outputPath: string;
  /** An absolute folder of our own. */
  readonly folder: string;
  readonly timeoutMs: number;
}

/**
 * Decodes SILK v3 in a process of its own: the decoder blocks whoever runs it, a hostile file makes it reach beyond its
 * memory or keeps it busy, and only a process can be killed.
 *
 * Node.js reserves address space by the gigabyte, so what is limited is the memory of WebAssembly and of JavaScript.
 *
 * @throws the signal's reason when it aborts.
 */
export async function decodeSilk(
  { inputPath, outputPath, folder, timeoutMs }: SilkRun,
  confinement: Confinement,
  signal: AbortSignal,
): Promise<ToolEnd | { readonly end: 'refused'; readonly code: 'tool-failed' | 'too-large'; readonly said: string }> {
  const packets = silkPackets(await readFile(inputPath));
  if (!packets.ok) return { end: 'refused', code: packets.code, said: packets.why };
  const silkPath = join(folder, 'packets.silk');
  await writeFile(silkPath, packets.bytes, { flag: 'wx' });
  const flags = [`--wasm-max-mem-pages=${MAX_WASM_PAGES}`, `--max-old-space-size=${MAX_HEAP_MIB}`];
  const program = [process.execPath, ...flags, silkProcessPath()] as const;
  const command = confined(confinement, [...program, silkPath, outputPath, String(SILK_SAMPLE_RATE)], {
    fileBytes: MAX_PCM_BYTES,
    cpuSeconds: Math.ceil(timeoutMs / SECOND) + 1,
  });
  return runTool({ command, folder, timeoutMs }, signal);
}

/** From the sources or as built. */
function silkProcessPath(): string {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  return fileURLToPath(new URL(`silk-process.${extension}`, import.meta.url));
}
