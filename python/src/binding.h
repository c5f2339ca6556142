/*
 * binding.h - what the files of the extension module qkv._qkv share.
 *
 *     tensor.c    a Python array as pointer, type, shape and strides
 *     problem.c   tensors and options together as a qkv_desc
 *     run.c       plans, runs, and the thread pools behind them
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
    int64_t shape[MAX_RANK], stride[MAX_RANK]; /* in elements; of a size-1 axis as if dense */
    Py_buffer buffer;                          /* what is held, one of these three */
    dl_managed *managed;
    dl_versioned *versioned;
} tensor;

enum { FLOATS, BOOLS, LENGTHS };                   /* which element types are accepted */
enum { AS_IS = 0, ROWS = 1, DENSE = 2, WRITE = 4 }; /* last axis or all contiguous, or in place */

int qkvpy_tensor_open(tensor *t, PyObject *obj, const char *name, int kind, int how);
void qkvpy_tensor_close(tensor *t);
/* Writes "(2, 3, 4)" to text and returns it. */
const char *qkvpy_shape_text(char text[256], const int64_t *shape, int32_t rank);

/* The tensors of a problem, in the order in which Python passes them.  From Q_LENS on they are
 * made by the package: int32 arrays, and bytes for BLOCKS. */
enum { Q, K, V, OUT, MASK, BIAS, SINKS, SLOPES, Q_LENS, KV_LENS, KV_STARTS, Q_OFFSETS, CU_Q, CU_K,
       BLOCKS, N_TENSORS };
enum { N_RUN_TENSORS = SLOPES + 1 }; /* those that change from run to run */

typedef struct problem {
    qkv_desc desc;
    tensor t[N_TENSORS];
    int threads; /* 0: as many as processors */
    int want_lse, want_weights;
} problem;

/* From N_TENSORS tensors and the options tuple.  Close it in any case. */
int qkvpy_problem_open(problem *p, PyObject *const *args, Py_ssize_t n_args);
void qkvpy_problem_close(problem *p);
/* Opens the first n tensors of args; None stays closed. */
int qkvpy_problem_tensors(problem *p, PyObject *const *args, int n);
/* Sizes and layouts of desc from the run tensors, whose shapes are held against one another. */
int qkvpy_problem_describe(problem *p);

/* The plan of a descriptor, in memory for free(); NULL with an exception. */
const qkv_plan *qkvpy_plan_new(const qkv_desc *desc, void **memory);
/* Workers that a run of this problem is given. */
int32_t qkvpy_workers(const problem *p, const qkv_plan *plan);
/* Runs and returns o, or a tuple of o and the lse and weights that are wanted.  workspace is the
 * caller's if it is large enough; otherwise one is made for this run. */
PyObject *qkvpy_run(problem *p, const qkv_plan *plan, PyObject *const *args, void *workspace,
                    size_t bytes);
/* The base pointers of the inputs. */
void qkvpy_inputs(const problem *p, qkv_args *args);
/* 64-byte aligned memory for free(); NULL with an exception. */
void *qkvpy_alloc(size_t bytes);
/* Raises ValueError (MemoryError, OSError) with this sentence. */
int qkvpy_raise(qkv_status status, const char *text);

int qkvpy_setup(void);           /* once, at import */
extern PyObject *qkvpy_arrays;   /* the module qkv._arrays */
extern PyTypeObject *qkvpy_ndarray;

#endif
