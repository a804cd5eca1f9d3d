/** Annotations of our own, which nobody else has: what a pod leaves out of capture, where the node permits it (CNI-099). Pure. */
import { parseCidr } from "../../mesh/enrolment.ts";
import type { Texts } from "../enablement.ts";
import type { PodRuleOptions } from "../redirection/redirection.ts";

const PREFIX = "ambient.mesh/";
const OUTBOUND_PORTS = `${PREFIX}exclude-outbound-ports`, OUTBOUND_CIDRS = `${PREFIX}exclude-outbound-cidrs`;
const INBOUND_PORTS = `${PREFIX}exclude-inbound-ports`, GRACEFUL = `${PREFIX}graceful-enrol`;
const ALL = [OUTBOUND_PORTS, OUTBOUND_CIDRS, INBOUND_PORTS, GRACEFUL];
const ITEMS_MAX = 64, PORT_MAX = 65_535;

/** What stands in them; what cannot be read, or is not permitted, is captured like everything else, and named. */
export function extensionRules(
  annotations: Texts,
  { permitted }: { readonly permitted: boolean },
): { readonly rules: Pick<PodRuleOptions, "exclude" | "graceful">; readonly problems: readonly string[] } {
  const present = ALL.filter((name) => Object.hasOwn(annotations, name)), problems: string[] = [];
  if (present.length === 0) return { rules: {}, problems };
  if (!permitted) return { rules: {}, problems: present.map((name) => `${name} is not permitted on this node`) };
  const items = <T>(name: string, what: string, read: (text: string) => T | undefined): T[] => {
    const texts = present.includes(name)
      ? annotations[name]!.split(",").map((it) => it.trim()).filter((it) => it !== "")
      : [];
    const values = texts.slice(0, ITEMS_MAX).map(read).filter((it) => it !== undefined);
    if (values.length < texts.length) problems.push(`${name} names what is no ${what}, or more than ${ITEMS_MAX}`);
    return values;
  };
  const exclude = {
    outboundPorts: items(OUTBOUND_PORTS, "port", portOf),
    outboundCidrs: items(OUTBOUND_CIDRS, "range", (text) => parseCidr(text) === undefined ? undefined : text),
    inboundPorts: items(INBOUND_PORTS, "port", portOf),
  };
  const graceful = present.includes(GRACEFUL) ? annotations[GRACEFUL] : "false";
  if (graceful !== "true" && graceful !== "false") problems.push(`${GRACEFUL} is neither true nor false`);
  const excludes = Object.values(exclude).some((list) => list.length > 0);
  return { rules: { ...excludes && { exclude }, ...graceful === "true" && { graceful: true } }, problems };
}

function portOf(text: string): number | undefined {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= PORT_MAX ? port : undefined;
}
