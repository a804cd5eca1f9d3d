/** Objects made with kubectl, read back by gRPC: each `.yaml` of golden/ gives what its `.txt` says, whatever the etcd. */
import { assertEquals } from "@std/assert";
import { parseAll } from "@std/yaml";
import { type ApiServer, startApiServer } from "./api_server.ts";
import { installManifests, Istiod } from "./istiod.ts";
import type { MeshReader } from "./mesh_reader.ts";
import type { EtcdVersion } from "./parts.ts";

const FOLDER = new URL("golden/", import.meta.url);
const NAMES = ["shop", "waypoints"] as const;
const DEADLINE_MS = 180_000;
/** Their addresses and ports are another cluster's every time. */
const SKIPPED = ["default/kubernetes.default.svc.cluster.local", "istio-system/istiod.istio-system.svc.cluster.local"];
const print = (reader: MeshReader) => reader.print((name) => !SKIPPED.includes(name));

interface Input {
  readonly kind: string;
}

async function applyFile(server: ApiServer, name: string): Promise<void> {
  const objects = parseAll(await Deno.readTextFile(new URL(`${name}.yaml`, FOLDER))) as Input[];
  const isNamespace = ({ kind }: Input) => kind === "Namespace";
  await server.apply(...objects.filter(isNamespace));
  await server.apply(...objects.filter((it) => !isNamespace(it)));
}

/** Waits for the text, and compares it then or at the deadline. GOLDEN=write renews the file; read the difference. */
async function compare(name: string, reader: MeshReader): Promise<void> {
  const file = new URL(`${name}.txt`, FOLDER), write = Deno.env.get("GOLDEN") === "write";
  if (write) {
    await reader.settled();
    return await Deno.writeTextFile(file, print(reader));
  }
  const expected = await Deno.readTextFile(file), deadlineMs = performance.now() + DEADLINE_MS;
  while (print(reader) !== expected && performance.now() < deadlineMs) await reader.settled();
  assertEquals(print(reader), expected);
}

for (const etcd of ["3.6", "3.4"] as readonly EtcdVersion[]) {
  for (const name of NAMES) {
    Deno.test(`istiod tells of ${name}.yaml what golden/${name}.txt says, before and after its start, on etcd ${etcd}`, async () => {
      await using server = await startApiServer({ etcd, definitions: ["istio", "gateway"] });
      await installManifests(server);
      await using early = await Istiod.start(server, "istiod-early");
      using watching = await early.reader();
      await applyFile(server, name);
      await compare(name, watching);
      await using late = await Istiod.start(server, "istiod-late");
      using listing = await late.reader();
      await compare(name, listing);
    });
  }
}
