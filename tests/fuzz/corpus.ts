/** Inputs that led somewhere, one file a target: a line of hexadecimal each, with what became of it behind `#`. */
import { hex } from "../../wire/h2/testing.ts";
import { toHex } from "./fuzzer.ts";

const FOLDER = new URL("./corpus/", import.meta.url);

function fileOf(target: string): URL {
  return new URL(`${target}.txt`, FOLDER);
}

/** What is kept for a target; nothing where there is no file. */
export function readCorpus(target: string): Uint8Array[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(fileOf(target));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  return text.split("\n").map((line) => line.split("#", 1)[0]!.trim()).filter((line) => line !== "")
    .map((line) => hex(line === "-" ? "" : line));
}

/** Names of the files that there are. */
export function corpusNames(): string[] {
  return [...Deno.readDirSync(FOLDER)].map((entry) => entry.name.replace(/\.txt$/, "")).sort();
}

/** Adds inputs to a target's file. */
export function addToCorpus(target: string, entries: Iterable<readonly [word: string, input: Uint8Array]>): number {
  const lines = [...entries].map(([word, input]) =>
    `${input.length === 0 ? "-" : toHex(input)} # ${word.replaceAll(/[\s#]+/g, " ")}`
  );
  if (lines.length > 0) {
    Deno.writeTextFileSync(fileOf(target), lines.map((line) => `${line}\n`).join(""), { append: true });
  }
  return lines.length;
}
