/** `ambit doctor`: does this machine have what the roles need? Each finding comes with a cure. */
import { ConfigDefinition, defineConfig, oneOf } from "../base/config.ts";
import { chain } from "../base/errors.ts";
import { writeOut } from "../base/standard_output.ts";
import type { OpenSslFacts } from "../os/openssl_facts.ts";
import { missingCapabilities } from "../os/capabilities.ts";
import { NOT_TRIED, runTrials, type Trials } from "./doctor_probes.ts";

const OPEN_FILES_WANTED = 65_536; // two descriptors a connection, and thousands of connections
const LIBSSL_MAJOR_MIN = 3;
/** AES-GCM by VAES and AVX-512 came with OpenSSL 3.1. */
const WIDE_AES_VERSION = [3, 1] as const;
const CURE_OPENSSL = "build a current OpenSSL with `deno task openssl`, or name one with AMBIT_OPENSSL";

export const DOCTOR_CONFIG = defineConfig("ambit doctor", {
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text",
    help: "form of the answer",
  },
});

/** `fail`: a role does not work. `warn`: it works, with less. */
export interface Finding {
  readonly check: string;
  readonly status: "ok" | "warn" | "fail";
  readonly found: string;
  /** What to do, when the status is not `ok`. */
  readonly cure?: string;
}

/** Everything the findings are made from, so that judging is apart from looking. */
export interface Facts {
  readonly os: string;
  readonly arch: string;
  readonly kernel: string;
  readonly missingCapabilities: readonly string[];
  readonly trials: Trials;
  /** Version, or why the library could not be loaded. */
  readonly libssl: OpenSslFacts | { readonly failure: string };
  /** The processor encrypts four blocks at once (VAES with AVX-512), for a library that knows how. */
  readonly wideAes: boolean;
  readonly openFilesSoft: number;
  readonly openFilesHard: number;
  /** `/proc/sys/user/max_user_namespaces` and the like; undefined where the kernel has no such switch. */
  readonly userNamespacesMax: number | undefined;
  readonly userNamespacesForAll: boolean;
}

/** @param more Looks at what other rooms know of: a node of a cluster. @returns 0 when nothing fails, 1 when something does. */
export async function runDoctor(args: string[], more: () => Promise<readonly Finding[]>): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) {
    writeOut(
      DOCTOR_CONFIG.help("Checks kernel, privileges, libraries and limits, and tells the cure for what is missing."),
    );
    return 0;
  }
  const { config } = DOCTOR_CONFIG.parse(args, (variable) => Deno.env.get(variable));
  const findings = [...judge(await lookAround()), ...await more()];
  const failed = findings.filter(({ status }) => status === "fail").length;
  writeOut(config.output === "json" ? JSON.stringify({ findings, failed }, null, 2) + "\n" : formatFindings(findings));
  return failed === 0 ? 0 : 1;
}

/** The findings, the most basic first. Pure. */
export function judge(facts: Facts): Finding[] {
  const { trials } = facts;
  const supported = facts.os === "linux" && (facts.arch === "x86_64" || facts.arch === "aarch64");
  const root = "run as root, or grant the capabilities above (systemd: AmbientCapabilities=)";
  const config = (option: string) => `${root}; if it still fails, use a kernel with ${option}`;
  return [
    finding("system", supported ? undefined : "not 64-bit Linux on x86-64 or arm64", {
      found: `${facts.os} ${facts.kernel} on ${facts.arch}`,
      cure: "run it on 64-bit Linux, x86-64 or arm64",
    }),
    finding(
      "capabilities",
      facts.missingCapabilities.length > 0 ? `missing: ${facts.missingCapabilities.join(", ")}` : undefined,
      { found: "all that ztunnel and cni need", cure: "run ztunnel and cni as root, or grant the missing ones" },
    ),
    finding("network namespaces", trials.netns, { found: "can be created and entered", cure: config("CONFIG_NET_NS") }),
    userNamespaces(facts),
    finding("veth pairs", trials.veth, { found: "can be created", cure: config("CONFIG_VETH") }),
    finding("policy routes", trials.policyRoutes, {
      found: "rules by mark and tables of their own",
      cure: config("CONFIG_IP_MULTIPLE_TABLES"),
    }),
    finding("nf_tables", trials.nfTables, {
      found: "tables, marks, zones and redirection over netlink",
      cure: config("CONFIG_NF_TABLES, NF_TABLES_INET, NFT_CT, NFT_NAT and NFT_REDIR"),
    }),
    finding("conntrack", trials.originalDestination, {
      found: "a redirected connection tells its original destination",
      cure: config("CONFIG_NF_CONNTRACK and NF_CONNTRACK_MARK"),
    }),
    finding("transparent sockets", trials.transparent, { found: "IP_TRANSPARENT can be set", cure: root }),
    finding("socket marks", trials.mark, { found: "SO_MARK can be set", cure: root }),
    libssl(facts),
    ...opensslExtras(facts),
    openFiles(facts),
  ];
}

/** A line a finding, its cure below. */
export function formatFindings(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, status, found, cure }) => [
    `${status.padEnd(4)}  ${check.padEnd(width)}  ${found}`,
    ...(cure === undefined ? [] : [`      ${"".padEnd(width)}  try: ${cure}`]),
  ]);
  const failed = findings.filter(({ status }) => status === "fail").length;
  const verdict = failed === 0 ? "all roles can run here" : `${failed} of ${findings.length} checks failed`;
  return [...lines, verdict].join("\n") + "\n";
}

function finding(check: string, failure: string | undefined, texts: { found: string; cure: string }): Finding {
  return failure === undefined ? { check, status: "ok", found: texts.found } : {
    check,
    status: "fail",
    found: failure,
    cure: failure === NOT_TRIED ? "cure what failed above first" : texts.cure,
  };
}

/** Only whoever has no root needs them, so they never fail. */
function userNamespaces(facts: Facts): Finding {
  const off = facts.userNamespacesMax === undefined || facts.userNamespacesMax === 0;
  const check = "user namespaces";
  if (!off && facts.userNamespacesForAll) return { check, status: "ok", found: "can be created without privilege" };
  const cure =
    "to try the mesh without root: sysctl user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1, " +
    "kernel.apparmor_restrict_unprivileged_userns=0, where they exist";
  return { check, status: "warn", found: off ? "none can be created" : "only root can create them", cure };
}

function libssl({ libssl }: Facts): Finding {
  const check = "libssl";
  const cure = `install OpenSSL ${LIBSSL_MAJOR_MIN}.0 or newer (Debian, Ubuntu: libssl3; Fedora: openssl-libs)`;
  if ("failure" in libssl) return { check, status: "fail", found: libssl.failure, cure };
  const old = Number(libssl.version.split(".")[0]) < LIBSSL_MAJOR_MIN;
  const found = `${libssl.version}, ${libssl.libssl}`;
  return finding(check, old ? `${libssl.version} is too old` : undefined, { found, cure });
}

/** Everything works without them. */
function opensslExtras({ libssl, wideAes }: Facts): Finding[] {
  if ("failure" in libssl) return [];
  const [major = 0, minor = 0] = libssl.version.split(".").map(Number);
  const knowsWide = major > WIDE_AES_VERSION[0] || (major === WIDE_AES_VERSION[0] && minor >= WIDE_AES_VERSION[1]);
  const rate = `AES-256-GCM at ${libssl.aesGbps.toFixed(1)} GB/s a thread`;
  return [
    wideAes && !knowsWide
      ? {
        check: "encryption",
        status: "warn",
        found: `${rate}; a newer OpenSSL is about twice as fast on this processor`,
        cure: CURE_OPENSSL,
      }
      : { check: "encryption", status: "ok", found: rate },
    libssl.postQuantum
      ? { check: "post-quantum", status: "ok", found: "key exchange by X25519MLKEM768" }
      : { check: "post-quantum", status: "warn", found: "no X25519MLKEM768 before OpenSSL 3.5", cure: CURE_OPENSSL },
  ];
}

/** ztunnel raises the soft limit to the hard one itself, so the hard one counts. */
function openFiles({ openFilesSoft, openFilesHard }: Facts): Finding {
  const check = "open files", found = `${openFilesSoft} soft, ${openFilesHard} hard`;
  if (openFilesHard >= OPEN_FILES_WANTED) return { check, status: "ok", found };
  const cure = `raise the hard limit to ${OPEN_FILES_WANTED} (systemd: LimitNOFILE=, shell: ulimit -Hn)`;
  return { check, status: "warn", found, cure };
}

async function lookAround(): Promise<Facts> {
  const limits = /^Max open files\s+(\S+)\s+(\S+)/m.exec(Deno.readTextFileSync("/proc/self/limits"));
  const limit = (text: string | undefined) => text === "unlimited" ? Infinity : Number(text ?? 0);
  return {
    os: Deno.build.os,
    arch: Deno.build.arch,
    kernel: Deno.osRelease(),
    missingCapabilities: missingCapabilities(["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"]),
    trials: runTrials(),
    libssl: await findLibssl(),
    wideAes: hasWideAes(Deno.readTextFileSync("/proc/cpuinfo")),
    openFilesSoft: limit(limits?.[1]),
    openFilesHard: limit(limits?.[2]),
    userNamespacesMax: sysctlNumber("user/max_user_namespaces"),
    userNamespacesForAll: sysctlNumber("kernel/unprivileged_userns_clone") !== 0 &&
      (sysctlNumber("kernel/apparmor_restrict_unprivileged_userns") ?? 0) === 0,
  };
}

/** What OpenSSL asks of a processor for its widest AES-GCM. */
export function hasWideAes(cpuinfo: string): boolean {
  const flags = new Set(/^flags\s*:\s*(.*)$/m.exec(cpuinfo)?.[1]?.split(" "));
  return ["avx512f", "avx512dq", "avx512bw", "avx512vl", "vaes", "vpclmulqdq"].every((flag) => flags.has(flag));
}

/** Loaded here and not at the top: that it cannot be loaded is a finding. */
async function findLibssl(): Promise<Facts["libssl"]> {
  try {
    const { opensslFacts } = await import("../os/openssl_facts.ts");
    return opensslFacts();
  } catch (error) {
    return { failure: `cannot be loaded: ${chain(error)}` };
  }
}

function sysctlNumber(path: string): number | undefined {
  try {
    return Number(Deno.readTextFileSync(`/proc/sys/${path}`).trim());
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}
