import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** The connections of a server, and what is under way on them. */
export interface Connections {
  /**
   * Cuts those on which no request is being worked on: nothing has come, or not the whole of it, or its answer is not
   * taken. Node looks for none of them any more once the server closes.
   */
  cutIdle(): void;
}

/** To be called before the server listens. */
export function watchConnections(server: Server): Connections {
  const sockets = new Set<Socket>();
  const unanswered = new Map<ServerResponse, IncomingMessage>();

  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('request', (request, response) => {
    unanswered.set(response, request);
    response.once('close', () => unanswered.delete(response));
  });

  return {
    cutIdle: () => {
      const atWork = [...unanswered].filter(([response, { complete }]) => complete && !response.headersSent);
      const kept = new Set(atWork.map(([, { socket }]) => socket));
      for (const socket of sockets) if (!kept.has(socket)) socket.destroy();
    },
  };
}
