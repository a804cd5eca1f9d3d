import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { MeshError } from "../../base/errors.ts";
import { FolderSource } from "./folder_source.ts";
import { pod, TestFolder, until } from "./testing.ts";

const A = "Pod/default/a", B = "Pod/default/b";

Deno.test("FolderSource.start() tells everything there is: subfolders, several documents, lists, JSON; hidden files are none of it", async () => {
  await using folder = new TestFolder();
  folder.write("a.yaml", `# first\n---\n${pod("a")}---\n${pod("b")}...\n`);
  folder.write("deep/er/c.yml", pod("c"));
  folder.write("d.json", JSON.stringify({ apiVersion: "v1", kind: "Namespace", metadata: { name: "d" } }, null, "\t"));
  folder.write(
    "list.yaml",
    "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: { name: n }\n",
  );
  folder.write(".hidden.yaml", pod("hidden"));
  folder.write("..2026/data.yaml", pod("version"));
  folder.write("notes.txt", "not YAML: [");
  await folder.start();
  assertEquals(folder.news(), ["+Namespace//d", "+Node//n", `+${A}`, `+${B}`, "+Pod/default/c"]);
  assertEquals(folder.source.refusals(), []);
});

Deno.test("FolderSource tells changed, new and deleted objects, and nothing for a file saved unchanged", async () => {
  await using folder = new TestFolder();
  folder.write("a.yaml", pod("a"));
  await folder.start();
  folder.news();
  folder.write("a.yaml", pod("a", "10.0.0.2"));
  await folder.expect(`+${A}`);
  folder.write("a.yaml", `# a comment\n${pod("a", "10.0.0.2")}`);
  await folder.settled();
  assertEquals(folder.news(), []);
  folder.write("new/b.yaml", pod("b"));
  await folder.expect(`+${B}`);
  Deno.removeSync(`${folder.path}/new`, { recursive: true });
  await folder.expect(`-${B}`);
  Deno.removeSync(`${folder.path}/a.yaml`);
  await folder.expect(`-${A}`);
});

Deno.test("FolderSource refuses a bad document with file, line, field and reason; its last good state and all others stay", async () => {
  await using folder = new TestFolder();
  folder.write("ab.yaml", `${pod("a")}---\n${pod("b")}`);
  await folder.start();
  folder.news();
  folder.write("ab.yaml", `${pod("a", "10.0.0.300")}---\n${pod("b", "10.0.0.9")}---\n${pod("c", "nowhere")}`);
  await folder.expect(`+${B}`);
  const expected = [
    {
      file: "ab.yaml",
      line: 7,
      field: "status.podIP",
      reason: "must be an IPv4 or IPv6 address",
      key: A,
      previousKept: true,
    },
    {
      file: "ab.yaml",
      line: 23,
      field: "status.podIP",
      reason: "must be an IPv4 or IPv6 address",
      key: "Pod/default/c",
      previousKept: false,
    },
  ];
  assertEquals(folder.source.refusals(), expected);
  assertEquals(folder.refused, expected);
  assertStringIncludes(folder.logged.join("\n"), 'file="ab.yaml" line=7 field="status.podIP"');
  folder.write("ab.yaml", `${pod("a", "10.0.0.3")}---\n${pod("b", "10.0.0.9")}`);
  await folder.expect(`+${A}`);
  assertEquals(folder.source.refusals(), []);
});

Deno.test("FolderSource keeps every object of a file whose text does not parse, and says where it stops", async () => {
  await using folder = new TestFolder();
  folder.write("ab.yaml", `${pod("a")}---\n${pod("b")}`);
  await folder.start();
  folder.news();
  folder.write("ab.yaml", `${pod("a", "10.0.0.2")}---\nkind: [Pod\nmetadata:\n`);
  await folder.expect(`+${A}`);
  const [refusal] = folder.source.refusals();
  assertEquals([refusal?.file, refusal?.line, refusal?.key, refusal?.previousKept], ["ab.yaml", 10, undefined, true]);
  folder.write("ab.yaml", pod("a", "10.0.0.2"));
  await folder.expect(`-${B}`);
});

Deno.test("FolderSource drops nothing while a file is half written: truncated, cut, or moved away and back", async () => {
  await using folder = new TestFolder();
  const whole = `${pod("a")}---\n${pod("b")}`;
  folder.write("ab.yaml", whole);
  await folder.start();
  folder.news();
  folder.write("ab.yaml", "");
  folder.write("ab.yaml", whole);
  await folder.settled();
  for (const length of [whole.indexOf("---"), whole.length - 30, whole.length - 3]) {
    folder.write("ab.yaml", whole.slice(0, length));
    folder.write("ab.yaml", whole);
  }
  Deno.renameSync(`${folder.path}/ab.yaml`, `${folder.path}/ab.yaml~`);
  Deno.renameSync(`${folder.path}/ab.yaml~`, `${folder.path}/ab.yaml`);
  await folder.settled();
  assertEquals(folder.news(), []);
});

Deno.test("FolderSource drops nothing for a file that stays empty, as a full disk leaves it", async () => {
  await using folder = new TestFolder();
  folder.write("a.yaml", pod("a"));
  await folder.start();
  folder.news();
  folder.write("a.yaml", "");
  await until("it is refused", () => folder.refused.length === 1);
  assertEquals([folder.refused[0]?.reason, folder.refused[0]?.previousKept], [
    "is empty; delete the file to remove its objects",
    true,
  ]);
  assertEquals(folder.news(), []);
  folder.write("a.yaml", "# nothing, on purpose\n");
  await folder.expect(`-${A}`);
});

Deno.test("FolderSource refuses a duplicate and names both places; it comes into force when the first goes", async () => {
  await using folder = new TestFolder();
  folder.write("1.yaml", `# one\n${pod("a")}`);
  folder.write("2.yaml", `${pod("b")}---\n${pod("a", "10.0.0.2")}---\n${pod("b", "10.0.0.3")}`);
  await folder.start();
  assertEquals(folder.news(), [`+${A}`, `+${B}`]);
  assertEquals(folder.refused.map(({ file, line, reason }) => `${file}:${line}: ${reason}`), [
    "2.yaml:9: Pod/default/a stands already in 1.yaml, line 2",
    "2.yaml:17: Pod/default/b stands already in line 1 of this file",
  ]);
  Deno.removeSync(`${folder.path}/1.yaml`);
  await folder.expect(`+${A}`);
  assertEquals(folder.source.refusals().map((it) => it.line), [17]);
});

Deno.test("FolderSource tells nothing when a file is renamed, or an object moves to another file at once", async () => {
  await using folder = new TestFolder();
  folder.write("old.yaml", pod("a"));
  await folder.start();
  folder.news();
  Deno.renameSync(`${folder.path}/old.yaml`, `${folder.path}/new.yaml`);
  await folder.settled();
  await until("no duplicate is left", () => folder.source.refusals().length === 0);
  assertEquals(folder.news(), []);
  folder.write("new.yaml", pod("a", "10.0.0.2"));
  await folder.expect(`+${A}`);
});

Deno.test("FolderSource follows symbolic links that are swapped, as Kubernetes does with mounted volumes", async () => {
  await using folder = new TestFolder();
  folder.write("..v1/a.yaml", pod("a"));
  folder.write("..v2/a.yaml", pod("a", "10.0.0.2"));
  Deno.symlinkSync("..v1", `${folder.path}/..data`);
  Deno.symlinkSync("..data/a.yaml", `${folder.path}/a.yaml`);
  await folder.start();
  assertEquals(folder.news(), [`+${A}`]);
  Deno.symlinkSync("..v2", `${folder.path}/..tmp`);
  Deno.renameSync(`${folder.path}/..tmp`, `${folder.path}/..data`);
  await folder.expect(`+${A}`);
});

Deno.test("FolderSource follows its own path when that is a link that is swapped", async () => {
  const root = Deno.makeTempDirSync({ prefix: "folder-source-" });
  await using folder = new TestFolder(root, `${root}/current`);
  folder.write("v1/a.yaml", pod("a"));
  folder.write("v2/b.yaml", pod("b"));
  Deno.symlinkSync("v1", `${root}/current`);
  await folder.start();
  assertEquals(folder.news(), [`+${A}`]);
  Deno.symlinkSync("v2", `${root}/next`);
  Deno.renameSync(`${root}/next`, `${root}/current`);
  await until("both are told", () => folder.told.length === 2);
  assertEquals(folder.news().sort(), [`+${B}`, `-${A}`]);
});

Deno.test("FolderSource keeps its objects while the folder is away", async () => {
  await using folder = new TestFolder();
  folder.write("in/a.yaml", pod("a"));
  Deno.renameSync(`${folder.path}/in`, `${folder.path}/other`);
  Deno.renameSync(`${folder.path}/other`, `${folder.path}/in`);
  await using inner = new TestFolder(`${folder.path}/in`);
  await inner.start();
  inner.news();
  Deno.renameSync(inner.path, `${folder.path}/away`);
  await until(
    "it is said",
    () => inner.logged.some((line) => line.includes("folder cannot be read; its objects stay")),
  );
  Deno.renameSync(`${folder.path}/away`, inner.path);
  await until("it is back", () => inner.logged.some((line) => line.includes("folder can be read again")));
  await inner.settled();
  assertEquals(inner.news(), []);
});

Deno.test("FolderSource.start() throws AMB0350 when there is no such folder", async () => {
  const source = new FolderSource("/nonexistent/folder", {
    log: new Logger("folder", { sink: () => {} }),
    onChange: () => {},
    onRefused: () => {},
  });
  const error = await assertRejects(() => source.start(new AbortController().signal), MeshError);
  assertEquals(error.code, "AMB0350");
});

Deno.test("FolderSource refuses an unknown version of a kind it knows, and passes over kinds it does not", async () => {
  await using folder = new TestFolder();
  folder.write("a.yaml", "apiVersion: security.istio.io/v2\nkind: AuthorizationPolicy\nmetadata: { name: p }\n");
  folder.write("b.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: d }\nspec: whatever\n");
  await folder.start();
  assertEquals(folder.news(), []);
  const [refusal, ...others] = folder.source.refusals();
  assertEquals([refusal?.file, refusal?.line, refusal?.field, others], ["a.yaml", 1, "apiVersion", []]);
});

Deno.test("FolderSource loads 1,000 files", async () => {
  await using folder = new TestFolder();
  for (let at = 0; at < 1_000; at++) {
    folder.write(`${at % 10}/p${at}.yaml`, pod(`p${at}`, `10.0.${at >> 8}.${at & 255}`));
  }
  await folder.start();
  assertEquals(folder.news().length, 1_000);
});
