// Trials whose checkpoints lie in an S3 bucket, behind a proxy at which a test can make requests fail: one server and one input for the tests of a file.

import { afterAll, afterEach, beforeAll, onTestFinished } from 'vitest';
import { ensureBuilt, Input, Trial } from '../e2e/trial.ts';
import { FaultyProxy } from './faulty-proxy.ts';
import { KEYS, S3Server } from './s3-server.ts';

export class S3Trials {
  server!: S3Server;
  proxy!: FaultyProxy;
  #input!: Input;
  #trials = 0;

  /** Of the tests of the `describe` it is called in. */
  static here(): S3Trials {
    const trials = new S3Trials();
    beforeAll(async () => {
      ensureBuilt();
      trials.#input = new Input('wc', { records: 20_000, files: [0.5, 0.3, 0.2] });
      trials.server = await S3Server.start();
      trials.proxy = await FaultyProxy.start(trials.server);
    }, 180_000);
    afterAll(async () => {
      await trials.proxy.close();
      await trials.server.close();
      trials.#input.remove();
    });
    afterEach(() => {
      trials.proxy.decide = () => undefined;
    });
    return trials;
  }

  /** A prefix of its own in the bucket. */
  place() {
    this.#trials += 1;
    return {
      bucket: this.server.bucket,
      prefix: `trial-${this.#trials}`,
      endpoint: this.proxy.endpoint,
      credentials: KEYS,
      retries: 2,
      backoff: { initial: 1, max: 5 },
    };
  }

  trial(settings: object): Trial {
    const trial = new Trial(this.#input, { every: 5, s3: this.place(), ...settings });
    onTestFinished(() => trial.remove());
    return trial;
  }
}
