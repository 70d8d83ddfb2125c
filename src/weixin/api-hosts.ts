import { MINUTE, type Stopwatch } from '../time.ts';

/** How long a host that could not be reached is left alone. */
const AVOID_MS = 5 * MINUTE;
/**
 * Then one request looks whether it is back, and the others follow when nothing bad has been heard of it for so long: a
 * host that takes requests and never answers costs one of them its time, and not all that are under way. Longer than a
 * request waits for its answer by default.
 */
const LOOK_MS = MINUTE;

/** The official hosts of the API, in the order of preference. Requests go to the first that is not avoided. */
export interface ApiHosts {
  /** The first, whatever has become of it. */
  readonly preferred: URL;
  /** The host for a request that is made now. When all are avoided, the one that has been longest. */
  next(): URL;
  /** True when the next request would go to a host that is none of these. */
  hasOther(asked: ReadonlySet<URL>): boolean;
  /**
   * Takes note that a host could not be reached.
   *
   * @param isDoubtful true when it may have been a socket that had gone stale: that counts against a host only while one
   * request looks whether it is back.
   */
  unreachable(host: URL, isDoubtful?: boolean): void;
}

interface Avoided {
  /** Of its last failure, so that of several dead hosts each is tried in turn. */
  readonly since: number;
  /** When a request was sent to look. */
  lookedAt?: number;
}

/** @see https://developers.weixin.qq.com/doc/service/Basic_Information/Interface_field_description.html */
export function createApiHosts(hosts: readonly URL[], elapsed: Stopwatch): ApiHosts {
  const avoided = new Map<string, Avoided>();
  const preferred = hosts[0] as URL;

  function isUsable({ href }: URL): boolean {
    const known = avoided.get(href);
    if (known === undefined) return true;
    return known.lookedAt === undefined ? elapsed() - known.since >= AVOID_MS : elapsed() - known.lookedAt >= LOOK_MS;
  }

  function since({ href }: URL): number {
    return avoided.get(href)?.since ?? Number.NEGATIVE_INFINITY;
  }

  function choose(): URL {
    return hosts.find(isUsable) ?? hosts.toSorted((a, b) => since(a) - since(b))[0] ?? preferred;
  }

  return {
    preferred,
    next: () => {
      const host = choose();
      const known = avoided.get(host.href);
      if (known !== undefined && isUsable(host)) {
        if (known.lookedAt === undefined) known.lookedAt = elapsed();
        else avoided.delete(host.href);
      }
      return host;
    },
    hasOther: (asked) => !asked.has(choose()),
    unreachable: (host, isDoubtful = false) => {
      if (!isDoubtful || avoided.has(host.href)) avoided.set(host.href, { since: elapsed() });
    },
  };
}
