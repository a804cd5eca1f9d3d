import { assertEquals } from "@std/assert";
import { EMPTY_MESH_CONFIG } from "./decode/mesh_config.ts";
import { MeshSettings } from "./mesh_settings.ts";
import { MESH_CONFIG_KEY, type MeshConfigObject } from "./objects.ts";

Deno.test("MeshSettings: what the MeshConfig says, else what istiod was started with, live (CP-026, CP-027)", () => {
  const settings = new MeshSettings({ trustDomain: "cluster.local", rootNamespace: "istio-system" });
  const heard: string[] = [];
  const stop = settings.subscribe((now, before) => heard.push(`${before.trustDomain} → ${now.trustDomain}`));
  const set = (fields: Partial<MeshConfigObject> | undefined) => {
    const object = fields && { ...EMPTY_MESH_CONFIG, ...fields };
    settings.apply([{ kind: "MeshConfig", key: MESH_CONFIG_KEY, object }]);
    return [settings.now.trustDomain, settings.now.rootNamespace, ...settings.now.trustDomainAliases];
  };
  assertEquals(set({ trustDomain: "corp.example", trustDomainAliases: ["old"] }), [
    "corp.example",
    "istio-system",
    "old",
  ]);
  assertEquals(set({ rootNamespace: "root" }), ["cluster.local", "root"]);
  stop();
  assertEquals(set(undefined), ["cluster.local", "istio-system"]);
  settings.apply([{ kind: "Pod", key: "Pod/a/b", object: undefined }]);
  assertEquals(heard, ["cluster.local → corp.example", "corp.example → cluster.local"]);
});
