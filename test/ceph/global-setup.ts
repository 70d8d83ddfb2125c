import type { TestProject } from 'vitest/node';
import { provideCeph, untilCephGateway } from '../support/ceph.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** A Ceph object gateway, with one user. */
    readonly ceph: { readonly endpoint: string; readonly accessKeyId: string; readonly secretAccessKey: string };
  }
}

/** Starts one Ceph object gateway for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const note = (text: string): boolean => process.stderr.write(`${text}\n`);
  await provideCeph(note);
  const { endpoint, accessKeyId, secretAccessKey, stop } = await untilCephGateway(note);
  project.provide('ceph', { endpoint, accessKeyId, secretAccessKey });
  return stop;
}
