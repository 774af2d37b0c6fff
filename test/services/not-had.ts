// What is said when a service cannot be had: its tests are left out, never silently, and in CI that is an error.

export function notHad(service: string, why: string): void {
  const said = `No ${service}: ${why}.`;
  if (process.env.CI === 'true') throw new Error(said);
  console.warn(`${said} Its tests are left out.`);
}
