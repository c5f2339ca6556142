/*
 * qkv/io.h - tensors in files (.npy and .safetensors), checkpoints of models, and saved caches.
 * Part of libqkv_model.
 *
 * Readers trust nothing: every size is checked before it is used, and a file that lies about
 * itself is refused with a sentence.  Writers write a temporary file beside the target and
 * rename it when it is complete, so a full disk or a crash leaves the old file or none.
 */
#ifndef QKV_IO_H
#define QKV_IO_H

#include "qkv/base.h"
#include "qkv/cache.h"
#include "qkv/model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QKV_MAX_RANK 8

/* A dense tensor in memory, C order, native byte order.  data is NULL only if it has no elements. */
typedef struct qkv_tensor {
    int32_t type; /* qkv_type */
    int32_t rank; /* 0 .. QKV_MAX_RANK */
    int64_t shape[QKV_MAX_RANK];
    void *data;   /* aligned to 64 bytes; owned: free with qkv_tensor_free */
} qkv_tensor;

/* Elements and bytes of a tensor. */
QKV_API int64_t qkv_tensor_elements(const qkv_tensor *tensor);
QKV_API size_t qkv_tensor_bytes(const qkv_tensor *tensor);

/* A tensor of zeros.  QKV_ERR_ARGUMENT for a bad type, rank or shape, QKV_ERR_MEMORY. */
QKV_API qkv_status qkv_tensor_alloc(qkv_tensor *tensor, qkv_type type, int32_t rank,
                                    const int64_t *shape);

/* Frees data and leaves an empty tensor.  Harmless on an empty or zeroed one. */
QKV_API void qkv_tensor_free(qkv_tensor *tensor);

/*
 * qkv_npy_read, qkv_npy_write - one tensor in a NumPy .npy file (format versions 1, 2, 3).
 *
 * Reads f8, f4, f2, b1, u1 (as bool), i4, i8 of either byte order and C or Fortran order, and
 * V2 (what NumPy writes for ml_dtypes.bfloat16) as bf16; writes version 1 (bf16 as V2).  text receives a
 * sentence on failure, with the path in it; it may be NULL if bytes is 0.
 *
 * Returns QKV_OK; QKV_ERR_SYSTEM (cannot open, read, write, rename); QKV_ERR_FORMAT;
 * QKV_ERR_UNSUPPORTED (a dtype that attention has no use for); QKV_ERR_MEMORY; QKV_ERR_ARGUMENT.
 */
QKV_API qkv_status qkv_npy_read(const char *path, qkv_tensor *tensor, char *text, size_t bytes);
QKV_API qkv_status qkv_npy_write(const char *path, const qkv_tensor *tensor, char *text,
                                 size_t bytes);

/* A .safetensors file, memory mapped.  Header rules are those of the format's specification:
 * offsets contiguous and within the file, sizes that match shapes, no duplicate names. */
typedef struct qkv_safetensors qkv_safetensors;

QKV_API qkv_status qkv_safetensors_open(const char *path, qkv_safetensors **file, char *text,
                                        size_t bytes);
QKV_API void qkv_safetensors_close(qkv_safetensors *file);
QKV_API int64_t qkv_safetensors_count(const qkv_safetensors *file);

/* Tensor i, in the order of the data.  name and data point into the mapping and live as long as
 * the file is open; data may be misaligned.  dtype is the file's own word ("F32", "F8_E4M3");
 * type is QKV_NONE if it is none of ours. */
typedef struct qkv_safetensors_entry {
    const char *name;
    const char *dtype;
    int32_t type;
    int32_t rank;
    int64_t shape[QKV_MAX_RANK];
    const void *data;
    size_t bytes;
} qkv_safetensors_entry;

QKV_API qkv_status qkv_safetensors_entry_at(const qkv_safetensors *file, int64_t index,
                                            qkv_safetensors_entry *entry);

/* Copy the tensor of that name into memory.  QKV_ERR_ARGUMENT and the names there are (the first
 * few) if there is none. */
QKV_API qkv_status qkv_safetensors_read(const qkv_safetensors *file, const char *name,
                                        qkv_tensor *tensor, char *text, size_t bytes);

/* Write n tensors under their names.  Atomic as above. */
QKV_API qkv_status qkv_safetensors_write(const char *path, int32_t n, const char *const *names,
                                         const qkv_tensor *tensors, char *text, size_t bytes);

/* Write bytes to path the same atomic way, for other kinds of file. */
QKV_API qkv_status qkv_file_write(const char *path, const void *data, size_t data_bytes,
                                  char *text, size_t bytes);

/*
 * qkv_config_open, qkv_config_parse - a config.json as the source that qkv_model_read asks.
 *
 * path is that of a file, or of a folder with a config.json; name stands in sentences instead of a
 * path.  Strict: duplicate keys, NaN and infinity, numbers outside of int64 and double, more than
 * 4 MiB, 4096 keys a table or 32 levels are refused.
 *
 * Returns QKV_OK; QKV_ERR_SYSTEM; QKV_ERR_FORMAT; QKV_ERR_MEMORY; QKV_ERR_ARGUMENT.  Answers are
 * thread-safe, and texts live until the file is closed.
 */
typedef struct qkv_config_file qkv_config_file;

QKV_API qkv_status qkv_config_open(const char *path, qkv_config_file **file, char *text,
                                   size_t bytes);
QKV_API qkv_status qkv_config_parse(const char *name, const void *data, size_t data_bytes,
                                    qkv_config_file **file, char *text, size_t bytes);
QKV_API void qkv_config_close(qkv_config_file *file);
QKV_API qkv_config qkv_config_of(const qkv_config_file *file);
QKV_API const char *qkv_config_path(const qkv_config_file *file);

/*
 * qkv_checkpoint_open - a folder with config.json and model.safetensors, or several files and
 * model.safetensors.index.json.  All are mapped, each once; names in the index that lead out of the
 * folder are refused.
 *
 * Returns QKV_OK; QKV_ERR_SYSTEM; QKV_ERR_FORMAT; QKV_ERR_UNSUPPORTED; QKV_ERR_MEMORY;
 * QKV_ERR_ARGUMENT.  What is asked of an open checkpoint is thread-safe.
 */
typedef struct qkv_checkpoint qkv_checkpoint;

QKV_API qkv_status qkv_checkpoint_open(const char *directory, qkv_checkpoint **checkpoint,
                                       char *text, size_t bytes);
QKV_API void qkv_checkpoint_close(qkv_checkpoint *checkpoint);
QKV_API qkv_config qkv_checkpoint_config(const qkv_checkpoint *checkpoint);

/* A tensor by its name, in place.  QKV_ERR_ARGUMENT if there is none of this name; QKV_ERR_FORMAT
 * if the index names a file that does not have it. */
QKV_API qkv_status qkv_checkpoint_tensor(const qkv_checkpoint *checkpoint, const char *name,
                                         qkv_safetensors_entry *entry, char *text, size_t bytes);

/*
 * The tensor of a weight (qkv_model_weight) and of its bias, under the first of its names that is
 * there; a bias that it does not have has no data.  Types are f64, f32, f16 or bf16 and shapes are
 * those that the weight says.
 *
 * Returns QKV_OK; QKV_ERR_FORMAT (no such tensor, another shape); QKV_ERR_UNSUPPORTED (another
 * type); QKV_ERR_ARGUMENT.
 */
QKV_API qkv_status qkv_checkpoint_weight(const qkv_checkpoint *checkpoint, const qkv_weight *weight,
                                         qkv_safetensors_entry *entry, qkv_safetensors_entry *bias,
                                         char *text, size_t bytes);

/*
 * Saved caches as files: qkv_cache_save, qkv_cache_load and qkv_cache_inspect with a path, which is
 * in every sentence.  Writing is atomic as above.  A file that is shorter or longer than its header
 * says is refused before anything is loaded: QKV_ERR_FORMAT.
 */
QKV_API qkv_status qkv_cache_save_file(qkv_cache *cache, int32_t n, const int32_t *seqs,
                                       const char *path, char *text, size_t bytes);
QKV_API qkv_status qkv_cache_load_file(qkv_cache *cache, const char *path, int32_t max_seqs,
                                       int32_t *seqs, int32_t *n, char *text, size_t bytes);
QKV_API qkv_status qkv_cache_inspect_file_sized(const char *path, qkv_cache_file_info *info,
                                                size_t struct_size, char *text, size_t bytes);
static inline qkv_status qkv_cache_inspect_file(const char *path, qkv_cache_file_info *info,
                                                char *text, size_t bytes)
{
    return qkv_cache_inspect_file_sized(path, info, sizeof *info, text, bytes);
}

#ifdef __cplusplus
}
#endif
#endif /* QKV_IO_H */
