import { assertEquals } from "@std/assert";
import { parseWorkloadFile, targetsOf } from "./workload_file.ts";

const OBJECT = `kind: NodeWorkload
metadata: { name: web }
spec:
  target: { unit: web.service }
  identity: { namespace: shop, serviceAccount: web }
  inboundPorts: [8080]
  exclude: { outboundPorts: [3306] }
`;

Deno.test("parseWorkloadFile() reads objects as enrolments (CNI-272)", () => {
  const parsed = parseWorkloadFile(
    `${OBJECT}---\n${
      OBJECT.replace("unit: web.service", "netnsPath: /run/netns/x").replace(/ {2}inbound.*\n {2}exclude.*\n/, "")
    }`,
  );
  if ("wrong" in parsed) throw new Error(parsed.wrong);
  assertEquals(parsed.map((it) => it.requestFor()), [
    {
      target: { kind: "unit", unit: "web.service", text: "unit/web.service" },
      namespace: "shop",
      serviceAccount: "web",
      name: "web",
      inboundPorts: [8080],
      exclude: { outboundPorts: [3306], outboundCidrs: [], inboundPorts: [] },
    },
    {
      target: { kind: "netns-path", path: "/run/netns/x", text: "netns-path:/run/netns/x" },
      namespace: "shop",
      serviceAccount: "web",
      name: "web",
    },
  ]);
});

Deno.test("parseWorkloadFile() says which object is wrong, and what of it (CNI-272)", () => {
  const wrong: readonly [string, string][] = [
    ["a: [", "it is not YAML"],
    ["kind: Pod", "object 1: its kind is not NodeWorkload"],
    ["kind: NodeWorkload", "object 1: metadata.name is missing"],
    [OBJECT.replace("unit: web.service", "unit: web"), "object 1: web: spec: target is none of"],
    [OBJECT.replace("{ unit: web.service }", "{}"), "object 1: web: spec.target is not one of"],
    [OBJECT.replace("unit:", "host:"), "object 1: web: spec.target is not one of"],
    [OBJECT.replace("unit: web.service", "netns: web*"), "object 1: web: spec.target.netns takes no * or ?"],
    [OBJECT.replace("namespace: shop, ", ""), "object 1: web: spec: namespace is not"],
    [OBJECT.replace("inboundPorts", "ports"), "object 1: web: spec.ports is no field"],
    [OBJECT.replace("[8080]", "[22]"), "object 1: web: spec: inboundPorts has 22"],
    [`${OBJECT}---\nkind: x`, "object 2: its kind is not NodeWorkload"],
  ];
  for (const [text, start] of wrong) {
    const parsed = parseWorkloadFile(text);
    assertEquals("wrong" in parsed && parsed.wrong.slice(0, start.length), start);
  }
});

Deno.test("a glob is an enrolment for each unit that it finds, under a name of its own (CNI-272)", () => {
  const parsed = parseWorkloadFile(OBJECT.replace("unit: web.service", 'unit: "web@*.service"'));
  if ("wrong" in parsed) throw new Error(parsed.wrong);
  const [{ glob, requestFor }] = parsed as [typeof parsed[number]];
  const targets = targetsOf(glob!, ["web@1.service", "db.service", "web@Two.service"]);
  assertEquals(targets, ["unit/web@1.service", "unit/web@Two.service"]);
  const names = targets.map((target) => requestFor(target)).map((it) => "wrong" in it ? it.wrong : it.name);
  assertEquals(names, ["web-web-1", "web-web-two"]);
});
