import { readFileSync } from 'node:fs';

/** Linux counts in ticks of this length, whatever the kernel is built for. */
const TICK_MS = 10;

/** CPU time that a process has had, in milliseconds. @see https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
export function cpuTimeMs(pid: number): number {
  const [user = 0, system = 0] = ticks(pid);
  return TICK_MS * (user + system);
}

/** CPU time of those children of this process that have ended, in milliseconds. */
export function endedChildrenMs(): number {
  const [, , user = 0, system = 0] = ticks(process.pid);
  return TICK_MS * (user + system);
}

function ticks(pid: number): number[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // The name of the program may hold spaces and parentheses.
  return stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15)
    .map(Number);
}
