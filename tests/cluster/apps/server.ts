/**
 * An application in a pod: HTTP on 8080, gRPC on 9090 (with the health service that kubelets ask), bytes as they come on
 * 7000. It answers every question with the question and its own name, so that whoever asks sees a wrong byte.
 */
import * as grpc from "@grpc/grpc-js";
import { Buffer } from "node:buffer";

const NAME = Deno.env.get("HOSTNAME") ?? "server";
const SERVING = Buffer.from([0x08, 0x01]); // HealthCheckResponse, status: SERVING

const raw = (bytes: Buffer): Buffer => bytes;
const method = (path: string): grpc.MethodDefinition<Buffer, Buffer> => ({
  path,
  requestStream: false,
  responseStream: false,
  requestSerialize: raw,
  requestDeserialize: raw,
  responseSerialize: raw,
  responseDeserialize: raw,
});

const server = new grpc.Server();
server.addService({ Check: method("/grpc.health.v1.Health/Check") }, {
  Check: (_: unknown, answer: grpc.sendUnaryData<Buffer>) => answer(null, SERVING),
});
server.addService({ Ask: method("/ambit.test.Echo/Ask") }, {
  Ask: ({ request }: { request: Buffer }, answer: grpc.sendUnaryData<Buffer>) => answer(null, request),
});
server.bindAsync("0.0.0.0:9090", grpc.ServerCredentials.createInsecure(), (error) => {
  if (error !== null) throw error;
});

async function echo(listener: Deno.TcpListener): Promise<void> {
  for await (const connection of listener) {
    connection.readable.pipeTo(connection.writable).catch(() => "the other end has gone");
  }
}

const end = new AbortController();
Deno.addSignalListener("SIGTERM", () => end.abort());
let probes = 0; // of the kubelet's; `GET /probes` tells
const http = Deno.serve({ port: 8080, signal: end.signal, onListen: () => undefined }, (request) => {
  const { pathname } = new URL(request.url);
  if (request.headers.get("user-agent")?.startsWith("kube-probe/")) probes++;
  if (pathname === "/probes") return new Response(`${probes}`);
  return new Response(`${pathname.slice(1)} ${NAME}`);
});
const listener = Deno.listen({ port: 7000 });
echo(listener).catch(() => "closed");
await http.finished;
Deno.exit(0);
