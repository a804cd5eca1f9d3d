import { assertEquals } from "@std/assert";
import { parseCgroups, startTimeOf } from "./cgroup_path.ts";

const UID = "2c48913c-b29f-11e7-9350-020968147796",
  ID = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";

Deno.test("parseCgroups() finds a pod's uid in every runtime's paths (CNI-087)", () => {
  const cases: readonly (readonly [text: string, uid: string | undefined])[] = [
    [`0::/kubepods/besteffort/pod${UID}/${ID}\n`, UID],
    [`11:memory:/kubepods/pod${UID}/${ID}\n10:cpu:/kubepods/pod${UID}/${ID}\n1:name=systemd:/\n`, UID],
    [
      `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${
        UID.replaceAll("-", "_")
      }.slice/cri-containerd-${ID}.scope`,
      UID,
    ],
    [`0::/kn1/kubepods/burstable/pod${UID}/${ID}`, UID],
    ["0::/user.slice/user-0.slice/session-1.scope", undefined],
    ["0::/", undefined],
    ["", undefined],
    [`0::/kubepods/pod${UID}`, undefined],
    [`0::/kubepods/podnothexnothex-b29f-11e7-9350-020968147796/${ID}`, undefined],
  ];
  for (const [text, uid] of cases) {
    assertEquals(parseCgroups(text), uid === undefined ? undefined : { podUid: uid, containerId: ID }, text);
  }
});

Deno.test("parseCgroups() refuses a process of two containers (CNI-087)", () => {
  const text = `2:a:/kubepods/pod${UID}/${ID}\n1:b:/kubepods/pod${UID}/${"a".repeat(64)}\n`;
  assertEquals("wrong" in parseCgroups(text)!, true);
});

Deno.test("startTimeOf() is not misled by a program's name (CNI-086)", () => {
  const fields = Array.from({ length: 50 }, (_, at) => at + 3);
  assertEquals(startTimeOf(`7 (a) b) 1 2 (c) S ${fields.join(" ")}`), 21);
  assertEquals(startTimeOf("7 (a) S 1 2"), undefined);
});
