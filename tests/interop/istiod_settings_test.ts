/** What istiod's settings let clients do, from the command line to the wire. */
import { Buffer } from "node:buffer";
import { assertEquals, assertMatch } from "@std/assert";
import * as grpc from "@grpc/grpc-js";
import { Logger } from "../../base/log.ts";
import { ISTIOD_CONFIG } from "../../control/config.ts";
import { startIstiod } from "../../control/main.ts";
import { CA_METHOD, ControlRig, headers, loopbackClient, raw, until } from "./control_rig.ts";
import { NODE, Stream } from "./xds_rig.ts";

const SIDECAR = { id: "sidecar~1~cart.shop~d", metadata: {} };

/** What becomes of a stream's first request: `refused STATUS TEXT`, or `answered`. */
async function outcome(rig: ControlRig, node: typeof NODE): Promise<string> {
  using stream = new Stream(rig.client(), headers(await rig.token()));
  stream.send({ node });
  await until(() => stream.ended !== undefined || stream.responses.length > 0, "an answer");
  return stream.ended === undefined ? "answered" : `refused ${grpc.status[stream.ended.code]} ${stream.ended.details}`;
}

Deno.test("with ambient mode off a ztunnel is refused and told why, others are served (CP-014)", async () => {
  await using rig = await ControlRig.start({ ambient: false, identityCheck: false });
  assertMatch(await outcome(rig, NODE), /^refused FAILED_PRECONDITION .*PILOT_ENABLE_AMBIENT/);
  assertEquals(await outcome(rig, SIDECAR), "answered");
});

Deno.test("whose identity is not its node's is refused, unless a setting lets it in (CP-431)", async () => {
  await using strict = await ControlRig.start();
  assertMatch(await outcome(strict, SIDECAR), /^refused PERMISSION_DENIED/);
  await using lax = await ControlRig.start({ identityCheck: false });
  assertEquals(await outcome(lax, SIDECAR), "answered");
});

/** Asks an istiod, started with these flags, for a certificate. @returns The status, and what the log warned of. */
async function askForCertificate(...flags: string[]): Promise<{ status: string; warnings: string[] }> {
  const folder = await Deno.makeTempDir({ prefix: "istiod-" }), stop = new AbortController(), lines: string[] = [];
  await Deno.mkdir(`${folder}/objects`);
  const addresses = ["secure-grpc", "http", "monitoring"].map((name) => `--${name}-address=127.0.0.1:0`);
  const all = [`--config-dir=${folder}/objects`, `--state-dir=${folder}/state`, ...addresses, ...flags];
  const { config } = ISTIOD_CONFIG.parse(all, () => undefined);
  const env = (name: string) => name === "AMBIENT_ENABLE_STATUS" ? "true" : undefined;
  const log = new Logger("istiod", { sink: (line) => lines.push(line) });
  const running = await startIstiod(config, { signal: stop.signal, log, env });
  const tls = grpc.credentials.createSsl(Buffer.from(running.rootsPem));
  const client = loopbackClient(running.secureGrpcPort, tls);
  try {
    const error = await new Promise<grpc.ServiceError | null>((resolve) =>
      client.makeUnaryRequest(CA_METHOD, raw, raw, Buffer.alloc(0), resolve)
    );
    return {
      status: error === null ? "OK" : grpc.status[error.code],
      warnings: lines.filter((line) => line.includes("a setting is ignored")),
    };
  } finally {
    client.close();
    stop.abort();
    await running.done;
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the certificate service can be left out; settings without a meaning are told of (CP-014, CP-028, CP-470)", async () => {
  const served = await askForCertificate();
  assertEquals([served.status, served.warnings.length], ["UNAUTHENTICATED", 0]);
  const left = await askForCertificate("--certificate-service=false", "--ambient=false");
  assertEquals([left.status, left.warnings.length], ["UNIMPLEMENTED", 1]);
});
