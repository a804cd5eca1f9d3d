/** The units as systemd's own checker reads them, and the drop-in of a unit of the mesh (CNI-277). */
import { assert, assertEquals } from "@std/assert";
import { unitDropIn } from "../../cli/unit_drop_in.ts";

const UNITS = new URL("../../deploy/systemd/", import.meta.url).pathname;

/** @returns What systemd-analyze complains of. */
async function verify(folder: string, unit: string): Promise<string[]> {
  const { stderr, code } = await new Deno.Command("systemd-analyze", {
    args: ["verify", "--man=no", `${folder}/${unit}`],
    env: { SYSTEMD_UNIT_PATH: `${folder}:` },
  }).output();
  const said = new TextDecoder().decode(stderr).split("\n").filter((line) => line !== "");
  return code === 0 || said.length > 0 ? said : [`status ${code}`];
}

Deno.test("systemd-analyze verify finds nothing wrong with the units, nor with one that enrols itself (CNI-277)", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const program = `${folder}/ambit`;
    Deno.writeTextFileSync(program, "#!/bin/sh\n", { mode: 0o755 });
    const names = [...Deno.readDirSync(UNITS)].map(({ name }) => name).filter((name) => name.endsWith(".service"));
    assertEquals(names.sort(), ["ambit-cni.service", "ambit-istiod.service", "ambit-ztunnel.service"]);
    const here = (text: string) => text.replaceAll("/usr/local/bin/ambit", program); // It must be there to be verified.
    for (const name of names) Deno.writeTextFileSync(`${folder}/${name}`, here(Deno.readTextFileSync(UNITS + name)));
    Deno.writeTextFileSync(`${folder}/web.service`, "[Service]\nExecStart=/bin/true\n");
    Deno.mkdirSync(`${folder}/web.service.d`);
    const dropIn = unitDropIn("unit/web.service", [
      "--namespace",
      "shop",
      "--service-account",
      "web",
      "--name",
      "web-0",
    ]);
    Deno.writeTextFileSync(`${folder}/web.service.d/10-ambit.conf`, here(dropIn));
    for (const name of [...names, "web.service"]) assertEquals(await verify(folder, name), [], name);
    Deno.writeTextFileSync(`${folder}/web.service`, "[Service]\nExecStart=/bin/true\nHardened=yes\n");
    assert((await verify(folder, "web.service")).length > 0, "the checker does check");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
