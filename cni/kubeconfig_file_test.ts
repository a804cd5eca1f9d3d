import { assertEquals, assertThrows } from "@std/assert";
import { formatPluginKubeconfig, parsePluginKubeconfig } from "./kubeconfig_file.ts";
import { readKubeconfig } from "../kube/kubeconfig.ts";

Deno.test("the plugin's kubeconfig is one that Kubernetes' own tools read, and we do without YAML (CNI-034)", async () => {
  const text = formatPluginKubeconfig({ server: "https://[fd00::1]:443", ca: "a CA\n", token: "a.b.c" });
  const access = parsePluginKubeconfig(text);
  assertEquals([access.server.href, access.ca, access.insecure], ["https://[fd00::1]/", "a CA\n", false]);
  assertEquals((await access.credentials.current(AbortSignal.timeout(60_000))).token, "a.b.c");
  const read = readKubeconfig(text, "test");
  assertEquals(JSON.stringify(read).includes("a.b.c"), true);
  assertEquals(
    parsePluginKubeconfig(formatPluginKubeconfig({ server: "https://a:1", ca: "", token: "t" })).insecure,
    true,
  );
  for (const bad of ["", "{}", "[]", `{"clusters":[{"cluster":{"server":"x"}}],"users":[{"user":{"token":7}}]}`]) {
    assertThrows(() => parsePluginKubeconfig(bad));
  }
});

Deno.test("the plugin reads the kubeconfig of Istio's node agent, too (CNI-021, CNI-034)", async () => {
  const istio = (trust: string) =>
    `apiVersion: v1
clusters:
- cluster:
    ${trust}
    server: https://10.96.0.1:443
  name: local
contexts:
- context:
    cluster: local
    user: istio-cni
  name: istio-cni-context
current-context: istio-cni-context
kind: Config
users:
- name: istio-cni
  user:
    token: a.b.c
`;
  const unseen = parsePluginKubeconfig(istio("insecure-skip-tls-verify: true"));
  assertEquals([unseen.server.href, unseen.insecure, unseen.ca], ["https://10.96.0.1/", true, undefined]);
  assertEquals((await unseen.credentials.current(AbortSignal.timeout(60_000))).token, "a.b.c");
  const seen = parsePluginKubeconfig(
    istio(`certificate-authority-data: ${new TextEncoder().encode("a CA\n").toBase64()}`),
  );
  assertEquals([seen.insecure, seen.ca], [false, "a CA\n"]);
  assertThrows(() => parsePluginKubeconfig("kind: Config\nusers: []\n"), TypeError);
});
