import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { containerIdsOf, findContainer } from "./containers.ts";

const ID = "8f4b2a0c9d1e8f4b2a0c9d1e8f4b2a0c9d1e8f4b2a0c9d1e8f4b2a0c9d1e8f4b";

Deno.test("containerIdsOf() reads the control groups of every runtime (CNI-087, CNI-271)", () => {
  const known: readonly [string, readonly string[]][] = [
    [`0::/system.slice/docker-${ID}.scope\n`, [ID]],
    [`4:memory:/docker/${ID}\n0::/docker/${ID}\n`, [ID]],
    [`0::/machine.slice/libpod-${ID}.scope/container`, [ID]],
    [`0::/machine.slice/libpod-conmon-${ID}.scope`, []],
    [`0::/kubepods.slice/kubepods-pod1.slice/crio-${ID}.scope`, [ID]],
    [`0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-${ID}.scope`, [ID]],
    [`0::/system.slice:docker:${ID}`, [ID]],
    ["0::/default/web", ["web"]], // `ctr run`, whose ids are names.
    [`0::/docker/${ID}/system.slice/nginx.service`, [ID]], // systemd inside.
    [`0::/machine.slice/libpod-${ID}.scope/docker-${ID.replace("8", "9")}.scope`, [ID]], // What it calls its own.
    [`0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker-${ID}.scope`, []], // A user's own name for it.
    ["0::/system.slice/nginx.service", []],
    ["0::/", []],
  ];
  for (const [file, ids] of known) assertEquals(containerIdsOf(file), [...ids], file);
});

/** Processes as /proc shows them. */
function proc(processes: Record<string, { cgroup: string; netns: string; started: number }>): string {
  const folder = Deno.makeTempDirSync();
  for (const [pid, { cgroup, netns, started }] of Object.entries(processes)) {
    Deno.mkdirSync(`${folder}/${pid}/ns`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/${pid}/cgroup`, cgroup);
    Deno.writeTextFileSync(`${folder}/${pid}/stat`, `${pid} (a ) b) S ${Array(18).fill("0").join(" ")} ${started} 0`);
    Deno.writeTextFileSync(`${folder}/ns-${netns}`, "");
    Deno.linkSync(`${folder}/ns-${netns}`, `${folder}/${pid}/ns/net`);
  }
  return folder;
}

Deno.test("findContainer() takes the oldest process, an id or the beginning of one, and no container of the host's network (CNI-086, CNI-271)", () => {
  const cgroup = `0::/system.slice/docker-${ID}.scope\n`, other = cgroup.replace("8f4b2a", "8f4b2b");
  const folder = proc({
    1: { cgroup: "0::/init.scope", netns: "host", started: 1 },
    40: { cgroup, netns: "own", started: 900 },
    41: { cgroup, netns: "own", started: 800 },
    42: { cgroup: other, netns: "host", started: 700 },
  });
  const root = `${folder}/cgroup`;
  Deno.mkdirSync(`${root}/system.slice`, { recursive: true });
  try {
    for (const id of [ID, ID.slice(0, 12)]) assertEquals(findContainer(folder, id, root), { id: ID, pid: 41 });
    for (const id of [ID.slice(0, 6), ID.replace("8f4b2a", "8f4b2b"), "web"]) {
      assertEquals(assertThrows(() => findContainer(folder, id, root), MeshError).code, "AMB7161", id);
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
