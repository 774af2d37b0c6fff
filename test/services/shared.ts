// Servers that all test files of a run share: each starts when the first file asks for it, and ends with the run.
//
// They belong to the main process of the run (global-setup.ts), which a worker asks through a socket whose path stands in the environment. What is no test run (a
// script, a process started by hand) has them to itself, until it ends.

import { connect } from 'node:net';

/** The path of the socket. */
export const SERVICES = 'MILLRACE_TEST_SERVICES';

/** A running server: what others need to know of it, plain data. */
export interface Held<T> {
  readonly value: T;
  close(): Promise<void>;
}

const asked = new Map<string, Promise<unknown>>();

/** What is known of the shared server of that name; `start` where there is no run to share it with. */
export function shared<T>(name: string, start: () => Promise<Held<T>>): Promise<T> {
  let answer = asked.get(name);
  if (answer === undefined) {
    const path = process.env[SERVICES];
    answer = path === undefined ? start().then(({ value }) => value) : ask(path, name);
    asked.set(name, answer);
  }
  return answer as Promise<T>;
}

function ask(path: string, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let got = '';
    const socket = connect(path, () => socket.end(`${name}\n`));
    socket.setEncoding('utf8');
    socket.on('data', (text) => {
      got += text;
    });
    socket.once('error', reject);
    socket.once('close', () => {
      if (got === '') return reject(new Error(`The test run does not answer for '${name}'.`));
      const { value, error } = JSON.parse(got) as { value?: unknown; error?: string };
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    });
  });
}
