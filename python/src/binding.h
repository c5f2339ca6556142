/*
 * binding.h - what the files of the extension module qkv._qkv share.
 *
 *     tensor.c    a Python array as pointer, type, shape and strides
 *     problem.c   tensors and options together as a qkv_desc
 *     keys.c      of these, keys and values: dense, packed, in pages, as codes
 *     run.c       plans, runs, and the thread pools behind them
 *     plan.c      the type Plan
 *     results.c   the oracle and merge
 *     cache*.c    the type Cache, see cache_binding.h
 *     rope*.c     the type Rope, see rope_binding.h
 *     module.c    what Python sees
 *
 * The hot path is here; what is rare (other libraries' arrays, copies, sentences about dtypes)
 * is in qkv/_arrays.py and called through qkvpy_arrays.  Functions that return int give 0, or -1
 * with a Python exception set.
 */
#ifndef QKV_PY_BINDING_H
#define QKV_PY_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "dlpack.h"
#include "qkv/attention.h"
#include "qkv/ref.h"

enum { MAX_RANK = 8 };

/* An open array.  Zeroed memory is a closed one; an absent optional array has type QKV_NONE. */
typedef struct tensor {
    const char *name; /* the argument, for sentences */
    void *data;       /* never NULL when open */
    int32_t type;     /* qkv_type */
    int32_t rank;
    int read_only;
    int swapped; /* the axes before the last were exchanged, so that tokens are next to it */
    int64_t shape[MAX_RANK], stride[MAX_RANK]; /* in elements; of a size-1 axis as if dense */
    Py_buffer buffer;                          /* what is held, one of these three */
    dl_managed *managed;
    dl_versioned *versioned;
} tensor;

enum { FLOATS, BOOLS, LENGTHS, KEYS };             /* which element types are accepted */
enum { AS_IS = 0, ROWS = 1, DENSE = 2, WRITE = 4 }; /* last axis or all contiguous, or in place */

/* KEYS are floats or codes: int8 is QKV_I8, float8 QKV_E4M3 or QKV_E5M2, and uint8 QKV_U4 until the
 * format that is named beside it says more. */
int qkvpy_tensor_open(tensor *t, PyObject *obj, const char *name, int kind, int how);
void qkvpy_tensor_close(tensor *t);
/* Writes "(2, 3, 4)" to text and returns it. */
const char *qkvpy_shape_text(char text[256], const int64_t *shape, int32_t rank);

/* Type, shape and strides. */
int qkvpy_same_layout(const tensor *a, const tensor *b);

/* The tensors of a problem, in the order in which Python passes them.  TABLE and those from Q_LENS
 * on are made by the package: int32 arrays, and bytes for BLOCKS. */
enum { Q, K, V, OUT, MASK, BIAS, SINKS, SLOPES, TABLE, K_SCALE, K_MIN, V_SCALE, V_MIN, K_ROPE,
       Q_LENS, KV_LENS, KV_STARTS, Q_OFFSETS, CU_Q, CU_K, BLOCKS, N_TENSORS };
enum { N_RUN_TENSORS = K_ROPE + 1 }; /* those that change from run to run */

typedef struct problem {
    qkv_desc desc;
    tensor t[N_TENSORS];
    int threads; /* 0: as many as processors */
    int want_lse, want_weights;
    int tokens_first; /* pages are [P][t][H][D] and not [P][H][t][D] */
    int format[2];    /* qkv_type of uint8 keys and values; QKV_NONE: not said */
    int group[2];     /* channels a scale covers; -1: follows from the scales' shape */
} problem;

/* From N_TENSORS tensors and the options tuple.  Close it in any case. */
int qkvpy_problem_open(problem *p, PyObject *const *args, Py_ssize_t n_args);
void qkvpy_problem_close(problem *p);
/* Pages with tokens before heads: exchanges the two axes before the last, or back. */
void qkvpy_swap_axes(tensor *t);
/* Opens the i-th tensor, or the first n of args, of which None stays closed. */
int qkvpy_problem_tensor(problem *p, int i, PyObject *array);
int qkvpy_problem_tensors(problem *p, PyObject *const *args, int n);
/* Sizes and layouts of desc from the run tensors, whose shapes are held against one another. */
int qkvpy_problem_describe(problem *p);
/* Of these, keys and values; q is described. */
int qkvpy_describe_keys(problem *p);
/* Sizes that follow from q. */
int qkvpy_check_queries(problem *p);
/* q and o; head_dim_v is known. */
int qkvpy_describe_queries(problem *p);
/* mask, bias, sinks, slopes and the outputs beside o. */
int qkvpy_describe_rest(problem *p);
/* NumPy's rule: axes are matched from the last one, and an axis of size 1 is repeated. */
int qkvpy_broadcast(qkv_layout *l, const tensor *t, const int64_t *shape, int32_t rank,
                    const char *wanted);
/* "k has shape (2, 3, 4); wanted(...)"; shape may be NULL. */
int qkvpy_refuse_shape(const tensor *t, const char *wanted, const int64_t *shape, int32_t rank);

/* The plan of a descriptor, in memory for free(); NULL with an exception. */
const qkv_plan *qkvpy_plan_new(const qkv_desc *desc, void **memory);
/* Workers that a run of this plan is given; threads 0: as many as processors. */
int32_t qkvpy_workers(const qkv_desc *desc, int threads, const qkv_plan *plan);
/* The pool of so many workers, 1 .. 1024, made on first use; NULL with an exception. */
qkv_pool *qkvpy_pool(int32_t n_workers);
/* Makes the outputs, or takes out as the first: o, then lse and weights if they are wanted.  made
 * receives references. */
int qkvpy_outputs(problem *p, PyObject *out, PyObject *like, PyObject *made[3], tensor *lse,
                  tensor *weights);
/* What a call returns: o, or a tuple of what was made.  Takes the references. */
PyObject *qkvpy_whole(PyObject *made[3], int failed);
/* Checks and runs without the GIL.  workspace is the caller's if it is large enough; otherwise one
 * is made for this run. */
int qkvpy_run_args(const qkv_desc *desc, int threads, const qkv_plan *plan, qkv_args *args,
                   void *workspace, size_t bytes);
/* The same for the tensors of a problem, with its outputs. */
PyObject *qkvpy_run(problem *p, const qkv_plan *plan, PyObject *const *args, void *workspace,
                    size_t bytes);
/* The base pointers of the inputs. */
void qkvpy_inputs(const problem *p, qkv_args *args);
/* 64-byte aligned memory for free(); NULL with an exception. */
void *qkvpy_alloc(size_t bytes);
/* Raises ValueError (MemoryError, OSError, CacheFull) with this sentence. */
int qkvpy_raise(qkv_status status, const char *text);

PyObject *qkvpy_reference(PyObject *self, PyObject *const *args, Py_ssize_t n_args);
PyObject *qkvpy_merge(PyObject *self, PyObject *args);
extern PyTypeObject qkvpy_plan_type;

int qkvpy_setup(void);           /* once, at import */
extern PyObject *qkvpy_arrays;   /* the module qkv._arrays */
extern PyObject *qkvpy_cache_full; /* the class CacheFull */
extern PyTypeObject *qkvpy_ndarray;

#endif
