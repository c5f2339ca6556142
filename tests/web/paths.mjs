// paths.mjs - where the tests find things.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const path = (relative) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));

export const root = path(".");
/** The package and the page as tools/web.sh builds them. */
export const packageFolder = path("build/web/package/");
export const siteFolder = path("build/web/site/");
export const singleFile = path("build/web/qkv.html");
export const nodeModules = path("build/web/node_modules/");
export const shots = path("build/web/screenshots/");
export const configs = path("tests/sizing/configs/");
export const command = process.env.QKV_COMMAND ?? path("build/release/cli/qkv");
export const hasCommand = existsSync(command);

export const { load, toJson, QkvError } = await import(`file://${packageFolder}lib/index.js`);
