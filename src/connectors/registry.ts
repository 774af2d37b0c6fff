// A client of a schema registry (Confluent's protocol, which Apicurio, Karapace and Redpanda speak too), over HTTP by `fetch`.
//
// Invariants:
//  G1  What a registry has said of an id, or of a version, never changes: it is asked once and kept. What it has not is asked again after a minute, so
//      that an id of a bad record costs one request a minute, and one that a replica had not heard of yet is found.
//  G2  Nothing is asked twice at once: who comes while a request runs gets its answer.
//  G3  A registry that cannot be reached, or has a fault, is asked again; then REGISTRY_UNREACHABLE, which is retryable. What it refuses is
//      REGISTRY_REFUSED at once. That it has no such schema is an answer, and no error.
//  G4  Several addresses are those of one registry: each try goes to the next.

import { MillraceError } from '../errors.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import { RETRIED_STATUSES, reasonOf } from './http-answers.ts';

/** Where a schema registry is, and how it is asked. */
export interface RegistryOptions {
  /** `http://host:8081`; of several, the next is asked where one does not answer. A user and a password may stand in it. */
  url: string | readonly string[];
  /** Basic authentication. */
  auth?: { username: string; password: string };
  /** Sent with each request, such as an `authorization` of your own. */
  headers?: Record<string, string>;
  /** Milliseconds until an answer must have come; 10,000 by default. */
  timeout?: number;
  /** How often a request is tried again; 5 by default. */
  retries?: number;
}

export interface SchemaReference {
  readonly name: string;
  readonly subject: string;
  readonly version: number;
}

export interface RegistrySchema {
  /** As written. */
  readonly schema: string;
  readonly type: 'AVRO' | 'PROTOBUF' | 'JSON';
  readonly references: readonly SchemaReference[];
}

export interface RegisteredSchema extends RegistrySchema {
  readonly id: number;
}

interface Answer {
  readonly status: number;
  readonly body: { readonly error_code?: number; readonly message?: string; readonly [field: string]: unknown };
}

const ABSENT_FOR_MS = 60_000;

export class SchemaRegistry {
  readonly #addresses: readonly { readonly base: string; readonly authorization: string | undefined }[];
  readonly #options: RegistryOptions;
  readonly #io: Io;
  readonly #known = new Map<string, Promise<RegisteredSchema | undefined>>();
  readonly #absent = new Map<string, number>();

  constructor(options: string | RegistryOptions, io: Io = systemIo()) {
    this.#options = typeof options === 'string' ? { url: options } : options;
    this.#io = io;
    const { url, auth, timeout, retries } = this.#options;
    const urls = typeof url === 'string' ? url.split(',') : url;
    if (!Array.isArray(urls) || urls.length === 0 || (timeout !== undefined && !(timeout > 0)) || (retries !== undefined && !(retries >= 0)))
      throw registryInvalid(String(url));
    this.#addresses = urls.map((each) => {
      let parsed: URL;
      try {
        parsed = new URL(each.trim());
      } catch (error) {
        throw registryInvalid(each, error);
      }
      if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') throw registryInvalid(each);
      const user =
        auth ?? (parsed.username === '' ? undefined : { username: decodeURIComponent(parsed.username), password: decodeURIComponent(parsed.password) });
      return {
        base: `${parsed.origin}${parsed.pathname.replace(/\/+$/, '')}`,
        authorization: user === undefined ? undefined : `Basic ${Buffer.from(`${user.username}:${user.password}`).toString('base64')}`,
      };
    });
  }

  /** For sentences; without credentials. */
  get name(): string {
    return this.#addresses[0]!.base;
  }

  /** Undefined: the registry has none of this id. */
  byId(id: number): Promise<RegisteredSchema | undefined> {
    return this.#once(`/schemas/ids/${id}`, (body) => ({ ...schemaIn(body), id }));
  }

  /** Undefined: there is none. */
  version(subject: string, version: number): Promise<RegisteredSchema | undefined> {
    return this.#once(`/subjects/${encodeURIComponent(subject)}/versions/${version}`, registeredIn);
  }

  /** The newest of a subject, asked each time; undefined: there is none. */
  async latest(subject: string): Promise<RegisteredSchema | undefined> {
    const answer = await this.#ask(`/subjects/${encodeURIComponent(subject)}/versions/latest`);
    return answer.status === 404 ? undefined : registeredIn(answer.body);
  }

  /** The id of this very schema in the subject; undefined: it is not registered there. */
  async idOf(subject: string, schema: RegistrySchema): Promise<number | undefined> {
    const answer = await this.#ask(`/subjects/${encodeURIComponent(subject)}`, bodyOf(schema));
    return answer.status === 404 ? undefined : Number(answer.body['id']);
  }

  /** Registers it, where it is not yet, and gives its id. */
  async register(subject: string, schema: RegistrySchema): Promise<number> {
    const answer = await this.#ask(`/subjects/${encodeURIComponent(subject)}/versions`, bodyOf(schema));
    if (answer.status === 404) throw this.#refused(answer, `POST of subject '${subject}'`);
    return Number(answer.body['id']);
  }

  /** All schemas that it refers to, however deep, each once, the deepest first. */
  async referencesOf(schema: RegistrySchema): Promise<{ readonly name: string; readonly schema: string }[]> {
    const found = new Map<string, string>();
    const visit = async (of: RegistrySchema): Promise<void> => {
      for (const { name, subject, version } of of.references) {
        if (found.has(name)) continue;
        const referred = await this.version(subject, version);
        if (referred === undefined)
          throw new MillraceError('REGISTRY_REFUSED', `The registry ${this.name} has no version ${version} of '${subject}', which a schema refers to.`);
        await visit(referred);
        found.set(name, referred.schema);
      }
    };
    await visit(schema);
    return [...found].map(([name, text]) => ({ name, schema: text }));
  }

  #once(path: string, read: (body: Answer['body']) => RegisteredSchema): Promise<RegisteredSchema | undefined> {
    const known = this.#known.get(path);
    const absentSince = this.#absent.get(path);
    if (known !== undefined && (absentSince === undefined || this.#io.clock.now() - absentSince < ABSENT_FOR_MS)) return known;
    this.#absent.delete(path);
    const asked = this.#ask(path).then(
      (answer) => {
        if (answer.status !== 404) return read(answer.body);
        this.#absent.set(path, this.#io.clock.now());
        return undefined;
      },
      (error: unknown) => {
        // Nobody waits for one that failed: the next asks again.
        this.#known.delete(path);
        throw error;
      },
    );
    this.#known.set(path, asked);
    return asked;
  }

  async #ask(path: string, body?: string): Promise<Answer> {
    const { retries = 5 } = this.#options;
    for (let tried = 0; ; tried += 1) {
      const { base } = this.#addresses[tried % this.#addresses.length]!;
      let failure: string;
      let cause: unknown;
      try {
        const answer = await this.#send(tried, path, body);
        if (answer.status === 404 || (answer.status >= 200 && answer.status <= 299)) return answer;
        if (!RETRIED_STATUSES.has(answer.status)) throw this.#refused(answer, `${body === undefined ? 'GET' : 'POST'} ${path}`);
        failure = `it answered ${answer.status} ${answer.body.message ?? ''}`.trim();
      } catch (error) {
        if (error instanceof MillraceError) throw error;
        cause = error;
        failure = reasonOf(error);
      }
      if (tried >= retries)
        throw new MillraceError('REGISTRY_UNREACHABLE', `The schema registry ${base} cannot be asked: ${failure}.`, {
          todo: 'Does it run, and is its address right?',
          cause,
        });
      await new Promise<void>((resolve) => void this.#io.clock.setTimeout(resolve, waitBefore(tried + 1, DEFAULT_WAITS, this.#io.random())));
    }
  }

  async #send(tried: number, path: string, body: string | undefined): Promise<Answer> {
    const { headers = {}, timeout = 10_000 } = this.#options;
    const { base, authorization } = this.#addresses[tried % this.#addresses.length]!;
    const response = await fetch(`${base}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        accept: 'application/vnd.schemaregistry.v1+json, application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/vnd.schemaregistry.v1+json' }),
        ...(authorization === undefined ? {} : { authorization }),
        ...headers,
      },
      ...(body === undefined ? {} : { body }),
      signal: AbortSignal.timeout(timeout),
    });
    const text = await response.text();
    const { status } = response;
    try {
      return { status, body: JSON.parse(text) as Answer['body'] };
    } catch (error) {
      // Something between here and the registry, or no registry at all.
      if (status <= 299 || status === 404)
        throw new MillraceError('REGISTRY_REFUSED', `${base}${path} answered ${status} with what is no JSON.`, {
          todo: 'Is that the address of a schema registry?',
          cause: error,
        });
      return { status, body: { message: text.slice(0, 200) } };
    }
  }

  #refused({ status, body }: Answer, what: string): MillraceError {
    const why = status === 401 || status === 403 ? 'Correct its credentials.' : status === 409 ? 'Change the schema, or the rule of its subject.' : undefined;
    return new MillraceError('REGISTRY_REFUSED', `The schema registry ${this.name} refused ${what}: ${status} ${body.message ?? ''}.`, {
      ...(why === undefined ? {} : { todo: why }),
    });
  }
}

function schemaIn(body: Answer['body']): RegistrySchema {
  const {
    schema,
    schemaType = 'AVRO',
    references = [],
  } = body as Partial<{ schema: string; schemaType: RegistrySchema['type']; references: SchemaReference[] }>;
  if (typeof schema !== 'string') throw new MillraceError('REGISTRY_REFUSED', 'The registry gave an answer without a schema.');
  return { schema, type: schemaType, references };
}

function registeredIn(body: Answer['body']): RegisteredSchema {
  return { ...schemaIn(body), id: Number(body['id']) };
}

function bodyOf({ schema, type, references }: RegistrySchema): string {
  return JSON.stringify({ schema, ...(type === 'AVRO' ? {} : { schemaType: type }), ...(references.length === 0 ? {} : { references }) });
}

function registryInvalid(url: string, cause?: unknown): MillraceError {
  return new MillraceError('OPTION_INVALID', `'${url}' is no schema registry.`, { todo: 'Give its address, such as http://localhost:8081.', cause });
}
