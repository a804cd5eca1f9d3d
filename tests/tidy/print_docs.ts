/** `deno task docs`: writes the printed parts of the documents anew. */
import { printedDocuments } from "./printed.ts";
import { rootUrl, trackedFiles } from "./tree.ts";

for (const { path, text } of printedDocuments(await trackedFiles())) {
  await Deno.writeTextFile(new URL(path, rootUrl()), text);
}
