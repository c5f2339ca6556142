/* tensor.c - Python arrays as pointer, type, shape and strides.
 *
 * NumPy arrays and other buffers come through the buffer protocol, everything else through
 * DLPack.  NumPy cannot export the dtypes of ml_dtypes: they come as views of unsigned integers. */
#include <string.h>

#include "binding.h"

/* Where a tensor without elements points. */
static _Alignas(64) char no_elements[64];

const char *qkvpy_shape_text(char text[256], const int64_t *shape, int32_t rank)
{
    int at = snprintf(text, 256, "(");
    for (int i = 0; i < rank; i++)
        at += snprintf(text + at, (size_t)(256 - at), i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(text + at, (size_t)(256 - at), rank == 1 ? ",)" : ")");
    return text;
}

static int32_t type_of_format(const char *format, Py_ssize_t size)
{
    if (format != NULL && *format && strchr(PY_LITTLE_ENDIAN ? "@=^<" : "@=^>!", *format))
        format++;
    if (format == NULL || !*format || format[1])
        return QKV_NONE;
    switch (*format) {
    case 'd': return QKV_F64;
    case 'f': return QKV_F32;
    case 'e': return QKV_F16;
    case '?': return QKV_BOOL;
    case 'b': return QKV_I8;
    case 'B': return QKV_U4;
    case 'i': case 'l': case 'q': return size == 4 ? QKV_I32 : QKV_I64;
    default: return QKV_NONE;
    }
}

static int32_t type_of_dlpack(dl_dtype d)
{
    if (d.lanes != 1)
        return QKV_NONE;
    if (d.code == DL_FLOAT)
        return d.bits == 64 ? QKV_F64 : d.bits == 32 ? QKV_F32 : d.bits == 16 ? QKV_F16 : QKV_NONE;
    if (d.code == DL_BFLOAT)
        return d.bits == 16 ? QKV_BF16 : QKV_NONE;
    if (d.bits == 8 && (d.code == DL_INT || d.code == DL_UINT))
        return d.code == DL_INT ? QKV_I8 : QKV_U4;
    if (d.bits == 8 && (d.code == DL_E4M3FN || d.code == DL_E5M2))
        return d.code == DL_E4M3FN ? QKV_E4M3 : QKV_E5M2;
    return d.code == DL_BOOL && d.bits == 8 ? QKV_BOOL : QKV_NONE;
}

static int refuse_rank(const tensor *t)
{
    PyErr_Format(PyExc_ValueError, "%s has %d axes; at most 4 are accepted", t->name, (int)t->rank);
    return -1;
}

/* The buffer of an array of ml_dtypes, and its type. */
static int open_bits(tensor *t, PyObject *obj, int kind, int32_t *type)
{
    PyObject *whole = PyObject_CallMethod(qkvpy_arrays, "bits", "Osi", obj, t->name, kind), *view;
    int status = -1;
    if (whole != NULL && PyArg_ParseTuple(whole, "Oi", &view, type))
        status = PyObject_GetBuffer(view, &t->buffer, PyBUF_STRIDES);
    Py_XDECREF(whole);
    return status;
}

/* Strides are in bytes until settle(). */
static int open_buffer(tensor *t, PyObject *obj, int kind)
{
    int32_t type = QKV_NONE;
    if (PyObject_GetBuffer(obj, &t->buffer, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        if (open_bits(t, obj, kind, &type) < 0)
            return -1;
    }
    const Py_buffer *b = &t->buffer;
    t->data = b->buf;
    t->type = type ? type : type_of_format(b->format, b->itemsize);
    t->rank = b->ndim;
    t->read_only = b->readonly;
    for (int i = 0; i < b->ndim && b->ndim <= MAX_RANK; i++) {
        t->shape[i] = b->shape[i];
        t->stride[i] = b->strides[i];
    }
    return b->ndim <= MAX_RANK ? 0 : refuse_rank(t);
}

static int use_dlpack(tensor *t, const dl_tensor *d)
{
    t->type = type_of_dlpack(d->dtype);
    t->rank = d->ndim;
    t->data = d->data ? (char *)d->data + d->byte_offset : NULL;
    if (d->device.type != DL_CPU) {
        PyErr_Format(PyExc_TypeError, "%s is on DLPack device type %d; qkv computes on the CPU (1)",
                     t->name, (int)d->device.type);
        return -1;
    }
    int64_t dense = 1;
    for (int i = d->ndim - 1; i >= 0 && d->ndim <= MAX_RANK; i--) {
        t->shape[i] = d->shape[i];
        t->stride[i] = (d->strides ? d->strides[i] : dense) * (d->dtype.bits / 8);
        dense *= d->shape[i];
    }
    return d->ndim <= MAX_RANK ? 0 : refuse_rank(t);
}

static int open_dlpack(tensor *t, PyObject *obj)
{
    PyObject *capsule = PyObject_CallMethod(qkvpy_arrays, "capsule", "Os", obj, t->name);
    int status = -1;
    if (capsule != NULL && PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        dl_versioned *m = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        if (m->version.major > DL_MAJOR) {
            PyErr_Format(PyExc_TypeError, "%s speaks DLPack %u; this build understands %d",
                         t->name, m->version.major, DL_MAJOR);
        } else if (PyCapsule_SetName(capsule, "used_dltensor_versioned") == 0) {
            t->versioned = m;
            t->read_only = (m->flags & DL_READ_ONLY) != 0;
            status = use_dlpack(t, &m->tensor);
        }
    } else if (capsule != NULL && PyCapsule_IsValid(capsule, "dltensor")) {
        dl_managed *m = PyCapsule_GetPointer(capsule, "dltensor");
        if (PyCapsule_SetName(capsule, "used_dltensor") == 0) {
            t->managed = m;
            status = use_dlpack(t, &m->tensor);
        }
    } else if (capsule != NULL) {
        PyErr_Format(PyExc_TypeError, "%s.__dlpack__() did not return a DLPack capsule", t->name);
    }
    Py_XDECREF(capsule);
    return status;
}

/* From byte strides to strides in elements; 1 if the elements do not lie as they must. */
static int settle(tensor *t, int how)
{
    const int64_t size = (int64_t)qkv_type_size((qkv_type)t->type);
    int64_t elements = 1, dense = size;
    int misplaced = 0;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] > 1)
            misplaced |= t->stride[i] % size != 0 || ((how & DENSE) && t->stride[i] != dense) ||
                         ((how & (ROWS | WRITE)) && i == t->rank - 1 && t->stride[i] != size);
        dense *= t->shape[i];
        elements *= t->shape[i];
        t->stride[i] /= size;
        /* The stride of an axis with one element means nothing; giving it always the same value
         * lets a plan recognise the layout it was made for. */
        if (t->shape[i] <= 1 && i == t->rank - 1)
            t->stride[i] = 1;
        else if (t->shape[i] <= 1)
            t->stride[i] = t->stride[i + 1] * (t->shape[i + 1] > 1 ? t->shape[i + 1] : 1);
    }
    if (elements == 0)
        t->data = no_elements;
    return elements != 0 && (misplaced || (uintptr_t)t->data % (uintptr_t)size != 0);
}

static int accepts(int kind, int32_t type)
{
    if (kind == FLOATS || kind == KEYS)
        return (type >= QKV_F64 && type <= QKV_BF16) ||
               (kind == KEYS && type >= QKV_I8 && type <= QKV_E5M2);
    return kind == BOOLS ? type == QKV_BOOL : type == QKV_I32 || type == QKV_I64;
}

int qkvpy_tensor_open(tensor *t, PyObject *obj, const char *name, int kind, int how)
{
    t->name = name;
    const int as_buffer =
        PyObject_TypeCheck(obj, qkvpy_ndarray) ||
        (PyObject_CheckBuffer(obj) && !PyObject_HasAttrString(obj, "__dlpack__"));
    int status = as_buffer ? open_buffer(t, obj, kind) : open_dlpack(t, obj);
    if (status == 0 && !accepts(kind, t->type)) {
        Py_XDECREF(PyObject_CallMethod(qkvpy_arrays, "refuse_dtype", "Osi", obj, name, kind));
        status = -1;
    }
    if (status == 0 && (how & WRITE) && t->read_only) {
        PyErr_Format(PyExc_ValueError, "%s is read-only; it cannot be written in place", name);
        status = -1;
    }
    const int misplaced = status == 0 && settle(t, how);
    if (misplaced && (how & WRITE)) {
        PyErr_Format(PyExc_ValueError,
                     "%s cannot be written in place: its last axis must be contiguous and its "
                     "elements aligned", name);
        status = -1;
    }
    if (misplaced || status < 0)
        qkvpy_tensor_close(t);
    if (misplaced && status == 0) {
        /* The copy is well placed, so this does not come here again; the buffer keeps it alive. */
        PyObject *copy = PyObject_CallMethod(qkvpy_arrays, "copy", "Oi", obj, (how & DENSE) != 0);
        status = copy ? qkvpy_tensor_open(t, copy, name, kind, how) : -1;
        Py_XDECREF(copy);
    }
    return status;
}

void qkvpy_tensor_close(tensor *t)
{
    if (t->buffer.obj != NULL)
        PyBuffer_Release(&t->buffer);
    if (t->managed != NULL && t->managed->deleter != NULL)
        t->managed->deleter(t->managed);
    if (t->versioned != NULL && t->versioned->deleter != NULL)
        t->versioned->deleter(t->versioned);
    memset(t, 0, sizeof *t);
}
