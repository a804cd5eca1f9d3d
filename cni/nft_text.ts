/** The rule model as commands of nft(8), for people and for golden tests (CNI-145). */
import type { FirewallTable, Statement } from "../os/netlink/nft_model.ts";

/** One transaction for `nft -f`: each table added, emptied, then filled (CNI-130). */
export function renderNftText(tables: readonly FirewallTable[]): string {
  return tables.flatMap((table) => [
    `add table inet ${table.name}`,
    `flush table inet ${table.name}`,
    ...(table.sets ?? []).map(({ name, family }) =>
      `add set inet ${table.name} ${name} { type ${family === "ipv4" ? "ipv4_addr" : "ipv6_addr"}; }`
    ),
    ...table.chains.map(({ name, base }) => {
      const hook = base === undefined ? "" : ` { type ${base.type} hook ${base.hook} priority ${base.priority}; }`;
      return `add chain inet ${table.name} ${name}${hook}`;
    }),
    ...table.rules.map(({ chain, statements }) =>
      `add rule inet ${table.name} ${chain} ${statements.map(statementText).join(" ")}`
    ),
  ]).join("\n") + "\n";
}

/** Takes tables away, those too that are not there (CNI-133). */
export function renderDeletionText(names: readonly string[]): string {
  return names.map((name) => `add table inet ${name}\ndelete table inet ${name}\n`).join("");
}

function statementText(statement: Statement): string {
  switch (statement.kind) {
    case "interface":
      return `${statement.direction === "in" ? "iifname" : "oifname"} ${not(statement)}"${statement.name}"`;
    case "transport":
      return `meta l4proto ${statement.transport}`;
    case "port":
      return `${statement.transport} ${statement.side === "source" ? "sport" : "dport"} ${
        not(statement)
      }${statement.port}`;
    case "address": {
      const header = statement.family === "ipv4" ? "ip" : "ip6";
      const length = statement.withPrefixLength ? statement.family === "ipv4" ? "/32" : "/128" : "";
      return `${header} ${statement.side === "source" ? "saddr" : "daddr"} ${not(statement)}${statement.ip}${length}`;
    }
    case "addressRange": {
      const header = statement.family === "ipv4" ? "ip" : "ip6", side = statement.side === "source" ? "saddr" : "daddr";
      return `${header} ${side} ${statement.ip}/${statement.prefixLength}`;
    }
    case "cgroup":
      return `socket cgroupv2 level ${statement.level} "${statement.path}"`;
    case "begins":
      return "tcp flags & (fin | syn | rst | ack) == syn";
    case "localDestination":
      return "fib daddr type local";
    case "mark":
      return `${statement.of === "packet" ? "meta" : "ct"} mark and ${hex(statement.mask)} ${
        statement.negated ? "!=" : "=="
      } ${hex(statement.value)}`;
    case "setConnectionMark":
      return `ct mark set ct mark and ${hex(statement.keep)} or ${hex(statement.set)}`;
    case "restoreMark":
      return "meta mark set ct mark";
    case "setZone":
      return `ct zone set ${statement.zone}`;
    case "redirect":
      return `redirect to :${statement.port}`;
    case "inSet": {
      const header = statement.family === "ipv4" ? "ip" : "ip6";
      return `${header} ${statement.side === "source" ? "saddr" : "daddr"} @${statement.set}`;
    }
    case "localSocket":
      return "meta skuid != 4294967295";
    case "sourceNat":
      return `snat ${statement.family === "ipv4" ? "ip" : "ip6"} to ${statement.ip}`;
    case "jump":
      return `jump ${statement.chain}`;
    case "counter":
    case "accept":
    case "drop":
    case "return":
      return statement.kind;
  }
}

const hex = (value: number) => `0x${value.toString(16)}`;
const not = ({ negated }: { readonly negated?: boolean }) => negated ? "!= " : "";
