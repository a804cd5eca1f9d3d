/** `deno task conformance`: every rule of ztunnel, of the control plane and of the node, the tests that hold it or why none does. */
import { trackedFiles } from "../tidy/tree.ts";
import { PARTS } from "./citations.ts";
import { countLine, ruleRows } from "./table.ts";

const files = await trackedFiles();
const parts = PARTS.map((part) => ruleRows(files, part));
const lines = parts.flat().flatMap(({ rule, title, tests, why, note }) => [
  `${rule}  ${title}`,
  ...[...tests, why === "" ? "" : `no test: ${why}`, note].filter((text) => text !== "").map((text) =>
    `        ${text}`
  ),
]);
const encoder = new TextEncoder();
for (const line of [...lines, "", ...parts.map(countLine)]) Deno.stdout.writeSync(encoder.encode(`${line}\n`));
