import { isIPv6 } from 'node:net';

/** True for an address or a name that leads to this machine and nowhere else: 127.0.0.0/8, ::1 and localhost. */
export function isLoopback(host: string): boolean {
  const name = host.toLowerCase();
  if (name === 'localhost' || /^127(\.\d{1,3}){3}$/.test(name)) return true;
  // There is more than one way to write it.
  return isIPv6(name) && new URL(`http://[${name}]`).hostname === '[::1]';
}
