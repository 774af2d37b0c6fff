// Where everything lies, below the root that the client was given:
//
//   <root>
//   ├─ <any path>                          configurations, written by whoever owns them (config-source.ts)
//   ├─ services/<service>/<id>             ephemeral: an endpoint (services.ts)
//   ├─ locks/<name>/<id>-<number>          ephemeral, numbered: who holds a lock, and who waits for it (lock.ts)
//   ├─ barriers/<name>/…                   who has come (barrier.ts)
//   └─ cluster
//      ├─ members/<id>                     ephemeral: address, slots, version, plan hashes (membership.ts)
//      ├─ leader                           who leads; its version is the epoch (election.ts)
//      ├─ candidates/<id>-<number>         ephemeral, numbered: the lowest leads, each of the others watches the one before it
//      ├─ jobs/<job>                       which jobs should run, with which options, until when (job-store.ts)
//      ├─ results/<job>                    how those ended that are over
//      └─ registries/<job>                 the checkpoint registry (registry.ts)
//         ├─ state                         attempt, lineage, outcome …
//         ├─ counter                       ids up to this one are reserved
//         ├─ checkpoints/<19-digit id>     a pointer each
//         └─ storage                       by which file a process sees that it has the same storage (shared-storage.ts)
//
// Pointers only: the bytes of checkpoints lie in their storage. Several clusters share an ensemble under roots of their own.

export const CLUSTER = '/cluster';
export const SERVICES = '/services';
export const LOCKS = '/locks';
export const BARRIERS = '/barriers';

/** The folders of a cluster. */
export const MEMBERS = `${CLUSTER}/members`;
export const LEADER = `${CLUSTER}/leader`;
export const CANDIDATES = `${CLUSTER}/candidates`;
export const JOBS = `${CLUSTER}/jobs`;
export const RESULTS = `${CLUSTER}/results`;

export function registryOf(job: string): { readonly state: string; readonly counter: string; readonly checkpoints: string; readonly storage: string } {
  const folder = `${CLUSTER}/registries/${job}`;
  return { state: `${folder}/state`, counter: `${folder}/counter`, checkpoints: `${folder}/checkpoints`, storage: `${folder}/storage` };
}

/** A name that a user gives, as the name of one node: whatever it is, it cannot leave its folder. */
export function nodeName(name: string): string {
  const encoded = encodeURIComponent(name);
  return encoded === '.' || encoded === '..' ? encoded.replaceAll('.', '%2E') : encoded;
}

/** Whether it is a path that a server takes: `/a/b`, without empty, `.` and `..` parts. */
export function isPath(path: unknown): path is string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what servers refuse.
  return typeof path === 'string' && /^(\/[^/\u0000-\u001f\u007f-\u009f\ud800-\uf8ff\ufff0-\uffff]+)+$/.test(path) && !/\/\.{1,2}(\/|$)/.test(path);
}
