import { inject } from 'vitest';
import { describeArchiveStore } from '../store/archive-store-suite.ts';
import { describeStoreFaults } from '../store/store-fault-suite.ts';
import { openGatewayBackend } from '../support/store.ts';

describeArchiveStore('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
describeStoreFaults('a Ceph object gateway', () => openGatewayBackend(inject('ceph')));
