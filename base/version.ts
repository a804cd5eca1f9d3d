/** What `--version`, metrics and debug pages call this build. */

export const VERSION = "0.1.0";
