/** For tests: a folder with openssl at hand, and CA files as an operator's own tools make them. */
import { toPem } from "./pem.ts";
import * as x509 from "@peculiar/x509";

/** A folder that is removed at the end. */
export class Folder implements AsyncDisposable {
  readonly path: string;
  private constructor(path: string) {
    this.path = path;
  }
  static async create(): Promise<Folder> {
    return new Folder(await Deno.makeTempDir({ prefix: "ca-test-" }));
  }
  async openssl(...args: string[]): Promise<string> {
    const { success, stdout, stderr } = await new Deno.Command("openssl", { args, cwd: this.path }).output();
    if (!success) throw new Error(`openssl ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
    return new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  }
  write(name: string, text: string): Promise<void> {
    return Deno.writeTextFile(`${this.path}/${name}`, text);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

const EXTENSIONS = `basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
`;

/** Root and intermediate as an operator's own tools make them; `key` chooses the intermediate's algorithm. */
export async function plugIn(folder: Folder, key: string[], { keepRoot = false } = {}): Promise<void> {
  const root = "-newkey rsa:2048 -nodes -keyout root.key -out root-cert.pem -utf8 -days 100".split(" ");
  const ca = ["-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", "basicConstraints=critical,CA:TRUE"];
  if (!keepRoot) await folder.openssl("req", "-x509", ...root, "-subj", "/O=Bänk AG/CN=Root", ...ca);
  const request = "-nodes -keyout ca-key.pem -out ca.csr -subj /O=Acme/CN=Intermediate".split(" ");
  await folder.openssl("req", "-new", ...key, ...request);
  await folder.write("ext", EXTENSIONS);
  const signed = "-CA root-cert.pem -CAkey root.key -CAcreateserial -out ca-cert.pem -days 30 -extfile ext".split(" ");
  await folder.openssl("x509", "-req", "-in", "ca.csr", ...signed);
  const names = ["ca-cert.pem", "root-cert.pem"];
  const texts = await Promise.all(names.map((name) => Deno.readTextFile(`${folder.path}/${name}`)));
  await folder.write("cert-chain.pem", texts.join(""));
}

/** A revocation list of an issuer with these numbers, which nobody has signed. */
export async function revocationList(issuer: string, numbers: readonly string[]): Promise<string> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const { privateKey } = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]) as CryptoKeyPair;
  const entries = numbers.map((serialNumber) => ({ serialNumber }));
  const list = await x509.X509CrlGenerator.create({
    issuer,
    signingAlgorithm: algorithm,
    signingKey: privateKey,
    entries,
  });
  return toPem("X509 CRL", list.rawData);
}
