import { expect, test } from 'vitest';
import { createRedisRoom } from '../../src/redis/redis-room.ts';
import { SECOND } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { openTestRedis } from '../support/redis.ts';

test.each([
  { used: 1_000, limit: 0, room: true },
  { used: 899, limit: 1_000, room: true },
  { used: 900, limit: 1_000, room: false },
  { used: 2_000, limit: 1_000, room: false },
])('$used bytes of $limit: room $room', async ({ used, limit, room }) => {
  const { now } = testClock();
  const info = `# Memory\r\nused_memory:${used}\r\nused_memory_rss:1\r\nmaxmemory:${limit}\r\nmaxmemory_policy:noeviction\r\n`;
  const redis = createRedisRoom({ info: async () => info } as never, now);
  expect(redis.hasRoom()).toBe(false);
  await redis.refresh();
  expect(redis.hasRoom()).toBe(room);
});

test('a Redis is asked once a second at most, and one that does not say has none', async () => {
  const clock = testClock();
  const answers = ['used_memory:1\r\nmaxmemory:0\r\n', 'nothing', 'used_memory:1\r\nmaxmemory:0\r\n', undefined];
  const seen: boolean[] = [];
  const info = async (): Promise<string> => {
    const answer = answers.shift();
    if (answer === undefined) throw new Error('NOPERM');
    return answer;
  };
  const redis = createRedisRoom({ info } as never, clock.now);
  for (let round = 0; round < 8; round += 1) {
    await redis.refresh();
    seen.push(redis.hasRoom());
    clock.advance(SECOND / 2);
  }
  expect(seen).toEqual([true, true, false, false, true, true, false, false]);
});

test('a real one without a limit has room', async () => {
  await using corner = await openTestRedis();
  const { now } = testClock();
  const room = createRedisRoom(corner.redis, now);
  await room.refresh();
  expect(room.hasRoom()).toBe(true);
});
