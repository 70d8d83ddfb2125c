/** A binary heap: the entry with the least key comes first, of equal ones the one that was pushed first. */
export class MinHeap<T> {
  #entries: { readonly key: number; readonly order: number; readonly value: T }[] = [];
  #pushed = 0;

  get size(): number {
    return this.#entries.length;
  }

  get leastKey(): number {
    return this.#entries[0]?.key ?? Number.POSITIVE_INFINITY;
  }

  peek(): T | undefined {
    return this.#entries[0]?.value;
  }

  push(key: number, value: T): void {
    const entries = this.#entries;
    const entry = { key, order: this.#pushed++, value };
    let at = entries.push(entry) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = entries[parent];
      if (above === undefined || !isBefore(entry, above)) break;
      entries[at] = above;
      at = parent;
    }
    entries[at] = entry;
  }

  pop(): T | undefined {
    const entries = this.#entries;
    const least = entries[0];
    const last = entries.pop();
    if (least === undefined || last === undefined || entries.length === 0) return least?.value;
    let at = 0;
    for (;;) {
      const left = entries[2 * at + 1];
      const right = entries[2 * at + 2];
      if (left === undefined) break;
      const [child, place] = right !== undefined && isBefore(right, left) ? [right, 2 * at + 2] : [left, 2 * at + 1];
      if (!isBefore(child, last)) break;
      entries[at] = child;
      at = place;
    }
    entries[at] = last;
    return least.value;
  }
}

interface Entry {
  readonly key: number;
  readonly order: number;
}

function isBefore(a: Entry, b: Entry): boolean {
  return a.key < b.key || (a.key === b.key && a.order < b.order);
}
