import { describe, expect, test } from 'vitest';
import { startLoopbackServer } from '../../src/demo/weixin/loopback-server.ts';
import { MINUTE } from '../../src/time.ts';
import { type ApiHosts, createApiHosts } from '../../src/weixin/api-hosts.ts';
import { testClock } from '../support/clock.ts';
import { openCredentialBench } from '../support/credentials.ts';
import { APP_ID, testAccount } from '../support/jobs.ts';

const FIRST = new URL('https://api.weixin.qq.com');
const SECOND = new URL('https://api2.weixin.qq.com');
const THIRD = new URL('https://sh.api.weixin.qq.com');

function hostsWithClock(urls = [FIRST, SECOND, THIRD]): { hosts: ApiHosts; advance: (ms: number) => void } {
  const clock = testClock();
  return { hosts: createApiHosts(urls, clock.now), advance: clock.advance };
}

/** A host that takes requests and resets their connections. */
async function openLostHost(): Promise<{ url: string; requests(): number } & AsyncDisposable> {
  let requests = 0;
  const { url, close } = await startLoopbackServer((request) => {
    requests += 1;
    request.socket.resetAndDestroy();
  }, 0);
  return { url, requests: () => requests, [Symbol.asyncDispose]: close };
}

const times = (count: number, hosts: ApiHosts): URL[] => Array.from({ length: count }, () => hosts.next());

describe('the host of a request', () => {
  test('is the first, for as long as nothing is said against it', () => {
    const { hosts, advance } = hostsWithClock();
    advance(100 * MINUTE);
    expect(new Set(times(10, hosts))).toEqual(new Set([FIRST]));
    expect(hosts.preferred).toBe(FIRST);
  });

  test('is the next while those before it could not be reached', () => {
    const { hosts } = hostsWithClock();
    hosts.unreachable(FIRST);
    expect(hosts.next()).toBe(SECOND);
    hosts.unreachable(SECOND);
    expect(hosts.next()).toBe(THIRD);
    expect(hosts.preferred).toBe(FIRST);
  });

  test('is that which failed longest ago when all have, each in its turn', () => {
    const { hosts, advance } = hostsWithClock();
    const seen: URL[] = [];
    for (let count = 0; count < 6; count += 1) {
      const host = hosts.next();
      seen.push(host);
      hosts.unreachable(host);
      advance(1_000);
    }
    expect(seen).toEqual([FIRST, SECOND, THIRD, FIRST, SECOND, THIRD]);
  });

  test('is the only one that there is, whatever became of it', () => {
    const { hosts } = hostsWithClock([FIRST]);
    hosts.unreachable(FIRST);
    expect(times(3, hosts)).toEqual([FIRST, FIRST, FIRST]);
    expect(hosts.hasOther(new Set([FIRST]))).toBe(false);
  });
});

describe('a host that was lost', () => {
  test('is looked at by one request after five minutes, and used by all a minute later', () => {
    const { hosts, advance } = hostsWithClock();
    hosts.unreachable(FIRST);
    advance(5 * MINUTE - 1);
    expect(times(2, hosts)).toEqual([SECOND, SECOND]);
    advance(1);
    expect(times(3, hosts)).toEqual([FIRST, SECOND, SECOND]);
    advance(MINUTE - 1);
    expect(hosts.next()).toBe(SECOND);
    advance(1);
    expect(times(3, hosts)).toEqual([FIRST, FIRST, FIRST]);
  });

  test.each([false, true])('and does not answer who looks is left alone again (doubtful: %s)', (isDoubtful) => {
    const { hosts, advance } = hostsWithClock();
    hosts.unreachable(FIRST);
    advance(5 * MINUTE);
    expect(hosts.next()).toBe(FIRST);
    advance(30_000);
    hosts.unreachable(FIRST, isDoubtful);
    advance(5 * MINUTE - 1);
    expect(hosts.next()).toBe(SECOND);
    advance(1);
    expect(times(2, hosts)).toEqual([FIRST, SECOND]);
  });

  test('is not looked at by who only asks whether there is another', () => {
    const { hosts, advance } = hostsWithClock();
    hosts.unreachable(FIRST);
    expect(hosts.hasOther(new Set([FIRST]))).toBe(true);
    expect(hosts.hasOther(new Set([SECOND]))).toBe(false);
    advance(5 * MINUTE);
    expect(hosts.hasOther(new Set([SECOND]))).toBe(true);
    expect(hosts.next()).toBe(FIRST);
  });

  test('is not lost for a socket that may have been stale', () => {
    const { hosts } = hostsWithClock();
    hosts.unreachable(FIRST, true);
    expect(hosts.next()).toBe(FIRST);
  });
});

test('a lost host costs one job of many a try each five minutes, and tokens go round it as media do', async () => {
  await using bench = await openCredentialBench();
  await using lost = await openLostHost();
  bench.use({ [APP_ID]: testAccount().credential }, [lost.url, bench.simulator.url]);
  const tokens = bench.tokens();
  const fetchTwenty = async (): Promise<void> => {
    const fetching = Array.from({ length: 20 }, () => {
      const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg', sizeBytes: 1_000 });
      return bench.fetch({ mediaId }, tokens);
    });
    for (const fetched of await Promise.all(fetching)) expect(fetched).toHaveProperty('bytes');
  };
  // The call for the token has met the reset.
  await fetchTwenty();
  expect(lost.requests()).toBe(1);
  await fetchTwenty();
  expect(lost.requests()).toBe(1);
  for (let round = 2; round <= 3; round += 1) {
    bench.advance(5 * MINUTE);
    await fetchTwenty();
    expect(lost.requests()).toBe(round);
  }
});

test('one reset, as of a socket that has gone stale, is no reason to leave its host', async () => {
  await using bench = await openCredentialBench();
  await using other = await openLostHost();
  bench.use({ [APP_ID]: testAccount().credential }, [bench.simulator.url, other.url]);
  const tokens = bench.tokens();
  const fetchOne = async (): Promise<void> => {
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg', sizeBytes: 1_000 });
    expect(await bench.fetch({ mediaId }, tokens)).toHaveProperty('bytes');
  };
  await fetchOne();
  bench.simulator.arm({ endpoint: 'media', action: { type: 'reset' }, times: 1 });
  await fetchOne();
  expect(bench.nextHost()).toBe(bench.simulator.url);
  expect(other.requests()).toBe(0);
});
