import { assert, assertEquals } from "@std/assert";
import { type Facts, formatFindings, judge } from "./doctor.ts";
import { NOT_TRIED, runTrials } from "./doctor_probes.ts";

const FINE: Facts = {
  os: "linux",
  arch: "x86_64",
  kernel: "6.1.0",
  missingCapabilities: [],
  trials: {
    netns: undefined,
    veth: undefined,
    policyRoutes: undefined,
    nfTables: undefined,
    originalDestination: undefined,
    transparent: undefined,
    mark: undefined,
  },
  libssl: { version: "3.0.19" },
  openFilesSoft: 1024,
  openFilesHard: 1_048_576,
  userNamespacesMax: 10_000,
  userNamespacesForAll: true,
};
const notOk = (facts: Facts) => judge(facts).filter(({ status }) => status !== "ok");

Deno.test("judge() finds nothing on a machine that has everything", () => {
  assertEquals(notOk(FINE), []);
  assert(formatFindings(judge(FINE)).endsWith("all roles can run here\n"));
});

Deno.test("judge() names what is wrong, with a cure, and nothing else", () => {
  const trials = (change: Partial<Facts["trials"]>): Partial<Facts> => ({ trials: { ...FINE.trials, ...change } });
  const cases: [Partial<Facts>, string, "warn" | "fail", string][] = [
    [{ arch: "riscv64" }, "system", "fail", "x86-64"],
    [{ missingCapabilities: ["CAP_NET_ADMIN"] }, "capabilities", "fail", "CAP_NET_ADMIN"],
    [trials({ netns: "EPERM" }), "network namespaces", "fail", "CONFIG_NET_NS"],
    [trials({ veth: "EOPNOTSUPP" }), "veth pairs", "fail", "CONFIG_VETH"],
    [trials({ policyRoutes: "EOPNOTSUPP" }), "policy routes", "fail", "CONFIG_IP_MULTIPLE_TABLES"],
    [trials({ nfTables: "ENOENT" }), "nf_tables", "fail", "CONFIG_NF_TABLES"],
    [trials({ originalDestination: "ENOENT" }), "conntrack", "fail", "CONFIG_NF_CONNTRACK"],
    [trials({ veth: NOT_TRIED }), "veth pairs", "fail", "what failed above"],
    [trials({ transparent: "EPERM" }), "transparent sockets", "fail", "root"],
    [trials({ mark: "EPERM" }), "socket marks", "fail", "root"],
    [{ libssl: { version: "1.1.1" } }, "libssl", "fail", "libssl3"],
    [{ libssl: { failure: "no such file" } }, "libssl", "fail", "libssl3"],
    [{ openFilesHard: 4096 }, "open files", "warn", "LimitNOFILE"],
    [{ userNamespacesMax: 0 }, "user namespaces", "warn", "max_user_namespaces"],
    [{ userNamespacesForAll: false }, "user namespaces", "warn", "unprivileged_userns_clone"],
  ];
  for (const [change, check, status, text] of cases) {
    const findings = notOk({ ...FINE, ...change });
    assertEquals(findings.map((it) => [it.check, it.status]), [[check, status]]);
    const written = formatFindings(findings);
    assert(written.includes(text), `${written} names ${text}`);
    assert(written.includes("try: "), written);
  }
});

Deno.test({
  name: "runTrials() passes on a machine whose kernel has all of it",
  ignore: Deno.uid() !== 0,
  fn() {
    assertEquals(runTrials(), FINE.trials);
  },
});
