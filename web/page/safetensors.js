// safetensors.js - tensors of floats of a .safetensors file: eight bytes of length, a header in JSON, the data.

const TYPES = { F64: ["f64", 8], F32: ["f32", 4], F16: ["f16", 2], BF16: ["bf16", 2] };
const ARRAYS = { f64: Float64Array, f32: Float32Array, f16: Uint16Array, bf16: Uint16Array };

function fail(sentence) {
  throw new Error(`the file is no .safetensors that can be used: ${sentence}`);
}

/** One entry of the header, checked against its bytes. */
function tensorOf(name, entry, data) {
  const { dtype, shape, data_offsets: offsets } = entry ?? {};
  if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0))
    fail(`${name} has no shape`);
  if (!(dtype in TYPES)) return null; // integers, booleans: not for attention
  const [type, size] = TYPES[dtype],
    bytes = shape.reduce((a, n) => a * n, 1) * size;
  const [from, to] = Array.isArray(offsets) ? offsets : [NaN, NaN];
  if (!(Number.isSafeInteger(from) && from >= 0 && to <= data.byteLength && to - from === bytes))
    fail(
      `${name} has offsets ${from} to ${to}, and its shape takes ${bytes} bytes of ${data.byteLength}`,
    );
  return { type, shape, array: new ARRAYS[type](data.slice(from, to)) };
}

/** Map of name to { type, shape, array }. */
export function readSafetensors(buffer) {
  if (buffer.byteLength < 8) fail(`it has ${buffer.byteLength} bytes`);
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > buffer.byteLength - 8)
    fail(`its header would have ${length} bytes, and the file has ${buffer.byteLength}`);
  let header;
  try {
    header = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)),
    );
  } catch (error) {
    fail(`its header is not JSON (${error.message})`);
  }
  const data = buffer.slice(8 + length),
    found = new Map();
  for (const [name, entry] of Object.entries(header)) {
    const tensor = name === "__metadata__" ? null : tensorOf(name, entry, data);
    if (tensor) found.set(name, tensor);
  }
  return found;
}

export const MOST_TOKENS = 64;

/** Tensors of one attention, [heads][tokens][channels], in f32: what the playground shows. */
export function problemOfFile(tensors, qkv) {
  const take = (role) => {
    const tensor = tensors.get(role);
    if (!tensor)
      throw new Error(
        `the file has no tensor ${role} of floats; it has ${[...tensors.keys()].slice(0, 8).join(", ") || "none"}`,
      );
    const shape =
      tensor.shape.length === 4 && tensor.shape[0] === 1 ? tensor.shape.slice(1) : tensor.shape;
    const [heads, tokens, dim] = shape.length === 2 ? [1, ...shape] : shape;
    if (
      shape.length < 2 ||
      shape.length > 3 ||
      tokens === 0 ||
      dim === 0 ||
      heads === 0 ||
      tokens > MOST_TOKENS
    )
      throw new Error(
        `${role} has the shape [${tensor.shape.join(", ")}]; accepted are [heads, tokens, channels] with 1 to ${MOST_TOKENS} tokens`,
      );
    return {
      heads,
      tokens,
      dim,
      array: tensor.type === "f32" ? tensor.array : qkv.convert(tensor.array, tensor.type, "f32"),
    };
  };
  const q = take("q"),
    k = take("k"),
    v = take("v");
  if (v.heads !== k.heads || v.tokens !== k.tokens)
    throw new Error(
      `v has ${v.heads} heads of ${v.tokens} tokens; k has ${k.heads} of ${k.tokens}`,
    );
  const name = (letter) => (_, i) => `${letter}${i}`;
  return {
    words: Array.from({ length: k.tokens }, name("k")),
    asked: Array.from({ length: q.tokens }, name("q")),
    q: q.array,
    k: k.array,
    v: v.array,
    sizes: { heads: q.heads, kvHeads: k.heads, headDim: q.dim, headDimV: v.dim },
  };
}
