// Queues the media of the messages that users send to a WeChat account, in Koa: the message push in plaintext mode.
//
//   npm i weixin-media-archiver koa fast-xml-parser
//   APP_ID=wx… PUSH_TOKEN=… node koa.mjs
//
// Then make https://…/weixin the address of the push, through whatever ends TLS before it.
import { createHash, timingSafeEqual } from 'node:crypto';
import { XMLParser } from 'fast-xml-parser';
import Koa from 'koa';
import { createMediaProducer, mediaJobsFromMessage, QueueUnavailableError } from 'weixin-media-archiver';

const { APP_ID, PUSH_TOKEN, REDIS_URL = 'redis://127.0.0.1:6379', HOST = '127.0.0.1', PORT = '8000' } = process.env;
if (!APP_ID || !PUSH_TOKEN) throw new Error('APP_ID and PUSH_TOKEN are needed');

const producer = createMediaProducer({ redisUrl: REDIS_URL, appIds: [APP_ID] });
// All values stay texts: a MsgId has more digits than a number holds. No entities: WeChat sends CDATA.
const parser = new XMLParser({ parseTagValue: false, processEntities: false });

/** True for whoever knows the token of the push. */
function isSigned({ signature, timestamp, nonce }) {
  const expected = createHash('sha1').update([PUSH_TOKEN, timestamp, nonce].sort().join('')).digest('hex');
  const [given, ours] = [Buffer.from(String(signature)), Buffer.from(expected)];
  return given.length === ours.length && timingSafeEqual(given, ours);
}

/** Returns the message; `undefined` when it is none. */
function messageIn(xml) {
  try {
    return parser.parse(xml).xml;
  } catch {
    return undefined;
  }
}

/** Queues the media of a message. Returns the status to answer with: WeChat pushes again what is not a 200. */
async function take(xml) {
  const message = messageIn(xml);
  if (message?.MsgType === undefined) {
    console.error('that was no message: is the push in plaintext mode?');
    return 400;
  }
  try {
    const { rejected } = await producer.enqueueMany(mediaJobsFromMessage(message, { appId: APP_ID }));
    // Pushed again they would be no better.
    for (const { mistakes } of rejected) console.error(`no media job in message ${message.MsgId}:`, mistakes);
    return 200;
  } catch (error) {
    if (!(error instanceof QueueUnavailableError)) throw error;
    console.error(`${error.message} (${error.cause})`);
    return 503;
  }
}

const MAX_BODY_LENGTH = 64 * 1024;

async function bodyOf(context) {
  let text = '';
  for await (const chunk of context.req.setEncoding('utf8')) {
    text += chunk;
    if (text.length > MAX_BODY_LENGTH) context.throw(413);
  }
  return text;
}

const app = new Koa();

app.use(async (context) => {
  if (context.path !== '/weixin') return;
  context.type = 'text/plain';
  if (!isSigned(context.query)) {
    context.status = 403;
  } else if (context.method === 'GET') {
    context.body = String(context.query.echostr);
  } else if (context.method === 'POST') {
    context.status = await take(await bodyOf(context));
    context.body = context.status === 200 ? 'success' : '';
  }
});

const server = app.listen(Number(PORT), HOST);
process.once('SIGTERM', () => server.close(() => producer.close()));
