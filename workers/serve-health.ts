import type { Config } from '../src/config.ts';
import { type HealthServer, type HealthSources, startHealthServer } from '../src/operate/health-server.ts';
import { StartupError } from './startup-error.ts';

/** Serves health and metrics where METRICS_HOST and METRICS_PORT say. @throws StartupError when that can't be listened on. */
export async function serveHealth(
  { metricsHost, metricsPort }: Pick<Config['worker'], 'metricsHost' | 'metricsPort'>,
  sources: HealthSources,
): Promise<HealthServer> {
  return startHealthServer(metricsHost, metricsPort, sources).catch((error: unknown) => {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    throw new StartupError(
      `METRICS_PORT ${metricsPort} on ${metricsHost} can't be listened on (${code}): set METRICS_PORT to a free port`,
    );
  });
}
