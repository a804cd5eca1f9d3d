import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { parseOptions } from "./options.ts";

Deno.test("parseOptions() takes quick as one round with one worker", () => {
  const options = parseOptions(["--quick", "-o", "json"]);
  assertEquals([options.rounds, options.workers, options.output], [1, [1], "json"]);
});

Deno.test("parseOptions() requires what was asked for by name", () => {
  const options = parseOptions(["--only", "direct,envoy", "--peer", "envoy=/bin/envoy", "--rounds", "3"]);
  assertEquals([options.peers, options.required, options.paths], [["direct", "envoy"], ["direct", "envoy"], {
    envoy: "/bin/envoy",
  }]);
});

Deno.test("parseOptions() takes some cases, another version and the size of the mesh", () => {
  const args = ["--only", "ours,before", "--peer", "before=/x", "--cases", "churn,update", "--workloads", "0"];
  const { peers, paths, cases, workloads } = parseOptions(args);
  assertEquals({ peers, paths, cases, workloads }, {
    peers: ["ours", "before"],
    paths: { before: "/x" },
    cases: ["churn", "update"],
    workloads: 0,
  });
});

Deno.test("parseOptions() refuses what it does not know", () => {
  for (
    const args of [
      ["--fast"],
      ["--only", "nginx"],
      ["--peer", "ztunnel"],
      ["--peer", "haproxy=/x"],
      ["--rounds", "0"],
      ["--cases", "uploads"],
      ["--workloads", "-1"],
      ["--congestion", "none-such"],
      [
        "-o",
        "xml",
      ],
      ["extra"],
    ]
  ) {
    assertThrows(() => parseOptions(args), MeshError, undefined, args.join(" "));
  }
});
