/** Chapters: from permissive to strict, and a running pod into the mesh and out again. */
import { ENTRY } from "../lab/node.ts";
import { denoProgram } from "../lab/program.ts";
import { podYaml } from "../lab/yaml.ts";
import { SHOP_PORT } from "../shop.ts";
import type { Chapter, Stage } from "./stage.ts";

export const STRICT: Chapter = {
  title: "From permissive to strict",
  story: "Until now the shop took plaintext from outside the mesh, so that it could be moved in piece by piece. A " +
    "PeerAuthentication ends that.",
  async run(stage) {
    const { checks, tell } = stage;
    await checks.check("plaintext is accepted under PERMISSIVE", async () => {
      const reply = await stage.askStore("passer-by");
      return { ok: "answer" in reply, detail: JSON.stringify(reply) };
    });
    await tell("PeerAuthentication STRICT for the namespace.");
    stage.apply("strict");
    await checks.check("plaintext is refused under STRICT", async () => {
      const tookMs = await stage.becomes(false, "passer-by");
      const reply = await stage.askStore("passer-by");
      return { ok: "failure" in reply, detail: `refused after ${tookMs} ms: ${JSON.stringify(reply)}` };
    });
    await checks.check("traffic of the mesh goes on under STRICT", async () => {
      const reply = await stage.askStore("shopper");
      return { ok: "answer" in reply, detail: JSON.stringify(reply) };
    });
    stage.withdraw("strict");
    await stage.becomes(true, "passer-by");
  },
};

export const ENROLMENT: Chapter = {
  title: "Into the mesh without a restart",
  story: "The passer-by is a running process with an open connection. `enroll` brings its network namespace into the " +
    "mesh: no restart, no change, and from the next connection on it has an identity. A connection that is open then " +
    "is reset once, for its packets now pass the redirection.",
  async run(stage) {
    const { shop, checks, tell } = stage;
    const passerBy = stage.pod("passer-by"), store = stage.pod("store");
    const target = { host: store.ipv4, port: SHOP_PORT.store };
    const old = await passerBy.probe.do("open", target);
    await passerBy.probe.do("say", { ...old, text: "WHO" });
    const processBefore = passerBy.probe.pid;
    await tell(
      `ambit enroll netns/${passerBy.place.name} --namespace street --service-account passer-by --name passer-by`,
    );
    await command(stage, "enroll");
    shop.mesh.writeConfig("passer_by.yaml", podYaml(passerBy, true));
    await checks.check("a running pod is enrolled without a restart", async () => {
      const identity = `spiffe://${passerBy.principal}`;
      const { ztunnel } = shop.mesh.nodes["node-b"];
      const since = ztunnel.lineCount;
      await stage.becomes(true, "passer-by"); // Its certificate may come later than a connection waits for it.
      await ztunnel.line("the new identity", (line) => line.includes(`src.identity="${identity}"`), 60_000, since);
      const stays = await passerBy.probe.attempt("say", { ...old, text: "WHO" });
      return {
        ok: passerBy.probe.pid === processBefore,
        detail: `process ${processBefore} is now ${identity}; its older connection ${
          stays.failure === undefined ? "goes on as it was" : `ended: ${stays.failure}`
        }`,
      };
    });
    stage.apply("strict");
    await checks.check("once enrolled, it is admitted under STRICT", async () => {
      await shop.mesh.seen("STRICT", (dump) => dump.policies.length > 0);
      const reply = await stage.askStore("passer-by");
      return { ok: "answer" in reply, detail: JSON.stringify(reply) };
    });
    stage.withdraw("strict");
    await shop.mesh.seen("PERMISSIVE", (dump) => dump.policies.length === 0);
    await tell(`ambit unenroll netns/${passerBy.place.name}`);
    await command(stage, "unenroll");
    shop.mesh.writeConfig("passer_by.yaml", podYaml(passerBy, false));
    await checks.check("unenrolled again, it speaks plaintext as before", async () => {
      await shop.wiretap.clear();
      await stage.becomes(true, "passer-by");
      const own = (await shop.wiretap.seen()).filter((it) => [it.source, it.destination].includes(passerBy.ipv4));
      const markers = own.reduce((sum, it) => sum + it.markers, 0);
      return { ok: markers > 0 && passerBy.probe.pid === processBefore, detail: `read on the wire ${markers} times` };
    });
    await passerBy.probe.do("close", old);
  },
};

/** Runs the command that a person would run. */
async function command({ shop }: Stage, verb: "enroll" | "unenroll"): Promise<void> {
  const { place, spec, node } = shop.pods["passer-by"];
  const names = ["--namespace", spec.namespace, "--service-account", spec.serviceAccount, "--name", spec.name];
  const { command, args } = denoProgram(ENTRY, [
    verb,
    `netns/${place.name}`,
    ...(verb === "enroll" ? names : []),
    "--enrol-socket",
    node.enrolSocket,
  ]);
  const { success, stderr } = await new Deno.Command(command, { args, stdin: "null" }).output();
  if (!success) throw new Error(`ambit ${verb}: ${new TextDecoder().decode(stderr)}`);
}
