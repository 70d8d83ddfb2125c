import { lookup as dnsLookup, type LookupAddress, type LookupAllOptions } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { buildConnector } from 'undici';
import { createConnector, type WeixinTimeouts } from './http.ts';

/** Thrown when a connection would lead, or leads, to an address that is not public. */
export class AddressRefusedError extends Error {
  override readonly name = 'AddressRefusedError';
  readonly code = 'ERR_ADDRESS_REFUSED';
}

/**
 * Where all public IPv6 addresses lie. Beyond it are, among others, IPv4 addresses in the oldest of their disguises
 * (`::127.0.0.1`), which no list of special ranges names.
 *
 * @see https://datatracker.ietf.org/doc/html/rfc4291#section-2.4
 * @see https://www.iana.org/assignments/ipv6-address-space/ipv6-address-space.xhtml
 */
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR('2000::/3');

/**
 * True for addresses of the public internet. Loopback, private, link-local, carrier-grade NAT, multicast, reserved and
 * translated ranges are not, nor is an IPv4 address of these dressed as IPv6.
 */
export function isPublicAddress(address: string): boolean {
  if (isIP(address) === 0) return false;
  const parsed = ipaddr.process(address);
  return parsed.range() === 'unicast' && (parsed instanceof ipaddr.IPv4 || parsed.match(GLOBAL_UNICAST));
}

/** Looks up all addresses of a name, as `lookup` of node:dns does. */
export type Lookup = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

/**
 * Makes an undici connector that connects to public addresses only.
 *
 * The check is made on the address itself: before the connection on what DNS answered, and after it on what the socket
 * is connected to, so a name that answers differently the second time gains nothing.
 */
export function publicConnector(timeouts: WeixinTimeouts, lookup: Lookup = dnsLookup): buildConnector.connector {
  const connect = createConnector(timeouts, publicLookup(lookup));
  return (options, callback) => {
    // Node looks names up; an address in its place goes straight to the socket.
    const literal = options.hostname.replace(/^\[|\]$/g, '');
    if (isIP(literal) !== 0 && !isPublicAddress(literal)) {
      callback(new AddressRefusedError(literal), null);
      return;
    }
    connect(options, (...[error, socket]) => {
      if (error !== null) callback(error, null);
      else if (isPublicAddress(socket.remoteAddress ?? '')) callback(null, socket);
      else {
        socket.destroy();
        callback(new AddressRefusedError(socket.remoteAddress ?? 'unknown'), null);
      }
    });
  };
}

/** Looks a name up, once, and drops the answers that are not public. */
export function publicLookup(lookup: Lookup): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, '', 0);
        return;
      }
      const open = addresses.filter(({ address }) => isPublicAddress(address));
      const [first] = open;
      if (first === undefined) callback(new AddressRefusedError(hostname), '', 0);
      else if (options.all === true) callback(null, open);
      else callback(null, first.address, first.family);
    });
  };
}
