import { assert, assertEquals } from "@std/assert";
import {
  type ConfFile,
  hasPlugin,
  ownedFile,
  pluginEntry,
  primaryFile,
  problemOf,
  usableFiles,
  withoutPlugin,
  withPlugin,
} from "./conflist.ts";

const ENTRY = pluginEntry({ ambient_enabled: true, cni_agent_run_dir: "/run/a" });
const OURS = { ambient_enabled: true, cni_agent_run_dir: "/run/a", type: "istio-cni" };

function file(name: string, value: unknown): ConfFile {
  return { name, text: typeof value === "string" ? value : JSON.stringify(value) };
}

const LIST = file("10-net.conflist", {
  name: "net",
  cniVersion: "1.0.0",
  plugins: [{ type: "bridge" }, { type: "portmap" }],
});
const SINGLE = file("20-old.conf", { name: "old", cniVersion: "0.4.0", type: "bridge", bridge: "cni0" });

Deno.test("usableFiles() takes what a runtime takes, in its order (CNI-036)", () => {
  const files = [
    file("b.conf", { name: "b", type: "x" }),
    file("a.conflist", { name: "a", plugins: [{ type: "x" }] }),
    file("0.conflist", { name: "0", plugins: [] }),
    file("1.conflist", { plugins: [{ type: "x" }] }),
    file("2.conf", { name: "2" }),
    file("3.conflist", "{"),
    file("4.json", { name: "4", type: "x" }),
    file("Z.conf", { type: "x" }),
  ];
  assertEquals(usableFiles(files).map(({ name }) => name), ["Z.conf", "a.conflist", "b.conf"]);
});

Deno.test("withPlugin() appends ours to a list once, and keeps the rest (CNI-037)", () => {
  const twice = file(LIST.name, {
    plugins: [OURS, { type: "bridge", b: 1, a: [{ d: 1, c: 2 }] }, OURS],
    name: "net",
    disableCheck: true,
  });
  const merged = withPlugin(twice, ENTRY)!;
  assertEquals(JSON.parse(merged.text), {
    name: "net",
    disableCheck: true,
    plugins: [{ type: "bridge", b: 1, a: [{ d: 1, c: 2 }] }, OURS],
  });
  assert(merged.text.startsWith(`{\n  "disableCheck": true,\n  "name": "net",`), merged.text);
  assert(merged.text.endsWith("}\n"));
  assertEquals(withPlugin(merged, ENTRY), merged);
});

Deno.test("withPlugin() makes a list of a single configuration, and keeps its version (CNI-038)", () => {
  const merged = withPlugin(SINGLE, ENTRY)!;
  assertEquals(merged.name, "20-old.conflist");
  assertEquals(JSON.parse(merged.text), {
    name: "k8s-pod-network",
    cniVersion: "0.4.0",
    plugins: [{ name: "old", type: "bridge", bridge: "cni0" }, OURS],
  });
  const older = withPlugin(file("a.conf", { name: "a", cniVersion: "0.2.0", type: "x" }), ENTRY)!;
  assertEquals(JSON.parse(older.text).cniVersion, "0.3.1");
});

Deno.test("withoutPlugin() undoes what withPlugin() did (CNI-047)", () => {
  const merged = withPlugin(LIST, ENTRY)!;
  assert(hasPlugin(merged) && !hasPlugin(LIST));
  assertEquals(JSON.parse(withoutPlugin(merged)!.text), JSON.parse(LIST.text));
  assertEquals(withoutPlugin(file("a.conflist", { name: "a", plugins: [OURS] })), undefined);
});

Deno.test("an owned file stands before the primary one, which stays as it is (CNI-040)", () => {
  const owned = ownedFile(LIST, { name: "02-istio-cni.conflist", entry: ENTRY })!;
  assertEquals(primaryFile([LIST, owned], owned.name), LIST);
  assertEquals(JSON.parse(owned.text).plugins.length, 3);
  assertEquals(problemOf([LIST, owned], { ownName: owned.name, entry: ENTRY }), undefined);
});

Deno.test("problemOf() says what is wrong with the node's configuration (CNI-041)", () => {
  const chained = { ownName: undefined, entry: ENTRY }, own = "02-istio-cni.conflist";
  const merged = withPlugin(LIST, ENTRY)!, owned = ownedFile(LIST, { name: own, entry: ENTRY })!;
  assertEquals(problemOf([merged], chained), undefined);
  assertEquals(problemOf([], chained), "there is no CNI configuration to be chained to");
  assertEquals(problemOf([LIST], chained), "10-net.conflist does not name istio-cni");
  assertEquals(problemOf([SINGLE], chained), "20-old.conf comes before 20-old.conflist");
  assertEquals(problemOf([LIST], { ownName: own, entry: ENTRY }), `10-net.conflist comes before ${own}`);
  // A primary that has changed since is merged anew.
  const changed = file(LIST.name, { name: "net", cniVersion: "1.0.0", plugins: [{ type: "bridge", mtu: 1400 }] });
  assertEquals(problemOf([changed, owned], { ownName: own, entry: ENTRY }), `${own} differs from what it is made of`);
  const before = file("00-other.conflist", { name: "x", plugins: [{ type: "y" }] });
  assertEquals(
    problemOf([before, LIST, owned], { ownName: own, entry: ENTRY }),
    `00-other.conflist comes before ${own}`,
  );
});
