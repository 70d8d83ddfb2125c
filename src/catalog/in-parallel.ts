/** Does something for each, so many at a time. All have ended when it rejects, with the first reason. */
export async function inParallel<T>(
  atOnce: number,
  items: Iterable<T> | AsyncIterable<T>,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let failed: { readonly reason: unknown } | undefined;
  const iterator = toAsync(items);
  const worker = async (): Promise<void> => {
    while (failed === undefined) {
      try {
        const { done, value } = await iterator.next();
        if (done === true) return;
        await work(value);
      } catch (reason) {
        failed ??= { reason };
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  if (failed !== undefined) throw failed.reason;
}

/** An async generator answers one `next` after the other, so that many may ask. */
async function* toAsync<T>(items: Iterable<T> | AsyncIterable<T>): AsyncGenerator<T, void> {
  yield* items;
}
