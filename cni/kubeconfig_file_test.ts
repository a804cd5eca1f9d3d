import { assertEquals, assertThrows } from "@std/assert";
import { formatPluginKubeconfig, parsePluginKubeconfig } from "./kubeconfig_file.ts";
import { readKubeconfig } from "../kube/kubeconfig.ts";

Deno.test("the plugin's kubeconfig is one that Kubernetes' own tools read, and we do without YAML (CNI-034)", async () => {
  const text = formatPluginKubeconfig({ server: "https://[fd00::1]:443", ca: "a CA\n", token: "a.b.c" });
  const access = parsePluginKubeconfig(text);
  assertEquals([access.server.href, access.ca, access.insecure], ["https://[fd00::1]/", "a CA\n", false]);
  assertEquals((await access.credentials.current(AbortSignal.timeout(1_000))).token, "a.b.c");
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
