import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { avro, type Format, job, protobuf } from 'millrace';
import { describe, expect, it } from 'vitest';
import { type AvroOptions, avroFormat } from '../../src/connectors/avro.ts';
import { debezium } from '../../src/connectors/debezium.ts';
import { filesSource } from '../../src/connectors/files-source.ts';
import { frame } from '../../src/connectors/framing.ts';
import { collect, files } from '../../src/connectors/index.ts';
import { peerNow } from '../../src/connectors/peers.ts';
import { protobufFormat } from '../../src/connectors/protobuf.ts';
import { subjectOf } from '../../src/connectors/registry-format.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { decode, encode } from '../../state-backends/index.ts';
import { type Letter, readContext, temporaryFolder, valuesOf } from './reading.ts';
import { type RegistryServer, registryServer } from './registry-server.ts';

/** No time passes between two tries. */
const io: Io = { ...systemIo(), clock: { ...systemIo().clock, setTimeout: (fn) => setImmediate(fn) } };

const ORDER_1 = {
  type: 'record',
  name: 'Order',
  namespace: 'shop',
  fields: [
    { name: 'id', type: 'long' },
    { name: 'note', type: ['null', 'string'], default: null },
  ],
};
const ORDER_2 = { ...ORDER_1, fields: [...ORDER_1.fields, { name: 'total', type: 'double', default: 0 }] };

async function read<T>(format: Format<T>, bytes: Uint8Array): Promise<T> {
  await format.prepare?.(bytes);
  return format.decode(bytes);
}
async function opened<T>(format: Format<T>): Promise<Format<T>> {
  await format.open?.();
  return format;
}
const on = <T>(registry: RegistryServer, options: Omit<AvroOptions, 'registry'> = {}): Format<T> => avroFormat<T>({ registry: registry.url, ...options }, io);

describe('avro with a registry', () => {
  it('writes the id of the schema in front of each record, and reads it back as plain data', async () => {
    const registry = await registryServer();
    const id = registry.add('orders-value', ORDER_1);
    const format = await opened(on(registry, { topic: 'orders' }));
    const bytes = format.encode({ id: 7, note: 'two' });
    expect([...bytes.subarray(0, 5)]).toEqual([0, 0, 0, 0, id]);
    const value = await read(on<object>(registry), bytes);
    expect(value).toEqual({ id: 7, note: 'two' });
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(decode(encode(value))).toEqual(value);
  });

  it('asks for each schema once, and for none while it is decoding', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.add('orders-value', ORDER_2);
    const [first, second] = [1, 2].map((id) => Buffer.from([0, 0, 0, 0, id, 2, 0, ...(id === 2 ? [0, 0, 0, 0, 0, 0, 0, 0] : [])]));
    const format = on<object>(registry);
    expect(() => format.decode(first!)).toThrow(expect.objectContaining({ code: 'FORMAT_NOT_READY' }));
    await Promise.all([format.prepare!(first!), format.prepare!(first!), format.prepare!(second!)]);
    for (const bytes of [first!, second!, first!]) expect(format.prepare!(bytes)).toBeUndefined();
    expect([first, second, first].map((bytes) => format.decode(bytes!))).toEqual([
      { id: 1, note: null },
      { id: 1, note: null, total: 0 },
      { id: 1, note: null },
    ]);
    expect(registry.requests).toEqual(['GET /schemas/ids/1', 'GET /schemas/ids/2']);
  });

  it('reads records of older and newer writers in its own schema', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.add('orders-value', ORDER_2);
    const old = (await opened(on(registry, { topic: 'orders', schema: ORDER_1 }))).encode({ id: 1, note: null });
    const fresh = (await opened(on(registry, { topic: 'orders', schema: ORDER_2 }))).encode({ id: 2, note: 'n', total: 4.5 });
    const withTotals = on(registry, { schema: ORDER_2 });
    expect([await read(withTotals, old), await read(withTotals, fresh)]).toEqual([
      { id: 1, note: null, total: 0 },
      { id: 2, note: 'n', total: 4.5 },
    ]);
    expect(await read(on(registry, { schema: ORDER_1 }), fresh)).toEqual({ id: 2, note: 'n' });
  });

  it('says of a writer whose schema does not resolve that its records are undecodable, and reads the others', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.add('orders-value', { ...ORDER_1, fields: [{ name: 'id', type: 'string' }] });
    const format = on(registry, { schema: ORDER_1 });
    await expect(read(format, Buffer.from([0, 0, 0, 0, 2, 2, 65]))).rejects.toMatchObject({ code: 'RECORD_UNDECODABLE' });
    expect(await read(format, Buffer.from([0, 0, 0, 0, 1, 4, 0]))).toEqual({ id: 2, note: null });
  });

  it.each<[string, number[]]>([
    ['nothing', []],
    ['no magic', [1, 0, 0, 0, 1, 2, 0]],
    ['a header alone', [0, 0, 0, 0, 1]],
    ['a record that is cut off', [0, 0, 0, 0, 1, 2, 2, 8, 65]],
    ['a record with more behind it', [0, 0, 0, 0, 1, 2, 0, 0]],
    ['an id that the registry does not have', [0, 0, 0, 0, 99, 2, 0]],
  ])('says of %s that it is undecodable', async (_, bytes) => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    const format = on(registry);
    await expect(read(format, Buffer.from(bytes))).rejects.toMatchObject({ code: 'RECORD_UNDECODABLE' });
    await expect(read(format, Buffer.from(bytes))).rejects.toMatchObject({ code: 'RECORD_UNDECODABLE' });
    expect(registry.requests.length).toBeLessThan(2);
  });

  it('reads longs as they are, or not at all', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    const big = 2n ** 60n + 1n;
    const bigints = await opened(on<{ id: bigint; note: null }>(registry, { topic: 'orders', longs: 'bigint' }));
    const bytes = bigints.encode({ id: big, note: null });
    expect(await read(bigints, bytes)).toEqual({ id: big, note: null });
    await expect(read(on(registry), bytes)).rejects.toMatchObject({ code: 'RECORD_UNDECODABLE' });
  });

  it('reads schemas that refer to others, and unions that have to be told apart', async () => {
    const registry = await registryServer();
    registry.add('city', { type: 'record', name: 'geo.City', fields: [{ name: 'name', type: 'string' }] });
    const references = [{ name: 'geo.City', subject: 'city', version: 1 }];
    const place = {
      type: 'record',
      name: 'Place',
      fields: [{ name: 'at', type: [{ type: 'record', name: 'Sea', fields: [{ name: 'name', type: 'string' }] }, 'geo.City'] }],
    };
    registry.add('places-value', place, { references });
    const bytes = Buffer.from([0, 0, 0, 0, 2, 2, 2, 65]);
    const value = await read(on<object>(registry), bytes);
    expect(value).toEqual({ at: { 'geo.City': { name: 'A' } } });
    expect(decode(encode(value))).toEqual(value);
  });

  it('registers its schema when asked, and refuses one that is not there when not', async () => {
    const registry = await registryServer();
    await expect(on(registry, { topic: 'orders', schema: ORDER_1 }).open!()).rejects.toMatchObject({ code: 'REGISTRY_REFUSED', retryable: false });
    await expect(on(registry, { topic: 'orders' }).open!()).rejects.toMatchObject({ code: 'REGISTRY_REFUSED' });
    const format = await opened(on(registry, { topic: 'orders', schema: ORDER_1, register: true }));
    expect([...registry.subjects.keys()]).toEqual(['orders-value']);
    expect(await read(on(registry), format.encode({ id: 1, note: null }))).toEqual({ id: 1, note: null });
    await expect(on(registry, { topic: 'orders', schema: { ...ORDER_1, doc: 'incompatible' }, register: true }).open!()).rejects.toMatchObject({
      code: 'REGISTRY_REFUSED',
      message: expect.stringContaining('409'),
    });
    expect(() => on(registry, { topic: 'orders' }).encode({})).toThrow(expect.objectContaining({ code: 'FORMAT_NOT_READY' }));
  });

  it('says what of a record does not fit its schema', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    const format = (await opened(on(registry, { topic: 'orders' }))) as Format<unknown>;
    expect(() => format.encode({ id: 'x', note: null })).toThrow(
      expect.objectContaining({ code: 'RECORD_UNENCODABLE', message: expect.stringContaining('id is x') }),
    );
  });
});

describe('a registry', () => {
  it('that has a fault is asked again, and at last REGISTRY_UNREACHABLE, worth a restart', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.fail(500, 'hang up', 503, 429);
    const bytes = Buffer.from([0, 0, 0, 0, 1, 2, 0]);
    expect(await read(on(registry), bytes)).toEqual({ id: 1, note: null });
    const twice = avroFormat({ registry: { url: registry.url, retries: 1 } }, io);
    registry.fail('hang up', 500);
    await expect(read(twice, bytes)).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE', retryable: true });
    // It is not remembered against the record.
    expect(await read(twice, bytes)).toEqual({ id: 1, note: null });
  });

  it('that is asked with a user and a password gets them; wrong ones are REGISTRY_REFUSED', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.wants('ann:s/cret');
    const bytes = Buffer.from([0, 0, 0, 0, 1, 2, 0]);
    await expect(read(on(registry), bytes)).rejects.toMatchObject({ code: 'REGISTRY_REFUSED', retryable: false, message: expect.stringContaining('401') });
    const inside = avroFormat({ registry: registry.url.replace('//', '//ann:s%2Fcret@') }, io);
    const beside = avroFormat({ registry: { url: ['http://127.0.0.1:1', registry.url], auth: { username: 'ann', password: 's/cret' } } }, io);
    for (const format of [inside, beside]) expect(await read(format, bytes)).toEqual({ id: 1, note: null });
  });

  it('whose address is none is OPTION_INVALID at once', () => {
    for (const registry of ['localhost:8081', 'no url', '']) expect(() => avro({ registry })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    expect(() => avro({})).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    expect(() => avro({ schema: '{"type":"nonsense"}' })).toThrow(expect.objectContaining({ code: 'SCHEMA_INVALID' }));
  });

  it('has schemas under subjects named for topic, record or both', () => {
    expect(subjectOf({ topic: 'orders' }, 'shop.Order')).toBe('orders-value');
    expect(subjectOf({ topic: 'orders', part: 'key' }, 'shop.Order')).toBe('orders-key');
    expect(subjectOf({ subjectStrategy: 'record' }, 'shop.Order')).toBe('shop.Order');
    expect(subjectOf({ subjectStrategy: 'topic-record', topic: 'orders' }, 'shop.Order')).toBe('orders-shop.Order');
    expect(subjectOf({ subject: 'own', topic: 'orders' }, undefined)).toBe('own');
    expect(() => subjectOf({}, 'shop.Order')).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });
});

const PROTO = `syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
enum Kind { UNKNOWN = 0; ONLINE = 1; }
message Other { string x = 1; }
message Order {
  message Line { string item = 1; uint32 count = 2; }
  int64 id = 1;
  Kind kind = 2;
  repeated Line lines = 3;
  map<string, double> prices = 4;
  bytes raw = 5;
  google.protobuf.Timestamp at = 6;
  optional string note = 7;
}`;
const ORDER = {
  id: 7,
  kind: 'ONLINE',
  lines: [{ item: 'mill', count: 2 }],
  prices: { mill: 4.5 },
  raw: Uint8Array.of(1, 2),
  at: { seconds: 5, nanos: 0 },
  note: 'n',
};

describe('protobuf', () => {
  it('without a registry reads and writes messages of its file, every field with its default', async () => {
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    const format = protobuf<object>({ type: 'shop.Order', file });
    const value = format.decode(format.encode(ORDER));
    expect(value).toEqual(ORDER);
    expect(decode(encode(value))).toEqual(ORDER);
    expect(format.decode(format.encode({}))).toMatchObject({ id: 0, kind: 'UNKNOWN', lines: [], prices: {} });
    expect(protobuf<object>({ type: 'shop.Order.Line', file }).decode(Uint8Array.of(16, 3))).toEqual({ item: '', count: 3 });
  });

  it.each<[string, object]>([
    ['a number that is none', { id: 'x' }],
    ['a number beyond its type', { lines: [{ count: -1 }] }],
    ['a field that there is not', { nothing: 1 }],
    ['a name that is not in the enumeration', { kind: 'PAPER' }],
    ['a string where there is a message', { lines: ['mill'] }],
    ['an object where there is an array', { lines: { item: 'mill' } }],
    ['a text where there are bytes', { raw: 'AQI=' }],
  ])('refuses to write %s, and says where', async (_, wrong) => {
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    const [name] = Object.keys(wrong);
    expect(() => protobuf({ type: 'shop.Order', file }).encode(wrong)).toThrow(
      expect.objectContaining({ code: 'RECORD_UNENCODABLE', message: expect.stringContaining(name!) }),
    );
  });

  it('with a registry names the schema and the message in it', async () => {
    const registry = await registryServer();
    registry.add('orders-value', PROTO, { schemaType: 'PROTOBUF' });
    const format = await opened(protobufFormat<object>({ type: 'shop.Order', registry: registry.url, topic: 'orders' }, io));
    const bytes = format.encode(ORDER);
    expect([...bytes.subarray(0, 7)]).toEqual([0, 0, 0, 0, 1, 2, 2]);
    expect(await read(protobufFormat<object>({ type: 'shop.Order', registry: registry.url }, io), bytes)).toEqual(ORDER);
    const line = await opened(protobufFormat<object>({ type: 'shop.Order.Line', registry: registry.url, topic: 'orders' }, io));
    const nested = line.encode({ item: 'mill', count: 1 });
    expect([...nested.subarray(0, 8)]).toEqual([0, 0, 0, 0, 1, 4, 2, 0]);
    expect(await read(line, nested)).toEqual({ item: 'mill', count: 1 });
    const other = await opened(protobufFormat<object>({ type: 'shop.Other', registry: registry.url, topic: 'orders' }, io));
    expect([...other.encode({ x: '' }).subarray(5)]).toEqual([0]);
    await expect(read(other, bytes)).rejects.toMatchObject({ code: 'RECORD_UNDECODABLE', message: expect.stringContaining('shop.Order') });
  });

  it('reads records of a newer writer by its own file', async () => {
    const registry = await registryServer();
    registry.add('orders-value', PROTO.replace('optional string note = 7;', 'optional string note = 7; string added = 8;'), { schemaType: 'PROTOBUF' });
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    const newer = await opened(protobufFormat<object>({ type: 'shop.Order', registry: registry.url, topic: 'orders' }, io));
    const own = protobufFormat<object>({ type: 'shop.Order', registry: registry.url, file }, io);
    expect(await read(own, newer.encode({ ...ORDER, added: 'x' }))).toEqual(ORDER);
  });

  it('reads 64-bit numbers as they are, or not at all', async () => {
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    const of = (longs?: 'bigint' | 'string') => protobuf<{ id: unknown }>({ type: 'shop.Order', file, ...(longs === undefined ? {} : { longs }) });
    const bytes = of().encode({ id: 2n ** 60n + 1n });
    expect(of('bigint').decode(bytes).id).toBe(2n ** 60n + 1n);
    expect(of('string').decode(bytes).id).toBe(String(2n ** 60n + 1n));
    expect(() => of().decode(bytes)).toThrow(expect.objectContaining({ code: 'RECORD_UNDECODABLE' }));
  });

  it('says what is wrong with a message, a file and a schema', async () => {
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    const wrong = (options: Parameters<typeof protobuf>[0], code: string) => expect(() => protobuf(options)).toThrow(expect.objectContaining({ code }));
    wrong({ type: 'shop.Nothing', file }, 'SCHEMA_INVALID');
    wrong({ type: 'shop.Order', file: `${file}.not` }, 'FILE_NOT_FOUND');
    wrong({ type: 'shop.Order' }, 'OPTION_INVALID');
    await writeFile(file, 'syntax = "proto3"; message { }');
    wrong({ type: 'shop.Order', file }, 'SCHEMA_INVALID');
    await writeFile(file, 'syntax = "proto3"; import "missing.proto"; message Order { Missing m = 1; }');
    wrong({ type: 'Order', file }, 'SCHEMA_INVALID');
    expect(() => protobuf({ type: 'shop.Order', registry: 'http://localhost:1' }).decode(Uint8Array.of(0, 0, 0, 0, 1, 0))).toThrow(
      expect.objectContaining({ code: 'FORMAT_NOT_READY' }),
    );
  });

  it('says of bytes that are no message that they are undecodable', async () => {
    const file = join(await temporaryFolder(), 'order.proto');
    await writeFile(file, PROTO);
    expect(() => protobuf({ type: 'shop.Order', file }).decode(Uint8Array.of(0x1a, 50, 1))).toThrow(expect.objectContaining({ code: 'RECORD_UNDECODABLE' }));
  });
});

describe('a source with a schema registry', () => {
  it('reads on through a change of the schema, keeps what does not decode as dead letters, and fails when the registry is down', async () => {
    const registry = await registryServer();
    registry.add('orders-value', ORDER_1);
    registry.add('orders-value', ORDER_2);
    const first = await opened(on(registry, { topic: 'orders', schema: ORDER_1 }));
    const second = await opened(on(registry, { topic: 'orders', schema: ORDER_2 }));
    const unknown = Buffer.from([0, 0, 0, 0, 77, 2, 0]);
    const records = [
      first.encode({ id: 1, note: null }),
      unknown,
      second.encode({ id: 2, note: null, total: 3 }),
      Buffer.from('{"no":1}'),
      first.encode({ id: 3, note: 'x' }),
    ];
    const path = join(await temporaryFolder(), 'orders.avro');
    await writeFile(path, Buffer.concat(records.map(frame)));
    const letters: Letter[] = [];
    const source = filesSource<object>({ path, format: on(registry) });
    expect(await valuesOf(source, { path }, undefined, readContext(letters))).toEqual([
      { id: 1, note: null },
      { id: 2, note: null, total: 3 },
      { id: 3, note: 'x' },
    ]);
    expect(letters.map(({ record }) => Buffer.from(record as Uint8Array))).toEqual([unknown, Buffer.from('{"no":1}')]);
    registry.fail(...Array.from({ length: 6 }, () => 500));
    await expect(valuesOf(filesSource({ path, format: on(registry) }), { path })).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
  });

  it('takes what a sink with one has written', async () => {
    const registry = await registryServer();
    const folder = await temporaryFolder();
    const orders = [
      { id: 1, note: null },
      { id: 2, note: 'x' },
    ];
    const format = avro<(typeof orders)[0]>({ registry: registry.url, topic: 'orders', schema: ORDER_1, register: true });
    await job('write', (env) => void env.fromArray('in', orders).sink('out', files.sink({ directory: folder, format }))).run();
    const seen: unknown[] = [];
    await job(
      'read',
      (env) => void env.source('in', files.source({ path: folder, format: avro<object>({ registry: registry.url }) })).sink('out', collect(seen)),
    ).run();
    expect(seen).toEqual(orders);
  });
});

describe('debezium', () => {
  const source = { table: 'orders', ts_ms: 5 };
  const envelope = { before: { id: 1 }, after: { id: 2 }, source, op: 'u', ts_ms: 6 };
  const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const format = debezium<{ id: number }>();

  it('reads envelopes plain and with their schema', () => {
    const change = { op: 'update', before: { id: 1 }, after: { id: 2 }, source, timestamp: 5 };
    expect(format.decode(bytes(envelope))).toEqual(change);
    expect(format.decode(bytes({ schema: { type: 'struct' }, payload: envelope }))).toEqual(change);
    expect(format.decode(format.encode(format.decode(bytes(envelope))))).toEqual(change);
  });

  it('tells every kind of change, and takes the time of Debezium where the database says none', () => {
    const ops = ['c', 'u', 'd', 'r', 't', 'm'].map((op) => format.decode(bytes({ op, ts_ms: 6 })));
    expect(ops.map(({ op }) => op)).toEqual(['create', 'update', 'delete', 'read', 'truncate', 'message']);
    expect(ops[0]).toEqual({ op: 'create', before: null, after: null, source: {}, timestamp: 6 });
  });

  it('takes a tombstone for one', () => {
    for (const tombstone of [Buffer.alloc(0), bytes(null), bytes({ schema: null, payload: null })])
      expect(format.decode(tombstone)).toMatchObject({ op: 'tombstone', after: null });
  });

  it.each([[7], [{}], [{ op: 'x' }], [{ id: 1 }], ['text'], [[1]]])('says of %j that it is no envelope', (value) => {
    expect(() => format.decode(bytes(value))).toThrow(expect.objectContaining({ code: 'RECORD_UNDECODABLE' }));
  });

  it('is read from Avro with a registry', async () => {
    const registry = await registryServer();
    const value = { type: 'record', name: 'Value', fields: [{ name: 'id', type: 'long' }] };
    const fields = [
      { name: 'before', type: ['null', value], default: null },
      { name: 'after', type: ['null', 'Value'], default: null },
      { name: 'source', type: { type: 'record', name: 'Source', fields: [{ name: 'ts_ms', type: 'long' }] } },
      { name: 'op', type: 'string' },
      { name: 'ts_ms', type: ['null', 'long'], default: null },
    ];
    registry.add('orders-value', { type: 'record', name: 'Envelope', namespace: 'db.orders', fields });
    const changes = debezium<{ id: number }>(on(registry)).ofTopic!('orders');
    await changes.open!();
    const change = { op: 'create', before: null, after: { id: 3 }, source: { ts_ms: 5 }, timestamp: 5 } as const;
    expect(await read(debezium<{ id: number }>(on(registry)), changes.encode(change))).toEqual(change);
  });

  it('of JSON stands in lines of files', async () => {
    const path = join(await temporaryFolder(), 'changes.json');
    await writeFile(path, `${JSON.stringify(envelope)}\n${JSON.stringify({ ...envelope, op: 'd', after: null })}\n`);
    const seen = await valuesOf(filesSource({ path, format }), { path });
    expect(seen.map(({ op }) => op)).toEqual(['update', 'delete']);
  });
});

describe('a package that is not installed', () => {
  it('is PACKAGE_MISSING, which says what to install', () => {
    expect(() => peerNow('not-there-at-all', 'avro')).toThrow(
      expect.objectContaining({ code: 'PACKAGE_MISSING', message: expect.stringContaining('npm install not-there-at-all') }),
    );
  });
});
