// config.js - a configuration (JSON text or an object) handed to the module entry by entry.
import { QkvError } from "./module.js";

const KIND = { null: 1, boolean: 2, integer: 3, real: 4, string: 5, list: 6, table: 7 };

/** A number with the digits that the text had: 10000.0 is real, 10000 an integer, as in C. */
class Literal {
  constructor(digits) {
    this.digits = digits;
  }
}

const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const MARK = "\u0001number";

/** JSON text as a value in which numbers are Literals. */
function parse(text) {
  JSON.parse(text); // refuses what is no JSON, with the place
  const marked = text.replace(TOKEN, (token) =>
    token[0] === '"' ? token : `{"${MARK.replace("\u0001", "\\u0001")}":"${token}"}`,
  );
  return JSON.parse(marked, (key, value) =>
    value !== null && typeof value === "object" && MARK in value ? new Literal(value[MARK]) : value,
  );
}

/** [kind, text, count] of one value. */
function describe(value) {
  if (value === null || value === undefined) return [KIND.null, "", 0];
  if (value instanceof Literal)
    return [/[.eE]/.test(value.digits) ? KIND.real : KIND.integer, value.digits, 0];
  switch (typeof value) {
    case "boolean":
      return [KIND.boolean, value ? "1" : "0", 0];
    case "number":
      return [Number.isInteger(value) ? KIND.integer : KIND.real, String(value), 0];
    case "string":
      return [KIND.string, value, 0];
    case "object":
      return Array.isArray(value)
        ? [KIND.list, "", value.length]
        : [KIND.table, "", Object.keys(value).length];
    default:
      throw new QkvError(
        "QKV_ERR_ARGUMENT",
        `a configuration holds a ${typeof value}; it must be JSON`,
      );
  }
}

/** Hands config to the module, whose model it then is. */
export function readConfig(module, config, family) {
  if (config === null || (typeof config !== "string" && typeof config !== "object"))
    throw new QkvError("QKV_ERR_ARGUMENT", "config must be the text of a config.json or an object");
  let whole;
  try {
    whole = typeof config === "string" ? parse(config) : config;
  } catch (error) {
    throw new QkvError("QKV_ERR_FORMAT", `the configuration is not JSON: ${error.message}`);
  }

  function add(parent, key, value) {
    const [kind, text, count] = describe(value);
    const index = module.scope((take) =>
      module.exports.web_config_add(
        parent,
        module.putText(take, key),
        kind,
        module.putText(take, text),
        count,
      ),
    );
    if (index < 0) throw new QkvError("QKV_ERR_MEMORY", "there is no memory for the configuration");
    if (kind === KIND.list || kind === KIND.table)
      for (const [name, entry] of Object.entries(value)) add(index, name, entry);
  }

  module.exports.web_config_clear();
  add(-1, "", whole);
  module.scope((take) => {
    const as = family === undefined ? 0 : module.putText(take, family);
    module.check(take, (text, bytes) => module.exports.web_model_read(as, text, bytes));
  });
}
