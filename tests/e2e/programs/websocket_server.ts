/** A WebSocket server: gives every message back. First argument: the port. */

Deno.serve({ hostname: "::", port: Number(Deno.args[0]), onListen: () => {} }, (request) => {
  const { socket, response } = Deno.upgradeWebSocket(request);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => socket.send(data);
  return response;
});
