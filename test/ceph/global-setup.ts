import type { TestProject } from 'vitest/node';
import { provideCeph, startCephGateway } from '../support/ceph.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** A Ceph object gateway, with one user. */
    readonly ceph: { readonly endpoint: string; readonly accessKeyId: string; readonly secretAccessKey: string };
  }
}

/** Starts one Ceph object gateway for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await provideCeph((text) => process.stderr.write(`${text}\n`));
  const { endpoint, accessKeyId, secretAccessKey, stop } = await startCephGateway();
  project.provide('ceph', { endpoint, accessKeyId, secretAccessKey });
  return stop;
}
