// How calls are tried again, declared once and used by name.
import { type AsyncMapOptions, type RetryPolicy, type Stream, seconds } from 'millrace';

const patient: RetryPolicy = { attempts: 5, backoff: { initial: 100, max: seconds(10) }, retryable: (error) => error instanceof TypeError };
const lookups: AsyncMapOptions = { capacity: 20, ordered: false, retry: patient };
declare const users: Stream<string>;
export const names: Stream<string> = users.asyncMap('names', async (user) => user.trim(), lookups);
