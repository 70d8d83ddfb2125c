/** A line of a text, or that it was longer than allowed. */
export interface TextLine {
  /** From 1. */
  readonly number: number;
  /** Without its end; `undefined` for a line that is too long. */
  readonly text: string | undefined;
}

/**
 * Splits bytes into lines at `\n` and nothing else, as NDJSON is: U+2028 may stand in a JSON string. A byte order mark is
 * dropped. Holds one line of `maxLength` characters and one chunk at most.
 */
export async function* textLines(chunks: AsyncIterable<Uint8Array>, maxLength: number): AsyncGenerator<TextLine> {
  const decoder = new TextDecoder();
  let number = 1;
  let rest = '';
  let tooLong = false;
  for await (const chunk of chunks) {
    const [first = '', ...others] = decoder.decode(chunk, { stream: true }).split('\n');
    const pieces = [rest + first, ...others];
    rest = pieces.pop() ?? '';
    for (const text of pieces) {
      yield { number, text: tooLong || text.length > maxLength ? undefined : text };
      tooLong = false;
      number += 1;
    }
    if (rest.length > maxLength) {
      tooLong = true;
      rest = '';
    }
  }
  rest += decoder.decode();
  if (rest !== '' || tooLong) yield { number, text: tooLong || rest.length > maxLength ? undefined : rest };
}
