/** The CA and whom it believes: key material, the server's own certificate, tokens, and the certificate service. */
import { chain, MeshError } from "../base/errors.ts";
import { CertificateAuthority } from "./ca/authority.ts";
import { certificateMethod } from "./ca/ca_grpc.ts";
import { type AuthenticationWay, Authenticator } from "./ca/caller.ts";
import { CertificateService } from "./ca/certificate_service.ts";
import { ClientCertificateWay } from "./ca/client_certificate.ts";
import { ForwardedCertificateWay } from "./ca/forwarded_certificate.ts";
import { type KeySource, openKeySource } from "./ca/key_source.ts";
import { KubernetesTokenWay } from "./ca/kubernetes_token.ts";
import { NodeAuthorizer } from "./ca/node_authorizer.ts";
import { OidcWay, readOidcRule } from "./ca/oidc.ts";
import { OwnTokenWay } from "./ca/own_token.ts";
import type { RevokedCertificates } from "./ca/revoked_certificates.ts";
import { ownHosts, ServerIdentity } from "./ca/server_identity.ts";
import { openStateFolder, publishFile } from "./ca/state_files.ts";
import { TrustBundle } from "./ca/trust_bundle.ts";
import type { IstiodConfig } from "./config.ts";
import { ListenerCredentials } from "./grpc/listener_credentials.ts";
import { readTlsRules } from "./grpc/tls_rules.ts";
import type { Method } from "./grpc/methods.ts";
import type { MeshSettings } from "./mesh_settings.ts";
import type { Part, Role } from "./role.ts";
import { TokenIssuer } from "./tokens.ts";

/** The CA, opened and serving nobody yet. */
export interface Signing {
  readonly authority: CertificateAuthority;
  readonly authenticator: Authenticator;
  /** What the TLS listeners present; renewed with the CA's own material (CP-006). */
  readonly credentials: ListenerCredentials;
  /** What namespaces are told to trust. */
  readonly bundle: TrustBundle;
  readonly source: KeySource;
  readonly server: ServerIdentity;
  /** Whom the authenticator believes no more. */
  readonly revoked: RevokedCertificates;
}

/** Who may call, by what they show. Asks nobody anything yet. @throws MeshError AMB021x, AMB0256 */
export async function openAuthenticator(role: Role, revoked: RevokedCertificates): Promise<Authenticator> {
  const { config, mesh } = role, ours = (domain: string) => isOurs(mesh, domain);
  const ways: AuthenticationWay[] = [new ClientCertificateWay(ours, revoked)];
  if (config.jwtRule !== undefined) {
    const rule = readOidcRule(config.jwtRule);
    ways.push(new OidcWay({ rule, trustDomain: () => mesh.now.trustDomain, now: Date.now }));
  }
  ways.push(await tokenWay(role));
  if (config.trustedGateways.length > 0) ways.push(new ForwardedCertificateWay(config.trustedGateways, ours));
  return new Authenticator(ways);
}

/** Loads or makes the CA. @throws MeshError AMB021x, AMB025x */
export async function openSigning(
  role: Role,
  authenticator: Authenticator,
  revoked: RevokedCertificates,
): Promise<Signing> {
  const { config, self, api, mesh, signal } = role, log = role.log.child("ca");
  refuseOtherSigners(config);
  const settings = { ...config, trustDomain: mesh.now.trustDomain };
  const source = await openKeySource({ settings, api, systemNamespace: self.namespace, log }, signal);
  revoked.take(source.revocationsPem);
  const authority = await CertificateAuthority.create(source.material);
  const hosts = () => [...ownHosts(self, mesh.now.discoveryAddress), ...config.serverHosts];
  const server = await ServerIdentity.open({ settings: config, inCluster: api !== undefined, authority, hosts, log });
  const credentials = new ListenerCredentials(server.now, readTlsRules(config));
  server.subscribe((tls) => credentials.update(tls));
  const bundle = new TrustBundle({ rootsPem: server.distributedRootsPem, revocationsPem: source.revocationsPem });
  if (config.stateDir !== undefined) await openStateFolder(config.stateDir);
  await publishBundle(config.stateDir, bundle);
  return { authority, authenticator, credentials, bundle, source, server, revoked };
}

/** Whoever asks for another signer must not get ours in its stead (CP-005, CP-495). @throws MeshError AMB0259 */
function refuseOtherSigners({ externalCa, certificateProvider, tlsCertificateFile }: IstiodConfig): void {
  const wanted = externalCa !== ""
    ? `EXTERNAL_CA=${externalCa}`
    : certificateProvider !== "istiod" && tlsCertificateFile === undefined
    ? `PILOT_CERT_PROVIDER=${certificateProvider}`
    : undefined;
  if (wanted === undefined) return;
  throw new MeshError("AMB0259", `${wanted} asks for a signer that is not offered here`, {
    remedy: "leave it out to have certificates signed by istiod's own CA, whose key may be plugged in",
  });
}

/** A cluster vouches for its tokens; where there is none, a key of our own does (CP-476). */
async function tokenWay({ config, api, clusters, mesh }: Role): Promise<AuthenticationWay> {
  const trustDomain = () => mesh.now.trustDomain, now = Date.now;
  if (api !== undefined) {
    return new KubernetesTokenWay({ clusters, audiences: config.tokenAudiences, trustDomain, now });
  }
  if (config.stateDir === undefined) {
    throw new MeshError("AMB0256", "nothing says where the token issuer's key is to be kept", {
      remedy: "give --state-dir a folder",
    });
  }
  const tokens = await TokenIssuer.open(config.stateDir);
  return new OwnTokenWay({ tokens, trustDomain, clusterId: config.clusterId, now });
}

/** The certificate service, for a server. */
export function signingMethod(role: Role, { authority, authenticator }: Signing): Method {
  const { config, clusters, mesh, metrics } = role, log = role.log.child("ca");
  const trustedAccounts = new Set(config.trustedNodeAccounts);
  const certificates = new CertificateService({
    authority,
    authenticator,
    authorizer: new NodeAuthorizer({ clusters, trustedAccounts, isOurs: (domain) => isOurs(mesh, domain) }),
    defaultTtlMs: config.defaultCertificateTtlMs,
    maxTtlMs: config.maxCertificateTtlMs,
    metrics,
    log,
  });
  return certificateMethod(certificates, log);
}

/** The trust domain that identities are signed in, and those that it was called before (CP-484). */
function isOurs({ now }: MeshSettings, domain: string): boolean {
  return domain === now.trustDomain || now.trustDomainAliases.includes(domain);
}

/** Follows the CA's key and the server's files, and takes what changes into use (CP-503 to CP-505). */
export function startRotation({ config, mesh, signal, log: parent }: Role, signing: Signing): Part {
  const log = parent.child("ca");
  const { authority, bundle, source, server, revoked } = signing;
  const unsubscribe = mesh.subscribe(() => {
    server.reissue().catch((error) => {
      if (!(error instanceof MeshError)) throw error;
      log.error("no server certificate for the mesh's new address; the old one stays", { error: chain(error) });
    });
  });
  const publish = async () => {
    bundle.set({ rootsPem: server.distributedRootsPem });
    await publishBundle(config.stateDir, bundle);
  };
  const keys = source.follow({
    onMaterial: async (material) => {
      await authority.replace(material);
      await server.reissue(); // Its clients believe the new root, or both, from here on (CP-505).
      await publish();
    },
    onRevocations: async (revocationsPem) => {
      revoked.take(revocationsPem);
      bundle.set({ revocationsPem });
      await publishBundle(config.stateDir, bundle);
    },
  }, signal);
  const files = server.follow(publish, signal);
  return { stopped: Promise.all([keys, files]).then(unsubscribe) };
}

/** Where there is no cluster to write to, files are what clients mount: ztunnel's CA_ROOT_CA and CRL_PATH. */
async function publishBundle(stateDir: string | undefined, { now }: TrustBundle): Promise<void> {
  if (stateDir === undefined) return;
  await publishFile(`${stateDir}/root-cert.pem`, now.rootsPem);
  if (now.revocationsPem !== "") await publishFile(`${stateDir}/ca-crl.pem`, now.revocationsPem);
}
