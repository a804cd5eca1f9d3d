/** What the node agent says of its node, as a person reads it. Pure. */
import { columns } from "../base/columns.ts";
import type { NodeStatus } from "../mesh/enrolment.ts";

const HEADINGS = ["TARGET", "STATE", "POD", "SERVICE ACCOUNT", "PORTS"];

/** A line of ztunnel, a table of what is enrolled, and what is wrong with which. */
export function formatNodeStatus({ ztunnel, pods, problems }: NodeStatus): string {
  const { connections, synchronized } = ztunnel;
  const lines = [
    `ztunnel: ${connections === 0 ? "not connected" : synchronized ? "in sync" : "connected, not in sync"}`,
  ];
  if (pods.length === 0) lines.push("nothing is enrolled");
  else {
    // All ports of a namespace are captured, of a unit those that it declares.
    const portsOf = (pod: (typeof pods)[number]) =>
      pod.cgroup === undefined ? "all" : pod.inboundPorts?.join(",") ?? "";
    const rows = pods.map((pod) => [
      pod.target,
      pod.state,
      `${pod.namespace}/${pod.name}`,
      pod.serviceAccount,
      portsOf(pod),
    ]);
    lines.push("", columns(HEADINGS, rows).trimEnd());
  }
  const wrong = [...pods.flatMap((pod) => pod.problems.map((it) => `${pod.target}: ${it}`)), ...problems];
  if (wrong.length > 0) lines.push("", ...wrong.map((it) => `problem: ${it}`));
  return `${lines.join("\n")}\n`;
}
