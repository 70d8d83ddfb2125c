import fc from 'fast-check';

/** IPv4 ranges that lead to no host of the public internet. @see https://www.iana.org/assignments/iana-ipv4-special-registry */
const IPV4_RANGES = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const;

/** The first 16 bits of such IPv6 ranges. @see https://www.iana.org/assignments/iana-ipv6-special-registry */
const IPV6_STARTS = [
  [0x0000, 0x1fff],
  [0x2001, 0x2001],
  [0x2002, 0x2002],
  [0x3fff, 0x3fff],
  [0x4000, 0xffff],
  [0xfc00, 0xfdff],
  [0xfe80, 0xfeff],
  [0xff00, 0xffff],
] as const;

type Octets = readonly [number, number, number, number];

const octetsOf = (number: number): Octets => [
  number >>> 24,
  (number >>> 16) & 0xff,
  (number >>> 8) & 0xff,
  number & 0xff,
];

const numberOf = ([a, b, c, d]: Octets): number => ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;

const dotted = (octets: Octets): string => octets.join('.');

const ofIpv4Ranges = fc.constantFrom(...IPV4_RANGES).chain(([base, bits]) => {
  const [a = 0, b = 0, c = 0, d = 0] = base.split('.').map(Number);
  return fc.nat(2 ** (32 - bits) - 1).map((offset) => octetsOf(numberOf([a, b, c, d]) + offset));
});

export const privateIpv4: fc.Arbitrary<Octets> = fc.oneof(
  fc.constantFrom<Octets[]>([127, 0, 0, 1], [169, 254, 169, 254], [100, 100, 100, 200], [0, 0, 0, 0]),
  ofIpv4Ranges,
);

const hex = (number: number): string => number.toString(16);

/** `aabb:ccdd` */
const groups = ([a, b, c, d]: Octets): string => `${hex((a << 8) | b)}:${hex((c << 8) | d)}`;

const fullWidth = (text: string): string =>
  text.replace(/[0-9]/g, (digit) => String.fromCodePoint(0xff10 + Number(digit)));

const percent = (text: string): string =>
  text.replace(/./g, (character) => `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`);

/** Every way to write an IPv4 address in a URL that somebody has once got through a filter with. */
const IPV4_NOTATIONS: readonly ((octets: Octets) => string)[] = [
  dotted,
  (octets) => `${dotted(octets)}.`,
  (octets) => String(numberOf(octets)),
  (octets) => `0x${hex(numberOf(octets))}`,
  (octets) => `0X${hex(numberOf(octets)).toUpperCase()}`,
  (octets) => `0${numberOf(octets).toString(8)}`,
  (octets) => octets.map((octet) => `0x${hex(octet)}`).join('.'),
  (octets) => octets.map((octet) => `0${octet.toString(8)}`).join('.'),
  (octets) => octets.map((octet) => `0x0000${hex(octet)}`).join('.'),
  ([a, b, c, d]) => `${a}.${b}.${(c << 8) | d}`,
  ([a, b, c, d]) => `${a}.${(b << 16) | (c << 8) | d}`,
  ([a, b, c, d]) => `0x${hex(a)}.0${b.toString(8)}.${(c << 8) | d}`,
  (octets) => fullWidth(dotted(octets)),
  (octets) => dotted(octets).replaceAll('.', '。'),
  (octets) => dotted(octets).replaceAll('.', '．'),
  (octets) => fullWidth(String(numberOf(octets))),
  (octets) => percent(dotted(octets)),
  (octets) => `[::ffff:${dotted(octets)}]`,
  (octets) => `[::FFFF:${groups(octets).toUpperCase()}]`,
  (octets) => `[0:0:0:0:0:ffff:${dotted(octets)}]`,
  (octets) => `[0000:0000:0000:0000:0000:ffff:${groups(octets)}]`,
  (octets) => `[::${dotted(octets)}]`,
  (octets) => `[::${groups(octets)}]`,
  (octets) => `[::ffff:0:${dotted(octets)}]`,
  (octets) => `[64:ff9b::${dotted(octets)}]`,
  (octets) => `[64:ff9b:1::${groups(octets)}]`,
  (octets) => `[2002:${groups(octets)}::]`,
  (octets) => `[2002:${groups(octets)}::1]`,
  (octets) => `[2001:0:${groups(octets)}::]`,
  (octets) => `[fe80::${groups(octets)}%25lo]`,
];

export const privateIpv6: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom('::1', '::', '0:0:0:0:0:0:0:1', 'FE80::1', 'fd00:ec2::254', '2001:db8::1', '100::1', 'fec0::1'),
  fc
    .tuple(
      fc.constantFrom(...IPV6_STARTS).chain(([from, to]) => fc.integer({ min: from, max: to })),
      fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 6, maxLength: 6 }),
    )
    // 2001: only the first of its blocks are special.
    .map(([first, rest]) => [first, first === 0x3fff || first === 0x2001 ? 0 : 1, ...rest].map(hex).join(':')),
);

/** Names that the lookup of a test knows; a trailing dot and capitals are the same name. */
const names = fc.constantFrom('localhost', 'LOCALHOST', 'localhost.', 'a.localhost', 'internal.test', 'INTERNAL.test.');

/** Hosts as they stand in a URL, none of them public. */
export const hostileHosts: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom(...IPV4_NOTATIONS), privateIpv4).map(([notation, octets]) => notation(octets)),
  },
  { weight: 2, arbitrary: privateIpv6.map((address) => `[${address}]`) },
  { weight: 1, arbitrary: names },
);

/** Addresses with such a host, written so that a reader may take another host for it. */
export function hostileUrls(port: number): fc.Arbitrary<string> {
  const place = hostileHosts.map((host) => `${host}:${port}`);
  return fc
    .tuple(
      fc.constantFrom<((place: string) => string)[]>(
        (at) => `http://${at}/v.mp4`,
        (at) => `https://${at}/v.mp4`,
        (at) => `HTTP://${at}`,
        (at) => `http:${at}/v.mp4`,
        (at) => `http:/${at}/v.mp4`,
        (at) => `http:\\\\${at}\\v.mp4`,
        (at) => ` \thttp://${at}/v.mp4\n`,
        (at) => `ht\ntp://${at}/v.mp4`,
        (at) => `http://203.205.137.89@${at}/v.mp4`,
        (at) => `http://203.205.137.89:80@${at}/v.mp4`,
        (at) => `http://@${at}/v.mp4`,
        (at) => `http://${at}/vweixinp.tc.qq.com/v.mp4?a=http://203.205.137.89/#@203.205.137.89`,
        (at) => `http://${at}?@203.205.137.89/`,
        (at) => `http://${at}\\@203.205.137.89/`,
      ),
      place,
    )
    .map(([write, at]) => write(at));
}
