/* load.c - see load.h. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int ends_with(const char *text, size_t n, const char *end)
{
    const size_t m = strlen(end);
    return n > m && memcmp(text + n - m, end, m) == 0;
}

cli_format cli_format_of(const char *path)
{
    const size_t n = strlen(path);
    if (ends_with(path, n, ".npy"))
        return CLI_NPY;
    return ends_with(path, n, ".safetensors") ? CLI_SAFETENSORS : CLI_OTHER;
}

static int is_integer_input(cli_input input) { return input >= CLI_Q_LENS; }

/* ---- one tensor --------------------------------------------------------------------------- */

/* name NULL: the tensor called as the input, or the only one of the file. */
static int load_from_safetensors(const char *path, const char *name, cli_input input,
                                 qkv_tensor *tensor)
{
    char text[CLI_TEXT];
    qkv_safetensors *file;
    if (qkv_safetensors_open(path, &file, text, sizeof text) != QKV_OK)
        return cli_complain("--%s: %s", cli_input_option(input), text);
    qkv_safetensors_entry only;
    if (name == NULL && qkv_safetensors_count(file) == 1 &&
        qkv_safetensors_entry_at(file, 0, &only) == QKV_OK)
        name = only.name;
    const qkv_status status = qkv_safetensors_read(
        file, name != NULL ? name : cli_input_tensor(input), tensor, text, sizeof text);
    qkv_safetensors_close(file);
    return status == QKV_OK ? CLI_DONE : cli_complain("--%s: %s", cli_input_option(input), text);
}

/* "file.npy", "file.safetensors" or "file.safetensors:name". */
static int load_tensor(const char *spec, cli_input input, qkv_tensor *tensor)
{
    char text[CLI_TEXT];
    switch (cli_format_of(spec)) {
    case CLI_NPY:
        if (qkv_npy_read(spec, tensor, text, sizeof text) != QKV_OK)
            return cli_complain("--%s: %s", cli_input_option(input), text);
        return CLI_DONE;
    case CLI_SAFETENSORS:
        return load_from_safetensors(spec, NULL, input, tensor);
    default:
        break;
    }
    const char *colon = strstr(spec, ".safetensors:");
    if (colon == NULL)
        return cli_complain("--%s is %s; accepted are files ending in .npy or .safetensors, and "
                            "file.safetensors:name%s",
                            cli_input_option(input), spec,
                            is_integer_input(input) ? ", and whole numbers with commas between"
                                                    : "");
    char *path = strndup(spec, (size_t)(colon - spec) + strlen(".safetensors"));
    if (path == NULL)
        return cli_complain_memory("a path", strlen(spec));
    const int code = load_from_safetensors(path, colon + strlen(".safetensors:"), input, tensor);
    free(path);
    return code;
}

/* ---- whole numbers ------------------------------------------------------------------------ */

static int is_number_list(const char *spec)
{
    return *spec != '\0' && strspn(spec, "-0123456789,") == strlen(spec);
}

/* "5,7" to a tensor [2], "5" to one of rank 0. */
static int parse_numbers(const char *spec, cli_input input, qkv_tensor *tensor)
{
    int64_t n = 1;
    for (const char *p = spec; *p != '\0'; p++)
        n += *p == ',';
    if (qkv_tensor_alloc(tensor, QKV_I64, n > 1, &n) != QKV_OK)
        return cli_complain_memory(cli_input_option(input), (size_t)n * 8);
    const char *p = spec;
    for (int64_t i = 0; i < n; i++) {
        char *end;
        errno = 0;
        ((int64_t *)tensor->data)[i] = strtoll(p, &end, 10);
        if (end == p || errno != 0 || *end != (i + 1 < n ? ',' : '\0'))
            return cli_complain(
                "--%s is %s; accepted are whole numbers with commas between, or a file",
                cli_input_option(input), spec);
        p = end + 1;
    }
    return CLI_DONE;
}

static int widen_to_i64(cli_input input, qkv_tensor *tensor)
{
    if (tensor->type == QKV_I64)
        return CLI_DONE;
    if (tensor->type != QKV_I32)
        return cli_complain("%s has type %s; accepted are i32 and i64", cli_input_tensor(input),
                            qkv_type_name((qkv_type)tensor->type));
    qkv_tensor wide;
    if (qkv_tensor_alloc(&wide, QKV_I64, tensor->rank, tensor->shape) != QKV_OK)
        return cli_complain_memory(cli_input_option(input), qkv_tensor_bytes(tensor) * 2);
    const int64_t n = qkv_tensor_elements(tensor);
    for (int64_t i = 0; i < n; i++)
        ((int64_t *)wide.data)[i] = ((const int32_t *)tensor->data)[i];
    qkv_tensor_free(tensor);
    *tensor = wide;
    return CLI_DONE;
}

/* ---- everything --------------------------------------------------------------------------- */

/* Takes from --in what no option of its own names. */
static int load_collection(const cli_options *options, qkv_tensor *tensors)
{
    char text[CLI_TEXT];
    qkv_safetensors *file;
    if (cli_format_of(options->in) != CLI_SAFETENSORS)
        return cli_complain("--in is %s; accepted is a file ending in .safetensors", options->in);
    if (qkv_safetensors_open(options->in, &file, text, sizeof text) != QKV_OK)
        return cli_complain("--in: %s", text);
    int code = CLI_DONE;
    const int64_t n = qkv_safetensors_count(file);
    for (int64_t t = 0; t < n && code == CLI_DONE; t++) {
        qkv_safetensors_entry entry;
        if (qkv_safetensors_entry_at(file, t, &entry) != QKV_OK)
            continue;
        for (int i = 0; i < CLI_N_INPUTS && code == CLI_DONE; i++) {
            if (options->input[i] != NULL ||
                strcmp(entry.name, cli_input_tensor((cli_input)i)) != 0)
                continue;
            if (qkv_safetensors_read(file, entry.name, &tensors[i], text, sizeof text) != QKV_OK)
                code = cli_complain("--in: %s", text);
        }
    }
    qkv_safetensors_close(file);
    return code;
}

int cli_load_inputs(const cli_options *options, qkv_tensor tensors[CLI_N_INPUTS])
{
    memset(tensors, 0, CLI_N_INPUTS * sizeof *tensors);
    int code = options->in != NULL ? load_collection(options, tensors) : CLI_DONE;
    for (int i = 0; i < CLI_N_INPUTS && code == CLI_DONE; i++) {
        const cli_input input = (cli_input)i;
        const char *spec = options->input[i];
        if (spec != NULL)
            code = is_integer_input(input) && is_number_list(spec)
                       ? parse_numbers(spec, input, &tensors[i])
                       : load_tensor(spec, input, &tensors[i]);
        if (code == CLI_DONE && is_integer_input(input) && tensors[i].type != QKV_NONE)
            code = widen_to_i64(input, &tensors[i]);
    }
    return code;
}

/* ---- words -------------------------------------------------------------------------------- */

static int read_text(const char *path, char **text)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return cli_complain("%s: cannot open: %s", path, strerror(errno));
    size_t used = 0, room = 4096;
    char *buffer = malloc(room);
    while (buffer != NULL) {
        used += fread(buffer + used, 1, room - used - 1, file);
        if (used + 1 < room)
            break;
        char *larger = realloc(buffer, room *= 2);
        if (larger == NULL)
            free(buffer);
        buffer = larger;
    }
    const int failed = ferror(file);
    fclose(file);
    if (buffer == NULL)
        return cli_complain_memory(path, room);
    if (failed) {
        free(buffer);
        return cli_complain("%s: cannot read", path);
    }
    buffer[used] = '\0';
    *text = buffer;
    return CLI_DONE;
}

int cli_load_words(const char *path, char **text, char ***words, int64_t *n)
{
    const int code = read_text(path, text);
    if (code != CLI_DONE)
        return code;
    int64_t lines = 1;
    for (const char *p = *text; *p != '\0'; p++)
        lines += *p == '\n';
    *words = calloc((size_t)lines, sizeof **words);
    if (*words == NULL)
        return cli_complain_memory(path, (size_t)lines * sizeof **words);
    *n = 0;
    for (char *p = *text; p != NULL && *p != '\0';) {
        char *end = strchr(p, '\n');
        if (end != NULL)
            *end++ = '\0';
        p[strcspn(p, "\r")] = '\0';
        (*words)[(*n)++] = p;
        p = end;
    }
    return CLI_DONE;
}
