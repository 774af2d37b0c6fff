// docs/deploy: what can be known of the files without a cluster to run them in.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { build, Place } from '../cli/millrace-process.ts';
import { composeComplaints, kubernetesComplaints } from './manifests.ts';
import { ROOT } from './source-tree.ts';

const textOf = (name: string): string => readFileSync(join(ROOT, 'docs/deploy', name), 'utf8');

function manifests(): Record<string, never>[] {
  return parseAllDocuments(textOf('kubernetes.yaml'), { strict: true }).map((document) => {
    expect([document.errors, document.warnings]).toEqual([[], []]);
    return document.toJS() as Record<string, never>;
  });
}
const compose = (): never => parse(textOf('compose.yaml'), { strict: true, merge: true }) as never;

/** Of `millrace worker`, as it says itself. */
let workerOptions: readonly string[];
beforeAll(async () => {
  build();
  const place = new Place();
  const { stdout } = await place.run('worker', '--help');
  await place.remove();
  workerOptions = [...stdout.matchAll(/^ +(?:-\w, )?(--[a-z][a-z-]*)/gm)].map(([, option]) => option!);
  expect(workerOptions).toContain('--zookeeper');
}, 180_000);

/** A file with one thing changed: the value at the path, or taken away where it is undefined. */
function changed<T>(value: T, path: readonly (string | number)[], to: unknown): T {
  const copy = structuredClone(value);
  let at = copy as Record<string | number, unknown>;
  for (const step of path.slice(0, -1)) at = at[step] as Record<string | number, unknown>;
  const last = path.at(-1)!;
  expect(at).toHaveProperty([String(last)]);
  if (to === undefined) delete at[last];
  else at[last] = to;
  return copy;
}

describe('the Kubernetes manifest', () => {
  it('leads nowhere into the void', () => {
    expect(kubernetesComplaints(manifests())).toEqual([]);
  });

  it('runs three replicas, which end in time for a checkpoint, one at a time', () => {
    const [set] = manifests().filter(({ kind }) => kind === 'StatefulSet');
    expect(set).toMatchObject({ spec: { replicas: 3, podManagementPolicy: 'Parallel' } });
    expect(manifests().filter(({ kind }) => kind === 'PodDisruptionBudget')).toMatchObject([{ spec: { maxUnavailable: 1 } }]);
  });

  const index = (kind: string): number => manifests().findIndex((each) => each.kind === kind);
  const set = index('StatefulSet');
  const pod = [set, 'spec', 'template', 'spec'];
  const container = [...pod, 'containers', 0];
  it.each<[what: string, path: (string | number)[], to: unknown, complaint: RegExp]>([
    ['an old version', [index('PodDisruptionBudget'), 'apiVersion'], 'policy/v1beta1', /is not known/],
    ['a kind that is none', [index('Secret'), 'kind'], 'Secrets', /is not known/],
    ['other labels', [set, 'spec', 'template', 'metadata', 'labels', 'app'], 'other', /does not select its own pods/],
    ['a service that selects nothing', [index('Service'), 'spec', 'selector', 'app'], 'other', /selects no pod/],
    ['a service that is not headless', [index('Service'), 'spec', 'clusterIP'], undefined, /is no headless service/],
    ['a probe of a port that is not there', [...container, 'readinessProbe', 'httpGet', 'port'], 'web', /asks the port web/],
    ['a probe of nothing', [...container, 'livenessProbe', 'httpGet', 'path'], '/alive', /asks for \/alive/],
    ['a mount of no volume', [...container, 'volumeMounts', 0, 'name'], 'disk', /the volume disk is not there/],
    ['a secret that has no such key', [...container, 'env', 2, 'valueFrom', 'secretKeyRef', 'key'], 'none', /there is no none in the secret/],
    ['a setting that is not there', [...container, 'env', 1, 'valueFrom', 'configMapKeyRef', 'name'], 'none', /in the map none/],
    ['an image without a tag', [...container, 'image'], 'images.example:5000/orders', /has no tag/],
    ['no time to end in', [...pod, 'terminationGracePeriodSeconds'], 30, /has no more time/],
    ['a heap as large as its memory', [...container, 'resources', 'limits', 'memory'], '1Gi', /leaves no room/],
  ])('with %s would be complained about', (_, path, to, complaint) => {
    expect(kubernetesComplaints(changed(manifests(), path, to)).join('\n')).toMatch(complaint);
  });
});

describe('the compose file', () => {
  it('leads nowhere into the void', () => {
    expect(composeComplaints(compose(), workerOptions)).toEqual([]);
  });

  it('has an ensemble of three and three workers', () => {
    const names = Object.keys((compose() as { services: object }).services);
    expect(names).toEqual(['zk1', 'zk2', 'zk3', 'kafka', 'worker1', 'worker2', 'worker3']);
  });

  it.each<[what: string, path: (string | number)[], to: unknown, complaint: RegExp]>([
    [
      'a service that waits for another one that is not there',
      ['services', 'worker1', 'depends_on'],
      { zk9: { condition: 'service_started' } },
      /depends on zk9/,
    ],
    ['a health that nobody looks at', ['services', 'kafka', 'healthcheck'], undefined, /health of kafka/],
    ['an image without a tag', ['services', 'kafka', 'image'], 'apache/kafka', /has no tag/],
    ['the newest image there is', ['services', 'kafka', 'image'], 'apache/kafka:latest', /has no tag/],
    ['an option that is none', ['services', 'worker1', 'command', 1], '--zk', /no option --zk/],
    ['a worker that gives itself out for another', ['services', 'worker2', 'command', 12], 'worker1', /says that it is worker1/],
    ['an ensemble that is elsewhere', ['services', 'worker2', 'command', 2], 'zk4:2181', /no ensemble is at zk4/],
    ['a worker without the secret', ['services', 'worker3', 'secrets'], [], /no secret of the cluster/],
    ['a volume that is not there', ['volumes', 'checkpoints'], undefined, /checkpoints is used and not there/],
    ['a volume that nobody wants', ['volumes'], { ...(compose() as { volumes: object }).volumes, other: {} }, /other is there and not used/],
  ])('with %s would be complained about', (_, path, to, complaint) => {
    expect(composeComplaints(changed(compose(), path, to), workerOptions).join('\n')).toMatch(complaint);
  });

  it('says port by port what it publishes, where it does', () => {
    const file = compose() as { services: { kafka: object } };
    const published = (ports: unknown) =>
      composeComplaints({ ...file, services: { ...file.services, kafka: { ...file.services.kafka, ports } } }, workerOptions);
    expect(published(['127.0.0.1:9092:9092'])).toEqual([]);
    expect(published(['9092:kafka'])).toEqual(['kafka: 9092:kafka is no port']);
  });
});

describe('the page about deploying', () => {
  it('leads to files that are there', () => {
    const page = readFileSync(join(ROOT, 'docs/deploy.md'), 'utf8');
    const links = [...page.matchAll(/\]\(([^)#]+)(#[^)]*)?\)/g)].map(([, path]) => path!);
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((path) => !existsSync(join(ROOT, 'docs', path)))).toEqual([]);
  });

  it('has the defaults and paths that the manifest has', () => {
    const text = textOf('kubernetes.yaml');
    for (const name of ['ZOOKEEPER', 'ZOOKEEPER_AUTH', 'CLUSTER_SECRET', 'POD_IP', 'CHECKPOINT_BUCKET', 'READ_TOKEN', 'OPERATE_TOKEN'])
      expect([name, text.includes(`name: ${name},`), readFileSync(join(ROOT, 'docs/deploy.md'), 'utf8').includes(`env('${name}')`)]).toEqual([
        name,
        true,
        true,
      ]);
  });
});
