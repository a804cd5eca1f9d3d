/** YAML in, resources out: each `.txt` here holds objects, a line of dashes, and what clients are told of them. */
import { assertEquals } from "@std/assert";
import { describeResource, TestMesh } from "../../../control/ambient/testing.ts";
import { AUTHORIZATION_TYPE_URL } from "../../../mesh/proto/authorization_codec.ts";
import { ADDRESS_TYPE_URL } from "../../../mesh/proto/workload_codec.ts";

const FOLDER = new URL("./", import.meta.url);
const SEPARATOR = "\n----\n";

function print(mesh: TestMesh): string {
  const lines: string[] = [];
  for (const typeUrl of [AUTHORIZATION_TYPE_URL, ADDRESS_TYPE_URL]) {
    const resources = [...mesh.index.all(typeUrl)].sort((a, b) => a.name < b.name ? -1 : 1);
    for (const resource of resources) {
      lines.push(`${typeUrl.split(".").at(-1)} ${resource.name}`);
      if (resource.aliases.length > 0) lines.push(`  aliases: ${resource.aliases.join(" ")}`);
      for (const [name, value] of Object.entries(describeResource(typeUrl, resource))) {
        if (name !== "rules") lines.push(`  ${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
        else if (Array.isArray(value)) { for (const rule of value) lines.push(`  rule: ${JSON.stringify(rule)}`); }
      }
    }
  }
  for (const [, problem] of mesh.index.graph.problems.entries()) {
    lines.push(`problem ${problem.object}: ${problem.reason}: ${problem.message}`);
  }
  for (const [, { object, conditions }] of mesh.index.graph.conditions.entries()) {
    for (const { type, status, reason, message } of conditions) {
      lines.push(`${object}: ${type} ${status}/${reason}: ${message}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

for (const { name } of [...Deno.readDirSync(FOLDER)].sort((a, b) => a.name < b.name ? -1 : 1)) {
  if (!name.endsWith(".txt")) continue;
  Deno.test(`AmbientIndex yields the resources written in ${name}`, () => {
    const file = new URL(name, FOLDER);
    const [yaml, expected] = Deno.readTextFileSync(file).split(SEPARATOR);
    const mesh = new TestMesh(yaml, { network: "n1" });
    // GOLDEN=write renews the files; read the difference before it is kept.
    if (Deno.env.get("GOLDEN") === "write") Deno.writeTextFileSync(file, `${yaml}${SEPARATOR}${print(mesh)}`);
    else assertEquals(print(mesh), expected);
  });
}
