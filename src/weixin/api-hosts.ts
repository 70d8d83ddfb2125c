import { MINUTE, type Stopwatch } from '../time.ts';

/** How long a host that could not be reached is left alone. */
const AVOID_MS = 5 * MINUTE;

/** The official hosts of the API, in the order of preference. Requests go to the first that is not avoided. */
export interface ApiHosts {
  /** The first, whatever has become of it. */
  readonly preferred: URL;
  /** The host to use now. When all are avoided, the one that has been longest. */
  current(): URL;
  /** Takes note that a host could not be reached. */
  unreachable(host: URL): void;
}

/** @see https://developers.weixin.qq.com/doc/service/Basic_Information/Interface_field_description.html */
export function createApiHosts(hosts: readonly URL[], elapsed: Stopwatch): ApiHosts {
  const avoidedSince = new Map<string, number>();
  return {
    preferred: hosts[0] as URL,
    current: () => {
      const byAge = hosts.toSorted((a, b) => age(b) - age(a));
      return hosts.find((host) => age(host) >= AVOID_MS) ?? (byAge[0] as URL);
    },
    unreachable: (host) => {
      // Counted from its last failure, so that of several dead ones each is tried in turn.
      avoidedSince.set(host.href, elapsed());
    },
  };

  function age(host: URL): number {
    const since = avoidedSince.get(host.href);
    return since === undefined ? Number.POSITIVE_INFINITY : elapsed() - since;
  }
}
