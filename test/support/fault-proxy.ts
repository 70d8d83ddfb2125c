import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, request as openRequest, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export type S3Operation =
  | 'PutObject'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'HeadBucket'
  | 'ListObjects'
  | 'CreateMultipartUpload'
  | 'UploadPart'
  | 'CompleteMultipartUpload'
  | 'AbortMultipartUpload'
  | 'ListMultipartUploads'
  | 'Other';

/** A request as it came to the proxy. */
export interface SeenRequest {
  readonly operation: S3Operation;
  /** Empty for requests to the bucket. */
  readonly key: string;
  readonly partNumber?: number;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  /** Once the answer has been passed on whole. */
  readonly status?: number;
}

/** What can happen to a request between a client and its store. */
export type Fault =
  /** The connection is cut once the store has got this much of the body. */
  | { readonly type: 'cut-request'; readonly afterBytes: number }
  /** The store does as it is told, and nobody hears of it. */
  | { readonly type: 'lose-answer' }
  /** The answer breaks off after this much of its body. */
  | { readonly type: 'cut-answer'; readonly afterBytes: number }
  /** This much of the answer's body comes, and nothing more. */
  | { readonly type: 'stall-answer'; readonly afterBytes: number }
  /** An answer that is not the store's; an S3 error of this code, unless there is a body. */
  | {
      readonly type: 'answer';
      readonly status: number;
      readonly code?: string;
      readonly body?: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** All is done, and this is told in place of the answer's body. */
  | { readonly type: 'replace-answer'; readonly body: string }
  /** Nothing is read and nothing answered; or all is done and nothing answered. */
  | { readonly type: 'hang'; readonly where: 'before' | 'after' }
  /** Each piece of the body is taken after a pause, and the answer given after another. */
  | { readonly type: 'slow'; readonly everyMs: number }
  /** All is done, and the answer waits until it is released. */
  | { readonly type: 'hold-answer' }
  /** One bit of the body arrives flipped. */
  | { readonly type: 'corrupt'; readonly atByte: number }
  /** One bit of the answer's body arrives flipped. */
  | { readonly type: 'corrupt-answer'; readonly atByte: number }
  /** What is listed seems to have been there for years. */
  | { readonly type: 'age-answer' };

/** Picks the requests that a fault is for. */
export type Pick = S3Operation | ((request: SeenRequest) => boolean);

export interface ArmedFault {
  /** How many requests it has met. */
  readonly met: number;
  disarm(): void;
  /** Lets the answers go that are held. */
  release(): void;
}

/** A way to an S3 server on which things go wrong as they are told to. */
export interface FaultProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** In the order in which they came. */
  readonly seen: readonly SeenRequest[];
  /** How many requests of one kind came. */
  count(operation: S3Operation): number;
  /** The most recently armed fault that fits a request happens to it. @param times for ever when absent. */
  arm(pick: Pick, fault: Fault, times?: number): ArmedFault;
  /** The keys of uploads that the store has begun and neither completed nor aborted, as far as the proxy has seen. */
  openUploads(): string[];
}

export interface FaultProxyOptions {
  /** Refuses a body that is not what its headers say, on behalf of a server that never looks. */
  readonly checkPayload?: boolean;
  /**
   * Lists open multipart uploads, or objects too, on behalf of the embedded server: that one lists no uploads, and where
   * there is more than a page of objects it leaves some out and gives others twice. They must come through the proxy.
   */
  readonly lists?: 'uploads' | 'all';
  /** Honours If-None-Match of PutObject on behalf of a server that does not, for objects that came through the proxy. */
  readonly createOnly?: boolean;
  /** False where so much passes that remembering it all in `seen` would fill the memory. Default true. */
  readonly remember?: boolean;
}

/** As many objects as S3 lists at once. */
const LIST_PAGE = 1_000;

interface Rule {
  readonly fits: (request: SeenRequest) => boolean;
  readonly fault: Fault;
  readonly released: PromiseWithResolvers<void>;
  left: number;
  met: number;
}

/** The `Host` header is passed on as it was signed, so signatures stay valid. */
export async function startFaultProxy(
  target: string,
  { checkPayload = false, lists, createOnly = false, remember = true }: FaultProxyOptions = {},
): Promise<FaultProxy> {
  const seen: SeenRequest[] = [];
  const rules: Rule[] = [];
  /** Each with the size of its object, where one request told it. */
  const keys = new Map<string, number>();
  /** Keys that are being created. */
  const arriving = new Set<string>();
  /** By their ids. */
  const uploads = new Map<string, string>();

  function ruleFor(request: SeenRequest): Rule | undefined {
    const rule = rules.findLast(({ fits, left }) => left > 0 && fits(request));
    if (rule === undefined) return undefined;
    rule.left -= 1;
    rule.met += 1;
    if (rule.left <= 0) rules.splice(rules.indexOf(rule), 1);
    return rule;
  }

  async function serve(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const claimed = new Set<string>();
    try {
      await pass(incoming, outgoing, claimed);
    } finally {
      for (const key of claimed) arriving.delete(key);
    }
  }

  /** @param claimed receives the key that this request alone may create. */
  async function pass(incoming: IncomingMessage, outgoing: ServerResponse, claimed: Set<string>): Promise<void> {
    const { socket } = incoming;
    const url = new URL(incoming.url ?? '/', target);
    const request = seenRequest(incoming, url);
    if (remember) seen.push(request);
    const rule = ruleFor(request);
    const fault = rule?.fault;
    if (fault?.type === 'hang' && fault.where === 'before') return;
    if (fault?.type === 'answer') {
      await buffer(incoming);
      outgoing.writeHead(fault.status, { 'content-type': 'application/xml', ...fault.headers });
      outgoing.end(request.operation.startsWith('Head') ? undefined : (fault.body ?? errorXml(fault.code ?? '')));
      return;
    }
    const list = lists !== undefined && fault === undefined ? listFor(request) : undefined;
    if (list !== undefined) {
      outgoing.writeHead(200, { 'content-type': 'application/xml' }).end(list);
      request.status = 200;
      return;
    }
    if (createOnly && request.operation === 'PutObject' && request.headers['if-none-match'] === '*') {
      const refusal = keys.has(request.key)
        ? { status: 412, code: 'PreconditionFailed' }
        : { status: 409, code: 'ConditionalRequestConflict' };
      if (keys.has(request.key) || arriving.has(request.key)) {
        await buffer(incoming);
        outgoing.writeHead(refusal.status, { 'content-type': 'application/xml' }).end(errorXml(refusal.code));
        return;
      }
      arriving.add(request.key);
      claimed.add(request.key);
    }
    const upstream = openRequest(url, {
      method: incoming.method ?? 'GET',
      headers: rawHeaders(incoming),
      setHost: false,
      agent: false,
    });
    const answered = Promise.withResolvers<IncomingMessage>();
    upstream.once('response', answered.resolve);
    upstream.on('error', answered.reject);
    // A fault may leave it unheard.
    answered.promise.catch(() => undefined);

    if (fault?.type === 'cut-request') {
      let left = fault.afterBytes;
      for await (const chunk of incoming as AsyncIterable<Buffer>) {
        upstream.write(chunk.subarray(0, left));
        left -= chunk.byteLength;
        if (left <= 0) break;
      }
      upstream.destroy();
      socket.resetAndDestroy();
      return;
    }
    if (fault?.type === 'corrupt' || checkPayload) {
      const body = await buffer(incoming);
      if (fault?.type === 'corrupt') body.writeUInt8(body.readUInt8(fault.atByte) ^ 1, fault.atByte);
      const mistake = checkPayload ? payloadMistake(incoming, body) : undefined;
      if (mistake !== undefined) {
        upstream.destroy();
        outgoing.writeHead(400, { 'content-type': 'application/xml' }).end(errorXml(mistake));
        return;
      }
      upstream.end(body);
    } else if (fault?.type === 'slow') {
      for await (const chunk of incoming as AsyncIterable<Buffer>) {
        await sleep(fault.everyMs);
        upstream.write(chunk);
      }
      upstream.end();
    } else {
      await pipeline(incoming, upstream);
    }

    const answer = await answered.promise;
    if (fault?.type === 'age-answer') {
      const text = (await buffer(answer)).toString();
      outgoing.writeHead(answer.statusCode ?? 500, { 'content-type': 'application/xml' });
      outgoing.end(text.replaceAll(/<LastModified>[^<]+/g, '<LastModified>2020-01-01T00:00:00.000Z'));
      return;
    }
    if (request.operation === 'CreateMultipartUpload' || fault !== undefined) {
      const body = await buffer(answer);
      noteUpload(request, url, answer, body);
      if (fault?.type === 'lose-answer') socket.resetAndDestroy();
      if (fault?.type === 'lose-answer' || fault?.type === 'hang') return;
      if (fault?.type === 'corrupt-answer') body.writeUInt8(body.readUInt8(fault.atByte) ^ 1, fault.atByte);
      if (fault?.type === 'slow') await sleep(fault.everyMs);
      if (fault?.type === 'hold-answer') await rule?.released.promise;
      if (fault?.type === 'replace-answer') {
        outgoing.writeHead(answer.statusCode ?? 500, { 'content-type': 'application/xml' }).end(fault.body);
        request.status = answer.statusCode ?? 500;
        return;
      }
      if (fault?.type === 'cut-answer' || fault?.type === 'stall-answer') {
        outgoing.writeHead(answer.statusCode ?? 500, answer.rawHeaders);
        outgoing.write(body.subarray(0, fault.afterBytes), () => {
          if (fault.type === 'cut-answer') socket.resetAndDestroy();
        });
        return;
      }
      outgoing.writeHead(answer.statusCode ?? 500, answer.rawHeaders).end(body);
      request.status = answer.statusCode ?? 500;
      return;
    }
    noteUpload(request, url, answer);
    outgoing.writeHead(answer.statusCode ?? 500, answer.rawHeaders);
    await pipeline(answer, outgoing);
    request.status = answer.statusCode ?? 500;
  }

  function listFor({ operation, query }: SeenRequest): string | undefined {
    const prefix = query['prefix'] ?? '';
    if (operation === 'ListMultipartUploads') {
      const open = [...uploads].filter(([, key]) => key.startsWith(prefix));
      const rows = open.map(([id, key]) => `<Upload><Key>${key}</Key><UploadId>${id}</UploadId></Upload>`);
      return `<ListMultipartUploadsResult>${rows.join('')}</ListMultipartUploadsResult>`;
    }
    if (lists !== 'all' || operation !== 'ListObjects') return undefined;
    const after = query['continuation-token'] ?? query['start-after'] ?? '';
    const delimiter = query['delimiter'] ?? '';
    const rows = new Map<string, string>();
    for (const key of [...keys.keys()].filter((one) => one.startsWith(prefix) && one > after).sort()) {
      const cut = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
      const folder = key.slice(0, cut + 1);
      // What begins like a folder that was listed is in it.
      if (cut === -1) rows.set(key, `<Contents><Key>${key}</Key><Size>${keys.get(key)}</Size></Contents>`);
      else if (!after.startsWith(folder))
        rows.set(folder, `<CommonPrefixes><Prefix>${folder}</Prefix></CommonPrefixes>`);
    }
    const page = [...rows].slice(0, LIST_PAGE);
    const more = rows.size > page.length;
    const next = more ? `<NextContinuationToken>${page.at(-1)?.[0]}</NextContinuationToken>` : '';
    const listed = page.map(([, row]) => row).join('');
    return `<ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${listed}</ListBucketResult>`;
  }

  function noteUpload(request: SeenRequest, url: URL, answer: IncomingMessage, body?: Buffer): void {
    if ((answer.statusCode ?? 500) >= 300) return;
    if (request.operation === 'PutObject') keys.set(request.key, Number(request.headers['content-length'] ?? 0));
    if (request.operation === 'CompleteMultipartUpload') keys.set(request.key, 0);
    if (request.operation === 'DeleteObject') keys.delete(request.key);
    if (request.operation === 'CreateMultipartUpload') {
      const id = /<UploadId>([^<]+)<\/UploadId>/.exec(body?.toString('utf8') ?? '')?.[1];
      if (id !== undefined) uploads.set(id, request.key);
    }
    if (request.operation === 'CompleteMultipartUpload' || request.operation === 'AbortMultipartUpload') {
      uploads.delete(url.searchParams.get('uploadId') ?? '');
    }
  }

  const server = createServer((incoming, outgoing) => {
    incoming.on('error', () => undefined);
    outgoing.on('error', () => undefined);
    // Whichever side has gone: the other learns of it as it would without a proxy.
    const { socket } = incoming;
    serve(incoming, outgoing).catch(() => socket.destroy());
  });
  const listening = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', listening.resolve);
  await listening.promise;

  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    count: (operation) => seen.filter((request) => request.operation === operation).length,
    arm: (pick, fault, times = Number.POSITIVE_INFINITY) => {
      const fits = typeof pick === 'function' ? pick : ({ operation }: SeenRequest): boolean => operation === pick;
      const rule: Rule = { fits, fault, released: Promise.withResolvers<void>(), left: times, met: 0 };
      rules.push(rule);
      return {
        get met() {
          return rule.met;
        },
        disarm: () => {
          rule.left = 0;
          if (rules.includes(rule)) rules.splice(rules.indexOf(rule), 1);
        },
        release: rule.released.resolve,
      };
    },
    openUploads: () => [...uploads.values()],
    [Symbol.asyncDispose]: async () => {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
    },
  };
}

function seenRequest(incoming: IncomingMessage, { pathname, searchParams }: URL): SeenRequest & { status?: number } {
  const [, , ...rest] = pathname.split('/');
  const key = decodeURIComponent(rest.join('/'));
  const partNumber = searchParams.get('partNumber');
  const headers = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]);
  return {
    operation: operationOf(incoming.method ?? '', key, searchParams),
    key,
    ...(partNumber === null ? {} : { partNumber: Number(partNumber) }),
    query: Object.fromEntries(searchParams),
    headers: Object.fromEntries(headers) as Record<string, string>,
  };
}

function operationOf(method: string, key: string, query: URLSearchParams): S3Operation {
  const inUpload = query.has('uploadId');
  if (key === '') {
    if (method === 'HEAD') return 'HeadBucket';
    if (method === 'GET' && query.has('uploads')) return 'ListMultipartUploads';
    return method === 'GET' && query.has('list-type') ? 'ListObjects' : 'Other';
  }
  if (method === 'PUT') return inUpload ? 'UploadPart' : 'PutObject';
  if (method === 'GET') return 'GetObject';
  if (method === 'HEAD') return 'HeadObject';
  if (method === 'DELETE') return inUpload ? 'AbortMultipartUpload' : 'DeleteObject';
  if (method === 'POST' && query.has('uploads')) return 'CreateMultipartUpload';
  return method === 'POST' && inUpload ? 'CompleteMultipartUpload' : 'Other';
}

function rawHeaders({ rawHeaders: raw }: IncomingMessage): Record<string, string> {
  const headers: Record<string, string> = {};
  for (let index = 0; index + 1 < raw.length; index += 2) headers[raw[index] ?? ''] = raw[index + 1] ?? '';
  return headers;
}

/** What a store says to a body that is not what was signed. */
function payloadMistake({ headers }: IncomingMessage, body: Buffer): string | undefined {
  const sha256 = headers['x-amz-content-sha256'];
  const signed = typeof sha256 === 'string' && /^[0-9a-f]{64}$/.test(sha256);
  if (signed && sha256 !== createHash('sha256').update(body).digest('hex')) return 'XAmzContentSHA256Mismatch';
  const md5 = headers['content-md5'];
  return md5 !== undefined && md5 !== createHash('md5').update(body).digest('base64') ? 'BadDigest' : undefined;
}

function errorXml(code: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>as armed</Message></Error>`;
}
