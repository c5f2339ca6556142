// index.js - the package: loads the module once and gives its functions.
import { attentionOf, convertOf } from "./attention.js";
import { Module, QkvError } from "./module.js";
import { sizeOf, toJson } from "./size.js";

export { QkvError, toJson };

/** source: bytes of qkv.wasm, or a URL of it; without one, the file beside this. */
export async function load(source) {
  const module = await Module.load(source);
  return {
    version: module.text(module.exports.web_version()),
    ...attentionOf(module),
    convert: convertOf(module),
    ...sizeOf(module),
  };
}
