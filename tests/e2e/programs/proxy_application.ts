/** An application behind an application tunnel: answers a line with where it came from and all that it read, in hexadecimal. */
import { accepted } from "../../../demo/lab/accepted.ts";

const port = Number(Deno.args[0]);
const [LINE_END, HEADER_BYTES_MIN] = [0x0a, 16];

async function serve(socket: Deno.TcpConn): Promise<void> {
  const chunk = new Uint8Array(4096);
  let heard = new Uint8Array();
  // A header itself holds line ends, in its signature and wherever an address or a port looks like one.
  for (let headerBytes = HEADER_BYTES_MIN; heard.length <= headerBytes || heard.at(-1) !== LINE_END;) {
    const count = await socket.read(chunk);
    if (count === null) break;
    heard = Uint8Array.of(...heard, ...chunk.subarray(0, count));
    if (heard.length >= HEADER_BYTES_MIN) headerBytes = HEADER_BYTES_MIN + heard[14]! * 256 + heard[15]!;
  }
  const from = socket.remoteAddr.hostname.replace(/^::ffff:/, "");
  await socket.write(new TextEncoder().encode(`${from} ${heard.toHex()}\n`));
  socket.close();
}

const listener = Deno.listen({ hostname: "::", port });
Deno.stdout.writeSync(new TextEncoder().encode("listening\n"));
for await (const socket of accepted(listener)) await serve(socket);
