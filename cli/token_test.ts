/** The token command: what it asks its mint for, and what it writes. */
import { assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../base/errors.ts";
import { runToken } from "./token.ts";

const ARGS = ["--state-dir=/s", "--namespace=shop", "--service-account=cart", "--pod=cart-1", "--node=node-1"];

/** Runs the command with a mint that writes down what it is asked. */
async function run(args: string[], interactive = false): Promise<{ written: string; asked: unknown[] }> {
  const asked: unknown[] = [];
  let written = "";
  await runToken(args, {
    env: () => undefined,
    openMint: (stateDir) => {
      asked.push(stateDir);
      return Promise.resolve({
        mint: (subject, { ttlMs }) => {
          asked.push(subject, ttlMs);
          return Promise.resolve("abc.def.ghi");
        },
      });
    },
    write: (text) => void (written += text),
    interactive,
  });
  return { written, asked };
}

Deno.test("runToken() writes the token and nothing else; a newline only for a person (ZT-123)", async () => {
  assertEquals((await run(ARGS)).written, "abc.def.ghi");
  assertEquals((await run(ARGS, true)).written, "abc.def.ghi\n");
});

Deno.test("runToken() asks for the token that the flags describe", async () => {
  const subject = { namespace: "shop", serviceAccount: "cart", pod: "cart-1", podUid: "", node: "node-1" };
  assertEquals((await run(ARGS)).asked, ["/s", subject, 86_400_000]);
  const { asked } = await run([...ARGS, "--pod-uid=u", "--ttl=90m"]);
  assertEquals(asked, ["/s", { ...subject, podUid: "u" }, 5_400_000]);
});

Deno.test("runToken() refuses flags that are missing or out of range, before it opens the state folder", async () => {
  await assertRejects(() => run(ARGS.slice(0, -1)), MeshError, "needs --node");
  await assertRejects(() => run([...ARGS, "--ttl=5s"]), MeshError, "is outside 1m to 365d");
});
