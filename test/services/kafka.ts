// Real Kafka brokers for tests (KRaft: broker and controller in one process), of two versions, and clusters of them.
//
// `kafkaForTests()` is the one broker that all test files of a run share: it starts when the first of them asks and ends with the run (shared.ts); topics on it have
// random names. Who kills or pauses a broker, or needs other settings, starts one with `KafkaBroker.start`. Where `KAFKA_BROKERS` names brokers (comma-separated), the
// shared ones are those.
//
// The jars are those of the lock files beside this file (artifacts.ts). Without Java or without the jars NO_KAFKA is true, said once; with CI=true that is an error.
//
// Settings that tests rest on: topics are not made by naming them; nothing is ever deleted for its age, also not records of 1970; timed-out transactions are aborted
// within half a second of their time; a killed broker that comes back is taken in within a few seconds. As in any Kafka 4, a record's timestamp may not lie more than
// an hour ahead.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheFolder, jarsOf } from './artifacts.ts';
import { type Certificate, certificate } from './certificate.ts';
import { removeFolder, serverFolder } from './folders.ts';
import { notHad } from './not-had.ts';
import { freePorts } from './ports.ts';
import { Server, Service } from './server.ts';
import { shared } from './shared.ts';

const run = promisify(execFile);

export type KafkaVersion = '4.3.1' | '3.9.2';
export const NEWEST: KafkaVersion = '4.3.1';

/** A user of listeners that demand one, by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, who may do everything, as may those that nobody asks who they are. */
export const KAFKA_USER = { username: 'someone', password: 'a-secret' };
/** By PLAIN. May do what a test lets it do by ACLs. */
export const KAFKA_LIMITED = { username: 'limited', password: 'another-secret' };

/** Any base64url of 16 bytes. */
const CLUSTER_ID = 'AAAAAAAAQACAAAAAAAAAAQ';

const found = jarsOf(`kafka-${NEWEST}`);

/** For describe.skipIf. */
export const NO_KAFKA = 'missing' in found && process.env.KAFKA_BROKERS === undefined;
/** For tests that start, kill or pause their own. */
export const NO_OWN_KAFKA = 'missing' in found;
if (NO_KAFKA && 'missing' in found) notHad(`Kafka ${NEWEST}`, found.missing);

/** What secured listeners need: `brokers` for TLS alone, for SASL alone, and for both. */
export interface SecuredKafka {
  /** Of the certificate that the brokers show, PEM: for `ssl: { ca }`. */
  readonly ca: string;
  readonly tls: readonly string[];
  readonly sasl: readonly string[];
  readonly saslTls: readonly string[];
}

export interface KafkaOptions {
  /** 4.3.1 by default. */
  readonly version?: KafkaVersion;
  /** Lines of server.properties, over the others. */
  readonly config?: Readonly<Record<string, string | number>>;
  /** Listeners with TLS, and such that demand the user above, beside the plain one: see `secured`. */
  readonly secured?: boolean;
  /** Flags of the JVM instead of those that start fast: `FAST_JVM` runs fast. */
  readonly jvm?: readonly string[];
}

const STARTS_FAST = ['-Xms128m', '-Xmx384m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];
/** For benchmarks. */
export const FAST_JVM = ['-Xms512m', '-Xmx512m', '-XX:+UseSerialGC', '-Xshare:auto'];

/** The plain addresses of the shared broker. */
export async function kafkaForTests(): Promise<string[]> {
  const existing = process.env.KAFKA_BROKERS;
  if (existing !== undefined) return existing.split(',');
  return (await sharedBroker()).brokers;
}

/** The other listeners of the shared broker. */
export async function securedKafkaForTests(): Promise<SecuredKafka> {
  return (await sharedBroker()).secured;
}

interface SharedKafka {
  readonly brokers: string[];
  readonly secured: SecuredKafka;
}

function sharedBroker(): Promise<SharedKafka> {
  return shared<SharedKafka>('kafka', startShared);
}

/** Called in the process that holds the shared servers. */
export async function startShared(): Promise<{ readonly value: SharedKafka; close(): Promise<void> }> {
  const broker = await KafkaBroker.start({ secured: true }, false);
  return { value: { brokers: broker.brokers, secured: broker.secured! }, close: () => broker.close() };
}

/** One broker, alone or as a node of a `KafkaCluster`. */
export class KafkaBroker extends Service {
  /** `host:port` of the plain listener. */
  readonly brokers: string[];
  readonly secured: SecuredKafka | undefined;
  readonly #classes: Classes | undefined;

  /** Of a broker that is configured already. */
  constructor(server: Server, port: number, secured: SecuredKafka | undefined, classes: Classes | undefined) {
    super(server);
    this.#classes = classes;
    this.brokers = [`127.0.0.1:${port}`];
    this.secured = secured;
  }

  /** Resolves when it answers. `leaves`: it may take some seconds to close, once a machine, for others to start faster. */
  static async start(options: KafkaOptions = {}, leaves = true): Promise<KafkaBroker> {
    const ports = await freePorts(5);
    const broker = await configured(options, { id: 1, ports, voters: [[1, ports[1]!]] }, leaves);
    await broker.up();
    return broker;
  }

  /** Killed, its data removed. */
  override async close(): Promise<void> {
    if (this.#classes?.makes === true && this.pid !== undefined) {
      await this.stop();
      this.#classes.keep();
    }
    await super.close();
  }
}

/** Nodes that hold everything on as many of them as there are, two of three enough to write. */
export class KafkaCluster {
  readonly nodes: readonly KafkaBroker[];

  private constructor(nodes: readonly KafkaBroker[]) {
    this.nodes = nodes;
  }

  get brokers(): string[] {
    return this.nodes.flatMap((node) => node.brokers);
  }

  /** Resolves when each of them answers and knows of all. Node ids count from 1, in the order of `nodes`. */
  static async start(options: Omit<KafkaOptions, 'secured'> & { readonly nodes?: number } = {}): Promise<KafkaCluster> {
    const { nodes = 3 } = options;
    const ports = await freePorts(nodes * 2);
    const voters = Array.from({ length: nodes }, (_, i): [number, number] => [i + 1, ports[i * 2 + 1]!]);
    const brokers: KafkaBroker[] = [];
    for (let i = 0; i < nodes; i++) brokers.push(await configured(options, { id: i + 1, ports: ports.slice(i * 2, i * 2 + 2), voters }, false));
    const cluster = new KafkaCluster(brokers);
    try {
      for (const broker of brokers) broker.begin();
      await Promise.all(brokers.map((broker) => broker.ready()));
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.close()));
  }
}

interface Node {
  readonly id: number;
  /** Plain and controller; of a secured one also TLS, SASL, both. */
  readonly ports: readonly number[];
  readonly voters: readonly (readonly [id: number, port: number])[];
}

async function configured(options: KafkaOptions, node: Node, leaves: boolean): Promise<KafkaBroker> {
  const { version = NEWEST } = options;
  const jars = jarsOf(`kafka-${version}`);
  if ('missing' in jars) throw new Error(`There is no Kafka ${version}: ${jars.missing}.`);
  const folder = await serverFolder('kafka');
  try {
    const shown = options.secured === true ? await certificate() : undefined;
    const settings = join(folder, 'server.properties');
    writeFileSync(settings, linesOf({ ...settingsOf(node, folder, shown), ...options.config }));
    cpSync(await formatted(jars.folder, version, node), join(folder, 'data'), { recursive: true });
    const port = node.ports[0]!;
    const classes = options.jvm === undefined ? new Classes(jars.folder, folder, leaves) : undefined;
    const server = new Server({
      name: `Kafka ${version}`,
      folder,
      command: 'java',
      args: [
        ...(options.jvm ?? STARTS_FAST),
        ...(classes?.flags ?? []),
        '-Dorg.slf4j.simpleLogger.showDateTime=true',
        `-Dorg.slf4j.simpleLogger.defaultLogLevel=${process.env.KAFKA_LOG ?? 'warn'}`,
        '-cp',
        join(jars.folder, '*'),
        'kafka.Kafka',
        settings,
      ],
      answers: () => knowsBrokers(port, node.voters.length),
    });
    return new KafkaBroker(server, port, shown && securedOf(node, shown), classes);
  } catch (error) {
    await removeFolder(folder);
    throw error;
  }
}

/**
 * The classes of a running broker in one file, as Java maps them: with it a broker starts in half the time. Java writes it when a broker ends in order, which the first
 * that is closed here does. One that Java finds to be of another version is not used.
 */
class Classes {
  readonly makes: boolean;
  readonly flags: readonly string[];
  readonly #place: string;
  readonly #made: string;

  constructor(jars: string, folder: string, leaves: boolean) {
    this.#place = `${jars}.jsa`;
    this.#made = join(folder, 'classes.jsa');
    const there = existsSync(this.#place);
    this.makes = leaves && !there;
    this.flags = ['-Xshare:auto', ...(there ? [`-XX:SharedArchiveFile=${this.#place}`] : this.makes ? [`-XX:ArchiveClassesAtExit=${this.#made}`] : [])];
  }

  keep(): void {
    if (!existsSync(this.#made)) return;
    // The folder may lie on another disk.
    const beside = `${this.#place}.${process.pid}`;
    cpSync(this.#made, beside);
    renameSync(beside, this.#place);
  }
}

function securedOf({ ports }: Node, { ca }: Certificate): SecuredKafka {
  const [, , tls, sasl, saslTls] = ports;
  return { ca, tls: [`127.0.0.1:${tls}`], sasl: [`127.0.0.1:${sasl}`], saslTls: [`127.0.0.1:${saslTls}`] };
}

function settingsOf(node: Node, folder: string, shown: Certificate | undefined): Record<string, string | number> {
  const [plain, controller, tls, sasl, saslTls] = node.ports;
  const nodes = node.voters.length;
  const isr = Math.min(nodes, 2);
  const named = [`PLAINTEXT://127.0.0.1:${plain}`];
  if (shown !== undefined) named.push(`SSL://127.0.0.1:${tls}`, `SASL_PLAINTEXT://127.0.0.1:${sasl}`, `SASL_SSL://127.0.0.1:${saslTls}`);
  return {
    'process.roles': 'broker,controller',
    'node.id': node.id,
    'controller.quorum.voters': node.voters.map(([id, port]) => `${id}@127.0.0.1:${port}`).join(','),
    listeners: [...named, `CONTROLLER://127.0.0.1:${controller}`].join(','),
    'advertised.listeners': named.join(','),
    'controller.listener.names': 'CONTROLLER',
    'inter.broker.listener.name': 'PLAINTEXT',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL',
    'log.dirs': join(folder, 'data'),
    'offsets.topic.replication.factor': nodes,
    'offsets.topic.num.partitions': 1,
    'transaction.state.log.replication.factor': nodes,
    'transaction.state.log.min.isr': isr,
    'transaction.state.log.num.partitions': 1,
    'transaction.abort.timed.out.transaction.cleanup.interval.ms': 500,
    'share.coordinator.state.topic.replication.factor': nodes,
    'share.coordinator.state.topic.min.isr': isr,
    'share.coordinator.state.topic.num.partitions': 1,
    'default.replication.factor': nodes,
    'min.insync.replicas': isr,
    'num.partitions': 1,
    'group.initial.rebalance.delay.ms': 0,
    'auto.create.topics.enable': 'false',
    'broker.heartbeat.interval.ms': 500,
    'broker.session.timeout.ms': 3000,
    'log.cleaner.dedupe.buffer.size': 10_485_760,
    'log.retention.ms': -1,
    'num.network.threads': 2,
    'num.io.threads': 4,
    ...(shown === undefined ? {} : securitySettings(shown)),
  };
}

function securitySettings({ keystore, password }: Certificate): Record<string, string> {
  const settings: Record<string, string> = {
    'ssl.keystore.type': 'PKCS12',
    'ssl.keystore.location': keystore,
    'ssl.keystore.password': password,
    'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'super.users': `User:ANONYMOUS;User:${KAFKA_USER.username}`,
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
  };
  const users = [KAFKA_USER, KAFKA_LIMITED].map((user) => `user_${user.username}="${user.password}"`).join(' ');
  for (const listener of ['sasl_plaintext', 'sasl_ssl']) {
    settings[`listener.name.${listener}.plain.sasl.jaas.config`] = `org.apache.kafka.common.security.plain.PlainLoginModule required ${users};`;
    for (const mechanism of ['scram-sha-256', 'scram-sha-512']) {
      settings[`listener.name.${listener}.${mechanism}.sasl.jaas.config`] = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
    }
  }
  return settings;
}

/** A data folder as the storage tool makes it, which takes a second and is the same each time: kept in the cache. */
async function formatted(jars: string, version: KafkaVersion, { id }: Node): Promise<string> {
  const { username, password } = KAFKA_USER;
  const scram = ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => ['--add-scram', `${mechanism}=[name=${username},password=${password}]`]);
  const of = createHash('sha256')
    .update(JSON.stringify([jars, CLUSTER_ID, scram]))
    .digest('hex');
  const place = join(cacheFolder(), `kafka-${version}-formatted-${of.slice(0, 12)}-${id}`);
  if (existsSync(place)) return place;
  mkdirSync(cacheFolder(), { recursive: true });
  const made = mkdtempSync(join(cacheFolder(), 'kafka-format-'));
  try {
    const settings = join(made, 'server.properties');
    const data = join(made, 'data');
    writeFileSync(
      settings,
      linesOf({
        'process.roles': 'broker,controller',
        'node.id': id,
        'controller.quorum.voters': `${id}@127.0.0.1:1`,
        listeners: 'PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1',
        'controller.listener.names': 'CONTROLLER',
        'log.dirs': data,
      }),
    );
    const flags = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', join(jars, '*'), 'kafka.tools.StorageTool'];
    await run('java', [...flags, 'format', '-t', CLUSTER_ID, '-c', settings, ...scram]);
    try {
      renameSync(data, place);
    } catch (error) {
      // Another process was faster.
      if (!existsSync(place)) throw error;
    }
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
  return place;
}

function linesOf(settings: Readonly<Record<string, string | number>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value}\n`)
    .join('');
}

/** Asks for metadata of no topic (version 1): the answer lists the brokers that take part. */
function knowsBrokers(port: number, count: number): Promise<boolean> {
  const METADATA = 3;
  const request = Buffer.alloc(18);
  request.writeInt32BE(14, 0);
  request.writeInt16BE(METADATA, 4);
  request.writeInt16BE(1, 6);
  request.writeInt32BE(1, 8);
  request.writeInt16BE(-1, 12);
  request.writeInt32BE(0, 14);
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(request));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    let got: Buffer = Buffer.alloc(0);
    socket.on('data', (bytes) => {
      got = Buffer.concat([got, bytes]);
      // Length, correlation id, number of brokers.
      if (got.length < 12) return;
      resolve(got.readInt32BE(8) >= count);
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}
