// What can be wrong with a Kubernetes manifest or a compose file without anybody running it: references that lead nowhere. Pure: documents in, complaints out.

type Tree = { readonly [name: string]: unknown };

const tree = (value: unknown): Tree => (typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Tree) : {});
const trees = (value: unknown): Tree[] => (Array.isArray(value) ? value.map(tree) : []);
const text = (value: unknown): string => String(value);

/** With the version that each is served under. */
const KINDS: Readonly<Record<string, string>> = {
  ConfigMap: 'v1',
  NetworkPolicy: 'networking.k8s.io/v1',
  PodDisruptionBudget: 'policy/v1',
  Secret: 'v1',
  Service: 'v1',
  StatefulSet: 'apps/v1',
};
const MEMORY = /^\d+(\.\d+)?(Ki|Mi|Gi)$/;

export function kubernetesComplaints(documents: readonly unknown[]): string[] {
  const all = documents.map(tree);
  const complaints: string[] = [];
  const named = (kind: string, name: unknown): Tree | undefined => all.find((each) => each.kind === kind && tree(each.metadata).name === name);
  const seen = new Set<string>();
  for (const document of all) {
    const { kind, apiVersion } = document;
    const metadata = tree(document.metadata);
    const who = `${kind} ${metadata.name}`;
    if (KINDS[text(kind)] !== apiVersion) complaints.push(`${who}: ${kind} of ${apiVersion} is not known`);
    if (!/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text(metadata.name))) complaints.push(`${who}: that is no name`);
    if (seen.has(who)) complaints.push(`${who}: is there twice`);
    seen.add(who);
  }
  const sets = all.filter(({ kind }) => kind === 'StatefulSet');
  const podLabels = sets.map((set) => tree(tree(tree(tree(set.spec).template).metadata).labels));
  const selects = (selector: unknown): boolean => podLabels.some((labels) => matches(selector, labels));
  for (const document of all) {
    const who = `${document.kind} ${tree(document.metadata).name}`;
    const spec = tree(document.spec);
    if (document.kind === 'Service' && !selects(spec.selector)) complaints.push(`${who}: its selector selects no pod`);
    if (document.kind === 'PodDisruptionBudget' && !selects(tree(spec.selector).matchLabels)) complaints.push(`${who}: its selector selects no pod`);
    if (document.kind === 'NetworkPolicy' && !selects(tree(spec.podSelector).matchLabels)) complaints.push(`${who}: its selector selects no pod`);
    const ports =
      document.kind === 'Service'
        ? trees(spec.ports).map((port) => port.targetPort)
        : trees(spec.ingress).flatMap((rule) => trees(rule.ports).map(({ port }) => port));
    for (const port of document.kind === 'StatefulSet' ? [] : ports)
      if (!sets.some((set) => portsOf(set).some(({ name }) => name === port))) complaints.push(`${who}: no container has the port ${port}`);
  }
  for (const set of sets) complaints.push(...podComplaints(set, named));
  return complaints;
}

function containersOf(set: Tree): Tree[] {
  return trees(tree(tree(tree(set.spec).template).spec).containers);
}

function portsOf(set: Tree): Tree[] {
  return containersOf(set).flatMap(({ ports }) => trees(ports));
}

function matches(selector: unknown, labels: Tree): boolean {
  const entries = Object.entries(tree(selector));
  return entries.length > 0 && entries.every(([name, value]) => labels[name] === value);
}

function podComplaints(set: Tree, named: (kind: string, name: unknown) => Tree | undefined): string[] {
  const spec = tree(set.spec);
  const template = tree(spec.template);
  const pod = tree(template.spec);
  const who = `StatefulSet ${tree(set.metadata).name}`;
  const complaints: string[] = [];
  const complain = (what: string): void => void complaints.push(`${who}: ${what}`);
  if (!matches(tree(spec.selector).matchLabels, tree(tree(template.metadata).labels))) complain('its selector does not select its own pods');
  const headless = tree(named('Service', spec.serviceName)?.spec);
  if (headless.clusterIP !== 'None') complain(`${spec.serviceName} is no headless service`);
  if (!(Number(pod.terminationGracePeriodSeconds) > 30)) complain('a last checkpoint has no more time than a process that holds nothing');
  const volumes = [...trees(pod.volumes), ...trees(spec.volumeClaimTemplates).map((claim) => tree(claim.metadata))].map(({ name }) => name);
  const mounted = new Set<unknown>();
  for (const container of containersOf(set)) {
    const its = (what: string): void => complain(`${container.name}: ${what}`);
    if (!/:[\w][\w.-]*$/.test(text(container.image)) || /:latest$/.test(text(container.image))) its(`the image ${container.image} has no tag`);
    const ports = trees(container.ports);
    for (const { name, containerPort } of ports) if (!isPort(containerPort)) its(`${containerPort} is no port, of ${name}`);
    for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) {
      const { path, port } = tree(tree(container[probe]).httpGet);
      if (!['/health', '/ready'].includes(text(path))) its(`the ${probe} asks for ${path}`);
      if (!ports.some(({ name }) => name === port)) its(`the ${probe} asks the port ${port}, which it does not have`);
    }
    for (const mount of trees(container.volumeMounts)) {
      mounted.add(mount.name);
      if (!volumes.includes(mount.name)) its(`the volume ${mount.name} is not there`);
    }
    const names = trees(container.env).map(({ name }) => name);
    if (new Set(names).size !== names.length) its('a variable is there twice');
    for (const { name, value, valueFrom } of trees(container.env)) {
      const { secretKeyRef, configMapKeyRef, fieldRef } = tree(valueFrom);
      const secret = tree(secretKeyRef);
      const config = tree(configMapKeyRef);
      if (secretKeyRef !== undefined) {
        const { stringData, data } = named('Secret', secret.name) ?? {};
        if (!(text(secret.key) in tree(stringData)) && !(text(secret.key) in tree(data)))
          its(`${name}: there is no ${secret.key} in the secret ${secret.name}`);
      } else if (configMapKeyRef !== undefined) {
        if (!(text(config.key) in tree(named('ConfigMap', config.name)?.data))) its(`${name}: there is no ${config.key} in the map ${config.name}`);
      } else if (fieldRef === undefined && value === undefined) its(`${name} has no value`);
    }
    const { requests, limits } = tree(container.resources);
    for (const { memory } of [tree(requests), tree(limits)]) if (!MEMORY.test(text(memory))) its(`${memory} is no size of memory`);
    const command = Array.isArray(container.command) ? container.command.map(text) : [];
    const heapMiB = Number(/--max-old-space-size=(\d+)/.exec(command.join(' '))?.[1]);
    if (!(heapMiB * 1.5 <= mebibytes(text(tree(limits).memory)))) its('the heap leaves no room in its memory');
  }
  for (const volume of volumes) if (!mounted.has(volume)) complain(`nobody mounts the volume ${volume}`);
  return complaints;
}

function mebibytes(size: string): number {
  const [, n, unit] = /^([\d.]+)(Ki|Mi|Gi)$/.exec(size) ?? [];
  return Number(n) * { Ki: 1 / 1024, Mi: 1, Gi: 1024 }[unit as 'Ki' | 'Mi' | 'Gi'];
}

function isPort(value: unknown): boolean {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) < 65_536;
}

/** `options`: those that `millrace worker` knows. */
export function composeComplaints(document: unknown, options: readonly string[]): string[] {
  const file = tree(document);
  const services = tree(file.services);
  const complaints: string[] = [];
  const used = { volumes: new Set<string>(), networks: new Set<string>(), secrets: new Set<string>() };
  for (const [name, value] of Object.entries(services)) {
    const service = tree(value);
    const complain = (what: string): void => void complaints.push(`${name}: ${what}`);
    if (!/^[^:@]+(\/[^:@]+)*:[\w][\w.-]*$/.test(text(service.image)) || /:latest$/.test(text(service.image))) complain(`the image ${service.image} has no tag`);
    for (const [other, how] of Object.entries(tree(service.depends_on))) {
      if (!(other in services)) complain(`depends on ${other}, which is not there`);
      else if (tree(how).condition === 'service_healthy' && tree(services[other]).healthcheck === undefined)
        complain(`waits for the health of ${other}, which has no check`);
    }
    for (const port of Array.isArray(service.ports) ? service.ports : [])
      if (!/^(127\.0\.0\.1:)?\d{1,5}:\d{1,5}$/.test(text(port))) complain(`${text(port)} is no port`);
    for (const mount of Array.isArray(service.volumes) ? service.volumes.map(text) : []) {
      const [volume, target] = mount.split(':');
      if (target?.startsWith('/') !== true) complain(`${mount} is no mount`);
      if (!volume!.startsWith('.') && !volume!.startsWith('/')) used.volumes.add(volume!);
    }
    for (const each of ['networks', 'secrets'] as const) for (const item of Array.isArray(service[each]) ? service[each].map(text) : []) used[each].add(item);
    const command = Array.isArray(service.command) ? service.command.map(text) : [];
    if (command[0] !== 'worker') continue;
    for (const option of command.filter((each) => each.startsWith('--'))) if (!options.includes(option)) complain(`millrace worker has no option ${option}`);
    const after = (option: string): string => command[command.indexOf(option) + 1] ?? '';
    if (after('--advertise') !== name) complain(`it says that it is ${after('--advertise')}`);
    for (const server of after('--zookeeper').split(',')) {
      const [host, port] = server.split(':');
      if (!(host! in services) || !isPort(Number(port))) complain(`no ensemble is at ${server}`);
    }
    const secret = /^\/run\/secrets\/(.+)$/.exec(after('--secret-file'))?.[1];
    if (secret === undefined || !(Array.isArray(service.secrets) && service.secrets.includes(secret))) complain('it has no secret of the cluster');
    if (command.at(-1)!.startsWith('--') || !/\.[cm]?js$/.test(command.at(-1)!)) complain('it names no module');
  }
  for (const each of ['volumes', 'networks', 'secrets'] as const) {
    const there = Object.keys(tree(file[each]));
    for (const item of used[each]) if (!there.includes(item)) complaints.push(`${each}: ${item} is used and not there`);
    for (const item of there) if (!used[each].has(item)) complaints.push(`${each}: ${item} is there and not used`);
  }
  return complaints;
}
