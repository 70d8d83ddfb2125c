import { openEmbeddedBackend } from '../support/store.ts';
import { describeArchiveStore } from './archive-store-suite.ts';

describeArchiveStore('an embedded S3 server', openEmbeddedBackend);
