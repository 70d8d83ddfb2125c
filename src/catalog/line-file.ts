import { open } from 'node:fs/promises';

/** Lines are written so many at a time. */
const LINES_AT_ONCE = 1_000;

/** A file on this machine's disk that gets one JSON object a line, from many at once. */
export interface LineFile extends AsyncDisposable {
  /** Resolves when more may come; rejects with what the disk says. */
  write(row: object): Promise<void>;
  /** Writes what is held back. To be called before the file is read; `dispose` alone drops it. */
  end(): Promise<void>;
}

export async function openLineFile(path: string): Promise<LineFile> {
  const file = await open(path, 'w');
  let lines: string[] = [];
  let last: Promise<void> = Promise.resolve();

  function flush(): Promise<void> {
    const text = lines.join('');
    lines = [];
    last = last.then(() => file.appendFile(text));
    return last;
  }

  return {
    write: async (row) => {
      if (lines.push(`${JSON.stringify(row)}\n`) >= LINES_AT_ONCE) await flush();
    },
    end: flush,
    [Symbol.asyncDispose]: async () => {
      await last.catch(() => undefined);
      await file.close();
    },
  };
}
