/** What `ambit status` prints. */
import { assertEquals } from "@std/assert";
import { formatNodeStatus } from "./node_status.ts";

Deno.test("formatNodeStatus() aligns what is enrolled, and says last what is wrong and with which", () => {
  const pod = {
    uid: "u",
    namespace: "shop",
    serviceAccount: "web",
    state: "enrolled",
    netnsInode: 1,
    problems: [],
  } as const;
  const text = formatNodeStatus({
    ztunnel: { connections: 1, synchronized: true },
    pods: [
      { ...pod, target: "netns/web-1", name: "web-1" },
      {
        ...pod,
        target: "unit/db.service",
        name: "db-0",
        cgroup: "/system.slice/db.service",
        inboundPorts: [5432, 5433],
      },
      {
        ...pod,
        target: "unit/cron.service",
        name: "cron-0",
        cgroup: "/x",
        inboundPorts: [],
        problems: ["no such unit"],
      },
    ],
    problems: ["web.yaml:3: spec.target is missing"],
  });
  assertEquals(
    text,
    `ztunnel: in sync

TARGET              STATE      POD           SERVICE ACCOUNT   PORTS
netns/web-1         enrolled   shop/web-1    web               all
unit/db.service     enrolled   shop/db-0     web               5432,5433
unit/cron.service   enrolled   shop/cron-0   web               -

problem: unit/cron.service: no such unit
problem: web.yaml:3: spec.target is missing
`,
  );
  assertEquals(
    formatNodeStatus({ ztunnel: { connections: 0, synchronized: false }, pods: [], problems: [] }),
    "ztunnel: not connected\nnothing is enrolled\n",
  );
});
