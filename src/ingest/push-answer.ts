/** What WeChat is answered. */
export interface PushAnswer {
  readonly status: number;
  /** Those that are not the same for all. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
}

/** WeChat pushes no further. */
export const SUCCESS: PushAnswer = { status: 200, body: 'success' };

/** The answers without a word of why: that is for the log. WeChat pushes again after any of them. */
export const BAD_REQUEST: PushAnswer = { status: 400, body: 'bad request\n' };
export const FORBIDDEN: PushAnswer = { status: 403, body: 'forbidden\n' };
export const NOT_FOUND: PushAnswer = { status: 404, body: 'not found\n' };
export const TOO_LARGE: PushAnswer = { status: 413, body: 'too large\n' };
export const FAILED: PushAnswer = { status: 500, body: 'failed\n' };
export const BAD_GATEWAY: PushAnswer = { status: 502, body: 'bad gateway\n' };
export const UNAVAILABLE: PushAnswer = { status: 503, body: 'try again\n' };
export const GATEWAY_TIMEOUT: PushAnswer = { status: 504, body: 'gateway timeout\n' };
