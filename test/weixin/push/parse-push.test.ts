import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parsePushFields } from '../../../src/weixin/push/parse-push.ts';
import { textIn } from '../../../src/weixin/push/push-fields.ts';

function read(body: string | Uint8Array): unknown {
  const parsed = parsePushFields(typeof body === 'string' ? Buffer.from(body) : body);
  return parsed.ok ? { ...parsed.fields } : parsed.reason;
}

/** 64 bits: a number of JavaScript would end in 8000. */
const MSG_ID = '6089239057186927631';

describe('XML', () => {
  test.each<[string, string, unknown]>([
    [
      'an image',
      `<xml><ToUserName><![CDATA[gh_x]]></ToUserName><CreateTime>1348831860</CreateTime><MsgId>${MSG_ID}</MsgId></xml>`,
      { ToUserName: 'gh_x', CreateTime: '1348831860', MsgId: MSG_ID },
    ],
    ['behind an XML declaration', '<?xml version="1.0" encoding="UTF-8"?>\n<xml><a>1</a></xml>\n', { a: '1' }],
    ['behind a byte order mark and space', '\uFEFF\r\n <xml><a>1</a></xml>', { a: '1' }],
    [
      'with CDATA in pieces, and text beside it',
      '<xml><a>x<![CDATA[]]]]><![CDATA[>&amp;]]>&amp;&#x597d;</a></xml>',
      { a: 'x]]>&amp;&好' },
    ],
    ['with comments and attributes', '<xml a="1"><!-- no --><a b="&lt;">1<!-- no -->2</a></xml>', { a: '12' }],
    ['indented', '<xml>\n  <a>1</a>\n  <b/>\n</xml>', { a: '1', b: '' }],
    ['of nothing', '<xml/>', {}],
    ['with children of one name', '<xml><p><item>1</item><item>2</item></p></xml>', { p: { item: ['1', '2'] } }],
    [
      'of eight levels',
      '<xml><b><c><d><e><f><g><h>1</h></g></f></e></d></c></b></xml>',
      { b: { c: { d: { e: { f: { g: { h: '1' } } } } } } },
    ],
  ])('%s', (_name, text, fields) => {
    expect(read(text)).toEqual(fields);
  });

  test.each<[string, string, string]>([
    ['nine levels', '<a>'.repeat(9), 'XML that is too deep'],
    ['a mebibyte of levels', '<a>'.repeat(350_000), 'XML that is too deep'],
    ['a mebibyte of elements', `<xml>${'<a/>'.repeat(260_000)}</xml>`, 'XML of too many elements'],
    ['a document type', '<!DOCTYPE xml><xml/>', 'XML with a document type'],
    [
      'an entity of a file',
      '<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/passwd">]><xml><a>&x;</a></xml>',
      'XML with a document type',
    ],
    [
      'entities of entities',
      `<!DOCTYPE xml [<!ENTITY a "ha">${'bcdefgh'.replace(/./g, (letter) => `<!ENTITY ${letter} "${`&${String.fromCharCode(letter.charCodeAt(0) - 1)};`.repeat(10)}">`)}]><xml>&h;</xml>`,
      'XML with a document type',
    ],
    ['a processing instruction', '<?xml version="1.0"?><?php x ?><xml/>', 'XML with a processing instruction'],
    ['an entity of nobody', '<xml><a>&nbsp;</a></xml>', 'XML that is not well-formed'],
    [
      'an entity by the name of what every object has',
      '<xml><a>&constructor;</a></xml>',
      'XML that is not well-formed',
    ],
    ['a reference that ends nowhere', '<xml><a>&#x41</a></xml>', 'XML that is not well-formed'],
    ['text behind it', '<xml/>x', 'XML that is not well-formed'],
    ['another root behind it', '<xml/><xml/>', 'XML that is not well-formed'],
    ['an end that is missing', '<xml><a>1</a>', 'XML that is not well-formed'],
    ['another end', '<xml><a>1</b></xml>', 'XML that is not well-formed'],
    ['an end within CDATA', '<xml><a><![CDATA[1</a></xml>', 'XML that is not well-formed'],
    ['a declaration alone', '<?xml version="1.0"?>', 'XML that is not well-formed'],
  ])('with %s is refused', (_name, text, reason) => {
    expect(read(text)).toBe(reason);
  });

  test.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty'])(
    'a field named %s is one like any other',
    (name) => {
      const parsed = parsePushFields(Buffer.from(`<xml><a><${name}><x>1</x></${name}></a></xml>`));
      if (!parsed.ok) throw new Error(parsed.reason);
      expect(Object.keys(parsed.fields['a'] ?? {})).toEqual([name]);
      expect(parsed.fields['x']).toBeUndefined();
      expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    },
  );
});

describe('JSON', () => {
  test.each<[string, string, unknown]>([
    ['a number of 64 bits', `{"MsgId":${MSG_ID},"CreateTime":1482048670}`, { MsgId: MSG_ID, CreateTime: '1482048670' }],
    ['numbers that are none of an id', '{"a":1.50,"b":-1e3,"c":0}', { a: '1.50', b: '-1e3', c: '0' }],
    ['what is no text', '{"a":true,"b":null,"c":[1,"x",{"d":2}]}', { a: 'true', b: '', c: ['1', 'x', { d: '2' }] }],
    ['behind a byte order mark', '\uFEFF{"a":"1"}', { a: '1' }],
    ['braces within a text', `{"a":"${'{['.repeat(20)}\\"{{{{{{{{{"}`, { a: `${'{['.repeat(20)}"{{{{{{{{{` }],
    ['eight levels', '{"a":[[[[[[["x"]]]]]]]}', { a: [[[[[[['x']]]]]]] }],
  ])('%s', (_name, text, fields) => {
    expect(read(text)).toEqual(fields);
  });

  test.each<[string, string, string]>([
    ['nine levels', '{"a":[[[[[[[[1]]]]]]]]}', 'JSON that is too deep'],
    ['a mebibyte of levels', '{"a":'.repeat(200_000), 'JSON that is too deep'],
    ['an end that is missing', '{"a":1', 'no JSON'],
    ['text behind it', '{"a":1} x', 'no JSON'],
    ['a text without an end', `{"a":"${'\\"'.repeat(100_000)}`, 'no JSON'],
  ])('with %s is refused', (_name, text, reason) => {
    expect(read(text)).toBe(reason);
  });

  test('a field named __proto__ is one like any other', () => {
    const parsed = parsePushFields(Buffer.from('{"__proto__":{"x":1},"a":{"__proto__":{"x":1}}}'));
    if (!parsed.ok) throw new Error(parsed.reason);
    expect(parsed.fields['x']).toBeUndefined();
    expect((parsed.fields['a'] as Record<string, unknown>)['x']).toBeUndefined();
    expect(parsed.fields['toString']).toBeUndefined();
  });
});

test.each<[string, string | Uint8Array, string]>([
  ['nothing', '', 'empty'],
  ['space', ' \r\n\t', 'empty'],
  ['a text', 'MsgType=image', 'neither XML nor JSON'],
  ['a list', '[{"a":1}]', 'neither XML nor JSON'],
  ['UTF-16', Buffer.from('\uFEFF<xml/>', 'utf16le'), 'neither XML nor JSON'],
])('%s is refused', (_name, body, reason) => {
  expect(read(body)).toBe(reason);
});

test.each([
  ['XML', '<xml><MediaId>m</MediaId><Title><![CDATA[', ']]></Title></xml>'],
  ['JSON', '{"MediaId":"m","Title":"', '"}'],
])('%s with what users paste, and neither format allows, is read all the same', (_format, before, after) => {
  for (const odd of [
    '\b',
    '\u0000',
    '\v',
    '\u001f',
    '\uffff',
    '\t',
    '\n',
    Buffer.from([0xe5, 0xa5]),
    Buffer.from([0xff]),
  ])
    expect(read(Buffer.concat([Buffer.from(before), Buffer.from(odd), Buffer.from(after)]))).toMatchObject({
      MediaId: 'm',
    });
});

test('references to control characters are left out', () => {
  expect(read('<xml><a>x&#8;&#x1F;&#0011;y&#10;&#x41;</a></xml>')).toEqual({ a: 'xy\nA' });
  const odd = '&#xFFFE;&#65535;&#xD800;&#xD83D;&#xDE00;&#x110000;&#99999999;&#x1F600;';
  expect(read(`<xml><a>${odd}</a></xml>`)).toEqual({ a: '\u{1F600}\u{1F600}' });
});

test('any bytes give fields or a reason', () => {
  fc.assert(
    fc.property(fc.constantFrom('', '<', '{', '<xml>', '{"a":'), fc.uint8Array(), (start, rest) => {
      const parsed = parsePushFields(Buffer.concat([Buffer.from(start), rest]));
      expect(typeof (parsed.ok ? parsed.fields : parsed.reason)).toBe(parsed.ok ? 'object' : 'string');
    }),
  );
});

test('a field that is no text, or an empty one, has none', () => {
  const fields = { a: 'x', b: '', c: ['x'], d: { e: 'x' } };
  expect(['a', 'b', 'c', 'd', 'toString'].map((name) => textIn(fields, name))).toEqual([
    'x',
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
