/** The units under a systemd of their own: order, hardening, reload, and a unit that starts in the mesh or not at all (CNI-277). */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { findCgroupRoot } from "../../cni/bare/cgroups.ts";
import { until } from "../../demo/lab/until.ts";
import { program } from "./mesh.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
/** What units depend on by default; here each is there, and does nothing to the machine. */
const TARGETS = [
  "sysinit",
  "basic",
  "shutdown",
  "network-online",
  "local-fs",
  "multi-user",
  "network",
  "umount",
  "final",
];

/** Prepares namespaces in which nothing that is written stays, installs, and becomes their first process. */
const bootScript = (folder: string, systemd: string) =>
  `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs none ${folder}/layers
mount -t tmpfs none /run
mkdir -p /run/netns
for d in /etc /usr/local /var/lib; do
  n=${folder}/layers$(echo $d | tr / _); mkdir -p $n/u $n/w
  mount -t overlay overlay -o lowerdir=$d,upperdir=$n/u,workdir=$n/w $d
done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
rm -rf /etc/systemd/system; mkdir -p /etc/systemd/system; cd /etc/systemd/system
"${Deno.execPath()}" run -A --quiet --unstable-worker-options "${ROOT}main.ts" install --node
for t in ${TARGETS.join(" ")}; do printf '[Unit]\\nDefaultDependencies=no\\n' > $t.target; done
printf 'XDS_ADDRESS=\\nLOCAL_XDS_PATH=/etc/ambit/local.yaml\\nNODE_NAME=n\\nZTUNNEL_WORKER_THREADS=1\\n' > /etc/ambit/ztunnel.env
echo 'workloads: []' > /etc/ambit/local.yaml
printf '[Service]\\nExecStart=/usr/bin/sleep 600\\n' > web.service
mkdir web.service.d
/usr/local/bin/ambit enroll unit/web.service --namespace shop --service-account web --name web-0 --ports 8080 --drop-in |
  sed 's/--wait 30s/--wait 20s/' > web.service.d/10-ambit.conf
printf '[Unit]\\nDefaultDependencies=no\\nWants=ambit-cni.service ambit-ztunnel.service\\n' > try.target
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/etc/systemd/system \\
  ${systemd} --system --unit=try.target --log-target=console
`;

class Machine implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync();
  readonly #cgroup = `${findCgroupRoot()}/ambit-systemd-${Deno.pid}`;
  readonly #child: Deno.ChildProcess;

  constructor() {
    Deno.mkdirSync(this.#cgroup);
    Deno.mkdirSync(`${this.folder}/layers`);
    const systemd = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"].find(isThere) ?? program("systemd");
    Deno.writeTextFileSync(`${this.folder}/boot`, bootScript(this.folder, systemd));
    const spaces = "--mount --pid --fork --kill-child --net --cgroup --ipc --uts";
    const script =
      `echo $$ > ${this.#cgroup}/cgroup.procs; exec unshare ${spaces} sh ${this.folder}/boot >${this.folder}/log 2>&1`;
    this.#child = new Deno.Command("sh", { args: ["-c", script], stdin: "null", stdout: "null", stderr: "null" })
      .spawn();
  }

  get log(): string {
    return isThere(`${this.folder}/log`) ? Deno.readTextFileSync(`${this.folder}/log`) : "";
  }

  /** Runs a command in it. */
  async run(command: string): Promise<{ readonly success: boolean; readonly said: string }> {
    const init = Number(Deno.readTextFileSync(`${this.#cgroup}/init.scope/cgroup.procs`).split("\n")[0]);
    const args = [
      "-t",
      String(init),
      "-m",
      "-p",
      "-n",
      "-C",
      "-i",
      "-u",
      "sh",
      "-c",
      `PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin; ${command}`,
    ];
    const { success, stdout, stderr } = await new Deno.Command("nsenter", { args, stdin: "null" }).output();
    return { success, said: [stdout, stderr].map((it) => new TextDecoder().decode(it)).join("").trim() };
  }

  async states(): Promise<string> {
    const units = ["ambit-cni", "ambit-ztunnel", "web"];
    return (await this.run(`systemctl is-active ${units.join(" ")}`)).said.replaceAll("\n", " ");
  }

  /** The processes of a unit. */
  async processes(unit: string): Promise<string> {
    return (await this.run(`cat /sys/fs/cgroup/system.slice/${unit}.service/cgroup.procs`)).said.replaceAll("\n", " ");
  }

  /** The first process of a namespace takes all others with it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await until("its control groups are empty", 60_000, () => removeTree(this.#cgroup));
    Deno.removeSync(this.folder, { recursive: true });
  }
}

/** Control groups are removed from the inside out, as soon as the kernel has buried what was in them. */
function removeTree(path: string): boolean {
  try {
    for (const { name, isDirectory } of Deno.readDirSync(path)) {
      if (isDirectory && !removeTree(`${path}/${name}`)) return false;
    }
    Deno.removeSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    return false;
  }
}

function isThere(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

Deno.test("under systemd the roles start hardened and in order, reload without an end, and a unit starts in the mesh or not at all (CNI-277)", async () => {
  assert(Deno.uid() === 0, "namespaces and mounts need root: run `deno task e2e` as root");
  await using machine = new Machine();
  await until("both roles are active", 180_000, async () => {
    if (!machine.log.includes("next: fill in")) return false;
    try {
      return await machine.states() === "active active inactive";
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false; // systemd has not begun.
      throw error;
    }
  });
  assertEquals((await machine.run("systemctl start web")).said, "");
  const status = (await machine.run("ambit status")).said;
  assertMatch(status, /^unit\/web\.service +enrolled +shop\/web-0 /m);
  assert((await machine.run("systemctl restart web")).success, "its new control group is enrolled anew");
  assertEquals(await machine.states(), "active active active");
  const before = await machine.processes("ambit-ztunnel");
  assert((await machine.run("systemctl reload ambit-ztunnel")).success);
  await until("another process has taken over", 120_000, async () => {
    const now = await machine.processes("ambit-ztunnel");
    return !now.includes(" ") && now !== before;
  });
  assertEquals(await machine.states(), "active active active");
  assert((await machine.run("systemctl restart ambit-cni")).success);
  assertEquals(await machine.states(), "active active active", "a unit is not restarted with the node agent");
  // A boot leaves nothing of what is in memory; what is enrolled is known nevertheless.
  const boot = "systemctl stop web ambit-cni; nft flush ruleset; rm -rf /run/ambit/cni; systemctl start ambit-cni";
  assertEquals((await machine.run(boot)).said, "");
  assertMatch((await machine.run("ambit status")).said, /^unit\/web\.service +waiting +shop\/web-0 /m);
  await until("the unit starts in the mesh", 60_000, async () => (await machine.run("systemctl start web")).success);
  assertMatch((await machine.run("ambit cni check unit/web.service")).said, /^captured +unit\/web\.service/m);
  // ztunnel cannot start: what was captured is refused, and the unit does not start.
  await machine.run("echo LOCAL_XDS_PATH=/nowhere >> /etc/ambit/ztunnel.env; systemctl stop ambit-ztunnel");
  assertEquals((await machine.run("systemctl restart web")).success, false);
  assertEquals((await machine.states()).split(" ").at(-1), "failed");
  const gone =
    (await machine.run("ambit uninstall --node && systemctl list-unit-files | grep ambit; ls /etc/ambit /run/ambit"))
      .said;
  assert(gone.includes("removed /etc/systemd/system/web.service.d/10-ambit.conf"), gone);
  assertEquals(
    (await machine.run("nft list tables; ls -d /etc/ambit /run/ambit /var/lib/ambit /usr/local/bin/ambit 2>/dev/null"))
      .said,
    "",
  );
});
