import { openEmbeddedBackend } from '../support/store.ts';
import { describeBucketFiles } from './bucket-files-suite.ts';

describeBucketFiles('an embedded S3 server', openEmbeddedBackend);
