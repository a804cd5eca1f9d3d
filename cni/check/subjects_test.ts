import { assertEquals } from "@std/assert";
import type { EnrolmentStatus } from "../../mesh/enrolment.ts";
import type { Netns } from "../../os/netns.ts";
import { subjectsOfCluster, subjectsOfKernel, subjectsOfNode } from "./subjects.ts";

/** A namespace that has a number and nothing else. */
function namespace(inode: number): Netns {
  const netns = { inode, duplicate: () => netns, [Symbol.dispose]() {} };
  return netns as unknown as Netns;
}

const NAMESPACES = [{ target: "netns/web", netns: namespace(7) }, { target: "pid/12", netns: namespace(8) }];

Deno.test("subjectsOfCluster() finds each pod's namespace by its number, and says of whom it finds none", () => {
  const rules = { dnsCapture: true }, ips = ["10.0.0.2"];
  const { subjects, unseen } = subjectsOfCluster({
    backend: "iptables-nft",
    pods: [
      { pod: "shop/web", uid: "a", ips, state: "enrolled", netnsInode: 8, rules },
      { pod: "shop/gone", uid: "b", ips, state: "enrolled", netnsInode: 9 },
      { pod: "shop/late", uid: "c", ips: [], state: "failed", lastError: "no ztunnel" },
    ],
  }, NAMESPACES);
  assertEquals(subjects.map(({ netns, ...rest }) => ({ inode: netns.inode, ...rest })), [
    { inode: 8, target: "shop/web", pod: "shop/web", rules, ips, backend: "iptables-nft", problems: [] },
  ]);
  assertEquals(unseen, [
    { target: "shop/gone", pod: "shop/gone", problem: "its network namespace was not found among the processes" },
    { target: "shop/late", pod: "shop/late", problem: "no ztunnel" },
  ]);
  assertEquals(subjectsOfCluster("nonsense", NAMESPACES).subjects, []);
});

Deno.test("subjectsOfNode() tells units from what has a namespace, and says which targets are gone", () => {
  const status = (change: Partial<EnrolmentStatus>): EnrolmentStatus => ({
    target: "unit/web.service",
    uid: "a",
    namespace: "shop",
    serviceAccount: "web",
    name: "web",
    state: "enrolled",
    netnsInode: 1,
    problems: [],
    ...change,
  });
  const { subjects, shared, unseen } = subjectsOfNode({
    ztunnel: { connections: 1, synchronized: true },
    pods: [
      status({ outboundPort: 15100, dnsPort: 15500 }),
      status({ target: "unit/other.service", problems: ["a rule is missing"] }),
      status({ target: "unit/new.service", state: "enrolling" }),
      status({ target: "netns/ambit-nobody-has-this" }),
    ],
    problems: [],
  });
  assertEquals(subjects, []);
  assertEquals(shared.map(({ target, outboundPort, dnsPort, problems }) => [target, outboundPort, dnsPort, problems]), [
    ["unit/web.service", 15100, 15500, []],
    ["unit/other.service", undefined, undefined, ["a rule is missing"]],
    ["unit/new.service", undefined, undefined, ["it is enrolling"]],
  ]);
  assertEquals(unseen.map(({ target }) => target), ["netns/ambit-nobody-has-this"]);
});

Deno.test("subjectsOfKernel() takes the namespaces in which someone redirects", async () => {
  const observer = { usedBackend: (netns: Netns) => Promise.resolve(netns.inode === 8 ? "nft" as const : undefined) };
  const { subjects } = await subjectsOfKernel(NAMESPACES, observer);
  assertEquals(subjects.map(({ target }) => target), ["pid/12"]);
});
