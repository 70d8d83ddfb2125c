import { expect, test } from 'vitest';
import { testJob } from '../support/jobs.ts';
import { openRawWeixin } from '../support/raw-weixin.ts';
import { readAll } from '../support/weixin.ts';

const never = new AbortController().signal;

test.each([
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc'],
  ['two lengths in a line', 'HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc'],
  [
    'a length beside chunks',
    'HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  ],
  ['a length below nothing', 'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc'],
  ['a length that is no number', 'HTTP/1.1 200 OK\r\nContent-Length: NaN\r\n\r\nabc'],
  ['another protocol', 'ICY 200 OK\r\n\r\nabc'],
  ['a greeting', 'SSH-2.0-OpenSSH_9.6\r\n'],
  ['a status that is none', 'HTTP/1.1 99999 x\r\n\r\nabc'],
  ['a header without end', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`],
])('%s is the answer of something else, and its host is not taken for unreachable', async (_name, answer) => {
  await using weixin = await openRawWeixin((socket) => void socket.end(answer), { maxBytes: 1_000 });
  expect(await weixin.client.fetch(testJob(), never)).toMatchObject({ failure: { code: 'weixin-bad-gateway' } });
  // Not a blip, which would be tried again at once.
  expect(weixin.server.sockets).toHaveLength(1);
});

test('what comes behind a body is no part of it, nor of the next one', async () => {
  const jpeg = Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex');
  const head = `HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: ${jpeg.byteLength}\r\n\r\n`;
  const answer = Buffer.concat([Buffer.from(head), jpeg]);
  const smuggled = Buffer.concat([Buffer.from(head), Buffer.from(jpeg).fill('evil', 4)]);
  await using weixin = await openRawWeixin((socket) => void socket.write(Buffer.concat([answer, smuggled])), {
    maxBytes: 1_000,
    keepAlive: true,
  });
  for (let count = 0; count < 3; count += 1) {
    const fetched = await weixin.client.fetch(testJob(), never);
    if (!fetched.ok) throw new Error(fetched.failure.code);
    expect(await readAll(fetched.value)).toEqual(jpeg);
  }
});
