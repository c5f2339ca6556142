/*
 * tmpl/attend_tiles_tmpl.h - streaming attention with products on tiles, the softmax between them.
 *
 * The algorithm is that of attend_tmpl.h; this is another order of the same steps.  A job is one
 * sub-tile against one block of keys.  While the vector unit makes weights of the scores of job
 * n, the tile unit multiplies values for job n - 1 and keys for job n + 1:
 *
 *     vector   softmax(n)                         softmax(n + 1)
 *     tile     values(n - 1)  scores(n + 1)       values(n)  scores(n + 2)
 *
 * Two buffers of scores suffice: weights lie over their scores, and the buffer that job n + 1 fills is
 * the one whose weights job n - 1 has just used up.
 *
 * Counted for 128 keys, 32 queries, D = Dv = 128 (cycles, Sapphire Rapids): scores and values 16 groups
 * of 4 tiles x 4 steps x 16 = 2,048 on the tile unit; on the vector unit 256 vectors of weights at about 9
 * = 2,300, sums joining the state 640, and the turning of V 2,700 a block, which 8 sub-tiles
 * share.  One after the other that is 5,300, side by side 3,300: of the peak 38 % and 62 %.
 *
 * Parameters: none.  Needs attend_tmpl.h (begin), scores_tmpl.h, tile_work_tmpl.h and
 * selected_tiles_tmpl.h.
 */
enum { TILE_SUBS = 8, ROWS_A_STEP = 16 /* of the search for the maximum */ };

typedef struct tile_job {
    tile_map t; /* of the sub-tile, with scores and rescale of this job */
    key_block block;
    block_view b;
    int r0, n;       /* its keys in the block */
    int plain;       /* nothing is added to or hidden from its scores */
    const char *k;   /* row r0 of the block */
    int64_t k_step;
    _Alignas(64) real rescale[MAX_WIDTH];
} tile_job;

/* One call of `keys`. */
typedef struct tile_run {
    const qkv_tile *tile;
    const qkv_kv *kv;
    int k_type, v_type;
    int64_t from, end; /* keys */
    int n_subs;
    tile_map maps[TILE_SUBS];
    real *scores[2];
    int64_t j; /* the block and the sub-tile to look at next */
    int sub;
    int64_t k_block, v_block; /* blocks whose operands are ready; -1: none */
    const char *k;
    int64_t k_step;
    int finite; /* the values of v_block; -1: nobody has looked */
} tile_run;

static int looks_at_raw(const qkv_shape *shape)
{
    return shape->stage == QKV_STAGE_SCORES || shape->stage == QKV_STAGE_CAPPED;
}

static int is_plain(const qkv_shape *shape, const block_view *b)
{
    return shape->stage < 0 && !(shape->softcap > 0) && !shape->has_slopes && !b->added &&
           !b->hidden;
}

/* The keys of the block that the sub-tile's ranges show, in whole steps: what they do not show is
 * hidden by selection, what is not looked at could not be. */
static int trim_keys(const tile_map *t, const key_block *b, int *r0)
{
    const int64_t lo = clamp(t->all.first_lo - b->j0, 0, b->n) / KEY_UNIT * KEY_UNIT;
    const int64_t end = clamp(t->all.last_hi + 1 - b->j0, 0, b->n) + KEY_UNIT - 1;
    *r0 = (int)lo;
    return (int)(clamp(end / KEY_UNIT * KEY_UNIT, 0, b->n) - lo);
}

/* What the sub-tile sees of its part of the block; the arrays behind it are shared by all. */
static void view_job(const tile_run *run, tile_job *job)
{
    const qkv_shape *shape = run->tile->shape;

    job->b = view_block(run->tile, &job->t, job->block.j0 + job->r0, job->n);
    job->b.extra = looks_at_raw(shape) ? (int)(job->block.from - job->block.j0) : 0;
    job->plain = is_plain(shape, &job->b);
}

static void need_tile_keys(tile_run *run, tile_job *job)
{
    if (run->k_block != job->block.j0)
        run->k = key_operands(run->tile->shape, job->t.kw, run->kv, run->k_type, &job->block,
                              &run->k_step);
    run->k_block = job->block.j0;
    job->k = run->k + job->r0 * run->k_step;
    job->k_step = run->k_step;
}

/* The next sub-tile and block that have something to do with each other; 0 at the end. */
static int next_job(tile_run *run, tile_job *job, int parity)
{
    const qkv_shape *shape = run->tile->shape;
    const int raw = looks_at_raw(shape);

    for (; run->j < run->end; run->j = block_end(run->j, run->end), run->sub = 0)
        while (run->sub < run->n_subs) {
            job->t = run->maps[run->sub++];
            job->t.s = run->scores[parity];
            job->t.rescale = job->rescale;
            job->block.j0 = run->j;
            job->block.from = run->j > run->from ? run->j : run->from;
            job->block.n = (int)(block_end(run->j, run->end) - run->j);
            job->r0 = 0;
            job->n = raw ? job->block.n : trim_keys(&job->t, &job->block, &job->r0);
            if (job->n <= 0)
                continue;
            view_job(run, job);
            if (!job->b.any && !raw)
                continue;
            need_tile_keys(run, job);
            return 1;
        }
    return 0;
}

static void add_scores_product(tile_work *w, const tile_job *job)
{
    const tile_map *t = &job->t;
    const int steps = steps_of(t->d);

    w->product[w->n++] = (tile_product){
        .a = job->k,
        .a_row = job->k_step,
        .a_side = TILE_SIDE * job->k_step,
        .a_step = TILE_BYTES,
        .a_low = steps * TILE_BYTES,
        .b = t->qt,
        .b_row = t->width,
        .b_step = TILE_SIDE * t->width,
        .b_low = steps * TILE_SIDE * t->width,
        .sides = sides_of(job->n),
        .steps = steps,
        .t = t,
    };
}

static void add_values_product(tile_work *w, const tile_job *job)
{
    const tile_map *t = &job->t;
    const int reals = value_step_reals(t->dv);

    w->product[w->n++] = (tile_product){
        .a = (const char *)(t->vw + job->r0 / STEP * reals),
        .a_row = TILE_BYTES,
        .a_side = TILE_SIDE * TILE_BYTES,
        .a_step = reals * (int64_t)sizeof(real),
        .a_low = reals / PARTS * (int64_t)sizeof(real),
        .b = t->s,
        .b_row = PARTS * t->width,
        .b_step = TILE_SIDE * PARTS * t->width,
        .b_low = t->width,
        .sides = sides_of(t->dv),
        .steps = steps_of(job->n),
        .t = t,
        .values = 1,
    };
}

/* Values for the weights of a job; at once where NaN or infinity may not meet hidden keys.  What visible() reads belongs to `cur` (NULL: to nobody) and is made again. */
static void weigh_values(tile_run *run, tile_work *w, tile_job *job, tile_job *cur)
{
    const qkv_shape *shape = run->tile->shape;
    const int reals = value_step_reals(job->t.dv);

    if (run->v_block != job->block.j0) {
        value_operands(shape, job->t.vw, run->kv, run->v_type, &job->block);
        run->v_block = job->block.j0;
        run->finite = -1;
    }
    if (job->b.hidden && run->finite < 0)
        run->finite = values_finite(job->t.vw, job->block.n, job->t.dv);
    if (!job->b.hidden || run->finite) {
        add_values_product(w, job);
        return;
    }
    view_job(run, job);
    values_selected(w, &job->t, &job->b, job->t.vw + job->r0 / STEP * reals);
    if (cur)
        view_job(run, cur);
}

/* Scores leave the tiles unscaled; the softmax multiplies them unless something else comes first. */
static void finish_scores(const qkv_tile *tile, tile_job *job)
{
    const vf scale = v_set1((real)tile->shape->scale);
    const tile_map *t = &job->t;

    if (job->plain)
        return;
    for (int i = 0; i < job->n * t->width; i += VL)
        v_store(t->s + i, v_mul(v_load(t->s + i), scale));
    _Alignas(64) real unused[MAX_WIDTH];
    adjust_scores(tile, t, &job->b, unused);
}

/* Weights of Z vectors of queries, as soften_width; the work goes on meanwhile. */
INLINE void soften_tiles(tile_job *job, real factor, tile_work *w, const int Z)
{
    const tile_map *t = &job->t;
    const int width = t->width, n = job->n, pairs = (n + 1) / 2;
    const vf scale = v_set1(factor), unit = v_set1(weight_unit());
    vf m[LANES], near[LANES], shift[LANES], sum[LANES];
    int far = 0;

    UNROLL for (int z = 0; z < Z; z++) m[z] = v_load(t->m + z * VL);
    for (int r = 0; r < n; r++) {
        UNROLL for (int z = 0; z < Z; z++) /* keeps m where the score is NaN */
            m[z] = v_max(v_mul(v_load(t->s + r * width + z * VL), scale), m[z]);
        if (r % ROWS_A_STEP == 0)
            work_step(w);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        near[z] = no_infinity(m[z]);
        shift[z] = weight_shift(near[z]);
        far |= any_far(near[z]);
        sum[z] = v_zero();
    }
    const int left = work_left(w);
    for (int i = 0, due = 0; i < pairs; i++) {
        const real *s = t->s + 2 * i * width;
        UNROLL for (int z = 0; z < Z; z++)
        {
            const vf x = v_mul(v_load(s + z * VL), scale);
            const vf y = v_mul(v_load(s + width + z * VL), scale);
            const vf p = exp_weight(far ? exponent_far(x, v_set1(1), near[z], unit, shift[z])
                                        : exponent(x, unit, shift[z]));
            const vf more = exp_weight(far ? exponent_far(y, v_set1(1), near[z], unit, shift[z])
                                           : exponent(y, unit, shift[z]));
            const vf next = 2 * i + 1 < n ? more : v_zero();
            sum[z] = v_add(v_add(sum[z], p), next);
            store_weights(t->s, width, 2 * i, z, p, next);
        }
        for (due += left; due >= pairs; due -= pairs)
            work_step(w);
    }
    UNROLL for (int z = 0; z < Z; z++)
    {
        const int at = z * VL;
        const vf a = weight_of_old(v_load(t->m + at), near[z]);
        v_store(t->rescale + at, a);
        v_store(t->l + at, v_fma(v_load(t->l + at), a, sum[z]));
        v_store(t->m + at, m[z]);
    }
}

/* Weights up to a whole step of keys are 0. */
static void pad_weights(const tile_job *job)
{
    const int row = PARTS * job->t.width, first = (job->n + 1) / 2;
    const int end = steps_of(job->n) * (STEP / 2);
    memset(job->t.s + first * row, 0, (size_t)((end - first) * row) * sizeof(real));
}

static void soften_job(const qkv_tile *tile, tile_job *job, tile_work *w)
{
    const real factor = job->plain ? (real)tile->shape->scale : 1;

    if (job->t.vectors == 1)
        soften_tiles(job, factor, w, 1);
    else
        soften_tiles(job, factor, w, 2);
    pad_weights(job);
}

static void run_jobs(tile_run *run, tile_file *file, real *sums[2])
{
    tile_job jobs[3], *last = NULL, *job = &jobs[0], *next = &jobs[1];
    tile_work w = {.file = file, .sums = {sums[0], sums[1]}};
    int n = 0, more = next_job(run, job, 0);

    if (more)
        add_scores_product(&w, job);
    while (more) {
        finish_work(&w);
        w.n = w.now = 0;
        if (last)
            weigh_values(run, &w, last, job);
        finish_scores(run->tile, job);
        more = next_job(run, next, ++n % 2);
        if (more)
            add_scores_product(&w, next);
        if (job->b.any)
            soften_job(run->tile, job, &w);
        last = job->b.any ? job : NULL;
        job = next;
        next = &jobs[(n + 1) % 3];
    }
    finish_work(&w);
    w.n = w.now = 0;
    if (last)
        weigh_values(run, &w, last, NULL);
    finish_work(&w);
}

static void attend_keys(const qkv_tile *tile, const qkv_kv *kv, int k_type, int v_type, int64_t j0,
                        int64_t j1)
{
    _Alignas(64) real scores[BLOCK * MAX_WIDTH], sums[2][SUM_REALS];
    const tile_config config = whole_tiles();
    tile_run run = {.tile = tile, .kv = kv, .k_type = k_type, .v_type = v_type, .from = j0,
                    .end = j1, .n_subs = sub_tiles_of(tile->n_lanes),
                    .j = j0 / KEY_UNIT * KEY_UNIT, .k_block = -1, .v_block = -1};
    tile_file file;

    for (int sub = 0; sub < run.n_subs; sub++)
        run.maps[sub] = map_tile(tile, sub);
    run.scores[0] = run.maps[0].s;
    run.scores[1] = scores;
    t_configure(&file, &config);
    run_jobs(&run, &file, (real *[2]){sums[0], sums[1]});
    t_release(&file);
}
