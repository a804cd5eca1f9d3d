/** Whom the node agent passes network namespaces to: root and its own user, nobody else (CNI-255). */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { ZdsServer } from "../../cni/zds_server.ts";
import { createAnonymousNetns } from "../../os/netns.ts";

const NOBODY = 65_534;
/** Connects, says hello, and prints what comes: a packet, or the end. */
const CALLER = `
const path = Deno.args[0], libc = Deno.dlopen("libc.so.6", {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
}).symbols;
const address = new Uint8Array(110), fd = libc.socket(1, 5, 0);
address[0] = 1;
address.set(new TextEncoder().encode(path), 2);
if (libc.connect(fd, address, 110) !== 0) throw new Error("not connected");
libc.send(fd, Uint8Array.of(8, 1), 2n, 0);
const got = libc.recv(fd, new Uint8Array(1024), 1024n, 0);
Deno.stdout.writeSync(new TextEncoder().encode(got > 0n ? "a packet" : "nothing"));
`;

Deno.test("another user who reaches the socket gets no namespace; root does (CNI-255)", async () => {
  const folder = Deno.makeTempDirSync(), path = `${folder}/zds.sock`, lines: string[] = [];
  const log = new Logger("zds", { sink: (line) => void lines.push(line) });
  using netns = createAnonymousNetns();
  const pod = { uid: "a", workload: { name: "a", namespace: "b", serviceAccount: "c" }, netns };
  await using _zds = ZdsServer.listen({ path, log, acceptIntervalMs: 0 }, [pod]);
  Deno.chmodSync(folder, 0o755);
  Deno.chmodSync(path, 0o666); // As if somebody had been careless: only its owner may connect.
  Deno.writeTextFileSync(`${folder}/caller.js`, CALLER);
  const program = `${folder}/deno`; // Where anybody may run it.
  Deno.copyFileSync(Deno.execPath(), program);
  Deno.chmodSync(program, 0o755);
  try {
    for (const [uid, expected] of [[NOBODY, "nothing"], [0, "a packet"]] as const) {
      Deno.mkdirSync(`${folder}/${uid}`, { mode: 0o777 });
      Deno.chmodSync(`${folder}/${uid}`, 0o777);
      const { stdout, stderr } = await new Deno.Command(program, {
        args: ["run", "-A", "--quiet", "--no-config", `${folder}/caller.js`, path],
        env: { DENO_DIR: `${folder}/${uid}` },
        uid,
      }).output();
      const decoder = new TextDecoder();
      assertEquals(decoder.decode(stdout), expected, decoder.decode(stderr));
    }
    assert(lines.some((line) => line.includes(`user ${NOBODY} is not one that ztunnel runs as`)));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
