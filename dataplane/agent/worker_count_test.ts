import { assertEquals } from "@std/assert";
import { cpuQuantity, workerCountOf, workerShare } from "./worker_count.ts";

interface Row {
  readonly threads?: string;
  readonly limit?: string;
  readonly cpuLimit?: string;
  readonly request?: string;
  /** Logical cores; 16 unless told otherwise. */
  readonly cores?: number;
  readonly wanted: number;
}

const ROWS: readonly Row[] = [
  { threads: "4", wanted: 4 },
  { threads: "50%", cpuLimit: "8", wanted: 4 },
  { threads: "30%", cpuLimit: "16", wanted: 5 },
  { threads: "10%", cpuLimit: "4", wanted: 1 },
  { threads: "100%", wanted: 16 },
  { threads: "0.5%", wanted: 1 },
  { threads: "0", cpuLimit: "6", wanted: 6 },
  { threads: "0", cpuLimit: "6", limit: "3", wanted: 3 },
  { threads: "0", wanted: 16 },
  { threads: "2", limit: "8", request: "6", wanted: 2 },
  { limit: "16", wanted: 16 },
  { limit: "1", wanted: 1 },
  { limit: "500m", wanted: 1 },
  { limit: "2500m", wanted: 3 },
  { limit: "1.5", wanted: 2 },
  { cpuLimit: "32", wanted: 8 },
  { wanted: 4 },
  { cores: 17, wanted: 5 },
  { cores: 2, wanted: 2 },
  { cores: 1, wanted: 2 },
  { request: "8", wanted: 8 },
  { request: "1", wanted: 4 },
  { limit: "16", request: "4", wanted: 16 },
  { limit: "4", request: "8", wanted: 8 },
];

Deno.test("workerCountOf() goes by threads, then the CPU limit, then a quarter of the CPUs (ZT-012)", () => {
  const cpus = cpuQuantity(),
    quantity = (text: string | undefined) => {
      if (text === undefined) return undefined;
      const result = cpus.parse(text);
      return "value" in result ? result.value : NaN;
    };
  for (const row of ROWS) {
    const share = row.threads === undefined ? undefined : workerShare().parse(row.threads);
    assertEquals(
      workerCountOf(share !== undefined && "value" in share ? share.value : undefined, {
        logicalCores: row.cores ?? 16,
        resourceLimit: quantity(row.limit),
        cpuLimit: quantity(row.cpuLimit),
        resourceRequest: quantity(row.request),
      }),
      row.wanted,
      JSON.stringify(row),
    );
  }
});

Deno.test("workerShare() and cpuQuantity() refuse what is no amount (ZT-008, ZT-012)", () => {
  for (const text of ["", "-1", "1.5", "four", "0%", "101%", "%", "-5%", "1e1%", "NaN%", "123456"]) {
    assertEquals("wrong" in workerShare().parse(text), true, text);
  }
  for (const text of ["", "0", "0m", "-1", "1k", "m", "Infinity", "1e3", "NaN"]) {
    assertEquals(cpuQuantity().parse(text), { wrong: "must be a positive CPU quantity" }, text);
  }
  for (const text of ["0", "12", "25%", "0.5%"]) {
    const result = workerShare().parse(text);
    assertEquals("value" in result ? workerShare().show(result.value) : "", text);
  }
});
