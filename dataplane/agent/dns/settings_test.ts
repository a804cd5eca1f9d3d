import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../../base/errors.ts";
import { Logger } from "../../../base/log.ts";
import { ZTUNNEL_CONFIG } from "../../config.ts";
import { dnsSettings } from "./settings.ts";

const log = new Logger("dns", { sink: () => {} });
const configOf = (environment: Record<string, string>) => ZTUNNEL_CONFIG.parse([], (name) => environment[name]).config;

Deno.test("DNS is on unless ISTIO_META_DNS_CAPTURE is anything but true, in whatever case (ZT-008)", () => {
  const captured = (value?: string) =>
    configOf(value === undefined ? {} : { ISTIO_META_DNS_CAPTURE: value }).dnsCapture;
  assertEquals([undefined, "true", "TRUE", "false", "yes", "1"].map(captured), [true, true, true, false, false, false]);
});

Deno.test("dnsSettings() take the search list of resolv.conf in dedicated mode alone (ZT-180)", () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(path, "search corp.example\nnameserver 10.0.0.1\n");
    const common = { AMBIT_RESOLV_CONF: path, CLUSTER_DOMAIN: "Mesh.Example.", PREFERED_SERVICE_NAMESPACE: "platform" };
    const { answers, upstreams } = dnsSettings(configOf(common), log);
    assertEquals(answers, {
      clusterDomain: "mesh.example",
      search: undefined,
      preferredNamespace: "platform",
      ipv6: true,
    });
    assertEquals(upstreams().nameservers.length, 1);
    assertEquals(dnsSettings(configOf({ ...common, PROXY_MODE: "dedicated" }), log).answers.search, ["corp.example"]);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("dnsSettings() refuse a cluster domain that is no name", () => {
  const error = assertThrows(() => dnsSettings(configOf({ CLUSTER_DOMAIN: "a b" }), log), MeshError);
  assertEquals(error.code, "AMB2412");
});
