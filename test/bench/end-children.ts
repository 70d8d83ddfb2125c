import { readFileSync } from 'node:fs';

/** Has this process leave no process behind that it started, nor any of theirs, however it ends but by SIGKILL. Linux only. */
export function endChildrenAtExit(): void {
  process.on('exit', () => killChildrenOf(process.pid));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));
}

function killChildrenOf(pid: number): void {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').match(/\d+/g) ?? [];
    for (const child of children.map(Number)) {
      killChildrenOf(child);
      process.kill(child, 'SIGKILL');
    }
  } catch {
    // It has ended by itself.
  }
}
