/** A WebSocket client: a thousand texts and one large binary message there and back. First argument: the URL. */

const TEXT_COUNT = 1_000, LARGE_BYTES = 4 * 1024 * 1024;
const large = new Uint8Array(LARGE_BYTES).map((_, at) => at * 31);

const socket = new WebSocket(Deno.args[0]!);
socket.binaryType = "arraybuffer";
let texts = 0, largeSame = false;
socket.onopen = () => socket.send("0");
socket.onmessage = ({ data }) => {
  if (typeof data === "string") {
    if (data !== String(texts)) throw new Error(`got ${data} for ${texts}`);
    socket.send(++texts < TEXT_COUNT ? String(texts) : large);
    return;
  }
  const bytes = new Uint8Array(data);
  largeSame = bytes.length === LARGE_BYTES && bytes.every((byte, at) => byte === large[at]);
  socket.close(1000);
};
socket.onclose = ({ code }) => {
  Deno.stdout.writeSync(new TextEncoder().encode(JSON.stringify({ texts, largeSame, code })));
};
