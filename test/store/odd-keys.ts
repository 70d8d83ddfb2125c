/** Keys that a request or a listing may distort. */
export const ODD_KEYS = [
  'media/app=wx0123456789abcdef/kind=unknown/dt=2026-06-15/-_A1.hd-voice.amr',
  `media/app=wx0123456789abcdef/kind=unknown/dt=2026-06-15/${'longest-'.repeat(32)}.hd-voice.extension`,
  'odd/a space and a+plus',
  'odd/100%25 percent % and %2F',
  'odd/quote\'"()!*~',
  'odd/amp&ersand=equals;semicolon,comma:colon@at$dollar',
  'odd/question?and#hash',
  'odd/媒体-é-😀',
  'odd/a//double//slash',
];
