import { assertEquals } from "@std/assert";
import { parseMetrics, sumOf } from "./metrics.ts";

const PAGE = `# HELP istio_tcp_connections_opened The total number of TCP connections opened.
# TYPE istio_tcp_connections_opened counter
istio_tcp_connections_opened_total{reporter="source",source_workload="a \\"b\\" {c}"} 3
istio_tcp_connections_opened_total{reporter="destination",source_workload="a"} 4
up 1
# EOF
`;

Deno.test("parseMetrics() reads names, labels with quotes and braces, and values", () => {
  const samples = parseMetrics(PAGE);
  assertEquals(samples.length, 3);
  assertEquals(samples[0]!.labels, { reporter: "source", source_workload: 'a \\"b\\" {c}' });
  assertEquals(samples[2], { name: "up", labels: {}, value: 1 });
});

Deno.test("sumOf() adds what carries all the labels", () => {
  const samples = parseMetrics(PAGE);
  assertEquals(sumOf(samples, "istio_tcp_connections_opened_total"), 7);
  assertEquals(sumOf(samples, "istio_tcp_connections_opened_total", { reporter: "destination" }), 4);
  assertEquals(sumOf(samples, "absent"), 0);
});
