/** `ambit cni render`: prints the redirection rules of a pod, for `nft -f` and for people (CNI-145). */
import { ConfigDefinition, type ConfigOf, defineConfig, list, toggle } from "../base/config.ts";
import { MeshError } from "../base/errors.ts";
import { redirectionTables } from "./nft_rules.ts";
import { renderNftText } from "./nft_text.ts";

export const RENDER_CONFIG = defineConfig("ambit cni render", {
  ipv6: { kind: toggle(), flag: "ipv6", env: "AMBIENT_IPV6", default: true, help: "rules for IPv6 too" },
  dnsCapture: {
    kind: toggle(),
    flag: "dns-capture",
    env: "AMBIENT_DNS_CAPTURE",
    default: false,
    help: "redirect DNS queries too",
  },
  ingress: { kind: toggle(), flag: "ingress", default: false, help: "leave inbound traffic alone" },
  virtualInterfaces: {
    kind: list("NAME,NAME"),
    flag: "virtual-interfaces",
    default: Object.freeze([]) as readonly string[],
    help: "interfaces whose inbound traffic counts as outbound",
  },
});

/** Throws AMB7109 for a name that no interface can have (CNI-095). */
function render(config: ConfigOf<typeof RENDER_CONFIG.table>): string {
  const wrong = config.virtualInterfaces.find((name) => !/^[^\s/"]{1,15}$/.test(name));
  if (wrong === undefined) return renderNftText(redirectionTables(config));
  throw new MeshError("AMB7109", `${JSON.stringify(wrong)} is no name of a network interface`, {
    remedy: "Give names of 1 to 15 characters, without slashes, quotes and spaces.",
  });
}

/** @returns 0. Throws MeshError for flags that are not there. */
export function runRender(args: readonly string[]): Promise<number> {
  const text = ConfigDefinition.wantsHelp(args)
    ? RENDER_CONFIG.help("Prints the rules that an enrolled network namespace gets, as nft -f reads them.")
    : render(RENDER_CONFIG.parse(args, (name) => Deno.env.get(name)).config);
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  return Promise.resolve(0);
}
