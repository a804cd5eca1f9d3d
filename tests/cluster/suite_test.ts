/** The suite, in its order: all of it is on one cluster. `deno task test:cluster` starts it. */
import "./install_test.ts";
import "./uninstall_test.ts";
