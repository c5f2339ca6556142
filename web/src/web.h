/*
 * web.h - what the WebAssembly module exports: plain functions over its linear memory.
 *
 * The module imports nothing.  JavaScript (web/lib/) writes numbers and bytes into memory that it
 * takes with web_alloc and calls; structs are rows of doubles whose fields have names
 * (web_problem_field), so that neither side knows the other's offsets.  Everything runs on the
 * thread that calls.  Functions that return int give a qkv_status and write a sentence to text.
 */
#ifndef QKV_WEB_H
#define QKV_WEB_H

#include <stddef.h>
#include <stdint.h>

#include "qkv/model.h"

#define WEB_EXPORT(name) __attribute__((export_name(#name)))

/* Memory; 64-byte aligned; NULL where there is none left. */
WEB_EXPORT(web_alloc) void *web_alloc(size_t bytes);
WEB_EXPORT(web_free) void web_free(void *memory);

WEB_EXPORT(web_version) const char *web_version(void);
WEB_EXPORT(web_status_name) const char *web_status_name(int status);

/* qkv_convert. */
WEB_EXPORT(web_convert) int web_convert(void *dst, int dst_type, const void *src, int src_type,
                                        size_t n);

/* ---- attention (web/src/attention.c) ---- */

/* A problem: sizes, types, strides and addresses; see problem.inc. */
typedef struct web_problem {
#define FIELD(name) double name;
#include "problem.inc"
#undef FIELD
} web_problem;

WEB_EXPORT(web_problem_field) const char *web_problem_field(int index); /* NULL past the last */
WEB_EXPORT(web_problem_defaults) void web_problem_defaults(web_problem *problem);

/* The kernel that computes it; NULL if it is refused. */
WEB_EXPORT(web_kernel) const char *web_kernel(const web_problem *problem);
/* Query-key pairs that lengths, causality and windows leave visible; -1 if it is refused. */
WEB_EXPORT(web_visible_pairs) double web_visible_pairs(const web_problem *problem);

WEB_EXPORT(web_attention) int web_attention(const web_problem *problem, char *text, size_t bytes);

/* The oracle (qkv/ref.h): results in double, dense; NULL where not wanted. */
WEB_EXPORT(web_reference) int web_reference(const web_problem *problem, double *o, double *lse,
                                            double *weights, double *o_budget, double *lse_budget,
                                            char *text, size_t bytes);

/* ---- sizing (config.c, size.c, report.c) ---- */

/* A configuration, entry by entry in the order of the file: parents come before their entries.
 * The first one is the whole, with parent -1 and key "".  text: of a text, or the digits of a
 * number.  Returns the entry's number, or -1 where there is no memory. */
WEB_EXPORT(web_config_clear) void web_config_clear(void);
WEB_EXPORT(web_config_add) int web_config_add(int parent, const char *key, int kind,
                                              const char *text, int count);
qkv_config web_config(void); /* used inside the module */

typedef struct web_size {
#define FIELD(name) double name;
#include "size.inc"
#undef FIELD
} web_size;

WEB_EXPORT(web_size_field) const char *web_size_field(int index); /* NULL past the last */
WEB_EXPORT(web_size_defaults) void web_size_defaults(web_size *size);

/* The model that the following calls are about: of the configuration (as: a family, or NULL), or
 * of the numbers in size. */
WEB_EXPORT(web_model_read) int web_model_read(const char *as, char *text, size_t bytes);
WEB_EXPORT(web_model_of) int web_model_of(const web_size *size, char *text, size_t bytes);

/* Everything about it as lines `path=value`: paths with dots, counts in digits. */
WEB_EXPORT(web_size_report) int web_size_report(const web_size *size, char *lines,
                                                size_t lines_bytes, char *text, size_t bytes);
/* Bytes of keys and values at n contexts, for curves. */
WEB_EXPORT(web_size_curve) int web_size_curve(const web_size *size, int n, const double *contexts,
                                              double *payload, double *allocated, char *text,
                                              size_t bytes);
/* The answer to QKV_SOLVE_ what, as lines. */
WEB_EXPORT(web_size_solve) int web_size_solve(const web_size *size, int what, char *lines,
                                              size_t lines_bytes, char *text, size_t bytes);
/* Names by number, NULL past the last: a format of keys and values, a machine as lines. */
WEB_EXPORT(web_format_name) const char *web_format_name(int format);
WEB_EXPORT(web_machine) int web_machine(int index, char *lines, size_t lines_bytes);

#endif
