/*
 * tmpl/tile_work_tmpl.h - products on tiles, in steps that fit between other work.
 *
 * A product is cut into groups of up to 2 tiles of A by 2 of B, whose 4 tiles of C stay in registers
 * while the group's steps go by: 4 loads for 4 multiplications, and a load takes half as long as
 * a multiplication.  Eight tiles are all there are; 4 chains cover the latency of 52 cycles at one
 * multiplication in 16.
 *
 * The tile unit runs beside the vector unit, but only on what the core has issued.  One call of
 * work_step issues one step of a group, 64 cycles of the tile unit; the softmax of another sub-tile
 * calls it every so many rows (attend_tiles_tmpl.h).
 *
 * Values are summed from zero for a block of keys and then join what earlier blocks gave by one
 * vector FMA, which carries the rescaling.  That pass is put off until the next group is issued,
 * because vector loads right behind a tile store would wait for the tile unit.
 *
 * Parameters: PARTS.  Needs amx_tiles.h, the operands_tiles and layout templates.
 */
enum {
    COMBOS = PARTS == 1 ? 1 : 3,          /* of parts: high low, low high, high high */
    SUM_REALS = 2 * TILE_SIDE * MAX_WIDTH /* C of a group of values */
};

/* One matrix product: tiles of A in a column (`sides`), width columns of B. */
typedef struct tile_product {
    const char *a;
    int64_t a_row, a_side, a_step, a_low; /* bytes to the next row, tile, step; to the low part */
    const real *b;
    int64_t b_row, b_step, b_low; /* numbers, likewise */
    int sides, steps;
    const tile_map *t;
    int values; /* C joins t->ot; else it is t->s */
} tile_product;

typedef struct tile_work {
    tile_file *file;
    tile_product product[2];
    int n, now;             /* products, the one under way */
    int side, step;         /* where it is */
    real *sums[2];          /* C of the group of values under way and of the one before */
    const tile_map *adding; /* whose sums wait to be added, from channel add_from on; NULL: nobody's */
    int add_from;
} tile_work;

/* Steps not yet issued. */
static int work_left(const tile_work *w)
{
    int left = -w->side / 2 * (w->now < w->n ? w->product[w->now].steps * COMBOS : 0) - w->step;
    for (int i = w->now; i < w->n; i++)
        left += (w->product[i].sides + 1) / 2 * w->product[i].steps * COMBOS;
    return left;
}

/* The sums of the group before join the state: o = a o + sum. */
static void add_sums(tile_work *w)
{
    const tile_map *t = w->adding;
    const real *sum = w->sums[1];

    if (!t)
        return;
    w->adding = NULL;
    const int end = t->dv < w->add_from + 2 * TILE_SIDE ? t->dv : w->add_from + 2 * TILE_SIDE;
    for (int c = w->add_from; c < end; c++, sum += t->width)
        for (int i = 0; i < t->width; i += VL) {
            real *o = t->ot + (int64_t)c * t->width + i;
            v_store(o, v_fma(v_load(t->rescale + i), v_load(o), v_load(sum + i)));
        }
}

/* One step of a group: tiles 4 and 5 are A, 6 and 7 are B, 0 .. 3 are C. */
INLINE void multiply_step(tile_file *file, const tile_product *p, const char *a, const real *b,
                          int two_a, int two_b)
{
    const int64_t b_row = p->b_row * (int64_t)sizeof(real);

    t_load(file, 4, a, p->a_row);
    t_load(file, 6, b, b_row);
    t_dot_bf16(file, 0, 4, 6);
    if (two_b) {
        t_load(file, 7, b + TILE_SIDE, b_row);
        t_dot_bf16(file, 1, 4, 7);
    }
    if (two_a) {
        t_load(file, 5, a + p->a_side, p->a_row);
        t_dot_bf16(file, 2, 5, 6);
    }
    if (two_a && two_b)
        t_dot_bf16(file, 3, 5, 7);
}

INLINE void store_group(tile_file *file, real *c, int width, int two_a, int two_b)
{
    const int64_t row = width * (int64_t)sizeof(real);

    t_store(file, 0, c, row);
    if (two_b)
        t_store(file, 1, c + TILE_SIDE, row);
    if (two_a)
        t_store(file, 2, c + TILE_SIDE * width, row);
    if (two_a && two_b)
        t_store(file, 3, c + TILE_SIDE * width + TILE_SIDE, row);
}

/* Behind the last step of a group. */
INLINE void end_group(tile_work *w, const tile_product *p, int two_a, int two_b)
{
    const tile_map *t = p->t;

    store_group(w->file, p->values ? w->sums[0] : t->s + w->side * TILE_SIDE * t->width, t->width,
                two_a, two_b);
    add_sums(w);
    if (p->values) {
        real *last = w->sums[0];
        w->sums[0] = w->sums[1];
        w->sums[1] = last;
        w->adding = t;
        w->add_from = w->side * TILE_SIDE;
    }
    w->step = 0;
    w->side += 2;
    if (w->side >= p->sides) {
        w->side = 0;
        w->now++;
    }
}

/* Issues the next step, if there is one. */
INLINE void work_step(tile_work *w)
{
    if (w->now == w->n)
        return;
    const tile_product *p = &w->product[w->now];
    const int two_a = w->side + 1 < p->sides, two_b = p->t->width > TILE_SIDE;
    const int combo = COMBOS == 1 ? 0 : w->step / p->steps, step = w->step - combo * p->steps;
    const char *a = p->a + w->side * p->a_side + step * p->a_step;
    const real *b = p->b + step * p->b_step;

    if (COMBOS == 3) { /* the large product last */
        a += combo == 1 ? p->a_low : 0;
        b += combo == 0 ? p->b_low : 0;
    }

    if (w->step == 0) {
        t_zero(w->file, 0);
        t_zero(w->file, 1);
        t_zero(w->file, 2);
        t_zero(w->file, 3);
    }
    multiply_step(w->file, p, a, b, two_a, two_b);
    if (++w->step == p->steps * COMBOS)
        end_group(w, p, two_a, two_b);
}

/* Everything that is left. */
static void finish_work(tile_work *w)
{
    while (w->now < w->n)
        work_step(w);
    add_sums(w);
}
