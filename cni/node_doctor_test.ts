import { assertEquals } from "@std/assert";
import { isPropagated, judgeNode, type NodeFacts, nodeFindings } from "./node_doctor.ts";

const conflist = (name: string, ...types: string[]) => ({
  name,
  text: JSON.stringify({ name: "net", cniVersion: "1.0.0", plugins: types.map((type) => ({ type })) }),
});
const OURS = conflist("02-istio-cni.conflist", "bridge", "istio-cni"), PRIMARY = conflist("10-net.conflist", "bridge");
const FINE: NodeFacts = {
  conf: [OURS, PRIMARY],
  plugin: "installed",
  agent: true,
  hostRules: [],
  propagation: true,
  processes: true,
};

/** The findings that are not fine, in short. */
function wrong(facts: Partial<NodeFacts>): string[] {
  return judgeNode({ ...FINE, ...facts }).filter(({ status }) => status !== "ok").map((
    { status, check, found, cure },
  ) => `${status} ${check}: ${found}; ${cure}`);
}

Deno.test("judgeNode() finds what keeps pods from the mesh, or from starting, and names the cure (CNI-294)", () => {
  assertEquals(wrong({}), []);
  assertEquals(wrong({ conf: [PRIMARY], plugin: "absent", agent: false, hostRules: ["x"], propagation: undefined }), [
    "warn cni configuration: 10-net.conflist: bridge; istio-cni is in none; start the node agent (ambit cni)",
  ]);
  const alone = { name: "YYY-istio-cni.conf", text: JSON.stringify({ name: "istio-cni", type: "istio-cni" }) };
  assertEquals(wrong({ conf: [conflist("00-multus.conflist", "multus"), alone] }), [], "as it was told to (CNI-042)");
  const cases: readonly (readonly [Partial<NodeFacts>, RegExp])[] = [
    [{ conf: [] }, /^fail cni configuration: none can be used/],
    [{ conf: [conflist("00-cilium.conflist", "cilium-cni"), OURS] }, /passes the mesh by; .*cni\.exclusive=false/],
    [{ conf: [conflist("00-multus.conflist", "multus"), OURS] }, /passes the mesh by; .*Multus/],
    [{ conf: [conflist("01-x.conflist", "x"), OURS] }, /passes the mesh by; .*istio-owned-cni-config-filename/],
    [{ plugin: "absent" }, /^fail cni plugin: .*not there; .*no pod can start/],
    [{ plugin: "left behind" }, /^fail cni plugin/],
    [{ agent: false }, /^fail node agent: .*new pods of the mesh wait/],
    [{ hostRules: ["table x is missing"] }, /^warn probe rules: .*table x is missing/],
    [{ hostRules: { unknown: "no" } }, /^warn probe rules: no; run doctor as root/],
    [{ propagation: false }, /^fail pods' namespaces: .*HostToContainer/],
    [{ processes: false }, /^fail node's processes/],
  ];
  for (const [facts, expected] of cases) {
    const found = wrong(facts);
    assertEquals([found.length, expected.test(found[0] ?? "")], [1, true], found.join());
  }
});

Deno.test("isPropagated() reads what a mount gets of the node's (CNI-294)", () => {
  const line = (optional: string) => `36 35 98:0 / /host/var/run/netns rw,noatime ${optional}- tmpfs tmpfs rw`;
  assertEquals(
    ["master:1 ", "shared:2 ", "", "unbindable "].map((it) => isPropagated(line(it), "/host/var/run/netns")),
    [
      true,
      true,
      false,
      false,
    ],
  );
  assertEquals(isPropagated(line("master:1 "), "/host/other"), false);
});

Deno.test("nodeFindings() says nothing where there is no node, and looks at one that has only files (CNI-294)", async () => {
  const root = await Deno.makeTempDir(),
    places = {
      confDir: `${root}/net.d`,
      binDir: `${root}/bin`,
      runDir: `${root}/run`,
      hostRoot: "",
    };
  try {
    assertEquals(await nodeFindings(places), []);
    await Deno.mkdir(places.confDir);
    await Deno.mkdir(places.binDir);
    assertEquals(await nodeFindings(places), [], "folders that some package made");
    await Deno.writeTextFile(`${places.confDir}/${OURS.name}`, OURS.text);
    const found = await nodeFindings(places), of = (check: string) => found.find((it) => it.check === check)?.status;
    assertEquals(["cni configuration", "cni plugin", "node agent"].map(of), ["ok", "fail", "fail"]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
