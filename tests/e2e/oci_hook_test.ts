/** A container of a real runtime that is enrolled by its hook before its program starts, or does not start (CNI-277). */
import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { CNI_CONFIG } from "../../cni/config.ts";
import { startCni } from "../../cni/main.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { openNetns } from "../../os/netns.ts";
import { program } from "./mesh.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
/** Folders of ours that the container's program needs, as far as they are there. */
const SEEN = ["/usr", "/lib", "/lib64", "/bin"];

/** A bundle whose program sleeps, in a network namespace of its own. */
function writeBundle(folder: string, hook: string): void {
  const mounts = SEEN.filter((path) => Deno.statSync(path).isDirectory).map((destination) => {
    Deno.mkdirSync(`${folder}/rootfs${destination}`, { recursive: true });
    return { destination, type: "bind", source: destination, options: ["rbind", "ro"] };
  });
  Deno.mkdirSync(`${folder}/rootfs/proc`);
  const annotations = {
    "ambit.mesh/name": "web-0",
    "ambit.mesh/namespace": "shop",
    "ambit.mesh/service-account": "web",
  };
  Deno.writeTextFileSync(
    `${folder}/config.json`,
    JSON.stringify({
      ociVersion: "1.0.2",
      process: { user: { uid: 0, gid: 0 }, args: ["/usr/bin/sleep", "600"], env: ["PATH=/usr/bin"], cwd: "/" },
      root: { path: "rootfs" },
      mounts: [{ destination: "/proc", type: "proc", source: "proc" }, ...mounts],
      annotations,
      hooks: { createRuntime: [{ path: hook, args: ["ambit"], env: ["PATH=/usr/bin:/bin"] }] },
      linux: {
        namespaces: ["pid", "network", "mount", "uts", "ipc"].map((type) => ({ type })),
        cgroupsPath: `/ambit-oci-${Deno.pid}`,
      },
    }),
  );
}

Deno.test("runc starts a container when its createRuntime hook has enrolled it, and does not start one that is not (CNI-277)", async () => {
  const folder = Deno.makeTempDirSync(), socket = `${folder}/run/enrol.sock`, zds = `${folder}/zds.sock`;
  Deno.mkdirSync(`${folder}/run`);
  Deno.mkdirSync(`${folder}/bundle`);
  const hook = `${folder}/hook`;
  const home = `DENO_DIR="${Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`}"`;
  const deno = `"${Deno.execPath()}" run -A --quiet --unstable-worker-options`;
  const writeHook = (wait: string) => {
    const flags = `--enrol-socket ${socket} --wait ${wait}`;
    const script = `#!/bin/sh\nexport ${home}\nexec ${deno} "${MAIN}" oci-hook ${flags} >/dev/null\n`;
    Deno.writeTextFileSync(hook, script, { mode: 0o755 });
  };
  writeHook("1s"); // For a ztunnel that does not come.
  writeBundle(`${folder}/bundle`, hook);
  const runc = async (...args: string[]) => {
    // Its output is a file's: the container keeps it open as long as it runs.
    const command = `exec ${program("runc")} --root ${folder}/state ${args.join(" ")} >${folder}/out 2>&1`;
    const { success } = await new Deno.Command("sh", { args: ["-c", command], stdin: "null" }).output();
    return { success, said: Deno.readTextFileSync(`${folder}/out`) };
  };
  const log = new Logger("cni", { sink: () => {} }), stop = new AbortController();
  const args = ["--node-mode", "--zds-socket", zds, "--enrol-socket", socket, "--state-dir", `${folder}/cni`];
  const { config } = CNI_CONFIG.parse([...args, "--enrol-dir", `${folder}/enrol.d`, "--release"], () => undefined);
  const agent = await startCni(config, { signal: stop.signal, log });
  const served: string[] = [];
  const pods = {
    addPod: (pod: EnrolledPod) => Promise.resolve(void served.push(`${pod.info.namespace}/${pod.info.name}`)),
    deletePod: () => Promise.resolve(),
  };
  try {
    const refused = await runc("run", "-d", "--bundle", `${folder}/bundle`, "refused");
    assertEquals([refused.success, refused.said.includes("hook")], [false, true], refused.said);
    writeHook("60s");
    using ztunnel = new ZdsClient({ path: zds, pods, log });
    const running = ztunnel.run(stop.signal);
    const started = await runc("run", "-d", "--pid-file", `${folder}/pid`, "--bundle", `${folder}/bundle`, "web");
    assert(started.success, started.said);
    assertEquals(served, ["shop/web-0"]);
    {
      using netns = openNetns(`/proc/${Deno.readTextFileSync(`${folder}/pid`)}/ns/net`);
      using firewall = FirewallSocket.open(netns);
      assert(firewall.tableNames().includes("istio-ambient-nat"), "it is captured");
    }
    assert((await runc("delete", "-f", "web")).success);
    stop.abort();
    await running;
  } finally {
    stop.abort();
    await agent.done;
    for (const name of ["web", "refused"]) await runc("delete", "-f", name);
    Deno.removeSync(folder, { recursive: true });
  }
});
