import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { MEDIA_ERROR_CODES } from '../../src/weixin/error-codes.ts';
import { RAW_TOKEN } from './raw-weixin.ts';

/** An HTTP answer byte by byte, and what may be made of it. */
export interface HostileReply {
  /** Written one after the other, as latin1: so a counterexample can be read. */
  readonly pieces: readonly string[];
  /** What becomes of the connection then. */
  readonly ending: 'keep' | 'end' | 'reset';
  /** The only bytes that may be stored: the body, if the answer is whole; `undefined` when nothing may be. */
  readonly body: Buffer | undefined;
  /** True for an answer without any fault: it must be stored. */
  readonly good: boolean;
}

interface Payload {
  readonly kind: 'media' | 'error' | 'other';
  readonly bytes: Buffer;
}

const bytes = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

/** The beginnings of what users send, and of other types that a few bytes tell. */
const MAGICS = [
  'ffd8ffe000104a46494600010100000100010000',
  '89504e470d0a1a0a0000000d49484452',
  '474946383961',
  '52494646ffffffff57454250',
  '2321414d520a',
  '02232153494c4b5f5633',
  '00000018667479706d703432000000006d703432',
  '504b0304',
  '3026b2758e66cf11a6d900aa0062ce6c',
  '664c6143',
].map((hex) => Buffer.from(hex, 'hex'));

const media: fc.Arbitrary<Payload> = fc
  .tuple(fc.constantFrom(...MAGICS), fc.integer({ min: 1, max: 6_000 }), bytes(64))
  .map(([magic, filler, tail]) => ({
    kind: 'media',
    bytes: Buffer.concat([magic, Buffer.alloc(filler, 0xa5), tail]),
  }));

/** Raw control characters, as WeChat leaves them in its JSON. */
const controls = fc.string({ unit: fc.constantFrom('\u0000', '\u0001', '\t', '\n', '\r', '\u001f', '\u007f') });
const around = fc.oneof(
  { weight: 4, arbitrary: fc.constant('') },
  fc.constantFrom('\uFEFF', ' ', '\r\n\t', '\uFEFF \n'),
  controls,
);

const errcodes = fc.oneof(
  fc.constantFrom(...Object.keys(MEDIA_ERROR_CODES)),
  fc.constantFrom(...Object.keys(MEDIA_ERROR_CODES)).map((code) => `"${code}"`),
  fc.integer().map(String),
  fc.constantFrom('40001.5', '1e308', '-0', '9007199254740993', '12345678901234567890', 'null', 'true', '"x"', '""'),
  fc.constantFrom('[40001]', '{"errcode":40001}', '[[[]]]', '"-1 "', '"４０００１"'),
);

const errmsgs = fc.oneof(
  fc.constantFrom('invalid media_id hint: [C.5Jka05499012] rid: 66bd627d-234f6532-5f252680', 'ok', ''),
  fc.string({ unit: 'grapheme', maxLength: 50 }).map((text) => text.replace(/["\\]/g, '')),
  controls,
  fc.constantFrom(RAW_TOKEN, encodeURIComponent(RAW_TOKEN), `${RAW_TOKEN}${RAW_TOKEN}`),
  fc.nat(400).map((length) => `${'x'.repeat(length)}${RAW_TOKEN}`),
);

/** An object with an `errcode`, in whatever condition; an image is none. */
const errorJson: fc.Arbitrary<Payload> = fc
  .record({
    before: around,
    errcode: errcodes,
    errmsg: fc.tuple(errmsgs, controls, errmsgs).map((parts) => parts.join('')),
    more: fc.constantFrom('', ',"video_url":7', ',"data":{"a":[1,{"b":null}]}', ',"errcode":40007', ',"__proto__":{}'),
    after: around,
  })
  .map(({ before, errcode, errmsg, more, after }) => ({
    kind: 'error',
    bytes: Buffer.from(`${before}{"errcode":${errcode},"errmsg":"${errmsg}"${more}}${after}`),
  }));

const other: fc.Arbitrary<Payload> = fc
  .oneof(
    bytes(300),
    fc.json().map((text) => Buffer.from(text)),
    fc.string({ unit: 'grapheme' }).map((text) => Buffer.from(text)),
    fc
      .constantFrom('', '{', '{}', '[]', '<html>', '<?xml version="1.0"?>', RAW_TOKEN, `{"token":"${RAW_TOKEN}"}`)
      .map((text) => Buffer.from(text)),
    fc
      .constantFrom(
        'http://127.0.0.1/',
        'nonsense',
        `http://${RAW_TOKEN}.localhost/`,
        `ftp://${RAW_TOKEN}/`,
        `http://127.0.0.1/${RAW_TOKEN}`,
      )
      .map((url) => Buffer.from(JSON.stringify({ video_url: url }))),
  )
  .map((body) => ({ kind: 'other', bytes: body }));

const types = fc.oneof(
  fc.constantFrom('image/jpeg', 'audio/amr', 'voice/speex', 'video/mp4', 'text/plain', 'application/json'),
  fc.constantFrom('application/octet-stream', 'Image/JPEG; a=b', '', ';', '/', 'image/', `x/${'y'.repeat(500)}`),
  fc.string().map((text) => text.replace(/[\r\n]/g, '')),
);

/** Spelt as nobody would. */
const oddCase = (name: string): fc.Arbitrary<string> =>
  fc.constantFrom(name, name.toLowerCase(), name.toUpperCase(), name.replace(/e/g, 'E'));

const headers: fc.Arbitrary<string[]> = fc
  .tuple(
    fc.option(fc.tuple(oddCase('Content-Type'), types)),
    fc.option(
      fc.tuple(
        oddCase('Content-disposition'),
        fc.constantFrom(
          'attachment; filename="a.jpg"',
          'attachment',
          'filename*=utf-8\'\'%00.sh; filename="../x"',
          ';',
        ),
      ),
    ),
    fc.option(
      fc.tuple(
        oddCase('X-Junk'),
        fc.constantFrom(1, 100, 3_000).map((length) => 'j'.repeat(length)),
      ),
    ),
    fc.option(
      fc.constantFrom(['Content-Type', 'text/plain'], ['Location', 'http://127.0.0.1/'], ['Connection', 'close']),
    ),
  )
  .map((lines) => lines.filter((line) => line !== null).map(([name, value]) => `${name}: ${value}`));

const statusLines = fc.oneof(
  { weight: 8, arbitrary: fc.constant('HTTP/1.1 200 OK') },
  fc.constantFrom('HTTP/1.1 200', 'HTTP/1.0 200 OK', 'HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK', 'HTTP/1.1 200 \xff'),
  fc.constantFrom('HTTP/2 200 OK', 'http/1.1 200 ok', 'HTTP/1.1 -200', 'HTTP/1.1 99999 x', 'ICY 200 OK', '', '\0'),
  fc.constantFrom(404, 302, 206, 204, 304, 500, 101, 100).map((status) => `HTTP/1.1 ${status} x`),
);

/** How the end of the body is told. */
interface Framing {
  readonly lines: readonly string[];
  readonly wire: Buffer;
  /** What a strict reader takes for the body. */
  readonly body: Buffer | undefined;
  /** True when only the end of the connection ends the body. */
  readonly untilEnd?: boolean;
}

function chunked(body: Buffer, sizeBytes: number, extension: string, trailer: string): Buffer {
  const chunks: Buffer[] = [];
  for (let from = 0; from < body.byteLength; from += sizeBytes) {
    const data = body.subarray(from, from + sizeBytes);
    chunks.push(Buffer.from(`${data.byteLength.toString(16)}${extension}\r\n`), data, Buffer.from('\r\n'));
  }
  return Buffer.concat([...chunks, Buffer.from(`0\r\n${trailer}\r\n`)]);
}

const chunkings = (...trailers: readonly string[]): fc.Arbitrary<[number, string, string]> =>
  fc.tuple(
    fc.integer({ min: 1, max: 3_000 }),
    fc.constantFrom('', ';a=b', `;${'e'.repeat(100)}`),
    fc.constantFrom('', 'X-Trailer: 1\r\n', ...trailers),
  );

const TRANSFER_CHUNKED = 'Transfer-Encoding: chunked';

function honest(body: Buffer): fc.Arbitrary<Framing> {
  return fc.oneof(
    fc.constant({ lines: [`Content-Length: ${body.byteLength}`], wire: body, body }),
    chunkings().map((chunking) => ({ lines: [TRANSFER_CHUNKED], wire: chunked(body, ...chunking), body })),
    fc.constant({ lines: [], wire: body, body, untilEnd: true }),
  );
}

function lying(body: Buffer): fc.Arbitrary<Framing> {
  const length = body.byteLength;
  const lines = (...values: readonly (string | number)[]): readonly string[] =>
    values.map((value) => `Content-Length: ${value}`);
  return fc.oneof(
    // More than comes, up to more than there is.
    fc
      .oneof(fc.integer({ min: 1, max: 5_000 }), fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1, 1e15))
      .map((more) => ({ lines: lines(length + more), wire: body, body: undefined })),
    fc
      .constantFrom(
        '-1',
        'NaN',
        'none',
        '1e3',
        '0x10',
        '+5',
        '1.5',
        '99999999999999999999',
        '9'.repeat(400),
        `${length}x`,
      )
      .map((value) => ({ lines: lines(value), wire: body, body: undefined })),
    // Less than comes: by the rules of HTTP that is the body, and what follows is no part of it.
    fc.nat(length).map((fewer) => ({ lines: lines(fewer), wire: body, body: body.subarray(0, fewer) })),
    fc.constant({ lines: lines(length, length + 1), wire: body, body: undefined }),
    fc.constant({ lines: lines(length, length), wire: body, body }),
    fc.constant({ lines: lines(`${length}, ${length + 1}`), wire: body, body: undefined }),
    fc.tuple(chunkings('Content-Length: 1\r\n'), fc.nat(7_000)).map(([chunking, claimed]) => ({
      lines: [...lines(claimed), TRANSFER_CHUNKED],
      wire: chunked(body, ...chunking),
      body,
    })),
    fc
      .constantFrom('-1\r\n', 'zz\r\n', 'fffffffffffffffff\r\n', '\r\n', '5', '7fffffff\r\n', '1\r\nabc\r\n')
      .map((start) => ({
        lines: [TRANSFER_CHUNKED],
        wire: Buffer.concat([Buffer.from(start), chunked(body, 100, '', '')]),
        body: undefined,
      })),
    fc.constant({ lines: [TRANSFER_CHUNKED], wire: chunked(body, 100, '', '').subarray(0, -5), body: undefined }),
  );
}

interface Encoding {
  readonly lines: readonly string[];
  /** As it is sent. */
  readonly bytes: Buffer;
  /** False when no decoder can make sense of it. */
  readonly readable: boolean;
}

function encodings(payload: Buffer): fc.Arbitrary<Encoding> {
  return fc.oneof(
    { weight: 6, arbitrary: fc.constant({ lines: [], bytes: payload, readable: true }) },
    fc.constantFrom('gzip', 'x-gzip', ' GZIP ').map((name) => ({
      lines: [`Content-Encoding: ${name}`],
      bytes: gzipSync(payload),
      readable: true,
    })),
    fc.constantFrom('gzip', 'deflate').map((name) => ({
      lines: [`Content-Encoding: ${name}`],
      bytes: payload,
      readable: false,
    })),
    fc.constantFrom('identity', 'none', '').map((name) => ({
      lines: [`Content-Encoding: ${name}`],
      bytes: payload,
      readable: true,
    })),
  );
}

/** Cuts bytes at these shares of their length. */
function split(whole: Buffer, shares: readonly number[]): string[] {
  const places = [0, ...shares.map((share) => Math.floor(share * whole.byteLength)), whole.byteLength].toSorted(
    (a, b) => a - b,
  );
  return places.slice(1).map((place, index) => whole.toString('latin1', places[index], place));
}

/** One time in four. */
const seldom = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: value });

const share = fc.noBias(fc.integer({ min: 0, max: 1_000 })).map((thousandths) => thousandths / 1_000);

/** Answers with faults of every kind, and some without any. */
export const hostileReplies: fc.Arbitrary<HostileReply> = fc
  .oneof({ weight: 4, arbitrary: media }, { weight: 4, arbitrary: errorJson }, { weight: 2, arbitrary: other })
  .chain((payload) => fc.tuple(fc.constant(payload), encodings(payload.bytes)))
  .chain(([payload, encoding]) =>
    fc.record({
      payload: fc.constant(payload),
      encoding: fc.constant(encoding),
      framing: fc.oneof(
        { weight: 3, arbitrary: honest(encoding.bytes) },
        { weight: 2, arbitrary: lying(encoding.bytes) },
      ),
      statusLine: statusLines,
      headers,
      cut: seldom(share),
      junk: seldom(bytes(100)),
      splits: fc.array(share, { maxLength: 4 }),
      ending: fc.oneof(
        { weight: 20, arbitrary: fc.constant<'end' | 'keep' | 'reset'>('end') },
        { weight: 1, arbitrary: fc.constantFrom<'end' | 'keep' | 'reset'>('keep', 'reset') },
      ),
    }),
  )
  .map(({ payload, encoding, framing, statusLine, headers: lines, cut, junk, splits, ending }) => {
    const head = Buffer.from(
      `${[statusLine, ...lines, ...encoding.lines, ...framing.lines].join('\r\n')}\r\n\r\n`,
      'latin1',
    );
    const whole = Buffer.concat([head, framing.wire]);
    const end = cut === null ? whole.byteLength : Math.floor(cut * whole.byteLength);
    const sent = whole.subarray(0, end);
    // Behind a body of unknown end, or of one that is still to come, it would be a part of it.
    const behind = framing.body !== undefined && framing.untilEnd !== true && end === whole.byteLength;
    const after = junk === null || !behind ? Buffer.alloc(0) : junk;
    const faultless =
      end === whole.byteLength &&
      after.byteLength === 0 &&
      ending === 'end' &&
      statusLine === 'HTTP/1.1 200 OK' &&
      payload.kind === 'media' &&
      lines.some((line) => /^content-type: (image|audio|video|voice)\/\w/i.test(line)) &&
      encoding.readable &&
      framing.body === encoding.bytes &&
      // Twice the same, or beside another framing: a reader may refuse it.
      framing.lines.length < 2;
    return {
      pieces: split(Buffer.concat([sent, after]), splits),
      ending,
      body: / 200\b/.test(statusLine)
        ? unlessError(bodyOf(payload, encoding, framing, end - head.byteLength, ending))
        : undefined,
      good: faultless,
    };
  });

/** So little of an error that it does not say so can't be told from other bytes. */
function unlessError(body: Buffer | undefined): Buffer | undefined {
  return body?.includes('"errcode":') === true ? undefined : body;
}

/** What a strict reader takes for the media when so many bytes behind the head arrive. */
function bodyOf(
  payload: Payload,
  encoding: Encoding,
  { body, wire, untilEnd, lines }: Framing,
  arrived: number,
  ending: HostileReply['ending'],
): Buffer | undefined {
  if (arrived < 0 || body === undefined || !encoding.readable) return undefined;
  const encoded = encoding.bytes !== payload.bytes;
  if (untilEnd === true) {
    if (ending === 'keep' || (encoded && arrived < wire.byteLength)) return undefined;
    return payload.bytes.subarray(0, encoded ? undefined : arrived);
  }
  // "Fewer" may be none fewer.
  if (encoded) return arrived === wire.byteLength && body.equals(encoding.bytes) ? payload.bytes : undefined;
  const needed = lines.includes(TRANSFER_CHUNKED) ? wire.byteLength : body.byteLength;
  return arrived >= needed ? body : undefined;
}
