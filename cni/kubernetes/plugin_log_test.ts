import { assert, assertEquals } from "@std/assert";
import { Logger } from "../../base/log.ts";
import { LOG_FILE, LOG_SOCKET, PluginLogLines } from "../plugin_log_lines.ts";
import { pluginLines, servePluginLog } from "./plugin_log.ts";

Deno.test("the plugin's lines arrive at the agent with their own time and level, and stand in a file (CNI-291, CNI-292)", async () => {
  const folder = await Deno.makeTempDir(), said: string[] = [];
  const server = await servePluginLog(
    `${folder}/${LOG_SOCKET}`,
    new Logger("cni-plugin", { sink: (line) => void said.push(line) }),
  );
  try {
    const lines = new PluginLogLines();
    await lines.handOver(folder);
    assertEquals([said, [...Deno.readDirSync(folder)].length], [[], 1], "a call that said nothing leaves nothing");
    const log = new Logger("cni-plugin", { json: true, sink: (line) => lines.add(line) });
    log.writeAt("2026-01-02T03:04:05.678Z", 3, "pod enrolled", { pod: "shop/web" });
    log.writeAt("2026-01-02T03:04:06.000Z", 2, "pod not looked up", { attempt: 1 });
    log.filter.set("debug");
    log.debug("call", { containerId: "c1" });
    await lines.handOver(folder);
    assertEquals(said, [
      '2026-01-02T03:04:05.678Z\tinfo\tcni-plugin\tpod enrolled\tpod="shop/web"',
      "2026-01-02T03:04:06.000Z\twarn\tcni-plugin\tpod not looked up\tattempt=1",
    ], "debug lines are for whoever asked for them");
    const file = `${folder}/${LOG_FILE}`, text = Deno.readTextFileSync(file);
    assertEquals(text.trim().split("\n").map((line) => JSON.parse(line).msg), ["pod enrolled", "pod not looked up"]);
    Deno.truncateSync(file, 10 * 1024 * 1024);
    await lines.handOver(folder);
    assertEquals([Deno.statSync(`${file}.1`).size, Deno.readTextFileSync(file)], [10 * 1024 * 1024, text]);
  } finally {
    await server.shutdown();
  }
  await new PluginLogLines().handOver(`${folder}/nowhere`);
  const late = new PluginLogLines();
  late.add('{"level":"info","time":"2026-01-02T03:04:05Z","message":"x"}');
  await late.handOver(folder); // The socket's file is there, and nobody behind it.
  await Deno.remove(folder, { recursive: true });
});

Deno.test("pluginLines() drops what it cannot read, line by line, and lets nobody forge another's line (CNI-292)", () => {
  const good = '{"level":"warn","time":"2026-01-02T03:04:05Z","msg":"m","pod":"a/b","n":{"x":1}}';
  const bad = ["{", "7", '{"level":"loud","time":"2026-01-02T03:04:05Z","msg":"m"}', '{"level":"info","msg":"m"}'];
  assertEquals(pluginLines(JSON.stringify([...bad, 9, good])), [
    { level: 2, time: "2026-01-02T03:04:05.000Z", message: "m", facts: { pod: "a/b", n: '{"x":1}' } },
  ]);
  for (const body of ["", "{", '"text"', "{}", "null"]) assertEquals(pluginLines(body), []);
  const forged = { level: "info", time: "2026-01-02T03:04:05Z", msg: "a\nb\tc", "k\ney": "v", scope: "agent" };
  assertEquals(pluginLines(JSON.stringify([JSON.stringify(forged)]))[0], {
    level: 3,
    time: "2026-01-02T03:04:05.000Z",
    message: "a b c",
    facts: {},
  });
  assert(pluginLines(JSON.stringify(Array(5_000).fill(good))).length <= 1_000);
});
