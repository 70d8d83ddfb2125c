import { openEmbeddedBackend } from '../support/store.ts';
import { describeStoreFaults } from './store-fault-suite.ts';

describeStoreFaults('an embedded S3 server', openEmbeddedBackend);
