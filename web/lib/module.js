// module.js - the WebAssembly module and its memory.

/** A refusal of the library: `name` is the status, `message` the sentence. */
export class QkvError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.name = status;
  }
}

/** The bytes of the module: from a file in Node, by fetch in a browser. */
async function bytesOf(source) {
  const from = source ?? new URL("./qkv.wasm", import.meta.url);
  if (from instanceof ArrayBuffer || ArrayBuffer.isView(from)) return from;
  if (from instanceof URL && from.protocol === "file:" && typeof process === "object") {
    const { readFile } = await import("node:fs/promises");
    return readFile(from);
  }
  const response = await fetch(from);
  if (!response.ok) throw new Error(`${from}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

const CONTROL_BYTES = 1024; // for sentences
const MOST_BYTES = 2 ** 32 - 2 ** 16; // addresses have 32 bits; a larger number would wrap

/** The module with views of its memory, which move when it grows: they are made anew at every use. */
export class Module {
  static async load(source) {
    const { instance } = await WebAssembly.instantiate(await bytesOf(source), {});
    return new Module(instance.exports);
  }

  constructor(exports) {
    this.exports = exports;
    exports._initialize();
  }

  bytes(at, n) {
    return new Uint8Array(this.exports.memory.buffer, at, n);
  }

  /** A typed array of n elements over memory. */
  view(Type, at, n) {
    return new Type(this.exports.memory.buffer, at, n);
  }

  /** The C string at an address. */
  text(at) {
    const all = new Uint8Array(this.exports.memory.buffer);
    return new TextDecoder().decode(all.slice(at, all.indexOf(0, at)));
  }

  /** Calls body with a function that takes memory, which is given back when body ends. */
  scope(body) {
    const taken = [];
    const take = (bytes) => {
      const at = bytes <= MOST_BYTES ? this.exports.web_alloc(bytes) : 0;
      if (!at) throw new QkvError("QKV_ERR_MEMORY", `there is no memory for ${bytes} bytes`);
      taken.push(at);
      return at;
    };
    try {
      return body(take);
    } finally {
      for (const at of taken) this.exports.web_free(at);
    }
  }

  /** Copies a typed array into memory of the scope; 0 for nothing. */
  put(take, array) {
    if (array === undefined || array === null) return 0;
    const at = take(array.byteLength);
    this.bytes(at, array.byteLength).set(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    );
    return at;
  }

  /** A C string in memory of the scope. */
  putText(take, text) {
    return this.put(take, new TextEncoder().encode(`${text}\0`));
  }

  /** Calls fn(text address, bytes), which gives a status, and throws what it refuses. */
  check(take, fn) {
    const at = take(CONTROL_BYTES);
    this.bytes(at, 1)[0] = 0;
    const status = fn(at, CONTROL_BYTES);
    if (status !== 0)
      throw new QkvError(this.text(this.exports.web_status_name(status)), this.text(at));
  }
}
