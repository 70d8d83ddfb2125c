import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import { Agent } from 'undici';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { type ByteSource, chunksOf, openRequest, type Response } from '../../src/weixin/byte-source.ts';
import { eventually } from '../support/eventually.ts';

const never = new AbortController().signal;

let agent: Agent;

beforeEach(() => {
  agent = new Agent({ connections: 1 });
});

afterEach(() => agent.destroy());

async function serve(listener: RequestListener): Promise<{ server: Server; origin: string; sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server = createServer(listener);
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
  });
  const listening = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', listening.resolve);
  await listening.promise;
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return { server, origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

function get(origin: string, signal: AbortSignal = never): Promise<Response> {
  return openRequest(agent, { origin, path: '/', method: 'GET' }, signal);
}

async function bytesOf(body: ByteSource): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunksOf(body)));
}

test('gives status, headers and all bytes, and the socket serves the next request', async () => {
  const { origin, sockets } = await serve((_request, response) => response.setHeader('a', 'b').end('some bytes'));
  for (let request = 0; request < 3; request += 1) {
    const { statusCode, headers, body } = await get(origin);
    expect([statusCode, headers['a'], (await bytesOf(body)).toString()]).toEqual([200, 'b', 'some bytes']);
    expect(await body.next()).toBeUndefined();
    body.discard();
  }
  expect(sockets.size).toBe(1);
});

test('an interim answer is not the answer', async () => {
  const { origin } = await serve((_request, response) => {
    response.writeEarlyHints({ link: '</style.css>; rel=preload' }, () => response.writeHead(404).end('gone'));
  });
  const { statusCode, body } = await get(origin);
  expect([statusCode, (await bytesOf(body)).toString()]).toEqual([404, 'gone']);
});

test('holds little of what nobody asks for, and loses nothing of it', async () => {
  const piece = Buffer.alloc(64 * 1024, 'x');
  const pieces = 1_000;
  let sent = 0;
  const { origin } = await serve((_request, response) => {
    Readable.from(
      (async function* () {
        for (; sent < pieces; sent += 1) yield piece;
      })(),
      { objectMode: false },
    ).pipe(response);
  });
  const { body } = await get(origin);
  let before = -1;
  await eventually(() => {
    const hasStopped = sent === before && sent > 0;
    before = sent;
    return hasStopped ? true : undefined;
  });
  // What lies in the buffers of both ends, and what the reader holds.
  expect(sent).toBeLessThan(pieces / 2);
  expect((await bytesOf(body)).byteLength).toBe(pieces * piece.byteLength);
});

test('crumbs are joined', async () => {
  const { origin } = await serve((_request, response) => {
    for (let byte = 0; byte < 10_000; byte += 1) response.write('x');
    response.end();
  });
  const { body } = await get(origin);
  const chunks = await Array.fromAsync(chunksOf(body));
  expect(Buffer.concat(chunks).byteLength).toBe(10_000);
  expect(chunks.length).toBeLessThan(5_000);
});

test.each(['before the head', 'within the body', 'while it is read'])(
  'an abort %s is thrown, and drops the socket',
  async (when) => {
    const { origin, sockets } = await serve((_request, response) => {
      if (when !== 'before the head') response.writeHead(200, { 'content-length': 10 }).write('abc');
    });
    const stop = new AbortController();
    const reason = new Error('stop');
    const opening = get(origin, stop.signal);
    if (when === 'before the head') {
      await eventually(() => (sockets.size > 0 ? true : undefined));
      stop.abort(reason);
      await expect(opening).rejects.toBe(reason);
    } else {
      const { body } = await opening;
      expect((await body.next())?.toString()).toBe('abc');
      const reading = when === 'while it is read' ? body.next() : undefined;
      stop.abort(reason);
      await expect(reading ?? body.next()).rejects.toBe(reason);
    }
    await eventually(() => (sockets.size === 0 ? true : undefined));
  },
);

test('a signal that has aborted sends nothing', async () => {
  let asked = 0;
  const { origin } = await serve((_request, response) => {
    asked += 1;
    response.end();
  });
  const reason = new Error('stop');
  await expect(get(origin, AbortSignal.abort(reason))).rejects.toBe(reason);
  expect(asked).toBe(0);
});

test('a body that breaks off is thrown, whatever of it was held', async () => {
  const { origin } = await serve((_request, response) => {
    response.writeHead(200, { 'content-length': 10 });
    response.write('abc', () => response.destroy());
  });
  const { body } = await get(origin);
  await expect(bytesOf(body)).rejects.toMatchObject({ code: expect.stringMatching(/^(UND_ERR_SOCKET|ECONNRESET)$/) });
});

test('a body that is discarded drops its socket, and breaks off who reads it', async () => {
  const { origin, sockets } = await serve((_request, response) => {
    response.writeHead(200, { 'content-length': 10 }).write('abc');
  });
  const { body } = await get(origin);
  expect((await body.next())?.toString()).toBe('abc');
  const reading = body.next();
  body.discard();
  await expect(reading).rejects.toThrow('not read to its end');
  await eventually(() => (sockets.size === 0 ? true : undefined));
});

test('nobody there is thrown as undici throws it', async () => {
  const { server, origin } = await serve(() => undefined);
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  await expect(get(origin)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
});
