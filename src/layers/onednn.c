/*
 * layers/onednn.c - layouts and products of oneDNN, versions 2 and 3.
 *
 * A layout is a primitive descriptor of a product whose weights may lie as the library likes; a
 * product is a primitive with that layout fixed.  Making one may compile machine code, of which the
 * library keeps what it has made before; running one only asks for a few small objects.
 *
 * oneDNN would start OpenMP's threads in each worker of ours.  So the thread that calls it is told
 * to use one, and afterwards what it was told before; the number belongs to the thread, nobody else
 * sees it.  With one thread oneDNN calls its loops directly and OpenMP does nothing.
 */
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <string.h>

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
#include <omp.h>
#endif

#include "layers/onednn.h"
#include "qkv/model.h"

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t view; /* of a descriptor: of another object, or of ours */
#define VIEW(desc) (desc)
#else
typedef const dnnl_memory_desc_t *view;
#define VIEW(desc) (&(desc))
#endif

/* ---- one thread ------------------------------------------------------------------------- */

static int one_thread(void)
{
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
    const int before = omp_get_max_threads();
    if (before != 1)
        omp_set_num_threads(1);
    return before;
#else
    return 1;
#endif
}

static void as_before(int threads)
{
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
    if (threads != 1)
        omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

/* ---- the engine ------------------------------------------------------------------------- */

/* One for the process: oneDNN keeps primitives beyond the handles to them, and they name it. */
static dnnl_engine_t engine;
static pthread_once_t engine_once = PTHREAD_ONCE_INIT;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
}

static qkv_status mapped(dnnl_status_t status)
{
    switch (status) {
    case dnnl_success: return QKV_OK;
    case dnnl_out_of_memory: return QKV_ERR_MEMORY;
    case dnnl_unimplemented: return QKV_ERR_UNSUPPORTED;
    default: return QKV_ERR_SYSTEM;
    }
}

/* ---- descriptors ------------------------------------------------------------------------ */

/* rows x cols elements, so many apart; row_step 0: as the library likes. */
static dnnl_status_t describe(dnnl_memory_desc_t *desc, dnnl_data_type_t type, int64_t rows,
                              int64_t cols, int64_t row_step, int64_t col_step)
{
    const dnnl_dims_t dims = {rows, cols}, steps = {row_step, col_step};
#if DNNL_VERSION_MAJOR >= 3
    return row_step ? dnnl_memory_desc_create_with_strides(desc, 2, dims, type, steps)
                    : dnnl_memory_desc_create_with_tag(desc, 2, dims, type, dnnl_format_tag_any);
#else
    return row_step ? dnnl_memory_desc_init_by_strides(desc, 2, dims, type, steps)
                    : dnnl_memory_desc_init_by_tag(desc, 2, dims, type, dnnl_format_tag_any);
#endif
}

static void forget(dnnl_memory_desc_t *desc)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_destroy(*desc);
#else
    (void)desc;
#endif
}

static view part_of(const_dnnl_primitive_desc_t product, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(product, what, 0);
}

static void sizes_of(view desc, int64_t *rows, int64_t *cols, dnnl_data_type_t *type)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_dims_t *dims = NULL;
    dnnl_memory_desc_query(desc, dnnl_query_dims, &dims);
    dnnl_memory_desc_query(desc, dnnl_query_data_type, type);
    *rows = (*dims)[0];
    *cols = (*dims)[1];
#else
    *rows = desc->dims[0];
    *cols = desc->dims[1];
    *type = desc->data_type;
#endif
}

static dnnl_status_t describe_product(dnnl_primitive_desc_t *product, view x, view w, view y)
{
    dnnl_primitive_attr_t attr;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);

    if (status != dnnl_success)
        return status;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
#if DNNL_VERSION_MAJOR >= 3
    status = dnnl_matmul_primitive_desc_create(product, engine, x, w, NULL, y, attr);
#else
    dnnl_matmul_desc_t desc;
    status = dnnl_matmul_desc_init(&desc, x, w, NULL, y);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(product, &desc, attr, engine, NULL);
#endif
    dnnl_primitive_attr_destroy(attr);
    return status;
}

/* What a product reads and makes, by QKV_WEIGHTS_. */
typedef struct kind {
    dnnl_data_type_t x, w, y;
} kind;

static kind kind_of(int32_t weights)
{
    switch (weights) {
    case QKV_WEIGHTS_BF16: return (kind){dnnl_bf16, dnnl_bf16, dnnl_f32};
    case QKV_WEIGHTS_INT8: return (kind){dnnl_u8, dnnl_s8, dnnl_s32};
    default: return (kind){dnnl_f32, dnnl_f32, dnnl_f32};
    }
}

static kind kind_with(dnnl_data_type_t w)
{
    return kind_of(w == dnnl_bf16 ? QKV_WEIGHTS_BF16
                   : w == dnnl_s8 ? QKV_WEIGHTS_INT8
                                  : QKV_WEIGHTS_F32_PACKED);
}

/* The descriptor of y [rows][outputs] = x [rows][inputs] times weights that lie so. */
static dnnl_status_t find_product(dnnl_primitive_desc_t *product, kind k, int64_t rows,
                                  int64_t outputs, int64_t inputs, view weights)
{
    dnnl_memory_desc_t x, y;
    dnnl_status_t status = describe(&x, k.x, rows, inputs, inputs, 1);

    if (status != dnnl_success)
        return status;
    status = describe(&y, k.y, rows, outputs, outputs, 1);
    if (status == dnnl_success) {
        status = describe_product(product, VIEW(x), weights, VIEW(y));
        forget(&y);
    }
    forget(&x);
    return status;
}

/* ---- layouts ---------------------------------------------------------------------------- */

enum { USUAL_ROWS = 64 }; /* what layouts are asked for; those of 1 to 512 are the same */

static dnnl_status_t find_layout(int32_t weights, int64_t outputs, int64_t inputs,
                                 dnnl_primitive_desc_t *layout)
{
    const kind k = kind_of(weights);
    const int threads = one_thread();
    dnnl_memory_desc_t w;
    dnnl_status_t status = describe(&w, k.w, inputs, outputs, 0, 0);

    *layout = NULL;
    if (status == dnnl_success) {
        status = find_product(layout, k, USUAL_ROWS, outputs, inputs, VIEW(w));
        forget(&w);
    }
    as_before(threads);
    return status;
}

/* Without these instructions sums of two products of bytes are cut to 16 bits. */
static int sums_bytes_exactly(void)
{
    const unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    const unsigned wide = dnnl_cpu_isa_avx512_core_vnni, narrow = dnnl_cpu_isa_avx2_vnni;
    return (isa & wide) == wide || (isa & narrow) == narrow;
}

qkv_status qkv_onednn_check(int32_t weights, qkv_say say)
{
    const char *name = qkv_weights_name(weights), *found = "ref";
    dnnl_primitive_desc_t layout = NULL;

    pthread_once(&engine_once, make_engine);
    if (!engine)
        return qkv_refuse(say, QKV_ERR_SYSTEM, "oneDNN finds no CPU to compute on");
    if (weights == QKV_WEIGHTS_INT8 && !sums_bytes_exactly())
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "weights are int8; oneDNN's products of bytes are exact on CPUs with "
                          "VNNI only, accepted here is f32");
    const dnnl_status_t status = find_layout(weights, 256, 256, &layout);
    if (status == dnnl_out_of_memory)
        return qkv_refuse(say, QKV_ERR_MEMORY, "no memory for a product of oneDNN");
    if (layout)
        dnnl_primitive_desc_query(layout, dnnl_query_impl_info_str, 0, &found);
    const int slow = strncmp(found, "ref", 3) == 0 || strncmp(found, "gemm:ref", 8) == 0;
    dnnl_primitive_desc_destroy(layout);
    if (slow)
        return qkv_refuse(say, QKV_ERR_UNSUPPORTED,
                          "weights are %s; this oneDNN has no products of %s for this CPU, "
                          "accepted is f32",
                          name, name);
    return QKV_OK;
}

qkv_status qkv_onednn_layout(int32_t weights, int64_t outputs, int64_t inputs, void **layout,
                             size_t *bytes)
{
    dnnl_primitive_desc_t found;
    const dnnl_status_t status = find_layout(weights, outputs, inputs, &found);

    *layout = found;
    if (status == dnnl_success)
        *bytes = dnnl_memory_desc_get_size(part_of(found, dnnl_query_weights_md));
    return mapped(status);
}

void qkv_onednn_layout_end(void *layout)
{
    if (layout)
        dnnl_primitive_desc_destroy(layout);
}

/* ---- running a primitive ----------------------------------------------------------------- */

/* An argument: which, where it lies, how. */
typedef struct argument {
    int name;
    view desc;
    void *data;
} argument;

static dnnl_status_t execute(const_dnnl_primitive_t primitive, const argument *given, int n)
{
    dnnl_exec_arg_t args[4];
    dnnl_stream_t stream;
    int made = 0;
    dnnl_status_t status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);

    if (status != dnnl_success)
        return status;
    for (; status == dnnl_success && made < n; made += status == dnnl_success) {
        args[made].arg = given[made].name;
        status = dnnl_memory_create(&args[made].memory, given[made].desc, engine, given[made].data);
    }
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, stream, n, args);
    while (made > 0)
        dnnl_memory_destroy(args[--made].memory);
    dnnl_stream_destroy(stream);
    return status;
}

static dnnl_status_t reorder(view from, const void *data, view to, void *placed)
{
    const argument args[2] = {{DNNL_ARG_FROM, from, (void *)(uintptr_t)data},
                              {DNNL_ARG_TO, to, placed}};
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&desc, from, engine, to, engine, NULL);

    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_create(&primitive, desc);
    dnnl_primitive_desc_destroy(desc);
    if (status != dnnl_success)
        return status;
    status = execute(primitive, args, 2);
    dnnl_primitive_destroy(primitive);
    return status;
}

qkv_status qkv_onednn_place(const void *layout, const void *w, void *to)
{
    const view placed = part_of((const_dnnl_primitive_desc_t)layout, dnnl_query_weights_md);
    const int threads = one_thread();
    dnnl_memory_desc_t rows;
    dnnl_data_type_t type;
    int64_t inputs, outputs;

    sizes_of(placed, &inputs, &outputs, &type);
    dnnl_status_t status = describe(&rows, type, inputs, outputs, 1, inputs);
    if (status == dnnl_success) {
        status = reorder(VIEW(rows), w, placed, to);
        forget(&rows);
    }
    as_before(threads);
    return mapped(status);
}

/* ---- products --------------------------------------------------------------------------- */

qkv_status qkv_onednn_product(const void *layout, int64_t rows, void **product, size_t *scratch)
{
    const view w = part_of((const_dnnl_primitive_desc_t)layout, dnnl_query_weights_md);
    const int threads = one_thread();
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t made = NULL;
    dnnl_data_type_t type;
    int64_t inputs, outputs;

    sizes_of(w, &inputs, &outputs, &type);
    dnnl_status_t status = find_product(&desc, kind_with(type), rows, outputs, inputs, w);
    if (status == dnnl_success) {
        const size_t need = dnnl_memory_desc_get_size(part_of(desc, dnnl_query_scratchpad_md));
        *scratch = need > *scratch ? need : *scratch;
        status = dnnl_primitive_create(&made, desc);
        dnnl_primitive_desc_destroy(desc);
    }
    as_before(threads);
    *product = made;
    return mapped(status);
}

qkv_status qkv_onednn_run(const void *product, const void *x, const void *w, void *y, void *scratch)
{
    const const_dnnl_primitive_t primitive = product;
    const_dnnl_primitive_desc_t desc;
    dnnl_status_t status = dnnl_primitive_get_primitive_desc(primitive, &desc);

    if (status != dnnl_success)
        return mapped(status);
    const argument args[4] = {
        {DNNL_ARG_SRC, part_of(desc, dnnl_query_src_md), (void *)(uintptr_t)x},
        {DNNL_ARG_WEIGHTS, part_of(desc, dnnl_query_weights_md), (void *)(uintptr_t)w},
        {DNNL_ARG_DST, part_of(desc, dnnl_query_dst_md), y},
        {DNNL_ARG_SCRATCHPAD, part_of(desc, dnnl_query_scratchpad_md), scratch}};
    const int threads = one_thread();
    status = execute(primitive, args, 4);
    as_before(threads);
    return mapped(status);
}

void qkv_onednn_product_end(void *product)
{
    if (product)
        dnnl_primitive_destroy(product);
}
