// What tests of the Postgres connector share: a connection of their own to the shared server, and tables with random names.

import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { postgresForTests } from '../../services/postgres.ts';

export class Database {
  readonly url: string;
  readonly #client: pg.Client;

  private constructor(url: string, client: pg.Client) {
    this.url = url;
    this.#client = client;
  }

  static async open(url?: string): Promise<Database> {
    const to = url ?? (await postgresForTests());
    const client = new pg.Client({ connectionString: to });
    // A test may kill the server.
    client.on('error', () => {});
    await client.connect();
    return new Database(to, client);
  }

  async query(text: string, values?: unknown[]): Promise<Record<string, unknown>[]> {
    return (await this.#client.query(text, values)).rows;
  }

  /** Its name. */
  async table(columns: string): Promise<string> {
    const name = `t_${randomBytes(6).toString('hex')}`;
    await this.query(`CREATE TABLE ${name} (${columns})`);
    return name;
  }

  /** Of the first column, ascending. */
  async numbers(table: string, column = 'n'): Promise<number[]> {
    return (await this.query(`SELECT ${column} FROM ${table} ORDER BY ${column}`)).map((row) => Number(row[column]));
  }

  close(): Promise<void> {
    return this.#client.end();
  }
}

/** A lineage that no other test has. */
export function lineage(): string {
  return randomBytes(6).toString('hex');
}
