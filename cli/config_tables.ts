/** What a ztunnel's `/config_dump` says, as tables: of ours, and of Istio's, which has the same form. Pure. */
import { columns } from "../base/columns.ts";
import { type Fields, isFields } from "../base/plain.ts";

export const SECTIONS = ["workloads", "services", "policies", "certificates", "connections"] as const;
export type Section = typeof SECTIONS[number];

export interface View {
  /** Undefined: of all. */
  readonly namespace: string | undefined;
  readonly nowMs: number;
}

const DAY_MS = 86_400_000, HOUR_MS = 3_600_000, MINUTE_MS = 60_000;

/** The part of the dump that is asked for, as it stands there. */
export function sectionOf(dump: Fields, section: Section): unknown {
  return dump[section === "connections" ? "workloadState" : section] ?? [];
}

export function formatSection(dump: Fields, section: Section, view: View): string {
  const [headings, rows] = TABLES[section](dump, view);
  return rows.length === 0 ? `no ${section}\n` : columns(headings, rows);
}

type Table = readonly [headings: readonly string[], rows: readonly (readonly string[])[]];

const TABLES: Readonly<Record<Section, (dump: Fields, view: View) => Table>> = {
  workloads: (dump, { namespace }) => [
    ["NAMESPACE", "NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL", "STATUS"],
    within(listOf(dump.workloads), namespace).map((it) => [
      text(it.namespace),
      text(it.name),
      listOf(it.workloadIps, String).join(",") || text(it.hostname),
      text(it.node),
      lastPart(fieldsOf(it.waypoint).destination),
      text(it.protocol),
      text(it.status),
    ]),
  ],
  services: (dump, { namespace }) => [
    ["NAMESPACE", "NAME", "ADDRESS", "WAYPOINT", "ENDPOINTS"],
    within(listOf(dump.services), namespace).map((it) => {
      const endpoints = Object.values(fieldsOf(it.endpoints)).map(fieldsOf);
      const healthy = endpoints.filter(({ status }) => status === "Healthy").length;
      return [
        text(it.namespace),
        text(it.name),
        listOf(it.vips, String).map(lastPart).join(","),
        lastPart(fieldsOf(it.waypoint).destination),
        `${healthy}/${endpoints.length}`,
      ];
    }),
  ],
  policies: (dump, { namespace }) => [
    ["NAMESPACE", "NAME", "ACTION", "SCOPE", "RULES", "DRY RUN"],
    within(listOf(dump.policies), namespace).map((it) => [
      text(it.namespace),
      text(it.name),
      text(it.action),
      text(it.scope),
      String(listOf(it.rules, (rule) => rule).length),
      it.dryRun === true ? "yes" : "no",
    ]),
  ],
  certificates: (dump, { namespace, nowMs }) => [
    ["IDENTITY", "TYPE", "STATE", "SERIAL NUMBER", "NOT AFTER", "EXPIRES IN"],
    listOf(dump.certificates)
      .filter(({ identity }) => namespace === undefined || text(identity).includes(`/ns/${namespace}/`))
      .flatMap((it) => {
        const chain = listOf(it.certChain), roots = listOf(it.rootCerts);
        const typed = [
          ...chain.map((certificate, at) => [at === 0 ? "leaf" : "intermediate", certificate] as const),
          ...roots.map((certificate) => ["root", certificate] as const),
        ];
        if (typed.length === 0) return [[text(it.identity), "", text(it.state), "", "", ""]];
        return typed.map(([type, certificate]) => [
          text(it.identity),
          type,
          text(it.state),
          serialText(certificate.serialNumber),
          text(certificate.expirationTime),
          remaining(Date.parse(text(certificate.expirationTime)) - nowMs),
        ]);
      }),
  ],
  connections: (dump, { namespace }) => {
    const names = namesByAddress(dump), place = (socket: unknown) => named(text(socket), names);
    const pods = Object.values(fieldsOf(dump.workloadState)).map(fieldsOf);
    const rows = pods.flatMap((pod) => {
      const info = fieldsOf(pod.info), connections = fieldsOf(pod.connections);
      if (namespace !== undefined && info.namespace !== namespace) return [];
      const workload = `${text(info.namespace)}/${text(info.name)}`;
      // An inbound connection comes from its source to us, an outbound one from us to where it really went.
      return [
        ...listOf(connections.inbound).map((it) => [
          workload,
          "inbound",
          place(it.actualDst),
          place(it.src),
          place(it.originalDst),
          text(it.protocol),
        ]),
        ...listOf(connections.outbound).map((it) => [
          workload,
          "outbound",
          place(it.src),
          place(it.actualDst),
          place(it.originalDst),
          text(it.protocol),
        ]),
      ];
    });
    return [["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "TARGET", "PROTOCOL"], rows];
  },
};

/** Of addresses and socket addresses, whose they are. */
function namesByAddress(dump: Fields): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const service of listOf(dump.services)) {
    for (const vip of listOf(service.vips, String)) names.set(lastPart(vip), text(service.hostname));
  }
  for (const { namespace, name, workloadIps } of listOf(dump.workloads)) {
    for (const ip of listOf(workloadIps, String)) names.set(ip, `${text(namespace)}/${text(name)}`);
  }
  return names;
}

/** `10.0.0.1:80` as `shop/web-1:80`, where the address is somebody's. */
function named(socket: string, names: ReadonlyMap<string, string>): string {
  const [, bracketed, plain, port] = /^(?:\[(.*)\]|([^:]*)):(\d+)$/.exec(socket) ?? [];
  const name = names.get(bracketed ?? plain ?? "");
  return name === undefined ? socket : `${name}:${port}`;
}

/** In hexadecimal, as logs and openssl write it; the dump has it in decimal. */
function serialText(value: unknown): string {
  const decimal = text(value); // At most 20 bytes (RFC 5280 §4.1.2.2).
  return /^\d{1,49}$/.test(decimal) ? BigInt(decimal).toString(16) : decimal;
}

/** Whole units, the larger two: what is left is looked at, not reckoned with. */
function remaining(ms: number): string {
  if (Number.isNaN(ms)) return "";
  if (ms <= 0) return "expired";
  const days = Math.floor(ms / DAY_MS), hours = Math.floor(ms % DAY_MS / HOUR_MS);
  const minutes = Math.floor(ms % HOUR_MS / MINUTE_MS);
  if (days > 0) return hours > 0 ? `${days}d${hours}h` : `${days}d`;
  return hours > 0 ? `${hours}h${minutes}m` : `${minutes}m`;
}

function within(items: readonly Fields[], namespace: string | undefined): readonly Fields[] {
  return namespace === undefined ? items : items.filter((it) => it.namespace === namespace);
}

function text(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? String(value) : "";
}

/** `network/10.0.0.1` and `namespace/host` without what stands before. */
function lastPart(value: unknown): string {
  return text(value).split("/").at(-1) ?? "";
}

function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}

function listOf(value: unknown): readonly Fields[];
function listOf<T>(value: unknown, as: (item: unknown) => T): readonly T[];
function listOf(value: unknown, as: (item: unknown) => unknown = fieldsOf): readonly unknown[] {
  return Array.isArray(value) ? value.map((item) => as(item)) : [];
}
