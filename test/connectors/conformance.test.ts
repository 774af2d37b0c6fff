import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Sink, Source, TransactionalSink } from 'millrace';
import { collect, files, http, tcp } from 'millrace/connectors';
import { type SinkTrial, type SourceTrial, sinkConformance, sourceConformance } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { arraySource } from '../../src/connectors/arrays.ts';
import { httpSource } from '../../src/connectors/http-source.ts';
import { Store } from '../protocols/lab.ts';

const values = Array.from({ length: 24 }, (_, n) => ({ n, text: `ü${n}` }));
type Value = (typeof values)[0];
const folder = (): Promise<string> => mkdtemp(join(tmpdir(), 'millrace-conformance-'));
const lines = (from: readonly Value[]): string => from.map((value) => `${JSON.stringify(value)}\n`).join('');

async function fileTrial(watch: boolean): Promise<SourceTrial<Value>> {
  const path = await folder();
  await mkdir(join(path, 'deep'));
  await writeFile(join(path, 'a.ndjson'), `${lines(values.slice(0, 10))}no record\n`);
  await writeFile(join(path, 'b.ndjson.gz'), gzipSync(lines(values.slice(10, 20))));
  await writeFile(join(path, 'deep', 'c.ndjson'), lines(values.slice(20)).trimEnd());
  const later = { n: 100, text: 'later' };
  return {
    source: () => files.source<Value>({ path, watch }),
    expected: values,
    letters: 1,
    ...(watch ? { add: () => writeFile(join(path, 'd.ndjson'), lines([later])).then(() => [later]) } : {}),
    close: () => rm(path, { recursive: true, force: true }),
  };
}

describe('files as a source', () => {
  for (const { name, run } of sourceConformance(() => fileTrial(false))) it(name, run);
});

describe('files that are watched', () => {
  for (const { name, run } of sourceConformance(() => fileTrial(true)).filter((each) => /added|wait|crash/.test(each.name))) it(name, run);
});

describe('an array as a source', () => {
  for (const { name, run } of sourceConformance(() => ({ source: () => arraySource(values) as Source<Value>, expected: values }))) it(name, run);
});

describe('a TCP connection as a source', () => {
  const open = async (): Promise<SourceTrial<Value>> => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => {}));
      socket.write(lines(values));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const later = { n: 100, text: 'later' };
    return {
      source: () => tcp.source<Value>({ host: '127.0.0.1', port }),
      expected: values,
      add: () => {
        for (const socket of sockets) socket.write(lines([later]));
        return [later];
      },
      close: () => {
        for (const socket of sockets) socket.destroy();
        server.close();
      },
    };
  };
  for (const { name, run } of sourceConformance(open, { replays: false })) it(name, run);
});

describe('a webhook as a source', () => {
  const open = (): SourceTrial<Value> => {
    const post = (url: string, value: Value): void => void fetch(url, { method: 'POST', body: JSON.stringify(value) }).catch(() => {});
    let url = '';
    const later = { n: 100, text: 'later' };
    return {
      source: () =>
        httpSource<Value>({
          port: 0,
          path: '/in',
          onListening: (address) => {
            url = address.url;
            for (const value of values) post(url, value);
          },
        }) as unknown as Source<Value>,
      expected: values,
      add: () => {
        post(url, later);
        return [later];
      },
    };
  };
  for (const { name, run } of sourceConformance(open, { replays: false })) it(name, run);
});

async function published(directory: string): Promise<Value[]> {
  const found: Value[] = [];
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }).catch(() => [])) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || path.slice(directory.length).includes('/.')) continue;
    found.push(
      ...(await readFile(path, 'utf8'))
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Value),
    );
  }
  return found;
}

describe('files as a sink', () => {
  const open = async (): Promise<SinkTrial<Value>> => {
    const directory = await folder();
    return {
      sink: () => files.sink<Value>({ directory, bucket: ({ n }) => `bucket=${n % 3}` }),
      values,
      written: () => published(directory),
      close: () => rm(directory, { recursive: true, force: true }),
    };
  };
  for (const { name, run } of sinkConformance('transactional', open)) it(name, run);
});

describe('a store with transactions as a sink', () => {
  const open = (): SinkTrial<Value> => {
    const store = new Store<Value>();
    return { sink: () => store as TransactionalSink<Value>, values, written: () => store.records };
  };
  for (const { name, run } of sinkConformance('transactional', open)) it(name, run);
});

describe('an array as a sink', () => {
  const open = (): SinkTrial<Value> => {
    const into: Value[] = [];
    return { sink: () => collect(into), values, written: () => into };
  };
  for (const { name, run } of sinkConformance('plain', open)) it(name, run);
});

describe('HTTP as a sink', () => {
  const open = async (): Promise<SinkTrial<Value>> => {
    const { createServer: serve } = await import('node:http');
    const into: Value[] = [];
    const server = serve(async (request, response) => {
      let body = '';
      for await (const part of request) body += String(part);
      into.push(
        ...body
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line) as Value),
      );
      response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    return {
      sink: () => http.sink<Value>({ url: `http://127.0.0.1:${port}/`, batch: 5 }),
      values,
      written: () => into,
      close: () => {
        server.closeAllConnections();
        server.close();
      },
    };
  };
  for (const { name, run } of sinkConformance('plain', open)) it(name, run);
});

describe('the suites', () => {
  const failing = async (cases: readonly { name: string; run: () => Promise<void> }[]): Promise<string[]> => {
    const names: string[] = [];
    for (const { name, run } of cases) await run().catch(() => void names.push(name.split(' ').slice(0, 4).join(' ')));
    return names;
  };
  const numbers = Array.from({ length: 12 }, (_, n) => n);
  const good: Source<number, string, number> = {
    bounded: true,
    splits: async () => ['all'],
    splitId: (split) => split,
    async *read(_, from = 0, { signal }) {
      for (let n = from; n < 12 && !signal.aborted; n += 4) yield { values: numbers.slice(n, n + 4), position: n + 4 };
    },
  };
  const tried = (source: object, which = /./): Promise<string[]> =>
    failing(
      sourceConformance<number>(() => ({ source: () => source as Source<number>, expected: numbers }), { patience: 500 }).filter(({ name }) =>
        which.test(name),
      ),
    );

  it('find nothing wrong with a source that is right', async () => {
    expect(await tried(good)).toEqual([]);
  });

  it('find a source whose position stands before its batch, or is no plain data', async () => {
    const before = {
      ...good,
      async *read(_: string, from = 0) {
        for (let n = from; n < 12; n += 4) yield { values: numbers.slice(n, n + 4), position: n };
      },
    };
    expect(await tried(before)).toEqual(['gives positions that are', 'in a job that']);
    const odd = {
      ...good,
      async *read(_: string, from?: () => number) {
        for (let n = from?.() ?? 0; n < 12; n += 4) yield { values: numbers.slice(n, n + 4), position: () => n + 4 };
      },
    };
    expect(await tried(odd, /positions/)).toContain('gives positions that are');
  });

  it('find a source that loses a record, that shares its arrays, and that never ends its waits', async () => {
    const losing = {
      ...good,
      async *read() {
        yield { values: numbers.slice(1), position: 12 };
      },
    };
    expect(await tried(losing, /every record once,/)).toContain('gives every record once,');
    const shared: number[] = [];
    const sharing = {
      ...good,
      async *read(_: string, from = 0) {
        for (let n = from; n < 12; n += 4) {
          shared.splice(0, 4, ...numbers.slice(n, n + 4));
          yield { values: shared, position: n + 4 };
        }
      },
    };
    expect(await tried(sharing, /change/)).toContain('does not change a');
    const deaf = {
      ...good,
      bounded: false,
      async *read(_: string, from = 0) {
        if (from === 0) yield { values: numbers, position: 12 };
        await new Promise(() => {});
      },
    };
    const found = await failing(
      sourceConformance<number>(() => ({ source: () => deaf as unknown as Source<number>, expected: numbers, add: () => [] }), { patience: 200 }).filter(
        ({ name }) => name.includes('every wait'),
      ),
    );
    expect(found).toEqual(['ends every wait when']);
  });

  it('find a sink that does not fence, that commits in pieces, and that forgets its marker', async () => {
    const open = (wrong: (store: Store<number>) => TransactionalSink<number>) => () => {
      const store = new Store<number>();
      return { sink: () => wrong(store), values: numbers, written: () => store.records };
    };
    const withWriter = (change: (writer: Awaited<ReturnType<Store<number>['open']>>, store: Store<number>) => object) => (store: Store<number>) =>
      ({
        transactional: true,
        open: async (context) => ({ ...(await store.open(context)), ...change(await store.open(context), store) }),
      }) as TransactionalSink<number>;
    const unfenced = (store: Store<number>): TransactionalSink<number> =>
      ({ transactional: true, open: (context) => store.open({ ...context, attempt: 1 }) }) as TransactionalSink<number>;
    expect(await failing(sinkConformance('transactional', open(unfenced)).filter(({ name }) => name.includes('overtaken')))).toContain('lets an attempt that');
    const forgetful = withWriter(() => ({ lastCommitted: async () => 0 }));
    expect(await failing(sinkConformance('transactional', open(forgetful)).filter(({ name }) => name.includes('knows')))).toContain('knows of no commit');
    const piecemeal = withWriter((writer, store) => ({
      commit: async (id: number, records: Iterable<number>) => {
        let part = 0;
        for (const record of records) {
          part += 0.001;
          await writer.commit(id + part - 1, [record]);
        }
        await store.before({} as never, id);
      },
      lastCommitted: async () => Math.floor(await writer.lastCommitted()),
    }));
    expect(await failing(sinkConformance('transactional', open(piecemeal)).filter(({ name }) => name.includes('cannot be read')))).toContain(
      'commits nothing of records',
    );
    const losing: Sink<number> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };
    expect(
      await failing(
        sinkConformance('plain', () => ({ sink: () => losing, values: numbers, written: () => [] })).filter(({ name }) => name.includes('flush has')),
      ),
    ).toContain('has written what was');
  });
});
