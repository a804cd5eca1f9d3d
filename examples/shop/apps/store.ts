/**
 * The shop's store: keys and values over a protocol of lines on TCP. `GET key`, `PUT key value`, `WHO` (the caller's
 * address), `QUIT`; each is answered by one line that begins with the shop's banner.
 */

const LINE_CHARACTERS_MAX = 4096;
const KEYS_MAX = 10_000;
const port = Number(Deno.env.get("PORT") ?? "9000");
const banner = Deno.env.get("SHOP_BANNER") ?? "welcome";
const values = new Map<string, string>();

function answer(line: string, caller: string): string {
  const [verb, key = "", ...rest] = line.split(" ");
  switch (verb) {
    case "GET":
      return values.has(key) ? `VALUE ${values.get(key)}` : "NONE";
    case "PUT":
      if (values.size >= KEYS_MAX && !values.has(key)) return "FULL";
      values.set(key, rest.join(" "));
      return "STORED";
    case "WHO":
      return `YOU ${caller}`;
    default:
      return "UNKNOWN";
  }
}

async function serve(connection: Deno.TcpConn): Promise<void> {
  using _closing = connection;
  const caller = connection.remoteAddr.hostname.replace(/^::ffff:/, "");
  const encoder = new TextEncoder();
  const writer = connection.writable.getWriter();
  let partial = "";
  for await (const text of connection.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (partial + text).split("\n");
    partial = lines.pop() ?? "";
    if (partial.length > LINE_CHARACTERS_MAX) return;
    for (const line of lines) {
      if (line.trim() === "QUIT") return;
      await writer.write(encoder.encode(`${banner} ${answer(line.trim(), caller)}\n`));
    }
  }
}

for await (const connection of Deno.listen({ hostname: "::", port })) {
  serve(connection).catch((error) => {
    // A caller that vanishes ends its own connection, not the store.
    Deno.stderr.writeSync(new TextEncoder().encode(`store: ${error instanceof Error ? error.message : error}\n`));
  });
}
