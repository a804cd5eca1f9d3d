/** `ambit cni render`: prints the redirection rules of a pod or of the node, for `nft -f`, for `iptables-restore` and for people (CNI-145). */
import { ConfigDefinition, type ConfigOf, defineConfig, oneOf, optional, text, toggle } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { isFields } from "../base/plain.ts";
import { writeOut } from "../base/standard_output.ts";
import type { IpFamily } from "../os/netlink/nft_model.ts";
import type { Texts } from "./enablement.ts";
import { hostTable } from "./host_probes.ts";
import { ruleOptionsOf } from "./kubernetes/node_pod.ts";
import { redirectionTables } from "./nft_rules.ts";
import { renderNftText } from "./nft_text.ts";
import { type IptablesRule, nodeRules, podRules } from "./redirection/iptables_rules.ts";
import { restoreText } from "./redirection/iptables_text.ts";

export const RENDER_CONFIG = defineConfig("ambit cni render", {
  backend: {
    kind: oneOf("nft", "iptables"),
    flag: "backend",
    default: "nft" as const,
    help: "whose text: nft -f reads the one, iptables-restore --noflush and ip6tables-restore --noflush the other",
  },
  podAnnotations: {
    kind: optional(text("JSON")),
    flag: "pod-annotations",
    default: undefined,
    defaultText: "none",
    help: `what the pod's annotations ask for, e.g. '{"ambient.istio.io/dns-capture":"true"}'`,
  },
  ipv6: { kind: toggle(), flag: "ipv6", env: "AMBIENT_IPV6", default: true, help: "rules for IPv6 too" },
  dnsCapture: {
    kind: toggle(),
    flag: "dns-capture",
    env: "AMBIENT_DNS_CAPTURE",
    default: false,
    help: "redirect DNS queries too, unless the pod says otherwise",
  },
  host: { kind: toggle(), flag: "host", default: false, help: "the node's own rules instead of a pod's" },
}, { examples: ["ambit cni render", "ambit cni render --backend iptables --host"] });

type RenderConfig = ConfigOf<typeof RENDER_CONFIG.table>;

/** The text. Throws AMB7109 for annotations that cannot be read. */
export function render(config: RenderConfig): string {
  const { backend, ipv6, dnsCapture, host } = config;
  const { rules, problems } = ruleOptionsOf({ annotations: annotationsOf(config.podAnnotations) }, {
    dnsCapture,
    ipv6,
  });
  if (problems.length > 0) throw unreadable(problems.join("; "));
  const families: readonly IpFamily[] = ipv6 ? ["ipv4", "ipv6"] : ["ipv4"];
  if (backend === "iptables") {
    return iptablesText(families, (family) => host ? nodeRules(family) : podRules({ ...rules, ipv6 }, family));
  }
  return renderNftText(host ? [hostTable(families)] : redirectionTables({ ...rules, ipv6 }));
}

function iptablesText(families: readonly IpFamily[], rulesOf: (family: IpFamily) => readonly IptablesRule[]): string {
  const program = { ipv4: "iptables-restore", ipv6: "ip6tables-restore" };
  return families.map((family) => `# ${program[family]} --noflush\n${restoreText(rulesOf(family))}`).join("");
}

function annotationsOf(text: string | undefined): Texts {
  if (text === undefined) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw unreadable("it is not JSON");
  }
  if (!isFields(value)) throw unreadable("it is no object");
  const strange = Object.entries(value).find(([, it]) => typeof it !== "string");
  if (strange !== undefined) throw unreadable(`${strange[0]} is not a text`);
  return value as Texts;
}

function unreadable(why: string): MeshError {
  return new MeshError("AMB7109", `--pod-annotations cannot be used: ${why}`, {
    remedy:
      "Give a JSON object of texts, as a pod's metadata.annotations: true or false, and names of interfaces with commas between.",
  });
}

/** @returns 0. Throws MeshError for flags that are not there. */
export function runRender(args: readonly string[]): Promise<number> {
  const printed = ConfigDefinition.wantsHelp(args)
    ? RENDER_CONFIG.help("Prints the rules that an enrolled network namespace gets, or the node itself.")
    : render(RENDER_CONFIG.parse(args, (name) => Deno.env.get(name)).config);
  writeOut(printed);
  return Promise.resolve(0);
}
