/** `ambit version`: which version this is, and of what it is made. */
import { ConfigDefinition, defineConfig, oneOf } from "../base/config.ts";
import { writeOut } from "../base/standard_output.ts";
import { VERSION } from "../base/version.ts";

export const VERSION_CONFIG = defineConfig("ambit version", {
  output: {
    kind: oneOf("text", "json"),
    flag: "output",
    short: "o",
    default: "text" as const,
    help: "form of the answer",
  },
});

/** @returns 0. Throws MeshError for flags that are not there. */
export function runVersion(args: readonly string[]): Promise<number> {
  if (ConfigDefinition.wantsHelp(args)) writeOut(VERSION_CONFIG.help("Tells which version of Ambit this is."));
  else {
    const { config } = VERSION_CONFIG.parse(args, (name) => Deno.env.get(name));
    const facts = {
      version: VERSION,
      deno: Deno.version.deno,
      platform: `${Deno.build.os}/${Deno.build.arch}`,
      compiled: Deno.build.standalone,
    };
    const text = `ambit ${facts.version} (deno ${facts.deno}, ${facts.platform})\n`;
    writeOut(config.output === "json" ? `${JSON.stringify(facts, null, 2)}\n` : text);
  }
  return Promise.resolve(0);
}
