import { assert, assertEquals } from "@std/assert";
import { type Facts, formatFindings, hasWideAes, judge } from "./doctor.ts";
import { NOT_TRIED, runTrials } from "./doctor_probes.ts";

const LIBSSL = { version: "3.5.8", libssl: "libssl.so.3", aesGbps: 14, postQuantum: true };
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
  libssl: LIBSSL,
  wideAes: true,
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
    [{ libssl: { ...LIBSSL, version: "1.1.1" }, wideAes: false }, "libssl", "fail", "libssl3"],
    [{ libssl: { ...LIBSSL, version: "3.0.19" } }, "encryption", "warn", "deno task openssl"],
    [{ libssl: { ...LIBSSL, postQuantum: false } }, "post-quantum", "warn", "3.5"],
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

Deno.test("hasWideAes() wants every instruction that the widest AES-GCM is made of", () => {
  const all = "avx512f avx512dq avx512bw avx512vl vaes vpclmulqdq";
  const cpuinfo = (flags: string) => `processor\t: 0\nflags\t\t: fpu ${flags} aes\nbugs\t\t: none\n`;
  assert(hasWideAes(cpuinfo(all)));
  for (const flag of all.split(" ")) assert(!hasWideAes(cpuinfo(all.replace(flag, "x"))), flag);
  assert(!hasWideAes("processor\t: 0\nFeatures\t: fp asimd aes\n"));
});
