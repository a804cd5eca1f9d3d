/** Policies that come and go: over a guarded pod, where each is put to the test, and around everybody, where none may matter. */
import { pause } from "../../../demo/lab/until.ts";
import { policyYaml } from "../../../demo/lab/yaml.ts";
import type { Pod } from "../../../demo/lab/mesh.ts";
import { until } from "../../../demo/lab/until.ts";
import { LINE_PORT, NAMESPACE, type Stage } from "../stage.ts";

/** What a policy says, and who may still come in. */
interface Rule {
  readonly name: string;
  readonly spec: string;
  readonly friend: boolean;
  readonly foe: boolean;
}

const GUARD = "  selector: { matchLabels: { app: guard } }";
const CLOSED_WITHIN_MS = 5_000; // a worker judges 256 of its connections a turn, and turns take milliseconds
const SEEN_WITHIN_MS = 60_000; // istiod may be away for a while
const ASK_AGAIN_MS = 100; // a dump of hundreds of workloads is work for whoever makes it
const IN_FORCE_MS = 500; // from the agent's view to the workers' next turn

function rules(friend: Pod, foe: Pod): Rule[] {
  const from = (source: string) => `[{ from: [{ source: { ${source} } }] }]`;
  const principals = (...pods: Pod[]) => from(`principals: [${pods.map((it) => `"${it.principal}"`).join(", ")}]`);
  const rule = (name: string, spec: string, friend: boolean, foe: boolean): Rule => ({ name, spec, friend, foe });
  return [
    rule("deny-foe", `${GUARD}\n  action: DENY\n  rules: ${principals(foe)}`, true, false),
    rule("allow-friend", `${GUARD}\n  rules: ${principals(friend)}`, true, false),
    rule("allow-both", `${GUARD}\n  rules: ${principals(friend, foe)}`, true, true),
    rule("deny-namespace", `${GUARD}\n  action: DENY\n  rules: ${from(`namespaces: ["${NAMESPACE}"]`)}`, false, false),
    rule("deny-address", `${GUARD}\n  action: DENY\n  rules: ${from(`ipBlocks: ["${foe.ipv4}/32"]`)}`, true, false),
    rule(
      "deny-port",
      `${GUARD}\n  action: DENY\n  rules: [{ to: [{ operation: { ports: ["${LINE_PORT}"] } }] }]`,
      false,
      false,
    ),
    rule("allow-nobody", `${GUARD}\n  action: ALLOW`, false, false),
    rule(
      "deny-others",
      `${GUARD}\n  action: DENY\n  rules: ${from(`notPrincipals: ["${friend.principal}"]`)}`,
      true,
      false,
    ),
  ];
}

/** One policy after the other over the guarded pod; while one is settled, whom it refuses is refused, every time. */
export async function policyGame(stage: Stage): Promise<void> {
  const friend = stage.veteran("alpha"), foe = stage.veteran("gamma"), all = rules(friend, foe);
  for (let round = 0; await stage.calm(500, 1_500); round++) {
    const [friendOpen, foeOpen] = await Promise.all([friend, foe].map((pod) => openLine(stage, pod)));
    const rule = stage.chance.pick(all), name = `guard-${rule.name}-${round}`, file = `${name}.yaml`;
    stage.mesh.writeConfig(file, policyYaml(name, NAMESPACE, rule.spec));
    await inForce(stage, name, true);
    await kept(stage, friend, { handle: friendOpen, allowed: rule.friend, rule });
    await kept(stage, foe, { handle: foeOpen, allowed: rule.foe, rule });
    await Promise.all([
      probe(stage, friend, { allowed: rule.friend, rule }),
      probe(stage, foe, { allowed: rule.foe, rule }),
    ]);
    stage.mesh.removeConfig(file);
    await inForce(stage, name, false);
    stage.did("policies in force");
  }
}

function openLine(stage: Stage, pod: Pod): Promise<number | undefined> {
  return pod.probe.do("open", { host: stage.guard.ipv4, port: LINE_PORT }).then(async ({ handle }) => {
    const { failure } = await pod.probe.attempt("say", { handle, text: "still here", timeoutMs: 10_000 });
    if (failure !== undefined) stage.findings.add("a connection that no policy refuses failed", failure);
    return handle;
  });
}

async function inForce(stage: Stage, name: string, there: boolean): Promise<void> {
  const node = stage.mesh.nodes[stage.guard.spec.node];
  await until(
    `${name} ${there ? "in" : "out of"} force`,
    SEEN_WITHIN_MS,
    async () => {
      if ((await node.configDump()).policies.some((it) => it.name === name) === there) return true;
      await pause(ASK_AGAIN_MS);
      return false;
    },
  );
  await pause(IN_FORCE_MS);
}

/** A connection that was open before: it is closed where the policy refuses it, and goes on where not. */
async function kept(
  { findings }: Stage,
  pod: Pod,
  { handle, allowed, rule }: { handle: number | undefined; allowed: boolean; rule: Rule },
): Promise<void> {
  if (handle === undefined) return;
  if (allowed) {
    const { failure } = await pod.probe.attempt("say", { handle, text: "and still" });
    if (failure !== undefined) {
      findings.add("an open connection that a policy allows failed", `${rule.name}: ${failure}`);
    }
  } else {
    const { ending } = await pod.probe.do("ended", { handle, timeoutMs: CLOSED_WITHIN_MS });
    if (ending === "open") {
      findings.add("an open connection outlived a policy that refuses it", `${rule.name} ${pod.spec.name}`);
    }
  }
  await pod.probe.do("close", { handle });
}

/** Calls again and again for a while. */
async function probe(stage: Stage, pod: Pod, { allowed, rule }: { allowed: boolean; rule: Rule }): Promise<void> {
  const untilMs = performance.now() + stage.chance.between(1_000, 3_000);
  while (performance.now() < untilMs) {
    const { failure } = await pod.probe.attempt("line", {
      host: stage.guard.ipv4,
      port: LINE_PORT,
      text: "hello",
      timeoutMs: 5_000,
    });
    stage.did(allowed ? "calls that a policy allows" : "calls that a policy refuses");
    if (allowed && failure !== undefined) {
      stage.findings.add("a call that the policy in force allows failed", `${rule.name} ${pod.spec.name}: ${failure}`);
    }
    if (!allowed && failure === undefined) {
      stage.findings.add("a call that the policy in force refuses was carried", `${rule.name} ${pod.spec.name}`);
    }
    await pause(stage.chance.between(5, 40));
  }
}

/** Policies that allow what is there, or refuse what is not: none of the veterans' connections may feel them. */
export async function policyNoise(stage: Stage): Promise<void> {
  const specs = [
    `  selector: { matchLabels: { app: alpha } }\n  rules: [{ from: [{ source: { principals: ["*"] } }] }]`,
    `  selector: { matchLabels: { app: bravo } }\n  rules: [{ from: [{ source: { namespaces: ["${NAMESPACE}"] } }] }]`,
    `  selector: { matchLabels: { app: gamma } }\n  action: DENY\n  rules: [{ to: [{ operation: { ports: ["9"] } }] }]`,
    `  action: DENY\n  rules: [{ from: [{ source: { namespaces: ["nowhere"] } }] }]`,
    `  action: DENY\n  rules: [{ from: [{ source: { principals: ["cluster.local/ns/${NAMESPACE}/sa/nobody"] } }] }]`,
  ];
  const there: string[] = [];
  for (let number = 0; await stage.calm(100, 1_500); number++) {
    const name = `noise-${number}`;
    stage.mesh.writeConfig(`${name}.yaml`, policyYaml(name, NAMESPACE, stage.chance.pick(specs)));
    there.push(`${name}.yaml`);
    if (there.length > 6) stage.mesh.removeConfig(there.splice(stage.chance.below(there.length), 1)[0]!);
    stage.did("policies of no weight");
  }
  for (const file of there) stage.mesh.removeConfig(file);
}
