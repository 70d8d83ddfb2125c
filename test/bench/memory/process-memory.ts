import { readFileSync } from 'node:fs';

/** Memory of a process that lies in RAM, in bytes: now, and the most there ever was. */
export interface ProcessMemory {
  readonly residentBytes: number;
  readonly peakBytes: number;
}

/** @see https://man7.org/linux/man-pages/man5/proc_pid_status.5.html @throws Error when there is no such process. */
export function processMemory(pid: number): ProcessMemory {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const bytesOf = (field: string): number =>
    1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  return { residentBytes: bytesOf('VmRSS'), peakBytes: bytesOf('VmHWM') };
}
