/** What becomes of a bare node's targets: files of the enrolment folder, units that restart, containers, workloads that share an address (CNI-271 to CNI-278). */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { Logger } from "../../base/log.ts";
import { runEnroll } from "../../cli/enroll.ts";
import { askNodeAgent } from "../../cli/enrol_client.ts";
import { CNI_CONFIG } from "../../cni/config.ts";
import { startCni } from "../../cni/main.ts";
import { type EnrolledPod, ZdsClient } from "../../dataplane/agent/zds_client.ts";
import { until } from "../../demo/lab/until.ts";
import type { NodeStatus } from "../../mesh/enrolment.ts";
import { FirewallSocket } from "../../os/netlink/nftables.ts";
import { createAnonymousNetns, createNamedNetns, deleteNamedNetns, withinNetns } from "../../os/netns.ts";
import { spawnWithin } from "../../os/process.ts";
import { ScratchCgroups } from "./scratch_cgroup.ts";

/** ztunnel as the node agent sees it: what it was told to serve. */
class Pods {
  readonly running = new Map<string, EnrolledPod>();
  /** What ending a pod waits for. */
  held: Promise<void> = Promise.resolve();
  /** How many were to be ended. */
  ending = 0;

  addPod(pod: EnrolledPod): Promise<void> {
    this.running.set(pod.uid, pod);
    return Promise.resolve();
  }

  async deletePod(uid: string): Promise<void> {
    this.ending++;
    await this.held;
    this.running.delete(uid);
  }

  names(): string[] {
    return [...this.running.values()].map(({ info }) => info.name).sort();
  }
}

interface Bench {
  readonly cgroups: ScratchCgroups;
  readonly pods: Pods;
  readonly enrolDir: string;
  readonly log: string[];
  status(): Promise<NodeStatus>;
  enroll(target: string, ...flags: string[]): Promise<number>;
  /** Ends the node agent and starts another. */
  restart(): Promise<void>;
  tables(): string[];
}

/** A node agent in a namespace that stands for the host's, and a ztunnel that takes what it is told. */
function bareTest(name: string, run: (bench: Bench) => Promise<void>): void {
  Deno.test(name, async () => {
    const folder = Deno.makeTempDirSync(), enrolDir = `${folder}/enrol.d`, socket = `${folder}/run/enrol.sock`;
    Deno.mkdirSync(enrolDir);
    Deno.mkdirSync(`${folder}/run`);
    using cgroups = new ScratchCgroups();
    const lines: string[] = [], log = new Logger("cni", { sink: (line) => void lines.push(line) });
    const args = ["--node-mode", "--zds-socket", `${folder}/zds.sock`, "--enrol-socket", socket];
    const { config } = CNI_CONFIG.parse(
      [...args, "--state-dir", `${folder}/state`, "--enrol-dir", enrolDir, "--audit-interval", "1h"],
      () => undefined,
    );
    let stop = new AbortController(), agent = await startCni(config, { signal: stop.signal, log });
    const pods = new Pods(), ended = new AbortController();
    using ztunnel = new ZdsClient({ path: `${folder}/zds.sock`, pods, log });
    const running = ztunnel.run(ended.signal);
    const flags = ["--namespace", "shop", "--enrol-socket", socket, "--wait", "60s", "--output", "json"];
    const write = Deno.stdout.writeSync;
    try {
      Deno.stdout.writeSync = (bytes) => bytes.length; // What the commands print is tested elsewhere.
      await run({
        cgroups,
        pods,
        enrolDir,
        log: lines,
        status: async () => await askNodeAgent(socket, { method: "GET", path: "/status" }) as NodeStatus,
        enroll: (target, ...more) => runEnroll([target, ...more, ...flags]),
        async restart() {
          stop.abort();
          await agent.done;
          stop = new AbortController();
          agent = await startCni(config, { signal: stop.signal, log });
        },
        tables() {
          using firewall = FirewallSocket.open();
          return firewall.tableNames().filter((it) => it.startsWith("ambit-node"));
        },
      });
      for (const { target } of (await askNodeAgent(socket, { method: "GET", path: "/status" }) as NodeStatus).pods) {
        await askNodeAgent(socket, { method: "POST", path: "/unenrol", body: { target } }).catch(unlessGone);
      }
    } finally {
      Deno.stdout.writeSync = write;
      stop.abort();
      await agent.done;
      ended.abort();
      await running;
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

/** A target that has ended leaves by itself, it may be between the question what there is and this. */
function unlessGone(error: unknown): void {
  if (!(error instanceof MeshError && error.code === "AMB7106")) throw error;
}

const workload = (name: string, target: string, more = "") =>
  `kind: NodeWorkload\nmetadata: { name: ${name} }\nspec:\n  target: { ${target} }\n  identity: { namespace: shop, serviceAccount: web }\n${more}`;

bareTest(
  "files of the folder enrol, change and unenrol; one that is wrong is said and leaves the rest alone (CNI-270, CNI-272)",
  async ({ cgroups, pods, enrolDir, status, restart, tables }) => {
    const [web, db] = [cgroups.add("web"), cgroups.add("db")];
    const write = (file: string, text: string) => Deno.writeTextFileSync(`${enrolDir}/${file}`, text);
    write("web.yaml", workload("web", `cgroup: ${web.path}`, "  inboundPorts: [8080]\n"));
    await until("web is enrolled", 60_000, () => pods.names().join() === "web");
    assertEquals([...pods.running.values()][0]!.shared?.inboundPorts, [8080]);
    write("web.yaml", workload("web", `cgroup: ${web.path}`, "  inboundPorts: [8080, 8081]\n"));
    await until(
      "its ports have changed",
      60_000,
      () => [...pods.running.values()][0]?.shared?.inboundPorts.length === 2,
    );
    write("web.yaml", "kind: [");
    write("db.yaml", workload("db", `cgroup: ${db.path}`));
    await until("db is enrolled beside it", 60_000, () => pods.names().join() === "db,web");
    await until(
      "the bad file is named",
      60_000,
      async () => (await status()).problems.some((it) => it.startsWith("web.yaml: it is not YAML")),
    );
    await restart();
    await until("the new agent has read the folder", 60_000, async () => (await status()).problems.length > 0);
    assertEquals(pods.names(), ["db", "web"], "what a bad file named before a restart stays");
    write("web.yaml", workload("web", `cgroup: ${web.path}`, "  inboundPorts: [8080]\n"));
    await until("nothing is wrong", 60_000, async () => (await status()).problems.length === 0);
    // Who may write a file may give an identity: one that others can write is as good as none.
    write("api.yaml", workload("api", `cgroup: ${cgroups.add("api").path}`));
    Deno.chmodSync(`${enrolDir}/api.yaml`, 0o666);
    await until("it is refused", 60_000, async () => (await status()).problems.some((it) => it.includes("chmod go-w")));
    Deno.removeSync(`${enrolDir}/api.yaml`);
    Deno.removeSync(`${enrolDir}/db.yaml`);
    await until("db is out", 60_000, () => pods.names().join() === "web");
    Deno.removeSync(`${enrolDir}/web.yaml`);
    await until("web is out", 60_000, () => pods.names().length === 0 && tables().length === 0);
  },
);

bareTest(
  "a unit is found in its slice, waits while it is stopped, and is captured again under its new control group (CNI-271, CNI-274, CNI-278)",
  async ({ cgroups, pods, enroll, status, restart, log }) => {
    const unit = `ambit-test-${Deno.pid}.service`;
    const missing = await assertRejects(
      () => enroll(`unit/${unit}`, "--service-account", "web", "--name", "web"),
      MeshError,
    );
    assertEquals(missing.code, "AMB7162");
    const first = cgroups.add(unit);
    await enroll(`unit/${unit}`, "--service-account", "web", "--name", "web", "--ports", "8080");
    assertEquals((await status()).pods.map(({ cgroup, state }) => [cgroup, state]), [[first.path, "enrolled"]]);
    Deno.removeSync(`${cgroups.root}/${first.path}`);
    await until(
      "the unit is waited for, and nothing listens for it",
      60_000,
      async () => (await status()).pods[0]?.state === "waiting" && pods.running.size === 0,
    );
    Deno.mkdirSync(`${cgroups.root}/${first.path}`);
    await until("the unit is captured again", 60_000, async () => (await status()).pods[0]?.state === "enrolled");
    assertEquals([...pods.running.values()][0]!.shared?.outboundPort, 15100, "it keeps its slot");
    await restart();
    cgroups.renew(unit);
    await until(
      "the new group is noticed",
      60_000,
      () => log.filter((line) => line.includes("target has a new control group")).length >= 1,
    );
    await until(
      "all is well",
      60_000,
      async () => (await status()).pods[0]?.state === "enrolled" && pods.running.size === 1,
    );
    // Started anew by systemd, its drop-in enrols it before the program runs: at once, whatever the agent has seen.
    cgroups.renew(unit);
    await enroll(`unit/${unit}`, "--service-account", "web", "--name", "web", "--ports", "8080");
    assertEquals((await status()).pods[0]!.problems, []);
  },
);

bareTest(
  "a control group that ends takes its workload and its rules with it (CNI-278)",
  async ({ cgroups, pods, enroll, tables }) => {
    const job = cgroups.add("job");
    await enroll(`cgroup/${job.path}`, "--service-account", "job", "--name", "job");
    assertEquals([pods.running.size, tables().length], [1, 2]);
    Deno.removeSync(`${cgroups.root}/${job.path}`);
    await until("it is gone", 60_000, () => pods.running.size === 0 && tables().length === 0);
  },
);

bareTest(
  "a container is enrolled by its id, and by a glob when it comes; its namespace is all its own (CNI-087, CNI-271, CNI-272, CNI-273)",
  async ({ cgroups, pods, enrolDir, enroll, status }) => {
    const id = crypto.getRandomValues(new Uint8Array(32)).toHex(); // Control groups are the machine's: another run has its own.
    using netns = createAnonymousNetns();
    const start = (cgroup: string) => {
      const group = cgroups.add(cgroup);
      const child = spawnWithin(netns, "sleep", { args: ["600"], stdin: "null", stdout: "null", stderr: "null" });
      cgroups.put(group, child.pid);
      return child;
    };
    const child = start(`docker-${id}.scope`);
    try {
      await enroll(`container/${id.slice(0, 12)}`, "--service-account", "db", "--name", "db");
      assertEquals((await status()).pods.map(({ state, netnsInode }) => [state, netnsInode]), [[
        "enrolled",
        netns.inode,
      ]]);
      assertEquals([...pods.running.values()][0]!.shared, undefined);
      using firewall = FirewallSocket.open(netns);
      assert(firewall.tableNames().includes("istio-ambient-nat"));
      const other = await assertRejects(
        () => enroll(`container/${id}`, "--service-account", "db", "--name", "db-1"),
        MeshError,
      );
      assertEquals(other.code, "AMB7105", "the same container by its whole id");
    } finally {
      child.kill("SIGKILL");
      await child.status;
    }
    using next = createAnonymousNetns();
    Deno.writeTextFileSync(`${enrolDir}/all.yaml`, workload("job", `container: "${id.slice(0, 20)}*"`));
    const later = spawnWithin(next, "sleep", { args: ["600"], stdin: "null", stdout: "null", stderr: "null" });
    try {
      cgroups.put(cgroups.add(`libpod-${id.slice(0, 60)}ffff.scope`), later.pid);
      await until(
        "the glob has found it",
        60_000,
        () => pods.names().some((it) => it.startsWith(`job-${id.slice(0, 12)}`)),
      );
    } finally {
      later.kill("SIGKILL");
      await later.status;
      Deno.removeSync(`${enrolDir}/all.yaml`);
    }
  },
);

bareTest(
  "a control group that a user of the host named is nobody's unit and nobody's container (CNI-087, CNI-271)",
  async ({ cgroups, pods, enrolDir, enroll, status }) => {
    const unit = `ambit-test-${Deno.pid}.service`, id = crypto.getRandomValues(new Uint8Array(32)).toHex();
    // As systemd gives a folder to each user: what is in it is called what he likes.
    const own = cgroups.add("user@1000.service");
    Deno.chownSync(`${cgroups.root}/${own.path}`, 1000, 1000);
    cgroups.add(`user@1000.service/${unit}`);
    using netns = createAnonymousNetns();
    const start = (cgroup: string) => {
      const child = spawnWithin(netns, "sleep", { args: ["600"], stdin: "null", stdout: "null", stderr: "null" });
      cgroups.put(cgroups.add(cgroup), child.pid);
      return child;
    };
    Deno.writeTextFileSync(
      `${enrolDir}/all.yaml`,
      `${workload("web", `unit: "ambit-test-${Deno.pid}*"`)}---\n${
        workload("job", `container: "${id.slice(0, 20)}*"`)
      }`,
    );
    const impostor = start(`user@1000.service/docker-${id}.scope`);
    try {
      for (const target of [`unit/${unit}`, `container/${id}`]) {
        const refused = await assertRejects(
          () => enroll(target, "--service-account", "web", "--name", "web"),
          MeshError,
        );
        assertEquals(["AMB7161", "AMB7162"].includes(refused.code), true, refused.code);
      }
      // The real ones, which root's own programs named.
      const real = cgroups.add(unit), container = start(`docker-${id}.scope`);
      try {
        await until("both are enrolled", 60_000, () => pods.running.size === 2);
        assertEquals((await status()).pods.map(({ cgroup }) => cgroup).filter((it) => it !== undefined), [real.path]);
      } finally {
        container.kill("SIGKILL");
        await container.status;
      }
    } finally {
      impostor.kill("SIGKILL");
      await impostor.status;
    }
  },
);

bareTest(
  "rules that somebody flushes are back at once, in the host's namespace and in others (CNI-097, CNI-274)",
  async ({ cgroups, enroll, tables, log }) => {
    using netns = createNamedNetns(`ambit-flush-${Deno.pid}`);
    try {
      await enroll(`cgroup/${cgroups.add("web").path}`, "--service-account", "web", "--name", "web");
      await enroll(`netns/ambit-flush-${Deno.pid}`, "--service-account", "db", "--name", "db");
      using inside = FirewallSocket.open(netns);
      const all = () => tables().length + inside.tableNames().length;
      const before = all();
      for (let round = 0; round < 2; round++) {
        await until("the agent hears of what was written", 60_000, () => Promise.resolve(all() === before));
        for (const where of [undefined, netns]) {
          using firewall = FirewallSocket.open(where);
          firewall.deleteTables(firewall.tableNames()); // As `nft flush ruleset`, and a firewall that is started anew.
        }
        assertEquals(all(), 0);
        // The next audit is an hour away.
        await until("all rules are back", 60_000, () => Promise.resolve(all() === before));
      }
      assertEquals(log.filter((line) => line.includes("rules repaired")).length >= 4, true);
    } finally {
      deleteNamedNetns(`ambit-flush-${Deno.pid}`);
    }
  },
);

bareTest(
  "an enrolment that is being changed counts as what it is to be (CNI-275)",
  async ({ cgroups, pods, enroll, status }) => {
    const web = `cgroup/${cgroups.add("web").path}`, api = `cgroup/${cgroups.add("api").path}`;
    await enroll(web, "--service-account", "web", "--name", "web");
    const held = Promise.withResolvers<void>();
    pods.held = held.promise;
    const changing = enroll(web, "--service-account", "web", "--name", "web", "--ports", "8080");
    try {
      await until("ztunnel is told", 60_000, () => Promise.resolve(pods.ending > 0));
      assertEquals((await status()).pods[0]?.inboundPorts, [8080]);
      const other = await assertRejects(
        () => enroll(api, "--service-account", "api", "--name", "api", "--ports", "9090"),
        MeshError,
      );
      assertEquals(other.code, "AMB7166", "two accounts at one address");
    } finally {
      held.resolve();
      await changing;
    }
  },
);

bareTest(
  "what no control group can be called is refused, by command and by file, and ends no node agent (CNI-271, CNI-272)",
  async ({ cgroups, pods, enrolDir, enroll, status }) => {
    const web = cgroups.add("web"), long = `${web.path}/${"x".repeat(300)}`;
    const refused = await assertRejects(
      () => enroll(`cgroup/${long}`, "--service-account", "web", "--name", "web"),
      MeshError,
    );
    assertEquals(refused.code, "AMB7162");
    Deno.writeTextFileSync(`${enrolDir}/a.yaml`, workload("long", `cgroup: ${long}`));
    Deno.writeTextFileSync(`${enrolDir}/b.yaml`, workload("web", `cgroup: ${web.path}`));
    await until("the other file's is enrolled", 60_000, () => pods.names().join() === "web");
    await until("the bad one is named", 60_000, async () => (await status()).problems.length === 1);
  },
);

bareTest(
  "workloads of one host share an address only with one account, and no port (CNI-275)",
  async ({ cgroups, enroll }) => {
    const [web, api, db] = ["web", "api", "db"].map((it) => `cgroup/${cgroups.add(it).path}`);
    await enroll(web!, "--service-account", "web", "--name", "web", "--ports", "8080");
    await enroll(api!, "--service-account", "web", "--name", "api", "--ports", "8081");
    const code = async (...flags: string[]) => (await assertRejects(() => enroll(db!, ...flags), MeshError)).code;
    assertEquals(await code("--service-account", "db", "--name", "db", "--ports", "5432"), "AMB7166");
    assertEquals(await code("--service-account", "web", "--name", "db", "--ports", "8080"), "AMB7165");
    await enroll(db!, "--service-account", "db", "--name", "db"); // It is not reached.
  },
);

Deno.test("a process of the host's network is not enrolled as a namespace (CNI-273)", async () => {
  const name = `ambit-bare-${Deno.pid}`;
  using netns = createNamedNetns(name);
  try {
    withinNetns(netns, () => {}); // It is one.
    const { openPlace } = await import("../../cni/bare/place.ts");
    const own = { kind: "pid", pid: Deno.pid, text: `pid/${Deno.pid}` } as const;
    const refused = await assertRejects(() => Promise.resolve().then(() => openPlace(own)), MeshError);
    assertEquals(refused.code, "AMB7101");
    using place = openPlace({ kind: "netns", name, text: `netns/${name}` });
    assertEquals([place.netns.inode, place.cgroup], [netns.inode, undefined]);
  } finally {
    deleteNamedNetns(name);
  }
});

Deno.test("an enrolment with --wait waits for a node agent and a ztunnel that come later (CNI-277)", async () => {
  const folder = Deno.makeTempDirSync(), socket = `${folder}/run/enrol.sock`, zds = `${folder}/zds.sock`;
  Deno.mkdirSync(`${folder}/run`);
  using cgroups = new ScratchCgroups();
  const group = cgroups.add("early"), log = new Logger("cni", { sink: () => {} });
  const args = ["--node-mode", "--zds-socket", zds, "--enrol-socket", socket, "--state-dir", `${folder}/state`];
  const { config } = CNI_CONFIG.parse([...args, "--enrol-dir", `${folder}/enrol.d`, "--release"], () => undefined);
  const stop = new AbortController(), pods = new Pods(), write = Deno.stdout.writeSync;
  Deno.stdout.writeSync = (bytes) => bytes.length;
  const flags = ["--namespace", "shop", "--service-account", "web", "--name", "web", "--enrol-socket", socket];
  const target = `cgroup/${group.path}`;
  try {
    assertEquals((await assertRejects(() => runEnroll([target, ...flags]), MeshError)).code, "AMB7501");
    const enrolled = runEnroll([target, ...flags, "--wait", "60s"]);
    const agent = await startCni(config, { signal: stop.signal, log });
    using ztunnel = new ZdsClient({ path: zds, pods, log });
    const running = ztunnel.run(stop.signal);
    try {
      assertEquals(await enrolled, 0);
      assertEquals(pods.names(), ["web"]);
    } finally {
      stop.abort();
      await agent.done;
      await running;
    }
  } finally {
    Deno.stdout.writeSync = write;
    Deno.removeSync(folder, { recursive: true });
  }
});
