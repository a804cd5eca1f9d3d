/** `deno task conformance`: every rule of the ztunnel specification, the tests that hold it or why none does. */
import { trackedFiles } from "../tidy/tree.ts";
import { countLine, ruleRows } from "./table.ts";

const rows = ruleRows(await trackedFiles());
const lines = rows.flatMap(({ rule, title, tests, why, note }) => [
  `${rule}  ${title}`,
  ...[...tests, why === "" ? "" : `no test: ${why}`, note].filter((text) => text !== "").map((text) =>
    `        ${text}`
  ),
]);
const encoder = new TextEncoder();
for (const line of [...lines, "", countLine(rows)]) Deno.stdout.writeSync(encoder.encode(`${line}\n`));
