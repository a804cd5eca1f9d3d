/** `ambit cni render`: prints the redirection rules of a pod, for `nft -f` and for people (CNI-145). */
import { ConfigDefinition, defineConfig, list, toggle } from "../base/config.ts";
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

/** @returns 0. Throws MeshError for flags that are not there. */
export function runRender(args: readonly string[]): Promise<number> {
  const text = ConfigDefinition.wantsHelp(args)
    ? RENDER_CONFIG.help("Prints the rules that an enrolled network namespace gets, as nft -f reads them.")
    : renderNftText(redirectionTables(RENDER_CONFIG.parse(args, (name) => Deno.env.get(name)).config));
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  return Promise.resolve(0);
}
