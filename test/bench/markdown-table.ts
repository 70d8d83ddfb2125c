/**
 * Prints the head of a table; then each row, or as JSON the facts that it was made of, one line each.
 *
 * @returns what prints a row.
 */
export function markdownTable(
  head: readonly string[],
  asJson: boolean,
): (facts: object, cells: readonly string[]) => void {
  if (!asJson) {
    console.log(`\n| ${head.join(' | ')} |`);
    console.log(`|---|${'--:|'.repeat(head.length - 1)}`);
  }
  return (facts, cells) => console.log(asJson ? JSON.stringify(facts) : `| ${cells.join(' | ')} |`);
}

/** A whole number as it is read. */
export function whole(number: number): string {
  return Math.round(number).toLocaleString('en');
}
