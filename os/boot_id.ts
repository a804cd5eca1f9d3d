/** Which boot of the machine this is (random(4)): what numbers of processes and namespaces mean ends with it. */

export const bootId = (): string => Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
