/** Attention for CPUs as WebAssembly, and what it costs. */

/** A refusal: name is the status ("QKV_ERR_ARGUMENT"), message a sentence that names the field. */
export class QkvError extends Error {
  constructor(status: string, sentence: string);
}

/** Float32Array for f32, Float64Array for f64, Uint16Array with the bits of f16 and bf16. */
export type Tensor = Float32Array | Float64Array | Uint16Array;
export type FloatType = "f64" | "f32" | "f16" | "bf16";
export type Stage = "scores" | "capped" | "biased" | "weights";

export interface AttentionOptions {
  /** Sequences, default 1. */
  batch?: number;
  /** Query heads, default 1. */
  heads?: number;
  /** Key/value heads, a divisor of heads; default heads. Query head h reads h / (heads / kvHeads), rounded down. */
  kvHeads?: number;
  /** Channels of a head of q and k. */
  headDim: number;
  /** Channels of a head of v and of the result, default headDim. */
  headDimV?: number;
  /** Tokens of q; default: what its length says. */
  queries?: number;
  /** Tokens of k and v; default: what the length of k says. */
  keys?: number;
  /** Default f64 for a Float64Array, else f32. */
  type?: FloatType;
  /** Order of batch, heads, tokens and dimensions in q, k, v and o; default bhtd. */
  layout?: "bhtd" | "bthd";
  causal?: boolean | "strict";
  /** Where query 0 stands if there are other numbers of queries and keys; default bottom-right. */
  align?: "bottom-right" | "top-left";
  /** Keys before and after a query that it sees; null: all. */
  window?: [number | null, number | null];
  /** Default 1 / sqrt(headDim). */
  scale?: number;
  /** c tanh(s / c) of scaled scores; 0: none. */
  softcap?: number;
  /** 0 hides: batch x heads x queries x keys, heads x queries x keys or queries x keys. */
  mask?: Uint8Array;
  /** Added to scores, sizes as mask; f64 with f64, else f32. */
  bias?: Float32Array | Float64Array;
  /** A logit a query head, that takes weight and has no value. */
  sinks?: Float32Array | Float64Array;
  /** ALiBi, a slope a query head. */
  slopes?: Float32Array | Float64Array;
  /** A number a sequence. */
  qLens?: Int32Array;
  kvLens?: Int32Array;
  kvStarts?: Int32Array;
  qOffsets?: Int32Array;
  /** Give log-sum-exps as well. */
  lse?: boolean;
  /** Give the matrix of weights (true) or of scores at a stage as well. */
  weights?: boolean | Stage;
  /** Kernels: the best there are, or those without SIMD. */
  tier?: "best" | "scalar";
  /** Values are the first headDimV channels of k, and v is null: absorbed MLA. */
  valuesInKeys?: boolean;
}

export interface AttentionResult {
  /** batch x heads x queries x headDimV (or in the order of layout). */
  o: Tensor;
  /** batch x heads x queries; natural logarithm. */
  lse?: Float32Array | Float64Array;
  /** batch x heads x queries x keys. */
  weights?: Float32Array | Float64Array;
  /** The kernel that computed it. */
  kernel: string;
}

export interface ReferenceResult {
  o: Float64Array;
  lse: Float64Array;
  weights: Float64Array;
  /** How far a correct result may be from o and lse. */
  oBudget: Float64Array;
  lseBudget: Float64Array;
}

/** Exact: a number up to 2^53 - 1, a bigint above. */
export type Count = number | bigint;

export interface ModelNumbers {
  layers: number;
  dModel: number;
  heads: number;
  kvHeads?: number;
  headDim?: number;
  headDimV?: number;
  /** MLA: width of the latent, of the rotary key, of the latent of queries. */
  latent?: number;
  ropeDim?: number;
  qLatent?: number;
  /** Tokens that a query sees; with fullEvery n, each n-th layer sees all. */
  window?: number;
  fullEvery?: number;
  dFf?: number;
  vocab?: number;
  tied?: boolean;
}

export interface SizeOptions {
  /** Tokens of a sequence; default the model's own limit. */
  context?: number;
  batch?: number;
  /** Tokens of a step of prefill. */
  chunk?: number;
  /** Cross-attention: tokens of the other sequence. */
  encoderTokens?: number;
  /** Format of keys and values, "int8", or of both, "int8,bf16"; with :32, :64, :128 or :head for scales. */
  kv?: string;
  pageTokens?: number;
  /** Of a parameter, 0 to 64; default those of the configuration's dtype. */
  weightBits?: number;
  compute?: "f32" | "f16" | "bf16";
  pairs?: "visible" | "square";
  absorbed?: boolean;
  ranks?: number;
  split?: "heads" | "context";
  cacheOnly?: boolean;
  /** Bytes that something else needs. */
  reserve?: number;
  /** Bytes there are. */
  memory?: number;
  /** Seconds a step of decoding may take. */
  latency?: number;
  /** A built-in machine, or FLOP/s in f32 and with operands of 16 bits and bytes/s. */
  machine?: string | { f32: number; narrow: number; bytes: number } | null;
  /** The same model with another attention: mha, gqa:N, mqa, mla, mla:C, mla:C:R. */
  variant?: string | null;
  solve?: ("context" | "users" | "groups" | "format")[];
  /** A family to use whatever model_type says. */
  as?: string;
  /** A model in numbers, where config is null. */
  model?: ModelNumbers;
}

export interface SizeGroup {
  kind: "attention" | "mla" | "state";
  cross: boolean;
  layers: number;
  layers_sharing: number;
  kv_heads: number;
  head_dim: number;
  head_dim_v: number;
  window: number | null;
  elements_token: Count;
  tokens: Count;
  pages: Count;
  page_bytes: Count;
  bytes_token: Count;
  payload: Count;
  allocated: Count;
}

export interface SizeStage {
  multiply_adds: Count;
  exponentials: Count;
  bytes: Count;
  bytes_least: Count;
}

export interface SizeSeconds {
  best: number;
  worst: number;
  intensity: number;
  bound: "compute" | "bandwidth" | null;
}

export interface SizeWork {
  sequences: number;
  new_tokens: number;
  past_tokens: number;
  chunk: number | null;
  absorbed: boolean;
  pairs: Count;
  cache_read: Count;
  cache_written: Count;
  weights_read: Count;
  all: SizeStage;
  stages: Record<string, SizeStage>;
  seconds?: Record<string, SizeSeconds>;
}

export interface SizeFit {
  fits: boolean;
  fits_memory: boolean;
  fits_latency: boolean;
  weights: Count;
  cache: Count;
  needed: Count;
  decode_seconds_worst: number;
}

export interface SizeModel {
  model_type: string;
  not_priced: string;
  layers: number;
  d_model: number;
  cache: {
    elements_token: Count;
    bytes_token: Count;
    state_bytes: Count;
    payload: Count;
    allocated: Count | null;
    groups: SizeGroup[];
  };
  parameters: Record<string, Count | string[]>;
  work: Record<"prefill" | "chunked_prefill" | "decode" | "decode_without_cache", SizeWork | null>;
  rank: Record<string, Count>;
  fit: SizeFit;
}

/** As `qkv size --json`, and the layers. */
export interface SizeReport {
  schema: "qkv-size";
  schema_version: number;
  setup: Record<string, string | number | boolean>;
  machine: Machine | null;
  memory: Count | null;
  latency: number | null;
  models: [SizeModel];
  solved: { what: string; found: boolean; limited: boolean; value: Count | string; fit: SizeFit }[];
  advice: string[];
  formulas: string[];
  /** map: for each layer the letter of its kind, and "." or "^" (it uses another layer's cache). */
  layers: { map: string; kinds: Record<string, string | number>[] };
}

export interface Machine {
  name: string;
  source: string;
  measured: boolean;
  flops_f32: [number, number];
  flops_16: [number, number];
  bytes_per_second: [number, number];
  memory: Count;
}

export interface Qkv {
  version: string;
  /** Refuses with a QkvError that names the field. v may be null with valuesInKeys. */
  attention(q: Tensor, k: Tensor, v: Tensor | null, options: AttentionOptions): AttentionResult;
  /** The same in double, slowly, with the error that is allowed. */
  reference(q: Tensor, k: Tensor, v: Tensor | null, options: AttentionOptions): ReferenceResult;
  /** Query-key pairs that lengths, causality and windows leave visible. */
  visiblePairs(q: Tensor, k: Tensor, v: Tensor | null, options: AttentionOptions): number;
  /** One rounding to nearest even. */
  convert(array: Tensor, from: FloatType, to: FloatType): Tensor;
  /** config: the text of a config.json, or what it parses to, or null with options.model. */
  size(config: string | object | null, options?: SizeOptions): SizeReport;
  /** Bytes of keys and values at many contexts. */
  sizeCurve(
    config: string | object | null,
    contexts: number[],
    options?: SizeOptions,
  ): { payload: number[]; allocated: number[] };
  machines: Machine[];
  formats: string[];
}

/** source: bytes of qkv.wasm or its URL; default: the file of the package. */
export function load(source?: ArrayBuffer | ArrayBufferView | URL | string): Promise<Qkv>;

/** JSON in which exact counts are bare digits, also above 2^53. */
export function toJson(value: unknown, indent?: number): string;
