import { inject } from 'vitest';
import { describeArchiveStore } from '../store/archive-store-suite.ts';
import { describeBucketFiles } from '../store/bucket-files-suite.ts';
import { describeFileFaults } from '../store/file-fault-suite.ts';
import { describeStoreFaults } from '../store/store-fault-suite.ts';
import { openGatewayBackend } from '../support/store.ts';

describeArchiveStore('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
describeStoreFaults('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
describeBucketFiles('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
describeFileFaults('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
