import { SaxesParser } from 'saxes';
import { MAX_PUSH_DEPTH, type ParsedPush, type PushFields, type PushValue } from './push-fields.ts';

/** A push has some ten elements, one of nine pictures some thirty. */
const MAX_ELEMENTS = 1_000;

/** An element that has been opened. */
interface Open {
  readonly name: string;
  /** Its children; none, and it is a text. */
  readonly children: [name: string, value: PushValue][];
  text: string;
}

class RefusedXmlError extends Error {
  override readonly name = 'RefusedXmlError';
}

/**
 * Reads a push in XML: the children of its root, each a text or children again. Children of one name are a list.
 *
 * Nothing that XML can do beyond that is needed, and some of it is meant for harm: a document type, processing
 * instructions and entities are refused. Attributes and comments say nothing.
 */
export function parsePushXml(text: string): ParsedPush {
  const parser = new SaxesParser({ position: false });
  const open: Open[] = [];
  let root: PushFields | undefined;
  let elements = 0;

  const refuse = (reason: string) => (): never => {
    throw new RefusedXmlError(reason);
  };
  parser.on('doctype', refuse('XML with a document type'));
  parser.on('processinginstruction', refuse('XML with a processing instruction'));
  parser.on('error', refuse('XML that is not well-formed'));
  parser.on('opentag', ({ name }) => {
    elements += 1;
    if (elements > MAX_ELEMENTS) refuse('XML of too many elements')();
    if (open.length === MAX_PUSH_DEPTH) refuse('XML that is too deep')();
    open.push({ name, children: [], text: '' });
  });
  const addText = (more: string): void => {
    const inner = open.at(-1);
    if (inner !== undefined) inner.text += more;
  };
  parser.on('text', addText);
  parser.on('cdata', addText);
  parser.on('closetag', () => {
    const closed = open.pop();
    if (closed === undefined) return;
    const fields = fieldsOf(closed.children);
    const outer = open.at(-1);
    if (outer === undefined) root = fields;
    else outer.children.push([closed.name, closed.children.length === 0 ? closed.text : fields]);
  });

  try {
    parser.write(text).close();
  } catch (error) {
    if (error instanceof RefusedXmlError) return { ok: false, reason: error.message };
    throw error;
  }
  return root === undefined ? { ok: false, reason: 'XML that is not well-formed' } : { ok: true, fields: root };
}

function fieldsOf(children: Open['children']): PushFields {
  const fields = Object.create(null) as Record<string, PushValue>;
  for (const [name, same] of Map.groupBy(children, ([name]) => name)) {
    const values = same.map(([, value]) => value);
    const [only] = values;
    fields[name] = only !== undefined && values.length === 1 ? only : values;
  }
  return fields;
}
