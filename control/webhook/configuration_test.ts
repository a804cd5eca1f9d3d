import { assertEquals, assertStringIncludes } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { until } from "../../kube/informer_testing.ts";
import { AUTHORIZATION_POLICIES, VALIDATING_WEBHOOKS } from "../../kube/resource_types.ts";
import { InMemoryKubeApi } from "../../kube/testing.ts";
import { planPatch, WebhookRegistration } from "./configuration.ts";

const SERVICE = { namespace: "istio-system", name: "istiod" };
const base64 = (text: string) => new TextEncoder().encode(text).toBase64();

function webhook(name: string, more: object = {}, service: object = SERVICE): object {
  return { name, failurePolicy: "Ignore", clientConfig: { service: { ...service, path: "/validate" } }, ...more };
}

function registration(name: string, webhooks: readonly object[], rev = "default"): object {
  return { metadata: { name, labels: { "istio.io/rev": rev } }, webhooks };
}

/** An API server that asks the webhook, once it may. */
class Rig implements AsyncDisposable {
  readonly api = new InMemoryKubeApi();
  readonly logged: string[] = [];
  readonly waits: number[] = [];
  readonly kept: WebhookRegistration;
  roots = "root one";
  asked = true;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(...registrations: readonly object[]) {
    for (const it of registrations) this.api.put(VALIDATING_WEBHOOKS, it);
    this.api.admit((_verb, type, { metadata }) => {
      const marked = Object.hasOwn(metadata.annotations as object ?? {}, "internal.istio.io/webhook-always-reject");
      if (!this.asked || type.kind !== "AuthorizationPolicy" || !marked) return undefined;
      return new KubeError(
        403,
        "",
        'admission webhook "validation.istio.io" denied the request: asks for this refusal',
      );
    });
    this.kept = new WebhookRegistration({
      api: this.api,
      service: SERVICE,
      revision: "",
      rootsPem: () => this.roots,
      log: new Logger("webhook", { sink: (line) => this.logged.push(line) }),
      random: () => 0.5,
      sleep: (ms) => {
        this.waits.push(ms);
        return new Promise((resolve) => setTimeout(resolve, 0));
      },
    });
    this.#running = this.kept.run(this.#stop.signal);
  }

  /** Each webhook's failure policy and bundle. */
  state(name: string): string[] {
    const webhooks = this.api.object(VALIDATING_WEBHOOKS, "", name)?.webhooks as {
      failurePolicy: string;
      clientConfig: { caBundle?: string };
    }[];
    return webhooks.map(({ failurePolicy, clientConfig }) => `${failurePolicy} ${atob(clientConfig.caBundle ?? "")}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}

Deno.test("WebhookRegistration gives the roots at once, and lets failures refuse once it is asked, not before (CP-693)", async () => {
  const rig = new Rig(registration("mine", [webhook("a"), webhook("b", {}, { namespace: "x", name: "other" })]));
  await using _rig = rig;
  rig.asked = false;
  await until("it has tried to be asked", () => rig.waits.length >= 12);
  assertEquals(rig.state("mine"), ["Ignore root one", "Ignore "]);
  assertEquals(rig.waits.slice(0, 12), [
    100,
    200,
    400,
    800,
    1_600,
    3_200,
    6_400,
    12_800,
    25_600,
    51_200,
    60_000,
    60_000,
  ]);
  rig.asked = true;
  await until("failures refuse", () => rig.state("mine")[0] === "Fail root one");
  assertEquals(rig.state("mine")[1], "Ignore ", "what names another service is another's");
  assertEquals(rig.api.objects(AUTHORIZATION_POLICIES), [], "the probe is stored nowhere");
});

Deno.test("WebhookRegistration follows new roots and what others change, and leaves other revisions alone (CP-693)", async () => {
  const rig = new Rig(registration("mine", [webhook("a")]), registration("theirs", [webhook("a")], "canary"));
  await using _rig = rig;
  await until("failures refuse", () => rig.state("mine")[0] === "Fail root one");
  rig.roots = "root two";
  rig.kept.touch();
  await until("the roots are new", () => rig.state("mine")[0] === "Fail root two");
  rig.api.put(
    VALIDATING_WEBHOOKS,
    registration("mine", [webhook("a", { clientConfig: { service: SERVICE, caBundle: base64("stolen") } })]),
  );
  await until("it is put right", () => rig.state("mine")[0] === "Fail root two");
  rig.api.put(VALIDATING_WEBHOOKS, registration("late", [webhook("x"), webhook("y")]));
  await until("a late one is kept, too", () => rig.state("late").join() === "Fail root two,Fail root two");
  assertEquals(rig.state("theirs"), ["Ignore "]);
});

Deno.test("two istiods that disagree about the roots, as while these are renewed, take turns ever more slowly (CP-693)", async () => {
  const rig = new Rig(registration("mine", [webhook("a")])), stop = new AbortController(), waits: number[] = [];
  await using _rig = rig;
  const other = new WebhookRegistration({
    api: rig.api,
    service: SERVICE,
    revision: "",
    rootsPem: () => "root two",
    log: new Logger("webhook", { sink: () => {} }),
    random: () => 0.5,
    sleep: (ms) => {
      waits.push(ms);
      return new Promise((resolve) => setTimeout(resolve, 0));
    },
  });
  const running = other.run(stop.signal);
  await until("both have been overruled often", () => Math.min(waits.length, rig.waits.length) >= 12);
  for (const paused of [waits, rig.waits]) assertEquals(paused.slice(8, 12), [25_600, 51_200, 60_000, 60_000]);
  stop.abort();
  await running;
});

Deno.test("WebhookRegistration writes nothing where all is right, and nothing where it is not named", async () => {
  const right = registration("mine", [
    webhook("a", { failurePolicy: "Fail", clientConfig: { service: SERVICE, caBundle: base64("root one") } }),
  ]);
  const rig = new Rig(right, registration("other", [webhook("a", {}, { namespace: "a", name: "b" })]));
  await using _rig = rig;
  await until("it has asked once", () => rig.api.calls.some(({ verb }) => verb === "create"));
  rig.kept.touch();
  rig.api.put(VALIDATING_WEBHOOKS, registration("third", [webhook("a")]));
  await until("the third is kept", () => rig.state("third")[0] === "Fail root one");
  assertEquals(rig.api.calls.filter(({ verb, name }) => verb === "patch" && name !== "third"), []);
});

Deno.test("WebhookRegistration tells once what hinders it, and goes on trying", async () => {
  const rig = new Rig(registration("mine", [webhook("a")]));
  await using _rig = rig;
  const lift = rig.api.deny(VALIDATING_WEBHOOKS, "patch");
  rig.api.fail(new KubeError(409, "Conflict", "changed"), { verb: "patch" });
  await until("it tries", () => rig.waits.length >= 5);
  assertEquals(rig.logged.filter((line) => line.includes("cannot be kept")).length, 1);
  assertStringIncludes(rig.logged.join(), "is forbidden");
  lift();
  rig.api.fail(new KubeUnreachable("cut"), { verb: "create", times: 2 });
  await until("failures refuse", () => rig.state("mine")[0] === "Fail root one");
});

Deno.test("planPatch() changes what is wrong of the webhooks that are ours, and names each it means", () => {
  const of = (...webhooks: readonly object[]) => ({ metadata: { name: "a" }, webhooks });
  const wanted = { service: SERVICE, caBundle: "QQ==", mayFail: true };
  const ours = webhook("second", { failurePolicy: "Fail" });
  assertEquals(planPatch(of(webhook("first", {}, { namespace: "x", name: "y" }), ours), wanted), [
    { op: "test", path: "/webhooks/1/name", value: "second" },
    { op: "add", path: "/webhooks/1/clientConfig/caBundle", value: "QQ==" },
  ]);
  assertEquals(planPatch(of(), wanted), undefined);
  assertEquals(planPatch({ metadata: { name: "a" } }, wanted), undefined);
  assertEquals(planPatch(of({ name: "url", clientConfig: { url: "https://x" } }, {}), wanted), undefined);
});
