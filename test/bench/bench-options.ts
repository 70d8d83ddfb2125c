import { parseArgs } from 'node:util';
import { InvalidArgumentError } from 'commander';
import { byteSize } from '../../src/config-values.ts';
import type { Variable } from '../../src/config-variables.ts';
import { EXIT } from '../../src/operate/command-error.ts';
import { wholeNumber } from '../../src/operate/option-parsers.ts';
import { endChildrenAtExit } from './end-children.ts';

type OptionTable = Readonly<
  Record<string, { readonly type: 'string'; readonly default: string } | { readonly type: 'boolean' }>
>;

/** The options of a bench. */
export interface BenchOptions<Table extends OptionTable> {
  /** As they were given; a boolean that was not is false. */
  readonly values: { readonly [Name in keyof Table]: Table[Name]['type'] extends 'boolean' ? boolean : string };
  /**
   * What the text of an option stands for. A text that can't be parsed ends the process.
   *
   * @param parse throws an InvalidArgumentError that says what is expected.
   */
  read<T>(name: keyof Table & string, parse: (text: string) => T): T;
  /** Ends the process as a text does that can't be parsed: for options that do not go together. */
  refuse(what: string): never;
}

const LINE_LENGTH = 100;

/**
 * Parses the options of this process. Whatever is wrong with them is told in one line, with the usage below it, and the
 * process ends with 2; `--help` prints the usage, which shows all defaults, and ends it with 0. From then on this process
 * leaves none behind that it started.
 *
 * @param script of package.json.
 */
export function benchOptions<const Table extends OptionTable>(script: string, table: Table): BenchOptions<Table> {
  const wrong = (what: string): never => {
    process.stderr.write(`error: ${what}\n${usageOf(script, table)}\n`);
    process.exit(EXIT.usage);
  };
  const { help, ...values } = parsed() as Record<string, string | boolean | undefined>;
  if (help === true) {
    process.stdout.write(`${usageOf(script, table)}\n`);
    process.exit(EXIT.done);
  }
  for (const [name, { type }] of Object.entries(table)) if (type === 'boolean') values[name] ??= false;
  endChildrenAtExit();

  function parsed(): object {
    try {
      const options = { ...table, help: { type: 'boolean', short: 'h' } } as const;
      return parseArgs({ args: withNegatives(process.argv.slice(2)), options }).values;
    } catch (error) {
      if (!(error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS_')))
        throw error;
      // Node goes on with advice.
      const [what = ''] = error.message.split(/\.\s/);
      return wrong(what.charAt(0).toLowerCase() + what.slice(1));
    }
  }

  return {
    values: values as BenchOptions<Table>['values'],
    read: (name, parse) => {
      const text = String(values[name]);
      try {
        return parse(text);
      } catch (error) {
        if (!(error instanceof InvalidArgumentError)) throw error;
        return wrong(`option '--${name}' argument '${text}' is invalid. ${error.message}`);
      }
    },
    refuse: wrong,
  };
}

/** Parses a comma-separated list. */
export function listOf<T>(parse: (text: string) => T): (text: string) => T[] {
  return (text) => text.split(',').map(parse);
}

/** What a process that the bench starts takes for this variable of its environment. */
export function variable<T>({ parse, expected }: Pick<Variable<T>, 'parse' | 'expected'>): (text: string) => T {
  return (text) => {
    const value = parse(text);
    if (value === undefined) throw new InvalidArgumentError(`${expected} is expected`);
    return value;
  };
}

/** Also 0, which leaves something out. */
export function count(text: string): number {
  const value = wholeNumber(text);
  if (value < 0) throw new InvalidArgumentError('0 or a whole number above 0 is expected');
  return value;
}

export function percent(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0 && value <= 100))
    throw new InvalidArgumentError('a number from 0 to 100 is expected');
  return value;
}

/** A size above 0, in bytes. */
export function size(text: string): number {
  const bytes = byteSize(text);
  if (bytes === undefined || bytes === 0) throw new InvalidArgumentError('a size is expected, as 64KiB or 256MiB');
  return bytes;
}

/** Makes one argument of an option and a negative number, which Node would take for two options. */
function withNegatives(given: readonly string[]): string[] {
  const joined: string[] = [];
  for (const text of given) {
    const before = joined.at(-1);
    if (/^-\d/.test(text) && before?.startsWith('--') === true && !before.includes('='))
      joined[joined.length - 1] = `${before}=${text}`;
    else joined.push(text);
  }
  return joined;
}

function usageOf(script: string, table: OptionTable): string {
  const lines = [`Usage: npm run ${script} --`];
  const indent = ' '.repeat(lines.join().length);
  for (const [name, option] of Object.entries(table)) {
    const value = option.type === 'boolean' ? '' : ` ${option.default === '' ? 'TEXT' : option.default}`;
    const word = ` [--${name}${value}]`;
    const last = lines.at(-1) ?? '';
    if (last.length + word.length > LINE_LENGTH) lines.push(indent + word);
    else lines[lines.length - 1] = last + word;
  }
  return lines.join('\n');
}
