import { lookup as dnsLookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import ipaddr from 'ipaddr.js';
import { buildConnector } from 'undici';
import type { WeixinTimeouts } from './http.ts';

/** Thrown when a connection would lead, or leads, to an address that is not public. */
export class AddressRefusedError extends Error {
  override readonly name = 'AddressRefusedError';
  readonly code = 'ERR_ADDRESS_REFUSED';
}

/**
 * True for addresses of the public internet. Loopback, private, link-local, carrier-grade NAT, multicast, reserved and
 * translated ranges are not, nor is an IPv4 address of these dressed as IPv6.
 */
export function isPublicAddress(address: string): boolean {
  return isIP(address) !== 0 && ipaddr.process(address).range() === 'unicast';
}

/**
 * Makes an undici connector that connects to public addresses only.
 *
 * The check is made on the address itself: before the connection on what DNS answered, and after it on what the socket
 * is connected to, so a name that answers differently the second time gains nothing.
 */
export function publicConnector(timeouts: WeixinTimeouts): buildConnector.connector {
  const connect = buildConnector({ timeout: timeouts.connectMs, allowH2: false, lookup: publicLookup });
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

/** Looks a name up and drops the answers that are not public. */
const publicLookup: LookupFunction = (hostname, options, callback) => {
  dnsLookup(hostname, { ...options, all: true }, (error, addresses) => {
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
