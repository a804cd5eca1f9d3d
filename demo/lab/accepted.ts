/** Connections of a listener, one by one, whatever became of those before. */

/**
 * Ends when the listener is closed. The runtime throws for a connection whose client had reset it before it was taken,
 * and a loop over the listener itself would end there, and with it the program that serves.
 */
export async function* accepted(listener: Deno.TcpListener): AsyncGenerator<Deno.TcpConn> {
  const { BadResource, ConnectionAborted, ConnectionReset, Interrupted, NotConnected } = Deno.errors;
  for (;;) {
    let connection: Deno.TcpConn;
    try {
      connection = await listener.accept();
    } catch (error) {
      if ([BadResource, Interrupted].some((it) => error instanceof it)) return; // It was closed.
      if ([NotConnected, ConnectionAborted, ConnectionReset].some((it) => error instanceof it)) continue;
      throw error;
    }
    yield connection;
  }
}
