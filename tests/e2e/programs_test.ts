/** Programs of other people through the mesh: databases, a web server, WebSocket, iperf3. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { createHash } from "node:crypto";
import { denoProgram } from "../../demo/lab/program.ts";
import { assertCarried, listening, meshTest, program, type Rig, runIn, until } from "./mesh.ts";

const GIB = 1024 ** 3, IPERF_BYTES = 50_000_000;

meshTest("redis: 200,000 commands of redis-benchmark, one by one and in pipelines", async (rig) => {
  const { client, server } = rig;
  const args = ["--port", "6379", "--save", "", "--appendonly", "no", "--protected-mode", "no", "--bind", "*", "-::*"];
  server.run("redis-server", { command: program("redis-server"), args });
  await listening(server, 6379);
  const benchmark = program("redis-benchmark", "redis-tools");
  for (const pipeline of ["1", "16"]) {
    const options = ["-h", server.ipv4, "-n", "50000", "-c", "50", "-P", pipeline, "-t", "set,get", "-q"];
    const { out } = await runIn(client, benchmark, options);
    assertMatch(out, /SET: [\d.]+ requests per second/);
    assertMatch(out, /GET: [\d.]+ requests per second/);
  }
  await assertCarried(rig, 100);
});

meshTest("PostgreSQL: pgbench without a failed transaction, and the client's own address", async (rig) => {
  const { client, server } = rig;
  const folder = Deno.makeTempDirSync({ prefix: "ambit-postgres-" });
  try {
    const uid = await userId("-u"), gid = await userId("-g");
    Deno.chownSync(folder, uid, gid);
    const as = { uid, gid, cwd: folder };
    const data = `${folder}/data`;
    await runIn(server, program("initdb", "postgresql"), ["-D", data, "-U", "postgres", "-A", "trust"], as);
    Deno.writeTextFileSync(`${data}/pg_hba.conf`, "host all all all trust\n");
    const settings = ["-c", "listen_addresses=*", "-c", `unix_socket_directories=${folder}`, "-c", "fsync=off"];
    // A server that is not its own process group's leader ends by SIGINT: SIGTERM would wait for its clients.
    const postgres = server.run("postgres", {
      command: program("setpriv", "util-linux"),
      args: [
        `--reuid=${uid}`,
        `--regid=${gid}`,
        "--clear-groups",
        program("postgres", "postgresql"),
        "-D",
        data,
        ...settings,
      ],
    });
    await listening(server, 5432);
    const at = ["-h", server.ipv4, "-U", "postgres"];
    // It listens before it has started up, and refuses whoever comes sooner.
    await until("PostgreSQL takes questions", 60_000, async () => {
      await runIn(client, program("psql", "postgresql-client"), [...at, "-c", "select 1", "postgres"]);
      return true;
    });
    await runIn(client, program("pgbench", "postgresql-contrib"), [...at, "-i", "-q", "-s", "5", "postgres"]);
    const { out } = await runIn(client, program("pgbench"), [...at, "-c", "10", "-j", "2", "-T", "5", "postgres"]);
    assertMatch(out, /number of failed transactions: 0 /);
    const query = [...at, "-t", "-A", "-c", "select inet_client_addr()", "postgres"];
    assertEquals((await runIn(client, program("psql", "postgresql-client"), query)).out.trim(), client.ipv4);
    await assertCarried(rig, 10);
    postgres.kill("SIGINT");
    await postgres.status;
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

async function userId(flag: "-u" | "-g"): Promise<number> {
  const { success, stdout } = await new Deno.Command("id", { args: [flag, "postgres"] }).output();
  assert(success, "there is no user postgres: apt-get install postgresql");
  return Number(new TextDecoder().decode(stdout));
}

/** nginx with HTTP/1.1 on 8080 and HTTP/2 without TLS on 8081, serving and taking files of a folder. */
async function withNginx(rig: Rig, use: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "ambit-nginx-" });
  try {
    Deno.mkdirSync(`${folder}/files`);
    Deno.writeTextFileSync(`${folder}/files/small`, "hello from nginx\n");
    Deno.writeTextFileSync(`${folder}/nginx.conf`, nginxConf(folder));
    const nginx = rig.server.run("nginx", {
      command: program("nginx"),
      args: ["-c", `${folder}/nginx.conf`, "-e", `${folder}/error.log`],
    });
    await listening(rig.server, 8080);
    await use(folder);
    await nginx.stop();
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const nginxConf = (folder: string) =>
  `daemon off; user root; worker_processes 2; pid ${folder}/pid;
events { worker_connections 4096; }
http {
  access_log off; client_max_body_size 0; sendfile on; keepalive_requests 1000000;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server { listen 8080; listen [::]:8080; root ${folder}/files; location / { dav_methods PUT; } }
  server { listen 8081 http2; root ${folder}/files; }
}
`;

meshTest("nginx and curl: HTTP/1.1, HTTP/2 without TLS, over IPv4 and IPv6", async (rig) => {
  await withNginx(rig, async () => {
    const curl = program("curl"), { client, server } = rig;
    const form = ["-sS", "--max-time", "60", "-w", "%{http_version} %{http_code} %{remote_ip}"];
    const get = async (...args: string[]) => (await runIn(client, curl, [...form, ...args])).out;
    assertEquals(await get(`http://${server.ipv4}:8080/small`), `hello from nginx\n1.1 200 ${server.ipv4}`);
    assertEquals(await get(`http://[${server.ipv6}]:8080/small`), `hello from nginx\n1.1 200 ${server.ipv6}`);
    const http2 = await get("--http2-prior-knowledge", `http://${server.ipv4}:8081/small`);
    assertEquals(http2, `hello from nginx\n2 200 ${server.ipv4}`);
  });
  await assertCarried(rig, 3);
});

meshTest("nginx and curl: 1 GiB down and up, unchanged", async (rig) => {
  await withNginx(rig, async (folder) => {
    const curl = program("curl"), { client, server } = rig;
    const sent = await writeRandomFile(`${folder}/files/large`, GIB);
    const down = ["-sS", "--fail", "-o", `${folder}/down`, `http://${server.ipv4}:8080/large`];
    await runIn(client, curl, down);
    assertEquals(await digestOfFile(`${folder}/down`), sent);
    const up = ["-sS", "--fail", "-T", `${folder}/down`, `http://${server.ipv4}:8080/uploaded`];
    await runIn(client, curl, up);
    assertEquals(await digestOfFile(`${folder}/files/uploaded`), sent);
  });
  await assertCarried(rig, 2);
});

async function writeRandomFile(path: string, bytes: number): Promise<string> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const words = crypto.getRandomValues(new Uint32Array(16_384)), hash = createHash("sha256");
  for (let written = 0; written < bytes; written += words.byteLength) {
    words[0] = written;
    const chunk = new Uint8Array(words.buffer);
    hash.update(chunk);
    for (let at = 0; at < chunk.length;) at += file.writeSync(chunk.subarray(at));
  }
  return hash.digest("hex");
}

async function digestOfFile(path: string): Promise<string> {
  using file = await Deno.open(path);
  const hash = createHash("sha256");
  for await (const chunk of file.readable) hash.update(chunk);
  return hash.digest("hex");
}

meshTest("nginx and wrk: five seconds of requests on 64 connections, none fails", async (rig) => {
  await withNginx(rig, async () => {
    const url = `http://${rig.server.ipv4}:8080/small`;
    const { out } = await runIn(rig.client, program("wrk"), ["-t2", "-c64", "-d5s", "--timeout", "30s", url]);
    assertMatch(out, /Requests\/sec: +[1-9]/);
    assert(!/Socket errors|Non-2xx/.test(out), out);
  });
  await assertCarried(rig, 64);
});

meshTest("WebSocket: a thousand messages and a large one, there and back", async (rig) => {
  const { client, server } = rig;
  const folder = new URL("./programs/", import.meta.url);
  server.run("websocket server", denoProgram(new URL("websocket_server.ts", folder), ["8090"]));
  await listening(server, 8090);
  const { command, args } = denoProgram(new URL("websocket_client.ts", folder), [`ws://${server.ipv4}:8090/`]);
  const { out } = await runIn(client, command, args);
  assertEquals(JSON.parse(out), { texts: 1_000, largeSame: true, code: 1000 });
  await assertCarried(rig);
});

for (const family of ["ipv4", "ipv6"] as const) {
  meshTest(`iperf3: both directions over ${family}`, async (rig) => {
    const { client, server } = rig, iperf3 = program("iperf3");
    for (const [index, direction] of [[], ["-R"]].entries()) {
      // A server of its own for each: for a moment after a test iperf3 answers that it is busy with it.
      const port = 5201 + index;
      server.run(`iperf3-${port}`, { command: iperf3, args: ["-s", "-p", String(port)] });
      await listening(server, port);
      const options = [
        "-c",
        server[family],
        "-p",
        String(port),
        "-n",
        String(IPERF_BYTES),
        "-P",
        "2",
        "-J",
        ...direction,
      ];
      const report = JSON.parse((await runIn(client, iperf3, options)).out);
      const { bytes } = report.end.sum_received;
      assert(bytes > IPERF_BYTES / 2, `${bytes} bytes`);
    }
    await assertCarried(rig, 6);
  });
}
