/** Tests of lint_plugin.ts and the table beneath it: each rule with a file that breaks it, and one that does not. */
import { assertEquals } from "@std/assert";
import { importProblem, OUTSIDE, ROOMS } from "./layers.ts";
import plugin from "./lint_plugin.ts";

function check(file: string, source: string, ...messages: readonly string[]): void {
  assertEquals(
    Deno.lint.runPlugin(plugin, `/${file}`, source).map((found) => found.message),
    messages,
    `${file}: ${source}`,
  );
}

Deno.test("house/imports holds the table of who may import whom", () => {
  check("wire/h2/a.ts", `import { b } from "../../mesh/b.ts";`, "wire/ may not import mesh/");
  check("wire/h2/a.ts", `import { b } from "../../base/b.ts"; import { c } from "./c.ts";`);
  check("wire/a.ts", `export * from "../os/b.ts";`, "wire/ may not import os/");
  check("wire/a.ts", `export { b } from "../os/b.ts";`, "wire/ may not import os/");
  check("wire/a.ts", `await import("../os/b.ts");`, "wire/ may not import os/");
  check("wire/a_test.ts", `import { b } from "../mesh/b.ts";`, "wire/ may not import mesh/");
  check("base/a.ts", `import type { b } from "../wire/b.ts";`, "base/ may not import wire/");
  check("control/a.ts", `import { b } from "../dataplane/b.ts";`, "control/ may not import dataplane/");
  check("cni/a.ts", `import { b } from "../tests/b.ts";`, "cni/ may not import tests/");
  check("cni/a.ts", `import { b } from "../bench/b.ts";`, "cni/ may not import bench/");
  check("nowhere/a.ts", `import { b } from "../base/b.ts";`, "nowhere/ may not import base/");
  check("tests/e2e/a.ts", `import { b } from "../../dataplane/b.ts"; import "npm:anything@1";`);
  check("main.ts", `import { b } from "./control/b.ts";`);
});

Deno.test("house/imports lets a package into the part of a folder that needs it", () => {
  check("mesh/a.ts", `import p from "protobufjs/minimal";`, "mesh/ may not import protobufjs/minimal");
  check("mesh/proto/a.ts", `import p from "protobufjs/minimal";`);
  check("dataplane/worker/a.ts", `import g from "@grpc/grpc-js";`, "dataplane/ may not import @grpc/grpc-js");
  check("dataplane/agent/a.ts", `import g from "@grpc/grpc-js"; import { Buffer } from "node:buffer";`);
  check("wire/a.ts", `import { Buffer } from "node:buffer";`, "wire/ may not import node:buffer");
  check("wire/a_test.ts", `import { connect } from "node:http2";`);
});

Deno.test("house/imports keeps agent and worker apart, and the worker from the real os/", () => {
  const real = "worker/ may import os/api.ts only: its entry hands the real one in";
  check("dataplane/worker/a.ts", `import { libc } from "../../os/libc.ts";`, real);
  check("dataplane/worker/a.ts", `import type { Os } from "../../os/api.ts";`);
  check("dataplane/worker/entry.ts", `import { libc } from "../../os/libc.ts";`);
  check(
    "dataplane/worker/a.ts",
    `import { b } from "../agent/b.ts";`,
    "worker/ may not import agent/: tables/ is what they share",
  );
  check(
    "dataplane/agent/a.ts",
    `import { b } from "../worker/b.ts";`,
    "agent/ may not import worker/: tables/ is what they share",
  );
  check("dataplane/agent/a.ts", `import type { B } from "../worker/b.ts"; import { C } from "../worker/start.ts";`);
});

Deno.test("house/imports keeps test code out of what is shipped", () => {
  check("wire/a.ts", `import { hex } from "./h2/testing.ts";`, "only tests may import what is made for tests");
  check("wire/a_test.ts", `import { hex } from "./h2/testing.ts";`);
});

Deno.test("house/words fences FFI into os/", () => {
  check("control/a.ts", `Deno.dlopen("x", {});`, "only os/ may name Deno.dlopen");
  check("control/a.ts", `const p = Deno.UnsafePointer.of(b);`, "only os/ may name Deno.UnsafePointer");
  check("os/a.ts", `Deno.dlopen("x", {}); Deno.UnsafePointer.of(b);`);
  check("control/a.ts", `Deno.readFile("x");`);
});

Deno.test("house/words keeps wire/ and mesh/ pure", () => {
  check("wire/a.ts", `Date.now();`, "wire/ is pure and may not name Date");
  check("wire/a.ts", `new Date();`, "wire/ is pure and may not name Date");
  check("mesh/a.ts", `performance.now();`, "mesh/ is pure and may not name performance");
  check("mesh/a.ts", `Math.random();`, "mesh/ may not name Math.random");
  check("mesh/a.ts", `Deno.env.get("x");`, "mesh/ is pure and may not name Deno");
  check("mesh/a.ts", `setTimeout(f, 1);`, "mesh/ is pure and may not name setTimeout");
  check("mesh/a.ts", `Math.max(1, 2);`);
  check("mesh/a_test.ts", `Date.now();`);
  check("control/a.ts", `Date.now(); Math.random();`);
});

Deno.test("house/words keeps the worker synchronous", () => {
  const asyncMessage = "worker/ is a synchronous world: no async, no await";
  check("dataplane/worker/a.ts", `async function f() {}`, asyncMessage);
  check("dataplane/worker/a.ts", `const f = async () => {};`, asyncMessage);
  check("dataplane/worker/a.ts", `class A { async f() {} }`, asyncMessage);
  check("dataplane/worker/a.ts", `await f();`, asyncMessage);
  check("dataplane/worker/a.ts", `Promise.resolve();`, "worker/ is a synchronous world: no Promise");
  check("dataplane/worker/a.ts", `new Promise(f);`, "worker/ is a synchronous world: no Promise");
  check("dataplane/worker/a.ts", `setTimeout(f, 1);`, "worker/ is a synchronous world: no setTimeout");
  check("dataplane/worker/a.ts", `self.postMessage(1);`, "worker/ is a synchronous world: no postMessage");
  check("dataplane/worker/a.ts", `function f() {} const g = () => {}; f(g());`);
  check("dataplane/worker/entry.ts", `async function f() {}`);
  check("dataplane/agent/a.ts", `async function f() { await g(); }`);
});

Deno.test("ROOMS imports only rooms, in no circle", () => {
  const depth = (room: string, above: readonly string[]): void => {
    assertEquals(above.includes(room), false, `${[...above, room].join(" → ")} is a circle`);
    for (const imported of ROOMS[room]!.imports) {
      assertEquals(imported in ROOMS, true, imported);
      depth(imported, [...above, room]);
    }
  };
  for (const room of Object.keys(ROOMS)) depth(room, []);
  for (const outside of OUTSIDE) assertEquals(importProblem(`${outside}/a.ts`, "../os/b.ts", false), undefined);
});
