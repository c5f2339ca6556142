/*
 * simd/amx_tiles_real.h - the tile vocabulary as instructions.  Included by amx_tiles.h.
 *
 * Written as assembly and not with the compiler's intrinsics: those of gcc 12 say of a tile load that
 * it reads no memory, and of a configuration load that it reads 8 bytes, so the stores that fill that
 * memory may be moved behind them.  "memory" forbids it.
 *
 * t_release gives the tile registers back.  A kernel does so before it returns: a thread with live
 * tiles has 8 KB more to save whenever it is switched.
 */
#if !defined(__x86_64__)
#error "AMX is an instruction set of x86-64"
#endif

typedef struct tile_file {
    char none; /* the tiles are registers */
} tile_file;

static inline void t_configure(tile_file *file, const tile_config *config)
{
    (void)file;
    __asm__ volatile("ldtilecfg %0" ::"m"(*config) : "memory");
}

static inline void t_release(tile_file *file)
{
    (void)file;
    __asm__ volatile("tilerelease" ::: "memory");
}

/* The number of a tile is text of the instruction; the step in between lets a macro stand for it. */
#define TILE_MOVE_(file, p, stride, text)                                                          \
    do {                                                                                           \
        (void)(file);                                                                              \
        __asm__ volatile(text ::"r"(p), "r"((int64_t)(stride)) : "memory");                        \
    } while (0)
#define TILE_LOAD_(name, file, t, p, stride)                                                       \
    TILE_MOVE_(file, p, stride, "{" name "\t(%0,%1,1), %%tmm" #t "|" name "\ttmm" #t ", [%0+%1]}")
#define TILE_STORE_(name, file, t, p, stride)                                                      \
    TILE_MOVE_(file, p, stride, "{" name "\t%%tmm" #t ", (%0,%1,1)|" name "\t[%0+%1], tmm" #t "}")
#define TILE_DO_(file, text)                                                                       \
    do {                                                                                           \
        (void)(file);                                                                              \
        __asm__ volatile(text ::);                                                                 \
    } while (0)
#define TILE_ZERO_(file, t) TILE_DO_(file, "{tilezero\t%%tmm" #t "|tilezero\ttmm" #t "}")
#define TILE_DOT_(name, file, c, a, b)                                                             \
    TILE_DO_(file, "{" name "\t%%tmm" #b ", %%tmm" #a ", %%tmm" #c "|" name "\ttmm" #c ", tmm" #a      \
                   ", tmm" #b "}")

#define t_zero(file, t) TILE_ZERO_(file, t)
#define t_load(file, t, p, stride) TILE_LOAD_("tileloadd", file, t, p, stride)
#define t_load_once(file, t, p, stride) TILE_LOAD_("tileloaddt1", file, t, p, stride)
#define t_store(file, t, p, stride) TILE_STORE_("tilestored", file, t, p, stride)
#define t_dot_bf16(file, c, a, b) TILE_DOT_("tdpbf16ps", file, c, a, b)
#define t_dot_i8(file, c, a, b) TILE_DOT_("tdpbssd", file, c, a, b)
#define t_dot_i8u8(file, c, a, b) TILE_DOT_("tdpbsud", file, c, a, b)
#define t_dot_u8i8(file, c, a, b) TILE_DOT_("tdpbusd", file, c, a, b)
#define t_dot_u8(file, c, a, b) TILE_DOT_("tdpbuud", file, c, a, b)
