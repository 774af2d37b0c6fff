// The keyed state of one task: its tables, its ledger, restoring, sweeping. Residency is plugged in by level(); memory() plugs in nothing.

import { ByteReader } from './byte-writer.ts';
import type {
  Delta,
  GroupedTable,
  Key,
  KeyGroupRange,
  LinkedRows,
  Loaded,
  LoadedParts,
  Looking,
  NumberedTable,
  SingleTable,
  StateStats,
  Sweep,
  TableOptions,
  TaskOptions,
  TaskState,
  TimerTable,
} from './contract.ts';
import { MemoryGroupedTable } from './grouped-table.ts';
import { groupOf, hashKey, murmur3 } from './keys.ts';
import { Ledger } from './ledger.ts';
import { LINKED_HEAD, linkedRows } from './linked-rows.ts';
import { TaskLooking } from './looking.ts';
import type { Adopting } from './residency.ts';
import { KEY_TOMBSTONE, type Layout, RowFileReader, type RowVisitor, type TableHeader, TOMBSTONE } from './row-file.ts';
import { MemorySingleTable } from './single-table.ts';
import { StateError } from './state-error.ts';
import { type AnyTable, type StoredRows, TableSweep } from './sweep.ts';
import { MemoryTimerTable } from './timer-table.ts';
import { EXPIRING, refuseVersion } from './versions.ts';

/** What level() adds to a task. */
export interface Residency {
  /** A table was declared. */
  attach(table: AnyTable): void;
  /** For rows that are in another database of the same form. */
  adopting(table: MemorySingleTable | MemoryGroupedTable): Adopting;
  readonly pressed: boolean;
  /** Throws where the database has failed, also if whoever met that has caught it. */
  check(): void;
  maintain(): void;
  relieve(): Promise<void>;
  /** What of the task is in LevelDB, as it is when the batch in flight has resolved; undefined where all of it is in memory. */
  sweep(): StoredRows | undefined;
  /** Counts for `stats`. */
  stats(): Omit<StateStats, 'stallMs'>;
}

type Migrate = NonNullable<TableOptions['migrate']>;

/** Where the rows of a stored table go. */
interface Target {
  /** Undefined: nobody has declared it. */
  readonly table: AnyTable | undefined;
  readonly name: string;
  readonly version: number;
  readonly migrate: Migrate | undefined;
}

export class Task implements TaskState {
  readonly ledger: Ledger;
  readonly tables: AnyTable[] = [];
  /** The sweep that goes on. */
  sweeping: TableSweep | undefined = undefined;
  residency: Residency | undefined = undefined;
  private stallMs = 0;
  private readonly migrations: (Migrate | undefined)[] = [];
  private readonly settling: (() => boolean)[] = [];
  private readonly maxParallelism: number;
  private readonly range: KeyGroupRange;

  constructor(options: TaskOptions & { readonly tracked: boolean }) {
    this.ledger = new Ledger(options);
    this.maxParallelism = options.maxParallelism;
    this.range = options.range;
  }

  // ── declaring ──

  single(uid: string, name: string, options?: TableOptions): SingleTable {
    const table = new MemorySingleTable(this.ledger, this.tables.length, this.register(uid, name, 'single', options));
    table.gone = options?.gone;
    this.tables.push(table);
    this.ledger.tables.push(table);
    this.residency?.attach(table);
    return table;
  }

  ordered(uid: string, name: string, options?: TableOptions): GroupedTable {
    return this.grouped(uid, name, 'ordered', options);
  }

  keyed(uid: string, name: string, options?: TableOptions): GroupedTable {
    return this.grouped(uid, name, 'keyed', options);
  }

  private grouped(uid: string, name: string, layout: Layout, options: TableOptions | undefined): GroupedTable {
    const table = new MemoryGroupedTable(this.ledger, this.tables.length, this.register(uid, name, layout, options));
    table.gone = options?.gone;
    this.tables.push(table);
    this.ledger.tables.push(table);
    this.residency?.attach(table);
    return table;
  }

  timers(uid: string, name: string, few = false): TimerTable {
    const table = new MemoryTimerTable(this.ledger, this.tables.length, this.register(uid, name, 'timers', undefined), few);
    this.tables.push(table);
    this.ledger.tables.push(table);
    this.residency?.attach(table);
    return table;
  }

  private register(uid: string, name: string, layout: Layout, options: TableOptions | undefined): TableHeader {
    const { headers } = this.ledger;
    if (headers.some((header) => header.uid === uid && header.name === name)) {
      throw new StateError('STATE_MISUSED', `Operator ${uid} declares state ${name} twice.`, { todo: 'Give each state of an operator its own name.' });
    }
    const header = { uid, name, layout, version: options?.version ?? 0 };
    headers.push(header);
    this.migrations.push(options?.migrate);
    if (options?.unsettled !== undefined) this.settling.push(options.unsettled);
    return header;
  }

  // ── restoring ──

  async load(file: AsyncIterable<Uint8Array> | LoadedParts, ranges?: readonly KeyGroupRange[]): Promise<Loaded> {
    const unknown = new Map<string, number>();
    let targets: Target[] = [];
    let applied = 0;
    const mine = this.groupsOf(ranges);
    const reader = new RowFileReader(
      (headers) => {
        targets = headers.map((header) => this.target(header));
      },
      (number, kind, key, ns, value) => {
        const hash = hashKey(key);
        const group = groupOf(hash, this.maxParallelism);
        if (!mine.some(({ from, to }) => group >= from && group <= to)) return;
        if (this.apply(targets[number]!, kind, key, hash, ns, value)) applied++;
        else unknown.set(targets[number]!.name, (unknown.get(targets[number]!.name) ?? 0) + 1);
      },
      (maxParallelism) => (maxParallelism === this.maxParallelism ? (from, to) => mine.some((range) => from <= range.to && range.from <= to) : undefined),
    );
    const relieved = async (): Promise<void> => {
      if (this.residency?.pressed === true) await this.residency.relieve();
    };
    if ('read' in file) {
      if (await reader.parts(file, relieved)) return { rows: applied, unknown, bytes: reader.readBytes };
      return this.load(file.read(), ranges);
    }
    for await (const chunk of file) {
      reader.push(chunk);
      await relieved();
    }
    reader.end();
    return { rows: applied, unknown, bytes: reader.readBytes };
  }

  async loadLinked(base: LinkedRows, tables: readonly NumberedTable[], ranges?: readonly KeyGroupRange[]): Promise<Loaded> {
    const unknown = new Map<string, number>();
    let rows = 0;
    let bytes = 0;
    for (const stored of tables) {
      const target = this.target(stored);
      const { table, name } = target;
      const adopting = table === undefined || 'timers' in table || target.migrate !== undefined ? undefined : this.residency?.adopting(table);
      const apply: RowVisitor = (_, kind, key, ns, value) => {
        rows++;
        this.apply(target, kind, key, hashKey(key), ns, value);
      };
      for (const range of this.groupsOf(ranges)) {
        for await (const page of base.pages(stored.number, range)) {
          for (const [key, value] of page) bytes += key.length + value.length;
          if (table === undefined) unknown.set(name, (unknown.get(name) ?? 0) + page.length);
          else if (adopting === undefined) for (const [key, value] of page) linkedRows(stored, key, value, apply);
          else {
            const canonical = page.map(([key, value]) => [key.subarray(LINKED_HEAD), value] as const);
            rows += canonical.reduce((sum, [, value]) => sum + ('groups' in table ? new ByteReader(value).varint() : 1), 0);
            await adopting.put(canonical.map(([key, value]) => [key, murmur3(key), value] as const));
          }
          if (this.residency?.pressed === true) await this.residency.relieve();
        }
      }
    }
    return { rows, unknown, bytes };
  }

  /** Of these groups those that are the task's. */
  private groupsOf(ranges: readonly KeyGroupRange[] = [this.range]): KeyGroupRange[] {
    const cut = ranges.map(({ from, to }) => ({ from: Math.max(from, this.range.from), to: Math.min(to, this.range.to) }));
    return cut.filter(({ from, to }) => from <= to);
  }

  /** False where the table is not declared. */
  private apply({ table, version, migrate }: Target, kind: number, key: Key, hash: number, ns: unknown, value: unknown): boolean {
    if (table === undefined) return false;
    if ('timers' in table) {
      if (kind === TOMBSTONE) table.restoreTombstone(value as number, key, hash, ns as number);
      else table.restore(value as number, key, hash, ns as number);
    } else if (kind === TOMBSTONE) {
      table.restoreTombstone(key, hash, ns);
    } else if (kind === KEY_TOMBSTONE) {
      if ('groups' in table) table.restoreKeyTombstone(key, hash);
    } else {
      table.restore(key, hash, ns, migrate === undefined ? value : migrate(value, version, key, hash));
    }
    return true;
  }

  private target(header: TableHeader): Target {
    const name = `${header.uid}/${header.name}`;
    const number = this.ledger.headers.findIndex((each) => each.uid === header.uid && each.name === header.name);
    if (number === -1) return { table: undefined, name, version: header.version, migrate: undefined };
    const declared = this.ledger.headers[number]!;
    if (declared.layout !== header.layout) {
      throw new StateError('SNAPSHOT_INCOMPATIBLE', `State ${name} was stored as ${header.layout} and is declared as ${declared.layout}.`, {
        todo: 'Give the new kind of state another name.',
      });
    }
    if (declared.version === header.version) return { table: this.tables[number], name, version: header.version, migrate: undefined };
    const migrate = this.migrations[number];
    // Who migrates knows rows with and without times.
    const times = migrate === undefined ? Number.POSITIVE_INFINITY : EXPIRING;
    refuseVersion(name, header.version % times, declared.version % times, migrate !== undefined);
    return { table: this.tables[number], name, version: header.version, migrate };
  }

  // ── units ──

  beginUnit(): void {
    this.ledger.beginUnit();
  }

  commitUnit(): void {
    this.ledger.commitUnit();
    this.residency?.check();
  }

  rollbackUnit(): void {
    this.ledger.rollbackUnit();
    this.residency?.check();
  }

  // ── residency ──

  get pressed(): boolean {
    return this.residency?.pressed ?? false;
  }

  maintain(): void {
    this.residency?.maintain();
  }

  async relieve(): Promise<void> {
    if (this.residency === undefined) return;
    const begun = performance.now();
    try {
      await this.residency.relieve();
    } finally {
      this.stallMs += performance.now() - begun;
    }
  }

  // ── snapshots ──

  freeze(id: number): void {
    this.residency?.check();
    this.ledger.freeze(id);
  }

  encode(deadline: number): boolean {
    return this.ledger.encode(deadline);
  }

  takeDeltas(): Delta[] {
    return this.ledger.takeDeltas();
  }

  get unsettled(): boolean {
    return this.settling.some((unsettled) => unsettled());
  }

  sweep(): Sweep {
    if (this.sweeping !== undefined) throw new StateError('STATE_MISUSED', 'A second sweep was begun while one goes on.');
    if (this.ledger.lastFrozen === -1) throw new StateError('STATE_MISUSED', 'A sweep was begun before the first barrier.');
    const sweep = new TableSweep(this.ledger, this.tables, this.residency?.sweep(), () => {
      this.sweeping = undefined;
    });
    this.sweeping = sweep;
    return sweep;
  }

  // ── looking ──

  stats(): StateStats {
    const { stallMs } = this;
    if (this.residency !== undefined) return { ...this.residency.stats(), stallMs };
    const rows = this.tables.reduce((sum, table) => sum + table.size, 0);
    return { rows, residentRows: rows, residentBytes: 0, hits: 0, misses: 0, writeMs: 0, stallMs };
  }

  look(): Looking {
    return new TaskLooking(this.tables);
  }
}
