/** What a column may be, in DuckDB's words. Instants are UTC, to the millisecond. */
export type ColumnType =
  | 'VARCHAR'
  | 'INTEGER'
  | 'BIGINT'
  | 'DOUBLE'
  | 'TIMESTAMP WITH TIME ZONE'
  | 'MAP(VARCHAR, VARCHAR)';

/** One column of the catalog, as docs/catalog.md and the Parquet files have it. */
export interface Column {
  readonly name: string;
  readonly type: ColumnType;
  readonly nullable: boolean;
  /** Absent where a value has none. */
  readonly unit?: string;
  readonly meaning: string;
}

/** A table of the catalog: the one list from which rows, Parquet schemas and docs are made. */
export interface Table<C extends readonly Column[] = readonly Column[]> {
  readonly name: TableName;
  /** Told in each file as `<name>/<version>`. Another one for every change that is more than a new nullable column. */
  readonly version: number;
  readonly columns: C;
  /** The columns that tell one row from another. */
  readonly identity: readonly C[number]['name'][];
  /** The column that files are ordered by. */
  readonly order: C[number]['name'];
}

export const TABLE_NAMES = ['media', 'dead-letters', 'accepted', 'derived'] as const;

export type TableName = (typeof TABLE_NAMES)[number];

interface ValueOf {
  VARCHAR: string;
  INTEGER: number;
  BIGINT: number;
  DOUBLE: number;
  /** ISO-8601 in UTC. */
  'TIMESTAMP WITH TIME ZONE': string;
  'MAP(VARCHAR, VARCHAR)': Readonly<Record<string, string>>;
}

/** A row: a value for each column, `null` where there is none. */
export type RowOf<T extends Table> = {
  readonly [C in T['columns'][number] as C['name']]: ValueOf[C['type']] | (C['nullable'] extends true ? null : never);
};

/** A row of whichever table. */
export type AnyRow = Readonly<Record<string, unknown>>;

export function schemaOf({ name, version }: Table): string {
  return `${name}/${version}`;
}

/** Packs a row for the outbox: the values alone, in the order of the columns. */
export function packRow(table: Table, row: AnyRow): unknown[] {
  return table.columns.map(({ name }) => row[name] ?? null);
}

/** Unpacks what `packRow` made. Columns that were added since are `null`; `undefined` for what is no row. */
export function unpackRow(table: Table, packed: unknown): AnyRow | undefined {
  if (!Array.isArray(packed)) return undefined;
  const row = Object.fromEntries(table.columns.map(({ name }, index) => [name, (packed[index] as unknown) ?? null]));
  const isWhole = table.columns.every(({ name, nullable }) => nullable || row[name] !== null);
  return isWhole ? row : undefined;
}
