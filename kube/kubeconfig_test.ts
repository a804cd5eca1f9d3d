import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { chain, MeshError } from "../base/errors.ts";
import { readKubeconfig } from "./kubeconfig.ts";
import { kubeconfigAccess, loadKubeconfig } from "./kubeconfig_access.ts";
import { ExecCredentials } from "./exec_credentials.ts";
import { inClusterAccess } from "./in_cluster.ts";
import { TestCa } from "./pki_testing.ts";

const signal = new AbortController().signal;
const base64 = (text: string) => new TextEncoder().encode(text).toBase64();

/** A kubeconfig with one context. */
function config(cluster: object, user: object = {}): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "here",
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user }],
    contexts: [{ name: "here", context: { cluster: "c", user: "u", namespace: "shop" } }],
  });
}

const SERVER = { server: "https://api.test:6443" };

/** A folder with files in it. */
class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "kubeconfig-" });

  constructor(files: Readonly<Record<string, string>> = {}) {
    for (const [name, text] of Object.entries(files)) this.write(name, text);
  }

  write(name: string, text: string, mode?: number): string {
    Deno.writeTextFileSync(`${this.path}/${name}`, text, { mode });
    return `${this.path}/${name}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

async function refusal(call: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(call, MeshError);
  return `${error.code} ${chain(error)}`;
}

Deno.test("readKubeconfig() refuses what it cannot follow, and names file, context and field", async () => {
  const pem = (await TestCa.create()).pem;
  const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "get-token", interactiveMode: "Never" };
  const users: Record<string, readonly [object, string]> = {
    "auth-provider": [{ "auth-provider": { name: "gcp" } }, "is not supported"],
    username: [{ username: "a", password: "b" }, "passwords are not supported"],
    token: [{ token: "two words" }, "holds letters that no token has"],
    "client-key": [{ "client-certificate-data": base64(pem) }, "is missing beside client-certificate"],
    "client-certificate": [{ "client-key": "k" }, "is missing beside client-key"],
    "client-certificate-data": [{ "client-certificate-data": "%" }, "is no base64"],
    as: [{ "as-groups": ["a"] }, "is missing beside"],
    "as-user-extra": [{ as: "a", "as-user-extra": { x: ["y"] } }, "is not supported"],
    exec: [{ exec: "x" }, "should be an object"],
    "exec.apiVersion": [
      { exec: { ...exec, apiVersion: "client.authentication.k8s.io/v1alpha1" } },
      "should be client.authentication",
    ],
    "exec.command": [{ exec: { ...exec, command: undefined } }, "is missing"],
    "exec.interactiveMode": [{ exec: { ...exec, interactiveMode: "Always" } }, "Always needs a terminal"],
    "exec.args": [{ exec: { ...exec, args: [1] } }, "should be texts"],
    "exec.env": [{ exec: { ...exec, env: [{ name: "A" }] } }, "should be names with values"],
  };
  const clusters: Record<string, readonly [object, string]> = {
    server: [{ server: "ftp://a" }, "should be a URL"],
    "proxy-url": [{ ...SERVER, "proxy-url": "socks5://proxy" }, "names a proxy that is no plain HTTP one"],
    "insecure-skip-tls-verify": [
      { ...SERVER, "insecure-skip-tls-verify": true, "certificate-authority": "ca" },
      "contradicts",
    ],
    "tls-server-name": [{ ...SERVER, "tls-server-name": "a b" }, "should be a host's name"],
    "certificate-authority-data": [{ ...SERVER, "certificate-authority-data": "!" }, "is no base64"],
  };
  const cases = [
    ...Object.entries(users).map(([field, [user, wrong]]) => [field, config(SERVER, user), wrong] as const),
    ...Object.entries(clusters).map(([field, [cluster, wrong]]) => [field, config(cluster), wrong] as const),
    ["server", config({ server: "https://user:secret@host" }), "should hold no user"] as const,
    ["server", config({}), "should be a URL"] as const,
    [
      "exec.interactiveMode",
      config(SERVER, { exec: { ...exec, interactiveMode: undefined } }),
      "is missing, and v1 asks for it",
    ] as const,
  ];
  for (const [field, text, wrong] of cases) {
    const told = await refusal(() => Promise.resolve().then(() => readKubeconfig(text, "some/file")));
    assertStringIncludes(told, `AMB0803 reading kubeconfig some/file, context "here": ${field}: ${wrong}`);
  }
});

Deno.test("readKubeconfig() refuses files that are none, without a word of what they hold", async () => {
  const read = (text: string, context?: string) =>
    refusal(() => Promise.resolve().then(() => readKubeconfig(text, "f", context)));
  for (const text of ["", "[]", "a", "token: s3cret\n  x: [", "a: !!js/function s3cret", "x".repeat(2 << 20)]) {
    const told = await read(text);
    assertStringIncludes(told, "AMB0801 reading kubeconfig f: it is no YAML object");
    assertEquals(told.includes("s3cret"), false);
  }
  assertStringIncludes(await read("apiVersion: v1"), "AMB0802");
  assertStringIncludes(
    await read(config(SERVER), "there"),
    'AMB0803 reading kubeconfig f, context "there": contexts: has no entry "there"',
  );
  const other = assertThrows(() => readKubeconfig(config(SERVER), "f", "there"), MeshError);
  assertEquals(other.remedy, "name one that it has: here");
  assertStringIncludes(await read("current-context: a\ncontexts: {}"), "contexts: should be a list");
  assertStringIncludes(
    await read("current-context: [a]"),
    "AMB0801 reading kubeconfig f: current-context: should be a text",
  );
  assertStringIncludes(
    await read("current-context: a\ncontexts: [{ name: a, context: { cluster: b } }]"),
    'clusters: has no entry "b"',
  );
});

Deno.test("loadKubeconfig() reads inline data and files, relative ones from its own folder", async () => {
  const ca = await TestCa.create(), { certificate, key } = await ca.issue("CN=admin");
  await using folder = new Folder({
    "ca.pem": `# comment\n${ca.pem}`,
    "c.pem": certificate,
    "k.pem": key,
    token: "t1\n",
  });
  const inline = folder.write(
    "inline",
    config(
      { ...SERVER, "certificate-authority-data": base64(ca.pem), "tls-server-name": "name" },
      { "client-certificate-data": base64(certificate), "client-key-data": base64(key), token: "tok", as: "jane" },
    ),
  );
  const access = await loadKubeconfig(inline);
  assertEquals([access.server.href, access.serverName, access.ca, access.namespace], [
    "https://api.test:6443/",
    "name",
    ca.pem,
    "shop",
  ]);
  assertEquals(await access.credentials.current(signal), { token: "tok", keyPair: { certificate, key } });
  assertEquals(await access.credentials.current(signal) === await access.credentials.current(signal), true);
  assertEquals(access.headers, { "impersonate-user": "jane" });
  const files = folder.write(
    "files",
    config(
      { ...SERVER, "certificate-authority": "ca.pem" },
      { "client-certificate": "c.pem", "client-key": `${folder.path}/k.pem`, tokenFile: "token", token: "not this" },
    ),
  );
  const fromFiles = await loadKubeconfig(files);
  assertEquals(await fromFiles.credentials.current(signal), { token: "t1", keyPair: { certificate, key } });
  const before = await fromFiles.credentials.current(signal);
  fromFiles.credentials.refused(before);
  assertEquals(await fromFiles.credentials.current(signal) === before, true, "files that say the same make no other");
  folder.write("token", "t2");
  fromFiles.credentials.refused(await fromFiles.credentials.current(signal));
  assertEquals((await fromFiles.credentials.current(signal)).token, "t2");
});

Deno.test("loadKubeconfig() tells which file is missing or wrong", async () => {
  const ca = await TestCa.create(), mine = await ca.issue("CN=a"), other = await ca.issue("CN=b");
  await using folder = new Folder({ "c.pem": mine.certificate, "k.pem": other.key, no: "none", empty: "" });
  const load = (cluster: object, user: object = {}) =>
    refusal(() => loadKubeconfig(folder.write("f", config(cluster, user))));
  assertStringIncludes(await refusal(() => loadKubeconfig(`${folder.path}/absent`)), "AMB0800");
  assertStringIncludes(
    await load({ ...SERVER, "certificate-authority": "absent" }),
    `certificate-authority: the file ${folder.path}/absent`,
  );
  assertStringIncludes(
    await load({ ...SERVER, "certificate-authority": "no" }),
    "certificate-authority: holds no certificate",
  );
  assertStringIncludes(
    await load({
      ...SERVER,
      "certificate-authority-data": base64("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    }),
    "certificate 1 cannot be read",
  );
  assertStringIncludes(
    await load(SERVER, { "client-certificate": "c.pem", "client-key": "k.pem" }),
    "the key is not the certificate's",
  );
  assertStringIncludes(
    await load(SERVER, { "client-certificate": "c.pem", "client-key": "no" }),
    "the key cannot be read",
  );
  const data = { "client-certificate-data": base64(mine.certificate), "client-key-data": base64(other.key) };
  assertStringIncludes(await load(SERVER, data), "AMB0806");
  assertStringIncludes(await load(SERVER, { tokenFile: "absent" }), "AMB0807");
  assertStringIncludes(await load(SERVER, { tokenFile: "empty" }), "it holds none");
});

Deno.test("kubeconfigAccess() takes from a Secret no file, program or blind trust that is not allowed (CP-120)", async () => {
  const exec = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "x" };
  const cases: readonly [object, object, string][] = [
    [SERVER, { exec }, "exec"],
    [SERVER, { tokenFile: "/etc/shadow" }, "tokenFile"],
    [SERVER, { "client-certificate": "a", "client-key": "b" }, "clientCertificate, clientKey"],
    [{ ...SERVER, "certificate-authority": "/a" }, {}, "certificateAuthority"],
    [{ ...SERVER, "insecure-skip-tls-verify": true }, {}, "insecureSkipTLSVerify"],
  ];
  for (const [cluster, user, fields] of cases) {
    const access = (allowed: readonly string[]) =>
      kubeconfigAccess(config(cluster, user), { source: "secret istio-system/a", allowed: new Set(allowed) });
    const told = await refusal(() => access([]));
    assertStringIncludes(
      told,
      `AMB0808 reading kubeconfig secret istio-system/a, context "here": ${fields}: not allowed`,
    );
    if (fields === "exec" || fields === "insecureSkipTLSVerify") await access([fields]);
  }
  const access = await kubeconfigAccess(config(SERVER, { token: "t" }), { source: "s", allowed: new Set() });
  assertEquals(await access.credentials.current(signal), { token: "t" });
});

Deno.test("loadKubeconfig() runs an exec plugin: once for all who ask, again when it expires or is refused", async () => {
  await using folder = new Folder();
  const plugin = folder.write(
    "plugin",
    `#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" > ${folder.path}/info; echo run >> ${folder.path}/runs
printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s%s","expirationTimestamp":"%s"}}' "$1" "$PART" "$(cat ${folder.path}/until)"
`,
    0o755,
  );
  folder.write("until", "2099-01-01T00:00:00Z");
  const exec = {
    apiVersion: "client.authentication.k8s.io/v1",
    command: "./plugin",
    args: ["to"],
    env: [{ name: "PART", value: "ken" }],
    interactiveMode: "IfAvailable",
    provideClusterInfo: true,
  };
  const { credentials } = await loadKubeconfig(
    folder.write("f", config({ ...SERVER, "tls-server-name": "n", "proxy-url": "http://p.test:3128" }, { exec })),
  );
  const runs = () => Deno.readTextFileSync(`${folder.path}/runs`).split("\n").length - 1;
  const [first, second] = await Promise.all([credentials.current(signal), credentials.current(signal)]);
  assertEquals([first.token, first === second, runs()], ["token", true, 1]);
  assertEquals(JSON.parse(Deno.readTextFileSync(`${folder.path}/info`)), {
    apiVersion: "client.authentication.k8s.io/v1",
    kind: "ExecCredential",
    spec: {
      interactive: false,
      cluster: { server: "https://api.test:6443/", "tls-server-name": "n", "proxy-url": "http://p.test:3128" },
    },
  });
  await credentials.current(signal);
  assertEquals(runs(), 1);
  credentials.refused(first);
  folder.write("until", "2001-01-01T00:00:00Z"); // What it gives is over already: each asking runs it.
  await credentials.current(signal);
  await credentials.current(signal);
  assertEquals(runs(), 3);
  assertEquals(plugin.endsWith("plugin"), true);
});

Deno.test("an exec plugin is waited for as long as it may take, whatever it leaves behind", async () => {
  await using folder = new Folder();
  const apiVersion = "client.authentication.k8s.io/v1beta1" as const;
  const answer = { apiVersion, kind: "ExecCredential", status: { token: "t" } };
  const left = `sleep 600 & echo $! >> ${folder.path}/left`; // Holds the output open.
  const run = async (script: string) => {
    const command = folder.write("plugin", `#!/bin/sh\n${left}\n${script}\n`, 0o755);
    const plugin = {
      apiVersion,
      command,
      args: [],
      env: {},
      provideClusterInfo: false,
      installHint: "",
    };
    const cluster = { server: "https://api.test", ca: undefined, serverName: undefined, insecure: false };
    const options = { cluster, folder: folder.path, source: "f", runLimitMs: 500 };
    return await new ExecCredentials(plugin, options).current();
  };
  try {
    assertEquals((await run(`echo '${JSON.stringify(answer)}'`)).token, "t");
    const error = await assertRejects(() => run("exec sleep 600"), MeshError);
    assertStringIncludes(chain(error), "took more than 0.5 s");
  } finally {
    for (const pid of Deno.readTextFileSync(`${folder.path}/left`).trim().split("\n")) {
      Deno.kill(Number(pid), "SIGKILL");
    }
  }
});

Deno.test("an exec plugin that fails is told with its remedy, and never with what it printed", async () => {
  await using folder = new Folder();
  const answers: readonly [script: string, wrong: string][] = [
    ["echo 'no session, log in first' >&2; exit 3", "it ended with 3: no session, log in first"],
    ["echo s3cret", "its answer is no JSON"],
    ["echo '{}'", "its answer's kind cannot be used"],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"v1","status":{"token":"s3cret"}}'`,
      "its answer's apiVersion cannot be used",
    ],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1"}'`,
      "its answer's status cannot be used",
    ],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{}}'`,
      "holds neither token nor certificate",
    ],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"s3cret x"}}'`,
      "status.token",
    ],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"a","expirationTimestamp":"soon"}}'`,
      "expirationTimestamp",
    ],
    [
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"clientCertificateData":"a","clientKeyData":"s3cret"}}'`,
      "the certificate holds no certificate",
    ],
    ["head -c 3000000 /dev/zero", "it printed more than"],
    ["kill -9 $$", "it was ended by SIGKILL"],
  ];
  for (const [script, wrong] of answers) {
    folder.write("plugin", `#!/bin/sh\n${script}\n`, 0o755);
    const exec = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "./plugin", installHint: "install it" };
    const { credentials } = await loadKubeconfig(folder.write("f", config(SERVER, { exec })));
    const error = await assertRejects(() => credentials.current(signal), MeshError);
    assertStringIncludes(chain(error), wrong);
    assertEquals([error.code, error.remedy, chain(error).includes("s3cret")], ["AMB0804", "install it", false]);
  }
  const exec = { apiVersion: "client.authentication.k8s.io/v1beta1", command: "./absent" };
  const { credentials } = await loadKubeconfig(folder.write("f", config(SERVER, { exec })));
  assertStringIncludes(await refusal(() => credentials.current(signal)), "it cannot be started");
});

Deno.test("inClusterAccess() finds API server, CA and token, and takes up a rotated token", async () => {
  const ca = await TestCa.create();
  await using folder = new Folder({ "ca.crt": ca.pem, token: "one\n", namespace: "istio-system" });
  let now = 0;
  const open = (host: string, port = "443") =>
    inClusterAccess({
      environment: { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port },
      folder: folder.path,
      now: () => now,
    });
  const access = await open("fd00::1", "6443");
  assertEquals([access.server.href, access.ca, access.namespace], ["https://[fd00::1]:6443/", ca.pem, "istio-system"]);
  assertEquals((await open("10.96.0.1")).server.href, "https://10.96.0.1/");
  folder.write("token", "two");
  assertEquals(await access.credentials.current(signal), { token: "one" });
  now += 10_000;
  assertEquals(await access.credentials.current(signal), { token: "two" });
  folder.write("token", "");
  now += 10_000;
  assertEquals(
    await access.credentials.current(signal),
    { token: "two" },
    "one moment without a token is no reason to stop",
  );
  for (const [host, port] of [["", "443"], ["10.96.0.1", ""], ["10.96.0.1", "x"]] as const) {
    assertStringIncludes(await refusal(() => open(host, port)), "AMB0805");
  }
  await Deno.remove(`${folder.path}/ca.crt`);
  assertStringIncludes(await refusal(() => open("10.96.0.1")), "AMB0805 reading the API server's CA");
});
