import { refused, type Row, type Spec, table, warned } from "./judge_testing.ts";

Deno.test("WorkloadEntry: an address, or a network; ports, labels, weight and locality as they can be (CP-696)", () => {
  const address = "10.0.0.1";
  table("WorkloadEntry", [
    [{ address }, "taken"],
    [{ address: "fd00::1" }, "taken"],
    [{ address: "vm.example.com" }, "taken"],
    [{}, refused("is required unless a network is set")],
    [{ network: "" }, refused("is required unless a network is set")],
    [{ network: "n1" }, warned("reached through its network's gateway")],
    [{ address: "a b" }, refused("must be")],
    [{ address: "-a.com" }, refused("must be an IP address")],
    [{ address: "*.example.com" }, refused("must be an IP address")],
    [{ address: "unix:///run/a.sock" }, warned("does not carry")],
    [{ address: "unix://@abstract" }, warned("does not carry")],
    [{ address: "unix://relative" }, refused("absolute path")],
    [{ address: "unix:///a", ports: { http: 80 } }, refused("must be absent beside a socket")],
    [{ address, ports: { http: 80, "a-1": 65535 } }, "taken"],
    [{ address, ports: { Http: 80 } }, refused("1 to 63 lower-case")],
    [{ address, ports: { http: 0 } }, refused("1 to 65535")],
    [{ address, ports: { http: "80" } }, refused("1 to 65535")],
    [{ address, weight: 0 }, "taken"],
    [{ address, weight: -1 }, refused("weight")],
    [{ address, locality: "r/z/s" }, "taken"],
    [{ address, locality: "r" }, "taken"],
    [{ address, locality: "r//s" }, refused("may hold no empty part")],
    [{ address, locality: "a/b/c/d" }, refused("and no more")],
    [{ address, locality: "r/*" }, refused("no wildcard")],
    [{ address, labels: { app: "a", "x.io/y": "" } }, "taken"],
    [{ address, labels: { "a b": "c" } }, refused("is not named as a label can be")],
    [{ address, labels: { a: "b c" } }, refused("is no value of a label")],
    [{ address, adress: "b" }, refused("is not a field known here")],
  ]);
});

const port = (number: number, name: string, protocol?: string, more: Spec = {}): Spec => ({
  number,
  name,
  ...(protocol === undefined ? {} : { protocol }),
  ...more,
});
const HTTP = port(80, "http", "HTTP");

Deno.test("ServiceEntry: hosts, ports, addresses, and whom it is shown to (CP-697)", () => {
  const hosts = ["a.com"], ports = [HTTP];
  table("ServiceEntry", [
    [{ hosts, ports, resolution: "DNS" }, "taken"],
    [{ hosts: ["*.a.com"], ports }, "taken"],
    [{ hosts: [], ports }, refused("must hold at least one host")],
    [{ ports }, refused("spec.hosts")],
    [{ hosts: ["*"], ports }, refused("spec.hosts[0]")],
    [{ hosts: ["a.*.com"], ports }, refused("only its first part may be *")],
    [{ hosts: ["a b"], ports }, refused("must be a DNS name")],
    [{ hosts, ports: [HTTP, port(80, "x", "TCP")] }, refused("spec.ports[1].number: is used by an earlier port")],
    [{ hosts, ports: [HTTP, port(81, "http", "TCP")] }, refused("spec.ports[1].name: is used by an earlier port")],
    [{ hosts, ports: [port(80, "Http", "HTTP")] }, refused("1 to 63 lower-case")],
    [{ hosts, ports: [port(0, "a")] }, refused("1 to 65535")],
    [{ hosts, ports: [port(80, "a", "HTTP", { targetPort: 70_000 })] }, refused("1 to 65535")],
    [{ hosts, ports: [port(80, "a", "SPDY")] }, refused("must be one of HTTP")],
    ...["http", "HTTP2", "grpc", "GRPC-Web", "TLS", "https", "tcp", "MONGO", "REDIS", "MySQL", "UDP", ""].map((
      it,
    ): Row => [{ hosts, ports: [port(80, "a", it)] }, "taken"]),
    [{ hosts, ports: [port(80, "a", "TCP", { portt: 1 })] }, refused("is not a field known here")],
    [{ hosts, ports, addresses: ["10.0.0.1", "fd00::/64"] }, "taken"],
    [{ hosts, ports, addresses: ["a"] }, refused("must be an IP address or a prefix")],
    [{ hosts, ports, addresses: ["0.0.0.0/0"] }, warned("every address there is")],
    [{ hosts, ports, location: "MESH_INSIDE" }, refused("must be one of MESH_EXTERNAL")],
    [{ hosts, ports, resolution: "MAGIC" }, refused("must be one of NONE")],
    [{ hosts, ports, exportTo: ["."] }, "taken"],
    [{ hosts, ports, exportTo: [".", "other-ns"] }, "taken"],
    [{ hosts, ports, exportTo: ["*", "a"] }, refused("nothing beside * or ~")],
    [{ hosts, ports, exportTo: ["a", "a"] }, refused("is there twice")],
    [{ hosts, ports, exportTo: ["A/b"] }, refused("1 to 63 lower-case")],
    [{ hosts, ports, host: "b" }, refused("is not a field known here")],
  ]);
});

Deno.test("ServiceEntry: endpoints or a selector, and what each resolution wants of them (CP-697)", () => {
  const hosts = ["a.com"], ports = [HTTP], at = (address: string, more: Spec = {}) => ({ address, ...more });
  table("ServiceEntry", [
    [{ hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "b" } } }, "taken"],
    [{ hosts, ports, resolution: "STATIC", workloadSelector: {} }, warned("has no labels")],
    [{ hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "*" } } }, refused("wildcard")],
    [
      { hosts, ports, resolution: "STATIC", workloadSelector: { matchLabels: { a: "b" } } },
      refused("is not a field known here"),
    ],
    [
      { hosts, ports, resolution: "STATIC", workloadSelector: { labels: { a: "b" } }, endpoints: [at("10.0.0.1")] },
      refused("must be absent when workloadSelector is set"),
    ],
    [
      { hosts, ports, resolution: "NONE", workloadSelector: { labels: { a: "b" } } },
      warned("no effect with resolution NONE"),
    ],
    [{ hosts, ports, resolution: "NONE", endpoints: [at("10.0.0.1")] }, refused("must be absent with resolution NONE")],
    [{ hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { ports: { http: 8080 } })] }, "taken"],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("b.com")] },
      refused("must be an IP address with resolution STATIC"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { ports: { other: 8080 } })] },
      refused("is named as no port of the service"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { locality: "a//b" })] },
      refused("endpoints[0].locality"),
    ],
    [
      { hosts, ports, resolution: "STATIC", endpoints: [at("10.0.0.1", { labels: { "a b": "" } })] },
      refused("is not named as a label can be"),
    ],
    [{ hosts, ports, resolution: "STATIC", endpoints: [at("unix:///a")] }, warned("does not carry")],
    [
      { hosts, ports: [HTTP, port(81, "b", "HTTP")], resolution: "STATIC", endpoints: [at("unix:///a")] },
      refused("needs exactly one port"),
    ],
    [{ hosts, ports, resolution: "DNS", endpoints: [at("b.com"), at("10.0.0.1")] }, "taken"],
    [{ hosts: ["*.a.com"], ports, resolution: "DNS" }, refused("must be whole names")],
    [{ hosts: ["*.a.com"], ports, resolution: "DNS", endpoints: [at("b.com")] }, "taken"],
    [{ hosts, ports, resolution: "DNS", addresses: ["10.0.0.0/8"] }, refused("NONE or STATIC only")],
    [{ hosts, ports, resolution: "STATIC", addresses: ["10.0.0.0/8"] }, "taken"],
    [{ hosts, ports, resolution: "DNS_ROUND_ROBIN", endpoints: [at("b.com")] }, "taken"],
    [
      { hosts, ports, resolution: "DNS_ROUND_ROBIN", endpoints: [at("b.com"), at("c.com")] },
      refused("may be one at most"),
    ],
    [{ hosts: ["a.com", "b.com"], ports, resolution: "DNS" }, "taken"],
    [{ hosts: ["a.com", "b.com"], ports: [port(443, "a", "TLS")], resolution: "DNS" }, "taken"],
    [
      { hosts: ["a.com", "b.com"], ports: [HTTP, port(9, "a", "TCP")], resolution: "DNS" },
      refused("neither HTTP nor TLS"),
    ],
    [{ hosts: ["a.com", "b.com"], ports: [port(9, "a")], resolution: "STATIC" }, refused("neither HTTP nor TLS")],
    [{ hosts: ["a.com", "b.com"], ports: [port(9, "a", "TCP")], resolution: "NONE" }, "taken"],
    [
      { hosts: ["a.com", "b.com"], ports: [port(9, "a", "TCP")], addresses: ["10.0.0.1"] },
      warned("cannot be told apart"),
    ],
  ]);
});

Deno.test("ServiceEntry: DYNAMIC_DNS has wildcard hosts and nothing that would say where they are (CP-697)", () => {
  const hosts = ["*.a.com"], ports = [HTTP], resolution = "DYNAMIC_DNS";
  const waypoint = { name: "a", labels: { "istio.io/use-waypoint": "w" } };
  table("ServiceEntry", [
    [{ hosts, ports, resolution }, "taken"],
    [{ hosts: ["*.a.com", "a.com"], ports, resolution }, refused("must all be wildcards")],
    [{ hosts, ports, resolution, addresses: ["10.0.0.1"] }, refused("addresses: must be absent")],
    [{ hosts, ports, resolution, endpoints: [{ address: "10.0.0.1" }] }, refused("endpoints: must be absent")],
    ...["HTTP", "http2", "GRPC", "TLS"].map((it): Row => [{ hosts, ports: [port(80, "a", it)], resolution }, "taken"]),
    ...["TCP", "HTTPS", "MONGO", ""].map((
      it,
    ): Row => [{ hosts, ports: [port(80, "a", it)], resolution }, refused("must be HTTP, HTTP2, GRPC, TLS")]),
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, "taken"],
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, refused("must be MESH_EXTERNAL"), waypoint],
    [{ hosts, ports, resolution, location: "MESH_INTERNAL" }, "taken", {
      name: "a",
      labels: { "istio.io/use-waypoint": "None" },
    }],
    [{ hosts, ports, resolution, location: "MESH_EXTERNAL" }, "taken", waypoint],
  ]);
});
