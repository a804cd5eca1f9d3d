/** Tokens that an API server vouches for, or does not. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { KubeError, KubeUnreachable } from "../../kube/api.ts";
import { Authenticator, type Caller, type Refused } from "./caller.ts";
import { aliasesOf, CallerClusters } from "./caller_clusters.ts";
import { ClientCertificateWay } from "./client_certificate.ts";
import { bearer, goodReview, jwt, QuestionedApi } from "./cluster_testing.ts";
import { KubernetesTokenWay } from "./kubernetes_token.ts";

const ZTUNNEL = "spiffe://mesh.test/ns/istio-system/sa/ztunnel";

function rig() {
  const api = new QuestionedApi(), remote = new QuestionedApi();
  const clusters = new CallerClusters("own", aliasesOf(["alias=own", "far=remote"]));
  clusters.set("own", api);
  clusters.set("remote", remote);
  const clock = { ms: 1_000_000 };
  const options = { clusters, audiences: ["istio-ca", "ours"], trustDomain: () => "mesh.test", now: () => clock.ms };
  return { api, remote, clusters, clock, way: new KubernetesTokenWay(options) };
}

function refusalOf(result: Caller | Refused): Refused {
  if (!("refused" in result)) throw new Error("the caller was believed");
  return result;
}

const token = jwt({ aud: ["istio-ca"], exp: 2_000 });

Deno.test("KubernetesTokenWay asks for our audiences and takes identity and pod from the answer (CP-475, CP-476)", async () => {
  const { api, way } = rig();
  api.reviews.set(token, goodReview());
  for (const scheme of ["Bearer", "Istio"]) {
    const caller = await way.authenticate(bearer(token, { authorization: [`${scheme} ${token}`] }));
    assert(!("refused" in caller));
    assertEquals(caller, {
      identities: [ZTUNNEL],
      token: {
        cluster: "own",
        namespace: "istio-system",
        serviceAccount: "ztunnel",
        pod: "ztunnel-1",
        podUid: "uid-ztunnel-1",
        node: "",
      },
    });
  }
  assertEquals(api.asked, [{ token, audiences: ["istio-ca", "ours"] }], "the second was known from the first");
});

Deno.test("KubernetesTokenWay refuses what the API server does not wholly vouch for (CP-476)", async () => {
  const good = goodReview() as { user: Record<string, unknown> };
  const user = (part: object) => ({ ...good, user: { ...good.user, ...part } });
  const cases: [string, unknown][] = [
    ["invalid bearer token", undefined],
    ["the token is refused: expired", { ...good, error: "expired" }],
    ["the token is refused", { ...good, authenticated: false }],
    ["the token is refused", {}],
    ["the token is refused", null],
    [`the token is for "api"`, { ...good, audiences: ["api"] }],
    [`the token is for ""`, { ...good, audiences: undefined }],
    ["not of a service account", user({ groups: ["system:masters", "system:serviceaccounts:istio-system"] })],
    ["not of a service account", user({ groups: undefined })],
    ["the token's user", user({ username: "system:node:node-1" })],
    ["the token's user", user({ username: "system:serviceaccount:istio-system:ztunnel:x" })],
    ["the token's user", user({ username: "user:serviceaccount:istio-system:ztunnel" })],
    ["the token's user", user({ username: "system:serviceaccount::ztunnel" })],
    ["the token's user", user({ username: "system:serviceaccount:a/sa/x:ztunnel" })],
    ["the token's user", user({ username: undefined })],
    ["cannot be read: authenticated must be true or false", { ...good, authenticated: "true" }],
    ["cannot be read: user.groups must be a list", user({ groups: "system:serviceaccounts" })],
    ["cannot be read: (document) must be a map", ["authenticated"]],
  ];
  for (const [reason, status] of cases) {
    const { api, way } = rig();
    api.reviews.set(token, status);
    const { refused, unavailable } = refusalOf(await way.authenticate(bearer(token)));
    assertStringIncludes(refused, reason);
    assert(!unavailable, reason);
  }
});

Deno.test("KubernetesTokenWay refuses without asking whatever no API server would take (CP-476)", async () => {
  const { api, way } = rig();
  const hostile = [
    "x",
    "a.b",
    "a.b.c",
    jwt({ aud: ["istio-ca"], exp: 900 }),
    jwt({ aud: ["vault"], exp: 2_000 }),
    jwt({ aud: "vault", exp: 2_000 }),
    `${"x".repeat(20_000)}.${token}`,
    `${token}.`,
  ];
  for (const text of hostile) {
    api.reviews.set(text, goodReview());
    refusalOf(await way.authenticate(bearer(text)));
  }
  for (const authorization of [[], ["Basic x"], [`Bearer ${token}`, `Bearer ${token}`], ["Bearer "], ["Bearer a b"]]) {
    refusalOf(await way.authenticate(bearer(token, { authorization })));
  }
  assertEquals(api.asked, []);
});

Deno.test("KubernetesTokenWay asks the cluster that clusterid names, and no other (CP-476, CP-482)", async () => {
  const { api, remote, clusters, way } = rig();
  api.reviews.set(token, goodReview());
  const from = async (...clusterId: string[]) => {
    const result = await way.authenticate(bearer(token, { clusterId }));
    return "refused" in result ? result.refused : result.token!.cluster;
  };
  assertEquals([await from(), await from(""), await from("own"), await from("alias")], ["own", "own", "own", "own"]);
  assertStringIncludes(await from("remote"), "invalid bearer token");
  remote.reviews.set(token, goodReview());
  assertStringIncludes(await from("far"), "invalid bearer token", "what was learnt is remembered by cluster");
  assertEquals([api.asked.length, remote.asked.length], [1, 1]);
  assertEquals(await from("elsewhere"), `cluster "elsewhere" is unknown; known are own, remote`);
  assertStringIncludes(await from("own", "remote"), "is unknown");
  clusters.remove("own");
  assertStringIncludes(await from("own"), "is unknown", "also while the answer is remembered");
});

Deno.test("KubernetesTokenWay forgets: a good answer after seconds or with the token's end, a bad one sooner (CP-476)", async () => {
  const { api, clock, way } = rig();
  const asks = async (text: string, status: unknown) => {
    if (status !== undefined) api.reviews.set(text, status);
    const before = api.asked.length;
    await way.authenticate(bearer(text));
    return api.asked.length - before;
  };
  assertEquals([await asks(token, goodReview()), await asks(token, undefined)], [1, 0]);
  clock.ms += 4_999;
  assertEquals(await asks(token, { error: "the pod is gone" }), 0);
  clock.ms += 1;
  assertEquals([await asks(token, undefined), await asks(token, undefined)], [1, 0]);
  clock.ms += 1_000;
  assertEquals(await asks(token, goodReview()), 1);
  const short = jwt({ aud: ["istio-ca"], exp: (clock.ms + 2_000) / 1_000 });
  assertEquals([await asks(short, goodReview()), await asks(short, undefined)], [1, 0]);
  clock.ms += 2_000;
  assertEquals(await asks(short, undefined), 1, "the token has ended");
  const endless = jwt({ aud: ["istio-ca"] });
  assertEquals([await asks(endless, goodReview()), await asks(endless, undefined)], [1, 1], "no end is known");
});

Deno.test("KubernetesTokenWay says that it cannot know while the API server does not answer, and remembers none of it (CP-472)", async () => {
  const { api, way } = rig();
  for (
    const error of [new KubeUnreachable("refused"), new KubeError(403, "Forbidden", "no"), new KubeError(503, "", "")]
  ) {
    api.reviews.set(token, () => Promise.reject(error));
    assertEquals(refusalOf(await way.authenticate(bearer(token))).unavailable, true);
  }
  api.reviews.set(token, () => Promise.reject(new KubeError(422, "Invalid", "no")));
  assertEquals(refusalOf(await way.authenticate(bearer(token))).unavailable, false);
  assertEquals(api.asked.length, 4);
});

Deno.test("KubernetesTokenWay asks once for all that show a token at once, and no more than so many at once (CP-476)", async () => {
  const { api, way } = rig();
  const { promise, resolve } = Promise.withResolvers<void>();
  api.gate = promise;
  api.reviews.set(token, goodReview());
  const same = Array.from({ length: 500 }, () => way.authenticate(bearer(token)));
  const flood = Array.from({ length: 6_000 }, (_, at) => way.authenticate(bearer(jwt({ exp: 2_000, at }))));
  while (api.asked.length < 64) await Promise.resolve();
  const turnedAway = refusalOf(await flood.at(-1)!);
  assertEquals([turnedAway.unavailable, turnedAway.refused], [true, "too many tokens wait for review"]);
  assertEquals(api.asked.length, 64);
  resolve();
  for (const result of await Promise.all(same)) assert(!("refused" in result));
  const refused = (await Promise.all(flood)).map(refusalOf);
  assertEquals(refused.filter((it) => it.unavailable).length, 6_000 + 1 - 64 - 4_096);
  assertEquals(api.asked.length, 64 + 4_096);
});

Deno.test("aliasesOf() refuses what is no pair (CP-476)", () => {
  for (const text of ["alias", "=own", "alias=", "a=b=c", ""]) {
    assertThrows(() => aliasesOf([text]), MeshError, "alias");
  }
});

const NOBODY = { firstOf: () => undefined };

Deno.test("Authenticator takes the first way that succeeds, and says why each failed (CP-430, CP-475)", async () => {
  const { api, way } = rig();
  const all = new Authenticator([new ClientCertificateWay((it) => it === "mesh.test", NOBODY), way]);
  const cart = "spiffe://mesh.test/ns/shop/sa/cart";
  api.reviews.set(token, goodReview());
  const both = await all.authenticate(bearer(token, { certificateUris: [cart, "spiffe://evil/ns/a/sa/b", "x"] }));
  assertEquals(both, { identities: [cart], token: undefined });
  const other = await all.authenticate(bearer(token, { certificateUris: ["spiffe://evil/ns/a/sa/b"] }));
  assertEquals("refused" in other ? [] : other.identities, [ZTUNNEL], "a token after a certificate that says nothing");
  assertEquals(await all.authenticate(bearer("x")), {
    refused: "no verified client certificate; the token is no JWT",
    unavailable: false,
  });
});
