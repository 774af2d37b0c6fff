// A service with a job inside: requests are its records, its results are served, and its control door is mounted under /millrace.
//
// In a clone of Millrace, after npm run build:  node --import ./scripts/typescript.mjs docs/examples/embedded-http.ts
// Beside an installed millrace: copy this file into your project; node embedded-http.ts (from Node 22.18 on; before it, with your TypeScript runner).
//
//   POST /hits {"page": "/"}    GET /pages    GET /millrace/jobs

import { createServer, type Server } from 'node:http';
import { fileURLToPath } from 'node:url';
import { count, early, ingress, job, type RunningJob, seconds, tumbling } from 'millrace';

interface Hit {
  page: string;
}

export interface Service {
  readonly server: Server;
  readonly running: RunningJob;
  close(): Promise<void>;
}

/** `checkpoints`: where the counts survive the process. */
export async function serve(options: { port?: number; checkpoints: string; windowMs?: number }): Promise<Service> {
  const hits = ingress<Hit>();
  // What the service answers from; the state that counts is the job's.
  const pages = new Map<string, number>();

  const counting = job('hits', (env) => {
    env
      .source('hits', hits, { timestamp: () => Date.now(), idleness: seconds(1) })
      .keyBy((hit) => hit.page)
      .window(tumbling(options.windowMs ?? seconds(60)))
      .trigger(early({ count: 1 }))
      .aggregate('per-page', count())
      .forEach('latest', ({ key, value }) => void pages.set(key, value));
  });
  const running = await counting.start({ checkpoints: { directory: options.checkpoints, every: seconds(10) } });

  const server = createServer(async (request, response) => {
    const { url = '/' } = request;
    if (url.startsWith('/millrace/')) {
      // Who may come here is decided by the service: the door itself asks for nothing.
      request.url = url.slice('/millrace'.length);
      running.handler(request, response);
    } else if (request.method === 'POST' && url === '/hits') {
      try {
        let body = '';
        for await (const piece of request) body += piece;
        const { page } = JSON.parse(body) as Hit;
        await hits.send({ page }); // waits while the job is behind
        response.writeHead(204).end();
      } catch (error) {
        response.writeHead(400).end(String(error));
      }
    } else response.setHeader('content-type', 'application/json').end(JSON.stringify(Object.fromEntries(pages)));
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(options.port ?? 0, '127.0.0.1', resolve));
  return {
    server,
    running,
    async close() {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
      await running.stop(); // a last checkpoint: the next start goes on from it
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const service = await serve({ port: 8080, checkpoints: '.millrace' });
  console.log('http://127.0.0.1:8080/pages');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void service.close());
}
