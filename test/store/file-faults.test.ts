import { openEmbeddedBackend } from '../support/store.ts';
import { describeFileFaults } from './file-fault-suite.ts';

describeFileFaults('an embedded S3 server', openEmbeddedBackend);
