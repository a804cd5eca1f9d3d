/** What a scanner finds at port 15008: which TLS, which suites, which key exchange, which protocols. */
import { assertEquals } from "@std/assert";
import { Issuer } from "../../demo/lab/certificates.ts";
import { spawnWithin } from "../../os/process.ts";
import { meshTest, type Pod, program } from "./mesh.ts";

const HBONE_PORT = 15008;
/** So that the scanner itself, Debian's OpenSSL, speaks what is out of use. */
const ANY = "ALL:@SECLEVEL=0";

/** The suite that was agreed on, or the alert that was heard. `-` before an option's name is added. */
async function scan(pod: Pod, host: string, folder: string, options: string): Promise<string> {
  const own = `-cert ${folder}/scanner.pem -key ${folder}/scanner.key`;
  const args = `s_client -connect ${host}:${HBONE_PORT} -brief ${own} ${options}`.split(" ");
  const child = spawnWithin(pod.place.netns, program("openssl"), {
    args,
    stdin: "null", // Its end ends the connection.
    stdout: "piped",
    stderr: "piped",
  });
  const { stderr } = await child.output();
  const said = new TextDecoder().decode(stderr);
  const alert = /SSL alert number (\d+)/.exec(said)?.[1];
  if (alert !== undefined) return `alert ${alert}`;
  return `${/Protocol version: (\S+)/.exec(said)?.[1]} ${/Ciphersuite: (\S+)/.exec(said)?.[1]}`;
}

meshTest(
  "a scanner finds TLS 1.3 with AES-GCM at port 15008, and nothing else (ZT-079, ZT-080, ZT-081)",
  async (rig) => {
    const { mesh, client, server } = rig;
    const stranger = await mesh.addPod({
      name: "stranger",
      namespace: "outside",
      serviceAccount: "stranger",
      node: "node-a",
      enrolled: false,
    });
    const { certificate, key } = await (await Issuer.ofMesh(`${mesh.folder}/state`)).issue(
      `spiffe://${client.principal}`,
    );
    await Deno.writeTextFile(`${mesh.folder}/scanner.pem`, certificate);
    await Deno.writeTextFile(`${mesh.folder}/scanner.key`, key);
    const aes256 = "TLSv1.3 TLS_AES_256_GCM_SHA384", aes128 = "TLSv1.3 TLS_AES_128_GCM_SHA256";
    const expected: Readonly<Record<string, string>> = {
      "-alpn h2": aes256,
      "-tls1_3": aes256,
      [`-tls1_2 -cipher ${ANY}`]: "alert 70",
      [`-tls1_1 -cipher ${ANY}`]: "alert 70",
      [`-tls1 -cipher ${ANY}`]: "alert 70",
      "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384": "alert 70",
      "-ciphersuites TLS_AES_256_GCM_SHA384": aes256,
      "-ciphersuites TLS_AES_128_GCM_SHA256": aes128,
      "-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384": aes128,
      "-ciphersuites TLS_CHACHA20_POLY1305_SHA256": "alert 40",
      "-ciphersuites TLS_AES_128_CCM_SHA256": "alert 40",
      "-ciphersuites TLS_AES_128_CCM_8_SHA256": "alert 40",
      "-groups X25519": aes256,
      "-groups P-256": aes256,
      "-groups P-384": aes256,
      "-groups P-521": "alert 40",
      "-groups X448": "alert 40",
      "-groups ffdhe2048": "alert 40",
      "-alpn http/1.1": "alert 120",
      "-alpn http/1.1,h2": aes256,
      "-servername somebody.else.example": aes256,
    };
    const found: Record<string, string> = {};
    for (const options of Object.keys(expected)) {
      found[options] = await scan(
        stranger,
        server.ipv4,
        mesh.folder,
        options,
      );
    }
    assertEquals(found, expected);
  },
);
