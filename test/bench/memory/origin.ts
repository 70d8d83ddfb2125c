import type { Fault } from '../../../src/demo/weixin/fault.ts';
import { type NewMedia, startWeixinSimulator } from '../../../src/demo/weixin/weixin-simulator.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { APP_ID, APP_SECRET } from '../../support/jobs.ts';
import { jobOf } from '../../support/stack.ts';
import { answerParent } from '../helper-process.ts';

/** A WeChat simulator in a process of its own. */
export type OriginAsk =
  | { readonly type: 'address' }
  | { readonly type: 'add'; readonly count: number; readonly media: Omit<NewMedia, 'appId'> }
  /** Arms these faults, and ends those from before. */
  | { readonly type: 'faults'; readonly faults: readonly Fault[] };

export interface OriginAnswer {
  readonly url: string;
  /** One for each added media. */
  readonly jobs: readonly MediaJob[];
}

const simulator = await startWeixinSimulator();
simulator.addApp({ appId: APP_ID, secret: APP_SECRET });

answerParent<OriginAsk, OriginAnswer>((question) => {
  const { url } = simulator;
  switch (question.type) {
    case 'address':
      return { url, jobs: [] };
    case 'add': {
      const added = Array.from({ length: question.count }, () =>
        simulator.addMedia({ appId: APP_ID, ...question.media }),
      );
      return { url, jobs: added.map(jobOf) };
    }
    case 'faults':
      simulator.disarm();
      for (const fault of question.faults) simulator.arm(fault);
      return { url, jobs: [] };
    default:
      return question satisfies never;
  }
});
