/** Callers over HTTP/2 that ask for a lot and read nothing of it. */
import { assert } from "../../base/assert.ts";
import { ignore } from "../../base/errors.ts";
import {
  writeClientPreface,
  writeDataHeader,
  writeHeaders,
  writePing,
  writeSettings,
  writeWindowUpdate,
} from "../../wire/h2/frame_writers.ts";
import { writeConnectBlock } from "../../wire/h2/hpack_encoder.ts";
import { WINDOW_BYTES_DEFAULT, WINDOW_BYTES_LIMIT } from "../../wire/h2/settings.ts";
import { type Target, writeAll } from "./probe_operations.ts";

const SETTING_INITIAL_WINDOW_SIZE = 4; // RFC 9113 §6.5.2
const PINGS_AT_ONCE = 1_000, PING_BYTES = 17;
const FRAME_BYTES_MAX = 16_384; // RFC 9113 §4.2: what everybody takes
const TRACE = `00-${"1".repeat(32)}-${"2".repeat(16)}-01`;

interface Caller extends Target {
  readonly certificate: string;
  readonly key: string;
  /** The mesh's roots, as PEM. */
  readonly roots: string;
  /** How long to go on. */
  readonly ms: number;
}

/** A TLS connection of which nothing is read, with the preface said and every window as wide as it can be. */
async function openDeaf({ host, port, certificate, key, roots }: Caller): Promise<Deno.TlsConn> {
  const connection = await Deno.connectTls({
    hostname: host,
    port,
    cert: certificate,
    key,
    caCerts: [roots],
    alpnProtocols: ["h2"],
    unsafelyDisableHostnameVerification: true, // Certificates of the mesh name identities, not hosts.
  });
  const opening = new Uint8Array(128);
  let at = writeClientPreface(opening, 0);
  at = writeSettings(opening, at, [SETTING_INITIAL_WINDOW_SIZE, WINDOW_BYTES_LIMIT]);
  at = writeWindowUpdate(opening, at, 0, WINDOW_BYTES_LIMIT - WINDOW_BYTES_DEFAULT);
  await writeAll(connection, opening.subarray(0, at));
  return connection;
}

/** PING frames as long as they are taken. */
export async function deafPings(options: Caller): Promise<{ sentBytes: number; error: string }> {
  const connection = await openDeaf(options);
  const timer = setTimeout(() => connection.close(), options.ms); // A write that nobody takes waits for ever.
  const pings = new Uint8Array(PINGS_AT_ONCE * PING_BYTES);
  for (let at = 0; at < pings.length;) at = writePing(pings, at, 1, 2, false);
  let sentBytes = 0;
  try {
    while (true) {
      await writeAll(connection, pings);
      sentBytes += pings.length;
    }
  } catch (error) {
    return { sentBytes, error: error instanceof Error ? error.message : String(error) };
  } finally {
    clearTimeout(timer);
    closeOnce(connection);
  }
}

/** Tunnels to a `source`, each asked for `bytes` bytes, and held for `ms`. */
export async function deafDownloads(
  options: Caller & { authority: string; tunnels: number; bytes: number },
): Promise<Record<never, never>> {
  const connection = await openDeaf(options);
  const { authority, tunnels, bytes, ms } = options, line = new TextEncoder().encode(`${bytes}\n`);
  for (let tunnel = 0; tunnel < tunnels; tunnel++) {
    const streamId = 2 * tunnel + 1, block = new Uint8Array(1024), frames = new Uint8Array(2048);
    const blockEnd = writeConnectBlock(block, 0, authority, "k8s.namespace.name=outside", "for=10.80.1.1", TRACE);
    assert(blockEnd > 0, "the request fits");
    let at = writeHeaders(frames, 0, streamId, block, 0, blockEnd, false, FRAME_BYTES_MAX);
    at = writeDataHeader(frames, at, streamId, line.length, false);
    frames.set(line, at);
    await writeAll(connection, frames.subarray(0, at + line.length));
  }
  await new Promise((resolve) => setTimeout(resolve, ms));
  closeOnce(connection);
  return {};
}

function closeOnce(connection: Deno.TlsConn): void {
  try {
    connection.close();
  } catch (error) {
    ignore(error, "the deadline has closed it");
  }
}
