/**
 * Looks at all that passes from a source to its reader. Does what an async generator between the two would do, which costs
 * several turns of the microtask queue for each chunk.
 *
 * What `onChunk` or `onEnd` throw closes the source and is thrown to the reader.
 */
export function tap<T>(
  source: AsyncIterable<T>,
  onChunk: (chunk: T) => void,
  onEnd: () => void = () => undefined,
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]: () => {
      const iterator = source[Symbol.asyncIterator]();
      let hasEnded = false;
      async function close(): Promise<void> {
        hasEnded = true;
        await iterator.return?.();
      }
      async function fail(error: unknown): Promise<never> {
        await close();
        throw error;
      }
      function look(result: IteratorResult<T, undefined>): IteratorResult<T, undefined> | Promise<never> {
        try {
          hasEnded = result.done === true;
          if (result.done === true) onEnd();
          else onChunk(result.value);
        } catch (error) {
          return fail(error);
        }
        return result;
      }
      return {
        next: async () => (hasEnded ? ENDED : iterator.next().then(look)),
        return: async () => {
          await close();
          return ENDED;
        },
      };
    },
  };
}

const ENDED = { done: true, value: undefined } as const;
