/*
 * tmpl/selected_tiles_tmpl.h - values that are NaN or infinity where some lanes must not see them.
 *
 * A tile product cannot leave out a value for some of its lanes.  So it is taken with 0 in place of what is
 * not finite, in the usual order: lanes that see nothing else get the bits they get anyway, since their
 * weights for hidden keys are 0.  The others then add weight times value, which is all that infinity or NaN
 * leave of a sum.
 *
 * Parameters: PARTS.  Needs the operands_tiles, mask and tile_work templates.
 */
enum {
    TILE_REALS = TILE_SIDE * STEP / 2,
    GROUP_REALS = 2 * TILE_REALS, /* of one part: the two tiles of A that a group multiplies */
    STEPS_A_BLOCK = BLOCK / STEP
};

/* Up to two tiles of each step from channel 16 side on; a number stays or goes in all of its parts. */
static void copy_finite(real *to, const real *v, int dv, int side, int sides, int steps)
{
    const int part = value_step_reals(dv) / PARTS;
    const size_t bytes = (size_t)sides * TILE_REALS * sizeof *to;

    for (int i = 0; i < steps; i++, to += PARTS * GROUP_REALS, v += PARTS * part) {
        uint16_t x[PARTS][2 * GROUP_REALS];
        for (int k = 0; k < PARTS; k++)
            memcpy(x[k], v + k * part + side * TILE_REALS, bytes);
        for (int n = 0; n < sides * TILE_REALS * 2; n++) {
            int odd = 0;
            for (int k = 0; k < PARTS; k++)
                odd |= (x[k][n] & 0x7f80) == 0x7f80;
            for (int k = 0; k < PARTS; k++)
                x[k][n] = odd ? 0 : x[k][n];
        }
        for (int k = 0; k < PARTS; k++)
            memcpy(to + k * GROUP_REALS, x[k], bytes);
    }
}

/* What products with infinity or NaN read of a weight: its first part, and 0 if that is subnormal. */
static vf first_weights(const tile_map *t, int r, int z)
{
    const vf pair = v_load(t->s + r / 2 * PARTS * t->width + z * VL);
    const vf w = r % 2 ? v_pair_high(pair) : v_pair_low(pair);
    return v_select(v_le(v_set1(0x1p-126f), w), w, v_zero());
}

static void add_odd_values(const tile_map *t, const block_view *b, const real *v)
{
    for (int r = 0; r < b->n; r++)
        for (int c = 0; c < t->dv; c++) {
            const real x = value_of(v, value_step_reals(t->dv), r, c);
            for (int z = 0; !(x - x == 0) && z < t->vectors; z++) {
                real *o = t->ot + (int64_t)c * t->width + z * VL;
                const vf sum = v_fma(v_set1(x), first_weights(t, r, z), v_load(o));
                v_store(o, v_select(visible(t, b, r, z), sum, v_load(o)));
            }
        }
}

/* The values from v on for the weights of a view, at once.  No other work may be under way. */
static void values_selected(tile_work *w, const tile_map *t, const block_view *b, const real *v)
{
    _Alignas(64) real finite[STEPS_A_BLOCK * PARTS * GROUP_REALS];
    const int steps = steps_of(b->n);

    for (int side = 0, sides; side < sides_of(t->dv); side += sides) {
        tile_map part = *t; /* two tiles of channels */
        part.ot += side * TILE_SIDE * t->width;
        part.dv -= side * TILE_SIDE;
        sides = sides_of(part.dv) < 2 ? 1 : 2;
        copy_finite(finite, v, t->dv, side, sides, steps);
        w->product[0] = (tile_product){
            .a = (const char *)finite,
            .a_row = TILE_BYTES,
            .a_side = TILE_SIDE * TILE_BYTES,
            .a_step = PARTS * GROUP_REALS * sizeof(real),
            .a_low = GROUP_REALS * sizeof(real),
            .b = t->s,
            .b_row = PARTS * t->width,
            .b_step = TILE_SIDE * PARTS * t->width,
            .b_low = t->width,
            .sides = sides,
            .steps = steps,
            .t = &part,
            .values = 1,
        };
        w->n = 1;
        finish_work(w);
        w->n = w->now = 0;
    }
    add_odd_values(t, b, v);
}
