/** The place in WEIXIN_FORWARD_URL where the app belongs. */
const APP_ID = '{appId}';

/**
 * Returns where pushes of an app are forwarded to: the template with the app in its place, and the query of the push behind
 * what the template has.
 *
 * @param query as it came, without the question mark.
 */
export function forwardUrlOf(template: string, appId: string, query: string): { origin: string; path: string } {
  const { origin, pathname, search } = new URL(template.replaceAll(APP_ID, encodeURIComponent(appId)));
  const separator = search === '' ? '?' : '&';
  return { origin, path: `${pathname}${search}${query === '' ? '' : `${separator}${query}`}` };
}

/** True for an http(s) address that is one with any app in its place, and holds no user or password. */
export function isForwardUrl(template: string): boolean {
  const filled = template.replaceAll(APP_ID, 'wx0123456789abcdef');
  if (/[{}\s]/.test(filled) || !URL.canParse(filled)) return false;
  const { protocol, username, password } = new URL(filled);
  return /^https?:$/.test(protocol) && username === '' && password === '';
}
