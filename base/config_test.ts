/** Settings: precedence, errors that name their source, help. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  defineConfig,
  duration,
  integer,
  list,
  listenAddress,
  oneOf,
  optional,
  showDuration,
  text,
  toggle,
} from "./config.ts";
import { MeshError } from "./errors.ts";

const DEFINITION = defineConfig("ambit test", {
  folder: { kind: text("PATH"), flag: "folder", env: "FOLDER", help: "where things are" },
  count: { kind: integer(1, 9, "things"), flag: "count", env: "COUNT", default: 3, help: "how many" },
  ttlMs: { kind: duration(1_000, 86_400_000), flag: "ttl", default: 60_000, help: "how long" },
  mode: {
    kind: oneOf("shared", "dedicated"),
    flag: "mode",
    default: "shared" as "shared" | "dedicated",
    help: "which",
  },
  hosts: { kind: list(), flag: "hosts", default: [] as readonly string[], help: "names" },
  verbose: { kind: toggle(), flag: "verbose", env: "VERBOSE", default: false, help: "says more" },
  listen: { kind: listenAddress(), flag: "listen", default: { host: "127.0.0.1", port: 80 }, help: "where to listen" },
  note: { kind: optional(text()), flag: "note", default: undefined, help: "a note" },
  token: { kind: text(), flag: "token", default: "", help: "a token", secret: true },
});

function parse(args: string[], env: Record<string, string> = {}) {
  return DEFINITION.parse(args, (name) => env[name]);
}

Deno.test("parse() prefers flag, then environment, then default, and says which", () => {
  const { config, origins } = parse(["--folder", "/a", "--ttl=1h30m", "--verbose", "--hosts=a, b,"], {
    COUNT: "5",
    FOLDER: "/b",
  });
  assertEquals(config.folder, "/a");
  assertEquals(config.count, 5);
  assertEquals(config.ttlMs, 5_400_000);
  assertEquals(config.verbose, true);
  assertEquals(config.hosts, ["a", "b"]);
  assertEquals(config.mode, "shared");
  assertEquals(config.note, undefined);
  assertEquals([origins.folder, origins.count, origins.mode], ["flag", "environment", "default"]);
  assertEquals(Object.isFrozen(config), true);
});

Deno.test("parse() counts an empty variable as unset and reads --flag=false", () => {
  const { config } = parse(["--folder=x", "--verbose=false"], { COUNT: "", VERBOSE: "true" });
  assertEquals([config.count, config.verbose], [3, false]);
});

Deno.test("parse() reads listen addresses of both families and refuses others", () => {
  assertEquals(parse(["--folder=x", "--listen=[::1]:15012"]).config.listen, { host: "::1", port: 15012 });
  assertEquals(parse(["--folder=x", "--listen=:0"]).config.listen, { host: "0.0.0.0", port: 0 });
  for (const bad of ["127.0.0.1", "a:70000", "::1:5", "http://a:1"]) {
    assertThrows(() => parse(["--folder=x", `--listen=${bad}`]), MeshError, "is not HOST:PORT");
  }
});

Deno.test("parse() names the source of what is wrong", () => {
  const cases: [string[], Record<string, string>, string, string][] = [
    [[], {}, "AMB0103", "needs --folder"],
    [["--folder=x", "--cuont=4"], {}, "AMB0101", "knows no --cuont"],
    [["--folder=x", "stray"], {}, "AMB0104", 'takes no argument "stray"'],
    [["--folder=x", "--", "--count"], {}, "AMB0104", 'takes no argument "--count"'],
    [["--folder=x", "-x"], {}, "AMB0101", "knows no -x"],
    [["--folder=x", "--verbose", "false"], {}, "AMB0104", 'takes no argument "false"'],
    [["--folder=x", "--count=10"], {}, "AMB0102", '--count "10" is not a whole number from 1 to 9 things'],
    [["--folder=x"], { COUNT: "two" }, "AMB0102", "invalid env var COUNT=two (is not a whole"],
    [["--folder=x", "--count"], {}, "AMB0102", "--count has no value"],
    [["--folder=x", "--folder=y"], {}, "AMB0102", "is given twice"],
    [["--folder=x", "--mode=other"], {}, "AMB0102", "is none of shared, dedicated"],
    [["--folder=x", "--ttl=5"], {}, "AMB0102", "is not a duration"],
    [["--folder=x", "--ttl=2d"], {}, "AMB0102", "is outside 1s to 1d"],
  ];
  for (const [args, env, code, message] of cases) {
    const error = assertThrows(() => parse(args, env), MeshError);
    assertEquals(error.code, code);
    assertStringIncludes(error.message, message);
  }
  const near = assertThrows(() => parse(["--folder=x", "--cuont=4"]), MeshError);
  assertEquals(near.remedy, "did you mean --count?");
  const switched = assertThrows(() => parse(["--folder=x", "--verbose", "false"]), MeshError);
  assertStringIncludes(switched.remedy, "--flag=false");
});

Deno.test("parse() reads short flags, and operands in order wherever they stand", () => {
  const definition = defineConfig("ambit test", {
    output: { kind: oneOf("text", "json"), flag: "output", short: "o", default: "text" as const, help: "form" },
    list: { kind: toggle(), flag: "list", default: false, help: "lists" },
  }, { operands: "[TARGET…]", examples: ["ambit test a -o json"] });
  const read = (line: string) => definition.parse(line.split(" "), () => undefined);
  for (const line of ["a b -o json", "-o json a b", "a --output=json b", "a -ojson b", "-o=json a -- b"]) {
    const { config, operands } = read(line);
    assertEquals([config.output, operands], ["json", ["a", "b"]], line);
  }
  assertEquals(read("--list a").operands, ["a"]); // A switch takes no value.
  assertEquals(read("- -- --list").operands, ["-", "--list"]);
  assertThrows(() => read("-o"), MeshError, "--output has no value");
  assertThrows(() => read("-o json --output text"), MeshError, "is given twice");
  const help = definition.help("Tests.");
  assertStringIncludes(help, "Usage: ambit test [TARGET…] [flags]\n\nExamples:\n  ambit test a -o json\n");
  assertStringIncludes(help, "  -o, --output text|json\n");
});

Deno.test("changed() lists what is not the default, secrets unseen", () => {
  assertEquals(DEFINITION.changed(parse(["--folder=x", "--token=hush"])), { folder: "x (flag)", token: "set (flag)" });
});

Deno.test("help() names flag, default, range and variable of every setting", () => {
  const help = DEFINITION.help("Tests.");
  assertStringIncludes(
    help,
    "  --count N\n      how many\n      [default: 3; range: 1 to 9 things; environment: COUNT]",
  );
  assertStringIncludes(help, "  --folder PATH\n      where things are\n      [required; environment: FOLDER]");
  for (const setting of Object.values(DEFINITION.table)) assertStringIncludes(help, `--${setting.flag}`);
});

Deno.test("showDuration() writes what duration() reads", () => {
  for (const ms of [0, 1, 999, 1_000, 90_000, 5_400_000, 86_400_000 * 90]) {
    if (ms === 0) assertEquals(showDuration(ms), "0s");
    assertEquals(duration(0, 86_400_000 * 100).parse(showDuration(ms)), { value: ms });
  }
});

Deno.test("parse() reads another spelling of a variable where the first is unset, and names the one that is wrong", () => {
  const definition = defineConfig("ambit test", {
    count: { kind: integer(1, 9), flag: "count", env: "COUNT", otherEnv: "CNT", default: 3, help: "how many" },
  });
  const count = (env: Record<string, string>) => definition.parse([], (name) => env[name]).config.count;
  assertEquals([count({}), count({ CNT: "4" }), count({ COUNT: "5", CNT: "4" }), count({ COUNT: "", CNT: "4" })], [
    3,
    4,
    5,
    4,
  ]);
  assertThrows(() => count({ CNT: "x" }), MeshError, "CNT=x");
  assertStringIncludes(definition.help(""), "environment: COUNT or CNT");
});
