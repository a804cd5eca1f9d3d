import { assertEquals, assertThrows } from "@std/assert";
import { MeshError } from "../../base/errors.ts";
import { type EnrolRequest, parseEnrolRequest } from "../../mesh/enrolment.ts";
import { refuseConflicts, type Standing } from "./conflicts.ts";
import type { Place } from "./place.ts";

function standing(target: string, more: Record<string, unknown> = {}): Standing {
  const fields = { target, namespace: "shop", serviceAccount: "web", name: "web", ...more };
  return { uid: target, request: parseEnrolRequest(fields) as EnrolRequest, place: undefined };
}

const placed = (it: Standing, id: number): Standing => {
  const netns = { equals: () => true } as unknown as Place["netns"];
  return { ...it, place: { netns, cgroup: { path: "x", id }, [Symbol.dispose]: () => {} } };
};

function outcome(wanted: Standing, other: Standing): string {
  try {
    refuseConflicts(wanted, [other]);
    return "fine";
  } catch (error) {
    return (error as MeshError).code;
  }
}

Deno.test("refuseConflicts(): one place is one workload, one port one workload's, one address one identity's (CNI-275)", () => {
  const web = standing("unit/web.service", { inboundPorts: [80] });
  const check = (target: string, more: Record<string, unknown>) => outcome(standing(target, more), web);
  assertEquals(check("unit/web.service", { inboundPorts: [81] }), "fine");
  assertEquals(check("unit/web.service", { name: "other" }), "AMB7105");
  assertEquals(check("unit/db.service", { inboundPorts: [80] }), "AMB7165");
  assertEquals(check("unit/db.service", { inboundPorts: [81] }), "fine", "one account answers for both");
  assertEquals(check("unit/db.service", { inboundPorts: [81], serviceAccount: "db" }), "AMB7166");
  assertEquals(check("unit/db.service", { serviceAccount: "db" }), "fine", "it is not reached");
  assertEquals(check("unit/db.service", { inboundPorts: [80], ingress: true, serviceAccount: "db" }), "fine");
  assertEquals(check("unit/db.service", { inboundPorts: [80], address: "10.0.0.2" }), "AMB7165");
  const bound = standing("unit/web.service", { inboundPorts: [80], address: "10.0.0.1" });
  const db = standing("unit/db.service", { inboundPorts: [80], address: "10.0.0.2", serviceAccount: "db" });
  assertEquals(outcome(db, bound), "fine", "each has an address of its own");
  const again = standing("cgroup/system.slice/web.service");
  assertEquals([outcome(placed(again, 7), placed(web, 7)), outcome(placed(again, 8), placed(web, 7))], [
    "AMB7102",
    "fine",
  ]);
  assertEquals(assertThrows(() => refuseConflicts(db, [web]), MeshError).remedy.includes("--address"), true);
});
