// Prints the commands that the page would copy: [{form: command}…] of the exchanges in a file, against an origin.
import { readFileSync } from "node:fs";

import { FORMATS, parts } from "../../../slproxy/inspect/page/copy.js";

const [file, origin] = process.argv.slice(2);
const exchanges = JSON.parse(readFileSync(file, "utf-8"));
const made = exchanges.map((exchange) =>
  Object.fromEntries(FORMATS.map(([name, , make]) => [name, make(parts(exchange, origin))])),
);
process.stdout.write(JSON.stringify(made));
