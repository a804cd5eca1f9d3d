/** Where programs run: on a cgroup, in a network namespace, at an interface. A link ends with its last descriptor or pin. */
import { accepted, Attributes, bpf, BpfObject, Command, infoOf } from "./kernel.ts";
import { type BpfProgram, ProgramKind } from "./programs.ts";

const TCX_ATTRIBUTE_BYTES = 32, LINK_INFO_BYTES = 32;

/** What a link says of itself. */
export interface LinkInfo {
  readonly programId: number;
  /** The cgroup's number, the namespace's inode or the interface's index, its lower 32 bits; 0 when that is gone. */
  readonly target: number;
}

export class BpfLink extends BpfObject {
  /** @param target descriptor of a folder of the cgroup hierarchy (v2), or of a network namespace. Throws AMB7150. */
  static attach(program: BpfProgram, target: number): BpfLink {
    const { kind } = program;
    const attributes = new Attributes(16).u32(0, program.fd).u32(4, target).u32(8, ProgramKind[kind].attach);
    return new BpfLink(accepted(bpf(Command.LINK_CREATE, attributes), `attach the BPF program ${kind}`));
  }

  /** At an interface of the calling thread's network namespace (Linux 6.6). Throws AMB7150. */
  static attachToInterface(program: BpfProgram, index: number): BpfLink {
    const { kind } = program;
    const attributes = new Attributes(TCX_ATTRIBUTE_BYTES).u32(0, program.fd).u32(4, index)
      .u32(8, ProgramKind[kind].attach);
    const doing = `attach the BPF program ${kind} to interface ${index}`;
    return new BpfLink(accepted(bpf(Command.LINK_CREATE, attributes), doing));
  }

  info(): LinkInfo {
    const info = infoOf(this.fd, LINK_INFO_BYTES);
    return { programId: info.getUint32(8, true), target: info.getUint32(16, true) };
  }

  /** Another program in the place of the one that runs, without a moment between. Throws AMB7150. */
  replace(program: BpfProgram): void {
    const attributes = new Attributes(16).u32(0, this.fd).u32(4, program.fd);
    accepted(bpf(Command.LINK_UPDATE, attributes), `replace the BPF program ${program.kind}`);
  }
}
